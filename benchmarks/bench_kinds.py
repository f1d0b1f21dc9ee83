"""A hit whose parameters are of other types than numbers and text: against hashing their text and one SELECT."""

from __future__ import annotations

import enum
import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.harness import Table, compare, main
from benchmarks.peers import in_turn
from entropic import Base, Mapped

DEFAULTS = {"rows": 500, "rounds": 9, "calls": 200}


class Scheme(enum.Enum):
    """How time is stepped."""

    EXPLICIT = "explicit"
    IMPLICIT = "implicit"


class RunAt(Base):
    """A run with a date."""

    __tablename__ = "benchmark_runs_at"

    n: Mapped[int]
    at: Mapped[datetime]


class RunPriced(Base):
    """A run with an exact number."""

    __tablename__ = "benchmark_runs_priced"

    n: Mapped[int]
    price: Mapped[Decimal]


class RunScheme(Base):
    """A run with a choice."""

    __tablename__ = "benchmark_runs_scheme"

    n: Mapped[int]
    scheme: Mapped[Scheme]


_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def _at(one: dict[str, Any]) -> dict[str, Any]:
    return {"n": one["n"], "at": _BEGIN + timedelta(seconds=one["n"])}


def _priced(one: dict[str, Any]) -> dict[str, Any]:
    return {"n": one["n"], "price": Decimal(one["n"]) / 8}


def _scheme(one: dict[str, Any]) -> dict[str, Any]:
    return {"n": one["n"], "scheme": Scheme.EXPLICIT if one["n"] % 2 else Scheme.IMPLICIT}


KINDS: dict[str, tuple[type[Any], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "nested JSON": (data.RunWithOptions, data.nested_options),
    "datetime": (RunAt, _at),
    "Decimal": (RunPriced, _priced),
    "Enum": (RunScheme, _scheme),
}


def run(*, rows: int, rounds: int, calls: int) -> list[Table]:
    """Compare hits among *rows* rows, each kind with its own baseline."""
    tables = []
    for name, (model, make) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            cases = _cases(Path(folder), stack, model, [make(one) for one in data.params(rows)])
            tables.append(compare(f"Hit with a parameter of {name}", cases, rounds=rounds, calls=calls))
    return tables


def _cases(
    folder: Path, stack: ExitStack, model: type[Any], sets: list[dict[str, Any]]
) -> dict[str, Callable[[], object]]:
    store = data.open_store(folder, stack, model=model)
    store.sweep(sets, progress=False)
    raw = data.open_raw(folder, stack)
    raw.execute("CREATE TABLE kinds (id VARCHAR PRIMARY KEY, result_file TEXT, n INTEGER, value TEXT)")
    rows = [(_key(one), "", one["n"], json.dumps(one, default=str)) for one in sets]
    raw.executemany("INSERT INTO kinds VALUES (?, ?, ?, ?)", rows)

    def look_up(one: dict[str, Any]) -> Any:
        return raw.execute("SELECT * FROM kinds WHERE id = ?", (_key(one),)).fetchone()

    return {
        "raw: SHA-256 of JSON, sqlite3 SELECT": in_turn(look_up, sets),
        "run_or_retrieve": in_turn(store.run_or_retrieve, sets),
    }


def _key(one: dict[str, Any]) -> str:
    text = json.dumps(one, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    main("kinds", run, __doc__, **DEFAULTS)
