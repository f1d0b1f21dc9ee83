"""A memoized function as a runner: called with what a Store gives it, here or in a worker.

It writes the returned value to a file, or returns it where it is small, with what goes into output columns. To a
worker it travels by name where that has the same function there, else by value; with it go the codecs that were
registered here.
"""

from __future__ import annotations

import glob
import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from entropic.disk.files import remove
from entropic.disk.roots import quarantine
from entropic.functions.returned import Column, outputs_in
from entropic.functions.signatures import Arguments
from entropic.runs.jobs import InRow
from entropic.values.codecs import adopt, registered_codecs, save, save_rest
from entropic.values.formats import Format
from entropic.values.row_texts import INLINE_BYTES

__all__ = ["CallRunner", "by_name", "named"]


@dataclass(frozen=True)
class CallRunner:
    """Runs the function for a Store, here or on a worker: keeps the returned value, and finds outputs for the row."""

    function: Callable[..., Any]
    arguments: Arguments
    columns: tuple[Column, ...] = ()
    inline_bytes: int = INLINE_BYTES

    @property
    def is_undecorated(self) -> bool:
        """Whether the function's decorators are no part of its code: `memoize` itself, and its options, are not."""
        return not hasattr(self.function, "__wrapped__")

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.function  # whose source says with what code a result was computed

    def __call__(self, params: dict[str, Any]) -> dict[str, Any] | InRow:
        """Call the function with *params*, keep what it returns, and return the outputs, with it if it is small."""
        value = self.arguments.call(self.function, params)
        try:
            text = save(value, params["result_file"], inline_bytes=self.inline_bytes)
        except OSError:
            raise
        except Exception as error:  # a codec of the user's may raise anything
            raise _kept_aside(value, params["result_file"], error) from error
        outputs = outputs_in(value, self.columns)
        return outputs if text is None else InRow(text, outputs)

    def __reduce__(self) -> tuple[Any, ...]:
        if getattr(named(self.function), "runner", None) is self:
            # By name: by value the globals that the function uses would go with it.
            place = self.function.__module__, self.function.__qualname__
            return _runner_by_name, (*place, registered_codecs())
        options = self.columns, self.inline_bytes
        return _runner, (self.function, self.arguments, options, registered_codecs())


def _kept_aside(value: Any, stem: str, reason: Exception) -> TypeError:
    """Keep what can be kept of a value that was computed and has no format; return the error that says where."""
    for half_written in Path(stem).parent.glob(f"{glob.escape(Path(stem).name)}*"):
        remove(half_written)
    path, left_out = save_rest(value, stem)
    kept = quarantine(path)
    what = reason if isinstance(reason, TypeError) else f"cannot store the returned value: {reason!r}"
    return TypeError(
        f"{what}. It was computed, and is not lost: {str(kept)!r} has it, as text what has no format "
        f"({', '.join(left_out[:5])})"
    )


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
    function: Callable[..., Any],
    arguments: Arguments,
    options: tuple[tuple[Column, ...], int],
    codecs: Iterable[Format],
) -> CallRunner:
    adopt(codecs)
    return CallRunner(function, arguments, *options)


def _runner_by_name(module: str, qualified_name: str, codecs: Iterable[Format]) -> CallRunner:
    adopt(codecs)
    runner: CallRunner = by_name(module, qualified_name).runner
    return runner
