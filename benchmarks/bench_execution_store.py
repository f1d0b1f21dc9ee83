"""One key of an execution store: its value got, and set, against the same statements by hand and against diskcache.

By hand, a look-up is one SELECT by primary key, and a writing is two statements in a transaction: of the row, and of
the event that tells subscribers. Both work on the store's own tables, synced as it syncs them, and have the value as
text already; the store checks, encodes and counts besides.
"""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.harness import Table, compare, main
from entropic import Database
from entropic.execution_store import ExecutionStore
from entropic.values.inline import to_text

DEFAULTS = {"keys": 1000, "rounds": 15, "calls": 200}

VALUE = {"state": "running", "progress": 0.25, "step": 12}

_SELECT = "SELECT value FROM entropic_execution_keys WHERE store_id = 1 AND name = ?"
_UPSERT = """
INSERT INTO entropic_execution_keys (store_id, name, policy, version, created_us, updated_us, expires_us, value)
VALUES (1, ?, 'persist', ?, ?, NULL, NULL, ?)
ON CONFLICT (store_id, name) DO UPDATE SET policy = excluded.policy, version = excluded.version,
    updated_us = excluded.created_us, expires_us = excluded.expires_us, value = excluded.value
"""
_EVENT = "INSERT INTO entropic_execution_events (store_id, number, name, operation, at_us) VALUES (1, ?, ?, 'set', ?)"


def run(*, keys: int, rounds: int, calls: int) -> list[Table]:
    """Compare both among *keys* keys."""
    names = [{"key": f"job:{number}"} for number in range(keys)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = _store(Path(folder, "store.sqlite3"), stack, names)
        raw = _by_hand(Path(folder, "raw.sqlite3"), stack, names)
        getting: dict[str, Callable[[str], object]] = {
            "raw: sqlite3 SELECT": lambda key: raw.execute(_SELECT, (key,)).fetchone(),
            "get": store.get,
        }
        setting: dict[str, Callable[[str], object]] = {
            "raw: sqlite3, row and event in a transaction": _setter(raw),
            "set": lambda key: store.set(key, VALUE),
            "set, with a time to live": lambda key: store.set(key, VALUE, ttl=3600),
        }
        try:
            import diskcache
        except ImportError:
            pass
        else:
            cache = stack.enter_context(diskcache.Cache(str(Path(folder, "diskcache"))))
            for one in names:
                cache.set(one["key"], VALUE)
            getting["diskcache.Cache.get"] = cache.get
            setting["diskcache.Cache.set"] = lambda key: cache.set(key, VALUE)
        return [
            compare(f"{what} one of {keys} keys", _in_turn(cases, names), rounds=rounds, calls=calls)
            for what, cases in (("Getting", getting), ("Setting", setting))
        ]


def _in_turn(
    cases: dict[str, Callable[[str], object]], names: list[dict[str, Any]]
) -> dict[str, Callable[[], object]]:
    def one(call: Callable[[str], object]) -> Callable[[], object]:
        order = data.shuffled(names)
        return lambda: call(next(order)["key"])

    return {name: one(call) for name, call in cases.items()}


def _store(path: Path, stack: ExitStack, names: list[dict[str, Any]]) -> ExecutionStore:
    database = Database(f"sqlite:///{path}")
    stack.callback(database.dispose)
    store = ExecutionStore.create("jobs", database=database)
    store.set_many({one["key"]: VALUE for one in names})
    return store


def _by_hand(path: Path, stack: ExitStack, names: list[dict[str, Any]]) -> sqlite3.Connection:
    """Return a connection to tables like the store's, with the same in them."""
    with ExitStack() as making:
        _store(path, making, names)
    raw = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
    raw.execute("PRAGMA foreign_keys=ON")
    raw.execute("PRAGMA synchronous=NORMAL")
    return raw


def _setter(raw: sqlite3.Connection) -> Callable[[str], object]:
    text, numbers = to_text(VALUE), itertools.count(1_000_000)

    def write(key: str) -> None:
        number = next(numbers)
        raw.execute("BEGIN IMMEDIATE")
        raw.execute(_UPSERT, (key, number, number, text))
        raw.execute(_EVENT, (number, key, number))
        raw.execute("COMMIT")

    return write


if __name__ == "__main__":
    main("execution_store", run, __doc__, **DEFAULTS)
