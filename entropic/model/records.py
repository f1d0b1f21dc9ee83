"""Rows into records: the look-up that a hit is made of, and its chunked form for sweeps.

A look-up is one SELECT of the row and its file record by primary key. On SQLite, unless somebody listens to the
engine's events or echoes its SQL, it goes to the driver's cursor directly, with SQLAlchemy's own compiled statement
and its own result processors: the same rows for a third of the time. Records are instances of the user's model as a
session would have loaded and then detached them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

from sqlalchemy import ColumnElement, Connection, Dialect, String, and_, bindparam, inspect, select
from sqlalchemy.orm.attributes import instance_dict, instance_state

from entropic.disk.files import is_digest, require_digest
from entropic.disk.names import plain_name
from entropic.disk.roots import names_in
from entropic.errors import ResultFileMissingError, SchemaError
from entropic.model.base import RECORDED, RESULT_VALUE, Base
from entropic.sql.database import Database
from entropic.sql.listeners import is_unheard
from entropic.sql.tables import FileRow
from entropic.sql.upsert import chunks
from entropic.values.row_texts import digest_of_text, require_text

__all__ = ["CHUNK", "Found", "RecordReader"]

ModelT = TypeVar("ModelT", bound=Base)

# Keys per SELECT: 3.5 µs a key, and hardly less for more; every database takes as many parameters.
CHUNK = 1000

_files: Any = FileRow.__table__
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ESTALE}


class Found(NamedTuple):
    """A row as it stands in the database, and its file record."""

    row: dict[str, Any]
    """By attribute name of the model."""
    file_name: str | None
    """None without a file record, and of a value in the row."""
    sha256: str | None
    """None without a file record."""
    size_bytes: int | None

    @property
    def id(self) -> str:
        """The row's key."""
        return str(self.row["id"])

    @property
    def value(self) -> str | None:
        """The text of the value that stands in the row, None where the result is a file."""
        text: str | None = self.row.get(RESULT_VALUE) if self.file_name is None else None
        return text

    @property
    def has_file(self) -> bool:
        """Whether the row names a file; it has a value else, or nothing."""
        return self.file_name is not None or self.row["result_file"] is not None


Fetch = Callable[[Any, Sequence[str]], list[Found]]


class RecordReader(Generic[ModelT]):
    """Reads the rows of one model.

    Parameters
    ----------
    root : Path
        The results folder; a file record's name is relative to it.

    Notes
    -----
    Safe between threads: each has a connection of its own.
    """

    def __init__(self, database: Database, model: type[ModelT], root: Path) -> None:
        self._database = database
        self._model = model
        self._root = root
        mapper = inspect(model)
        self._attributes = {attribute.key: attribute.columns[0] for attribute in mapper.column_attrs}
        self._names = tuple(self._attributes)
        self._mapper: Any = mapper
        self._manager: Any = mapper.class_manager
        table: Any = mapper.local_table
        self._joined = self._select(self._attributes.values(), bindparam(None, table.fullname))
        self._by_id = {
            1: self._joined.where(table.c.id == bindparam("id_0")),
            2: self._joined.where(table.c.id.in_([bindparam("id_0"), bindparam("id_1")])),
        }
        self._by_ids: Any = self._joined.where(table.c.id.in_(bindparam("ids", expanding=True)))
        self._direct: dict[int, Fetch] = {}
        self._prefix = f"{root}{os.sep}"

    def _select(self, columns: Iterable[Any], table_name: Any) -> Any:
        table = self._mapper.local_table
        on = and_(_files.c.table_name == table_name, _files.c.record_id == table.c.id)
        of_file = (_files.c.name, _files.c.sha256, _files.c.size_bytes)
        return select(*columns, *of_file).select_from(table.outerjoin(_files, on))

    @property
    def statement(self) -> Any:
        """The SELECT of rows and file records, to which conditions can be added."""
        return self._joined

    def statement_of(self, columns: Iterable[Any]) -> Any:
        """Return the SELECT of these columns and of file records, with nothing to bind but what is added."""
        name = self._mapper.local_table.fullname
        return self._select(columns, bindparam(None, name, String(), literal_execute=True))

    @property
    def attributes(self) -> dict[str, Any]:
        """The column of each attribute of a record."""
        return dict(self._attributes)

    @property
    def prefix(self) -> str:
        """What stands before a plain name in the path of a result."""
        return self._prefix

    def find(self, ids: tuple[str, ...]) -> list[Found]:
        """Return the rows under one or two keys: one statement."""
        if not self._is_direct():
            values = {f"id_{n}": key for n, key in enumerate(ids)}
            statement = self._by_id[len(ids)]
            rows = self._database.look(lambda connection: connection.execute(statement, values).fetchall())
            return self._as_asked([self.found(row) for row in rows], ids)
        return self._ask(ids)

    def find_many(self, ids: Iterable[str]) -> Iterator[Found]:
        """Yield the rows under any number of keys, `CHUNK` keys a statement."""
        for chunk in chunks(ids, CHUNK):
            if self._is_direct():
                yield from self._ask(chunk)
            else:
                rows = self._database.look(partial(self._fetch, keys=chunk))
                yield from self._as_asked([self.found(row) for row in rows], chunk)

    def _fetch(self, connection: Connection, *, keys: Sequence[str]) -> Sequence[Any]:
        return connection.execute(self._by_ids, {"ids": keys}).fetchall()

    def select(
        self,
        where: Sequence[ColumnElement[bool]],
        order_by: Sequence[Any],
        limit: int | None,
        connection: Connection,
    ) -> Iterator[Found]:
        """Yield the rows that meet all conditions."""
        statement = self._joined.where(*where).order_by(*order_by).limit(limit)
        yield from map(self.found, connection.execute(statement))

    def found(self, row: Sequence[Any]) -> Found:
        """Return a row of `statement` by name."""
        return Found(dict(zip(self._names, row, strict=False)), row[-3], row[-2], row[-1])

    def path(self, found: Found) -> str | None:
        """Return the absolute path of a row's result for this Store, None if its value stands in the row.

        Whether the file is there has not been looked at.
        """
        name = found.file_name
        if name is None:
            return self._unrecorded(found) if found.row["result_file"] is not None else None
        # Most names, in the quickest way: this is looked at twice on each hit.
        if name[:1] not in "." and "/" not in name and "\0" not in name:
            return self._prefix + name
        return name if os.path.isabs(name) else self._prefix + plain_name(name)

    def _unrecorded(self, found: Found) -> str:
        """Of a row that 2.3, SQL or a merge wrote: as it stands, else under the root if the name begins with the id."""
        stored: str = found.row["result_file"]
        moved = self._root / Path(stored).name
        if not os.path.lexists(stored) and moved.name.startswith(found.id) and moved.exists():
            return str(moved)
        return os.path.abspath(stored)

    def place(self, found: Found) -> str:
        """Return where the result of a row is or should be, for people."""
        return self.path(found) or f"in its row, in the column {RESULT_VALUE}"

    def is_present(self, found: Found) -> bool:
        """Whether the result of a row can be opened; looked for once more after listing its folder."""
        return self._is_there(found, {})

    def present(self, rows: Iterable[Found]) -> set[str]:
        """Return the ids of the rows whose result can be opened; each folder is listed once at most."""
        listed: dict[str, set[str]] = {}
        return {found.id for found in rows if self._is_there(found, listed)}

    def _is_there(self, found: Found, listed: dict[str, set[str]]) -> bool:
        path = self.path(found)
        return found.value is not None if path is None else _is_there(path, listed)

    def holds(self, found: Found, size_bytes: int, sha256: str) -> bool:
        """Whether the result of a row is there, and is this one, to the byte."""
        path, digest = self.path(found), (size_bytes, sha256)
        if path is None:
            return found.value is not None and digest_of_text(found.value) == digest
        return is_digest(Path(path), digest)

    def is_registered(self, found: Found) -> bool:
        """Whether the result of a row is a file of the user's, outside the results folder."""
        if found.file_name is not None:
            return os.path.isabs(found.file_name)
        if not found.has_file:
            return False
        path = Path(self._unrecorded(found))  # as an earlier release or SQL wrote it
        return path.parent != self._root and not path.name.startswith(found.id)

    def way_out(self, found: Found) -> str:
        """Say what helps where the result of a row is gone: what was registered no run makes again."""
        if self.is_registered(found):
            return "Bring it back, or delete the row, so that the next call runs it"
        return "Bring it back; or the next call runs it again"

    def require_intact(self, found: Found) -> None:
        """Raise `CorruptFileError` unless the result of a row is what its run made, byte for byte."""
        path = self.path(found)
        if found.sha256 is None:
            raise ResultFileMissingError(
                f"there is no digest to compare the result of {found.id!r} with ({self.place(found)}): an earlier "
                "release or SQL wrote the row. store.check(fix=True) records one"
            )
        if not self.is_present(found):
            raise ResultFileMissingError(
                f"the result of {found.id!r} is not there: {self.place(found)!r}. Mount its folder, or bring it back"
            )
        recorded = int(found.size_bytes or 0), found.sha256
        if path is None:
            require_text(found.value or "", *recorded, record_id=found.id)
        else:
            require_digest(Path(path), *recorded)

    def present_record(self, found: Found) -> ModelT | None:
        """Return the record of a row, or None if its result cannot be opened: a hit, or none."""
        path = self.path(found)
        is_there = found.value is not None if path is None else _is_there(path, {})
        return self._record(found, path) if is_there else None

    def record(self, found: Found) -> ModelT:
        """Return the detached record of a row, its path under this Store's results folder."""
        return self._record(found, self.path(found))

    def _record(self, found: Found, path: str | None) -> ModelT:
        record: Any = self._manager.new_instance()
        values, state = instance_dict(record), instance_state(record)
        values.update(found.row)
        # All that make_transient_to_detached comes to where no column is missing, for a third of its time.
        state.key = self._mapper.identity_key_from_primary_key((found.row["id"],))
        # What a session does on loading: MutableDict begins to watch custom_data, and users' own listeners run.
        self._manager.dispatch.load(state, None)
        if path is not found.file_name:  # a registered path stays as it was given; a value has none
            values["result_file"] = path
        values[RECORDED] = path, found.size_bytes, found.sha256
        return cast("ModelT", record)

    def _is_direct(self) -> bool:
        """Whether the driver may be asked directly: SQLite, and nobody is listening who would miss the statement."""
        engine = self._database.engine
        return engine.dialect.driver == "pysqlite" and is_unheard(engine)

    def _ask(self, ids: Sequence[str]) -> list[Found]:
        # Filled up to a power of two by a key that is there already, so that few statements are compiled.
        n = len(ids)
        places = n if n == 1 else 1 << (n - 1).bit_length()
        fetch = self._direct.get(places) or self._compile(places, self._database.engine.dialect)
        keys = ids if n == places else [*ids, *[ids[-1]] * (places - n)]
        found = self._database.look(lambda connection: fetch(connection.connection.dbapi_connection, keys))
        return self._as_asked(found, ids)

    def _as_asked(self, found: list[Found], ids: Collection[str]) -> list[Found]:
        """Return rows that were found; raise `SchemaError` if the database took another key for one of *ids*."""
        if strange := {one.id for one in found} - {*ids}:
            table = self._mapper.local_table.fullname
            raise SchemaError(
                f"the database took {min(ids)!r} for {min(strange)!r}, as the column id of the table {table} compares "
                "without regard to case or trailing spaces. Nothing was run. Give the column a binary collation, such "
                "as utf8mb4_nopad_bin or BINARY"
            )
        return found

    def _compile(self, n: int, dialect: Dialect) -> Fetch:
        marks = [f"id_{place}" for place in range(n)]
        expanded = self._by_ids.compile(dialect=dialect).construct_expanded_state({"ids": marks})
        sql, parameters = expanded.statement, list(expanded.positional_parameters)
        # From the end: the first one is the table's name, which may be anything.
        first = len(parameters) - parameters[::-1].index(marks[-1]) - n
        before, after = parameters[:first], parameters[first + n :]
        made = {
            name: column.type.dialect_impl(dialect).result_processor(dialect, None)
            for name, column in self._attributes.items()
        }
        processors = [(name, processor) for name, processor in made.items() if processor is not None]
        names = self._names

        def fetch(connection: Any, ids: Sequence[str]) -> list[Found]:
            result = []
            for row in connection.execute(sql, [*before, *ids, *after]).fetchall():
                values = dict(zip(names, row))  # noqa: B905  the file record follows; to say so costs 0.1 µs
                for name, processor in processors:
                    values[name] = processor(values[name])
                result.append(Found(values, row[-3], row[-2], row[-1]))
            return result

        self._direct[n] = fetch
        return fetch


def _is_there(path: str, listed: dict[str, set[str]]) -> bool:
    """Whether there is a file or a folder of this path; *listed* has the names in folders that were listed for it."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _ABSENT:
            raise  # what may not be looked at, or a disk that fails, is no result that is gone
        folder, name = os.path.split(path)
        if folder not in listed:
            # Network file systems remember for a while that a name was absent.
            listed[folder] = names_in(folder)
        # A link that dangles is there all the same, and is no result.
        return name in listed[folder] and not os.path.islink(path)
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
