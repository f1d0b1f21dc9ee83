"""While a run goes on: extend the claims of this process, so that only a silent owner is taken over.

A thread of this process would do, but for runners that sit in a C call and hold the interpreter's lock. So where
the runner runs in this process, a small process of its own beats (`entropic.leases.heartbeat_process`): one for
each process that runs, whatever number of tables and databases it works on. Where workers run, and for a database
that no other process can open, it is a thread.

It is told when the first run begins, and that none goes on only once that was so for a while: to tell it twice for each
of many short runs would take longer than their claims.

A beat that fails is made up for from here, and so is a heartbeat process that has ended or fallen silent; another one
is started. None of it touches the run: at worst the claim is lost, which the commit finds out.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from entropic.leases import heartbeat_process
from entropic.leases.claims import Claims
from entropic.process.blocks import transparent
from entropic.process.logs import get_logger
from entropic.sql.database import Database
from entropic.sql.urls import scrub

__all__ = ["Heartbeat", "heartbeat_pids"]

log = get_logger(__name__)

BEATS = 6  # in a lease: several may fail before it is over
LOOK_S = 5.0  # at most, between two looks at whether the heartbeat process does its work
LATE = 1.5  # intervals after which a beat is made up for from here
SILENT = 2  # beats made up for, with no word from the heartbeat process, and
SILENT_S = 10.0  # at least, before it is ended: it may still be importing the driver
IDLE_S = 2.0  # or an interval, if that is less: without a run, before the heartbeat process is told to rest
_END_S = 2.0

_MYSQL = {"mysql", "mariadb"}

_heartbeats: weakref.WeakSet[Heartbeat] = weakref.WeakSet()


class Heartbeat:
    """Extends this process's claims on one table as long as somebody asks for it.

    Notes
    -----
    Safe between threads; a forked child starts afresh.
    """

    def __init__(self, database: Database, claims: Claims) -> None:
        self._database = database
        self._claims = claims
        self._lock = threading.Lock()
        self._holding = 0
        self._order: str | None = None
        self._idle_since = 0.0
        self.name = uuid4().hex
        self.every_s = claims.lease_s / BEATS
        self.beat_at = 0.0
        _heartbeats.add(self)

    @transparent
    def beating(self, *, is_run_here: bool = True) -> Iterator[None]:
        """Keep the claims of this process alive in this block.

        Parameters
        ----------
        is_run_here : bool
            Whether runners run in this process: then the beat comes from another one.
        """
        if is_run_here and self._can_be_passed_on():
            self._hold()
            try:
                yield
            finally:
                self._rest()
            return
        ended = threading.Event()
        thread = _started(self._beat_until, ended)
        try:
            yield
        finally:
            ended.set()
            if thread is not None:
                # It may be in the middle of a beat, on a connection that somebody closes next.
                thread.join(_END_S)

    def beat(self) -> None:
        """Extend the claims now; a failure is logged, and the next beat tries again."""
        self.beat_at = time.monotonic()
        try:
            self._claims.extend()
        except Exception as error:
            log.warning("a heartbeat failed, the next one is in %.3g s: %s", self.every_s, error)

    def make_up_for(self, said: str) -> None:
        """Beat in the place of the process whose beat failed, and log what it said of that."""
        log.warning("a heartbeat failed, it is made up for: %s", scrub(said, self._database.url))
        self.beat()

    def forget_parent(self) -> None:
        """In a forked child: its claims will have another owner, and nobody beats for them yet."""
        self._lock = threading.Lock()
        self._holding = 0
        self._order = None

    def _beat_until(self, ended: threading.Event) -> None:
        while not ended.wait(self.every_s):
            self.beat()

    def _can_be_passed_on(self) -> bool:
        if self._order is None:
            self._order = _order(self._database, self._claims, self.name, self.every_s)
        return bool(self._order)

    def is_needed(self) -> bool:
        """Whether somebody asks for beats now."""
        return self._holding > 0

    def rest_if_idle(self) -> None:
        """Have the heartbeat process rest if nobody has asked for beats for a while."""
        with self._lock:
            idle_s = time.monotonic() - self._idle_since
            if self._holding == 0 and idle_s >= min(IDLE_S, self.every_s):
                _outside.rest(self)

    def _hold(self) -> None:
        with self._lock:
            self._holding += 1
            if self._holding == 1:
                self.beat_at = time.monotonic()
                _outside.hold(self, self._order or "")

    def _rest(self) -> None:
        with self._lock:
            # A forked child may leave a block that its parent entered.
            self._holding = max(0, self._holding - 1)
            if self._holding == 0:
                self._idle_since = time.monotonic()


def _started(function: Callable[..., None], *arguments: Any) -> threading.Thread | None:
    """Return a thread that calls *function*; None if there can be no more: no run fails because of its heartbeat."""
    thread = threading.Thread(target=function, args=arguments, name="entropic-heartbeat", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        log.warning("no thread can see to the heartbeat until the next run: %s", error)
        return None
    return thread


def _order(database: Database, claims: Claims, name: str, every_s: float) -> str:
    """Return what the heartbeat process is told, or "" if it could not reach the database by that."""
    if database.is_memory or not database.has_own_engine:
        return ""  # how an engine of the user's connects is not in its URL alone
    dialect = database.engine.dialect
    args, kwargs = dialect.create_connect_args(database.url)
    if database.dialect == "sqlite":
        # Not to be made anew, where it was removed meanwhile.
        path = str(args[0])
        uri = path if path.startswith("file:") else f"file:{quote(path)}?mode=rw"
        args, kwargs = [uri], {**kwargs, "uri": True, "timeout": 30.0}
    # SQLAlchemy's own types for psycopg: the statement needs none, and they cannot be sent.
    kwargs = {name: value for name, value in kwargs.items() if name != "context"}
    before = ["SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"] if database.dialect in _MYSQL else []
    statement, parameters = claims.extension_sql()
    order = {
        "hold": name,
        "driver": dialect.import_dbapi().__name__,
        "args": list(args),
        "kwargs": kwargs,
        "before": before,
        "statement": statement,
        "parameters": parameters,
        "every_s": every_s,
    }
    try:
        return json.dumps(order)
    except TypeError:  # an argument of the driver's that is more than text and numbers
        return ""


class _Outside:
    """The heartbeat process of this process, whom it beats for, and the thread that sees to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Any = None
        self._guard: threading.Thread | None = None
        self._held: dict[Heartbeat, str] = {}
        self._closing = threading.Event()

    def hold(self, heartbeat: Heartbeat, order: str) -> None:
        with self._lock:
            is_told = heartbeat in self._held
            self._held[heartbeat] = order
            if self._process is None and self._guard is None:
                self._start()
            elif not is_told:
                self._tell(order)
            if self._guard is None:
                self._guard = _started(self._watch, self._process)

    def rest(self, heartbeat: Heartbeat) -> None:
        with self._lock:
            if self._held.pop(heartbeat, None) is not None:
                self._tell(json.dumps({"rest": heartbeat.name}))

    def pid(self) -> int | None:
        """Return which process it is, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def close(self) -> None:
        """End the process, as this one ends."""
        self._closing.set()
        if self._process is not None:
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            self._process.kill()
        if self._guard is not None:
            self._guard.join(_END_S)

    def forget(self) -> None:
        """In a forked child: leave the parent's process alone, whose pipe must end with the parent."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.returncode = 0  # it is not ours to wait for

    def _start(self) -> None:
        try:
            self._process = subprocess.Popen(
                # Isolated, and told its search path: it must find the driver that this process found. Where Python is
                # embedded there may be no executable.
                [sys.executable or "", "-I", "-S", heartbeat_process.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        except OSError as error:
            log.warning("the heartbeat process could not be started, a thread beats instead: %s", error)
            self._process = None
        else:
            # One that does not read must not stop this one.
            os.set_blocking(self._process.stdin.fileno(), False)
            path = [entry for entry in sys.path if entry]
            self._tell(json.dumps({"parent": os.getpid(), "path": path}))
            for order in self._held.values():
                self._tell(order)

    def _tell(self, line: str) -> None:
        if self._process is None:
            return
        data = line.encode() + b"\n"
        with suppress(OSError, ValueError):  # it has ended: its guard sees that
            if self._process.stdin.write(data) != len(data):
                self._process.kill()  # it does not read, so it does not beat

    def _watch(self, process: Any) -> None:
        """Listen to the process; make up for what it misses; start another one when it has ended."""
        if process is not None:
            is_tried_again = self._listen(process)
            status = process.wait()
            process.stdout.close()
            if self._closing.is_set():
                return
            log.warning("the heartbeat process ended with exit status %d", status)
            self._make_up(late=0)
            if is_tried_again and not self._closing.wait(self._tick_s()):
                with self._lock:
                    process.stdin.close()
                    self._start()
                    self._guard = _started(self._watch, self._process)
                return
        while not self._closing.wait(self._tick_s()):  # it cannot be started here: this thread beats
            self._make_up(late=1)
            self._let_idle_rest()

    def _listen(self, process: Any) -> bool:
        """Take in what the process says until it has ended; return whether to try another one."""
        said, poll = b"", select.poll()
        poll.register(process.stdout, select.POLLIN | select.POLLHUP)
        lines = missed = 0
        heard_at = time.monotonic()
        while True:
            if poll.poll(1000 * self._tick_s()):
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    # Not one that cannot begin; but one that was ended before it had begun.
                    return lines > 0 or process.wait() < 0
                *heard, said = (said + data).split(b"\n")
                lines, missed, heard_at = lines + len(heard), 0, time.monotonic()
                try:
                    for line in heard:
                        self._hear(json.loads(line))
                except ValueError:  # what is called Python here is something else
                    process.kill()
                    return False
            missed += self._make_up(late=LATE)
            self._let_idle_rest()
            if missed >= SILENT and time.monotonic() - heard_at > SILENT_S:
                log.warning("the heartbeat process is silent and is ended")
                process.kill()
                heard_at = math.inf

    def _hear(self, message: dict[str, Any]) -> None:
        for heartbeat in self._held_now():
            if heartbeat.name == message.get("name"):
                heartbeat.beat_at = time.monotonic()
                if message["error"] is not None and heartbeat.is_needed():
                    heartbeat.make_up_for(message["error"])

    def _make_up(self, *, late: float) -> bool:
        """Beat from here where the last beat was so many intervals ago; return whether that was needed."""
        missed = [
            h for h in self._held_now() if h.is_needed() and time.monotonic() - h.beat_at > late * h.every_s
        ]
        for heartbeat in missed:
            heartbeat.beat()
        return bool(missed)

    def _let_idle_rest(self) -> None:
        for heartbeat in self._held_now():
            heartbeat.rest_if_idle()

    def _held_now(self) -> list[Heartbeat]:
        with self._lock:
            return list(self._held)

    def _tick_s(self) -> float:
        return min([LOOK_S, *(heartbeat.every_s / 2 for heartbeat in self._held_now())])


_outside = _Outside()


def heartbeat_pids() -> list[int]:
    """Return the children of this process that are there for its heartbeat alone."""
    pid = _outside.pid()
    return [] if pid is None else [pid]


@atexit.register
def _close() -> None:
    _outside.close()


def _after_fork() -> None:
    global _outside
    _outside.forget()
    _outside = _Outside()
    for heartbeat in list(_heartbeats):
        heartbeat.forget_parent()


os.register_at_fork(after_in_child=_after_fork)
