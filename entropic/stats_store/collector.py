"""Values that are logged one by one, collected and written many at a time.

They are written a second after the first of them, at 1 000 of them, when asked for and at exit. What could not be
written stays for the next time. Inside a transaction they belong to it, and are written at its end.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import NamedTuple

from entropic.process.logs import get_logger
from entropic.sql.database import Database

__all__ = ["Collector", "Metric"]

log = get_logger(__name__)

EVERY_S = 1.0
LONGEST_S = 60.0  # between two tries, where writing fails
FULL = 1000

_collectors: weakref.WeakSet[Collector] = weakref.WeakSet()
_waiting: set[Collector] = set()  # which have something to write at exit
_exits: set[int] = set()  # pids of the processes in which multiprocessing will call us, and 0: Python will


class Metric(NamedTuple):
    """One value of one metric."""

    run_name: str
    iteration: int
    name: str
    value: float


class _InBlock(threading.local):
    metrics: list[Metric] | None = None  # of the block that this thread is in


class Collector:
    """What is to be written.

    Parameters
    ----------
    write : callable
        Writes a list of metrics; of two for one iteration the last one counts.
    database : Database, optional
        Whose transactions values belong to that are logged in them.

    Notes
    -----
    Safe between threads. A forked child has none of what its parent collected.
    """

    def __init__(self, write: Callable[[list[Metric]], None], database: Database | None = None) -> None:
        self._write = write
        self._database = database
        self._forget()
        _collectors.add(self)

    def _forget(self) -> None:
        self._metrics: list[Metric] = []
        self._lock = threading.Lock()  # of the list
        self._writing = threading.Lock()  # so that what comes later is written later
        self._timer: threading.Timer | None = None
        self._pause_s = EVERY_S
        self._block = _InBlock()

    def add(self, metrics: list[Metric]) -> None:
        """Collect values, and write if it has become many."""
        if self._database is not None and self._database.is_in_block:
            self._add_to_block(self._database, metrics)
            return
        _expect_exit()
        with self._lock:
            self._metrics += metrics
            is_full = len(self._metrics) >= FULL
            _waiting.add(self)
        if is_full:
            self.flush()
        else:
            self._set_timer()

    def _add_to_block(self, database: Database, metrics: list[Metric]) -> None:
        if self._block.metrics is None:
            self._block.metrics = []
            database.before_commit(self._write_block, self._forget_block)
        self._block.metrics += metrics
        if len(self._block.metrics) >= FULL:
            self._flush_block()

    def _flush_block(self) -> None:
        metrics = self._block.metrics
        if metrics:
            self._write(metrics)
            metrics.clear()

    def _write_block(self) -> None:
        metrics, self._block.metrics = self._block.metrics, None
        if metrics:
            self._write(metrics)

    def _forget_block(self) -> None:
        self._block.metrics = None

    def flush(self) -> None:
        """Write what was collected; inside a transaction, what was collected in it."""
        if self._database is not None and self._database.is_in_block:
            self._flush_block()
            return
        with self._writing:
            with self._lock:
                metrics, self._metrics = self._metrics, []
            if metrics:
                try:
                    self._write(metrics)
                except BaseException:
                    with self._lock:
                        self._metrics = metrics + self._metrics
                    raise
            with self._lock:
                if not self._metrics:
                    _waiting.discard(self)

    def _set_timer(self) -> None:
        with self._lock:
            if self._timer is not None:
                return
            timer = threading.Timer(self._pause_s, self._in_time)
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError:  # the process ends, or may have no more threads
                return
            self._timer = timer

    def _in_time(self) -> None:
        with self._lock:
            self._timer = None
        try:
            self.flush()
            self._pause_s = EVERY_S
        except Exception as error:
            self._pause_s = min(2 * self._pause_s, LONGEST_S)
            log.warning(
                "logged values could not be written, and are kept: %s; tried again in %.0f s",
                error,
                self._pause_s,
            )
            self._set_timer()


def _flush_all() -> None:
    for collector in list(_waiting):
        try:
            collector.flush()
        except Exception as error:
            log.warning("logged values are lost, as they could not be written at exit: %s", error)


def _expect_exit() -> None:
    """See to it that this process writes what it has at exit; a child of multiprocessing's leaves without atexit."""
    if not _exits:  # so late, so that it comes before those of whatever it needs
        atexit.register(_flush_all)
        _exits.add(0)
    util = sys.modules.get("multiprocessing.util")
    if util is not None and os.getpid() not in _exits:
        _exits.add(os.getpid())
        util.Finalize(None, _flush_all, exitpriority=10)


def _forget_parent() -> None:
    _waiting.clear()
    for collector in list(_collectors):
        collector._forget()


os.register_at_fork(after_in_child=_forget_parent)
