"""Configs as rows: one table by kind and name, and one of which runs are made of which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from entropic.config_store.interface import ConfigStore, Write
from entropic.config_store.parts import PARTS, part_name
from entropic.errors import DecodeError
from entropic.sql.database import Database, DatabaseLike
from entropic.sql.tables.configs import ConfigPartRow, ConfigRow
from entropic.sql.upsert import chunks
from entropic.sql.urls import shown
from entropic.sql.versions import ensure_schema
from entropic.values.documents import decode, encode

__all__ = ["SQLConfigStore"]

TRIES = 20  # of processes that store the same names at once
CHUNK = 1000  # names in a statement

_configs: Any = ConfigRow.__table__
_parts: Any = ConfigPartRow.__table__


@dataclass(frozen=True)
class Collection:
    """All configs of a kind: what `ConfigStore.delete_config` takes."""

    database: str
    name: str


class SQLConfigStore(ConfigStore):
    """Keeps configs in a database.

    Parameters
    ----------
    database : Database, sqlalchemy.Engine, sqlalchemy.URL, str or None
        Its tables are made if it has none. None: ``Options().db_url``.

    Raises
    ------
    SchemaError
        If its tables are of another version, or are missing and this user may not make them.

    Notes
    -----
    Names come in the order in which they were stored. Each call is one transaction, and part of the block that it is
    in: a run and its parts are stored together, or not at all. Any number of threads and processes may store the same
    names: what one stored first, the others find. The database itself keeps a part that a stored run is made of.
    """

    def __init__(self, database: DatabaseLike | None) -> None:
        if database is None:
            from entropic.options import Options

            database = Options().db_url
        self.database = Database.of(database)
        ensure_schema(self.database, [])

    def __repr__(self) -> str:
        return f"SQLConfigStore({shown(self.database.url)!r})"

    def _handle(self, collection: str) -> Collection:
        return Collection(shown(self.database.url), collection)

    def _load(self, kind: str, name: str) -> Any:
        query = select(_configs.c.document).where(_configs.c.kind == kind, _configs.c.name == name)
        document = self.database.read(lambda connection: connection.scalar(query))
        return None if document is None else decode(document, _no_array)

    def _names(self, kind: str) -> list[str]:
        query = select(_configs.c.name).where(_configs.c.kind == kind).order_by(_configs.c.id)
        return self.database.read(lambda connection: list(connection.scalars(query)))

    def _runs(self) -> Iterator[tuple[str, Any]]:
        query = select(_configs.c.name, _configs.c.document).where(_configs.c.kind == "run")
        found = self.database.read(lambda connection: connection.execute(query.order_by(_configs.c.id)).all())
        return ((name, decode(document, _no_array)) for name, document in found)

    def _run_names(self, wanted: Mapping[str, set[str]]) -> list[str]:
        # In chunks, as a filter may have more names than a statement takes; so the sets meet here, not in SQL.
        query = select(_configs.c.id, _configs.c.name).join(_parts, _parts.c.run_id == _configs.c.id)

        def work(connection: Connection) -> list[str]:
            found = [
                {
                    run_id: name
                    for chunk in chunks(sorted(names), CHUNK)
                    for run_id, name in connection.execute(
                        query.where(_parts.c.role == part, _parts.c.name.in_(chunk))
                    )
                }
                for part, names in wanted.items()
            ]
            return [found[0][run_id] for run_id in sorted(set.intersection(*map(set, found)))]

        return self.database.read(work)

    def _write(self, writes: Sequence[Write], checked: Callable[[], Sequence[Write]]) -> None:
        if not writes:
            return
        for attempt in range(1, TRIES + 1):
            try:
                self.database.atomically(lambda: self._put(checked()))
            except IntegrityError:  # another process stored one of the names meanwhile: look again
                if attempt == TRIES:
                    raise
            else:
                return

    def _put(self, writes: Sequence[Write]) -> None:
        def work(connection: Connection) -> None:
            for one in writes:
                _put(connection, one)

        self.database.write(work)

    def _remove(self, kind: str, name: str) -> None:
        row = delete(_configs).where(_configs.c.kind == kind, _configs.c.name == name)
        try:
            self.database.write(lambda connection: connection.execute(row), repeatable=True)
        except IntegrityError:  # a run that was stored meanwhile is made of it
            self._refuse_in_use(kind, name, "delete")
            raise


def _put(connection: Connection, write: Write) -> None:
    """Write a config over what there is, and of a run what it is made of."""
    is_named = (_configs.c.kind == write.kind, _configs.c.name == write.name)
    values = {"type": write.document["__type__"], "document": encode(write.document)[0]}
    if write.replaces:
        connection.execute(update(_configs).where(*is_named).values(values))
    else:
        row = {"kind": write.kind, "name": write.name, "created_at": datetime.now(UTC), **values}
        connection.execute(insert(_configs).values(row))
    config_id = connection.scalar(select(_configs.c.id).where(*is_named))
    if write.kind == "run":
        _put_parts(connection, config_id, write.document)
    elif not write.replaces:  # runs may have been stored without it
        alone = (_parts.c.role == write.kind, _parts.c.name == write.name, _parts.c.part_id.is_(None))
        connection.execute(update(_parts).where(*alone).values(part_id=config_id))


def _put_parts(connection: Connection, run_id: int | None, document: Mapping[str, Any]) -> None:
    connection.execute(delete(_parts).where(_parts.c.run_id == run_id))
    names = {part: name for part in PARTS if (name := part_name(document, part)) is not None}
    if not names:
        return
    own = select(_configs.c.id).where(
        _configs.c.kind == bindparam("kind"), _configs.c.name == bindparam("part")
    )
    rows = [{"run_id": run_id, "role": part, "name": name,
             "part_id": connection.scalar(own, {"kind": part, "part": name})}
            for part, name in names.items()]  # fmt: skip
    connection.execute(insert(_parts), rows)


def _no_array(name: str) -> Any:
    raise DecodeError(
        f"the document names an array {name!r}, and configs have none: it was not written by this store"
    )
