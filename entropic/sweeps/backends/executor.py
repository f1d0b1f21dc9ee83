"""Chunks in an executor of the user's: threads, or processes by pickle."""

from __future__ import annotations

import functools
import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from entropic.process.identity import this_process
from entropic.process.logs import get_logger
from entropic.runs.jobs import WorkerDied
from entropic.sweeps.backends.base import Backend
from entropic.sweeps.backends.processes import PoolBackend
from entropic.sweeps.chunks import (
    Reply,
    Work,
    as_ticketed,
    dump_jobs,
    dump_work,
    load_answer,
    refuse,
    run_chunk,
    run_timed,
)
from entropic.sweeps.prepared import initializer_of, prepared_by

__all__ = ["ExecutorBackend", "RunsHere", "is_thread_of"]

log = get_logger(__name__)

T = TypeVar("T")

_LOOK_S = 0.5


def is_thread_of(executor: Executor | None) -> bool:
    """Whether this thread is one of an executor's, which would wait for itself."""
    return threading.current_thread() in getattr(executor, "_threads", ())


class RunsHere(Exception):
    """An executor runs what it is given in the thread that gives it, which nothing reaches meanwhile."""


def _call_elsewhere(giver: tuple[str, int], function: Callable[..., T], *arguments: Any) -> T:
    """Call a function, unless the thread that gave it to an executor does so itself."""
    if giver == _this_thread():
        raise RunsHere
    return function(*arguments)


def _this_thread() -> tuple[str, int]:
    return this_process().owner, threading.get_ident()


class ExecutorBackend(Backend):
    """Run chunks in an executor of the user's, which is never shut down here.

    Threads call the work itself. Processes get it pickled; once their pool is broken, processes of our own take over,
    since a broken executor cannot be repaired and is not ours to replace; but not for one whose initializer prepared
    them. What waits in its queue can be had back where
    the work has tickets: an executor's futures say that they run before they do. One that runs a chunk in this very
    thread is no place beside it: such a chunk is not begun, and its future fails with `RunsHere`.
    """

    def __init__(self, work: Work, executor: Executor) -> None:
        self._executor = executor
        self._sweep = uuid.uuid4().hex
        self._slots = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
        self._flying: dict[Future[Reply], tuple[Future[Any], str]] = {}
        self._pool: PoolBackend | None = None
        self._threads = isinstance(executor, ThreadPoolExecutor)
        self._tickets = as_ticketed(work)
        self._work = work
        initializer = initializer_of(executor)
        self._is_prepared = initializer is not None
        self._payload = b"" if self._threads else dump_work(work, prepared_by(initializer))

    def slots(self) -> int:
        return self._slots

    def submit(self, jobs: list[Any]) -> Future[Reply]:
        if self._pool is None:
            try:
                return self._submit(jobs)
            except BrokenExecutor:
                # None of ours need take the place of threads, or can of what is prepared.
                if self._threads or self._is_prepared:
                    raise
                log.warning("The executor's pool is broken; going on with %d new processes", self._slots)
                self._pool = PoolBackend(self._payload, self._slots)
                self.isolates = True
        return self._pool.submit(jobs)

    def _submit(self, jobs: list[Any]) -> Future[Reply]:
        if self._threads:
            return self._relay(self._give(run_timed, self._work, jobs, self._sweep))
        ticket = uuid.uuid4().hex
        if self._tickets is None or not self._tickets.issue(ticket):
            ticket = ""
        chunk = dump_jobs(jobs)
        return self._relay(self._give(run_chunk, self._payload, chunk, self._sweep, ticket or None), ticket)

    def _give(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        return self._executor.submit(_call_elsewhere, _this_thread(), function, *arguments)

    def _relay(self, inner: Future[Any], ticket: str = "") -> Future[Reply]:
        future: Future[Reply] = Future()
        self._flying[future] = inner, ticket
        inner.add_done_callback(functools.partial(self._deliver, future))
        return future

    def _deliver(self, future: Future[Reply], inner: Future[Any]) -> None:
        if self._flying.pop(future, None) is None:
            return
        try:
            result = inner.result()
            reply = result if self._threads else load_answer(result)
        except BrokenExecutor as error:
            # Of threads none dies by what it runs: they could not begin.
            future.set_exception(error if self._threads else WorkerDied(str(error), is_shared=True))
        except BaseException as error:  # whatever it is belongs to the thread that waits for the future
            future.set_exception(error)
        else:
            future.set_result(reply)

    def withdraw(self) -> list[Future[Reply]]:
        if self._pool is not None:
            return self._pool.withdraw()
        withdrawn: list[Future[Reply]] = []
        for future, (inner, ticket) in self._flying.copy().items():
            is_ours = ticket and self._tickets is not None and self._tickets.take(ticket)
            if is_ours and self._flying.pop(future, None) is not None:
                inner.cancel()  # if that is too late, it does nothing when its turn comes
                future.cancel()
                withdrawn.append(future)
        return withdrawn

    def widen(self) -> None:
        if self._pool is not None:  # else no process of it has died, and nothing is tried again
            self._pool.widen()

    def stop(self, idle: Callable[[], object]) -> list[Any]:
        refuse(self._sweep)  # for threads: what is queued in them
        flying = [(future, inner) for future, (inner, _) in self._flying.copy().items()]
        for _, inner in flying:
            inner.cancel()
        while wait([inner for _, inner in flying], timeout=_LOOK_S).not_done:
            idle()
        for future, inner in flying:
            # Unless its callback does: an interrupt may have come before it had one.
            self._deliver(future, inner)
        if self._pool is not None:
            self._pool.stop(idle)
        return []

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
