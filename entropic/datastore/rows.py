"""The rows of components and of their data: what is read and written in a transaction; no files.

Who stores data holds the rows of the component and of all that it depends on, so that nobody takes them away meanwhile;
who takes some away holds them alone. A row is inserted before it is looked at: two that only looked would both find
nothing. What a component depends on is found by recursion in the database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, and_, delete, func, or_, select, tuple_, update

from entropic.datastore.components import State, collision, parameter_digests
from entropic.datastore.contents import key_column
from entropic.datastore.lineage import ancestor_ids, descendant_ids
from entropic.disk.notes import Note
from entropic.errors import AlreadyExistsError, TransactionError
from entropic.sql.clock import Clock
from entropic.sql.tables.components import (
    ComponentInputRow,
    ComponentParameterRow,
    ComponentStateRow,
    ComponentTypeRow,
    DataFileRow,
    DataItemRow,
)
from entropic.sql.upsert import chunks, insert_new

__all__ = [
    "ComponentRows",
    "Data",
    "FilesUnnamedError",
    "NotOursError",
    "RacedError",
    "is_file_name",
    "new_file_name",
    "new_writing",
]

CHUNK = 500  # keys in a statement
TRIES = 20  # of processes that store and delete one component at once
MOST_BYTES = 2**62  # no database has as many, and every one can say it
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_FILE = re.compile(r"[0-9a-f]{2}/(?:([0-9a-f]{64}-[0-9a-f]{32})|\.entropic-[0-9a-f]{32})\.h5")

_types: Any = ComponentTypeRow.__table__
_states: Any = ComponentStateRow.__table__
_parameters: Any = ComponentParameterRow.__table__
_inputs: Any = ComponentInputRow.__table__
_items: Any = DataItemRow.__table__
_files: Any = DataFileRow.__table__

_STATE = (_types.c.full_type, _types.c.version, _states.c.parameters, _states.c.parameters_url, _states.c.key)
_ITEM = tuple(column for column in _items.c if column.name != "payload")


class FilesUnnamedError(Exception):
    """Files that lose their rows, and that no note names yet."""

    def __init__(self, files: list[str]) -> None:
        super().__init__(files)
        self.files = files


class RacedError(Exception):
    """There are data that another process has stored meanwhile."""


class NotOursError(Exception):
    """The right to store what was computed is not this call's any more."""


class Data(NamedTuple):
    """Data that are to have a row."""

    attribute: str
    writing: str
    codec: str
    payload: str | None
    file_name: str | None
    sha256: str
    size_bytes: int


def new_file_name(digest: str, writing: str) -> str:
    """Return the name of a file that no row had and none will have again."""
    return f"{digest[:2]}/{digest}-{writing}.h5"


def is_file_name(name: str) -> bool:
    """Whether it is the name of a file with data."""
    match = _FILE.fullmatch(name)
    return match is not None and match[1] is not None


@dataclass(frozen=True)
class ComponentRows:
    """The rows of components in one database, for `entropic.sql.exchange.Exchange`.

    Parameters
    ----------
    dialect : str
        As `Database.dialect` says it.
    root : Path
        Where the files are.
    clock : Clock
    """

    dialect: str
    root: Path
    clock: Clock

    def now(self, connection: Connection) -> datetime:
        """Return the time by the clock."""
        return EPOCH + timedelta(microseconds=round((connection.scalar(select(self.clock())) or 0.0) * 1e6))

    # Reading

    def find(self, connection: Connection, state: State, attribute: str) -> Any:
        """Return the row of data; None if there is none.

        Raises
        ------
        HashCollisionError
            If the key is that of another component, be there data or not.
        """
        is_item = and_(_items.c.state_id == _states.c.id, _items.c.attribute == attribute)
        query = select(_states.c.identity, _items).outerjoin_from(_states, _items, is_item)
        found = connection.execute(query.where(_states.c.key_digest == state.digest)).one_or_none()
        if found is not None and found.identity != state.identity:
            raise collision(state)
        return None if found is None or found.writing is None else found

    def contents(self, connection: Connection, digests: set[str], equal: Mapping[str, str]) -> Sequence[Any]:
        """Return the rows of all data, sorted; of components with these parameters, and equal in these columns."""
        query = _joined()
        columns = {
            "full_type": _types.c.full_type,
            "version": _types.c.version,
            "attribute": _items.c.attribute,
        }
        for name, value in equal.items():
            query = query.where(columns[name] == value)
        if digests:
            having = select(_parameters.c.state_id).where(_parameters.c.digest.in_(sorted(digests)))
            having = having.group_by(_parameters.c.state_id).having(func.count() == len(digests))
            query = query.where(_states.c.id.in_(having))
        order = (_types.c.full_type, _types.c.version, _states.c.id, _items.c.attribute)
        return connection.execute(query.order_by(*order)).all()

    def lineage(self, connection: Connection, state: State, *, is_upwards: bool) -> list[Any]:
        """Return the rows of the components that *state* depends on, or that depend on it, the nearest first."""
        own = self._own(connection, state)
        if own is None:
            return []
        ids = ancestor_ids(connection, [own]) if is_upwards else descendant_ids(connection, [own])
        rows: list[Any] = []
        for some in chunks(sorted(ids, reverse=is_upwards), CHUNK):
            query = select(_states.c.id, *_STATE).join_from(_states, _types, _states.c.type_id == _types.c.id)
            found = {row.id: row for row in connection.execute(query.where(_states.c.id.in_(some)))}
            rows += [found[one] for one in some if one in found]
        return rows

    def _own(self, connection: Connection, state: State) -> int | None:
        query = select(_states.c.id, _states.c.identity).where(_states.c.key_digest == state.digest)
        found = connection.execute(query).one_or_none()
        if found is None:
            return None
        if found.identity != state.identity:
            raise collision(state)
        return int(found.id)

    def is_empty(self, connection: Connection) -> bool:
        """Whether no data are in a file."""
        return connection.execute(select(_files.c.name).limit(1)).first() is None

    # Writing

    def put(
        self,
        connection: Connection,
        chain: Sequence[State],
        data: Data,
        *,
        note: Note | None,
        if_exists: str = "replace",
        fence: Callable[[Connection], bool] | None = None,
    ) -> None:
        """Write the row of data, and those of the component and of all that it depends on.

        Parameters
        ----------
        fence : callable, optional
            Uses up the right to write it; False if that is gone.

        Raises
        ------
        AlreadyExistsError
            If there is a row, and *if_exists* is "error".
        RacedError
            If there is a row, and *if_exists* is "verify".
        NotOursError
            If the right is gone, and nothing of this was written before.
        """
        # First: it takes the claim's row, so that a take-over at the same moment waits.
        if fence is not None and not fence(connection):
            found = self.find(connection, chain[-1], data.attribute)
            if found is not None and found.writing == data.writing:  # by a commit whose answer was lost
                return
            raise NotOursError
        state_id = self._register(connection, chain)
        now = self.now(connection)
        if data.file_name is not None:
            connection.execute(insert_new(_files, self.dialect), {"name": data.file_name, "is_whole": True})
        row = {**data._asdict(), "state_id": state_id, "updated_at": now}
        key = and_(_items.c.state_id == state_id, _items.c.attribute == data.attribute)
        query = select(_items.c.writing, _items.c.file_name).where(key).with_for_update()
        found = None
        while found is None:  # again if another process removes it between the two
            connection.execute(insert_new(_items, self.dialect), {**row, "created_at": now})
            found = connection.execute(query).one_or_none()
        if found.writing == data.writing:
            return
        if if_exists == "error":
            raise AlreadyExistsError(
                f"{chain[-1].full_type} has {data.attribute!r} already, and it was left alone: say if_exists='replace' "
                "to replace it, or 'verify' to compare"
            )
        if if_exists == "verify":
            raise RacedError
        former = [] if found.file_name is None else [found.file_name]
        _name_in(note, former)
        connection.execute(update(_items).where(key).values(row))
        connection.execute(delete(_files).where(_files.c.name.in_(former)))

    def _register(self, connection: Connection, chain: Sequence[State]) -> int:
        """Return the number of a component's row; it, and those of all that it depends on, are held from now on."""
        ids = self._hold(connection, chain)
        missing = [state for state in chain if state.digest not in ids]
        return (self._insert(connection, missing, ids) if missing else ids)[chain[-1].digest]

    def refuse_collisions(self, connection: Connection, chain: Sequence[State]) -> None:
        """Raise `HashCollisionError` if the key of one of *chain* is that of another component."""
        self._numbers(connection, chain)

    def _hold(self, connection: Connection, chain: Sequence[State]) -> dict[str, int]:
        return self._numbers(connection, chain, is_held=True)

    def _numbers(
        self, connection: Connection, chain: Sequence[State], *, is_held: bool = False
    ) -> dict[str, int]:
        """Return the numbers of those that have rows, by the digests of their keys."""
        wanted = {state.digest: state for state in chain}
        ids: dict[str, int] = {}
        for some in chunks(sorted(wanted), CHUNK):
            query = select(_states.c.key_digest, _states.c.id, _states.c.identity).order_by(_states.c.id)
            query = query.where(_states.c.key_digest.in_(some))
            for row in connection.execute(query.with_for_update(read=True) if is_held else query):
                if row.identity != wanted[row.key_digest].identity:
                    raise collision(wanted[row.key_digest])
                ids[row.key_digest] = row.id
        return ids

    def _insert(
        self, connection: Connection, missing: Sequence[State], ids: dict[str, int]
    ) -> dict[str, int]:
        """Write the rows of states that there are none of, and return the numbers of all of them."""
        types = self._type_ids(connection, {(state.full_type, state.version) for state in missing})
        now = self.now(connection)
        rows = [
            {
                "type_id": types[state.full_type, state.version],
                "key": key_column(state.key),
                "key_digest": state.digest,
                "identity": state.identity,
                "parameters": state.text,
                "parameters_url": None if state.url is None else key_column(state.url),
                "created_at": now,
            }
            for state in missing  # inputs first: by the number a row comes after all that it depends on
        ]
        made = dict(ids)
        for _ in range(TRIES):
            new = [row for row in rows if row["key_digest"] not in made]
            connection.execute(insert_new(_states, self.dialect), new)
            made |= self._hold(connection, missing)
            if all(state.digest in made for state in missing):
                break
        else:
            raise _gone(missing[-1])
        edges: list[dict[str, Any]] = [
            {"state_id": made[state.digest], "position": place, "input_state_id": made[below.digest]}
            for state in missing
            for place, below in enumerate(state.inputs)
        ]
        digests: list[dict[str, Any]] = [
            {"state_id": made[state.digest], "digest": digest}
            for state in missing
            for digest in sorted(parameter_digests(state.document))
        ]
        for table, new in ((_inputs, edges), (_parameters, digests)):
            for some in chunks(new, CHUNK):
                connection.execute(insert_new(table, self.dialect), some)
        return made

    def _type_ids(self, connection: Connection, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], int]:
        pair = tuple_(_types.c.full_type, _types.c.version)
        ids: dict[tuple[str, str], int] = {}
        for some in chunks(sorted(wanted), CHUNK):
            query = select(_types).where(pair.in_(some))
            found = {(row.full_type, row.version): row.id for row in connection.execute(query)}
            if new := [one for one in some if one not in found]:
                rows = [{"full_type": name, "version": version} for name, version in new]
                connection.execute(insert_new(_types, self.dialect), rows)
                found = {(row.full_type, row.version): row.id for row in connection.execute(query)}
            ids |= found
        return ids

    # Taking away

    def take(
        self,
        connection: Connection,
        state: State,
        attribute: str | None,
        *,
        with_dependents: bool,
        note: Note | None,
    ) -> int:
        """Delete data of a component, and of those that depend on it; return how many."""
        own = self._own(connection, state)
        if own is None:
            return 0
        # By ascending number, as those who store hold them: else each may wait for the other.
        below = descendant_ids(connection, [own]) if with_dependents else set()
        self._lock(connection, {own, *below} | ancestor_ids(connection, [own, *below]))
        others = sorted(below)
        found: list[Any] = []
        for some in chunks([own, *others], CHUNK):
            query = select(_items.c.state_id, _items.c.attribute, _items.c.file_name)
            query = query.where(_items.c.state_id.in_(some)).with_for_update()
            if attribute is not None:
                query = query.where(or_(_items.c.state_id != own, _items.c.attribute == attribute))
            found += connection.execute(query).all()
        self._remove(connection, found, note, also=[own, *others])
        return len(found)

    def thin_out(
        self,
        connection: Connection,
        max_bytes: float | None,
        older_than_s: float | None,
        *,
        note: Note | None,
    ) -> list[Any]:
        """Delete the oldest data: what is older, and what does not fit; return what their rows said."""
        newest_first = (_items.c.updated_at.desc(), _items.c.state_id.desc(), _items.c.attribute.desc())
        total = func.sum(_items.c.size_bytes).over(order_by=newest_first).label("total")
        sums = select(_items.c.state_id, _items.c.attribute, total).subquery()
        is_item = and_(sums.c.state_id == _items.c.state_id, sums.c.attribute == _items.c.attribute)
        conditions = []
        if max_bytes is not None:
            conditions.append(sums.c.total > int(min(max_bytes, MOST_BYTES)))
        if older_than_s is not None:
            now = self.now(connection)
            # Nothing is older than the epoch, and what is before some time no calendar has.
            age_s = min(older_than_s, (now - EPOCH).total_seconds())
            conditions.append(_items.c.updated_at < now - timedelta(seconds=float(age_s)))
        query = _joined().join(sums, is_item).where(or_(*conditions))
        query = query.order_by(_items.c.updated_at, _items.c.state_id, _items.c.attribute)
        doomed = {(row.state_id, row.attribute): row for row in connection.execute(query)}
        states = {row.state_id for row in doomed.values()}
        self._lock(connection, states | ancestor_ids(connection, sorted(states)))
        pair, kept = tuple_(_items.c.state_id, _items.c.attribute), set()
        for some in chunks(doomed, CHUNK):
            again = select(_items.c.state_id, _items.c.attribute, _items.c.writing).where(pair.in_(some))
            for row in connection.execute(again.with_for_update()):
                # Else it was stored anew meanwhile.
                if row.writing == doomed[row.state_id, row.attribute].writing:
                    kept.add((row.state_id, row.attribute))
        gone = [row for one, row in doomed.items() if one in kept]
        self._remove(connection, gone, note)
        return gone

    def _lock(self, connection: Connection, ids: Iterable[int]) -> None:
        for some in chunks(sorted(ids), CHUNK):
            query = select(_states.c.id).where(_states.c.id.in_(some)).order_by(_states.c.id)
            connection.execute(query.with_for_update()).all()

    def _remove(
        self, connection: Connection, found: Sequence[Any], note: Note | None, *, also: Iterable[int] = ()
    ) -> None:
        """Delete rows of data, and those of components that are there for nothing then."""
        names = [row.file_name for row in found if row.file_name is not None]
        _name_in(note, names)
        pair = tuple_(_items.c.state_id, _items.c.attribute)
        for some in chunks([(row.state_id, row.attribute) for row in found], CHUNK):
            connection.execute(delete(_items).where(pair.in_(some)))
        for some_names in chunks(names, CHUNK):
            connection.execute(delete(_files).where(_files.c.name.in_(some_names)))
        self._forget(connection, {*also, *(row.state_id for row in found)})

    def _forget(self, connection: Connection, ids: set[int]) -> None:
        """Delete the components among these, and among those they depend on, without data and dependents."""
        if not ids:
            return
        ids = ids | ancestor_ids(connection, sorted(ids))
        self._lock(connection, ids)
        full: set[int] = set()
        users: dict[int, set[int]] = {one: set() for one in ids}
        inputs: dict[int, set[int]] = {one: set() for one in ids}
        for some in chunks(sorted(ids), CHUNK):
            full.update(
                connection.scalars(select(_items.c.state_id).where(_items.c.state_id.in_(some)).distinct())
            )
            edges = select(_inputs.c.state_id, _inputs.c.input_state_id)
            for row in connection.execute(edges.where(_inputs.c.input_state_id.in_(some))):
                users[row.input_state_id].add(row.state_id)
                inputs.setdefault(row.state_id, set()).add(row.input_state_id)
        free = [one for one in ids if not users[one] and one not in full]
        gone: list[int] = []
        while free:
            gone.append(one := free.pop())
            for below in inputs[one]:
                users[below].discard(one)
                if not users[below] and below not in full:
                    free.append(below)
        for column in (_inputs.c.state_id, _parameters.c.state_id, _states.c.id):
            for some in chunks(sorted(gone), CHUNK):
                connection.execute(delete(column.table).where(column.in_(some)))

    # Files that are exchanged

    def folder(self, subject: str) -> Path:
        """Return where the files are."""
        return self.root

    def is_ours(self, file: str) -> bool:
        """Whether it is the name of a file with data, or of a part of one."""
        return _FILE.fullmatch(file) is not None

    def having(self, connection: Connection, subject: str, files: list[str]) -> set[str]:
        """Return which of *files* rows have."""
        found: set[str] = set()
        for some in chunks(files, CHUNK):
            found.update(connection.scalars(select(_files.c.name).where(_files.c.name.in_(some))))
        return found

    def wait_for_others(self, connection: Connection, subject: str, files: list[str]) -> None:
        """Return when nobody else is writing the rows that have *files*."""
        # An INSERT waits for another transaction that has written its key; nobody sees this row.
        for some in chunks(filter(is_file_name, files), CHUNK):
            rows = [{"name": name, "is_whole": False} for name in some]
            connection.execute(insert_new(_files, self.dialect), rows)
            connection.execute(delete(_files).where(_files.c.name.in_(some), _files.c.is_whole.is_(False)))


def new_writing() -> str:
    """Return what tells one storing from all others."""
    return uuid4().hex


def _gone(state: State) -> TransactionError:
    return TransactionError(
        f"{state.full_type}, or a component that it depends on, is made or deleted by another process, and this "
        "transaction began too early to see it: run it again"
    )


def _joined() -> Any:
    query = select(*_ITEM, *_STATE).join_from(_items, _states, _items.c.state_id == _states.c.id)
    return query.join(_types, _states.c.type_id == _types.c.id)


def _name_in(note: Note | None, files: Iterable[str]) -> None:
    unnamed = [file for file in files if note is None or file not in note.files]
    if not unnamed:
        return
    if note is None:
        raise FilesUnnamedError(unnamed)
    for file in unnamed:
        note.add(file)
