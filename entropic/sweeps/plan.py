"""What a sweep finds before it runs anything: typed, hashed, looked up, compared, each key once.

A plan is a value: making it writes nothing, and what it says of a result holds for the moment of the look-up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from entropic.disk.roots import names_in
from entropic.errors import EntropicError, ResultFileMissingError
from entropic.model.base import Base
from entropic.model.identities import Identity
from entropic.model.records import CHUNK, Found
from entropic.process.logs import get_logger
from entropic.process.raised import note_on
from entropic.runs.result_table import ResultTable
from entropic.sql.upsert import chunks

__all__ = ["Plan", "Task", "make_plan"]

log = get_logger(__name__)

ModelT = TypeVar("ModelT", bound=Base)

MISSING_AT_MOST = 10  # result files that may be gone, and
MISSING_SHARE = 0.1  # their share of the hits, before a sweep takes it for a lost folder

LISTED = 2000  # after so many hits the folder is listed once, instead of looking at each file


class Task(NamedTuple):
    """A key that has no result."""

    identity: Identity
    record_id: str
    """Where its row is, or will be: the key, or the published release's where that one's row is run again."""


@dataclass(frozen=True, slots=True)
class Plan(Generic[ModelT]):
    """What there is of some parameter sets, and what must run.

    Attributes
    ----------
    order : dict
        Each key once, in input order, and the key under which its row is or will be.
    records : dict
        By key, the records of those that have a result.
    tasks : dict
        What must run, by the key of the row: those without a row in input order, then those of *gone*.
    gone : list of Found
        Rows whose result file is gone.
    """

    order: dict[str, str]
    records: dict[str, ModelT]
    tasks: dict[str, Task]
    gone: Sequence[Found]

    def check_gone(self, table: ResultTable[ModelT], missing: str) -> None:
        """Raise unless what is gone may be run again; say so. Their rows are read once more for it.

        Parameters
        ----------
        missing : {"raise", "rerun"}
            What to do when more than ten, and more than a tenth, of the results that there are rows for are gone.

        Raises
        ------
        ResultsDirUnavailableError
            If it is the results folder that is not there.
        ResultFileMissingError
            If many results are gone, or a file that was registered: it is not ours to make.
        """
        if not self.gone:
            return
        table.require_root()
        gone = self._still_gone(table)
        for found in gone:
            table.refuse_registered(found)
        hits = len(self.records) + len(self.gone)
        many = len(gone) > MISSING_AT_MOST and len(gone) > MISSING_SHARE * hits
        if many and missing == "raise":
            raise ResultFileMissingError(
                f"{len(gone)} of {hits} results are gone from {str(table.root)!r}, the first of them "
                f"{table.reader.place(gone[0])!r}. Nothing was run. Restore them, or run them again with "
                "missing='rerun'"
            )
        if gone:
            log.warning("%d results are gone from %s: their runs are repeated", len(gone), table.root)

    def _still_gone(self, table: ResultTable[ModelT]) -> list[Found]:
        """Return what is gone and was not replaced by another run since its row was read."""
        rows = table.reader.find_many(found.id for found in self.gone)
        return [found for found in rows if not table.reader.is_present(found)]


def make_plan(table: ResultTable[ModelT], params: Iterable[Mapping[str, Any]]) -> Plan[ModelT]:
    """Look *params* up, in chunks: no statement grows with their number.

    Raises
    ------
    ParameterError
        If a set does not fit the model; with the number of the set.
    HashCollisionError
        If two different sets share a key, or a row holds other parameters.
    """
    return _Planner(table).plan(params)


Numbered = tuple[int, Mapping[str, Any]]


class _Left(NamedTuple):
    """What is left of a chunk: parameter sets with their numbers, and keys under which there is no row."""

    params: list[Numbered]
    absent: Collection[str]


class _Planner(Generic[ModelT]):
    def __init__(self, table: ResultTable[ModelT]) -> None:
        self._table = table
        self._order: dict[str, str] = {}
        self._records: dict[str, ModelT] = {}
        self._tasks: dict[str, Task] = {}
        self._gone: list[tuple[Identity, Found]] = []
        self._hits = 0
        self._names: set[str] = set()  # in the results folder, once that was listed

    def plan(self, params: Iterable[Mapping[str, Any]]) -> Plan[ModelT]:
        for chunk in chunks(enumerate(params), CHUNK):
            left = self._settle(chunk)
            if left is None:
                for part in chunks(chunk, CHUNK // 2):  # up to two keys each
                    self._sort(self._look_up(self._distinct(self._identify(part))))
            else:
                for part in chunks(left.params, CHUNK // 2):
                    self._sort(self._look_up(list(self._identify(part)), left.absent))
        for identity, found in self._gone:
            key = identity.key_of_run(found.id)
            self._order[identity.id] = key
            self._tasks[key] = Task(identity, key)
        return Plan(self._order, self._records, self._tasks, [found for _, found in self._gone])

    def _settle(self, chunk: list[Numbered]) -> _Left | None:
        """Take the hits of a chunk that are straight; return what is left, or None if all of it must be looked at."""
        hits, order = self._table.hits, self._order
        new: dict[str, tuple[Any, ...]] = {}
        numbered: list[Numbered] = []
        try:
            for one, (key, values) in zip(chunk, hits.identify_all(one for _, one in chunk), strict=True):
                if key in order:
                    # An error if it is another run's, or a task, of which the record says nothing.
                    if not hits.is_same(values, hits.values_of(self._records[key])):
                        return None
                elif key not in new:
                    new[key] = values
                    numbered.append(one)
                elif not hits.is_same(values, new[key]):
                    return None
            rows = hits.rows(list(new))
        except Exception:  # whatever it is, the general way says what
            return None
        order.update(zip(new, new, strict=True))
        names = self._listed(len(rows))
        left = []
        for one, (key, values) in zip(numbered, new.items(), strict=True):
            row = rows.get(key)
            record = None if row is None else hits.record(row, values, names)
            if record is None:
                left.append(one)
            else:
                self._records[key] = record
                self._hits += 1
        return _Left(left, new.keys() - rows.keys())

    def _listed(self, hits: int) -> set[str]:
        """Return the names in the results folder, once there are many hits."""
        if self._hits + hits > LISTED and not self._names:
            self._names = names_in(self._table.root)
        return self._names

    def _identify(self, chunk: Iterable[Numbered]) -> Iterator[Identity]:
        for number, one in chunk:
            try:
                yield self._table.parameters.identify(one)
            except (EntropicError, ValueError) as error:
                note_on(error, f"in parameter set {number} of the sweep: {one!r:.300}")
                raise

    def _distinct(self, chunk: Iterable[Identity]) -> list[Identity]:
        """Return one identity per key that is new; two runs under one key are an error before anything runs."""
        new: dict[str, Identity] = {}
        for identity in chunk:
            if identity.id in self._order:
                self._compare_with_first(identity)
            else:
                first = new.setdefault(identity.id, identity)
                if first is not identity:
                    self._table.check_same(identity, first)
        return list(new.values())

    def _compare_with_first(self, identity: Identity) -> None:
        task = self._tasks.get(identity.id)
        if task is not None:
            self._table.check_same(identity, task.identity)
        elif (record := self._records.get(identity.id)) is not None:
            self._table.parameters.verify(identity, vars(record))

    def _look_up(
        self, distinct: list[Identity], absent: Collection[str] = ()
    ) -> list[tuple[Identity, Found]]:
        """Return the rows that there are; the others are tasks. Under keys that are *absent* there is none."""
        keys = [key for identity in distinct for key in identity.ids if key not in absent]
        rows = {found.id: found for found in self._table.reader.find_many(keys)}
        hits = []
        for identity in distinct:
            self._order[identity.id] = identity.id
            found = self._table.match(identity, (rows[key] for key in identity.ids if key in rows))
            if found is None:
                self._tasks[identity.id] = Task(identity, identity.id)
            else:
                hits.append((identity, found))
        return hits

    def _sort(self, hits: list[tuple[Identity, Found]]) -> None:
        """Make records of the rows whose result is there."""
        names = self._listed(len(hits))
        self._hits += len(hits)
        for identity, found in hits:
            if found.file_name in names or self._table.reader.is_present(found):
                self._records[identity.id] = self._table.reader.record(found)
            else:
                self._gone.append((identity, found))
