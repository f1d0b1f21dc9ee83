"""One transaction over several stores: what a block wrote is committed together, or not at all.

`Database.transaction` opens a block, and whatever reads or writes that database in this thread joins it. It begins at
its first statement, so that files can be written and synced before the database is locked; on SQLite it begins with
the right to write and is synced at its end. A write that joins is a SAVEPOINT. After a deadlock or a lost connection
the server has dropped all of it: such a block is over, and says so to every further statement.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from entropic.errors import TransactionError
from entropic.process.logs import get_logger
from entropic.process.raised import first_line
from entropic.sql.engines import file_of
from entropic.sql.outages import is_lost, is_transient
from entropic.sql.urls import shown

__all__ = [
    "LONG_S",
    "Transaction",
    "blocks",
    "forget_blocks",
    "joined",
    "opened",
    "refuse_own_lock",
    "within",
]

log = get_logger(__name__)

T = TypeVar("T")

LONG_S = 5.0  # of a lock that all others wait for, after which a block is worth a warning


class Transaction:
    """An open block: what `Database.transaction` gives.

    Parameters
    ----------
    begin : callable
        Connects, and begins a transaction.
    close : callable
        Lets go of the connection when the transaction has ended.
    ask : callable
        Runs a look-up on another connection, as the answer to a COMMIT was lost.
    lock : context manager
        Held during each statement.
    url : sqlalchemy.URL
        Of the database.

    Notes
    -----
    Belongs to the thread that opened it; other threads and forked children have none. To other tasks of an event loop
    in that thread it is an error.
    """

    def __init__(
        self,
        begin: Callable[[], Connection],
        close: Callable[[Connection], None],
        ask: Callable[[Callable[[Connection], bool]], bool],
        lock: AbstractContextManager[Any],
        url: URL,
    ) -> None:
        self._begin = begin
        self._disconnect = close
        self._ask = ask
        self._lock = lock
        self._name = shown(url)
        self._file = file_of(url)
        self._pid = os.getpid()
        self._task = _current_task()
        self._connection: Connection | None = None
        self._since = 0.0
        self._trouble: BaseException | None = None
        self._witness: Callable[[Connection], bool] | None = None
        self._last: list[Callable[[], object]] = []
        self._ends: list[Callable[[bool], object]] = []
        self._then: list[Callable[[], object]] = []
        self._else: list[Callable[[], object]] = []
        self.is_in_doubt = False
        """Whether the server went while COMMIT was on its way, and nothing tells what became of it."""

    def before_commit(self, call: Callable[[], object]) -> None:
        """Call *call* at the end of the block, as part of it; not if an exception leaves it."""
        self._last.append(call)

    def at_end(self, call: Callable[[bool], object]) -> None:
        """Call ``call(is_committed)`` once the block is over, before what follows it; False if nothing tells."""
        self._ends.append(call)

    def on_commit(self, call: Callable[[], object]) -> None:
        """Call *call* once the block is committed, and never otherwise; in the order in which they were given."""
        self._then.append(call)

    def on_rollback(self, call: Callable[[], object]) -> None:
        """Call *call* if the block comes to nothing; the last one first."""
        self._else.append(call)

    def decide_by(self, is_there: Callable[[Connection], bool]) -> None:
        """Say how to tell, should the answer to COMMIT be lost, whether it was carried out: one look-up will do."""
        self._witness = self._witness or is_there

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)``, which only reads, as part of the block."""
        return self._run(work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)`` as part of the block; if it fails, what it wrote is rolled back, and no more."""
        return self._run(
            lambda connection: within(connection.begin_nested(), work, connection), is_undone=True
        )

    @property
    def connection(self) -> Connection:
        """The block's connection; its first use begins the transaction.

        Raises
        ------
        TransactionError
            If the block is over.
        """
        self.require_alive()
        if self._connection is None:
            self._connection = self._begin()
            self._since = time.monotonic()
        return self._connection

    def locks(self, file: str) -> bool:
        """Whether it has begun to write to a SQLite file, and is not over."""
        return self._file == file and self._connection is not None

    def require_alive(self) -> None:
        """Raise `TransactionError` if the database has dropped what the block wrote so far."""
        if self._trouble is not None:
            raise TransactionError(
                f"this transaction on {self._name} is over, and nothing of it is committed: "
                f"{first_line(self._trouble)}. Leave the block and run all of it again; "
                "database.atomically(function) does that by itself"
            ) from self._trouble

    def require_own_task(self) -> None:
        """Raise `TransactionError` in another task of an event loop: what that wrote would be part of this block."""
        if self._task is not None and self._task is not _current_task():
            raise TransactionError(
                f"another task of this thread's event loop has a transaction on {self._name} open, and awaits "
                "something inside of it: await nothing in a transaction, or have it in a thread, by asyncio.to_thread"
            )

    def spoil(self, error: BaseException) -> None:
        """Let the block come to nothing, because of *error*."""
        self._trouble = self._trouble or error

    @property
    def is_dropped(self) -> bool:
        """Whether the database has dropped what the block wrote, and others may have been in its way."""
        error = self._trouble
        return isinstance(error, DBAPIError) and (is_lost(error) or is_transient(error))

    def _run(self, run: Callable[[Connection], T], *, is_undone: bool = False) -> T:
        connection = self.connection
        try:
            with self._lock:
                return run(connection)
        except BaseException as error:
            if self._has_dropped(connection, error, is_undone):
                self.spoil(error)
            raise

    def _has_dropped(self, connection: Connection, error: BaseException, is_undone: bool) -> bool:
        """Whether the database has rolled the whole transaction back, or takes no further statement in it."""
        if connection.invalidated:
            return True
        if connection.dialect.name == "sqlite":  # which drops all on a full disk
            raw: Any = connection.connection.dbapi_connection
            return not raw.in_transaction
        if not isinstance(error, DBAPIError):
            return False
        return (
            is_lost(error)
            or is_transient(error)
            or (connection.dialect.name == "postgresql" and not is_undone)
        )

    def finish(self) -> None:
        """Make the calls that belong at the end of the block."""
        while self._last and os.getpid() == self._pid:
            self._last.pop(0)()

    def commit(self) -> None:
        """Commit; if that fails, roll back and raise."""
        self.require_alive()
        connection = self._connection
        if connection is None:
            return
        try:
            with self._lock:
                connection.commit()
        except DBAPIError as error:
            if not is_lost(error) or not self._was_committed(error):
                if not self.is_in_doubt:
                    self.spoil(error)
                raise
        finally:
            self._close()

    def _was_committed(self, error: DBAPIError) -> bool:
        if self._witness is not None:
            return self._ask(self._witness)
        self.is_in_doubt = True
        error.add_note("the server went while COMMIT was on its way: it may have been committed or not")
        return False

    def rollback(self) -> None:
        """Take back what was written."""
        if self._connection is not None:
            with suppress(DBAPIError), self._lock:  # a connection that is gone has nothing left
                self._connection.rollback()
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        taken_s = time.monotonic() - self._since
        if taken_s > LONG_S:
            log.warning(
                "a transaction on %s was open for %.1f s, and whoever wanted to write waited for it%s: write files "
                "and compute before its first statement, which is what begins it",
                self._name,
                taken_s,
                ", the heartbeats of running sweeps too" if connection.dialect.name == "sqlite" else "",
            )
        with suppress(DBAPIError), self._lock:
            self._disconnect(connection)

    def end(self, error: BaseException | None) -> None:
        """Commit, or roll back because of *error*, and make the calls that were asked for.

        Raises
        ------
        TransactionError
            If the database had dropped the block, and nobody has said so yet.
        """
        if os.getpid() != self._pid:
            return
        try:
            if error is not None:
                self.rollback()
            else:
                self.commit()
        except BaseException:
            self._close()
            self._follow(is_committed=False)
            raise
        self._follow(is_committed=error is None)

    def _follow(self, *, is_committed: bool) -> None:
        backwards = [] if self.is_in_doubt else self._else[::-1]
        ends = [partial(call, is_committed) for call in self._ends]
        _call_all([*ends, *(self._then if is_committed else backwards)])


def within(
    transaction: AbstractContextManager[Any], work: Callable[[Connection], T], connection: Connection
) -> T:
    """Run ``work(connection)`` in a transaction or a SAVEPOINT; if it fails, that is the error, not the roll-back's.

    MySQL hangs up on a packet that is too large, and drops a SAVEPOINT with all the rest after a deadlock, so that
    rolling back fails too, which would hide why.
    """
    first: BaseException | None = None
    try:
        with transaction:
            try:
                return work(connection)
            except BaseException as error:
                first = error
                raise
    except DBAPIError as error:
        if first is not None and error is not first:
            raise first from error
        raise


class _Blocks(threading.local):
    open: dict[str, Transaction] | None = None  # by database


blocks = _Blocks()
"""Of this thread; a hit asks whether there is any."""


def joined(token: str) -> Transaction | None:
    """Return the block of this thread on a database, if one is open."""
    there = blocks.open
    block = None if there is None else there.get(token)
    if block is not None:
        block.require_own_task()
    return block


def _current_task() -> object | None:
    """Return the task of asyncio's that this thread runs now, if it runs one."""
    asyncio: Any = sys.modules.get("asyncio")
    # A thread without a loop has none, and need not pay for the error that says so.
    loop = asyncio._get_running_loop() if asyncio is not None else None
    return None if loop is None else asyncio.current_task(loop)


class opened:
    """A context manager: *block* is that of this thread on a database; it ends as the ``with`` statement ends."""

    def __init__(self, token: str, block: Transaction) -> None:
        self._token = token
        self._block = block

    def __enter__(self) -> Transaction:
        blocks.__dict__.setdefault("open", {})[self._token] = self._block
        return self._block

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None:
                self._block.finish()
        except BaseException as trouble:
            error = trouble
            raise
        finally:
            # First: what is called after a commit, or asked because of one, is no part of the block.
            (blocks.open or {}).pop(self._token, None)
            self._block.end(error)


def refuse_own_lock(url: URL) -> None:
    """Raise `TransactionError` if a block of this thread has locked this SQLite file, by another engine."""
    if blocks.open and (file := file_of(url)) and any(block.locks(file) for block in blocks.open.values()):
        raise TransactionError(
            f"this thread has a transaction on {shown(url)} open by another engine, and would wait for itself: give "
            "all stores the same Database, or the same engine"
        )


def forget_blocks() -> list[Transaction]:
    """In a forked child: have no block; return those of the parent, whose connections must not be closed here."""
    parents = list((blocks.open or {}).values())
    blocks.__dict__.clear()
    return parents


def _call_all(calls: list[Callable[[], object]]) -> None:
    """Make every call, whatever comes of the others, and raise the first error."""
    first: BaseException | None = None
    for call in calls:
        try:
            call()
        except BaseException as error:
            if first is not None:
                log.warning("after the transaction: %s", error, exc_info=True)
            first = first or error
    if first is not None:
        raise first
