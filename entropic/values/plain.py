"""JSON as databases hold it: what any of them takes, and gives back as it was.

`plain` makes such JSON of a value where there is one. NaN and infinities are no JSON, but may travel in it:
`non_finite` says where one stands.
"""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from entropic.display.text import DIGITS_BITS, printed
from entropic.errors import ParameterError

__all__ = ["checked_custom", "non_finite", "plain", "plain_key"]


_FINITE = frozenset({str, int, bool, type(None)})


def non_finite(value: Any, path: str = "value") -> str | None:
    """Return where in a JSON-like *value* a NaN or an infinity stands, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return None
    for key, item in items:
        if type(item) in _FINITE or (type(item) is float and math.isfinite(item)):
            continue
        if found := non_finite(item, f"{path}[{key!r}]"):
            return found
    return None


def plain(value: Any) -> Any:
    """Return *value* as JSON can hold it, NaN and infinities included.

    Raises
    ------
    TypeError
        If it cannot.
    """
    try:
        return _plain(value)
    except RecursionError:
        raise TypeError("JSON cannot hold what contains itself, or is nested too deeply") from None


def checked_custom(custom_data: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``custom_data`` as databases hold it.

    Raises
    ------
    ParameterError
        If JSON cannot hold a value, or it is or has a NaN or an infinity.
    """
    checked = {}
    for name, value in custom_data.items():
        try:
            checked[name] = plain(value)
        except TypeError as error:
            raise ParameterError(f"custom_data {name!r} cannot be stored: {error}") from None
        if (path := non_finite(checked[name])) is not None:
            raise ParameterError(
                f"custom_data {name!r} cannot be stored: {path} is NaN or infinite; use None or a string"
            )
    return checked


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # JSON could spell it, but MariaDB and PostgreSQL do not take it
            raise TypeError(f"{value!a} is no text: it has half of a surrogate pair") from None
        return str.__str__(value)  # of a subclass, such as NumPy's, the text
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic | numpy.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= DIGITS_BITS else _writable(value)
    if isinstance(value, Mapping):
        return {plain_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID | PurePath):
        return str(value)
    raise TypeError(
        f"JSON cannot hold {printed(value):.100}, a {type(value).__name__}: pass numbers, texts, None, lists and dicts "
        "of them"
    )


def plain_key(key: Any) -> Any:
    """Return the key of a dict as JSON can hold it: its text; TypeError if there is none."""
    try:
        return _plain(str(key))
    except ValueError:
        raise TypeError(f"JSON cannot hold the key {printed(key):.100}: it has too many digits") from None


def _writable(number: int) -> int:
    """Return a large int if Python writes it as digits, which is how JSON has it."""
    try:
        str(number)
    except ValueError:
        raise TypeError(
            f"JSON cannot hold an int of {number.bit_length()} bits, which is too many digits: pass hex(...) of it"
        ) from None
    return number
