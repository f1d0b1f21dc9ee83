"""A hit on a server: against hashing and one SELECT on a connection that is held, prepared where the driver can.

The servers are those of the tests, on a Unix socket; one that cannot be started here is left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from benchmarks import data
from benchmarks.harness import Table, compare, main
from benchmarks.peers import in_turn
from entropic import Database, Store
from tests.support import servers

DEFAULTS = {"rows": 1000, "rounds": 9, "calls": 100}

_COLUMNS = "id, result_file, created_at, custom_data, n, dt, method"


def run(*, rows: int, rounds: int, calls: int) -> list[Table]:
    """Compare hits among *rows* rows on each server."""
    tables = []
    for name, (database, raw) in SERVERS.items():
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            try:
                url = stack.enter_context(database())
            except pytest.skip.Exception as absent:
                print(f"{name} is left out: {absent}")
                continue
            shared = Database(url)
            stack.callback(shared.dispose)
            store = Store(data.write_result, data.Run, Path(folder) / "results", ".bin", shared)
            sets = data.params(rows)
            data.fill(store, sets)
            cases = {
                "raw: SHA-256 of JSON, SELECT on a held connection": in_turn(raw(url, stack, sets), sets),
                "run_or_retrieve": in_turn(store.run_or_retrieve, sets),
            }
            tables.append(compare(f"Hit on {name}, {rows} rows", cases, rounds=rounds, calls=calls))
    return tables


@contextmanager
def _postgres() -> Iterator[str]:
    with servers.postgres_server() as server, servers.postgres_database(server) as url:
        yield url


@contextmanager
def _mysql() -> Iterator[str]:
    with servers.mysql_server() as server, servers.mysql_database(server) as url:
        yield url


def _ask_postgres(
    url: str, stack: ExitStack, sets: Sequence[dict[str, Any]]
) -> Callable[[dict[str, Any]], object]:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = stack.enter_context(psycopg.connect(plain, autocommit=True))
    _make_raw(connection.cursor(), sets)

    def look_up(one: dict[str, Any]) -> Any:
        asked = f"SELECT {_COLUMNS} FROM raw_runs WHERE id = %s"
        return connection.execute(asked, (data.raw_key(one),), prepare=True).fetchone()

    return look_up


def _ask_mysql(
    url: str, stack: ExitStack, sets: Sequence[dict[str, Any]]
) -> Callable[[dict[str, Any]], object]:
    connection = stack.enter_context(servers._connect_mysql(make_url(url)))
    connection.select_db(make_url(url).database)
    connection.autocommit(True)
    _make_raw(connection.cursor(), sets)

    def look_up(one: dict[str, Any]) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {_COLUMNS} FROM raw_runs WHERE id = %s", (data.raw_key(one),))
            return cursor.fetchone()

    return look_up


def _make_raw(cursor: Any, sets: Sequence[dict[str, Any]]) -> None:
    cursor.execute(
        "CREATE TABLE raw_runs (id VARCHAR(64) PRIMARY KEY, result_file TEXT, created_at VARCHAR(40), "
        "custom_data JSON, n BIGINT, dt DOUBLE PRECISION, method VARCHAR(255))"
    )
    cursor.executemany(
        f"INSERT INTO raw_runs ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [data.raw_row(one) for one in sets],
    )


SERVERS: dict[str, Any] = {"PostgreSQL": (_postgres, _ask_postgres), "MariaDB": (_mysql, _ask_mysql)}


if __name__ == "__main__":
    main("servers", run, __doc__, **DEFAULTS)
