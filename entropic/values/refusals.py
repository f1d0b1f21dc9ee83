"""What is said of a returned value that no document holds, and what is left of it for a person to read."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime, time
from enum import Enum
from io import IOBase
from types import FunctionType, ModuleType
from typing import Any

from entropic.display.text import printed
from entropic.values.objects import state_of

__all__ = ["as_text", "parts_left", "refusal"]


def refusal(value: Any, path: Sequence[str], *, is_fixed: bool) -> TypeError:
    """Return the error of a value at the place to which *path* leads.

    Parameters
    ----------
    is_fixed : bool
        Whether its type is one that cannot be given to `entropic.register_codec`.
    """
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    place = "".join(f"[{step}]" for step in path)
    start = f"cannot store the returned value{place and f' at {place}'}: it is"
    if isinstance(value, Iterator | IOBase):
        return TypeError(
            f"{start} a {name}, which can be read once only. Return what it gives, as in list(...)"
        )
    if is_fixed or kind is object or isinstance(value, Enum):
        is_time = kind in {datetime, time}
        way = "a zone of zoneinfo or datetime.timezone" if is_time else "a plain value, or a dict"
        return TypeError(
            f"{start} {printed(value):.200}, of type {name}: no document would give an equal one back. Return one with "
            f"{way} in its place"
        )
    hint = "return plain values and arrays instead, or " if place else ""
    array: Any = getattr(sys.modules.get("numpy"), "ndarray", ())
    if isinstance(value, array):
        name = f"{name} of dtype {value.dtype}"
        hint = "return numpy.asarray(...) with a dtype that is no object, or "
    return TypeError(
        f"{start} a {name}. To keep it, {hint}say how such a value is written and read, with "
        f"entropic.register_codec({kind.__qualname__}, suffix, save=..., load=...)"
        + (", and return it by itself" if place else "")
    )


def parts_left(value: Any) -> Any:
    """Return what makes up a value of a type that has no format, for what of it has one; None if that is not known."""
    array: Any = getattr(sys.modules.get("numpy"), "ndarray", ())
    if isinstance(value, array):
        return value.tolist()
    try:
        if isinstance(value, Mapping):
            return dict(value.items())
        if isinstance(value, list | tuple | Set):
            return list(value)
        is_code = isinstance(value, type | ModuleType | FunctionType)
        return None if is_code else state_of(value) or None
    except Exception:  # of a type of the user's, which may do anything
        return None


def as_text(value: Any) -> str:
    """Return a value that no format holds as text: a frame whole, others as they print."""
    try:
        if hasattr(value, "to_csv"):
            return str(value.to_csv())
        # Of xarray, whose repr is short, all.
        return printed(value.to_dict() if hasattr(value, "to_dict") else value)
    except Exception:  # a class of the user's may do anything
        return printed(value)
