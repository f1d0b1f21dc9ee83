"""Values of single keys read and written by the driver itself: the shortest way there is, on a SQLite file.

SQLAlchemy compiles the statements, once. To run them that way costs several times what they cost SQLite. Whoever asks
here goes the way through SQLAlchemy too if there is no answer: where there is a transaction, a listener or another
clock, no connection yet, or any trouble. That one waits, tries again, and says what is wrong.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert, literal_column, select, update

from entropic.execution_store import rows
from entropic.execution_store.contents import Lifetime
from entropic.execution_store.events import EVENTS, KEYS, SET, STORES, Held
from entropic.sql.clock import Clock, database_now
from entropic.sql.database import Database
from entropic.sql.forks import statements
from entropic.sql.listeners import unheard

__all__ = ["Direct"]

SEEN_S = 1.0  # after which a reader looks again whether the file is there; what is written to one that is not is lost

_KEY_COLUMNS = ("store_id", "name", "policy", "version", "created_us", "updated_us", "expires_us", "value")
_EVENT_COLUMNS = ("store_id", "number", "name", "operation", "at_us")


class _Texts(NamedTuple):
    value: str
    number: str
    key: str
    event: str


class Direct:
    """The short way to a context's keys in a database.

    Notes
    -----
    Safe between threads: each has a connection of its own.
    """

    def __init__(self, database: Database, scope: str, clock: Clock) -> None:
        self._database = database
        self._scope = scope
        self._clock = clock
        self._is_unheard: Callable[[], bool] | None = None
        if clock is database_now and database.dialect == "sqlite" and not database.is_memory:
            engine: Any = database.engine
            is_known = engine.dialect.driver == "pysqlite" and engine.dialect.update_returning
            if is_known and "schema_translate_map" not in engine.get_execution_options():
                self._is_unheard = unheard(engine)
                self._texts = _texts()

    def __reduce__(self) -> Any:
        return Direct, (self._database, self._scope, self._clock)

    def read(self, store_name: str, key: str) -> tuple[str] | None:
        """Return the text of a key that is there; None if it is not, or this is not the way."""
        raw = self._raw(seen_s=SEEN_S)
        if raw is None:
            return None
        try:
            with statements:
                row: tuple[str] | None = raw.execute(
                    self._texts.value, (self._scope, store_name, key)
                ).fetchone()
                return row
        except (raw.Error, UnicodeError):  # that of half a surrogate pair
            return None

    def write(self, store_name: str, key: str, text: str, lifetime: Lifetime) -> Held | None:
        """Write a value and its event, and return the store's row as it is held then; None if nothing is written."""
        raw = self._raw()
        if raw is None:
            return None
        try:
            with statements:
                return self._write(raw, store_name, key, text, lifetime)
        except raw.Error:
            return None

    def _raw(self, *, seen_s: float = 0.0) -> Any:
        """Return the driver's connection, to the file that is there, or was then; None if this is not the way."""
        if self._is_unheard is None or not self._is_unheard():
            return None
        raw = self._database.kept
        is_anew = raw is None or not self._database.keeps_file(seen_s=seen_s)
        if is_anew and not self._database.is_in_block:
            self._database.look(_nothing)  # connects, and keeps the connection
            raw = self._database.kept
        return raw

    def _write(self, raw: Any, store_name: str, key: str, text: str, lifetime: Lifetime) -> Held | None:
        execute, texts = raw.execute, self._texts
        execute("BEGIN IMMEDIATE")
        try:
            found = execute(texts.number, (self._scope, store_name)).fetchall()
            if found:
                ((store_id, number, seconds),) = found
                now = round(seconds * 1e6)
                new = lifetime.of_new(now)
                version = secrets.randbits(62)
                execute(
                    texts.key, (store_id, key, new["policy"], version, now, None, new["expires_us"], text)
                )
                execute(texts.event, (store_id, number, key, SET, now))
            execute("COMMIT")
        except BaseException:
            raw.rollback()
            raise
        return Held(store_id, number - 1, number, now) if found else None


def _nothing(connection: object) -> None:
    pass


@cache
def _texts() -> _Texts:
    value = select(KEYS.c.value).join_from(KEYS, STORES, KEYS.c.store_id == STORES.c.id)
    own = (STORES.c.scope == bindparam("scope"), STORES.c.name == bindparam("store"))
    value = value.where(*own, KEYS.c.name == bindparam("key"), rows.alive(database_now))
    number = update(STORES).where(*own).values(last_event=STORES.c.last_event + literal_column("1"))
    number = number.returning(STORES.c.id, STORES.c.last_event, database_now())
    return _Texts(
        _text(value, ("scope", "store", "key")),
        _text(number, ("scope", "store")),
        _text(rows.put("sqlite", replaces=True), _KEY_COLUMNS),
        _text(insert(EVENTS), _EVENT_COLUMNS),
    )


def _text(statement: Any, names: Sequence[str]) -> str:
    """Return a statement with a place for each of *names*, in their order."""
    from sqlalchemy.dialects.sqlite import pysqlite

    columns = list(names) if statement.is_insert else None
    compiled: Any = statement.compile(dialect=pysqlite.dialect(), column_keys=columns)
    if tuple(compiled.positiontup) != tuple(names):
        raise RuntimeError(
            f"the parameters of the statement are {compiled.positiontup}, not {names}: {compiled}"
        )
    return str(compiled)
