"""Places to run a sweep that need no cluster."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context


@contextlib.contextmanager
def executor_of(kind: str) -> Iterator[Executor]:
    """Yield two "threads", or two "processes" that begin with nothing of this one."""
    makers = {
        "threads": lambda: ThreadPoolExecutor(2),
        "processes": lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")),
    }
    with makers[kind]() as executor:
        yield executor
