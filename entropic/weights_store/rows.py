"""The rows of weights, and of which were the best: what is read and written in a transaction; no files.

A row is inserted before it is looked at. Two that only looked would both find nothing, and neither would know of the
file that the other one's row had.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, and_, delete, func, select, update

from entropic.disk.notes import Note
from entropic.errors import AlreadyExistsError, BestNotFoundError, InUseError, WeightsNotFoundError
from entropic.sql.tables.weights import BestWeightsRow, WeightsRow
from entropic.sql.upsert import chunks, insert_new

__all__ = ["StoredWeights", "WeightRows", "absent", "already_there", "new_file_name"]

CHUNK = 500  # iterations in a statement
SUFFIX = ".h5"

_FILE = re.compile(r"(?:(\d{1,19})-[0-9a-f]{8}|\.entropic-[0-9a-f]{32})\.h5")
_weights: Any = WeightsRow.__table__
_best: Any = BestWeightsRow.__table__


def new_file_name(iteration: int) -> str:
    """Return the name of a file that no row had and none will have again."""
    return f"{iteration}-{uuid4().hex[:8]}{SUFFIX}"


@dataclass(frozen=True)
class StoredWeights:
    """A row of the weights."""

    run_name: str
    iteration: int
    file_name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class WeightRows:
    """The rows of weights in one database, for `entropic.sql.exchange.Exchange`.

    Parameters
    ----------
    dialect : str
        As `Database.dialect` says it.
    folder : callable
        Returns where the files of a run are, by its name.
    """

    dialect: str
    folder: Callable[[str], Path]

    # Weights

    def find(self, connection: Connection, name: str, number: int) -> StoredWeights | None:
        """Return the row of an iteration."""
        columns = (_weights.c.file_name, _weights.c.size_bytes, _weights.c.sha256)
        found = connection.execute(select(*columns).where(_key(name, number))).first()
        return None if found is None else StoredWeights(name, number, *found)

    def every(self, connection: Connection) -> list[StoredWeights]:
        """Return all rows, by run and iteration."""
        columns = [_weights.c[name] for name in StoredWeights.__dataclass_fields__]
        found = connection.execute(select(*columns).order_by(_weights.c.run_name, _weights.c.iteration))
        return [StoredWeights(*row) for row in found]

    def is_empty(self, connection: Connection) -> bool:
        """Whether there are no weights of any run."""
        return connection.execute(select(_weights.c.iteration).limit(1)).first() is None

    def latest(self, connection: Connection, name: str) -> int | None:
        """Return the highest iteration of a run."""
        query = select(func.max(_weights.c.iteration)).where(_weights.c.run_name == name)
        found: int | None = connection.scalar(query)
        return found

    def iterations(self, connection: Connection, name: str) -> list[int]:
        """Return all iterations of a run, ascending."""
        query = select(_weights.c.iteration).where(_weights.c.run_name == name)
        return list(connection.scalars(query.order_by(_weights.c.iteration)))

    def put(self, connection: Connection, stored: StoredWeights, note: Note, exist_ok: bool) -> None:
        """Write a row, in place of one that is there: the file of that is named in the note first.

        Raises
        ------
        AlreadyExistsError
            If there is one, unless *exist_ok*.
        """
        key = _key(stored.run_name, stored.iteration)
        row = {**vars(stored), "created_at": datetime.now(UTC)}
        file = select(_weights.c.file_name).where(key).with_for_update()
        found = None
        while found is None:  # again if another process removes it between the two
            connection.execute(insert_new(_weights, self.dialect), row)
            found = connection.scalar(file)
        if found == stored.file_name:
            return
        if not exist_ok:
            raise already_there(stored.run_name, stored.iteration)
        _name_in(note, [found])
        connection.execute(update(_weights).where(key).values(row))

    def take(self, connection: Connection, name: str, number: int, *, note: Note, force: bool) -> None:
        """Delete a row, and with *force* what refers to it.

        Raises
        ------
        WeightsNotFoundError
            If there is none.
        InUseError
            If something refers to it, unless *force*.
        """
        key = _key(name, number)
        found = connection.scalar(select(_weights.c.file_name).where(key).with_for_update())
        if found is None:
            raise absent(name, number)
        _name_in(note, [found])
        pointing = and_(_best.c.run_name == name, _best.c.iteration == number)
        pointers = connection.execute(select(_best.c.dataset, _best.c.criterion).where(pointing)).all()
        if pointers and not force:
            best = ", ".join(f"{criterion!r} on {dataset!r}" for dataset, criterion in pointers)
            raise InUseError(
                f"the weights of the run {name!r} at iteration {number} are the best by {best}: store others as the "
                "best first, or remove them with force=True"
            )
        connection.execute(delete(_best).where(pointing))
        connection.execute(delete(_weights).where(key))

    def files(self, connection: Connection, name: str) -> list[str]:
        """Return the files of a run."""
        return list(connection.scalars(select(_weights.c.file_name).where(_weights.c.run_name == name)))

    def take_all(self, connection: Connection, name: str, note: Note) -> int:
        """Delete all rows of a run, and what refers to them; return how many weights there were."""
        of_run = select(_weights.c.file_name).where(_weights.c.run_name == name)
        found = connection.scalars(of_run.with_for_update()).all()
        _name_in(note, found)
        for table in (_best, _weights):
            connection.execute(delete(table).where(table.c.run_name == name))
        return len(found)

    def older(self, connection: Connection, name: str, keep_last: int) -> dict[int, str]:
        """Return the iterations before the last of a run that are not the best of anything, and their files.

        The rows are locked, so that nobody makes one of them the best before the transaction ends.
        """
        query = select(_weights.c.iteration, _weights.c.file_name).where(_weights.c.run_name == name)
        query = query.order_by(_weights.c.iteration.desc()).offset(keep_last).with_for_update()
        found = connection.execute(query).all()
        best = set(connection.scalars(select(_best.c.iteration).where(_best.c.run_name == name)))
        return {iteration: file for iteration, file in found if iteration not in best}

    def thin_out(self, connection: Connection, name: str, keep_last: int, note: Note) -> list[int]:
        """Delete the rows that `older` gives, and return their iterations, ascending."""
        gone = self.older(connection, name, keep_last)
        _name_in(note, gone.values())
        for some in chunks(gone, CHUNK):
            connection.execute(delete(_weights).where(_keys(name, some)))
        return sorted(gone)

    # The best

    def point(self, connection: Connection, row: dict[str, Any], is_better: Callable[[Any], bool]) -> bool:
        """Write which weights are the best, if there are none or *is_better* says so.

        Parameters
        ----------
        is_better : callable
            Is given the score of the former ones; NaN if they have none.

        Raises
        ------
        WeightsNotFoundError
            If there are no such weights.
        """
        name, number = row["run_name"], row["iteration"]
        row = {**row, "created_at": datetime.now(UTC)}
        # Locked: nobody removes them until this is committed.
        there = select(_weights.c.iteration).where(_key(name, number)).with_for_update(read=True)
        if connection.scalar(there) is None:
            raise absent(name, number)
        key = _best_key(name, row["dataset"], row["criterion"])
        query = select(_best.c.iteration, _best.c.score).where(key).with_for_update()
        former = None
        while former is None:
            connection.execute(insert_new(_best, self.dialect), row)
            former = connection.execute(query).first()
        if former.iteration != number and not is_better(former.score):
            return False
        connection.execute(update(_best).where(key).values(row))
        return True

    def best(self, connection: Connection, name: str, dataset: str, criterion: str) -> int:
        """Return the iteration of the best weights.

        Raises
        ------
        BestNotFoundError
            If there is no such row.
        """
        query = select(_best.c.iteration).where(_best_key(name, dataset, criterion))
        found: int | None = connection.scalar(query)
        if found is None:
            raise BestNotFoundError(
                f"no weights of the run {name!r} are noted as the best by {criterion!r} on {dataset!r}: call "
                "store_best, or check the names"
            )
        return found

    # Files that are exchanged

    def is_ours(self, file: str) -> bool:
        """Whether it is the name of weights, or of a part of them."""
        return _FILE.fullmatch(file) is not None

    def having(self, connection: Connection, subject: str, files: list[str]) -> set[str]:
        """Return the files of the rows that *files* may belong to."""
        found: set[str] = set()
        for some in chunks(_iterations_of(files), CHUNK):
            found.update(connection.scalars(select(_weights.c.file_name).where(_keys(subject, some))))
        return found

    def wait_for_others(self, connection: Connection, subject: str, files: list[str]) -> None:
        """Return when nobody else is writing the rows that *files* may belong to."""
        nothing = {"file_name": "", "size_bytes": 0, "sha256": "", "created_at": datetime.now(UTC)}
        # An INSERT waits for another transaction that has written its key; nobody sees this row.
        for some in chunks(_iterations_of(files), CHUNK):
            for one in some:
                row = {"run_name": subject, "iteration": one, **nothing}
                connection.execute(insert_new(_weights, self.dialect), row)
            connection.execute(delete(_weights).where(_keys(subject, some), _weights.c.file_name == ""))


def absent(name: str, number: int) -> WeightsNotFoundError:
    """Return the error of weights that there are not."""
    return WeightsNotFoundError(
        f"no weights of the run {name!r} at iteration {number} are stored: see iterations({name!r})"
    )


def already_there(name: str, number: int) -> AlreadyExistsError:
    """Return the error of weights that there are."""
    return AlreadyExistsError(
        f"weights of the run {name!r} at iteration {number} are stored already, and were left alone: say exist_ok=True "
        "to replace them"
    )


def _name_in(note: Note, files: Iterable[str]) -> None:
    known = set(note.files)
    for file in files:
        if file not in known:
            note.add(file)


def _iterations_of(files: Iterable[str]) -> list[int]:
    matches = filter(None, map(_FILE.fullmatch, files))
    return sorted({int(match[1]) for match in matches if match[1]})


def _key(name: str, number: int) -> Any:
    return and_(_weights.c.run_name == name, _weights.c.iteration == number)


def _keys(name: str, iterations: Iterable[int]) -> Any:
    return and_(_weights.c.run_name == name, _weights.c.iteration.in_(list(iterations)))


def _best_key(name: str, dataset: str, criterion: str) -> Any:
    return and_(_best.c.run_name == name, _best.c.dataset == dataset, _best.c.criterion == criterion)
