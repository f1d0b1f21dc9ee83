"""What a backend is: a place where chunks run; and the simplest, the calling thread."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self

from entropic.sweeps.chunks import Reply

__all__ = ["Backend", "SerialBackend"]


class Backend(ABC):
    """A place where chunks run; a context manager that gives back what it holds.

    Attributes
    ----------
    remote : bool
        Whether jobs run outside the calling thread, so that losing the backend leaves something to fall back to.
    isolates : bool
        Whether a worker that dies takes only the chunk that it was running with it.
    target_s : float
        How long a chunk should last.
    """

    remote = True
    isolates = False
    target_s = 1.0

    @abstractmethod
    def slots(self) -> int:
        """Count the chunks that can run at the same time just now; raise if the backend is gone."""

    def slots_of(self, threads: int) -> int:
        """Count the chunks that can run at the same time if each run uses *threads* threads; one where there is any."""
        slots = self.slots()
        return max(1, slots // threads) if slots else 0

    @abstractmethod
    def submit(self, jobs: list[Any]) -> Future[Reply]:
        """Queue a chunk."""

    def withdraw(self) -> list[Future[Reply]]:
        """Drop what is queued and has surely not begun; return its futures, which are cancelled."""
        return []

    def widen(self) -> None:  # noqa: B027 — for most there is nothing to do
        """Make room for one chunk more, as all that are at work may wait for it; nothing where there is room anyway."""

    @abstractmethod
    def stop(self, idle: Callable[[], object]) -> list[Any]:
        """Drop what is queued, wait until nothing runs, and return finished outcomes that no future carries.

        Parameters
        ----------
        idle : callable
            Called now and then while that takes its time: what runs may wait for what was not begun.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what the backend holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SerialBackend(Backend):
    """Run each chunk in the calling thread, when it is submitted.

    Parameters
    ----------
    work : callable
        Puts the outcome of each job of a list into another list when that ends: what has ended before Ctrl-C is kept
        for `stop` to hand over.
    """

    remote = False
    target_s = 0.5

    def __init__(self, work: Callable[[list[Any], list[Any]], object]) -> None:
        self._work = work
        self._kept: list[Any] = []

    def slots(self) -> int:
        return 1

    def submit(self, jobs: list[Any]) -> Future[Reply]:
        future: Future[Reply] = Future()
        started = time.perf_counter()
        self._work(jobs, self._kept)
        outcomes, self._kept = self._kept, []
        future.set_result(Reply(outcomes, time.perf_counter() - started))
        return future

    def stop(self, idle: Callable[[], object]) -> list[Any]:
        kept, self._kept = self._kept, []
        return kept

    def close(self) -> None:
        self._kept = []
