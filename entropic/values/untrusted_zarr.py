"""zarr folders that anybody may have written: no link is followed, nothing is unpickled, no claim is believed.

What the metadata claim is looked at before anything is read, what a chunk claims when it is: an array is read by codecs
that unpack no more than it may have.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from entropic.disk.guarded import DEPTH
from entropic.errors import DecodeError
from entropic.values.untrusted import Budget
from entropic.values.untrusted_chunks import PACKING, TEXTS, ChunkStep, chunk_steps
from entropic.values.untrusted_shards import require_shards_apart

__all__ = ["read_zarr", "require_no_links", "require_plain_codecs"]

_UNPICKLING = frozenset({"pickle", "numcodecs.pickle"})
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


def read_zarr(array: Any, budget: Budget) -> Any:
    """Return what an open zarr array holds; raise `DecodeError` if that is more than its files can."""
    _take(array, budget)
    return _bounded(array, budget)[...]


def _take(array: Any, budget: Budget) -> None:
    name = array.path or "the array"
    outer = _outer(array)
    require_shards_apart(array.metadata.to_dict(), os.path.join(budget.path, array.path), outer)
    width = array.dtype.itemsize
    if array.dtype.hasobject:  # what was never written is a copy of one text each
        fill = array.fill_value
        width = max(width, _OBJECT_BYTES + (len(fill) if isinstance(fill, str | bytes) else 0))
    budget.require(width * math.prod(outer), name)
    budget.take(width * array.size, name)


def _outer(array: Any) -> tuple[int, ...]:
    """Return the shape of what is in one file."""
    return tuple(getattr(array, "shards", None) or array.chunks)


def _bounded(array: Any, budget: Budget) -> Any:
    """Return the same array, whose codecs unpack no more of a chunk than it may have."""
    import zarr

    metadata = array.metadata
    count = math.prod(_outer(array))
    size = None if array.dtype.hasobject else count * array.dtype.itemsize
    name = array.path or "the array"
    if metadata.zarr_format == 2:
        codecs = _bounded_second(metadata, count, size, name, budget)
    else:
        codecs = {"codecs": _bounded_third(metadata.codecs, count, size, name, budget)}
    metadata = replace(metadata, **codecs)
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=array.store_path))


def _bounded_second(metadata: Any, count: int, size: int | None, name: str, budget: Budget) -> dict[str, Any]:
    of_file, _ = _bounded_codecs()
    filters = list(metadata.filters or ())
    codecs = [*filters, *([metadata.compressor] if metadata.compressor is not None else [])]
    described = [(codec.codec_id, codec.get_config()) for codec in codecs]
    steps = chunk_steps(described, count, size, name, budget)
    bounded = [of_file(codec, step) for codec, step in zip(codecs, steps, strict=True)]
    found = {"filters": bounded[: len(filters)] or None}
    return found if metadata.compressor is None else {**found, "compressor": bounded[-1]}


def _bounded_third(codecs: Any, count: int, size: int | None, name: str, budget: Budget) -> list[Any]:
    _, of_bytes = _bounded_codecs()
    described = [codec.to_dict() for codec in codecs]
    if described[-1]["name"] == "sharding_indexed":
        shard = codecs[-1]
        chunk = math.prod(shard.chunk_shape)
        steps = chunk_steps(_named(described[:-1]), count, size, name, budget)
        written = steps[-1].after if steps else size
        width = None if written is None else written // max(1, count) * chunk
        within = _bounded_third(shard.codecs, chunk, width, name, budget)
        return [*codecs[:-1], replace(shard, codecs=within)]
    found: list[Any] = []
    steps = chunk_steps(_named(described), count, size, name, budget)
    for codec, step in zip(codecs, steps, strict=True):
        found.append(of_bytes(step) if step.codec in PACKING else codec)
        if step.codec in {"bytes", "endian"} | TEXTS:  # looks at what comes from all after it
            found.append(of_bytes(step))
    return found


def _named(described: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(one["name"], one.get("configuration") or {}) for one in described]


@cache
def _bounded_codecs() -> tuple[Any, Any]:
    """Return the classes of codecs in the second version of the format, and of those of bytes in the third."""
    import asyncio

    from numcodecs.abc import Codec
    from zarr.abc.codec import BytesBytesCodec

    class Bounded(Codec):  # type: ignore[misc]
        codec_id = "entropic.bounded"

        def __init__(self, codec: Any, step: ChunkStep) -> None:
            self._codec = codec
            self._step = step

        def encode(self, buf: Any) -> Any:
            return self._codec.encode(buf)

        def decode(self, buf: Any, out: Any = None) -> Any:
            if self._step.codec in PACKING:
                return self._step.unpack(buf)
            self._step.require(buf)
            return self._codec.decode(buf, out)

    class BoundedBytes(BytesBytesCodec):  # type: ignore[misc]
        is_fixed_size = False

        def __init__(self, step: ChunkStep) -> None:
            object.__setattr__(self, "_step", step)

        async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            array = chunk_bytes.as_array_like()
            if self._step.codec not in PACKING:
                self._step.require(array)
                return chunk_bytes
            found = await asyncio.to_thread(self._step.unpack, array)
            return chunk_spec.prototype.buffer.from_bytes(found)

    return Bounded, BoundedBytes


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
