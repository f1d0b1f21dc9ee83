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


class Narrow(Executor):
    """An executor of one process, which does not say that it has but one."""

    def __init__(self, process: Executor) -> None:
        self._process = process

    def submit(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        return self._process.submit(function, *given, **named)
