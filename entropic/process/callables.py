"""What can be said of a function of a user's before it is called."""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["STILL_TO_BE_RUN", "returns_later"]

STILL_TO_BE_RUN = "is still to be run, as of each coroutine and generator"

_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def returns_later(function: Any) -> bool:
    """Whether a call of *function* does nothing yet: what it returns is still to be run."""
    call: Any = type(function).__call__
    return any(is_later(one) for is_later in _LATER for one in (function, call))
