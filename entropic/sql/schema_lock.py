"""The lock under which schemas change: one process at a time, for each database.

Creating tables is not safe for several first starters on any of the databases. SQLite locks the file, PostgreSQL has
advisory locks that end with the transaction, and MySQL, where each DDL statement commits, locks by name on a connection
of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import OperationalError

from entropic.errors import SchemaError
from entropic.process.patience import chance
from entropic.sql.database import Database
from entropic.sql.engines import BEGIN, synchronous, transaction
from entropic.sql.urls import shown

__all__ = ["schema_lock"]

LOCK_TIMEOUT_S = 60.0
POSTGRES_LOCK = 0x656E_7472_6F70_6963  # "entropic"
MYSQL_LOCK = func.concat("entropic-", func.md5(func.database()))  # such names are the server's
LOCK_NOT_AVAILABLE = "55P03"


@contextmanager
def schema_lock(database: Database) -> Iterator[Connection]:
    """Give a connection inside one transaction, while no other process is in here with the same database.

    The transaction is committed at the end, or rolled back if an exception leaves the block. On MySQL and MariaDB,
    which commit at each DDL statement, the lock holds nevertheless until the end.

    Raises
    ------
    SchemaError
        If another process has held the lock for a minute.
    TransactionError
        Inside a block of `Database.transaction`.
    """
    database.refuse_block("making or changing tables", "open every store before the block")
    if database.dialect == "sqlite":
        lock = _sqlite_lock(database)
    elif database.dialect == "postgresql":
        lock = _postgres_lock(database)
    elif database.dialect in {"mysql", "mariadb"}:
        lock = _mysql_lock(database)
    else:
        raise SchemaError(
            f"entropic works on SQLite, PostgreSQL, MySQL and MariaDB, not on {database.dialect}"
        )
    with lock as connection:
        yield connection


@contextmanager
def _sqlite_lock(database: Database) -> Iterator[Connection]:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while (connection := _begun(database.engine)) is None:
        if time.monotonic() > deadline:
            raise _timed_out(database)
        time.sleep(chance.uniform(0.001, 0.02))
    with connection:
        try:
            yield connection
            connection.commit()
        finally:
            if not connection.invalidated:
                connection.rollback()
                synchronous(connection, connection.info.pop("level"))


def _begun(engine: Engine) -> Connection | None:
    """Return a connection in a transaction that may write, or None if another one has the lock."""
    connection = engine.connect().execution_options(**{BEGIN: "IMMEDIATE"})
    # The marker of a results folder, which is synced, names a database that a power cut must not take.
    connection.info["level"] = synchronous(connection, "FULL")
    try:
        connection.begin()
    except OperationalError as error:
        synchronous(connection, connection.info.pop("level"))
        connection.close()
        if "locked" in str(error.orig):
            return None
        raise
    return connection


@contextmanager
def _postgres_lock(database: Database) -> Iterator[Connection]:
    # In any other isolation the wait for the lock would be part of what the transaction sees: nothing of what was made
    # meanwhile.
    options = {"isolation_level": "READ COMMITTED"}
    with database.engine.connect().execution_options(**options) as connection, connection.begin():
        try:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(LOCK_TIMEOUT_S * 1000)}")
            # The transaction's own lock: a session's would be lost in a pooler between client and server.
            connection.execute(select(func.pg_advisory_xact_lock(POSTGRES_LOCK)))
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE:
                raise _timed_out(database) from error
            raise
        yield connection


@contextmanager
def _mysql_lock(database: Database) -> Iterator[Connection]:
    # On a connection of its own, and without a transaction: each DDL statement commits that of the work.
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as holder:
        if holder.scalar(select(func.get_lock(MYSQL_LOCK, LOCK_TIMEOUT_S))) != 1:
            raise _timed_out(database)
        try:
            with transaction(database.engine) as connection:
                yield connection
        finally:
            holder.scalar(select(func.release_lock(MYSQL_LOCK)))


def _timed_out(database: Database) -> SchemaError:
    return SchemaError(
        f"another process has held the schema lock of the database {shown(database.url)} for {LOCK_TIMEOUT_S:g} s; "
        "if it is an upgrade, try again when that is done"
    )
