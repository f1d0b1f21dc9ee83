"""zarr folders that anybody may have written: no link is followed, nothing is unpickled, no claim is believed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

from entropic.disk.guarded import DEPTH
from entropic.errors import DecodeError
from entropic.values.untrusted import Budget

__all__ = ["require_no_links", "require_plain_codecs", "take_zarr"]

_UNPICKLING = frozenset({"pickle", "numcodecs.pickle"})
_PACKING = frozenset({"blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd", "pcodec", "zfpy"})
_OBJECT_BYTES = 64  # what a text takes besides its letters


def require_no_links(path: str) -> None:
    """Raise `DecodeError` if there is a link in a folder, or folders are nested too deeply: no run wrote either."""
    waiting = [(path, 0)] if os.path.isdir(path) else []
    while waiting:
        folder, depth = waiting.pop()
        if depth > DEPTH:
            raise DecodeError(f"the folders in {path!r} are nested more than {DEPTH} deep, and are not read")
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise DecodeError(
                        f"{entry.path!r} is a link, which is not followed: copy what it leads to in its place"
                    )
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, depth + 1))


def require_plain_codecs(node: Any, path: str) -> None:
    """Raise `DecodeError` if an open zarr array, or one in a group, is packed by a codec that unpickles."""
    arrays = [node] if hasattr(node, "shape") else _arrays(node)
    for array in arrays:
        if not _UNPICKLING.isdisjoint(_codecs(array)):
            raise DecodeError(
                f"an array in {path!r} is packed by pickle, which could run code, and is not read"
            )


def _arrays(group: Any) -> Iterator[Any]:
    yield from (array for _, array in group.arrays())
    for _, inner in group.groups():
        yield from _arrays(inner)


def take_zarr(array: Any, budget: Budget) -> None:
    """Take what an open zarr array claims; raise `DecodeError` if its files cannot hold that."""
    name = array.path or "the array"
    if sum(codec.removeprefix("numcodecs.") in _PACKING for codec in _codecs(array)) > 1:
        raise DecodeError(
            f"{name!r} in {budget.path!r} is packed more than once, so that it may unpack to any size, and is not read "
            "as a whole: read what you need of it by record.open()"
        )
    width = array.dtype.itemsize
    if array.dtype.hasobject:  # what was never written is a copy of one text each
        fill = array.fill_value
        width = max(width, _OBJECT_BYTES + (len(fill) if isinstance(fill, str | bytes) else 0))
    budget.require(width * math.prod(array.chunks), name)
    budget.take(width * array.size, name)


def _codecs(array: Any) -> list[str]:
    """Return the names of all that packs an array, and of whatever else its metadata name."""
    metadata = getattr(array, "metadata", None)
    described = metadata.to_dict() if metadata is not None else [array.compressor, *(array.filters or [])]
    if isinstance(described, dict):
        described = {key: value for key, value in described.items() if key != "attributes"}
    found: list[str] = []
    waiting = [described]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            found.extend(str(one[key]) for key in ("id", "name", "codec_id") if key in one)
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)
        elif hasattr(one, "codec_id"):
            found.append(str(one.codec_id))
    return found
