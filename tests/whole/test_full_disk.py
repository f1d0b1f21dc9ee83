"""On a disk that fills up each store raises, keeps what it had, and works again when there is room."""

import errno
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from entropic import Database
from entropic.array_store import LocalArrayStore
from entropic.config_store import FileConfigStore, SQLConfigStore
from entropic.configs import TaskConfig
from entropic.stats import TrainingIterationStats, TrainingStats
from entropic.stats_store import FileStatsStore, SQLStatsStore
from entropic.weights_store import LocalWeightsStore, Weights
from tests.support.small_disks import fill, free

OLD, NEW = 1.0, 2.0
SIZE = 20_000  # numbers or letters: more than the steps in which a disk is filled


class FullDiskTask(TaskConfig):
    """A config as long as one likes."""

    value: float
    text: str = ""


@dataclass
class Configs:
    store: Any

    def put(self, value):
        config = FullDiskTask(name="t", value=value, text="x" * SIZE * int(value))
        self.store.store_task_config(config, if_exists="replace")

    def get(self):
        found = self.store.retrieve_task_config("t")
        assert found.text == "x" * SIZE * int(found.value)
        return found.value


@dataclass
class Trainings:
    """What is new is appended to what is old."""

    store: Any

    def put(self, value):
        some = range(SIZE * int(value - 1), SIZE * int(value))
        self.store.store_training_stats(
            "r", TrainingStats([TrainingIterationStats(n, value, 0.0) for n in some])
        )

    def get(self):
        columns = self.store.to_numpy("r")
        value = len(columns["iteration"]) / SIZE
        assert columns["iteration"].tolist() == list(range(SIZE * int(value)))
        assert columns["loss"].tolist() == [1.0 + n // SIZE for n in columns["iteration"].tolist()]
        return value


@dataclass
class WeightsOfARun:
    store: Any

    def put(self, value):
        self.store.store_weights("r", 1, Weights({"w": np.full(SIZE, value), "b": np.full(3, value)}))

    def get(self):
        model = self.store.retrieve_weights("r", 1, verify=True).model
        (value,) = {*model["w"].tolist(), *model["b"].tolist()}
        return value


@dataclass
class Arrays:
    store: Any

    def put(self, value):
        where = self.store.validation_prediction_array("r", 1, "d")
        # Random numbers: others are compressed to nothing.
        values = np.random.default_rng(int(value)).random(SIZE)
        self.store.store_array(where, values, overwrite=True, chunks=(SIZE // 4,))

    def get(self):
        (one,) = self.store.arrays()
        found = self.store.retrieve_array(one.identifier, verify=True)
        (value,) = [
            value
            for value in (OLD, NEW)
            if np.array_equal(found, np.random.default_rng(int(value)).random(SIZE))
        ]
        return value


def _database(folder):
    return Database(f"sqlite:///{folder / 'records.sqlite3'}")


CASES = {
    "configs in a folder": lambda folder: Configs(FileConfigStore(folder)),
    "configs in SQLite": lambda folder: Configs(SQLConfigStore(_database(folder))),
    "statistics in a folder": lambda folder: Trainings(FileStatsStore(folder)),
    "statistics in SQLite": lambda folder: Trainings(SQLStatsStore(_database(folder))),
    "weights": lambda folder: WeightsOfARun(LocalWeightsStore(folder)),
    "arrays": lambda folder: Arrays(LocalArrayStore(folder)),
}  # fmt: skip


def left_over(folder):
    return {path.name for path in folder.rglob("*") if path.name.startswith(".entropic-") and path.is_file()}


def error_of(subject, value):
    try:
        subject.put(value)
    except (OSError, OperationalError) as error:
        return error
    return None


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=pytest.mark.slow if name.startswith("statistics") else [])
        for name, case in CASES.items()
    ],
)
@pytest.mark.parametrize("is_there", [True, False], ids=["replaced", "first"])
def test_full_disk_is_an_error_that_changes_nothing_until_there_is_room(disk, case, is_there):
    """It is full at each of many places: room is made for a little more each time, until all goes onto it."""
    subject = case(disk / "records")
    if is_there:
        subject.put(OLD)
    before = left_over(disk)
    failures = 0
    for room in range(0, 1 << 20, 40 << 10):
        fill(disk, but_for=room)
        error = error_of(subject, NEW if is_there else OLD)
        if error is None:
            break
        failures += 1
        assert "database or disk is full" in str(error) or getattr(error, "errno", None) == errno.ENOSPC
        assert left_over(disk) == before
        if is_there:
            assert subject.get() == OLD
            assert case(disk / "records").get() == OLD
    free(disk)

    assert failures
    assert subject.get() == (NEW if is_there else OLD)
    assert case(disk / "records").get() == (NEW if is_there else OLD)


@pytest.mark.parametrize("case", ["statistics in a folder", "statistics in SQLite"])
def test_what_was_logged_when_the_disk_was_full_is_written_when_there_is_room(disk, case):
    store = CASES[case](disk / "records").store
    store.log("r", 0, loss=0.5)
    store.flush()
    fill(disk)
    for n in range(1, 900):
        store.log("r", n, loss=float(n))
    with pytest.raises((OSError, OperationalError)):
        store.flush()
    free(disk)
    store.flush()

    assert store.to_numpy("r", "metrics")["loss"].tolist() == [0.5, *map(float, range(1, 900))]
