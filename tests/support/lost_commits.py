"""A server that goes while COMMIT is on its way: nobody knows whether it arrived."""

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
