"""Statistics in a SQL database: a row for each iteration, score and value."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, case, delete, func, insert, or_, select, update

from entropic.sql.bulk import insert_rows, read_arrays
from entropic.sql.database import Database, DatabaseLike
from entropic.sql.tables.stats import (
    LabelRow,
    MetricRow,
    ScoreRow,
    StatsRunRow,
    TrainingRow,
    ValidationRow,
)
from entropic.sql.upsert import insert_new
from entropic.sql.versions import ensure_schema
from entropic.stats_store.collector import Collected, Collector
from entropic.stats_store.columns import AXES, LABELLED, METRIC, Kind, Scores
from entropic.stats_store.interface import StatsStore, Step
from entropic.stats_store.plans import (
    NO_LABEL,
    ScoresChange,
    TrainingChange,
    number_labels,
)

__all__ = ["SQLStatsStore"]

_RUNS: Any = StatsRunRow.__table__
_TRAINING: Any = TrainingRow.__table__
_VALIDATIONS: Any = ValidationRow.__table__
_SCORES: Any = ScoreRow.__table__
_LABELS: Any = LabelRow.__table__
_METRICS: Any = MetricRow.__table__

_Labels = Mapping[str, Mapping[int, str]]  # by axis and number

NOBODY = 0  # no run has that number
GONE = "gone "  # and an axis: of its last label that was deleted


class SQLStatsStore(StatsStore):
    """Keeps statistics in the tables ``entropic_…`` of a database.

    Parameters
    ----------
    database : Database, Engine, URL, str or None
        What is missing of the tables is made. None: ``Options().db_url``.

    Raises
    ------
    SchemaError
        If the tables there are of another version, or may not be made.
    TransactionError
        Inside a transaction on that database.

    Notes
    -----
    Safe between threads and processes: who writes locks the run, and each call is one transaction, or part of the one
    it is made in. A reader never waits, and sees what was committed. NaN and infinities are kept; but SQLite and
    MariaDB lose the sign of -0.0, and on MySQL and MariaDB the largest double comes back as the one next to it.

    What is logged inside a transaction is written at its end, and after what was logged of that run before it. That
    is written with it, and is kept, to be written later, if the transaction comes to nothing, but not if it is killed;
    until it is over only its own thread reads it.

    What was logged and is not yet written is known to all stores in this process that share the database; a copy that
    is unpickled in another one has nothing of it.
    """

    def __init__(self, database: DatabaseLike | None) -> None:
        if database is None:
            from entropic.options import Options

            database = Options().db_url
        self._attach(Database.of(database))
        self.database.refuse_block("opening a SQLStatsStore", "open it before")
        ensure_schema(self.database, [])

    def _attach(self, database: Database) -> None:
        self.database = database
        self._collector = Collector.of(database.token, self._add_metrics, database)

    def __getstate__(self) -> Database:
        return self.database

    def __setstate__(self, database: Database) -> None:
        self._attach(database)

    def __repr__(self) -> str:
        return f"SQLStatsStore({self.database!r})"

    # Runs and labels

    def _run_id(self, connection: Connection, run_name: str, *, is_locked: bool = False) -> int | None:
        statement = select(_RUNS.c.id).where(_RUNS.c.name == run_name)
        found: int | None = connection.scalar(statement.with_for_update() if is_locked else statement)
        return found

    def _locked_id(self, connection: Connection, run_name: str) -> int:
        """Return the number of a run, made if it has none, and let no other transaction write to the run."""
        while (run_id := self._run_id(connection, run_name, is_locked=True)) is None:
            connection.execute(insert_new(_RUNS, self.database.dialect), {"name": run_name})
        return run_id

    def _known(self, connection: Connection, run_id: int, axes: Iterable[str]) -> Sequence[Any]:
        is_axis = _LABELS.c.axis.in_(list(axes))
        return connection.execute(
            select(_LABELS.c.axis, _LABELS.c.number, _LABELS.c.label, _LABELS.c.higher_is_better)
            .where(_LABELS.c.run_id == run_id, is_axis)
            .order_by(_LABELS.c.axis, _LABELS.c.number)
        ).all()

    def _numbered(self, connection: Connection, run_id: int, axis: str, labels: Sequence[str]) -> list[int]:
        """Return the numbers of labels; those that have none get one."""
        rows = self._known(connection, run_id, [axis, GONE + axis])
        known = [(row.number, row.label) for row in rows if row.axis == axis]
        used = max((row.number for row in rows), default=-1)
        numbers, added = number_labels(known, labels, used + 1)
        if added:
            rows = [
                {"run_id": run_id, "axis": axis, "number": number, "label": label} for number, label in added
            ]
            connection.execute(insert(_LABELS), rows)
        return numbers

    def _forget(self, connection: Connection, run_id: int, axes: Sequence[str]) -> None:
        """Delete all labels of axes.

        The highest number of each is noted, and none is given again: who has read scores before, and labels after, must
        not take others for theirs.
        """
        every = [*axes, *(GONE + axis for axis in axes)]
        known = self._known(connection, run_id, every)
        last: dict[str, int] = {}
        for row in known:
            axis = row.axis.removeprefix(GONE)
            last[axis] = max(row.number, last.get(axis, 0))
        if not last:
            return
        connection.execute(delete(_LABELS).where(_LABELS.c.run_id == run_id, _LABELS.c.axis.in_(every)))
        rows = [
            {"run_id": run_id, "axis": GONE + axis, "number": number, "label": ""}
            for axis, number in last.items()
        ]
        connection.execute(insert(_LABELS), rows)

    def _labels(self, run_name: str) -> tuple[_Labels, Mapping[int, bool | None]]:
        def work(connection: Connection) -> Sequence[Any]:
            run_id = self._run_id(connection, run_name)
            return [] if run_id is None else self._known(connection, run_id, AXES)

        rows = self.database.read(work)
        labels: dict[str, dict[int, str]] = {axis: {} for axis in AXES}
        for row in rows:
            labels[row.axis][row.number] = row.label
        return labels, {row.number: row.higher_is_better for row in rows if row.axis == "criterion"}

    # Trainings

    def _change_training(
        self, run_name: str, plan: Callable[[int], TrainingChange | None]
    ) -> TrainingChange | None:
        def work(connection: Connection) -> TrainingChange | None:
            run_id = self._locked_id(connection, run_name)
            change = plan(_until(connection, _TRAINING, run_id))
            if change is not None:
                if change.replaces:
                    connection.execute(delete(_TRAINING).where(_TRAINING.c.run_id == run_id))
                replace = ("loss", "time") if change.merges else ()
                insert_rows(connection, _TRAINING, [(run_id, *row) for row in change.rows], replace=replace)
            return change

        # Not to be repeated after a commit that may have come through: what was appended would be behind then.
        return self.database.write(work)

    def _training(self, run_name: str, step: Step | None) -> Mapping[str, Any]:
        columns = (_TRAINING.c.iteration, _TRAINING.c.loss, _TRAINING.c.time)
        return self._arrays(run_name, select(*columns), _TRAINING, step)

    def _arrays(self, run_name: str, statement: Any, table: Any, step: Step | None) -> dict[str, Any]:
        """Return what a SELECT gives of a run, or of a subsample of it, by ascending iteration."""

        def work(connection: Connection) -> dict[str, Any]:
            run_id = self._run_id(connection, run_name)
            selected = statement.where(table.c.run_id == (NOBODY if run_id is None else run_id))
            if step is not None and run_id is not None:
                number, highest = table.c.iteration, _until(connection, table, run_id) - 1
                is_multiple = number % step(max(highest, 0)) == 0
                # What another writer has appended since it was asked for is left out.
                selected = selected.where(or_(is_multiple, number == highest), number <= highest)
            return read_arrays(connection, selected.order_by(table.c.iteration))

        return self.database.read(work)

    # Validations

    def _change_scores(
        self, run_name: str, plan: Callable[[int], ScoresChange | None]
    ) -> ScoresChange | None:
        def work(connection: Connection) -> ScoresChange | None:
            run_id = self._locked_id(connection, run_name)
            change = plan(_until(connection, _VALIDATIONS, run_id))
            if change is not None:
                self._write_scores(connection, run_id, change)
            return change

        return self.database.write(work, repeatable=True)

    def _write_scores(self, connection: Connection, run_id: int, change: ScoresChange) -> None:
        for table in (_VALIDATIONS, _SCORES):
            gives_way = delete(table).where(table.c.run_id == run_id)
            if change.merges:
                given = [one.iteration for one in change.validations]
                gives_way = gives_way.where(table.c.iteration.in_(given))
            if change.replaces or change.merges:
                connection.execute(gives_way)
        numbers = [self._numbered(connection, run_id, axis, change.labels[axis]) for axis in AXES]
        self._set_directions(connection, run_id, dict(zip(numbers[-1], change.directions, strict=True)))
        shapes = [(run_id, one.iteration, json.dumps(one.shape)) for one in change.validations]
        insert_rows(connection, _VALIDATIONS, shapes)
        insert_rows(
            connection,
            _SCORES,
            [
                (run_id, one.iteration, position, *_places(numbers, place), score)
                for one in change.validations
                for position, (place, score) in enumerate(zip(one.places, one.scores, strict=True))
            ],
        )

    def _set_directions(
        self, connection: Connection, run_id: int, directions: Mapping[int, bool | None]
    ) -> None:
        for row in self._known(connection, run_id, ["criterion"]):
            if directions.get(row.number) not in {None, row.higher_is_better}:
                is_label = (
                    _LABELS.c.run_id == run_id,
                    _LABELS.c.axis == row.axis,
                    _LABELS.c.number == row.number,
                )
                connection.execute(
                    update(_LABELS).where(*is_label).values(higher_is_better=directions[row.number])
                )

    def _scores(self, run_name: str, step: Step | None) -> Scores:
        # One statement, so that no other writer comes between the shapes and the scores.
        position = func.coalesce(_SCORES.c.position, -1).label("position")
        is_first = _SCORES.c.position.is_(None) | (_SCORES.c.position == 0)
        columns = (
            _VALIDATIONS.c.iteration,
            position,
            *(func.coalesce(_SCORES.c[axis], NO_LABEL).label(axis) for axis in AXES),
            _SCORES.c.score,
            case((is_first, _VALIDATIONS.c.shape)).label("shape"),
        )
        joined = _VALIDATIONS.outerjoin(
            _SCORES,
            (_SCORES.c.run_id == _VALIDATIONS.c.run_id) & (_SCORES.c.iteration == _VALIDATIONS.c.iteration),
        )
        statement = select(*columns).select_from(joined)
        arrays, labels = _labelled(
            lambda: self._arrays(run_name, statement, _VALIDATIONS, step), lambda: self._labels(run_name)[0]
        )
        import numpy

        order = numpy.lexsort((arrays["position"], arrays["iteration"]))
        firsts = order[arrays["position"][order] <= 0]
        there = order[arrays["position"][order] >= 0]
        return Scores(
            arrays["iteration"][firsts].tolist(),
            arrays["shape"][firsts].tolist(),
            {name: arrays[name][there] for name in ("iteration", *AXES, "score")},
            labels,
        )

    def _best(
        self, run_name: str, datasets: list[int] | None, criteria: list[int], higher_is_better: bool
    ) -> tuple[int, int, int, int, float] | None:
        score = _SCORES.c.score
        numbers = [func.coalesce(_SCORES.c[axis], NO_LABEL) for axis in AXES]
        of_run = select(_RUNS.c.id).where(_RUNS.c.name == run_name).scalar_subquery()
        statement = (
            select(_SCORES.c.iteration, *numbers, score)
            .where(_SCORES.c.run_id == of_run, _SCORES.c.criterion.in_(criteria), score.is_not(None))
            .order_by(score.desc() if higher_is_better else score, _SCORES.c.iteration, _SCORES.c.position)
            .limit(1)
        )
        if datasets is not None:
            statement = statement.where(_SCORES.c.dataset.in_(datasets))
        row = self.database.read(lambda connection: connection.execute(statement).first())
        return None if row is None else tuple(row)

    # Metrics

    def _add_metrics(self, run_name: str, collected: Collected) -> None:
        def work(connection: Connection) -> None:
            run_id = self._locked_id(connection, run_name)
            values = collected()
            names = list(dict.fromkeys(name for name, _ in values))
            number_of = dict(zip(names, self._numbered(connection, run_id, METRIC, names), strict=True))
            rows = [(run_id, number_of[name], number, value) for (name, number), value in values.items()]
            insert_rows(connection, _METRICS, rows, replace=["value"])

        self.database.write(work, repeatable=True)

    def _metrics(self, run_name: str) -> Mapping[str, tuple[Any, Any]]:
        statement = select(_METRICS.c.metric, _METRICS.c.iteration, _METRICS.c.value)

        def work(connection: Connection) -> tuple[Mapping[str, Any], _Labels]:
            run_id = self._run_id(connection, run_name)
            number = NOBODY if run_id is None else run_id
            of_run = statement.where(_METRICS.c.run_id == number).order_by(
                _METRICS.c.metric, _METRICS.c.iteration
            )

            def labels() -> _Labels:
                known = self._known(connection, number, [METRIC])
                return {METRIC: {row.number: row.label for row in known}}

            return _labelled(lambda: read_arrays(connection, of_run), labels)

        arrays, known = self.database.read(work)
        found = {}
        for number, name in known[METRIC].items():
            is_of_metric = arrays["metric"] == number
            if is_of_metric.any():
                found[name] = (arrays["iteration"][is_of_metric], arrays["value"][is_of_metric])
        return found

    # Either

    def _delete(self, run_name: str, kind: Kind) -> int:
        counted: Any
        counted, *others = {
            "training": (_TRAINING,), "metrics": (_METRICS,), "scores": (_VALIDATIONS, _SCORES)
        }[kind]  # fmt: skip

        def work(connection: Connection) -> int:
            run_id = self._run_id(connection, run_name, is_locked=True)
            if run_id is None:
                return 0
            self._forget(connection, run_id, LABELLED[kind])
            for table in others:
                connection.execute(delete(table).where(table.c.run_id == run_id))
            return int(connection.execute(delete(counted).where(counted.c.run_id == run_id)).rowcount)

        return self.database.write(work)


def _until(connection: Connection, table: Any, run_id: int) -> int:
    """Return one more than the highest iteration of a run in a table, or 0."""
    highest = connection.scalar(select(func.max(table.c.iteration)).where(table.c.run_id == run_id))
    return 0 if highest is None else int(highest) + 1


def _labelled(arrays: Callable[[], Mapping[str, Any]], labels: Callable[[], _Labels]) -> tuple[Any, _Labels]:
    """Return arrays of numbers, and the labels of each axis; again if another writer has deleted these in between."""
    former = None
    while True:
        found, known = arrays(), labels()
        if known == former or all(_are_known(found[axis], of_axis) for axis, of_axis in known.items()):
            return found, known
        former = known


def _are_known(numbers: Any, labels: Mapping[int, str]) -> bool:
    import numpy

    return {NO_LABEL, *labels}.issuperset(numpy.unique(numbers).tolist())


def _places(numbers: Sequence[Sequence[int]], place: Sequence[int]) -> list[int | None]:
    """Return the numbers of the labels at a place; None for those that it lies beyond."""
    return [of_axis[at] if at < len(of_axis) else None for of_axis, at in zip(numbers, place, strict=True)]
