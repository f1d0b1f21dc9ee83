"""What a process that `multiprocessing` starts is told by the thread that starts it.

A fork inherits its parent's state; other processes get what is pickled for them. With each goes the configuration of
its parent as `multiprocessing` has it. A value in there is made when it is pickled, which is in the thread that starts
the process, and arrives as plain values, for which a child imports nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import process
from typing import Any

__all__ = ["tell", "told"]

_KEY = "entropic"


class _Made:
    """A tuple once it is pickled: what a function returns then."""

    def __init__(self, make: Callable[[], tuple[Any, ...]]) -> None:
        self._make = make

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return tuple, (self._make(),)


_told: tuple[Any, ...] | None = None
_inherited: Any = None  # what the parent was told that this process is a fork of


def tell(make: Callable[[], tuple[Any, ...]]) -> None:
    """Give what *make* returns to each process that is started from now on, when that is done.

    Parameters
    ----------
    make : callable
        Called in the thread that starts the process; what it returns is of builtin types.
    """
    global _told
    config = _config()
    if not isinstance(config.get(_KEY), _Made):
        _told = told()  # no longer there in a moment
        config[_KEY] = _Made(make)


def told() -> tuple[Any, ...]:
    """Return what this process was given when it was started; nothing if it was not started so."""
    if _told is not None:
        return _told
    given = _config().get(_KEY)
    return given if isinstance(given, tuple) and given is not _inherited else ()


def _config() -> dict[str, Any]:
    # Its name is its own; were there none, nobody is told anything.
    config: dict[str, Any] = getattr(process.current_process(), "_config", {})
    return config


def _forget_parent() -> None:
    # Not for good: the server of `multiprocessing` forks a process first, and then tells it.
    global _told, _inherited
    _told, _inherited = None, _config().get(_KEY)


os.register_at_fork(after_in_child=_forget_parent)
