"""Values and lists of them as text that fits a screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

__all__ = ["Listing", "described", "listed", "short", "written"]

T = TypeVar("T")

WIDTH = 60  # characters of one value
LINE = 100
LINES = 30


def short(value: Any, width: int = WIDTH) -> str:
    """Return the repr of *value* on one line, its middle left out where it is longer than *width*.

    Examples
    --------
    >>> short("x" * 100, 20)
    "'xxxxxxx ... xxxxxx'"
    """
    text = " ".join(repr(value).split())
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
    """Return the beginning of the repr of *value*; in hexadecimal of an int that Python does not write otherwise."""
    try:
        text = repr(value)
    except ValueError:  # of it, or of one in it
        text = hex(value) if isinstance(value, int) else object.__repr__(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def listed(items: Iterable[Any]) -> str:
    """Return a list's repr: on one line if it fits, else a line for each item, and the last of many left out."""
    all_items = list(items)
    shown = [repr(item) for item in all_items[:LINES]]
    line = f"[{', '.join(shown)}]"
    if len(all_items) <= LINES and len(line) <= LINE:
        return line
    more = [f"... {len(all_items) - LINES} more"] if len(all_items) > LINES else []
    return "[" + ",\n ".join([*shown, *more]) + "]"


class Listing(list[T]):
    """A list that prints with a line for each of its items."""

    def __repr__(self) -> str:
        return listed(self)
