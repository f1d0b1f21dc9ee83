"""Hints in messages: what somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the known name that is most like *name*, or nothing.

    Examples
    --------
    >>> did_you_mean("dtt", ["n", "dt"])
    "; did you mean 'dt'?"
    """
    by_lower = {one.lower(): one for one in reversed(list(known))}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
