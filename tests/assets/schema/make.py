"""Make the frozen database of the newest revision: ``python -m tests.assets.schema.make``.

Run once for each revision, when it is released; the file is never made again. Every library table has a row, and there
is one table of a user's with a result in it.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import insert
from sqlalchemy.orm import DeclarativeBase

from entropic.model.base import Base, Mapped, output, param
from entropic.sql.database import Database
from entropic.sql.tables import AttemptRow, ClaimRow, FileRow, TableRow
from entropic.sql.tables.components import (
    ComponentInputRow,
    ComponentParameterRow,
    ComponentStateRow,
    ComponentTypeRow,
    DataFileRow,
    DataItemRow,
)
from entropic.sql.tables.configs import ConfigPartRow, ConfigRow
from entropic.sql.tables.execution import ExecutionEventRow, ExecutionKeyRow, ExecutionStoreRow
from entropic.sql.tables.stats import LabelRow, MetricRow, ScoreRow, StatsRunRow, TrainingRow, ValidationRow
from entropic.sql.tables.weights import BestWeightsRow, WeightsRow
from entropic.sql.versions import HEAD, ensure_schema

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = {"table_name": "frozen_decay", "record_id": "0123456789abcdef"}


class FrozenDecay(Base):
    """A user's table, as it stood when the database was frozen."""

    __tablename__ = "frozen_decay"

    rate: Mapped[float]
    label: Mapped[str]
    noise: Mapped[float] = param(default=0.0)
    rmse: Mapped[float | None] = output()


ROWS: dict[type[DeclarativeBase], dict[str, object]] = {
    FrozenDecay: {
        "id": KEY["record_id"],
        "result_file": "/data/0123456789abcdef.npy",
        "created_at": NOON,
        "custom_data": {"note": "kept"},
        "rate": 0.1,
        "label": "Ab ",
        "rmse": 1 / 3,
    },
    TableRow: {
        "table_name": "frozen_decay",
        "key_rule": 1,
        "parameters": {"rate": {"type": "float"}, "noise": {"type": "float", "default": 0.0}},
        "root": "r" * 32,
        "results_dir": "/data",
        "created_at": NOON,
    },
    FileRow: {
        **KEY,
        "attempt": "a" * 32,
        "name": "0123456789abcdef.npy",
        "size_bytes": 2**40,
        "sha256": "f" * 64,
    },
    AttemptRow: {
        **KEY,
        "id": "a" * 32,
        "state": "COMPLETED",
        "params": {"rate": 0.1},
        "host": "node1",
        "pid": 4242,
        "started_at": NOON,
        "ended_at": NOON,
        "exit_code": 0,
        "git_dirty": False,
    },
    ClaimRow: {
        "table_name": "frozen_decay",
        "record_id": "fedcba9876543210",
        "owner": "o" * 32,
        "token": "t" * 32,
        "host": "node1",
        "boot": "boot",
        "pid": 4242,
        "started": "1",
        "acquired_at": 1767268800.25,
        "expires_at": 1767272400.25,
    },
    ConfigRow: {
        "id": 1,
        "kind": "run",
        "name": "mouse/1",
        "type": "RunConfig",
        "document": {"__type__": "RunConfig", "name": "mouse/1", "learning_rate": 0.001},
        "created_at": NOON,
    },
    ConfigPartRow: {"run_id": 1, "role": "task", "name": "distances"},
    StatsRunRow: {"id": 1, "name": "mouse/1"},
    TrainingRow: {"run_id": 1, "iteration": 0, "loss": 0.5, "time": 0.1},
    ValidationRow: {"run_id": 1, "iteration": 1, "shape": [[2]]},
    ScoreRow: {
        "run_id": 1,
        "iteration": 1,
        "position": 0,
        "dataset": 0,
        "parameters": 0,
        "criterion": 0,
        "score": 0.75,
    },
    LabelRow: {"run_id": 1, "axis": "criterion", "number": 0, "label": "f1", "higher_is_better": True},
    MetricRow: {"run_id": 1, "metric": 0, "iteration": 1, "value": 0.25},
    WeightsRow: {
        "run_name": "mouse/1",
        "iteration": 1,
        "file_name": "1-abcdefgh.h5",
        "size_bytes": 2**33,
        "sha256": "e" * 64,
        "created_at": NOON,
    },
    BestWeightsRow: {
        "run_name": "mouse/1",
        "dataset": "d",
        "criterion": "f1",
        "iteration": 1,
        "score": 0.75,
        "created_at": NOON,
    },
    ExecutionStoreRow: {
        "id": 1,
        "scope": "5f8f8c44b54764421b7156c1",
        "name": "statuses",
        "is_explicit": True,
        "document": '{"owner":"panel"}',
        "policy": "persist",
        "created_us": 1767268800250000,
        "epoch": 2**61,
        "last_event": 1,
    },
    ExecutionEventRow: {
        "store_id": 1,
        "number": 1,
        "name": "__store__",
        "operation": "set",
        "at_us": 1767268800250000,
    },
    ExecutionKeyRow: {
        "store_id": 1,
        "name": "run:1",
        "policy": "evict",
        "version": 2**61,
        "created_us": 1767268800250000,
        "expires_us": 1767272400250000,
        "value": '{"at":{"__entropic__":"tuple","value":[1,2]}}',
    },
    ComponentTypeRow: {"id": 1, "full_type": "lab.Filter", "version": "0.1"},
    ComponentStateRow: {
        "id": 1,
        "type_id": 1,
        "key": "d" * 64,
        "key_digest": "d" * 64,
        "identity": "d" * 64,
        "parameters": '{"rate":0.1}',
        "parameters_url": "file:///lab/filter.yaml",
        "created_at": NOON,
    },
    ComponentParameterRow: {"state_id": 1, "digest": "c" * 64},
    ComponentInputRow: {"state_id": 1, "position": 0, "input_state_id": 1},
    DataFileRow: {"name": "dd/" + "d" * 64 + ".value.h5", "is_whole": True},
    DataItemRow: {
        "state_id": 1,
        "attribute": "spikes",
        "writing": "b" * 32,
        "codec": "hdf5",
        "file_name": "dd/" + "d" * 64 + ".value.h5",
        "sha256": "e" * 64,
        "size_bytes": 2**33,
        "created_at": NOON,
        "updated_at": NOON,
    },
}


def make(url: str) -> None:
    """Make the schema of this version at *url* and put `ROWS` into it."""
    database = Database(url)
    ensure_schema(database, [FrozenDecay.__table__])
    database.write(
        lambda connection: [connection.execute(insert(model).values(row)) for model, row in ROWS.items()]
    )
    with database.engine.connect().execution_options(
        isolation_level="AUTOCOMMIT", entropic_begin=""
    ) as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=DELETE")  # one file, nothing beside it
    database.dispose()


if __name__ == "__main__":
    target = Path(__file__).with_name(f"{HEAD}.sqlite3")
    if target.exists():
        sys.exit(f"{target} is frozen; a new revision gets a file of its own")
    make(f"sqlite:///{target}")
