"""Context managers around code of the user's, which may raise what cannot be written to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

__all__ = ["Block", "transparent"]

P = ParamSpec("P")
T = TypeVar("T")


class Block(Generic[T]):
    """What a function that `transparent` decorates returns."""

    def __init__(self, steps: Iterator[T]) -> None:
        self._steps: Any = steps

    def __enter__(self) -> T:
        value: T = next(self._steps)
        return value

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            next(self._steps, None)
            return
        try:
            self._steps.throw(error)
        except BaseException as raised:
            # A generator makes a RuntimeError of a StopIteration that passes through it.
            is_same = raised is error or (isinstance(error, StopIteration) and raised.__cause__ is error)
            if not is_same:
                raise
            BaseException.with_traceback(error, trace)


def transparent(function: Callable[P, Iterator[T]]) -> Callable[P, Block[T]]:
    """Make a context manager of a generator function that yields once and lets every exception through.

    `contextlib.contextmanager` sets an attribute of the exception, which a frozen one refuses: its error would take the
    place of the user's.
    """

    @functools.wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> Block[T]:
        return Block(function(*args, **kwargs))

    return made
