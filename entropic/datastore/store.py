"""`DataStore`: data of components, found again by what the component is and where its input came from.

The rows say which components there are, what each of them depends on, and what data of theirs are kept: plain values in
the row, arrays in a file that the row makes visible. A file is written whole and synced under a name that was never
used, then its row is committed, then the file that the row had before is removed; what a kill leaves in between a note
tells, and it is cleared away when a store is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from entropic.datastore.components import (
    KeyGenerator,
    State,
    chain_of,
    check_text,
    filter_digests,
    hash_state,
    state_of,
)
from entropic.datastore.contents import ComponentState, DataItem, data_item, state_columns
from entropic.datastore.once import Fence, Once, Task
from entropic.datastore.rows import (
    ComponentRows,
    Data,
    FilesUnnamedError,
    RacedError,
    is_file_name,
    new_file_name,
    new_writing,
)
from entropic.disk.files import sync_folder
from entropic.disk.notes import Note, Notes
from entropic.disk.publish import Part
from entropic.disk.recorded import read_recorded
from entropic.errors import (
    AlreadyExistsError,
    CorruptFileError,
    NotFoundError,
    ResultFileMissingError,
)
from entropic.process.callables import STILL_TO_BE_RUN, returns_later
from entropic.process.logs import get_logger
from entropic.process.patience import LEASE_S, Patience, checked_lease, checked_timeout
from entropic.runs.inside import refuse_memory
from entropic.sql.clock import Clock, database_now
from entropic.sql.columns import ID_LENGTH
from entropic.sql.database import Database, DatabaseLike
from entropic.sql.exchange import Exchange
from entropic.sql.versions import database_uuid, ensure_schema
from entropic.values.payloads import Payload, load_payload, parse_payload, payload_of

__all__ = ["DataStore"]

log = get_logger(__name__)

T = TypeVar("T")

NOTES = ".entropic-components"
SUBJECT = "data"  # of all notes
IF_EXISTS = ("replace", "error", "verify")


class DataStore:
    """Keeps data of components by the names of their attributes.

    A component is any object with `parameters`, a mapping; `input`, the component from which its input comes, several
    in a list, or None; and `version`, that of its source code. Its type is that of its class, unless it has a
    `full_type`. Two components with the same type, version, parameters and inputs have the same data.

    Parameters
    ----------
    database : Database, sqlalchemy.Engine, sqlalchemy.URL, str or None
        Has the rows, and data without arrays. None: ``Options().db_url``.
    root_dir : str or Path
        Of the files; made if need be.
    key_generator : callable
        Returns a text that tells a component's state: `hash_state`, `join_with_underscores`, or one of yours.
    lease_s : float
        How long what is computed stays reserved, in seconds, when its owner falls silent.
    wait_timeout_s : float, optional
        How long to wait for what another process computes, in seconds. Default: as long as it takes.
    clock : callable
        By which data grow old. Default: the database's.

    Raises
    ------
    NotADirectoryError
        If *root_dir* is a file.
    ValueError
        If *lease_s* or *wait_timeout_s* is no such time.
    SchemaError
        If the database has tables of another version of entropic.

    Notes
    -----
    Safe between threads and processes. A reader gets data as they were before or after, whatever is killed when. All
    but `compute_once` can stand inside a block of `Database.transaction`, with which rows are committed, and files
    follow. A database has the data of one folder, wherever that is mounted.
    """

    def __init__(
        self,
        database: DatabaseLike | None,
        root_dir: str | Path,
        key_generator: KeyGenerator = hash_state,
        *,
        lease_s: float = LEASE_S,
        wait_timeout_s: float | None = None,
        clock: Clock = database_now,
    ) -> None:
        if not callable(key_generator):
            raise TypeError(f"a key_generator is a function of a component, not {key_generator!r:.200}")
        lease_s, wait_timeout_s = checked_lease(lease_s), checked_timeout(wait_timeout_s)
        if database is None:
            from entropic.options import Options

            database = Options().db_url
        self.database = Database.of(database)
        if self.database.is_memory:
            refuse_memory(str(self.database.url))
        self.root_dir = _made(Path(root_dir).expanduser().absolute())
        self.key_generator = key_generator
        ensure_schema(self.database, [])
        uuid = database_uuid(self.database)
        self._rows = ComponentRows(self.database.dialect, self.root_dir, clock)
        self._notes = Notes(self.root_dir / NOTES, uuid)
        self._exchange = Exchange(self.database, self._notes, self._rows)
        patience = Patience(limit_s=wait_timeout_s)
        self._once = Once(self.database, self.root_dir, uuid, lease_s=lease_s, patience=patience)
        self._options = {"lease_s": lease_s, "wait_timeout_s": wait_timeout_s, "clock": clock}
        if not self.database.is_in_block:
            self._exchange.recover()
            self._once.recover()

    def __repr__(self) -> str:
        return f"DataStore({self.database!r}, {str(self.root_dir)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.database, self.root_dir, self.key_generator, self._options)

    # Reading

    def retrieve(
        self,
        component: Any,
        attribute: str,
        default: Any = None,
        *,
        strict: bool = False,
        verify: bool = False,
    ) -> Any:
        """Return data of a component, or *default* if there are none. Nothing is written.

        Parameters
        ----------
        strict : bool
            Whether to raise instead.
        verify : bool
            Whether to compare the SHA-256 of a file with what was stored. Its size always is, and the text in a row.

        Raises
        ------
        NotFoundError
            If there are none, with *strict*.
        ResultFileMissingError
            If their file is gone.
        CorruptFileError
            If they are not what was stored.
        HashCollisionError
            If the key is that of another component, too; whatever asks for a component raises that.
        """
        state, name = self._state(component), _attribute(attribute)
        found = self._find(state, name)
        there = None if found is None else self._read(state, found, verify=verify)
        if there is not None:
            return there[0]
        if strict:
            raise NotFoundError(
                f"{state.full_type} has no {name!r} in {self!r}, with these parameters, version and inputs: store it, "
                "or compute it with compute_once"
            )
        return default

    def has(self, component: Any, attribute: str) -> bool:
        """Whether there are data of a component under this name."""
        return self._find(self._state(component), _attribute(attribute)) is not None

    def list_contents(
        self,
        *,
        full_type: str | None = None,
        version: str | float | None = None,
        parameters: Mapping[str, Any] | None = None,
        attribute: str | None = None,
    ) -> list[DataItem]:
        """Return what data there are, sorted by type and version; those that fit all that is given.

        Parameters
        ----------
        parameters : mapping, optional
            Values that these parameters have, be there others or not. Of a parameter that is a dict itself, likewise.
        """
        given = {
            "full_type": full_type,
            "version": None if version is None else str(version),
            "attribute": attribute,
        }
        equal = {name: check_text(value, name) for name, value in given.items() if value is not None}
        digests = filter_digests({} if parameters is None else parameters)
        rows = self.database.read(partial(self._rows.contents, digests=digests, equal=equal))
        return [data_item(row, self.root_dir) for row in rows]

    def ancestors(self, component: Any) -> list[ComponentState]:
        """Return the components on which a component depends, directly or by others, inputs before theirs."""
        return self._lineage(component, is_upwards=True)

    def descendants(self, component: Any) -> list[ComponentState]:
        """Return the components that depend on a component, directly or by others."""
        return self._lineage(component, is_upwards=False)

    def _lineage(self, component: Any, *, is_upwards: bool) -> list[ComponentState]:
        lineage = partial(self._rows.lineage, state=self._state(component), is_upwards=is_upwards)
        return [ComponentState(**state_columns(row)) for row in self.database.read(lineage)]

    def _state(self, component: Any) -> State:
        return state_of(component, self.key_generator)

    def _find(self, state: State, attribute: str) -> Any:
        return self.database.look(partial(self._rows.find, state=state, attribute=attribute))

    def _read(self, state: State, found: Any, *, verify: bool = False) -> tuple[Any] | None:
        """Return the data of a row; None if they are deleted meanwhile."""
        while True:
            if found.payload is not None:
                return (_parsed(found, state),)
            try:
                return (self._load(found, verify),)
            except FileNotFoundError as error:
                former, found = found, self._find(state, found.attribute)
                if found is None:
                    return None
                if found.writing != former.writing:
                    continue  # replaced between the row and the file
                raise ResultFileMissingError(
                    f"{former.attribute!r} of {state.full_type} is recorded, but its file "
                    f"{str(self.root_dir / former.file_name)!r} is gone: mount its folder, restore it, or delete the "
                    "data, so that they are computed again"
                ) from error

    def _load(self, found: Any, verify: bool) -> Any:
        if not is_file_name(found.file_name):
            raise CorruptFileError(f"{found.file_name!r} is no name of a file with data, and is not read")
        return read_recorded(
            self.root_dir / found.file_name,
            found.size_bytes,
            found.sha256,
            load_payload,
            what="data",
            verify=verify,
        )

    # Writing

    def store(self, component: Any, attribute: str, data: Any, *, if_exists: str = "replace") -> None:
        """Store data of a component; when this returns they survive a power cut.

        What the component depends on is recorded with it.

        Parameters
        ----------
        data : object
            Plain values, arrays, and what `entropic.register_codec` was told of, in lists, tuples, sets and dicts.
        if_exists : str
            What becomes of data that are there: ``"replace"``, ``"error"``, or ``"verify"``, which leaves them alone
            and raises if they differ.

        Raises
        ------
        AlreadyExistsError
            If there are some, with ``"error"``; or others, with ``"verify"``.
        TypeError
            If there is something in *data* that would not come back equal. Nothing is stored.
        HashCollisionError
            If the key is that of another component, too.
        ResultsDirUnavailableError
            If the database has data in files, but not in this folder: it is not mounted, or another one.
        """
        if if_exists not in IF_EXISTS:
            raise ValueError(f"if_exists is one of {', '.join(map(repr, IF_EXISTS))}, not {if_exists!r:.100}")
        name = _attribute(attribute)
        chain, payload = chain_of(component, self.key_generator), payload_of(data)
        if if_exists != "verify":
            self._write(chain, name, payload, if_exists=if_exists)
            return
        while True:
            found = self._find(chain[-1], name)
            if found is not None and self._is_same(chain[-1], found, payload):
                return
            try:
                self._write(chain, name, payload, if_exists=if_exists)
            except RacedError:
                continue
            return

    def _is_same(self, state: State, found: Any, payload: Payload) -> bool:
        """Raise `AlreadyExistsError` if a row has other data; return False if they are deleted meanwhile."""
        if found.payload == payload.text:
            return True
        there = self._read(state, found)
        if there is None:
            return False
        if payload_of(there[0]).content() == payload.content():
            return True
        raise AlreadyExistsError(
            f"{state.full_type} has another {found.attribute!r} already, and it was left alone: the same parameters, "
            "version and inputs gave other data. Change the version with the source code; or say if_exists='replace'"
        )

    def _write(
        self,
        chain: Sequence[State],
        attribute: str,
        payload: Payload,
        *,
        if_exists: str = "replace",
        fence: Fence | None = None,
    ) -> None:
        writing, state = new_writing(), chain[-1]
        # Not in a block, which begins with its first statement: nobody is to wait while the file is written.
        found = None if self.database.is_in_block else self._find(state, attribute)
        former = [found.file_name] if found is not None and found.file_name is not None else []
        if payload.is_inline:
            text = payload.text
            data = Data(attribute, writing, "json", text, None, _sha256(text), len(text))
            note = self._note(former)
        else:
            name = new_file_name(state.digest, writing)
            part, note = self._publish(name, payload, former)
            data = Data(attribute, writing, "hdf5", None, name, part.sha256, part.size_bytes)
        self._change(partial(self._rows.put, chain=chain, data=data, if_exists=if_exists, fence=fence), note)

    def _publish(self, name: str, payload: Payload, former: list[str]) -> tuple[Part, Note]:
        """Write a file, and return it with the note that names it and the former one."""
        self._exchange.require_root("data")
        target = self.root_dir / name
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            sync_folder(self.root_dir)
        return self._exchange.write(SUBJECT, target, lambda part: payload.save(str(part.path)), former)

    def _note(self, files: Iterable[str]) -> Note | None:
        named = list(files)
        if named:
            self._exchange.require_root("data")
        return self._notes.write(SUBJECT, named) if named else None

    def _change(self, work: Callable[..., T], note: Note | None = None) -> T:
        """Run ``work(connection, note=note)`` in a transaction; files that have no row afterwards are removed."""
        while True:
            try:
                if note is None:
                    return self.database.write(partial(work, note=None), durable=True, repeatable=True)
                return self._exchange.change(note, partial(work, note=note))
            except FilesUnnamedError as error:
                note = self._note(error.files)

    def delete(self, component: Any, attribute: str | None = None, dependents: bool = False) -> int:
        """Delete data of a component, and return how many; there may be none.

        Parameters
        ----------
        attribute : str, optional
            Which. Default: all that it has.
        dependents : bool
            Whether to delete all data of the components that depend on it, too.
        """
        name = None if attribute is None else _attribute(attribute)
        take = partial(
            self._rows.take, state=self._state(component), attribute=name, with_dependents=dependents
        )
        return self._change(take)

    def prune(
        self, *, max_bytes: float | None = None, older_than: timedelta | float | None = None
    ) -> list[DataItem]:
        """Delete the oldest data, and return what they were, the oldest first.

        Parameters
        ----------
        max_bytes : int, optional
            Of all data together: the newest that fit stay.
        older_than : timedelta or float, optional
            Data that were stored longer ago than this go; in seconds, if it is a number.

        Raises
        ------
        ValueError
            If neither is given, or one is negative or no number.
        """
        age_s = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        given = [one for one in (max_bytes, age_s) if one is not None]
        if not given or not all(map(_is_limit, given)):
            raise ValueError(
                "prune needs max_bytes, older_than, or both, each a number that is not negative: "
                f"max_bytes={max_bytes!r:.100}, older_than={older_than!r:.100}"
            )
        rows = self._change(partial(self._rows.thin_out, max_bytes=max_bytes, older_than_s=age_s))
        return [data_item(row, self.root_dir) for row in rows]

    # Computing

    def compute_once(self, component: Any, attribute: str, fn: Callable[[], T]) -> T:
        """Return data of a component; compute and store them if there are none.

        Parameters
        ----------
        fn : callable
            Called without arguments, by one of any number of processes and threads; the others wait for its data. It
            may ask for those of other components, in this way or another.

        Raises
        ------
        TransactionError
            Inside a block of `Database.transaction`.
        DependencyCycleError
            If what *fn* asks for needs these data.
        ClaimTimeoutError
            If another process computes them for longer than `wait_timeout_s`.
        ClaimLostError
            If this process was silent for longer than its lease, and another took over.
        Exception
            Whatever *fn* raises, as it is, with a note that names the parameters. Nothing is stored then, and whoever
            asks next computes.

        Notes
        -----
        If the process that computes is killed, another takes over, on the same machine at once. Data whose file is gone
        are computed again, with a warning.
        """
        if not callable(fn):
            raise TypeError(f"compute_once needs a function without arguments, not {fn!r:.200}")
        if returns_later(fn):
            raise TypeError(
                f"what {fn!r:.200} returns {STILL_TO_BE_RUN}: give compute_once a plain function, be it one that calls "
                "asyncio.run(...)"
            )
        state, name = self._state(component), _attribute(attribute)
        present: Callable[[], tuple[T] | None] = partial(self._present, state, name, [])
        if (there := present()) is not None:
            return there[0]
        self.database.refuse_block("compute_once", f"compute {name!r} first, then open the block")
        if self.database.is_memory:
            refuse_memory(str(self.database.url))
        self._exchange.require_root("data")
        chain = chain_of(component, self.key_generator)  # before: *fn* may change the component
        # Nor is it to compute for a night what cannot be stored.
        self.database.read(partial(self._rows.refuse_collisions, chain=chain))
        task = Task(_claim_key(state, name), f"{state.full_type.rpartition('.')[2]}.{name}", state.document)

        def commit(data: T, fence: Fence) -> None:
            self._write(chain, name, payload_of(data), fence=fence)

        return self._once.compute(task, present, fn, commit)

    def _present(self, state: State, attribute: str, told: list[str]) -> tuple[Any] | None:
        """Return data, unless there are none or, in a folder that is ours, their file is gone; say that once."""
        found = self._find(state, attribute)
        if found is None:
            return None
        try:
            return self._read(state, found)
        except ResultFileMissingError as error:
            self._exchange.require_root("data")
            if found.writing not in told:
                told.append(found.writing)
                log.warning("computed again: %s", error)
            return None


def _reopened(
    database: Database, root: Path, key_generator: KeyGenerator, options: dict[str, Any]
) -> DataStore:
    return DataStore(database, root, key_generator, **options)


def _made(root: Path) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(
            f"root_dir is where files are kept, and {str(root)!r} exists but is not a directory: give a folder"
        ) from None
    return root


def _is_limit(value: Any) -> bool:
    is_number = not isinstance(value, bool) and isinstance(value, Real)
    return is_number and bool(value >= 0)  # NaN is not


def _attribute(name: Any) -> str:
    return check_text(name, "the name of an attribute")


def _claim_key(state: State, attribute: str) -> str:
    key = f"{state.digest}/{attribute}"
    return key if len(key) <= ID_LENGTH else hashlib.sha256(key.encode()).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _parsed(found: Any, state: State) -> Any:
    if _sha256(found.payload) != found.sha256:
        raise CorruptFileError(
            f"{found.attribute!r} of {state.full_type} is not what was stored: the SHA-256 of the text in its row is "
            f"another one. Restore the database, or store the data again"
        )
    return parse_payload(found.payload)
