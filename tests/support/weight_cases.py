"""Weights for tests, and a process that is killed at one of its steps while it stores or removes some."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from entropic import Database
from entropic.weights_store import LocalWeightsStore, Weights
from tests.support.kill_steps import kill_at

OLD, NEW = 1.0, 2.0


def weights(value: float) -> Weights:
    """Return weights that are all *value*."""
    state = {0: {"step": np.float32(value), "exp_avg": np.full(3, value)}}
    return Weights({"layer.weight": np.full((2, 3), value, "f4")}, {"state": state, "param_groups": []})


def value_of(found: Weights) -> float:
    """Return what all of the weights are; each array must be whole."""
    values = {*found.model["layer.weight"].ravel().tolist(), *found.optimizer["state"][0]["exp_avg"].tolist()}
    (value,) = values
    return float(value)


def files_of(folder: Path) -> list[str]:
    """Return the names of all files below a folder but the database's."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and "sqlite3" not in path.name)


def filled(folder: Path, url: str) -> LocalWeightsStore:
    """Return a store with the iterations 1 to 3, the first of which is the best."""
    store = LocalWeightsStore(folder, url)
    for iteration in (1, 2, 3):
        store.store_weights("r", iteration, weights(OLD))
    store.store_best("r", 1, "d", "c")
    return store


def _in_a_block(store: LocalWeightsStore) -> None:
    with store.database.transaction():
        store.store_weights("r", 3, weights(NEW / 2))
        store.store_weights("r", 3, weights(NEW))
        store.store_best("r", 3, "d", "c")
        store.remove("r", 2)


def _rolled_back(store: LocalWeightsStore) -> None:
    try:
        with store.database.transaction():
            store.store_weights("r", 3, weights(NEW))
            store.remove("r", 2)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass


CHANGES: dict[str, Callable[[LocalWeightsStore], object]] = {
    "replace": lambda store: store.store_weights("r", 3, weights(NEW)),
    "add": lambda store: store.store_weights("r", 4, weights(NEW)),
    "remove": lambda store: store.remove("r", 1, force=True),
    "prune": lambda store: store.prune("r", keep_last=1),
    "block": _in_a_block,
    "rolled back": _rolled_back,
}
AFTER: dict[str, tuple[dict[int, float], int | None]] = {  # the weights by iteration, and which are the best
    "replace": ({1: OLD, 2: OLD, 3: NEW}, 1),
    "add": ({1: OLD, 2: OLD, 3: OLD, 4: NEW}, 1),
    "remove": ({2: OLD, 3: OLD}, None),
    "prune": ({1: OLD, 3: OLD}, 1),
    "block": ({1: OLD, 3: NEW}, 3),
    "rolled back": ({1: OLD, 2: OLD, 3: OLD}, 1),
}


def killed_at(change: str, step: int, folder: Path, url: str) -> None:
    """Make a change, and be killed before so many steps of it, or after all."""
    database = Database(url)
    store = LocalWeightsStore(folder, database)
    kill_at(step, database)
    CHANGES[change](store)
