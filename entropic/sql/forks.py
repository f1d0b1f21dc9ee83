"""Forks beside statements of other threads: none in the middle of one.

SQLite's library has locks of its own. A forked child gets them as they are at that moment, and one that another thread
holds just then stays locked in the child for ever. So statements hold a lock that they share with each other and not
with a fork: a fork waits until none is under way, and statements that would begin meanwhile wait for the fork.

What the parent has open is never closed in a child, not even at its end: a server would take that for the parent's
word, and SQLite does not allow it.
"""

from __future__ import annotations

import os
import threading
import time
from threading import get_ident
from typing import Any

from entropic.process.logs import get_logger

__all__ = ["WAIT_S", "keep_for_ever", "statements"]

log = get_logger(__name__)

WAIT_S = 5.0  # at most, for the statements of other threads
_PAUSE_S = 0.001


class Statements:
    """The lock: a context manager for statements, which threads share and may nest.

    Notes
    -----
    Two writes to a dictionary and a look at a flag, each of which is atomic: a lock would cost a hit more than that
    look. A statement says that it is there and then looks; a fork says that it comes and then looks; so at least one of
    two sees the other.
    """

    def __init__(self) -> None:
        self._under_way: dict[int, int] = {}  # thread → how many statements, one inside the other
        self._forking: int | None = None  # the thread that forks
        self._one_fork = threading.Lock()

    def __enter__(self) -> None:
        me = get_ident()
        depth = self._under_way.get(me, 0)
        self._under_way[me] = depth + 1
        if self._forking is not None and not depth:
            self._let_fork(me)

    def __exit__(self, *_: object) -> None:
        me = get_ident()
        depth = self._under_way.get(me, 0) - 1
        if depth > 0:
            self._under_way[me] = depth
        else:
            self._under_way.pop(me, None)

    def row(self, cursor: Any, sql: str, parameters: Any) -> Any:
        """Execute a statement on *cursor* and fetch its first row, as inside of ``with``, for less of a hit's time.

        What interrupts a statement of this thread, such as a signal's handler, leaves its cursor alone.
        """
        me, under_way = get_ident(), self._under_way
        if me in under_way:
            with self:
                cursor = cursor.connection.cursor()
                cursor.execute(sql, parameters)
                return cursor.fetchone()
        under_way[me] = 1
        try:
            if self._forking is not None:
                self._let_fork(me)
            cursor.execute(sql, parameters)
            return cursor.fetchone()
        finally:
            self._under_way.pop(me, None)

    def _let_fork(self, me: int) -> None:
        while self._forking not in {None, me}:
            self._under_way.pop(me, None)
            time.sleep(_PAUSE_S)
            self._under_way[me] = 1

    def before_fork(self) -> None:
        """Wait until no other thread is in a statement, and let none begin one."""
        me = get_ident()
        until = time.monotonic() + WAIT_S
        self._one_fork.acquire(timeout=WAIT_S)
        self._forking = me
        while any(thread != me for thread in list(self._under_way)):
            if time.monotonic() > until:
                log.warning(
                    "process %d forks while another thread has been in a statement for %g s: if the child uses SQLite "
                    "it may wait for ever",
                    os.getpid(),
                    WAIT_S,
                )
                return
            time.sleep(_PAUSE_S)

    def after_fork(self) -> None:
        """Let statements begin again."""
        self._forking = None
        if self._one_fork.locked():
            self._one_fork.release()

    def after_fork_in_child(self) -> None:
        """Forget the parent's other threads."""
        me = get_ident()
        self._under_way = {thread: depth for thread, depth in self._under_way.items() if thread == me}
        self._forking = None
        self._one_fork = threading.Lock()


statements = Statements()

_kept: list[Any] = []


def keep_for_ever(value: object) -> None:
    """Keep *value*, which a child has inherited, from being finalised, even when the interpreter ends."""
    if not _kept:
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_kept))
    _kept.append(value)


def _before_fork() -> None:
    import ctypes  # noqa: F401  not in the child: another thread may be importing it, which would never end there

    statements.before_fork()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=statements.after_fork,
    after_in_child=statements.after_fork_in_child,
)
