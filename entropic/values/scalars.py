"""Scalars that JSON has no word for, by exact type: what a document holds of each, and how it is made again.

Everything here is given what a file says, and takes nothing for granted: content that does not fit its type is an
error, and nothing is worked out of it that a few characters could make endless.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

__all__ = ["CODECS", "NUMBER", "from_text", "of_type", "parts_as"]

NUMBER = (float, int)  # PostgreSQL's JSONB gives 1 for 1.0
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


def _decode_fraction(text: str) -> Fraction:
    if not _FRACTION.fullmatch(text):  # "1e999999999" would be worked out
        raise ValueError(f"{text!r:.80} is not two whole numbers")
    return Fraction(text)


def _decode_range(content: Any) -> range:
    return range(*parts_as(content, (int,), (int,), (int,)))


def from_text(function: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return a function that makes a value of a text, and of nothing else."""
    return lambda content: function(of_type(content, str))


def _encode_datetime(value: datetime) -> list[Any] | None:
    if type(value.tzinfo) is ZoneInfo and value.tzinfo.key:
        return [value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo.key]
    if value.tzinfo is not None and type(value.tzinfo) is not timezone:
        return None  # of a zone without a name only the offset would be kept
    # The offset by itself: fromisoformat() reads one of less than a second as UTC.
    return [value.replace(tzinfo=None).isoformat(), value.fold, value.utcoffset()]


def _decode_datetime(content: Any) -> datetime:
    text, fold, offset = parts_as(content, (str,), (int,), (timedelta, str, type(None)))
    zone: Any = ZoneInfo(offset) if isinstance(offset, str) else None if offset is None else timezone(offset)
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _encode_time(value: time) -> list[Any] | None:
    zone = value.tzinfo
    text = [value.replace(tzinfo=None).isoformat(), value.fold]
    if zone is None:
        return text
    if type(zone) is ZoneInfo and zone.key:
        return [*text, zone.key]
    return [*text, zone.utcoffset(None)] if type(zone) is timezone else None


def _decode_time(content: Any) -> time:
    if len(of_type(content, list)) == 2:  # without a zone
        content = [*content, None]
    text, fold, offset = parts_as(content, (str,), (int,), (timedelta, str, type(None)))
    zone: Any = ZoneInfo(offset) if isinstance(offset, str) else None if offset is None else timezone(offset)
    return time.fromisoformat(text).replace(fold=fold, tzinfo=zone)


# By exact type: a subclass, such as an IntEnum or a namedtuple, would come back as something else.
CODECS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "complex": (complex, lambda z: [z.real, z.imag], lambda c: complex(*parts_as(c, NUMBER, NUMBER))),
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
    "fraction": (Fraction, str, from_text(_decode_fraction)),
    "uuid": (UUID, str, from_text(UUID)),
    "range": (range, lambda r: [r.start, r.stop, r.step], _decode_range),
    "path": (type(Path()), str, from_text(Path)),
    "posix path": (PurePosixPath, str, from_text(PurePosixPath)),
    "windows path": (PureWindowsPath, str, from_text(PureWindowsPath)),
}
