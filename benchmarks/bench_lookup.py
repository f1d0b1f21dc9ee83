"""A hit: `run_or_retrieve` of parameters that are there, against hashing them and one SELECT by primary key.

The peers return the value, entropic a record with the path of the file: what is compared is the price of an answer.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import event

from benchmarks import data
from benchmarks.harness import Table, compare, main
from benchmarks.peers import in_turn, memoizers, signac_jobs, sqlalchemy_look_up, warm
from benchmarks.published import PublishedHit, python_with
from entropic import Database

DEFAULTS = {"rows": 1000, "many_rows": 100_000, "rounds": 9, "calls": 200}


def run(*, rows: int, many_rows: int, rounds: int, calls: int) -> list[Table]:
    """Compare hits among *rows* rows, with peers, and among *many_rows*."""
    tables = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        few = data.params(rows)
        cases = _cases(Path(folder, "few"), stack, few)
        cases["run_or_retrieve, engine events on"] = _with_events(Path(folder, "events"), stack, few)
        for name, make in _OPTIONS.items():
            cases[f"run_or_retrieve, {name}"] = _with_options(Path(folder, name), stack, [*map(make, few)])
        cases["SQLAlchemy Core, SELECT"] = sqlalchemy_look_up(_database_of(Path(folder, "few")), few)
        for name, cached in memoizers(Path(folder, "peers"), stack, _compute).items():
            cases[name] = warm(cached, few)
        if (jobs := signac_jobs(Path(folder, "peers"), few)) is not None:
            cases["signac, a job's file"] = jobs
        if (python := python_with()) is not None:
            cases["entropic 2.3.0"] = PublishedHit(python, Path(folder, "published"), stack, few)
        tables.append(compare(f"Hit, {rows} rows", cases, rounds=rounds, calls=calls))
        many = data.params(many_rows)
        cases = _cases(Path(folder, "many"), stack, many)
        tables.append(compare(f"Hit, {many_rows} rows", cases, rounds=rounds, calls=calls))
    return tables


def _cases(folder: Path, stack: ExitStack, sets: Sequence[dict[str, Any]]) -> dict[str, Callable[[], object]]:
    store = data.open_store(folder, stack)
    data.fill(store, sets)
    raw = data.open_raw(folder, stack, sets)

    def look_up(one: dict[str, Any]) -> Any:
        text = json.dumps(one, sort_keys=True, separators=(",", ":"))
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return raw.execute(data.RAW_SELECT, (key,)).fetchone()

    return {
        "raw: SHA-256 of JSON, sqlite3 SELECT": in_turn(look_up, sets),
        "run_or_retrieve": in_turn(store.run_or_retrieve, sets),
    }


def _database_of(folder: Path) -> Database:
    return Database(f"sqlite:///{folder / 'cache.sqlite3'}")


def _with_events(folder: Path, stack: ExitStack, sets: Sequence[dict[str, Any]]) -> Callable[[], object]:
    """Return a hit on an engine that somebody listens to, which SQLAlchemy must therefore see."""
    store = data.open_store(folder, stack)
    data.fill(store, sets)
    event.listen(store.database.engine, "before_cursor_execute", lambda *_: None)
    return in_turn(store.run_or_retrieve, sets)


_OPTIONS = {"a nested JSON parameter": data.nested_options, "a dataclass": data.solver_options}


def _with_options(folder: Path, stack: ExitStack, sets: Sequence[dict[str, Any]]) -> Callable[[], object]:
    store = data.open_store(folder, stack, model=data.RunWithOptions)
    store.sweep(sets, progress=False)
    return in_turn(store.run_or_retrieve, sets)


def _compute(n: int, dt: float, method: str) -> bytes:
    return data.RESULT


if __name__ == "__main__":
    main("lookup", run, __doc__, **DEFAULTS)
