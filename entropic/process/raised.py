"""Exceptions of others: what is said of them and noted on them, and how they travel; nothing here fails for them.

The class of such an exception may refuse attributes, do anything in `__str__`, or come out of pickle as something else.
Whoever raised it is told what it was, in any case, and no other run is to suffer from it.
"""

from __future__ import annotations

import traceback
from contextlib import suppress

from entropic.process.logs import get_logger
from entropic.process.termination import Terminated

__all__ = ["first_line", "note_on", "pickled", "text_of", "traceback_of", "unpickled"]

log = get_logger(__name__)

_OURS = (KeyboardInterrupt, Terminated)  # which come from outside, whatever was going on


def note_on(error: BaseException, text: str) -> None:
    """Add a note to an exception, once, as far as it lets that be done."""
    try:
        if text not in getattr(error, "__notes__", ()):
            error.add_note(text)
    except _OURS:
        raise
    except BaseException:
        # A frozen one refuses the attribute that the first note needs; the list takes any number.
        with suppress(AttributeError, TypeError):
            vars(error).setdefault("__notes__", [text])


def first_line(error: BaseException) -> str:
    """Return what an exception says first; of SQLAlchemy's, what the driver said: the rest is the statement."""
    cause = getattr(error, "orig", None) or error
    return text_of(cause).partition("\n")[0] or type(cause).__name__


def text_of(error: BaseException) -> str:
    """Return what an exception says."""
    try:
        return str(error)
    except _OURS:
        raise
    except BaseException as reason:
        return f"<str() failed with {type(reason).__name__}>"


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception, as it would be printed."""
    try:
        return "".join(traceback.format_exception(error))
    except _OURS:
        raise
    except BaseException as reason:
        steps = "".join(traceback.format_tb(error.__traceback__))
        return f"{steps}{type(error).__qualname__}: <cannot be shown: {type(reason).__name__}>\n"


def pickled(error: BaseException) -> bytes | None:
    """Return an exception for another process, or None if it does not pickle."""
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(error)
    except _OURS:
        raise
    except BaseException as reason:  # it may hold anything
        log.debug("a %s does not pickle: %s", type(error).__qualname__, text_of(reason))
        return None
    return data


def unpickled(data: bytes | None) -> BaseException | None:
    """Return the exception that `pickled` was given, or None if it did not survive."""
    import cloudpickle

    if data is None:
        return None
    try:
        error = cloudpickle.loads(data)
    except _OURS:
        raise
    except BaseException as reason:  # its __reduce__ may do anything
        log.debug("an exception did not survive pickling: %s", text_of(reason))
        return None
    return error if isinstance(error, BaseException) else None
