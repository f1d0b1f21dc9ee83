"""A memoized function as a runner: called with what a Store gives it, here or in a worker.

It writes the returned value to a file, and returns what goes into output columns. To a worker it travels by name where
that has the same function there, else by value; with it go the codecs that were registered here.
"""

from __future__ import annotations

import glob
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from entropic.disk.files import remove
from entropic.disk.roots import quarantine
from entropic.functions.signatures import Arguments
from entropic.model.parameters import REMARK
from entropic.values.codecs import adopt, registered_codecs, save, save_rest
from entropic.values.formats import Format

__all__ = ["CallRunner", "by_name", "named"]


@dataclass(frozen=True)
class CallRunner:
    """Runs the function for a Store, here or on a worker: a file of the returned value, and outputs for the row."""

    function: Callable[..., Any]
    arguments: Arguments
    outputs: tuple[str, ...] = ()

    @property
    def is_undecorated(self) -> bool:
        """Whether the function's decorators are no part of its code: `memoize` itself, and its options, are not."""
        return not hasattr(self.function, "__wrapped__")

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.function  # whose source says with what code a result was computed

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        """Call the function with *params*, keep what it returns, and return the outputs."""
        value = self.arguments.call(self.function, params)
        try:
            save(value, params["result_file"])
        except TypeError as error:
            raise _kept_aside(value, params["result_file"], error) from error
        return _outputs_in(value, self.outputs)

    def __reduce__(self) -> tuple[Any, ...]:
        if getattr(named(self.function), "runner", None) is self:
            # By name: by value the globals that the function uses would go with it.
            place = self.function.__module__, self.function.__qualname__
            return _runner_by_name, (*place, registered_codecs())
        return _runner, (self.function, self.arguments, self.outputs, registered_codecs())


def _kept_aside(value: Any, stem: str, reason: TypeError) -> TypeError:
    """Keep what can be kept of a value that was computed and has no format; return the error that says where."""
    for half_written in Path(stem).parent.glob(f"{glob.escape(Path(stem).name)}*"):
        remove(half_written)
    path, left_out = save_rest(value, stem)
    kept = quarantine(path)
    return TypeError(
        f"{reason}. It was computed, and is not lost: {str(kept)!r} has it, as text what has no format "
        f"({', '.join(left_out[:5])})"
    )


def _outputs_in(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the outputs that a value holds; a finished run is not lost for one that it does not."""
    found = {name: value[name] for name in names if name in value} if isinstance(value, Mapping) else {}
    if missing := [name for name in names if name not in found]:
        found[REMARK] = f"the returned {type(value).__name__} has no {', '.join(missing)}: NULL in the row"
    return found


def by_name(module: str, qualified_name: str) -> Any:
    """Return what a module calls by this name; it is imported if need be."""
    loaded = sys.modules.get(module) or importlib.import_module(module)
    return attrgetter(qualified_name)(loaded)


def named(function: Callable[..., Any]) -> Any:
    """Return what other processes find under the name of *function*, if they find anything."""
    if function.__module__ in {None, "__main__"}:
        return None  # theirs is another program
    try:
        return by_name(function.__module__, function.__qualname__)
    except (ImportError, AttributeError):
        return None


def _runner(
    function: Callable[..., Any], arguments: Arguments, outputs: tuple[str, ...], codecs: Iterable[Format]
) -> CallRunner:
    adopt(codecs)
    return CallRunner(function, arguments, outputs)


def _runner_by_name(module: str, qualified_name: str, codecs: Iterable[Format]) -> CallRunner:
    adopt(codecs)
    runner: CallRunner = by_name(module, qualified_name).runner
    return runner
