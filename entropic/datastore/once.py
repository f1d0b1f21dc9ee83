"""Data that are computed once, in whatever process is first: as runs are, by the same claims, waits and notes.

What is computed for one component may need what others compute, and runs of a `Store`: who waits gives back first what
it holds and has not begun, and a circle is an error. The claim is used up in the transaction that stores the data, so
that a late owner stores nothing.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection

from entropic.datastore.rows import NotOursError
from entropic.disk.roots import Marker
from entropic.disk.staging import own_staging
from entropic.errors import ClaimLostError
from entropic.leases.claims import Claims
from entropic.leases.heartbeat import Heartbeat
from entropic.process.patience import Patience
from entropic.process.termination import terminable
from entropic.runs.abandoned import clear_abandoned
from entropic.runs.calls import call_inside, explain
from entropic.runs.holding import Holding
from entropic.runs.inside import Run
from entropic.runs.turns import Turn
from entropic.sql.database import Database

__all__ = ["TABLE", "Fence", "Once", "Task"]

# Whose claims these are: no table of a user's has the name of one of the library's.
TABLE = "entropic_data_items"

T = TypeVar("T")
Fence = Callable[[Connection], bool]


@dataclass(frozen=True)
class Task:
    """What is to be computed once.

    Attributes
    ----------
    key : str
        Of its claim.
    name : str
        For people.
    parameters : mapping
        Of the component, for people.
    """

    key: str
    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class _Keys:
    claims: Claims
    root: Path
    marker: Marker


class Once:
    """Computes data of the components in one database and folder.

    Notes
    -----
    Safe between threads and processes: the claims decide.
    """

    def __init__(
        self, database: Database, root: Path, uuid: str, *, lease_s: float, patience: Patience
    ) -> None:
        self._database = database
        self._patience = patience
        claims = Claims(database, TABLE, lease_s=lease_s)
        self._keys = _Keys(claims, root, Marker(f"{uuid}-components", uuid, TABLE))
        self._heartbeat = Heartbeat(database, claims)

    def recover(self) -> None:
        """Clear away the notes of processes that have ended."""
        clear_abandoned(self._keys)

    def compute(
        self,
        task: Task,
        find: Callable[[], tuple[T] | None],
        function: Callable[[], T],
        commit: Callable[[T, Fence], object],
    ) -> T:
        """Return what *find* finds, by now or after a wait, or else what *function* returns, and *commit* has stored.

        Parameters
        ----------
        commit : callable
            Given the value and a function that uses up the claim in its transaction; raises `NotOursError` if that
            returns False.

        Raises
        ------
        DependencyCycleError
            If this is asked for while it is computed.
        ClaimTimeoutError
            If another process computes it for longer than the patience lasts.
        ClaimLostError
            If it was taken over while it was computed.
        """
        key, claims = task.key, self._keys.claims
        with terminable(), Holding(self._keys) as holding:

            def attempt() -> tuple[T] | tuple[()] | None:
                found = find()
                if found is None and (holding.take_over([key]) or holding.acquire([key])):
                    holding.offer(key)
                    found = find()  # once more, now that nobody else can store it
                    if found is None:
                        return ()
                    holding.release([key])
                return found

            turn = Turn(self._database, self._keys, self._patience)
            if found := turn.wait(key, holding, attempt, name=task.name):
                return found[0]
            with self._heartbeat.beating():
                self._database.rest()
                value = self._call(task, function)
                pair = holding.pair(key)
                try:
                    commit(value, lambda connection: claims.delete(connection, [pair]) == 1)
                except NotOursError:
                    raise ClaimLostError(
                        f"{task.name} was taken over while it was computed: this process was silent for longer than "
                        f"its lease of {claims.lease_s:g} s. What it computed was not stored"
                    ) from None
                holding.forget(key)
            return value

    def _call(self, task: Task, function: Callable[[], T]) -> T:
        _used.add(self._keys.root)
        staging = own_staging(self._keys.root)
        staging.make()  # for the notes of those who wait inside of it
        mark = (self._keys.marker.root, task.key)
        try:
            return call_inside(Run(mark, task.name, task.parameters, str(staging.folder)), (), function)
        except Exception as error:
            explain(error, task.name, task.parameters)
            raise


_used: set[Path] = set()  # folders in which this process has one of its own


@atexit.register
def _clear_away() -> None:
    for root in _used:
        with suppress(Exception):  # the folder may be gone
            own_staging(root).close()
