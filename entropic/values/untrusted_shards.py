"""Shards of zarr arrays that anybody may have written: no part of one is more than one chunk.

A shard is a file of many chunks, with an index that says where each is; an index that names one chunk again and again
makes a small file as large in memory as it likes. No writer does that.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from entropic.errors import DecodeError

__all__ = ["require_shards_apart"]

_SHARDS = "sharding_indexed"
_ENTRY_BYTES = 16  # of an index: place and size
_ABSENT = (1 << 64) - 1
_CHECKSUM_BYTES = 4
_METADATA = frozenset({"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"})


@dataclass(frozen=True, slots=True)
class _Level:
    """How a shard is laid out; shards may be in shards.

    Attributes
    ----------
    count : int
        Of chunks in it.
    """

    count: int
    index_bytes: int
    dtype: str
    is_at_end: bool
    within: _Level | None


def require_shards_apart(metadata: dict[str, Any], folder: str, shape: tuple[int, ...]) -> None:
    """Raise `DecodeError` if in a shard of an array two chunks share bytes, or it is packed as a whole.

    Parameters
    ----------
    metadata : dict
        Of the array.
    shape : tuple of int
        Of what is in one file of the array.
    """
    level = _level(metadata.get("codecs", ()), shape, folder)
    if level is None:
        return
    for path in _files(folder):
        with Path(path).open("rb") as file:
            _require_apart(file, path, 0, os.fstat(file.fileno()).st_size, level)


def _files(folder: str) -> Iterator[str]:
    for above, _, names in os.walk(folder):
        yield from (os.path.join(above, name) for name in names if name not in _METADATA)


def _level(codecs: Any, shape: tuple[int, ...], folder: str) -> _Level | None:
    """Return how the shards of these codecs are laid out; None if there are none."""
    names = [_name(one) for one in codecs]
    if _SHARDS not in names:
        return None
    place = names.index(_SHARDS)
    options = codecs[place]["configuration"]
    inner = tuple(options["chunk_shape"])
    order = [_name(one) for one in options["index_codecs"]]
    if place != len(names) - 1 or order not in (["bytes"], ["bytes", "crc32c"]) or 0 in inner:
        raise DecodeError(
            f"the shards in {folder!r} are packed as a whole, or their indexes are, and are not read"
        )
    count = math.prod(shape) // math.prod(inner)
    endian = options["index_codecs"][0].get("configuration", {}).get("endian", "little")
    return _Level(
        count,
        _ENTRY_BYTES * count + _CHECKSUM_BYTES * (len(order) - 1),
        ">u8" if endian == "big" else "<u8",
        options.get("index_location", "end") == "end",
        _level(options["codecs"], inner, folder),
    )


def _name(codec: Any) -> str:
    return str(codec["name"] if isinstance(codec, dict) else codec)


def _require_apart(file: BinaryIO, path: str, start: int, size: int, level: _Level) -> None:
    import numpy as np

    if level.index_bytes > size:
        raise DecodeError(f"{path!r} is too small to be a shard of {level.count} chunks, and is not read")
    file.seek(start + (size - level.index_bytes if level.is_at_end else 0))
    index = np.frombuffer(file.read(_ENTRY_BYTES * level.count), level.dtype).reshape(-1, 2)
    places = sorted((int(place), int(length)) for place, length in index if place != _ABSENT)
    end = 0
    for place, length in places:
        if place < end or place + length > size:
            raise DecodeError(
                f"{path!r} has a chunk that shares bytes with another one, or has none, and is not read"
            )
        end = place + length
    if level.within is not None:
        for place, length in places:
            _require_apart(file, path, start + place, length, level.within)
