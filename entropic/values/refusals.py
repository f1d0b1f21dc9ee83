"""What is said of a returned value that no document holds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, time
from enum import Enum
from io import IOBase
from typing import Any

from entropic.display.text import printed

__all__ = ["place_of", "refusal"]


def refusal(value: Any, path: Iterable[str], *, is_fixed: bool) -> TypeError:
    """Return the error of a value at the place to which *path* leads.

    Parameters
    ----------
    is_fixed : bool
        Whether its type is one that cannot be given to `entropic.register_codec`.
    """
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    place = place_of(path)
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


def place_of(path: Iterable[str]) -> str:
    """Return the way to a part of a value, as people read it."""
    return "".join(f"[{step}]" for step in path)
