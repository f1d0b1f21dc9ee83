"""The rows of stores and keys, in SQL: what is alive, how it is found, and how it is written.

A key whose time to live is over is as good as absent: in each statement that reads, by the database's clock, and in
each that writes, by the time at which it began. Who writes a key holds its store's row, so that nobody takes that away
meanwhile; who takes it away holds it alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
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
    null,
    or_,
    select,
    update,
)

from entropic.errors import TransactionError
from entropic.execution_store.documents import DeleteCount, KeyPolicy
from entropic.sql.clock import Clock
from entropic.sql.tables.execution import ExecutionKeyRow, ExecutionStoreRow
from entropic.sql.upsert import chunks, insert_new, merge

__all__ = [
    "CHUNK",
    "KEYS",
    "STORES",
    "alive_at",
    "change",
    "clear_cache",
    "delete_key",
    "locked",
    "new_row",
    "new_value",
    "now_us",
    "put",
    "remove",
    "remove_expired",
    "require_store",
    "select_keys",
    "select_stores",
    "store_of",
]

KEYS: Any = ExecutionKeyRow.__table__
STORES: Any = ExecutionStoreRow.__table__
CHUNK = 500  # names or numbers in a statement
TRIES = 20  # of processes that make and delete one store at once

_WRITTEN = ("updated_us", "created_us", "value", "policy", "version", "expires_us")


def now_us(connection: Connection, clock: Clock) -> int:
    """Return the time by *clock*, in microseconds since 1970."""
    return round((connection.scalar(select(clock())) or 0.0) * 1e6)


def new_value(text: str, now: int) -> dict[str, Any]:
    """Return the columns of a value that is written over another one."""
    return {"value": text, "updated_us": now, "version": secrets.randbits(62)}


def new_row(store_id: int, key: str, text: str, now: int) -> dict[str, Any]:
    """Return the row of a new key, but for policy and expiry."""
    return {**new_value(text, now), "store_id": store_id, "name": key, "created_us": now, "updated_us": None}


def alive(clock: Clock) -> ColumnElement[bool]:
    """Return the condition that a key has not expired by now."""
    # The clock's seconds are a fraction: half a microsecond more, and they need not be rounded.
    return or_(KEYS.c.expires_us.is_(None), KEYS.c.expires_us > clock() * 1e6 + 0.5)


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


def store_of(connection: Connection, scope: str, name: str, *, is_exclusive: bool = False) -> int | None:
    """Return the number of a store's row, and hold it until the transaction ends; None if there is none."""
    query = select(STORES.c.id).where(STORES.c.scope == scope, STORES.c.name == name)
    number: int | None = connection.scalar(_held(query, is_exclusive))
    return number


def _held(query: Any, is_exclusive: bool) -> Any:
    return query.with_for_update() if is_exclusive else query.with_for_update(read=True, key_share=True)


def require_store(connection: Connection, scope: str, name: str, *, is_exclusive: bool = False) -> int:
    """Return the number of a store's row, made if there is none, and hold it until the transaction ends."""
    for _ in range(TRIES):
        number = store_of(connection, scope, name, is_exclusive=is_exclusive)
        if number is not None:
            return number
        row = {"scope": scope, "name": name, "is_explicit": False, "policy": KeyPolicy.PERSIST.value}
        connection.execute(insert_new(STORES, connection.dialect.name), row)
    raise TransactionError(
        f"the store {name!r} is made by another process, and this transaction began too early to see it: run it again"
    )


def locked(connection: Connection, store_id: int, key: str) -> Any:
    """Return a key's row, which nobody else changes until the transaction ends; None if there is none."""
    query = select(KEYS).where(KEYS.c.store_id == store_id, KEYS.c.name == key).with_for_update()
    return connection.execute(query).one_or_none()


def delete_key(clock: Clock, scope: str, store_name: str, key: str) -> Any:
    """Return the DELETE of a key that is alive."""
    number = select(STORES.c.id).where(STORES.c.scope == scope, STORES.c.name == store_name)
    return delete(KEYS).where(KEYS.c.store_id == number.scalar_subquery(), KEYS.c.name == key, alive(clock))


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
    found = dict(_explicit(connection, *conditions))
    now, documents, stores, keys = now_us(connection, clock), 0, 0, 0  # after the wait for who writes
    for chunk in chunks(found, CHUNK):
        counts = _counts(connection, chunk, alive_at(now))
        keys += sum(counts.values())
        documents += sum(found[number] for number in chunk)
        stores += sum(found[number] or number in counts for number in chunk)
        connection.execute(delete(KEYS).where(KEYS.c.store_id.in_(chunk)))
        connection.execute(delete(STORES).where(STORES.c.id.in_(chunk)))
    return DeleteCount(documents + keys, stores=stores, keys=keys)


def clear_cache(connection: Connection, clock: Clock, *conditions: Any) -> DeleteCount:
    """Delete what may be evicted, keys and metadata, and the stores of which nothing is left."""
    found = dict(_explicit(connection, *conditions))
    now, documents, stores, keys = now_us(connection, clock), 0, 0, 0  # after the wait for who writes
    may_go = or_(KEYS.c.policy == KeyPolicy.EVICT.value, KEYS.c.expires_us.is_not(None))
    for chunk in chunks(found, CHUNK):
        before = _counts(connection, chunk, alive_at(now))
        keys += sum(_counts(connection, chunk, may_go, alive_at(now)).values())
        connection.execute(delete(KEYS).where(KEYS.c.store_id.in_(chunk), may_go))
        after = _counts(connection, chunk)
        evicted = set(
            connection.scalars(
                select(STORES.c.id).where(
                    STORES.c.id.in_(chunk), STORES.c.is_explicit, STORES.c.policy == KeyPolicy.EVICT.value
                )
            )
        )
        documents += len(evicted)
        implicit = {"is_explicit": False, "document": None, "policy": KeyPolicy.PERSIST.value,
                    "created_us": None, "updated_us": None}  # fmt: skip
        connection.execute(update(STORES).where(STORES.c.id.in_(evicted)).values(implicit))
        left = {number for number in chunk if number in after or (found[number] and number not in evicted)}
        stores += sum((found[number] or number in before) and number not in left for number in chunk)
        connection.execute(delete(STORES).where(STORES.c.id.in_([n for n in chunk if n not in left])))
    return DeleteCount(documents + keys, stores=stores, keys=keys)


def remove_expired(connection: Connection, clock: Clock, *conditions: Any) -> int:
    """Delete the rows of keys that have expired, and of stores that were not created and have none; return how many."""
    now, removed = now_us(connection, clock), 0
    numbers = list(connection.scalars(select(STORES.c.id).where(*conditions).order_by(STORES.c.id)))
    for chunk in chunks(numbers, CHUNK):
        gone = connection.execute(delete(KEYS).where(KEYS.c.expires_us <= now, KEYS.c.store_id.in_(chunk)))
        removed += gone.rowcount
    has_keys = exists(select(literal(1)).select_from(KEYS).where(KEYS.c.store_id == STORES.c.id))
    is_left = (~STORES.c.is_explicit, ~has_keys.correlate(STORES))
    for chunk in chunks(numbers, CHUNK):
        # Held first, looked at once more then: a key may have come meanwhile.
        empty = [number for number, _ in _explicit(connection, STORES.c.id.in_(chunk), *is_left)]
        full = _counts(connection, empty)
        connection.execute(delete(STORES).where(STORES.c.id.in_([n for n in empty if n not in full])))
    return removed


def _explicit(connection: Connection, *conditions: Any) -> Sequence[tuple[int, bool]]:
    """Return the numbers of stores and whether they were created, and hold them alone until the transaction ends."""
    query = select(STORES.c.id, STORES.c.is_explicit).where(*conditions).order_by(STORES.c.id)
    return [(number, is_explicit) for number, is_explicit in connection.execute(_held(query, True))]


def _counts(connection: Connection, store_ids: Sequence[int], *conditions: Any) -> dict[int, int]:
    """Return how many keys each store has, those left out that have none."""
    if not store_ids:
        return {}
    number = func.count(type_=BigInteger)
    query = select(KEYS.c.store_id, number).where(KEYS.c.store_id.in_(store_ids), *conditions)
    return {store: count for store, count in connection.execute(query.group_by(KEYS.c.store_id))}
