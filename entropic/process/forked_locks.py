"""Locks that no other thread's fork leaves behind: a forked child has one that is free."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ForkedLock"]


class ForkedLock:
    """A lock of a module: whoever holds it at a fork, the child finds it free.

    Notes
    -----
    A thread that forks while it holds the lock gives it back in both processes.
    """

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it in this block."""
        with self._lock:
            yield
