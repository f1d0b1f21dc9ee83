"""Engines: made of a URL, and prepared for what entropic asks of them, SQLite's pragmas and BEGIN above all."""

from __future__ import annotations

import os
import re
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ExceptionContext,
    QueuePool,
    create_engine,
    event,
)
from sqlalchemy.exc import ArgumentError

from entropic.disk.files import make_folders
from entropic.disk.names import is_text
from entropic.process.logs import get_logger
from entropic.process.patience import chance
from entropic.sql.outages import Connector, connected
from entropic.sql.prepared import execute_text
from entropic.sql.sqlite_files import SQLiteFile
from entropic.sql.urls import DRIVERS, scrub_error, shown

__all__ = [
    "BEGIN",
    "begin_anew",
    "file_of",
    "is_memory",
    "is_replaced",
    "make_engine",
    "normalise_url",
    "prepare",
    "require_transactions",
    "synchronous",
    "transaction",
    "why_unreadable",
]

log = get_logger(__name__)

BEGIN = "entropic_begin"  # execution option: how a transaction begins on SQLite; "" for not at all
BUSY_TIMEOUT_S = 30.0
FILE_TROUBLES = {  # what SQLite says, and what that means for the folder or the file
    "readonly database": "which may only be read by this process",
    "disk is full": "whose disk or quota is full",
    "unable to open": "which is not there, may not be read, or may only be read",
    "disk I/O error": "whose disk is full or does not answer",
    "file is not a database": "and that file is something else, or damaged: give another path, or restore it",
    "image is malformed": "and that file is damaged: restore it from a backup",
}
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "fuse.sshfs", "9p", "afs"}

_NOTHING: Mapping[str, str] = {}
_SETTINGS = {  # of PostgreSQL: whatever a server, a database or a role has, values come back as they were stored
    "TimeZone": "UTC",  # in another one the first and the last day that Python knows have no time
    "DateStyle": "ISO, MDY",  # psycopg reads no times in another one
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",  # with less a double loses its last digits
}

_prepared: weakref.WeakSet[Engine] = weakref.WeakSet()
_files: weakref.WeakKeyDictionary[Engine, SQLiteFile] = weakref.WeakKeyDictionary()


def make_engine(url: URL, rest: Callable[[], None]) -> Engine:
    """Make the engine of a URL; *rest* lets go of connections when the server has no place left."""
    if url.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}}
        if is_memory(url):
            # One connection, lent to one thread at a time: StaticPool would hand it to several at once.
            arguments |= {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
        elif not str(url.database).startswith("file:"):
            _announce(Path(str(url.database)))
        engine = _created(url, **arguments)
    else:
        arguments = {"pool_pre_ping": True, "pool_recycle": 1800, "pool_use_lifo": True}
        # Whatever the server's default: a poller must see what others commit meanwhile.
        arguments["isolation_level"] = "READ COMMITTED"
        engine = _created(url, **arguments)
    prepare(engine, rest, settings=_SETTINGS)
    return engine


def _created(url: URL, **arguments: Any) -> Engine:
    backend = url.get_backend_name()
    try:
        engine = create_engine(url, **arguments)
    except ModuleNotFoundError as error:
        extra = "postgres" if backend == "postgresql" else "mysql"
        way = f"pip install 'entropic[{extra}]'"
        if url.drivername != DRIVERS.get(backend):
            ours = f" with the driver of {way}" if backend in DRIVERS else ""
            way = f"install it, or use {backend}://{ours}"
        raise ImportError(
            f"the database {shown(url)} ({url.drivername}://) needs the driver {error.name!r}, which is not "
            f"installed: {way}"
        ) from error
    if engine.dialect.is_async:
        raise ArgumentError(
            f"the driver of {url.drivername}:// is asynchronous, and entropic is not: write {backend}://, which is the "
            "same database"
        )
    return engine


def _announce(path: Path) -> None:
    if not path.exists():
        make_folders(path.parent)
        log.info("making the database %s", path)


def prepare(engine: Engine, rest: Callable[[], None], *, settings: Mapping[str, str] = _NOTHING) -> None:
    """Add what entropic asks of an engine, once; *settings* are PostgreSQL's, for each session."""
    if engine in _prepared:
        return
    _prepared.add(engine)
    event.listen(engine, "handle_error", partial(_scrub, engine.url))
    if engine.dialect.name != "sqlite":
        event.listen(engine, "do_connect", Connector(engine.url, rest))
        if engine.dialect.driver == "psycopg":
            event.listen(engine, "connect", partial(_prepare_psycopg, settings))
        return
    file = _files[engine] = SQLiteFile(engine.url, is_memory=is_memory(engine.url))
    event.listen(engine, "do_connect", partial(_connect_sqlite, engine.url, file))
    # At checkout, not at connect: an engine of the user's may have connections in its pool already.
    event.listen(engine, "checkout", partial(_prepare_sqlite, file))
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "invalidate", _roll_back_sqlite)
    event.listen(engine, "handle_error", partial(_explain, Path(str(engine.url.database))))


def begin_anew(engine: Engine) -> None:
    """Let a SQLite file that was removed be made again; without, to connect is an error then."""
    if (file := _files.get(engine)) is not None:
        file.begin_anew()


def is_replaced(connection: Connection) -> bool:
    """Whether a connection is to a SQLite file that was removed or replaced since it was made."""
    file = _files.get(connection.engine)
    return file is not None and connection.connection.info.get("entropic") != file.identity()


def why_unreadable(engine: Engine) -> str | None:
    """Return why a SQLite file cannot even be read by this user; None if it can, or nobody knows why not."""
    file = _files.get(engine)
    return None if file is None else file.trouble()


def _prepare_psycopg(settings: Mapping[str, str], connection: Any, record: Any) -> None:
    """Set up a session, in one round trip.

    Where a pooler, such as PgBouncer, is in between, psycopg is to prepare no statements on the server: the next
    transaction may be on another connection to it, which has none of that name, or another one.
    """
    former, connection.autocommit = connection.autocommit, True
    made = "".join(f", set_config('{name}', '{value}', false)" for name, value in settings.items())
    backend = connection.execute(f"SELECT pg_backend_pid(){made}").fetchone()[0]
    connection.autocommit = former
    if backend != connection.info.backend_pid:  # what the pooler says for itself
        connection.prepare_threshold = None


def _connect_sqlite(
    url: URL, file: SQLiteFile, dialect: Any, record: Any, arguments: Any, keywords: Any
) -> Any:
    # Some releases of SQLAlchemy's give the next one the same.
    arguments, keywords = [*arguments], {**keywords}
    file.prepare(dialect, arguments, keywords)
    return connected(url, dialect, record, arguments, keywords)


def _prepare_sqlite(file: SQLiteFile, connection: Any, record: Any, proxy: Any) -> None:
    if "entropic" in record.info:
        file.require(record.info["entropic"])
        return
    # Or the sqlite3 module would begin transactions of its own, at its own time.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    path = next((row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main"), "")
    if path and _is_on_network(path):
        # And the rollback journal: WAL needs the memory of one host.
        connection.execute("PRAGMA synchronous=FULL")
    elif path:
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
    record.info["entropic"] = file.identity()


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
            time.sleep(chance.uniform(0.001, 0.02))


def _scrub(url: URL, context: ExceptionContext) -> None:
    """Take out of an error what its server or driver repeats of the URL."""
    for error in (context.original_exception, context.sqlalchemy_exception):
        if error is not None:
            scrub_error(error, url)


def _explain(path: Path, context: ExceptionContext) -> None:
    """Say which file and folder it is that SQLite's error leaves unnamed."""
    for text, reason in FILE_TROUBLES.items():
        if context.sqlalchemy_exception is not None and text in str(context.original_exception):
            context.sqlalchemy_exception.add_note(
                f"the database is {path.name!r} in the folder {str(path.parent)!r}, {reason}"
            )


def _begin_sqlite(connection: Connection) -> None:
    how = connection.get_execution_options().get(BEGIN, "DEFERRED")
    if how:
        execute_text(connection, f"BEGIN {how}")


def _roll_back_sqlite(connection: Any, record: Any, error: BaseException | None) -> None:
    """End the transaction of a connection that SQLAlchemy drops, as after an interrupt.

    To close it is not enough: SQLite keeps it, and its lock, while the traceback of the interrupt keeps a cursor. Who
    gives back claims because of that interrupt would wait for this very process.
    """
    with suppress(connection.Error):
        connection.rollback()


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


def normalise_url(url: URL) -> URL:
    """Name the driver that entropic's extras install, and resolve a relative SQLite path.

    Raises
    ------
    sqlalchemy.exc.ArgumentError
        If SQLite cannot open a file of that path.
    """
    if url.drivername in DRIVERS:
        return url.set(drivername=DRIVERS[url.drivername])
    if url.get_backend_name() != "sqlite" or is_memory(url):
        return url
    # A URI's path too: the working directory may be another one when the file is opened.
    scheme, path = re.match(r"(file:)?(.*)", str(url.database), re.DOTALL).groups("")  # type: ignore[union-attr]
    if scheme and path.startswith("//"):
        return url
    path = str(Path(path).expanduser().absolute())
    if not is_text(path):
        raise ArgumentError(
            f"the path of a SQLite file must be UTF-8, and that of {shown(url)!r} is not: rename it, or name a link "
            "that leads to it"
        )
    return url.set(database=scheme + path)


def file_of(url: URL) -> str:
    """Return where the file of a SQLite database is, whatever links lead there; "" if it is in none."""
    if url.get_backend_name() != "sqlite" or is_memory(url):
        return ""
    return os.path.realpath(str(normalise_url(url).database))


def is_memory(url: URL) -> bool:
    """Whether a URL names a database in memory."""
    if url.get_backend_name() != "sqlite":
        return False
    database = url.database or ""
    if database == "file::memory:" and "uri" in url.query:
        return True
    return database in {"", ":memory:"} or "mode=memory" in database or url.query.get("mode") == "memory"


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction, which is committed after the block."""
    with engine.connect() as connection:
        require_transactions(connection)
        with connection.begin():
            yield connection


def require_transactions(connection: Connection) -> None:
    """Let a connection have transactions, of which an engine of a user's may have none: what is written is a whole."""
    if connection.dialect.name == "sqlite":  # there BEGIN is all that there is to it
        return
    raw: Any = connection.connection.dbapi_connection
    ask = getattr(raw, "get_autocommit", None)  # of MySQL's drivers; the others have an attribute
    has_none = ask() if ask is not None else getattr(raw, "autocommit", False)
    if has_none:
        connection.execution_options(isolation_level="READ COMMITTED")


def synchronous(connection: Connection, level: str) -> str:
    """Set how much SQLite syncs on a connection, outside of a transaction; return what it was."""
    raw: Any = connection.connection.dbapi_connection
    (former,) = raw.execute("PRAGMA synchronous").fetchone()
    raw.execute(f"PRAGMA synchronous={level}")
    return str(former)
