"""Kinds of values that JSON has no word for: what a document holds of scalars, and how they and arrays are made again.

Everything here is given what a file says, and takes nothing for granted: content that does not fit its type is an
error, and nothing is worked out of it that a few characters could make endless.
"""

from __future__ import annotations

import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

__all__ = [
    "CODECS",
    "decode_fields",
    "decode_masked",
    "decode_numpy",
    "decode_scalar",
    "decode_zone",
    "encode_zone",
    "from_text",
    "has_description",
    "is_plain_dtype",
    "of_type",
    "parts_as",
    "without_padding",
]


_NUMBER = (float, int)  # PostgreSQL's JSONB gives 1 for 1.0
_TIME = (str,), (int,), (timedelta, str, tuple, dict, type(None))  # with fold and zone
_PYDANTIC = "pydantic"  # whose own zones are what it reads "Z" and "+01:00" as
_ARRAY_KINDS = frozenset("biufcmMSUV")
_FRACTION = re.compile(r"-?\d+(/\d+)?")


def of_type(content: Any, kind: type) -> Any:
    """Return content of exactly this type; TypeError if it is of another."""
    if type(content) is not kind:
        raise TypeError(f"it is a {type(content).__name__}")
    return content


def parts_as(content: Any, *kinds: tuple[type, ...]) -> list[Any]:
    """Return the parts of a list, each of exactly one of its types; TypeError if there are others."""
    if len(of_type(content, list)) != len(kinds) or any(
        type(c) not in k for c, k in zip(content, kinds, strict=True)
    ):
        raise TypeError("it has other parts")
    return list(content)


def _from_base64(text: str) -> bytes:
    return b64decode(text, validate=True)


def _encode_fraction(value: Fraction) -> str | list[int]:
    try:
        return str(value)
    except ValueError:  # it has more digits than Python writes
        return [value.numerator, value.denominator]


def _decode_fraction(content: Any) -> Fraction:
    if type(content) is list:
        return Fraction(*parts_as(content, (int,), (int,)))
    text = of_type(content, str)
    if not _FRACTION.fullmatch(text):  # "1e999999999" would be worked out
        raise ValueError(f"{text!r:.80} is not two whole numbers")
    return Fraction(text)


def _decode_range(content: Any) -> range:
    return range(*parts_as(content, (int,), (int,), (int,)))


def from_text(function: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return a function that makes a value of a text, and of nothing else."""
    return lambda content: function(of_type(content, str))


def _encode_datetime(value: datetime) -> list[Any] | None:
    zone = value.tzinfo and encode_zone(value.tzinfo)
    if zone is None and value.tzinfo is not None:
        return None  # of a zone without a name only the offset would be kept
    return [value.replace(tzinfo=None).isoformat(), value.fold, zone]


def encode_zone(zone: Any) -> str | timedelta | tuple[timedelta, str] | dict[str, timedelta] | None:
    """Return what `decode_zone` makes an equal zone of, of the same type; None if there is no such thing."""
    if type(zone) is ZoneInfo:
        return zone.key or None
    if type(zone) is getattr(sys.modules.get("pydantic_core"), "TzInfo", None):
        return {_PYDANTIC: zone.utcoffset(None)}
    if type(zone) is not timezone:
        return None
    # The offset by itself: fromisoformat() reads one of less than a second as UTC.
    offset, name = zone.utcoffset(None), zone.tzname(None)
    return offset if name == timezone(offset).tzname(None) else (offset, name)


def decode_zone(zone: Any) -> Any:
    """Return the zone of which `encode_zone` made this; a list may stand for a tuple."""
    if zone is None:
        return None
    if isinstance(zone, str):
        return ZoneInfo(zone)
    if isinstance(zone, dict):
        from pydantic_core import TzInfo

        return TzInfo(of_type(zone[_PYDANTIC], timedelta).total_seconds())
    return timezone(*zone) if isinstance(zone, tuple | list) else timezone(zone)


def _decode_datetime(content: Any) -> datetime:
    text, fold, zone = parts_as(content, *_TIME)
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=decode_zone(zone))


def _encode_time(value: time) -> list[Any] | None:
    zone = value.tzinfo
    text = [value.replace(tzinfo=None).isoformat(), value.fold]
    if zone is None:
        return text
    encoded = encode_zone(zone)
    return None if encoded is None else [*text, encoded]


def _decode_time(content: Any) -> time:
    if len(of_type(content, list)) == 2:  # without a zone
        content = [*content, None]
    text, fold, zone = parts_as(content, *_TIME)
    return time.fromisoformat(text).replace(fold=fold, tzinfo=decode_zone(zone))


def is_plain_dtype(dtype: Any) -> bool:
    """Whether npy gives a dtype back as it was, without pickle."""
    if dtype.names is not None:
        return has_description(dtype) and all(is_plain_dtype(dtype[name]) for name in dtype.names)
    # Foreign dtypes, such as bfloat16, come back as void.
    base = dtype.base
    return base.kind in _ARRAY_KINDS and not base.hasobject and base.type.__module__ == "numpy"


def has_description(dtype: Any) -> bool:
    """Whether npy can say what a structured dtype is: one whose fields stand in their order."""
    try:
        return bool(dtype.descr)
    except ValueError:
        return False


def without_padding(array: Any) -> Any:
    """Return a structured array with zeros between its fields, where anything may stand that the memory had."""
    dtype = array.dtype
    if not _has_padding(dtype):
        return array
    import numpy as np

    is_by_columns = array.flags.f_contiguous and not array.flags.c_contiguous
    made = np.zeros(array.shape, dtype, order="F" if is_by_columns else "C")
    for name in dtype.names:
        made[name] = without_padding(array[name])
    return made


def _has_padding(dtype: Any) -> bool:
    if dtype.names is None:
        return False
    fields = [dtype[name] for name in dtype.names]
    return dtype.itemsize != sum(one.itemsize for one in fields) or any(
        _has_padding(one.base) for one in fields
    )


def decode_numpy(content: Any) -> Any:
    """Return a scalar of NumPy's, of its dtype and Python's value."""
    import numpy as np

    name, value = parts_as(content, (str,), (bool, int, float, complex, bytes, str))
    if not _SCALAR.fullmatch(name):
        raise ValueError(f"{name!r} is no dtype of a scalar")
    dtype = np.dtype(name).newbyteorder("=")  # scalars have the byte order of the machine
    if type(value) not in _SCALAR_TYPES[dtype.kind]:
        raise TypeError(f"{value!r} is no {dtype}")
    if dtype.kind in "mM":
        return np.array(value, "i8").view(dtype)[()]
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise ValueError(f"{value!r} is no {dtype}")  # NumPy before 2 takes what is left of the number
    whole = value  # of texts and bytes item() leaves out the NULs at the end
    if dtype.kind == "S":
        whole = value.ljust(dtype.itemsize, b"\0")
    elif dtype.kind == "U":
        whole = value.ljust(dtype.itemsize // 4, "\0")
    scalar = dtype.type(whole)
    if scalar.dtype != dtype or (scalar.item() != value and value == value):
        raise ValueError(f"{value!r} is no {dtype}")
    return scalar


def decode_scalar(content: Any) -> Any:
    """Return the one element of an array without dimensions."""
    import numpy as np

    array = of_type(content, np.ndarray)
    if array.ndim:
        raise ValueError("it is an array")
    return array[()]


def decode_fields(content: Any) -> Any:
    """Return a structured array, of its octets, its fields in an array of their own, and where each begins."""
    import numpy as np

    octets, fields, offsets = parts_as(content, (np.ndarray,), (np.ndarray,), (list,))
    names = fields.dtype.names
    formats = [fields.dtype[name] for name in names]
    size = octets.dtype.itemsize
    return octets.view(np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size}))


def decode_masked(content: Any) -> Any:
    """Return a masked array, of its parts."""
    import numpy as np

    if len(of_type(content, list)) == 3:  # with a mask, which is not hard
        content = [*content, False]
    data, mask, fill, is_hard = parts_as(
        content, (np.ndarray,), (np.ndarray, type(None)), (np.ndarray,), (bool,)
    )
    if (mask is not None and mask.shape != data.shape) or fill.ndim:
        raise ValueError("the mask is of another shape")
    mask = np.ma.nomask if mask is None else mask
    return np.ma.MaskedArray(data, mask=mask, fill_value=fill, hard_mask=is_hard)


_SCALAR = re.compile(r"[<>|][biufcmMSU]\d+(\[\w+\])?|[iIlLqQ]")
_SCALAR_TYPES: dict[str, tuple[type, ...]] = {
    "b": (bool,),
    "i": (int,),
    "u": (int,),
    "f": _NUMBER,
    "c": (complex,),
    "m": (int,),
    "M": (int,),
    "S": (bytes,),
    "U": (str,),
}

# By exact type: a subclass, such as an IntEnum or a namedtuple, would come back as something else.
CODECS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "complex": (complex, lambda z: [z.real, z.imag], lambda c: complex(*parts_as(c, _NUMBER, _NUMBER))),
    "bytes": (bytes, lambda b: b64encode(b).decode(), from_text(_from_base64)),
    "bytearray": (
        bytearray,
        lambda b: b64encode(b).decode(),
        from_text(lambda t: bytearray(_from_base64(t))),
    ),
    "datetime": (datetime, _encode_datetime, _decode_datetime),
    "date": (date, date.isoformat, from_text(date.fromisoformat)),
    "time": (time, _encode_time, _decode_time),
    "timedelta": (
        timedelta,
        lambda d: [d.days, d.seconds, d.microseconds],
        lambda c: timedelta(*parts_as(c, (int,), (int,), (int,))),
    ),
    "decimal": (Decimal, str, from_text(Decimal)),
    "fraction": (Fraction, _encode_fraction, _decode_fraction),
    "uuid": (UUID, str, from_text(UUID)),
    "range": (range, lambda r: [r.start, r.stop, r.step], _decode_range),
    "path": (type(Path()), str, from_text(Path)),
    "posix path": (PurePosixPath, str, from_text(PurePosixPath)),
    "windows path": (PureWindowsPath, str, from_text(PureWindowsPath)),
}
