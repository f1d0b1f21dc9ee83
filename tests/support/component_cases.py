"""Components, and what processes do with a store of theirs; a new process imports it by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from entropic import Database
from entropic.datastore import DataStore
from tests.support.counting import append_line
from tests.support.kill_steps import kill_at
from tests.support.waiting import wait_for

TABLES = (
    "entropic_data_items",
    "entropic_data_files",
    "entropic_component_inputs",
    "entropic_component_parameters",
    "entropic_component_states",
    "entropic_component_types",
    "entropic_claims",
)
"""Of a datastore, in the order in which they can be emptied."""


@dataclass
class Component:
    """A component like a user's."""

    parameters: Any = field(default_factory=dict)
    input: Any = None
    version: Any = "0.1"


class Source(Component):
    """What has no input."""


class Filter(Component):
    """What has one."""


def chain(n: int) -> list[Component]:
    """Return components of which each is the input of the next one."""
    made = [Component({"n": 0})]
    for number in range(1, n):
        made.append(Component({"n": number}, made[-1]))
    return made


def counts(store: DataStore) -> dict[str, int]:
    """Return how many rows each table of the store has."""
    with store.database.reading() as connection:
        return {
            name.removeprefix("entropic_"): connection.exec_driver_sql(
                f"SELECT count(*) FROM {name}"
            ).scalar_one()
            for name in TABLES
        }


def files_of(store: DataStore) -> list[Path]:
    """Return all files below the folder of a store but the database's, and those that say whose a folder is."""
    others = ("sqlite3", "process.json", "log", "ended", "begun")
    found = (path for path in store.root_dir.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(name in path.name for name in others))


# Computing in many processes


def compute(
    url: str, folder: Path, numbers: list[int], seconds: float, doomed: tuple[int, ...] = ()
) -> list[int]:
    """Ask for the data of some components; each that is computed leaves a line in a log.

    Parameters
    ----------
    doomed : tuple of int
        Those whose first computation kills its process.
    """
    store = DataStore(url, folder, lease_s=5.0)

    def data(number: int) -> int:
        append_line(folder / "log", f"{number} {os.getpid()}")
        time.sleep(seconds)
        if number in doomed and [line.split()[0] for line in lines(folder)].count(str(number)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        append_line(folder / "ended", f"{number} {os.getpid()}")
        return number**2

    return [store.compute_once(Component({"n": n}), "data", lambda n=n: data(n)) for n in numbers]  # type: ignore[misc]


def lines(folder: Path, name: str = "log") -> list[str]:
    """Return the lines of a log."""
    log = folder / name
    return log.read_text().splitlines() if log.exists() else []


def climb(url: str, folder: Path, n: int, doomed: tuple[int, ...] = ()) -> int:
    """Ask for the data of a chain's last component; each computes those of its input first."""
    store = DataStore(url, folder, lease_s=5.0)
    components = chain(n)

    def data(number: int) -> int:
        append_line(folder / "log", f"{number} {os.getpid()}")
        if number in doomed and [line.split()[0] for line in lines(folder)].count(str(number)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        below = wanted(number - 1) if number else 0
        append_line(folder / "ended", f"{number} {os.getpid()}")
        return below + 1

    def wanted(number: int) -> int:
        return store.compute_once(components[number], "data", lambda: data(number))

    return wanted(n - 1)


def in_a_circle(url: str, folder: Path, number: int, others: int) -> str:
    """Compute data that need those of the next process, which need those of the next; return what came of it."""
    store = DataStore(url, folder)

    def data(asked: int, is_first: bool) -> int:
        if is_first:
            append_line(folder / "begun", str(number))
            wait_for(lambda: len(lines(folder, "begun")) >= others)
        following = (asked + 1) % others
        return store.compute_once(Component({"n": following}), "data", lambda: data(following, False))

    try:
        store.compute_once(Component({"n": number}), "data", lambda: data(number, True))
    except Exception as error:
        return type(error).__name__
    return "ended"


# Killed while it stores

ARRAY, OTHER = np.arange(4.0), np.arange(5.0)
BASE = Source({"rate": 1})
TOP = Filter({"k": 2}, BASE)


def filled(folder: Path, url: str) -> DataStore:
    """Return a store with data in files and in a row."""
    store = DataStore(url, folder)
    store.store(BASE, "array", ARRAY)
    store.store(BASE, "plain", 1)
    store.store(TOP, "array", ARRAY)
    return store


def _in_a_block(store: DataStore) -> None:
    with store.database.transaction():
        store.store(BASE, "array", ARRAY + 1)
        store.store(BASE, "array", OTHER)
        store.store(BASE, "plain", 2)
        store.delete(TOP)


def _rolled_back(store: DataStore) -> None:
    try:
        with store.database.transaction():
            store.store(BASE, "array", OTHER)
            store.delete(TOP)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass


CHANGES: dict[str, Callable[[DataStore], object]] = {
    "replace": lambda store: store.store(BASE, "array", OTHER),
    "array by plain": lambda store: store.store(BASE, "array", 3),
    "plain by array": lambda store: store.store(BASE, "plain", OTHER),
    "add": lambda store: store.store(Filter({"k": 3}, TOP), "array", OTHER),
    "delete": lambda store: store.delete(BASE, dependents=True),
    "prune": lambda store: store.prune(max_bytes=0),
    "compute": lambda store: store.compute_once(TOP, "other", lambda: OTHER),
    "block": _in_a_block,
    "rolled back": _rolled_back,
}


def state_of(store: DataStore) -> dict[str, Any]:
    """Return what is in a store, each file compared with its digest."""
    found = {}
    for item in store.list_contents():
        component = {"1": BASE, "2": TOP, "3": Filter({"k": 3}, TOP)}[
            str(next(iter(item.parameters.values())))
        ]
        value = store.retrieve(component, item.attribute, strict=True, verify=True)
        found[f"{item.full_type.rpartition('.')[2]}{item.parameters}.{item.attribute}"] = np.asarray(
            value
        ).tolist()
    return found


def killed_at(change: str, step: int, folder: Path, url: str) -> None:
    """Make a change, and be killed before so many steps of it, or after all."""
    database = Database(url)
    store = DataStore(database, folder)
    kill_at(step, database)
    CHANGES[change](store)
