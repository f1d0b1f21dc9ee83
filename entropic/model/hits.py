"""The straight way of a hit: parameters in, record out, with nothing in between that could have been done before.

It is for what nearly every hit is: a dict of usual values, a row under the key that has just these, a file of a plain
name in the results folder, nobody who listens. Of anything else it says nothing, and the general way (`Parameters`,
`RecordReader`) decides as if nobody had looked. So it never raises, never runs anything, and gives a record only where
the general way would give an equal one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from stat import S_IFDIR, S_IFMT, S_IFREG
from typing import Any, Generic, TypeVar

from sqlalchemy import inspect

from entropic.model.base import RESULT_VALUE, Base
from entropic.model.compiled import (
    Identify,
    can_make_records,
    identify_function,
    record_function,
    same_function,
)
from entropic.model.parameters import Parameters
from entropic.model.records import RecordReader
from entropic.model.shortcuts import Unusual, way_of
from entropic.sql.asking import Question, can_ask
from entropic.sql.database import Database

__all__ = ["ABSENT", "Hits"]

ModelT = TypeVar("ModelT", bound=Base)

ABSENT: Any = object()  # instead of a record: there is no row under the key

SHAPES = 64  # sets of names for which there is a function of their own; callers have few

_RESULTS = frozenset({S_IFREG, S_IFDIR})


class Hits(Generic[ModelT]):
    """Finds the records of one table, where that is straight.

    Notes
    -----
    Safe between threads. What is made for a set of names, or for a kind of row, is made when it first comes, once.
    """

    def __init__(self, database: Database, parameters: Parameters, reader: RecordReader[ModelT]) -> None:
        self._database = database
        self._parameters = parameters
        self._prefix = reader.prefix
        self._shapes: dict[tuple[Any, ...], Identify | None] = {}
        columns = reader.attributes
        first = dict.fromkeys(["id", *parameters.names, *columns])
        self._columns = {name: columns[name] for name in first}
        order = list(self._columns)
        self._value_at = order.index(RESULT_VALUE) if RESULT_VALUE in order else None
        self._file_at = order.index("result_file")
        self._reader = reader
        self._question: Any = None  # None until it is known whether there are any straight ways
        self._make: Callable[[Sequence[Any], tuple[Any, ...], str | None], ModelT] | None = None
        self._same: Callable[[tuple[Any, ...], tuple[Any, ...]], bool] | None = None
        self._own: Any = ()  # listeners to the loading of records: of this model, and of all
        self._inherited: Any = ()

    def find(self, params: Mapping[str, Any]) -> ModelT | None:
        """Return the record of *params* if there is one, and all about it is usual.

        `ABSENT` says that there is no row under the key, though perhaps under that of the published release; None says
        nothing.
        """
        if type(params) is not dict:
            return None
        try:
            identify = self._shapes.get(tuple(params)) or self._shape(tuple(params))
            key, wanted = identify(params)
            row = self._question.one(key)
            if row is None:
                absent: ModelT = ABSENT
                return absent
            name = row[-3]
            if row[0] != key or len(self._own) + len(self._inherited) != 1:
                return None
            if name is None:
                return (self._make or self._made())(row, wanted, None) if self._has_value(row) else None
            if name[:1] in "." or "/" in name:
                return None
            path = self._prefix + name
            if S_IFMT(os.stat(path).st_mode) not in _RESULTS:
                return None
            return (self._make or self._made())(row, wanted, path)
        except Exception:  # no file; of a value, of the driver: the general way says what it is
            return None

    def identify_all(self, sets: Iterable[Mapping[str, Any]]) -> list[tuple[str, tuple[Any, ...]]]:
        """Return key and typed values of each of *sets*; raises where the general way must have a look."""
        known: list[tuple[str, tuple[Any, ...]]] = []
        names: tuple[Any, ...] | None = None
        identify: Any = None
        for params in sets:
            if type(params) is not dict:
                raise Unusual
            if tuple(params) != names:
                names = tuple(params)
                identify = self._shapes.get(names) or self._shape(names)
            known.append(identify(params))
        return known

    def is_same(self, wanted: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
        """Whether typed values are one run's; what is not sure is not."""
        return wanted == others if self._same is None else self._same(wanted, others)

    def values_of(self, record: ModelT) -> tuple[Any, ...]:
        """Return the typed values of a record."""
        values = vars(record)
        return tuple(values[name] for name in self._parameters.params)

    def rows(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the rows under *keys*, by key: one statement. Raises where the general way must ask."""
        if len(self._own) + len(self._inherited) != 1:
            raise Unusual
        return {row[0]: row for row in self._question.many(keys)} if keys else {}

    def record(self, row: Sequence[Any], wanted: tuple[Any, ...], names: Collection[str]) -> ModelT | None:
        """Return the record of a row; None says nothing.

        Parameters
        ----------
        names : collection of str
            What is known to be in the results folder.
        """
        try:
            name = row[-3]
            if name is None:
                return (self._make or self._made())(row, wanted, None) if self._has_value(row) else None
            path = self._prefix + name
            if name[:1] in "." or "/" in name:
                return None
            if name not in names and S_IFMT(os.stat(path).st_mode) not in _RESULTS:
                return None
            return (self._make or self._made())(row, wanted, path)
        except Exception:
            return None

    def _has_value(self, row: Sequence[Any]) -> bool:
        """Whether the result stands in a row that has a file record without a name, and nowhere else."""
        at, file = self._value_at, self._file_at
        return at is not None and row[at] is not None and row[-2] is not None and row[file] is None

    def _shape(self, names: tuple[Any, ...]) -> Identify:
        """Return what identifies parameters of these names, made at its first use."""
        if self._question is None:
            self._prepare()
        if self._question is False or (len(self._shapes) >= SHAPES and names not in self._shapes):
            raise Unusual
        if names not in self._shapes:
            self._shapes[names] = identify_function(self._parameters, self._database.engine.dialect, names)
        identify = self._shapes[names]
        if identify is None:
            raise Unusual
        return identify

    def _prepare(self) -> None:
        model = self._parameters.model
        if not can_make_records(model) or not can_ask(self._database):
            self._question = False
            return
        ways = [way_of(self._parameters, p) for p in self._parameters.params.values()]
        self._same = same_function(ways)
        mapper: Any = inspect(model)
        load = mapper.class_manager.dispatch.load
        self._own, self._inherited = load.listeners, load.parent_listeners
        statement = self._reader.statement_of(self._columns.values())
        self._question = Question(self._database, statement, self._columns["id"])

    def _made(self) -> Callable[[Sequence[Any], tuple[Any, ...], str | None], ModelT]:
        codes = [column[1] for column in self._question.description]
        dialect = self._database.engine.dialect
        self._make = record_function(self._parameters, self._columns, dialect, codes)
        return self._make
