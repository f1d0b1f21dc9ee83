"""The digests of arrays: of values as they come back, in one byte order, so that they say the same everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from entropic.values.kinds import without_padding

__all__ = ["content_digest", "differs_from_fill", "digest_of", "is_digest_of", "little_endian"]

_WITHOUT_ORDER = "OT"  # kinds of which an array holds addresses
_TOGETHER = 1 << 18  # elements that are compared at a time


def little_endian(values: Any) -> Any:
    """Return an array in little-endian order: zarr keeps no other, and mistakes that of a field in a structure."""
    return _ordered(values, "<")


def _ordered(values: Any, order: str) -> Any:
    if values.dtype.kind in _WITHOUT_ORDER:
        return values
    return values.astype(values.dtype.newbyteorder(order), copy=False)


def content_digest(document: Any, arrays: Mapping[str, Any]) -> str:
    """Return a digest of a value by its document, whatever the order of dicts and of arrays in memory."""
    import numpy

    whole = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        flat: Any = without_padding(numpy.ascontiguousarray(array)).reshape(-1)
        # An array of structures has its fields in the digest of its dtype.
        digest = hashlib.sha256(flat.view("u1") if array.nbytes else b"").hexdigest()
        whole.update(json.dumps([name, str(array.dtype.descr), list(array.shape), digest]).encode())
    return whole.hexdigest()


def digest_of(values: Any) -> str:
    """Return the SHA-256 of values in C order, little-endian; of texts of any length, of those and their lengths."""
    if values.dtype.kind not in _WITHOUT_ORDER:
        return _sha256(little_endian(values))
    digest = hashlib.sha256()
    for value in values.reshape(-1).tolist():
        octets = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        digest.update(b"%d\0" % len(octets))
        digest.update(octets)
    return digest.hexdigest()


def is_digest_of(values: Any, noted: object) -> bool:
    """Whether a digest is of these values; it may be one of before, in whichever byte order they were given."""
    return noted == digest_of(values) or noted in {_sha256(values), _sha256(_ordered(values, ">"))}


def _sha256(values: Any) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


def differs_from_fill(values: Any, fill: Any) -> bool:
    """Whether a value equals the fill value and has other bits, as -0.0 or another NaN, which zarr may leave out."""
    import numpy

    if fill is None or values.dtype.kind not in "fcV":
        return False
    filling, flat = numpy.asarray(fill, values.dtype).reshape(1), numpy.ascontiguousarray(values).reshape(-1)
    bits = f"V{values.dtype.itemsize}"
    is_nan = values.dtype.kind in "fc" and numpy.isnan(filling[0])
    for start in range(0, flat.size, _TOGETHER):
        part = flat[start : start + _TOGETHER]
        is_equal = numpy.isnan(part) if is_nan else part == filling
        if (is_equal & (part.view(bits) != filling.view(bits))).any():
            return True
    return False
