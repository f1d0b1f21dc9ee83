"""One engine per database and process: its pragmas, transactions, held connections, fork and pickle safety.

Everything that touches a database goes through `Database`: `write` for a transaction, `read` for statements that need
none, `look` for the one connection that a thread keeps for hits. All three are tried again after a deadlock, a lock
that timed out or a connection that was lost, and connecting waits for a server that is away or has no place left.
SQLite begins its writes with BEGIN IMMEDIATE: a transaction that reads first and writes later fails at once when
another one wrote in between, without waiting.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import URL, Connection, Engine, ExceptionContext, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

__all__ = ["Database", "DatabaseLike"]

log = logging.getLogger(__name__)

T = TypeVar("T")

BEGIN = "entropic_begin"  # execution option: how a transaction begins on SQLite; "" for not at all
BUSY_TIMEOUT_S = 30.0
ATTEMPTS = 10
RECONNECT_S = 60.0  # how long connecting waits for a server
SAY_AFTER_S = 1.0  # a wait that is over sooner is not worth a warning
FILE_TROUBLES = {  # what SQLite says, and what that means for the folder
    "readonly database": "which may only be read by this process",
    "disk is full": "whose disk or quota is full",
    "unable to open": "which is not there, may not be read, or may only be read",
    "disk I/O error": "whose disk is full or does not answer",
}
TRANSIENT_MYSQL = {1205, 1213}  # lock wait timeout, deadlock
TRANSIENT_SQLSTATES = {"40001", "40P01", "55P03"}  # serialisation failure, deadlock, lock not available
LOST_MYSQL = {1053, 1927, 2006, 2013}  # shutdown, killed, gone away, lost
LOST_SQLSTATES = {"57P01", "57P02"}  # shutdown, crash; and class 08
AWAY_MYSQL = {1053, 2002, 2003, 2006, 2013}
FULL_MYSQL = {1040, 1203, 1226}  # too many connections: of all, of this user
FULL_SQLSTATE = "53300"
FULL_TEXTS = ("too many clients", "connection slots are reserved", "too many connections")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "fuse.sshfs", "9p", "afs"}
DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}

_engines: dict[str, Engine] = {}
_engines_lock = threading.Lock()
_ours: weakref.WeakSet[Engine] = weakref.WeakSet()  # engines made here; the others are the user's
_prepared: weakref.WeakSet[Engine] = weakref.WeakSet()
_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """A database: one engine, shared by every store that is given it.

    Parameters
    ----------
    url_or_engine : str, sqlalchemy.URL, sqlalchemy.Engine or Database
        Relative SQLite paths are resolved now. An engine is used as it is, but waits for its server; on SQLite
        entropic adds its pragmas and its BEGIN to it. ``"sqlite://"`` is a database in memory, for this process only.

    Notes
    -----
    Safe to share between threads. After a fork the child opens connections of its own. Pickling carries the URL,
    password included, and opens nothing; unpickling in the same process finds the same engine.

    A server that restarts, or that has no connection left, is waited for: up to 60 s, with one warning. So is a lock
    on a SQLite file: ten times the 30 s after which SQLite itself gives up. Only what is wrong from the start fails
    at once: a server that this process never reached.
    """

    def __init__(self, url_or_engine: DatabaseLike = "sqlite:///db.sqlite3") -> None:
        if isinstance(url_or_engine, Database):
            self.__setstate__(url_or_engine.__getstate__())
            return
        if isinstance(url_or_engine, Engine):
            url, token = url_or_engine.url, uuid4().hex
            _prepare(url_or_engine)
            with _engines_lock:
                _engines[token] = url_or_engine
        else:
            url = _normalise_url(make_url(url_or_engine))
            token = uuid4().hex if _is_memory(url) else url.render_as_string(hide_password=False)
        self._attach(url, token)
        if _is_memory(url):
            self.engine  # noqa: B018  made here: what is unpickled elsewhere must not make another one

    def _attach(self, url: URL, token: str) -> None:
        self.url = url
        self._token = token
        self._pid = os.getpid()
        self._engine: Engine | None = None
        self._held = threading.local()
        self._all_held: weakref.WeakSet[_Held] = weakref.WeakSet()
        _databases.add(self)

    @classmethod
    def of(cls, database: DatabaseLike) -> Database:
        """Return *database* itself if it is one, else make one of it."""
        return database if isinstance(database, Database) else cls(database)

    def __getstate__(self) -> tuple[str, str, int]:
        return self.url.render_as_string(hide_password=False), self._token, self._pid

    def __setstate__(self, state: tuple[str, str, int]) -> None:
        url, token, pid = state
        self._attach(make_url(url), token)
        self._pid = pid

    def __repr__(self) -> str:
        return f"Database({self.url.render_as_string()!r})"

    @property
    def dialect(self) -> str:
        """``"sqlite"``, ``"postgresql"``, ``"mysql"`` or ``"mariadb"``."""
        return self.url.get_backend_name()

    @property
    def is_memory(self) -> bool:
        """Whether the database is in memory: SQLite, this process only."""
        return self.dialect == "sqlite" and _is_memory(self.url)

    @property
    def has_own_engine(self) -> bool:
        """Whether the engine was made here of the URL, and not given by the user."""
        return self.engine in _ours

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
            with _engines_lock:
                if self._token not in _engines:
                    _engines[self._token] = _make_engine(self.url)
                self._engine = _engines[self._token]
        return self._engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a pooled connection for statements that need no transaction; nothing is tried again."""
        with self.engine.connect().execution_options(**{BEGIN: ""}) as connection:
            yield connection

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)``, which only reads and needs no transaction, and return what it returns.

        Parameters
        ----------
        work : callable
            Called again, on another connection, after a lock that timed out or when the connection was lost.
        """
        return self._tried_again(lambda: self._read_once(work))

    def _read_once(self, work: Callable[[Connection], T]) -> T:
        with self.reading() as connection:
            return work(connection)

    def _tried_again(
        self, call: Callable[[], T], is_final: Callable[[DBAPIError], bool] = lambda error: False
    ) -> T:
        """Return what *call* returns, and call it again while others are in the way."""
        began, has_said = time.monotonic(), False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except DBAPIError as error:
                if attempt == ATTEMPTS or is_final(error) or not (_is_transient(error) or _is_lost(error)):
                    raise
                if _is_locked(error) and not has_said and time.monotonic() - began > SAY_AFTER_S:
                    has_said = True
                    log.warning(
                        "the database %s is locked by another process: waiting for it", _name(self.url)
                    )
                log.debug("tried again after %s", error.orig)
                time.sleep(random.uniform(0, 0.01 * 2**attempt))
        raise RuntimeError("unreachable")

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session whose objects stay readable after it is closed."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

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
        """
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
            if repeatable or not is_on_its_way or not _is_lost(error):
                return False
            error.add_note("the server went while COMMIT was on its way: it may have been committed or not")
            return True

        return self._tried_again(once, is_in_doubt)

    def _write_once(self, work: Callable[[Connection], T], durable: bool) -> T:
        with self.engine.connect().execution_options(**{BEGIN: "IMMEDIATE"}) as connection:
            raw: Any = connection.connection.dbapi_connection
            if durable:
                (level,) = raw.execute("PRAGMA synchronous").fetchone()
                raw.execute("PRAGMA synchronous=FULL")
            try:
                with connection.begin():
                    return work(connection)
            finally:
                if durable:
                    raw.execute(f"PRAGMA synchronous={level}")

    def look(self, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)``, which only reads, on the connection that this thread keeps for look-ups.

        Checking one out of the pool costs more than the look-up itself. A connection that the server has closed
        meanwhile is replaced. A database in memory has a single connection, which nobody may keep: there, and
        there only, it is checked out each time.
        """
        held: _Held | None = getattr(self._held, "value", None)
        if held is not None:
            try:
                return work(held.connection)
            except DBAPIError as error:
                self.release()
                if not _is_lost(error):
                    raise
        if self.is_memory:
            return self.read(work)
        return self._tried_again(lambda: self._look_anew(work))

    def _look_anew(self, work: Callable[[Connection], T]) -> T:
        try:
            return work(self._hold().connection)
        except DBAPIError:
            self.release()
            raise

    def _hold(self) -> _Held:
        held = self._held.value = _Held(self.engine)
        self._all_held.add(held)
        return held

    def release(self) -> None:
        """Let go of the connection that this thread keeps, as before a wait or a long run."""
        held: _Held | None = getattr(self._held, "value", None)
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
            # The pool's own, not the engine's: that puts a new pool in its place, and what is in use now would go back
            # to the old one and be dropped unclosed.
            self._engine.pool.dispose()

    def dispose(self) -> None:
        """Close every connection; the next use opens new ones. A database in memory is gone then."""
        for held in list(self._all_held):
            held.close()
        self._all_held.clear()
        self._held = threading.local()
        if self._engine is not None:
            self._engine.dispose()

    def _forget_parent(self) -> None:
        """In a forked child: leave the parent's connections alone and open none of them again."""
        for held in list(self._all_held):
            held.forget()
        self._all_held = weakref.WeakSet()
        self._held = threading.local()
        if self.is_memory:
            self._engine = None


DatabaseLike = Database | Engine | URL | str


class _Held:
    """A connection outside the pool: a thread may keep one without using up the pool's places."""

    def __init__(self, engine: Engine) -> None:
        options: dict[str, Any] = {BEGIN: ""}
        if engine.dialect.name != "sqlite":
            options["isolation_level"] = "AUTOCOMMIT"  # one round trip instead of three, no idle transaction
        self.connection: Any = engine.connect()
        try:
            self.connection.execution_options(**options)
            self.connection.detach()
        except BaseException:
            self.connection.close()
            raise
        # Not __del__: of a cycle the collector may end the driver's connection first, unclosed, which is a warning.
        self.close = weakref.finalize(self, _close, self.connection)

    def forget(self) -> None:
        """Let go of the connection without closing it: another process uses it."""
        self.close.detach()
        self.connection = None


def _close(connection: Connection) -> None:
    try:
        connection.close()
    except DBAPIError as error:  # the server ended it first: there is nothing left to close
        log.debug("a connection was gone before it was closed: %s", error)


class _Connector:
    """Makes the connections of an engine to a server, and waits while the server is away or has no place left."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._gave_up_at = -math.inf

    def __call__(self, dialect: Any, record: Any, arguments: Any, keywords: Any) -> Any:
        began, pause_s, has_said = time.monotonic(), _FIRST_PAUSE_S, False
        while True:
            try:
                return dialect.connect(*arguments, **keywords)
            except dialect.loaded_dbapi.OperationalError as error:
                now = time.monotonic()
                is_full = _is_full(error)
                # A wrong URL is not an outage; but no place is left only where the URL is right.
                if not (is_full or (dialect.server_version_info is not None and _is_away(error))):
                    raise
                # What cleans up after a wait that was in vain does not wait in its turn.
                if now - began > RECONNECT_S or now - self._gave_up_at < RECONNECT_S:
                    self._gave_up_at = now
                    raise
                if not has_said and now - began > SAY_AFTER_S:
                    has_said = True
                    log.warning(
                        "the database %s cannot be reached: waiting for it, for %g s at most (%s)",
                        _name(self._url),
                        RECONNECT_S,
                        str(error).partition("\n")[0],
                    )
                if is_full:
                    # Or all may wait for a second place, and keep the first: for looking, or idle in the pool.
                    for database in list(_databases):
                        database.rest()
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _make_engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}}
        if _is_memory(url):
            # One connection, lent to one thread at a time: StaticPool would hand it to several at once.
            arguments |= {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
        elif not str(url.database).startswith("file:"):
            _announce(Path(str(url.database)))
        engine = create_engine(url, **arguments)
    else:
        arguments = {"pool_pre_ping": True, "pool_recycle": 1800, "pool_use_lifo": True}
        if url.get_backend_name() in {"mysql", "mariadb"}:
            arguments["isolation_level"] = "READ COMMITTED"  # a poller must see what others commit meanwhile
        engine = create_engine(url, **arguments)
    _ours.add(engine)
    _prepare(engine)
    return engine


def _announce(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        log.info("making the database %s", path)


def _prepare(engine: Engine) -> None:
    if engine in _prepared:
        return
    _prepared.add(engine)
    if engine.dialect.name != "sqlite":
        event.listen(engine, "do_connect", _Connector(engine.url))
        return
    # At checkout, not at connect: an engine of the user's may have connections in its pool already.
    event.listen(engine, "checkout", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "handle_error", partial(_explain, Path(str(engine.url.database))))


def _prepare_sqlite(connection: Any, record: Any, proxy: Any) -> None:
    if record.info.get("entropic"):
        return
    connection.isolation_level = (
        None  # the sqlite3 module would begin transactions of its own, at its own time
    )
    connection.execute("PRAGMA foreign_keys=ON")
    path = next((row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main"), "")
    if path and _is_on_network(path):
        connection.execute(
            "PRAGMA synchronous=FULL"
        )  # and the rollback journal: WAL needs the memory of one host
    elif path:
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
    record.info["entropic"] = True


def _switch_to_wal(connection: Any) -> None:
    """Switch the file to write-ahead logging; two at once fail whatever the time-out, so try again."""
    for attempt in range(200):
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                return
            connection.execute("PRAGMA journal_mode=WAL")
        except connection.OperationalError as error:
            if "readonly" in str(error):
                return
            if "locked" not in str(error) or attempt == 199:
                raise
            time.sleep(random.uniform(0.001, 0.02))


def _explain(path: Path, context: ExceptionContext) -> None:
    """Say which folder it is that SQLite's error leaves unnamed."""
    for text, reason in FILE_TROUBLES.items():
        if context.sqlalchemy_exception is not None and text in str(context.original_exception):
            context.sqlalchemy_exception.add_note(
                f"the database is {path.name!r} in the folder {str(path.parent)!r}, {reason}"
            )


def _begin_sqlite(connection: Connection) -> None:
    how = connection.get_execution_options().get(BEGIN, "DEFERRED")
    if how:
        connection.exec_driver_sql(f"BEGIN {how}")


def _is_on_network(path: str) -> bool:
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    best, kind = "", ""
    for line in mounts:
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    if kind in NETWORK_FILE_SYSTEMS:
        log.warning(
            "%s is on a network file system (%s): SQLite is slow there, and safe on one host at a time only; "
            "for several hosts use PostgreSQL",
            path,
            kind,
        )
    return kind in NETWORK_FILE_SYSTEMS


def _name(url: URL) -> str:
    return url.render_as_string()  # without the password


def _is_transient(error: DBAPIError) -> bool:
    return _is_locked(error) or _code(error.orig) in TRANSIENT_SQLSTATES | TRANSIENT_MYSQL


def _is_locked(error: DBAPIError) -> bool:
    text = str(error.orig)
    return "database is locked" in text or "database table is locked" in text


def _is_lost(error: DBAPIError) -> bool:
    """Whether a connection was lost that there had been."""
    code = _code(error.orig)
    is_psql = isinstance(code, str) and (code in LOST_SQLSTATES or code.startswith("08"))
    return error.connection_invalidated or is_psql or code in LOST_MYSQL


def _is_away(error: Any) -> bool:
    """Whether a connection could not be made because of the server."""
    code = _code(error)
    # To libpq a connection that cannot be made has a text, perhaps translated, and no code.
    return code is None or isinstance(code, str) or code in AWAY_MYSQL


def _is_full(error: Any) -> bool:
    code = _code(error)
    if code is None:
        return any(text in str(error) for text in FULL_TEXTS)
    return code == FULL_SQLSTATE or code in FULL_MYSQL


def _code(original: Any) -> str | int | None:
    """Return what the driver has for a code: PostgreSQL's SQLSTATE, MySQL's number."""
    state: str | None = getattr(original, "sqlstate", None)
    if state is not None:
        return state
    arguments: Sequence[Any] = getattr(original, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def _normalise_url(url: URL) -> URL:
    """Name the driver that entropic's extras install, and resolve a relative SQLite path."""
    if url.drivername in DRIVERS:
        return url.set(drivername=DRIVERS[url.drivername])
    if (
        url.get_backend_name() == "sqlite"
        and not _is_memory(url)
        and not str(url.database).startswith("file:")
    ):
        return url.set(database=str(Path(str(url.database)).expanduser().absolute()))
    return url


def _is_memory(url: URL) -> bool:
    if url.get_backend_name() != "sqlite":
        return False
    database = url.database or ""
    return database in {"", ":memory:"} or "mode=memory" in database or url.query.get("mode") == "memory"


def _after_fork() -> None:
    global _engines_lock
    _engines_lock = threading.Lock()
    for database in list(_databases):
        database._forget_parent()
    for engine in _engines.values():
        if not _is_memory(engine.url):
            engine.dispose(close=False)


os.register_at_fork(after_in_child=_after_fork)
