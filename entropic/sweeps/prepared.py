"""What the initializer of an executor has prepared in each of its processes, and is nowhere else.

A runner may count on it, as on data that were read into a global. What travels by value, as from a script, has globals
of its own: of those that the initializer works on it gets what the process has under their names. Without that it would
go on with what they were where the sweep is.
"""

from __future__ import annotations

import dis
import operator
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

__all__ = ["Prepared", "initializer_of", "prepared_by"]

_GLOBALS = {"LOAD_GLOBAL", "STORE_GLOBAL"}


def initializer_of(executor: Executor | None) -> Callable[..., object] | None:
    """Return what each process of an executor does first; None if there is nothing, or there are only threads."""
    if isinstance(executor, ThreadPoolExecutor):
        return None
    initializer: Callable[..., object] | None = getattr(executor, "_initializer", None)
    return initializer


class Prepared(NamedTuple):
    """Globals of a module that an initializer works on."""

    module: str
    function: str
    """Its qualified name there."""
    names: list[str]
    probe: Callable[[], object]
    """One that travels by value, as what it is to be put into does: both have the same globals afterwards."""

    def adopt(self) -> None:
        """Put what this process has under the names into the globals of what came by value."""
        here = _globals_of(self.module, self.function)
        found = {name: here[name] for name in self.names if name in here}
        # Code is what came: in a notebook it may have been defined anew since the process was started.
        kept = (FunctionType, ModuleType)
        self.probe.__globals__.update({name: one for name, one in found.items() if not isinstance(one, kept)})


def prepared_by(initializer: Callable[..., object] | None) -> Prepared | None:
    """Return which globals an initializer works on; None if there are none, or nobody can tell."""
    function: Any = getattr(initializer, "func", initializer)
    function = getattr(function, "__func__", function)
    if callable(function) and not isinstance(function, FunctionType):
        function = type(function).__call__
    if not isinstance(function, FunctionType):
        return None
    probe = FunctionType((lambda: None).__code__, function.__globals__)
    probe.__module__, probe.__qualname__ = function.__module__, "<locals>.probe"
    names = sorted(_names_of(function, set()))
    return Prepared(function.__module__, function.__qualname__, names, probe) if names else None


def _globals_of(module: str, function: str) -> dict[str, Any]:
    """Return the globals of a function of a module, which are not the module's where a script was spawned."""
    found: Any = sys.modules.get(module)
    try:
        return dict(operator.attrgetter(function)(found).__globals__)
    except AttributeError:  # one that was made in a function
        return dict(getattr(found, "__dict__", {}))


def _names_of(function: FunctionType, seen: set[FunctionType]) -> set[str]:
    """Return the globals that a function names, and those that functions of its module do that it calls."""
    seen.add(function)
    names = set(_named_in(function.__code__))
    for name in list(names):
        other = function.__globals__.get(name)
        if (
            isinstance(other, FunctionType)
            and other.__globals__ is function.__globals__
            and other not in seen
        ):
            names |= _names_of(other, seen)
    return names


def _named_in(code: CodeType) -> Iterator[str]:
    yield from (step.argval for step in dis.get_instructions(code) if step.opname in _GLOBALS)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _named_in(constant)
