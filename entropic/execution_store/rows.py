"""The rows of stores and keys, in SQL: what is alive, how it is found, and how it is written.

A key whose time to live is over is as good as absent: in each statement that reads, by the database's clock, and in
each that writes, by the time at which it began. Who writes a key holds its store's row alone until the transaction
ends: so nobody takes the store away meanwhile, and its changes are numbered as they are committed.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)

from entropic.errors import TransactionError
from entropic.execution_store import events
from entropic.execution_store.documents import DeleteCount, KeyPolicy
from entropic.execution_store.events import EVENTS, KEYS, STORES, Held, Kept, now_us
from entropic.sql.clock import Clock
from entropic.sql.upsert import chunks, insert_new, merge

__all__ = [
    "CHUNK",
    "alive_at",
    "change",
    "clear_cache",
    "delete_key",
    "forget_stores",
    "hold",
    "hold_new",
    "locked",
    "new_row",
    "new_value",
    "put",
    "remove",
    "remove_expired",
    "select_keys",
    "select_stores",
]

CHUNK = 500  # names or numbers in a statement
TRIES = 20  # of processes that make and delete one store at once

NOT_CREATED = {"is_explicit": False, "document": None, "policy": KeyPolicy.PERSIST.value, "created_us": None,
               "updated_us": None}  # fmt: skip
"""The columns of a store that exists by its keys, or not at all."""

_WRITTEN = ("updated_us", "created_us", "value", "policy", "version", "expires_us")


def new_value(text: str, now: int) -> dict[str, Any]:
    """Return the columns of a value that is written over another one."""
    return {"value": text, "updated_us": now, "version": secrets.randbits(62)}


def new_row(store_id: int, key: str, text: str, now: int) -> dict[str, Any]:
    """Return the row of a new key, but for policy and expiry."""
    return {**new_value(text, now), "store_id": store_id, "name": key, "created_us": now, "updated_us": None}


_MILLION: Any = literal_column("1e6")
_HALF: Any = literal_column("0.5")


def alive(clock: Clock) -> ColumnElement[bool]:
    """Return the condition that a key has not expired by now."""
    # The clock's seconds are a fraction: half a microsecond more, and they need not be rounded.
    return or_(KEYS.c.expires_us.is_(None), KEYS.c.expires_us > clock() * _MILLION + _HALF)


def alive_at(now: int) -> ColumnElement[bool]:
    """Return the condition that a key has not expired at a time."""
    return or_(KEYS.c.expires_us.is_(None), KEYS.c.expires_us > now)


def select_keys(clock: Clock, scope: str, store_name: str, *columns: Any) -> Any:
    """Return the query of a store's keys that are alive."""
    return (
        select(*(columns or [KEYS]))
        .join_from(KEYS, STORES, KEYS.c.store_id == STORES.c.id)
        .where(STORES.c.scope == scope, STORES.c.name == store_name, alive(clock))
    )


def select_stores(clock: Clock, *conditions: Any, columns: Sequence[Any] = ()) -> Any:
    """Return the query of the stores that exist, sorted by name and context."""
    own = and_(KEYS.c.store_id == STORES.c.id, alive(clock))
    if not columns:
        first = select(func.min(KEYS.c.created_us)).where(own).scalar_subquery()
        columns = [STORES, first.label("first_us")]
    has_keys = exists(select(literal(1)).select_from(KEYS).where(own).correlate(STORES))
    return (
        select(*columns)
        .select_from(STORES)
        .where(or_(STORES.c.is_explicit, has_keys), *conditions)
        .order_by(STORES.c.name, STORES.c.scope)
    )


def hold(connection: Connection, clock: Clock, scope: str, name: str) -> Held | None:
    """Hold a store's row until the transaction ends; None if there is none."""
    query = select(STORES.c.id, STORES.c.last_event).where(STORES.c.scope == scope, STORES.c.name == name)
    row = connection.execute(_alone(query)).one_or_none()
    if row is None:
        return None
    return Held(row.id, row.last_event, row.last_event, now_us(connection, clock))  # after the wait


def _alone(query: Any) -> Any:
    return query.with_for_update(key_share=True)


def hold_new(connection: Connection, clock: Clock, scope: str, name: str, count: int = 0) -> Held:
    """Hold a store's row, made if there is none, and take the next *count* numbers of its events."""
    for _ in range(TRIES):
        if count:
            held = events.number_next(connection, clock, scope, name, count)
        else:
            held = hold(connection, clock, scope, name)
        if held is not None:
            return held
        row = {"scope": scope, "name": name, **NOT_CREATED, "epoch": events.new_epoch(), "last_event": 0}
        connection.execute(insert_new(STORES, connection.dialect.name), row)
    raise TransactionError(
        f"the store {name!r} is made by another process, and this transaction began too early to see it: run it again"
    )


def locked(connection: Connection, store_id: int, key: str) -> Any:
    """Return a key's row, which nobody else changes until the transaction ends; None if there is none."""
    query = select(KEYS).where(KEYS.c.store_id == store_id, KEYS.c.name == key).with_for_update()
    return connection.execute(query).one_or_none()


def delete_key(connection: Connection, held: Held, key: str) -> bool:
    """Delete a key that is alive; return whether there was one."""
    one = (KEYS.c.store_id == held.id, KEYS.c.name == key, alive_at(held.now))
    return connection.execute(delete(KEYS).where(*one)).rowcount == 1


def change(connection: Connection, row: Any, values: Mapping[str, Any], *conditions: Any) -> bool:
    """Change the key of *row*, unless its value has been written since; return whether it was changed."""
    if not values:
        return True
    one = (KEYS.c.store_id == row.store_id, KEYS.c.name == row.name, KEYS.c.version == row.version)
    return connection.execute(update(KEYS).where(*one, *conditions).values(values)).rowcount == 1


def put(dialect: str, *, replaces: bool) -> Any:
    """Return the INSERT of a key, over one that has expired; with *replaces* over one that is alive, too."""

    def written(new: Any) -> list[tuple[str, Any]]:
        # A new row was created now. The expiry last: by it MySQL decides about those before.
        is_gone = KEYS.c.expires_us <= new.created_us
        if not replaces:
            return [(name, case((is_gone, new[name]), else_=KEYS.c[name])) for name in _WRITTEN]
        return [
            ("updated_us", case((is_gone, null()), else_=new.created_us)),
            ("created_us", case((is_gone, new.created_us), else_=KEYS.c.created_us)),
            *((name, new[name]) for name in _WRITTEN[2:]),
        ]

    return merge(KEYS, dialect, written)


def remove(connection: Connection, clock: Clock, *conditions: Any) -> DeleteCount:
    """Delete stores with all that is in them."""
    return _delete(connection, clock, true(), STORES.c.is_explicit, conditions)


def clear_cache(connection: Connection, clock: Clock, *conditions: Any) -> DeleteCount:
    """Delete what may be evicted, keys and metadata."""
    evicted = KeyPolicy.EVICT.value
    may_go = or_(KEYS.c.policy == evicted, KEYS.c.expires_us.is_not(None))
    return _delete(
        connection, clock, may_go, and_(STORES.c.is_explicit, STORES.c.policy == evicted), conditions
    )


def _delete(
    connection: Connection, clock: Clock, going: Any, document_goes: Any, conditions: Collection[Any]
) -> DeleteCount:
    """Delete keys and metadata of stores; of those of which nothing is left the rows stay, as their events do."""
    query = select(STORES.c.id, STORES.c.is_explicit, document_goes.label("goes")).where(*conditions)
    found = {row.id: row for row in connection.execute(_alone(query.order_by(STORES.c.id)))}
    now, documents, stores, keys = now_us(connection, clock), 0, 0, 0  # after the wait for who writes
    for chunk in chunks(found, CHUNK):
        before = _counts(connection, chunk, alive_at(now))
        events.record_removal(connection, chunk, going, now)
        connection.execute(delete(KEYS).where(KEYS.c.store_id.in_(chunk), going))
        after = _counts(connection, chunk, alive_at(now))
        without = [number for number in chunk if found[number].goes]
        events.record_documents(connection, without, now)
        connection.execute(update(STORES).where(STORES.c.id.in_(without)).values(NOT_CREATED))
        keys += sum(before.values()) - sum(after.values())
        documents += len(without)
        existed = {number for number in chunk if found[number].is_explicit or number in before}
        exist = {n for n in chunk if n in after or (found[n].is_explicit and not found[n].goes)}
        stores += len(existed - exist)
    return DeleteCount(documents + keys, stores=stores, keys=keys)


def remove_expired(connection: Connection, clock: Clock, *conditions: Any) -> int:
    """Delete the rows of keys that have expired; return how many."""
    begun, removed = now_us(connection, clock), 0
    is_over = exists(
        select(literal(1)).select_from(KEYS).where(KEYS.c.store_id == STORES.c.id, _is_over(begun))
    )
    query = select(STORES.c.id).where(*conditions, is_over.correlate(STORES)).order_by(STORES.c.id)
    numbers = list(connection.scalars(_alone(query)))
    now = now_us(connection, clock)
    for chunk in chunks(numbers, CHUNK):
        events.record_removal(connection, chunk, _is_over(now), now)
        gone = connection.execute(delete(KEYS).where(_is_over(now), KEYS.c.store_id.in_(chunk)))
        removed += gone.rowcount
    return removed


def _is_over(now: int) -> Any:
    return KEYS.c.expires_us <= now


def forget_stores(connection: Connection, clock: Clock, kept: Kept) -> None:
    """Delete the rows of stores that do not exist and of which all events are old; in all contexts."""
    has_keys = exists(select(literal(1)).select_from(KEYS).where(KEYS.c.store_id == STORES.c.id))
    oldest = now_us(connection, clock) - kept.age_us
    is_left = (~STORES.c.is_explicit, ~has_keys.correlate(STORES), events.is_forgotten(oldest))
    query = select(STORES.c.id).where(*is_left).order_by(STORES.c.id)
    numbers = list(connection.scalars(query.limit(CHUNK)))
    if not numbers:
        return
    # Held first, looked at once more then: a key may have come meanwhile.
    own = STORES.c.id.in_(numbers)
    connection.execute(_alone(select(STORES.c.id).where(own).order_by(STORES.c.id))).all()
    still = list(connection.scalars(query.where(own)))
    connection.execute(delete(EVENTS).where(EVENTS.c.store_id.in_(still)))
    connection.execute(delete(STORES).where(STORES.c.id.in_(still)))


def _counts(connection: Connection, store_ids: Sequence[int], *conditions: Any) -> dict[int, int]:
    """Return how many keys each store has, those left out that have none."""
    if not store_ids:
        return {}
    number = func.count(type_=BigInteger)
    query = select(KEYS.c.store_id, number).where(KEYS.c.store_id.in_(store_ids), *conditions)
    return {store: count for store, count in connection.execute(query.group_by(KEYS.c.store_id))}
