"""What a runner returns comes into output columns as it is, wherever it ran, also if JSON has no word for it."""

import enum
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from entropic import Base, Mapped, Store, output
from tests.support.processes import outcomes_of
from tests.support.protocol_cases import arm


class Phase(enum.Enum):
    SOLID = "LIQUID"
    LIQUID = "SOLID"


class Observation(Base):
    __tablename__ = "observations"

    n: Mapped[int]
    phase: Mapped[Phase | None] = output()
    price: Mapped[Decimal | None] = output()
    sample: Mapped[UUID | None] = output()
    lasted: Mapped[timedelta | None] = output()
    trace: Mapped[bytes | None] = output()
    mean: Mapped[float | None] = output()
    at: Mapped[datetime | None] = output()
    text: Mapped[str | None] = output()
    notes: Mapped[list | None] = output()


VALUES: dict[str, Any] = {
    "phase": Phase.SOLID,
    "price": Decimal("1.5"),
    "sample": UUID(int=1),
    "lasted": timedelta(days=1, microseconds=2),
    "trace": b"\0\xff",
    "mean": Fraction(5, 2),
    "at": datetime(2026, 1, 2, tzinfo=UTC),
    "text": Path("a/b"),
    "notes": [Decimal("2.5"), (1, 2)],
}
EXPECTED = {**VALUES, "mean": 2.5, "text": "a/b", "notes": ["2.5", [1, 2]]}


def measure(params):
    Path(params["result_file"]).write_text("x")
    return VALUES


def store_at(folder: Path, url: str, runner: Any = measure) -> Store:
    return Store(runner, Observation, folder / "results", ".txt", url)


def outputs_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in VALUES}


def run_and_die(folder: Path, url: str) -> None:
    store = store_at(folder, url)
    arm("line written")
    store.run_or_retrieve({"n": 1})


def test_outputs_of_any_type_come_into_their_columns(tmp_path, database_url):
    store = store_at(tmp_path, database_url)

    assert outputs_of(store.run_or_retrieve({"n": 1})) == EXPECTED
    assert outputs_of(store.run_or_retrieve({"n": 1})) == EXPECTED


def test_outputs_of_any_type_come_from_a_worker_too(tmp_path, sqlite_url):
    (record,) = store_at(tmp_path, sqlite_url).sweep([{"n": 1}], workers=1, progress=False)

    assert outputs_of(record) == EXPECTED


def test_outputs_of_any_type_outlive_their_process(tmp_path, sqlite_url):
    store_at(tmp_path, sqlite_url)
    (outcome,) = outcomes_of(run_and_die, [(tmp_path, sqlite_url)])

    def fail(params):
        raise AssertionError("it ran again")

    assert outcome.exitcode == -9
    assert outputs_of(store_at(tmp_path, sqlite_url, fail).run_or_retrieve({"n": 1})) == EXPECTED


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("text", Phase.SOLID, "LIQUID"),
        ("text", Decimal("1.50"), "1.50"),
        ("text", date(2026, 1, 2), "2026-01-02"),
        ("phase", "SOLID", Phase.SOLID),
        ("mean", np.float32(0.5), 0.5),
        ("mean", Decimal("NaN"), None),
        ("trace", np.bytes_(b"ab"), b"ab"),
        ("lasted", np.timedelta64(3, "s"), timedelta(seconds=3)),
        ("notes", Phase.SOLID, "LIQUID"),
        ("notes", b"x", None),
        ("price", "many", None),
    ],
)
def test_column_takes_the_value_or_what_json_has_of_it(tmp_path, sqlite_url, name, value, expected):
    def runner(params):
        Path(params["result_file"]).write_text("x")
        return {name: value}

    assert getattr(store_at(tmp_path, sqlite_url, runner).run_or_retrieve({"n": 1}), name) == expected


def test_custom_data_is_json_and_what_it_cannot_hold_is_left_out_with_a_warning(tmp_path, sqlite_url, caplog):
    def runner(params):
        Path(params["result_file"]).write_text("x")
        return {"octets": b"x", "when": date(2026, 1, 2), "which": Phase.SOLID}

    record = store_at(tmp_path, sqlite_url, runner).run_or_retrieve({"n": 1})

    assert {**record.custom_data, "elapsed_seconds": 0} == {
        **{"elapsed_seconds": 0, "when": "2026-01-02", "which": "LIQUID"}
    }
    assert (
        "'octets', returned by the runner, is left out: it is a bytes, which JSON cannot hold" in caplog.text
    )
