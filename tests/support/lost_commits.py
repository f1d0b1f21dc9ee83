"""A server that goes: in a transaction, or while COMMIT is on its way, so that nobody knows whether it arrived."""

from typing import Any

from sqlalchemy import NullPool, create_engine, text

from entropic import Database


def lose_commit(database: Database, *, arrives: bool) -> None:
    """Let the connection of the next commit end, before it or before its answer.

    A server ends it itself; SQLite has none, and is made to look so.
    """
    dialect: Any = database.engine.dialect
    real = dialect.do_commit
    end = _end_on_sqlite if database.dialect == "sqlite" else _end

    def do_commit(connection: Any) -> None:
        dialect.do_commit = real
        end(database, connection, (lambda: real(connection)) if arrives else lambda: None)

    dialect.do_commit = do_commit


def lose_connection(database: Database) -> None:
    """End the connection of this thread's block, as an administrator would."""
    mine = "pg_backend_pid()" if database.dialect == "postgresql" else "connection_id()"
    number = database.read(lambda connection: connection.exec_driver_sql(f"SELECT {mine}").scalar_one())
    end = f"SELECT pg_terminate_backend({number})" if database.dialect == "postgresql" else f"KILL {number}"
    with database.engine.connect() as other:
        other.execute(text(end))


def _end(database: Database, connection: Any, commit: Any) -> None:
    is_postgres = database.dialect == "postgresql"
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid()" if is_postgres else "SELECT connection_id()")
    (own,) = cursor.fetchone()
    commit()
    engine = create_engine(database.url, poolclass=NullPool)
    with engine.connect() as other:
        other.execute(text(f"SELECT pg_terminate_backend({own})" if is_postgres else f"KILL {own}"))
    cursor.execute("SELECT 1")


def _end_on_sqlite(database: Database, connection: Any, commit: Any) -> None:
    dialect: Any = database.engine.dialect
    is_disconnect = dialect.is_disconnect

    def was_lost(*args: Any) -> bool:
        dialect.is_disconnect = is_disconnect
        return True

    commit()
    dialect.is_disconnect = was_lost
    raise dialect.loaded_dbapi.OperationalError("the connection was lost")
