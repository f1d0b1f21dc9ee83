"""Of which script a class in `__main__` is, in that script and in the processes that it was sent to.

`__main__` is another module in each process: the name of its file tells scripts apart. A chunk of a sweep has with it
the name of the script that sent it; of what was sent in another way a process that does not run the script knows
nothing, and says so, since two scripts may have a class of one name.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["MAIN", "module_of", "name_of_main", "sent_by"]

MAIN = ("__mp_main__", "__main__")  # the first one is a script's as the processes have it that it has started

_sender: ContextVar[str | None] = ContextVar("entropic_sender", default=None)
_senders: set[str] = set()  # of all that this process has worked for


def name_of_main() -> str:
    """Return the name under which this process's script could be imported, or of the one that it works for."""
    return _sender.get() or _name(sys.modules.get("__main__"))


@contextmanager
def sent_by(name: str) -> Iterator[None]:
    """Take classes that this process does not have itself for those of a script."""
    _senders.add(name)
    token = _sender.set(name)
    try:
        yield
    finally:
        _sender.reset(token)


def module_of(kind: type) -> str:
    """Return the module of a class; of one in a script the name of the script's file, whatever this process runs.

    Raises
    ------
    TypeError
        If the class is of a script that this process does not know.
    """
    if kind.__module__ not in MAIN:
        return kind.__module__
    mains = [sys.modules[name] for name in MAIN if name in sys.modules]
    first, _, rest = kind.__qualname__.partition(".")
    for main in mains:
        if not rest and getattr(main, first, None) is kind:
            return _name(main)
    if (sender := _sender.get()) is not None:
        return sender
    for main in mains:
        if hasattr(main, first):
            return _name(main)
    if len(_senders) == 1 and _was_sent(kind):  # to a run that has started this thread
        return next(iter(_senders))
    if not _senders and all(_name(main) == "__main__" for main in mains):
        return "__main__"  # of a notebook, or of what one has started
    for file in sorted(_files_of(kind)):
        if os.path.exists(file):
            return Path(file).stem
    if _was_sent(kind):
        raise TypeError(
            f"nobody can tell in this process which script or notebook the class {kind.__qualname__} is of: give it a "
            "full_type, such as 'lab.Source', or define it in a module"
        )
    return _name(mains[0])


def _name(main: ModuleType | None) -> str:
    script = getattr(main, "__file__", None)
    return "__main__" if script is None else Path(script).stem


def _was_sent(kind: type) -> bool:
    """Whether a class is one that cloudpickle has made, as of those that joblib and Dask send to their processes."""
    copies: list[Any] = [
        one for name, one in list(sys.modules.items()) if name.endswith("cloudpickle.cloudpickle")
    ]
    return any(kind in getattr(one, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", ()) for one in copies)


def _files_of(kind: type) -> set[str]:
    """Return where the methods of a class were written."""
    functions = [inspect.unwrap(one) for one in vars(kind).values() if isinstance(one, FunctionType)]
    own = [one.__code__.co_filename for one in functions if one.__module__ == kind.__module__]
    return {os.path.abspath(name) for name in own if not name.startswith("<")}  # as of what a dataclass makes
