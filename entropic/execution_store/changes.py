"""Each change of a key or of a store's metadata, with its event, as part of a transaction that the caller has begun.

All return what the caller asked for and the store's row, which is held: None if there is no such row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, update

from entropic.execution_store import events, rows
from entropic.execution_store.contents import Lifetime
from entropic.execution_store.documents import STORE_KEY
from entropic.execution_store.events import DELETE, KEYS, SET, STORES, Held
from entropic.sql.clock import Clock

__all__ = [
    "Named",
    "add",
    "change",
    "change_held",
    "change_version",
    "create",
    "delete",
    "describe",
    "locked",
    "locked_new",
    "modify",
    "put",
]


class Named(NamedTuple):
    """A store by its name, and the clock by which its keys expire."""

    clock: Clock
    scope: str
    name: str


def put(
    connection: Connection, store: Named, texts: Mapping[str, str], lifetime: Lifetime, read_back: str | None
) -> tuple[Any, Held]:
    """Write values; return the row of the key *read_back*."""
    held = rows.hold_new(connection, *store, count=len(texts))
    new = [rows.new_row(held.id, key, texts[key], held.now) | lifetime.of_new(held.now) for key in texts]
    connection.execute(rows.put(connection.dialect.name, replaces=True), new)
    events.record(connection, held, SET, texts, is_numbered=True)
    return None if read_back is None else rows.locked(connection, held.id, read_back), held


def add(
    connection: Connection, store: Named, key: str, text: str, lifetime: Lifetime
) -> tuple[bool, Held | None]:
    """Write a value if there is none, or one that has expired; return whether it was written."""
    held = rows.hold_new(connection, *store)
    new = rows.new_row(held.id, key, text, held.now) | lifetime.of_new(held.now)
    connection.execute(rows.put(connection.dialect.name, replaces=False), new)
    stored = select(KEYS.c.version).where(KEYS.c.store_id == held.id, KEYS.c.name == key)
    is_written = bool(connection.scalar(stored) == new["version"])
    if is_written:
        events.record(connection, held, SET, [key])
    return is_written, held


def change(
    connection: Connection, store: Named, row: Any, text: str, lifetime: Lifetime
) -> tuple[bool, Held | None]:
    """Write a value over that of *row*, unless that has expired or been written since; return whether it was."""
    held = rows.hold(connection, *store)
    if held is None:
        return False, None
    new = rows.new_value(text, held.now) | lifetime.of_changed(held.now)
    is_written = rows.change(connection, row, new, rows.alive_at(held.now))
    if is_written:
        events.record(connection, held, SET, [row.name])
    return is_written, held


def change_version(
    connection: Connection, store: Named, key: str, version: int, text: str, lifetime: Lifetime
) -> tuple[bool, Held | None]:
    """Write a value over that of a key that is there, and of this version; return whether it was written."""
    row, held = locked(connection, store, key)
    if row is None or held is None or row.version != version:
        return False, held
    rows.change(connection, row, rows.new_value(text, held.now) | lifetime.of_changed(held.now))
    events.record(connection, held, SET, [key])
    return True, held


def change_held(
    connection: Connection, store: Named, row: Any, text: str, lifetime: Lifetime, now: int
) -> tuple[bool, Held | None]:
    """Write a value over that of *row*, whose store this transaction holds since *now*; return whether it was.

    It is not if this transaction has written it itself meanwhile.
    """
    new = rows.new_value(text, now) | lifetime.of_changed(now)
    if not rows.change(connection, row, new):
        return False, None
    # Perhaps not the next one to that at the beginning.
    held = events.number_next(connection, *store, count=1)
    if held is None:
        return False, None
    events.record(connection, held, SET, [row.name], is_numbered=True)
    return True, held


def modify(
    connection: Connection, store: Named, key: str, values: Callable[[int], dict[str, Any]]
) -> tuple[Any, Held | None]:
    """Change policy and expiry of a key that is there; return its row as it is then."""
    row, held = locked(connection, store, key)
    if row is None or held is None:
        return None, held
    rows.change(connection, row, values(held.now))
    events.record(connection, held, SET, [key])
    return rows.locked(connection, held.id, key), held


def locked(connection: Connection, store: Named, key: str) -> tuple[Any, Held | None]:
    """Return the row of a key that is there, and let nobody change it until the transaction ends."""
    held = rows.hold(connection, *store)
    return (None if held is None else _alive(connection, held, key)), held


def locked_new(connection: Connection, store: Named, key: str) -> tuple[Any, Held]:
    """Return the row of a key that is there, and let nobody change or make it until the transaction ends."""
    held = rows.hold_new(connection, *store)
    return _alive(connection, held, key), held


def _alive(connection: Connection, held: Held, key: str) -> Any:
    row = rows.locked(connection, held.id, key)
    return row if row is None or row.expires_us is None or row.expires_us > held.now else None


def delete(connection: Connection, store: Named, key: str) -> tuple[bool, Held | None]:
    """Delete a key; return whether it was there."""
    held = rows.hold(connection, *store)
    if held is None or not rows.delete_key(connection, held, key):
        return False, held
    events.record(connection, held, DELETE, [key])
    return True, held


def create(
    connection: Connection, store: Named, document: str | None, lifetime: Lifetime
) -> tuple[bool, Held]:
    """Create a store; return whether it had not been."""
    held = rows.hold_new(connection, *store)
    policy = lifetime.of_new(held.now)["policy"]
    values = {"is_explicit": True, "document": document, "policy": policy, "created_us": held.now}
    one = update(STORES).where(STORES.c.id == held.id, ~STORES.c.is_explicit)
    is_new = connection.execute(one.values(values)).rowcount == 1
    if is_new:
        events.record(connection, held, SET, [STORE_KEY])
    return is_new, held


def describe(connection: Connection, store: Named, document: str | None) -> tuple[bool, Held | None]:
    """Replace the metadata of a store; return whether it exists."""
    held = rows.hold(connection, *store)
    query = rows.select_stores(store.clock, STORES.c.scope == store.scope, STORES.c.name == store.name)
    row = None if held is None else connection.execute(query).one_or_none()
    if held is None or row is None:
        return False, held
    created = held.now if row.created_us is None else row.created_us
    new = {"is_explicit": True, "document": document, "created_us": created, "updated_us": held.now}
    connection.execute(update(STORES).where(STORES.c.id == held.id).values(new))
    events.record(connection, held, SET, [STORE_KEY])
    return True, held
