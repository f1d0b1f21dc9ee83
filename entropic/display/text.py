"""Values and lists of them as text that fits a screen."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any, TypeVar

__all__ = ["DIGITS_BITS", "Listing", "described", "listed", "printed", "short", "written"]

T = TypeVar("T")

WIDTH = 60  # characters of one value
LINE = 100
LINES = 30
DIGITS_BITS = 2000  # above, Python may refuse to write an int as decimal digits


class _Brief(reprlib.Repr):
    """Prints whatever there is, ints of any size among it."""

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= DIGITS_BITS else f"{hex(x):.20}... ({x.bit_length()} bits)"


_brief = _Brief()


def printed(value: Any) -> str:
    """Return the repr of *value*, shortened where Python makes none: of too large an int, or by a class's mistake."""
    try:
        return repr(value)
    except Exception:
        try:
            return _brief.repr(value)
        except Exception as error:
            return f"<a {type(value).__qualname__} that cannot be printed: {type(error).__name__}>"


def short(value: Any, width: int = WIDTH) -> str:
    """Return the repr of *value* on one line, its middle left out where it is longer than *width*.

    Examples
    --------
    >>> short("x" * 100, 20)
    "'xxxxxxx ... xxxxxx'"
    """
    text = " ".join(printed(value).split())
    if len(text) <= width:
        return text
    kept = width - 5
    return f"{text[: kept - kept // 2]} ... {text[-(kept // 2) :]}"


def described(value: Any) -> str:
    """Return the beginning of the repr of *value*, and its type.

    Examples
    --------
    >>> described(1.5)
    '1.5 (float)'
    """
    return f"{written(value)} ({type(value).__name__})"


def written(value: Any, width: int = 80) -> str:
    """Return the beginning of the repr of *value*."""
    text = printed(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def listed(items: Iterable[Any]) -> str:
    """Return a list's repr: on one line if it fits, else a line for each item, and the last of many left out."""
    all_items = list(items)
    shown = [printed(item) for item in all_items[:LINES]]
    line = f"[{', '.join(shown)}]"
    if len(all_items) <= LINES and len(line) <= LINE:
        return line
    more = [f"... {len(all_items) - LINES} more"] if len(all_items) > LINES else []
    return "[" + ",\n ".join([*shown, *more]) + "]"


class Listing(list[T]):
    """A list that prints with a line for each of its items."""

    def __repr__(self) -> str:
        return listed(self)
