"""All that belongs to one table of results, put together: what a Store, a sweep, recovery and checks work on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import Dialect, inspect
from sqlalchemy.exc import NoSuchTableError

from entropic.disk.names import require_text, safe_name
from entropic.disk.roots import Marker, access_problem, read_marker, root_problem
from entropic.errors import (
    AlreadyExistsError,
    CorruptFileError,
    HashCollisionError,
    ResultFileMissingError,
    ResultsDirUnavailableError,
    SchemaError,
)
from entropic.leases.claims import Claims
from entropic.leases.heartbeat import Heartbeat
from entropic.model.base import RESULT_VALUE, Base, reserved_of, table_key
from entropic.model.folders import adopt_root, registered_marker, tell_copy
from entropic.model.growth import grow_table
from entropic.model.hits import Hits
from entropic.model.identities import Identity
from entropic.model.parameters import Parameters
from entropic.model.records import Found, RecordReader
from entropic.model.registration import (
    compare_keys,
    refuse_other_case,
    register_table,
)
from entropic.process.logs import get_logger
from entropic.process.patience import Patience, Wait
from entropic.process.provenance import CodeState
from entropic.runs.endings import Endings
from entropic.runs.inside import refuse_memory
from entropic.runs.jobs import Job
from entropic.runs.publishing import Publisher
from entropic.sql.capacity import Capacity
from entropic.sql.database import Database
from entropic.sql.drift import check_user_table
from entropic.sql.limits import explained_limits, require_names
from entropic.sql.rights import explained_denial, missing_rights
from entropic.sql.versions import ensure_schema

__all__ = ["ResultTable"]

log = get_logger(__name__)

# Of a run that is on its way from the move of its result to the commit of its row.
_PUBLISHING = Patience(limit_s=3.0, first_pause_s=0.005, longest_pause_s=0.25)

ModelT = TypeVar("ModelT", bound=Base)


@dataclass
class ResultTable(Generic[ModelT]):
    """One table: its database, parameters, claims, rows and results folder.

    Attributes
    ----------
    root : Path
        The results folder, absolute.
    marker : Marker
        What the folder's marker must say before anything is written there.
    code : CodeState
        With what code this process runs.
    """

    database: Database
    model: type[ModelT]
    root: Path
    marker: Marker
    parameters: Parameters
    claims: Claims
    heartbeat: Heartbeat
    reader: RecordReader[ModelT]
    hits: Hits[ModelT]
    publisher: Publisher
    endings: Endings
    code: CodeState
    may_not: str | None = None
    """What this user may not do in the database, as it was when the Store opened."""
    not_ours: str | None = None
    """Why the folder is another database's, of which this one is a copy; as it was when the Store opened."""

    @classmethod
    def open(
        cls,
        database: Database,
        model: type[ModelT],
        root: Path,
        *,
        lease_s: float,
        code: CodeState,
        suffix: str = "",
    ) -> ResultTable[ModelT]:
        """Make what is missing of the tables, compare the model with its table, register it, mark its folder.

        Raises
        ------
        ValueError
            If the folder's path is no text.
        SchemaError
            If the library's tables are of another version, or the user's table does not fit the model.
        ResultsDirUnavailableError
            If the table is new and the folder is another table's.
        ClusterError
            If the database is in memory, and this is in a worker of a sweep whose database is, too.
        """
        require_text(root)
        if database.is_memory:
            refuse_memory(str(database.url))
        table = inspect(model).local_table
        parameters = Parameters(model, _dialect(database), suffix)
        name = f"{model.__module__}.{model.__qualname__}"
        require_names(table, _dialect(database), name)  # type: ignore[arg-type]
        with explained_limits(table, name):  # type: ignore[arg-type]
            ensure_schema(database, [table])  # type: ignore[list-item]
            if model.__entropic__.is_derived:
                with explained_denial(database):
                    grow_table(database, parameters)
        try:
            capacities = check_user_table(database, table, name)  # type: ignore[arg-type]
        except SchemaError:
            compare_keys(database, parameters)  # whose way out goes first: a column alone would not do
            raise
        except NoSuchTableError:  # there is one, but for its case
            with database.reading() as connection:
                refuse_other_case(connection, parameters)
            raise
        if capacities:
            parameters = Parameters(model, _dialect(database), suffix, capacities)
            _require_held(capacities, root / ("0" * 16 + suffix))
        with explained_denial(database):
            marker = register_table(database, parameters, root)
        marker, not_ours = tell_copy(database, marker, root)
        return cls._of(database, parameters, root, marker, lease_s=lease_s, code=code, not_ours=not_ours)

    @classmethod
    def attach(
        cls,
        database: Database,
        model: type[ModelT],
        root: Path,
        marker: Marker,
        *,
        lease_s: float,
        code: CodeState,
        suffix: str = "",
        capacities: Mapping[str, Capacity],
        not_ours: str | None = None,
    ) -> ResultTable[ModelT]:
        """Put together what was opened before, here or in another process; nothing is read or written."""
        parameters = Parameters(model, _dialect(database), suffix, capacities)
        return cls._of(database, parameters, root, marker, lease_s=lease_s, code=code, not_ours=not_ours)

    @classmethod
    def _of(
        cls,
        database: Database,
        parameters: Parameters,
        root: Path,
        marker: Marker,
        *,
        lease_s: float,
        code: CodeState,
        not_ours: str | None,
    ) -> ResultTable[ModelT]:
        model: Any = parameters.model
        claims = Claims(database, table_key(model), lease_s=lease_s)
        endings = Endings(database, claims, table_key(model))
        reader: RecordReader[ModelT] = RecordReader(database, model, root)
        return cls(
            database=database,
            model=model,
            root=root,
            marker=marker,
            parameters=parameters,
            claims=claims,
            heartbeat=Heartbeat(database, claims),
            reader=reader,
            hits=Hits(database, parameters, reader),
            publisher=Publisher(database, parameters, claims, endings, root),
            endings=endings,
            code=code,
            not_ours=not_ours,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        options = {
            "lease_s": self.claims.lease_s,
            "code": self.code,
            "suffix": self.parameters.suffix,
            "capacities": self.parameters.capacities,
            "not_ours": self.not_ours,
        }
        return _attach, (self.database, self.model, self.root, self.marker, options)

    @property
    def holds_values(self) -> bool:
        """Whether small results stand in the rows."""
        return RESULT_VALUE in reserved_of(self.model)

    def names_of_columns(self, bookkeeping: bool | None = None) -> list[str]:
        """Return the attributes of a record that are columns: parameters, outputs, and what the library brings.

        Parameters
        ----------
        bookkeeping : bool, optional
            Whether with the last. Default: of the user's own models, not of those that are derived from functions.
        """
        first = [*self.parameters.names, *self.parameters.outputs.names]
        reserved = reserved_of(self.model)
        names = [attribute.key for attribute in inspect(self.model).column_attrs]
        first += [name for name in names if name not in {*first, *reserved}]
        is_wanted = not self.model.__entropic__.is_derived if bookkeeping is None else bookkeeping
        return [*first, *reserved] if is_wanted else first

    def require_root(self) -> None:
        """Raise `ResultsDirUnavailableError` unless the results folder is there, ours, and for us to write.

        Raise `SchemaError` if it is the database that this user may not write in.
        """
        if self.database.is_memory:
            refuse_memory(str(self.database.url))
        problem = self.root_problem() or access_problem(self.root)
        if problem is not None:
            raise ResultsDirUnavailableError(problem)
        if self.may_not is not None:  # by now it may have been granted
            self.may_not = missing_rights(self.database, inspect(self.model).local_table)  # type: ignore[arg-type]
        if self.may_not is not None:
            raise SchemaError(self.may_not)

    def can_write(self) -> bool:
        """Whether runs can be made here; why not is logged, once for each Store that opens."""
        if self.not_ours is not None:
            log.warning("%s", self.not_ours)
        if not self.has_root():
            return False
        self.may_not = missing_rights(self.database, inspect(self.model).local_table)  # type: ignore[arg-type]
        problem = access_problem(self.root) or self.may_not
        if problem is not None:
            log.warning("%s", problem)
        return problem is None

    def has_root(self) -> bool:
        """Whether the results folder is there and ours."""
        return self.root_problem() is None

    def root_problem(self) -> str | None:
        """Return why results cannot be written to the folder now, or None if it is there and ours."""
        if self.not_ours is not None:
            return self.not_ours
        problem = root_problem(self.root, self.marker)
        found = None if problem is None else read_marker(self.root)
        if found is not None and found.table == self.marker.table and found.root != self.marker.root:
            # Another process of this database may have marked it anew meanwhile.
            self.marker = registered_marker(self.database, found.table) or self.marker
            problem = root_problem(self.root, self.marker)
        return problem

    def adopt_root(self) -> None:
        """Make the folder this table's, whatever folder was before."""
        with explained_denial(self.database):
            self.marker = adopt_root(self.database, table_key(self.model), self.root)
        self.not_ours = None

    def find(self, identity: Identity, *, is_absent: bool = False) -> Found | None:
        """Return the row of *identity*: one SELECT.

        Parameters
        ----------
        is_absent : bool
            Whether it is known that there is none under the key itself.

        Raises
        ------
        HashCollisionError
            If the row under the key holds other parameters.
        """
        ids = identity.ids[1:] if is_absent else identity.ids
        return self.match(identity, self.reader.find(ids)) if ids else None

    def settled(self, identity: Identity, found: Found, *, verify: bool) -> Found | None:
        """Return the row of *identity* once its result fits it; None if there is no row, or the result is gone.

        Parameters
        ----------
        found : Found
            The row as it was read. A run that replaces the result moves the new one to its place before anybody sees
            the new row, and removes the old one after that.
        verify : bool
            Whether the result must be what its run made, byte for byte.

        Raises
        ------
        CorruptFileError
            If it is not.
        ResultFileMissingError
            If there is nothing to *verify*, or nothing to compare it with.
        """
        wait = Wait(_PUBLISHING)
        while True:
            is_gone = not self.reader.is_present(found) and self.has_root()
            damage = self._damage(found) if verify and not is_gone else None
            if not is_gone and damage is None:
                return found
            # In this order: what is published between the two shows in the row.
            is_run = damage is not None and bool(self.claims.holders([found.id]))
            before, again = found, self.find(identity)
            if again is None:
                return None
            found = again
            if (found[1:], found.value) != (before[1:], before.value):
                continue
            if not is_run or wait.is_over() or self.database.is_in_block:
                break
            wait.pause()
        if damage is not None:
            raise damage
        log.warning(
            "the result of %s is gone: %s. %s", found.id, self.reader.place(found), self.reader.way_out(found)
        )
        return None

    def _damage(self, found: Found) -> OSError | None:
        try:
            self.reader.require_intact(found)
        except (CorruptFileError, FileNotFoundError) as error:
            return error
        return None

    def match(self, identity: Identity, rows: Iterable[Found]) -> Found | None:
        """Return the row of *identity* among those found under its keys."""
        former = None
        for found in rows:
            if found.id == identity.id:
                self.parameters.verify(identity, found.row)
                return found
            # Under the published release's key; one that differs there is another run. What has no file record was
            # not written by this release, which tells a tuple from a list.
            if not self.parameters.differences(identity, found.row, is_former=found.sha256 is None):
                former = found
        return former

    def job(
        self,
        identity: Identity,
        record_id: str,
        replaced: Found | None,
        *,
        custom: Mapping[str, Any] | None = None,
        look: bool = True,
        ended: tuple[str, ...] = (),
    ) -> Job:
        """Return what a worker is told of a key to run; *replaced* is the row of before, as it is under the claim."""
        return Job(
            record_id=record_id,
            name=safe_name(f"{record_id}{self.parameters.suffix}"),
            params=identity.for_runner(),
            stored=self.parameters.dump(identity.values),
            custom=dict(custom or {}),
            # Recovery drops a run that replaces another row than that which there is.
            replaces=replaced.sha256 if replaced is not None and replaced.id == record_id else None,
            look=look,
            ended=ended,
        )

    def refuse_registered(self, found: Found) -> None:
        """Raise `ResultFileMissingError` if the file of a row that is gone was registered: it is not ours."""
        if self.reader.is_registered(found):
            raise ResultFileMissingError(
                f"the registered file {self.reader.place(found)!r} of {found.id!r} is not there. Nothing was run. "
                f"{self.reader.way_out(found)}"
            )

    def refuse_other_file(self, found: Found, path: Path) -> None:
        """Raise `AlreadyExistsError`: *path* is not to take the place of the result that there is."""
        raise AlreadyExistsError(
            f"{found.id!r} has the result {self.reader.place(found)!r}; to put {str(path)!r} in its place, say "
            "overwrite=True"
        )

    def check_same(self, identity: Identity, other: Identity) -> None:
        """Raise `HashCollisionError` if two parameter sets with one key are not the same run."""
        if different := self.parameters.differences(identity, other.values):
            raise HashCollisionError(
                f"two parameter sets share the key {identity.id!r} and differ in "
                + ", ".join(f"{name} ({one!r}, {two!r})" for name, (one, two) in different.items())
                + ". Nothing was run. Give one of them an id of its own."
            )


def _attach(
    database: Database, model: type[Base], root: Path, marker: Marker, options: dict[str, Any]
) -> ResultTable[Any]:
    return ResultTable.attach(database, model, root, marker, **options)


def _require_held(capacities: Mapping[str, Capacity], path: Path) -> None:
    """Raise `SchemaError` if no row could say where its result is."""
    capacity = capacities.get("result_file")
    reason = None if capacity is None else capacity.refusal(str(path), str(path))
    if reason is not None:
        raise SchemaError(
            f"the path of the results, {str(path.parent)!r}, cannot be in the column result_file: it {reason}; or "
            "choose another results_dir or file_suffix. Nothing was run"
        )


def _dialect(database: Database) -> Dialect:
    return database.url.get_dialect()()  # without an engine: a Store that travels opens nothing
