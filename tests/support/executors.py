"""Places to run a sweep that need no cluster."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from tests.support.processes import forkserver


@contextlib.contextmanager
def executor_of(kind: str) -> Iterator[Executor]:
    """Yield two "threads", or two "processes" that begin with nothing of this one.

    The processes come from a server that has imported the library, which takes a second of each otherwise.
    """
    context = forkserver()
    makers = {
        "threads": lambda: ThreadPoolExecutor(2),
        "processes": lambda: ProcessPoolExecutor(2, mp_context=context),
    }
    with makers[kind]() as executor:
        try:
            yield executor
        except BaseException:  # what hangs is not waited for
            for process in list((getattr(executor, "_processes", None) or {}).values()):
                process.kill()
            raise


class Immediate(Executor):
    """An executor that calls what it is given in `submit`, once it has given so much to another one."""

    def __init__(self, other: Executor | None = None, after: int = 0) -> None:
        self._other = other
        self._left = after

    def submit(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        self._left -= 1
        if self._other is not None and self._left >= 0:
            return self._other.submit(function, *given, **named)
        future: Future[Any] = Future()
        try:
            future.set_result(function(*given, **named))
        except BaseException as error:
            future.set_exception(error)
        return future


class Narrow(Executor):
    """An executor of one process, which does not say that it has but one."""

    def __init__(self, process: Executor) -> None:
        self._process = process

    def submit(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        return self._process.submit(function, *given, **named)
