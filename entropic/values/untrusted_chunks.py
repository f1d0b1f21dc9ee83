"""Chunks of zarr arrays that anybody may have written: none unpacks to more than its array has there.

How large a chunk is between each two of its codecs follows from the shape and type of its array. What a codec is given
to read, or what it unpacks, is compared with that before it is allocated. Where texts are packed, nobody knows
beforehand how long they are: they may take what the folder as a whole may.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from threading import Lock
from typing import Any

from entropic.errors import DecodeError
from entropic.values.untrusted import Budget

__all__ = ["PACKING", "TEXTS", "ChunkStep", "chunk_steps"]

TEXTS = frozenset({"vlen-array", "vlen-bytes", "vlen-utf8"})
_OF_ONE_SIZE = frozenset({"bitround", "transpose"})
_CHECKSUMS = frozenset({"adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3"})
_CHECKSUM_BYTES = 4
_LENGTH = struct.Struct("<I")
_CONVERTING = {  # which of their options say what an array is of, and what is written
    "astype": ("decode_dtype", "encode_dtype"),
    "categorize": ("dtype", "astype"),
    "delta": ("dtype", "astype"),
    "fixedscaleoffset": ("dtype", "astype"),
    "quantize": ("dtype", "astype"),
}
_LZMA_BYTES = 66 << 20  # what unpacks the best that LZMA's presets pack, which takes a dictionary of 64 MiB
_ZSTD_BLOCK = 1 << 17  # the most that a block has
_ZSTD_FRAME = b"\x28\xb5\x2f\xfd"


class _TooMuchError(Exception):
    """A stream has more than it may have."""


class ChunkStep:
    """One codec of an array, and what a chunk may be before and after it on its way into the file.

    Parameters
    ----------
    codec : str
        Its name, without the prefix of numcodecs.
    options : dict
        What the metadata say of it besides.
    before, after : int, optional
        Bytes of a whole chunk. None where only the file says so.
    count : int
        Of the values of a chunk.
    name : str
        Of the array.
    budget : Budget
        From which texts are taken, when their lengths are known.
    lock : Lock
        Held meanwhile; one for all that take from it.

    Notes
    -----
    Safe to use from several threads.
    """

    def __init__(
        self,
        codec: str,
        options: dict[str, Any],
        *,
        before: int | None,
        after: int | None,
        count: int,
        name: str,
        budget: Budget,
        lock: Lock,
    ) -> None:
        self.codec = codec
        self.before = before
        self.after = after
        self._options = options
        self._count = count
        self._name = name
        self.budget = budget
        self._lock = lock

    def unpack(self, buffer: Any) -> Any:
        """Return what is packed in a buffer; raise `DecodeError` before that is more than it may be."""
        most = self.budget.left if self.before is None else self.before
        try:
            return PACKING[self.codec](_octets_of(buffer), most, self.before is not None, self._options)
        except _TooMuchError:
            raise DecodeError(
                f"{self._name!r} in {self.budget.path!r} has a chunk that {self.codec} unpacks to more than "
                f"the {most} bytes that it may have, and is not read"
            ) from None

    def require(self, buffer: Any) -> None:
        """Raise `DecodeError` if what is to be decoded is not what this codec has written of a whole chunk."""
        octets = _octets_of(buffer)
        if self.after is not None and len(octets) > self.after:
            raise DecodeError(
                f"{self._name!r} in {self.budget.path!r} has a chunk of {len(octets)} bytes where its shape and type "
                f"make {self.after}, and is not read"
            )
        taken = 0
        if self.codec in TEXTS:
            taken = self._text_bytes(octets)
        elif self.codec == "categorize":
            taken = self._count * max(map(len, self._options.get("labels", ())), default=0)
        with self._lock:
            self.budget.take(taken, self._name)

    def _text_bytes(self, octets: memoryview) -> int:
        """Return how many bytes the texts in a chunk have, each of which has its length before it."""
        said = int.from_bytes(octets[:4], "little")
        if said != self._count:
            raise DecodeError(
                f"{self._name!r} in {self.budget.path!r} has a chunk that claims to have {said} texts, where its "
                f"shape makes {self._count}, and is not read"
            )
        place, length_at = 4, _LENGTH.unpack_from
        try:
            for _ in range(said):
                place += 4 + length_at(octets, place)[0]
        except struct.error:
            place = len(octets) + 1
        if place > len(octets):
            raise DecodeError(
                f"{self._name!r} in {self.budget.path!r} has a chunk with a text that is longer than what is there, "
                "and is not read"
            )
        return place - 4 - 4 * said


def _octets_of(buffer: Any) -> memoryview:
    """Return the bytes of a buffer or an array, in the order that they have in memory."""
    import numpy as np

    array = buffer if isinstance(buffer, np.ndarray) else np.frombuffer(buffer, "u1")
    octets: Any = array.ravel(order="A").view("u1")
    return memoryview(octets)


def chunk_steps(
    codecs: list[tuple[str, dict[str, Any]]], count: int, size: int | None, name: str, budget: Budget
) -> list[ChunkStep]:
    """Return what each codec of an array may be given; raise `DecodeError` if that of one cannot be told.

    Parameters
    ----------
    codecs : list of (str, dict)
        Their names and options, in the order of writing.
    count : int
        Of the values of a chunk.
    size : int, optional
        Bytes of a chunk. None if its values are objects.
    name : str
        Of the array.
    """
    if sum(codec.removeprefix("numcodecs.") in PACKING for codec, _ in codecs) > 1:
        raise DecodeError(
            f"{name!r} in {budget.path!r} is packed more than once, so that it may unpack to any size, and is not read "
            "as a whole: read what you need of it by record.open()"
        )
    steps: list[ChunkStep] = []
    lock = Lock()
    are_objects = size is None  # of which no codec has made bytes yet
    for full_name, options in codecs:
        codec = full_name.removeprefix("numcodecs.")
        if codec not in (_OF_OBJECTS if are_objects else _OF_BYTES if size is None else _OF_ARRAYS):
            raise DecodeError(
                f"{name!r} in {budget.path!r} is packed by {full_name!r} so that nobody can tell beforehand how much "
                "it unpacks to, and is not read as a whole: read what you need of it by record.open()"
            )
        after = _written(codec, options, size, count)
        are_objects = are_objects and codec == "transpose"
        shared: dict[str, Any] = {"name": name, "budget": budget, "lock": lock}
        steps.append(ChunkStep(codec, options, before=size, after=after, count=count, **shared))
        size = after
    return steps


def _written(codec: str, options: dict[str, Any], size: int | None, count: int) -> int | None:
    """Return how many bytes a codec writes of so many."""
    if codec == "categorize" and size is None:
        return count * _width(options.get("astype", "u1"))
    if size is None or codec in TEXTS or codec in PACKING:
        return None
    if codec in _CHECKSUMS:
        return size + _CHECKSUM_BYTES
    if codec == "packbits":
        return 1 + -(-size // 8)  # the first says how many bits are to spare
    if codec == "base64":
        return 4 * -(-size // 3)
    if codec in _CONVERTING:
        read, written = (options.get(key) for key in _CONVERTING[codec])
        if read is not None and written is not None:
            return size // max(1, _width(read)) * _width(written)
    return size


def _width(dtype: Any) -> int:
    import numpy as np

    return int(np.dtype(dtype).itemsize)


def _unzip(octets: memoryview, most: int, is_exact: bool, options: dict[str, Any]) -> Any:
    return _streams(octets, most, lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16))


def _inflate(octets: memoryview, most: int, is_exact: bool, options: dict[str, Any]) -> Any:
    return _streams(octets, most, zlib.decompressobj)


def _unbzip(octets: memoryview, most: int, is_exact: bool, options: dict[str, Any]) -> Any:
    import bz2

    return _streams(octets, most, bz2.BZ2Decompressor)


def _unlzma(octets: memoryview, most: int, is_exact: bool, options: dict[str, Any]) -> Any:
    import lzma

    kind, filters = options.get("format", lzma.FORMAT_XZ), options.get("filters")
    limit: int | None = _LZMA_BYTES
    if kind == lzma.FORMAT_RAW:  # its memory follows from the filters, and may not be limited otherwise
        limit = None
        if sum(one.get("dict_size", 0) for one in filters or ()) > _LZMA_BYTES:
            raise _TooMuchError
    return _streams(octets, most, lambda: lzma.LZMADecompressor(kind, limit, filters))


def _streams(octets: memoryview, most: int, start: Callable[[], Any]) -> bytearray:
    """Return what is in one stream after another, and stop where it is more than it may be."""
    found = bytearray()
    rest = bytes(octets)
    while rest:
        stream = start()
        found += stream.decompress(rest, most + 1 - len(found))
        if len(found) > most:
            raise _TooMuchError
        if not stream.eof:
            raise EOFError("the end of a packed chunk is missing")
        rest = stream.unused_data.lstrip(b"\0")  # as gzip may be padded
    return found


def _unblosc(octets: memoryview, most: int, is_exact: bool, options: dict[str, Any]) -> Any:
    return _said("blosc", octets, int.from_bytes(octets[4:8], "little"), most)


def _unlz4(octets: memoryview, most: int, is_exact: bool, options: dict[str, Any]) -> Any:
    return _said("lz4", octets, int.from_bytes(octets[:4], "little"), most)


def _unzstd(octets: memoryview, most: int, is_exact: bool, options: dict[str, Any]) -> Any:
    import numcodecs
    import numpy as np

    said, largest = _zstd_sizes(octets)
    if said is None and is_exact and largest > most:
        try:
            return numcodecs.get_codec({"id": "zstd"}).decode(octets, out=np.empty(most, "u1"))
        except RuntimeError as error:
            if "too small" in str(error):
                raise _TooMuchError from error
            raise
    return _said("zstd", octets, largest if said is None else said, most)


def _said(codec: str, octets: memoryview, size: int, most: int) -> Any:
    """Return what is packed by a codec that allocates what the header says, and no more."""
    import numcodecs

    if size > most:
        raise _TooMuchError
    return numcodecs.get_codec({"id": codec}).decode(octets)


def _zstd_sizes(octets: memoryview) -> tuple[int | None, int]:
    """Return how much the frames of zstd say that they have, None if one does not say it, and the most they can."""
    said: int | None = 0
    largest = place = 0
    while place < len(octets):
        if octets[place : place + 4] != _ZSTD_FRAME:
            raise ValueError("what is said to be packed by zstd is not")
        flags = octets[place + 4 : place + 5].tobytes() or b"\0"
        is_single, size_flag = flags[0] & 0x20, flags[0] >> 6
        place += 5 + (not is_single) + (0, 1, 2, 4)[flags[0] & 3]
        width = (1 if is_single else 0, 2, 4, 8)[size_flag]
        size = int.from_bytes(octets[place : place + width], "little") + (256 if width == 2 else 0)
        place += width
        blocks, place = _zstd_blocks(octets, place)
        place += 4 if flags[0] & 4 else 0
        said = said + size if said is not None and width else None
        largest += size if width else blocks
    return said, largest


def _zstd_blocks(octets: memoryview, place: int) -> tuple[int, int]:
    """Return the most that the blocks from a place on can have, and where they end."""
    largest, is_last = 0, False
    while not is_last:
        if place + 3 > len(octets):
            raise EOFError("the end of a packed chunk is missing")
        head = int.from_bytes(octets[place : place + 3], "little")
        is_last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
        largest += _ZSTD_BLOCK if kind == 2 else size
        place += 3 + (1 if kind == 1 else size)
    return largest, place


PACKING: dict[str, Callable[[memoryview, int, bool, dict[str, Any]], Any]] = {
    "blosc": _unblosc,
    "bz2": _unbzip,
    "gzip": _unzip,
    "lz4": _unlz4,
    "lzma": _unlzma,
    "zlib": _inflate,
    "zstd": _unzstd,
}
"""What unpacks a buffer: to so many bytes at most, or just so many, by the options of its codec."""
_OF_BYTES = frozenset({"base64", "bytes", "endian", "shuffle"}) | _CHECKSUMS | PACKING.keys()
_OF_ARRAYS = _OF_BYTES | _OF_ONE_SIZE | _CONVERTING.keys() | {"packbits"}
_OF_OBJECTS = TEXTS | {"categorize", "transpose"}
