"""A checkpoint over all stores, and a process that is killed at one of its steps."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from entropic import Database
from entropic.sql.transactions import Transaction
from entropic.stats import (
    TrainingIterationStats,
    TrainingStats,
    ValidationIterationScores,
    ValidationScores,
)
from entropic.stats_store import SQLStatsStore
from entropic.weights_store import LocalWeightsStore, Weights
from tests.support.store_cases import PARAMS, Pendulum, Runner
from tests.support.stores import open_store

RUN = "mouse/1"
CRITERIA = SimpleNamespace(criteria=["f1"], higher_is_better=lambda criterion: True)
EVENTS = {"os.link", "os.rename", "os.remove", "os.mkdir"}


class Experiment:
    """The stores of an experiment on one database."""

    def __init__(self, url: str, folder: str) -> None:
        self.folder = Path(folder)
        self.database = Database(url)
        self.weights = LocalWeightsStore(self.folder / "runs", self.database)
        self.stats = SQLStatsStore(self.database)
        self.store = open_store(Pendulum, self.folder, Runner(), self.database)

    def checkpoint(self, number: int) -> None:
        """Record the state *number* of the run in all stores; it takes the place of the one before."""
        measured = self.folder / f"measured-{number}.dat"
        measured.write_bytes(b"%d" % number)
        losses = [TrainingIterationStats(iteration, float(number), 0.1) for iteration in range(10)]
        scores = ValidationScores(
            ["p"], ["d"], CRITERIA, [ValidationIterationScores(10 + number, [[[number / 10]]])]
        )
        with self.database.transaction():
            self.weights.store_weights(RUN, 10, Weights({"w": np.full(1000, number)}))
            self.weights.store_best(RUN, 10, "d", "f1", score=float(number))
            self.stats.store_training_stats(RUN, TrainingStats(losses))
            self.stats.store_validation_iteration_scores(RUN, scores)
            self.store.register(PARAMS, measured, overwrite=True, period=float(number))

    def state(self) -> dict[str, Any]:
        """Return what each store has, as the number of the checkpoint that it is of."""
        stats = self.stats.retrieve_training_stats(RUN).iteration_stats
        validations = self.stats.retrieve_validation_iteration_scores(RUN)
        record = self.store.retrieve(PARAMS, verify=True)
        weights = self.weights.retrieve_weights(RUN, 10, verify=True).model["w"]
        with self.database.reading() as connection:
            best = connection.exec_driver_sql("SELECT score FROM entropic_best_weights").scalar_one()
        return {
            "weights": {int(value) for value in weights},
            "best": {int(best)},
            "losses": {int(one.loss) for one in stats},
            "scores": {one.iteration - 10 for one in validations[-1:]},
            "record": {int(record.period), int(Path(record.result_file).read_bytes())},
        }

    def files(self) -> list[str]:
        """Return the files of weights and of notes that there are."""
        return sorted(path.name for path in (self.folder / "runs").rglob("*") if path.is_file())

    def close(self) -> None:
        """Let go of the database."""
        self.database.dispose()


class Steps:
    """Counts the steps of this process, on disk and in the database, and kills it at one of them."""

    def __init__(self, last: int | None) -> None:
        self.last = last
        self.taken = 0
        self.is_counting = False

    def take(self) -> None:
        if not self.is_counting:
            return
        self.taken += 1
        if self.taken == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Take a step before and after each statement and COMMIT, and before each name that changes."""
        sys.addaudithook(lambda event, _: self.take() if event in EVENTS else None)
        for name in ("_run", "commit"):
            setattr(Transaction, name, self._counted(getattr(Transaction, name)))

    def _counted(self, function: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.take()
            result = function(*args, **kwargs)
            self.take()
            return result

        return counted


def checkpoint_until(url: str, folder: str, number: int, step: int | None) -> int:
    """Record a checkpoint, but die at *step*; return how many steps there are."""
    experiment = Experiment(url, folder)
    steps = Steps(step)
    steps.watch()
    steps.is_counting = True
    experiment.checkpoint(number)
    steps.is_counting = False
    experiment.close()
    return steps.taken
