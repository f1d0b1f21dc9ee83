"""Values that are logged one by one, collected and written many at a time, each run's by themselves.

They are written a second after the first of them, at 1 000 of a run, when asked for and at exit. What could not be
written stays for the next time. Inside a transaction they belong to it, and are written at its end.

What is collected of a run is looked up when the right to write the run is held, and dropped when it is committed: so
what comes later is written later, whoever writes it. A block writes what was collected before, too, and that is only
put aside until the block is over, as it may come to nothing.
"""

from __future__ import annotations

import atexit
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from entropic.process.logs import get_logger
from entropic.sql.database import Database

__all__ = ["Collected", "Collector", "Values"]

log = get_logger(__name__)

EVERY_S = 1.0
LONGEST_S = 60.0  # between two tries, where writing fails
FULL = 1000

Values = Mapping[tuple[str, int], float]
"""Of metrics, by name and iteration."""
Collected = Callable[[], Values]
"""Returns what was collected of a run; to be called when nobody else can write to it, and written then."""

_collectors: weakref.WeakValueDictionary[str, Collector] = weakref.WeakValueDictionary()
_collectors_lock = threading.Lock()
_waiting: set[Collector] = set()  # which have something to write at exit
_exits: set[int] = set()  # pids of the processes in which multiprocessing will call us, and 0: Python will


@dataclass(slots=True, eq=False)
class _Value:
    number: float
    is_aside: bool = False  # a block has written it, and is not over


_Found = dict[tuple[str, int], _Value]


@dataclass
class _Block:
    """What a thread has logged in its block, by run, and what it has written there of what was collected before."""

    values: dict[str, dict[tuple[str, int], float]] = field(default_factory=dict)
    aside: list[tuple[str, _Found]] = field(default_factory=list)


class _Own(threading.local):
    block: _Block | None = None  # that this thread is in


class Collector:
    """What is to be written.

    Parameters
    ----------
    write : callable
        Writes what was collected of a run.
    database : Database, optional
        Whose transactions values belong to that are logged in them.

    Notes
    -----
    Safe between threads. A forked child has none of what its parent collected.

    All stores of one place have one, by `of`: what one of them deletes another must not write again.
    """

    def __init__(self, write: Callable[[str, Collected], None], database: Database | None = None) -> None:
        self._write = write
        self._database = database
        self._forget()

    @classmethod
    def of(
        cls, place: str, write: Callable[[str, Collected], None], database: Database | None = None
    ) -> Collector:
        """Return the collector of a place, made if it has none in this process."""
        with _collectors_lock:
            found = _collectors.get(place)
            if found is None:
                found = _collectors[place] = cls(write, database)
            return found

    def _forget(self) -> None:
        self._collected: dict[str, _Found] = {}
        self._lock = threading.Lock()  # of all of these, but for what is a thread's own
        self._due: dict[str, float] = {}  # when the timer is to write a run
        self._pauses: dict[str, float] = {}  # of runs that could not be written
        self._timer: threading.Timer | None = None
        self._timer_at = 0.0
        self._own = _Own()

    def add(self, run_name: str, values: Values) -> None:
        """Collect values, and write those of the run if it has become many."""
        if not values:
            return
        block = self._block()
        if block is not None:
            self._add_to_block(block, run_name, values)
            return
        _expect_exit()
        with self._lock:
            of_run = self._collected.setdefault(run_name, {})
            of_run.update((key, _Value(number)) for key, number in values.items())
            _waiting.add(self)
            is_full, is_due = len(of_run) >= FULL, run_name in self._due
        if is_full:
            self.flush(run_name)
        elif not is_due:
            self._expect([run_name])

    def _block(self) -> _Block | None:
        """Return the block that this thread is in."""
        database = self._database
        if database is None or not database.is_in_block:
            return None
        if self._own.block is None:
            self._own.block = _Block()
            database.at_end(self._end_block)
        return self._own.block

    def _add_to_block(self, block: _Block, run_name: str, values: Values) -> None:
        if not block.values and self._database is not None:
            self._database.before_commit(self._write_block)
        of_run = block.values.setdefault(run_name, {})
        of_run.update(values)
        if len(of_run) >= FULL:
            self.flush(run_name)

    def _write_block(self) -> None:
        block = self._block()
        for run_name in sorted(block.values if block is not None else ()):
            self._write_run(run_name)

    def _end_block(self, is_committed: bool) -> None:
        block, self._own.block = self._own.block, None
        for run_name, found in block.aside if block is not None else ():
            if is_committed:
                self._drop(run_name, found)
                continue
            with self._lock:
                for value in found.values():
                    value.is_aside = False
            self._expect([run_name])

    def flush(self, run_name: str | None = None) -> None:
        """Write what was collected, of a run or of all; inside a transaction, as part of it.

        What was collected of each run is written, whatever becomes of the others', and the first error raised.
        """
        failed = self._write_runs(self._to_write() if run_name is None else [run_name])
        if failed:
            raise next(iter(failed.values()))

    def flush_at_exit(self) -> None:
        """Write what can be written, and say what cannot."""
        for run_name, error in self._write_runs(self._to_write()).items():
            log.warning(
                "logged values of the run %r are lost, as they could not be written at exit: %s",
                run_name,
                error,
            )

    def _to_write(self) -> list[str]:
        """Return the runs of which there is something to write, in one order for all processes."""
        block = self._block()
        with self._lock:
            names = {name for name, found in self._collected.items() if _is_any(found)}
        return sorted(names.union(block.values if block is not None else ()))

    def _write_runs(self, names: Iterable[str]) -> dict[str, Exception]:
        failed = {}
        for name in names:
            try:
                self._write_run(name)
            except Exception as error:
                failed[name] = error
        return failed

    def _write_run(self, run_name: str) -> None:
        block = self._block()
        own = block.values.get(run_name, {}) if block is not None else {}
        found: _Found = {}

        def collected() -> Values:
            nonlocal found
            with self._lock:
                of_run = self._collected.get(run_name, {})
                found = {key: value for key, value in of_run.items() if not value.is_aside}
            return {key: value.number for key, value in found.items()} | own

        if not collected():
            return
        self._write(run_name, collected)
        with self._lock:
            self._pauses.pop(run_name, None)
        if block is None:
            self._drop(run_name, found)
            return
        # Only now: what a SAVEPOINT took back is still to be written.
        with self._lock:
            for value in found.values():
                value.is_aside = True
        block.aside.append((run_name, found))
        block.values.pop(run_name, None)

    def _drop(self, run_name: str, found: _Found) -> None:
        """Forget what is written, but for what another value has taken the place of since."""
        with self._lock:
            of_run = self._collected.get(run_name, {})
            for key, value in found.items():
                if of_run.get(key) is value:
                    del of_run[key]
            if not of_run:
                self._collected.pop(run_name, None)
            if not self._collected:
                _waiting.discard(self)

    # In time

    def _expect(self, names: Iterable[str]) -> None:
        """Let the timer write runs, if it is not about to: in a second, or later where that has failed."""
        with self._lock:
            for name in names:
                self._due.setdefault(name, time.monotonic() + self._pauses.get(name, EVERY_S))
            at = min(self._due.values(), default=math.inf)
            if at == math.inf or (self._timer is not None and self._timer_at <= at):
                return
            timer = threading.Timer(max(at - time.monotonic(), 0.0), self._in_time)
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError:  # the process ends, or may have no more threads
                self._due.clear()
                return
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = timer, at

    def _in_time(self) -> None:
        with self._lock:
            self._timer = None
            names = [name for name, at in self._due.items() if at <= time.monotonic()]
            self._due.update(dict.fromkeys(names, math.inf))  # one thread that waits for a lock is enough
        failed = self._write_runs(names)
        with self._lock:
            for name in names:
                self._due.pop(name, None)
            for name in failed:
                self._pauses[name] = min(2 * self._pauses.get(name, EVERY_S), LONGEST_S)
        for name, error in failed.items():
            log.warning(
                "logged values of the run %r could not be written, and are kept: %s; tried again in %.0f s",
                name,
                error,
                self._pauses.get(name, EVERY_S),
            )
        self._expect(set(self._to_write()).intersection(names))


def _is_any(found: _Found) -> bool:
    return any(not value.is_aside for value in found.values())


def _flush_all() -> None:
    for collector in list(_waiting):
        collector.flush_at_exit()


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
    global _collectors_lock
    _collectors_lock = threading.Lock()
    _waiting.clear()
    for collector in list(_collectors.values()):
        collector._forget()


os.register_at_fork(after_in_child=_forget_parent)
