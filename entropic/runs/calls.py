"""How what is computed is called, a runner or what is computed once: inside of its run, and with a word on its errors.

A process that it forks has inherited all that its caller was about to do: it ends where the call does.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from entropic.process.raised import note_on
from entropic.runs.answers import answering
from entropic.runs.inside import Run, running

__all__ = ["call_inside", "explain"]

T = TypeVar("T")

_ASKING = {"entropic.store", "entropic.functions.memoized", "entropic.datastore.store"}
_DEEP = (
    "too many runs were inside of each other: sweep the parameters from those that need no other run on, so that each "
    "finds the results that it needs"
)


def call_inside(run: Run, outer: tuple[Run, ...], function: Callable[..., T], *arguments: Any) -> T:
    """Call *function* inside of *run*, which was begun for the runs *outer*; a process that it forked ends here."""
    answering()
    pid = os.getpid()
    with running(run, outer):
        try:
            return function(*arguments)
        finally:
            if os.getpid() != pid:
                _end_child(sys.exc_info()[1])


def _end_child(error: BaseException | None) -> NoReturn:
    """End a forked process as if its script ended here, without the clean-up that it has of its parent."""
    status = 0
    with suppress(BaseException):
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            status = (error.code or 0) & 0xFF
        elif error is not None:
            status = 1
            what = [f"{error.code}\n"] if isinstance(error, SystemExit) else traceback.format_exception(error)
            sys.stderr.writelines(what)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):  # it may be closed, or a pipe that nobody reads
            stream.flush()
    os._exit(status)


def explain(error: BaseException, name: str, stored: Mapping[str, Any]) -> bool:
    """Note on the error of a run what was run; return whether too many runs were inside of each other."""
    is_deep = isinstance(error, RecursionError) and _has_asked(error)
    note_on(error, f"while running {name} with {_brief(stored)}")
    if is_deep:
        note_on(error, _DEEP)
    return is_deep


def _has_asked(error: BaseException) -> bool:
    """Whether an error came while a runner asked for another run."""
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_globals.get("__name__") in _ASKING:
            return True
        step = step.tb_next
    return False


def _brief(stored: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name}={value!r}" for name, value in stored.items())
    return text if len(text) <= 500 else text[:497] + "..."
