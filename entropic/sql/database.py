"""One engine per database and process: its pragmas, transactions, held connections, fork and pickle safety.

Everything that touches a database goes through `Database`: `write` for a transaction, `read` for statements that need
none, `look` for the one connection that a thread keeps for hits. All three are tried again after a deadlock, a lock
that timed out or a connection that was lost, and connecting waits for a server that is away or has no place left.
SQLite begins its writes with BEGIN IMMEDIATE: a transaction that reads first and writes later fails at once when
another one wrote in between, without waiting. Inside a block of `transaction` all of them are part of that.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from entropic.errors import TransactionError
from entropic.process.blocks import transparent
from entropic.process.logs import get_logger
from entropic.process.patience import Wait, chance
from entropic.sql import outages
from entropic.sql.engines import (
    BEGIN,
    begin_anew,
    is_memory,
    is_replaced,
    normalise_url,
    require_transactions,
    synchronous,
)
from entropic.sql.forks import keep_for_ever, statements
from entropic.sql.held import Held
from entropic.sql.outages import bytes_of, is_locked, is_lost, is_refused, is_transient
from entropic.sql.shared_engines import adopt_engine, engine_of, forget_parents, is_made_here, token_of
from entropic.sql.transactions import Transaction, forget_blocks, joined, opened, refuse_own_lock, within
from entropic.sql.urls import parse_url, shown

__all__ = ["Database", "DatabaseLike"]

log = get_logger(__name__)

T = TypeVar("T")

ATTEMPTS = 10
LARGE_BYTES = 1 << 16  # below that no server takes a statement for too large

_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """A database: one engine, shared by every store that is given it.

    Parameters
    ----------
    url_or_engine : str, sqlalchemy.URL, sqlalchemy.Engine or Database
        Relative SQLite paths are resolved now. An engine is used as it is, but waits for its server; on SQLite
        entropic adds its pragmas and its BEGIN to it. ``"sqlite://"`` is a database in memory, for this process only.

    Raises
    ------
    sqlalchemy.exc.ArgumentError
        If it is no URL, or one of a database that entropic does not work on.

    Notes
    -----
    Safe to share between threads. After a fork the child opens connections of its own. Pickling carries the URL,
    password included, in a packed form, and opens nothing; unpickling in the same process finds the same engine.

    A server that restarts is waited for, up to 60 s, and a place on one that has none left, up to 10 minutes; with
    one warning. So is a lock on a SQLite file: ten times the 30 s after which SQLite itself gives up. Only what is
    wrong from the start fails at once: a server that this process never reached.
    """

    def __init__(self, url_or_engine: DatabaseLike = "sqlite:///db.sqlite3") -> None:
        if isinstance(url_or_engine, Database):
            self.__setstate__(url_or_engine.__getstate__())
            return
        if isinstance(url_or_engine, Engine):
            url, token = url_or_engine.url, adopt_engine(url_or_engine, _rest_all)
        else:
            url = normalise_url(parse_url(url_or_engine))
            token = token_of(url)
        self._attach(url, token)
        if is_memory(url):
            self.engine  # noqa: B018  made here: what is unpickled elsewhere must not make another one

    def _attach(self, url: URL, token: str) -> None:
        self.url = url
        self._token = token
        self._pid = os.getpid()
        self._engine: Engine | None = None
        self._held = threading.local()
        self._all_held: weakref.WeakSet[Held] = weakref.WeakSet()
        # A driver of a server has no locks that a fork would leave locked, and an answer of its server may take long.
        self._statement: Any = statements if self.dialect == "sqlite" else nullcontext()
        _databases.add(self)

    @classmethod
    def of(cls, database: DatabaseLike) -> Database:
        """Return *database* itself if it is one, else make one of it."""
        return database if isinstance(database, Database) else cls(database)

    def __getstate__(self) -> tuple[bytes, str, int]:
        # Packed: where a pickle is printed or searched, nobody is to read a password.
        return zlib.compress(self.url.render_as_string(hide_password=False).encode()), self._token, self._pid

    def __setstate__(self, state: tuple[bytes, str, int]) -> None:
        url, token, pid = state
        self._attach(parse_url(zlib.decompress(url).decode()), token)
        self._pid = pid

    def __repr__(self) -> str:
        return f"Database({shown(self.url)!r})"

    @property
    def dialect(self) -> str:
        """``"sqlite"``, ``"postgresql"``, ``"mysql"`` or ``"mariadb"``."""
        return self.url.get_backend_name()

    @property
    def token(self) -> str:
        """The same of all in this process that share an engine, and so are in one block."""
        return self._token

    @property
    def is_memory(self) -> bool:
        """Whether the database is in memory: SQLite, this process only."""
        return self.dialect == "sqlite" and is_memory(self.url)

    @property
    def has_own_engine(self) -> bool:
        """Whether the engine was made here of the URL, and not given by the user."""
        return is_made_here(self.engine)

    @property
    def engine(self) -> Engine:
        """The engine; made at first use in this process.

        Raises
        ------
        RuntimeError
            If the database is in memory and belongs to another process.
        """
        if self._engine is None:
            if self.is_memory and self._pid != os.getpid():
                raise RuntimeError(
                    "a database in memory (sqlite://) lives in the process that made it; use a file"
                )
            self._engine = engine_of(self._token, self.url, _rest_all)
        return self._engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a pooled connection for statements that need no transaction; nothing is tried again.

        Inside a block it is the block's.
        """
        block = joined(self._token)
        if block is not None:
            yield block.connection
            return
        with self._statement, self.engine.connect().execution_options(**{BEGIN: ""}) as connection:
            yield connection

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)``, which only reads and needs no transaction, and return what it returns.

        Parameters
        ----------
        work : callable
            Called again, on another connection, after a lock that timed out or when the connection was lost.
        """
        block = joined(self._token)
        if block is not None:
            return block.read(work)
        return self._tried_again(lambda: self._read_once(work))

    def _read_once(self, work: Callable[[Connection], T]) -> T:
        with self.reading() as connection:
            return work(connection)

    def _tried_again(
        self, call: Callable[[], T], is_final: Callable[[DBAPIError], bool] = lambda error: False
    ) -> T:
        """Return what *call* returns, and call it again while others are in the way."""
        wait, has_said = Wait(outages.AWAY), False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except DBAPIError as error:
                if attempt == ATTEMPTS or is_final(error) or not (is_transient(error) or is_lost(error)):
                    raise
                if self._is_too_large(error):
                    raise
                if is_locked(error) and not has_said and wait.is_worth_saying():
                    has_said = True
                    log.warning(
                        "the database %s is locked by another process: waiting for it", shown(self.url)
                    )
                log.debug("tried again after %s", error.orig)
                time.sleep(chance.uniform(0, 0.01 * 2**attempt))
        raise RuntimeError("unreachable")

    def blames_row(self, error: BaseException) -> bool:
        """Whether an error of `write` says that the database will never take this row, whoever sends it, and when."""
        return is_refused(error) or (isinstance(error, DBAPIError) and self._is_too_large(error))

    def _is_too_large(self, error: DBAPIError) -> bool:
        """Whether a connection was lost to MySQL's answer to a statement that is too large: it hangs up."""
        if self.dialect not in {"mysql", "mariadb"} or not is_lost(error):
            return False
        size = bytes_of(error.params) + len(error.statement or "")
        if size < LARGE_BYTES:
            return False
        ask = "SELECT @@max_allowed_packet"
        try:
            limit: int = self.read(lambda connection: connection.exec_driver_sql(ask).scalar_one())
        except DBAPIError:
            return False
        return size > limit

    def write(self, work: Callable[[Connection], T], *, durable: bool = False, repeatable: bool = False) -> T:
        """Run ``work(connection)`` in one transaction that may write, and return what it returns.

        Parameters
        ----------
        work : callable
            Called again, on a new transaction, when the one before was rolled back: after a deadlock, a
            serialisation failure, a lock that timed out, or when the connection was lost. It must not mind.
        durable : bool
            On SQLite, sync this commit, and with it all earlier ones, to the disk; elsewhere commits always are.
        repeatable : bool
            *work* does no harm either if the one before was committed. Without, a server that goes while COMMIT is on
            its way, so that nobody knows whether it arrived, is an error.

        Notes
        -----
        Inside a block of `transaction` it is a SAVEPOINT of that: it is tried once, and committed with the block.
        """
        block = joined(self._token)
        if block is not None:
            return block.write(work)
        is_on_its_way = False

        def noted(connection: Connection) -> T:
            nonlocal is_on_its_way
            result = work(connection)
            is_on_its_way = True
            return result

        def once() -> T:
            nonlocal is_on_its_way
            is_on_its_way = False
            return self._write_once(noted, durable and self.dialect == "sqlite")

        def is_in_doubt(error: DBAPIError) -> bool:
            if repeatable or not is_on_its_way or not is_lost(error):
                return False
            error.add_note("the server went while COMMIT was on its way: it may have been committed or not")
            return True

        return self._tried_again(once, is_in_doubt)

    def _write_once(self, work: Callable[[Connection], T], durable: bool) -> T:
        refuse_own_lock(self.url)
        options = {BEGIN: "IMMEDIATE"}
        with self._statement, self.engine.connect().execution_options(**options) as connection:
            require_transactions(connection)
            level = synchronous(connection, "FULL") if durable else None
            try:
                return within(connection.begin(), work, connection)
            finally:
                # An interrupt in a statement closes the connection, and must not become an error of the database.
                if level is not None and not connection.invalidated:
                    synchronous(connection, level)

    def look(self, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)``, which only reads, on the connection that this thread keeps for look-ups.

        Checking one out of the pool costs more than the look-up itself. A connection that the server has closed
        meanwhile is replaced. A database in memory has a single connection, which nobody may keep: there, and
        there only, it is checked out each time.
        """
        block = joined(self._token)
        if block is not None:
            return block.read(work)
        held: Held | None = getattr(self._held, "value", None)
        if held is not None and is_replaced(held.connection):
            self.release()
            held = None
        if held is not None:
            try:
                with self._statement:
                    return work(held.connection)
            except DBAPIError as error:
                self.release()
                if not (is_lost(error) or is_transient(error)):
                    raise
        if self.is_memory:
            return self.read(work)
        return self._tried_again(lambda: self._look_anew(work))

    @property
    def kept(self) -> Any:
        """The driver's connection that this thread keeps for look-ups; None before the first, and inside a block.

        What is done on it is neither tried again nor seen by SQLAlchemy, and on SQLite has to hold
        `entropic.sql.forks.statements`.
        """
        held: Held | None = getattr(self._held, "value", None)
        return None if held is None or joined(self._token) is not None else held.raw

    def keeps_file(self, *, seen_s: float) -> bool:
        """Whether `kept` is to the SQLite file that is there, or was so many seconds ago: to look takes time.

        If not, `look` says that the file was removed, or connects to the one that has replaced it.
        """
        held: Held | None = getattr(self._held, "value", None)
        now = time.monotonic()
        if held is not None and now - held.seen_at > seen_s:
            if is_replaced(held.connection):
                return False
            held.seen_at = now
        return held is not None

    def _look_anew(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._statement:
                return work(self._hold().connection)
        except DBAPIError:
            self.release()
            raise

    def _hold(self) -> Held:
        held = self._held.value = Held(self.engine)
        self._all_held.add(held)
        return held

    @transparent
    def transaction(self) -> Iterator[Transaction]:
        """Commit what the block writes as a whole, or nothing of it if an exception leaves the block.

        Everything that this thread does with this database in the block is part of it, whichever store does it. Blocks
        inside one join it: an exception that leaves one of them ends them all.

        Yields
        ------
        Transaction
            Has `on_commit` and `on_rollback`, for what must follow.

        Raises
        ------
        sqlalchemy.exc.DBAPIError
            Whatever the database has against it: nothing is tried again, as `atomically` does.
        TransactionError
            If the database had dropped what was written, after a deadlock or with the connection.

        Notes
        -----
        It begins at its first statement: write large files and compute before. On SQLite it then holds the right to
        write, and is synced when it is committed. Other threads and forked children are not in it.
        """
        block = joined(self._token)
        if block is not None:
            try:
                yield block
            except BaseException as error:
                block.spoil(error)
                raise
            return
        with opened(self._token, self._block()) as block:
            yield block

    def atomically(self, work: Callable[[], T], *, refusal: Callable[[], str] = lambda: "") -> T:
        """Call *work* in a block of `transaction`, and return what it returns.

        Parameters
        ----------
        work : callable
            Called again after a deadlock, a lock that timed out or a connection that was lost. It must not mind.
        refusal : callable
            Returns why *work* must not be called again, and an empty text as long as it may.

        Raises
        ------
        TransactionError
            If the database has dropped what *work* wrote, and it must not be called again.
        """
        if joined(self._token) is not None:
            return work()
        block = self._block()

        def once() -> T:
            nonlocal block
            block = self._block()
            try:
                with opened(self._token, block):
                    return work()
            except TransactionError as error:  # *work* went on after the error that ended the block
                if isinstance(error.__cause__, DBAPIError):
                    raise error.__cause__ from None
                raise

        try:
            return self._tried_again(once, lambda error: block.is_in_doubt or bool(refusal()))
        except DBAPIError as error:
            if not (reason := refusal()) or not block.is_dropped:
                raise
            raise TransactionError(f"{reason}: {error.orig}") from error

    @property
    def is_in_block(self) -> bool:
        """Whether this thread is inside a block of `transaction`."""
        return joined(self._token) is not None

    def on_commit(self, call: Callable[[], object]) -> None:
        """Call *call* once what this thread wrote is committed: at once, or at the end of the block it is in."""
        block = joined(self._token)
        if block is None:
            call()
        else:
            block.on_commit(call)

    def before_commit(self, call: Callable[[], object]) -> None:
        """Inside a block: call *call* at its end, as part of it."""
        block = joined(self._token)
        if block is not None:
            block.before_commit(call)

    def at_end(self, call: Callable[[bool], object]) -> None:
        """Inside a block: call ``call(is_committed)`` once it is over."""
        block = joined(self._token)
        if block is not None:
            block.at_end(call)

    def decide_by(self, is_there: Callable[[Connection], bool]) -> None:
        """Inside a block: say how to tell, should the answer to its COMMIT be lost, whether it was carried out."""
        block = joined(self._token)
        if block is not None:
            block.decide_by(is_there)

    def refuse_block(self, what: str, way: str) -> None:
        """Raise `TransactionError` inside a block, of *what* needs a transaction of its own; *way* says what to do."""
        if self.is_in_block:
            raise TransactionError(f"{what} is not possible inside a transaction on {shown(self.url)}: {way}")

    def _block(self) -> Transaction:
        begin = partial(self._tried_again, self._begun)
        return Transaction(begin, self._ended, self.read, self._statement, self.url)

    def _begun(self) -> Connection:
        refuse_own_lock(self.url)
        with self._statement:
            connection = self.engine.connect().execution_options(**{BEGIN: "IMMEDIATE"})
            try:
                if self.dialect == "sqlite":
                    connection.info["level"] = synchronous(connection, "FULL")
                require_transactions(connection)
                connection.begin()
            except BaseException:
                self._ended(connection)
                raise
            return connection

    def _ended(self, connection: Connection) -> None:
        if self.dialect == "sqlite" and not connection.invalidated and "level" in connection.info:
            synchronous(connection, connection.info.pop("level"))
        connection.close()

    def release(self) -> None:
        """Let go of the connection that this thread keeps, as before a wait or a long run."""
        held: Held | None = getattr(self._held, "value", None)
        if held is not None:
            del self._held.value
            held.close()

    def rest(self) -> None:
        """Let go of the connections to a server that nobody needs now, as before a long run: its places are few.

        What this thread keeps and what lies idle in the pool is closed; the next use connects again. A connection that
        another thread works with just now goes on, and back to the pool. An engine that the user made keeps its pool.
        Does nothing on SQLite.
        """
        if self.dialect == "sqlite":
            return
        self.release()
        if self._engine is not None and self.has_own_engine:
            self._engine.pool.dispose()

    def begin_anew(self) -> None:
        """Take what there is now under the name of a SQLite file, also if it was removed or replaced meanwhile."""
        self.release()
        begin_anew(self.engine)

    def dispose(self) -> None:
        """Close every connection; the next use opens new ones. A database in memory is gone then.

        A connection that another thread works with just now goes back to the pool, and is closed by the next call.
        """
        for held in _members(self._all_held):
            held.close()
        self._all_held.clear()
        self._held = threading.local()
        if self._engine is None:
            return
        if self.has_own_engine and not self.is_memory:
            # The pool's own, not the engine's: that puts a new pool in its place, and what is in use now would go back
            # to the old one and be dropped unclosed.
            self._engine.pool.dispose()
        else:
            self._engine.dispose()

    def _forget_parent(self) -> None:
        """In a forked child: leave the parent's connections alone and open none of them again."""
        for held in list(self._all_held):
            held.close.detach()
            keep_for_ever(held)
        self._all_held = weakref.WeakSet()
        self._held = threading.local()
        if self.is_memory:
            self._engine = None


DatabaseLike = Database | Engine | URL | str


def _rest_all() -> None:
    for database in _members(_databases):
        database.rest()


_at_fork: list[Held] = []


def _before_fork() -> None:
    # In the child Python drops what other threads kept for themselves before it tells us: it must not be closed there.
    _at_fork.extend(held for database in _members(_databases) for held in _members(database._all_held))


def _members(those: weakref.WeakSet[T]) -> list[T]:
    while True:
        try:
            return list(those)
        except RuntimeError:  # another thread has put one in
            continue


def _after_fork_in_child() -> None:
    for database in list(_databases):
        database._forget_parent()
    keep_for_ever(forget_blocks())
    _at_fork.clear()
    forget_parents()


os.register_at_fork(before=_before_fork, after_in_parent=_at_fork.clear, after_in_child=_after_fork_in_child)
