"""What changed in stores: events in SQL, and what a subscriber is told of one.

Who changes a store holds its row until the transaction ends, and takes the next number of its counter for each change.
So the events of a store are numbered without a gap in the order in which they are committed, and whoever has seen one
number has seen all below it. A gap is what was forgotten, because it was old or there were too many.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, case, delete, func, insert, literal, select, update

from entropic.execution_store.arguments import EPOCH
from entropic.execution_store.documents import STORE_KEY
from entropic.sql.clock import Clock
from entropic.sql.listening import notice
from entropic.sql.tables.execution import ExecutionEventRow, ExecutionKeyRow, ExecutionStoreRow

__all__ = [
    "BATCH",
    "CHANNEL",
    "DELETE",
    "EVENTS",
    "EXPIRE",
    "SET",
    "Change",
    "Held",
    "Kept",
    "Place",
    "forget",
    "here",
    "is_forgotten",
    "new_epoch",
    "now_us",
    "number_next",
    "read",
    "record",
    "record_documents",
    "record_removal",
]

EVENTS: Any = ExecutionEventRow.__table__
KEYS: Any = ExecutionKeyRow.__table__
STORES: Any = ExecutionStoreRow.__table__

CHANNEL = "entropic_execution"  # of NOTIFY
BATCH = 500  # events that are read at once
SET, DELETE, EXPIRE, MISSED = "set", "delete", "expire", "missed"


class Place(NamedTuple):
    """How far somebody has seen the changes of a store.

    Attributes
    ----------
    epoch : int
        Which counter; 0 before the store had one.
    number : int
        Of the last event that was seen.
    at_us : int
        A time at which nothing earlier was unseen.
    """

    epoch: int
    number: int
    at_us: int

    @property
    def text(self) -> str:
        """The place as callers keep it."""
        return "-".join(f"{part:x}" for part in self)

    @classmethod
    def of(cls, text: Any) -> Place:
        """Return the place that a caller kept.

        Raises
        ------
        ValueError
            If it is none.
        """
        try:
            epoch, number, at_us = (int(part, 16) for part in text.split("-"))
        except (ValueError, AttributeError):
            raise ValueError(
                f"a place is what a change has as its place, or what place() returns, not {text!r:.100}"
            ) from None
        return cls(epoch, number, at_us)


@dataclass(frozen=True)
class Change:
    """What a subscriber is told: that a key was changed, but not to what, as it may have changed again.

    Attributes
    ----------
    operation : {"set", "delete", "expire", "missed"}
        ``"set"`` is any writing: of a value, a time to live, a policy, or of metadata. A key is told to ``"expire"``
        when its place is freed, which nobody waits for: it was invisible before.
    key : str or None
        ``"__store__"`` for the store itself; ``None`` if changes were missed.
    place : str
        Where to go on after this change.
    missed : bool
        Whether this tells that there were changes that are forgotten now: read again what the store holds.
    """

    store_name: str
    key: str | None
    operation: str
    dataset_id: str | None
    at: datetime
    place: str
    missed: bool = False


@dataclass(frozen=True)
class Kept:
    """For how long, and how many events of a store are kept at most."""

    age_us: int
    count: int


@dataclass(slots=True)
class Held:
    """The row of a store that this transaction holds.

    Attributes
    ----------
    first_event, last_event : int
        How many events there had been, and how many there are.
    now : int
        The time, after the wait for the row.
    """

    id: int
    first_event: int
    last_event: int
    now: int

    def crosses(self, step: int) -> bool:
        """Whether a multiple of *step* is among the new events' numbers."""
        return self.last_event // step != self.first_event // step


def now_us(connection: Connection, clock: Clock) -> int:
    """Return the time by *clock*, in microseconds since 1970."""
    return round((connection.scalar(select(clock())) or 0.0) * 1e6)


def number_next(connection: Connection, clock: Clock, scope: str, name: str, count: int) -> Held | None:
    """Take the next *count* numbers of a store, and hold its row until the transaction ends; None if there is none."""
    one = (STORES.c.scope == scope, STORES.c.name == name)
    columns = (STORES.c.id, STORES.c.last_event, clock().label("now"))
    query = update(STORES).where(*one).values(last_event=STORES.c.last_event + count)
    if connection.dialect.update_returning:
        row = connection.execute(query.returning(*columns, *notice(connection, CHANNEL))).one_or_none()
    else:
        connection.execute(query)
        row = connection.execute(select(*columns).where(*one)).one_or_none()
    return None if row is None else Held(row.id, row.last_event - count, row.last_event, round(row.now * 1e6))


def record(
    connection: Connection, held: Held, operation: str, names: Collection[str], *, is_numbered: bool = False
) -> None:
    """Write an event for each of *names*; with *is_numbered* their numbers have been taken."""
    if not is_numbered:
        held.last_event += len(names)
        query = update(STORES).where(STORES.c.id == held.id).values(last_event=held.last_event)
        _tell(connection, query)
    first = held.last_event - len(names) + 1
    rows = [
        {"store_id": held.id, "number": number, "name": name, "operation": operation, "at_us": held.now}
        for number, name in enumerate(names, first)
    ]
    connection.execute(insert(EVENTS), rows)


def record_removal(connection: Connection, stores: Sequence[int], going: Any, now: int) -> None:
    """Write the events of all keys of *stores* for which *going* holds, as they are about to be deleted."""
    is_gone = KEYS.c.expires_us <= now
    number = STORES.c.last_event + func.row_number().over(partition_by=KEYS.c.store_id, order_by=KEYS.c.name)
    which = and_(KEYS.c.store_id.in_(stores), going)
    found = (
        select(KEYS.c.store_id, number, KEYS.c.name, case((is_gone, EXPIRE), else_=DELETE), literal(now))
        .join_from(KEYS, STORES, KEYS.c.store_id == STORES.c.id)
        .where(which)
    )
    connection.execute(insert(EVENTS).from_select(_columns(), found))
    count = select(func.count()).select_from(KEYS).where(KEYS.c.store_id == STORES.c.id, going)
    more = STORES.c.last_event + count.correlate(STORES).scalar_subquery()
    _tell(connection, update(STORES).where(STORES.c.id.in_(stores)).values(last_event=more))


def record_documents(connection: Connection, stores: Sequence[int], now: int) -> None:
    """Write the events of *stores* of which the metadata are about to be deleted."""
    if not stores:
        return
    found = select(
        STORES.c.id, STORES.c.last_event + 1, literal(STORE_KEY), literal(DELETE), literal(now)
    ).where(STORES.c.id.in_(stores))
    connection.execute(insert(EVENTS).from_select(_columns(), found))
    more = {"last_event": STORES.c.last_event + 1}
    _tell(connection, update(STORES).where(STORES.c.id.in_(stores)).values(more))


def _columns() -> list[str]:
    return ["store_id", "number", "name", "operation", "at_us"]


def _tell(connection: Connection, query: Any) -> None:
    """Count events, and let those know who listen."""
    told = notice(connection, CHANNEL)
    connection.execute(query.returning(*told) if told else query)


def forget(connection: Connection, clock: Clock, kept: Kept, *conditions: Any) -> None:
    """Delete the oldest events of stores: those that are too old, and those that are too many."""
    oldest = now_us(connection, clock) - kept.age_us
    for number, last in connection.execute(select(STORES.c.id, STORES.c.last_event).where(*conditions)).all():
        # Always the first ones: those of a store may not have a gap. The clock may have been set meanwhile.
        young = select(EVENTS.c.number).where(EVENTS.c.store_id == number, EVENTS.c.at_us > oldest)
        first = connection.scalar(young.order_by(EVENTS.c.number).limit(1))
        end = max(last - kept.count, last if first is None else first - 1)
        connection.execute(delete(EVENTS).where(EVENTS.c.store_id == number, EVENTS.c.number <= end))


def is_forgotten(oldest: int) -> Any:
    """Return the condition that a store's last event is older than a time."""
    young = select(EVENTS.c.number).where(
        EVENTS.c.store_id == STORES.c.id, EVENTS.c.number == STORES.c.last_event, EVENTS.c.at_us > oldest
    )
    return ~young.correlate(STORES).exists()


def new_epoch() -> int:
    """Return a number that no counter has had."""
    return 1 + secrets.randbits(62)


def here(connection: Connection, clock: Clock, scope: str, name: str) -> Place:
    """Return the place after the last change of a store."""
    now = now_us(connection, clock)  # before: what is committed between the two is seen, and later than that
    query = select(STORES.c.epoch, STORES.c.last_event).where(STORES.c.scope == scope, STORES.c.name == name)
    row = connection.execute(query).one_or_none()
    return Place(0, 0, now) if row is None else Place(row.epoch, row.last_event, now)


def read(
    connection: Connection, clock: Clock, scope: str, name: str, place: Place, age_us: int
) -> tuple[Place, list[Change]]:
    """Return what changed in a store after *place*, `BATCH` changes at most, and the place after them.

    Parameters
    ----------
    age_us : int
        For how long events are kept. The row of a store goes with the last of them: if the place is younger, that was
        seen, whatever has become of the row.
    """
    now = now_us(connection, clock)  # before: what is committed meanwhile may not count as seen
    found = _after(connection, scope, name, place.number)
    epoch, last = (found[0].epoch, found[0].last_event) if found else (0, 0)
    is_missed = False
    if epoch != place.epoch:
        is_missed = now_us(connection, clock) - place.at_us >= age_us  # after: it may have gone meanwhile
        place = Place(epoch, 0, now)
        found = _after(connection, scope, name, 0)
        if (found[0].epoch if found else 0) != epoch:  # the next look will tell the rest
            return place, [_missed(scope, name, place)] if is_missed else []
        last = found[0].last_event if found else 0
    rows = [row for row in found if row.number is not None]
    before = rows[0].number - 1 if rows else last
    is_missed = is_missed or before != place.number
    changes = [_missed(scope, name, Place(epoch, before, now))] if is_missed else []
    for row in rows:
        place = Place(epoch, row.number, row.at_us)
        changes.append(Change(name, row.name, row.operation, scope or None, _time(row.at_us), place.text))
    number = rows[-1].number if rows else before
    return Place(epoch, number, now if number == last else place.at_us), changes


def _after(connection: Connection, scope: str, name: str, number: int) -> Sequence[Any]:
    """Return a store's row with each of the next events, or with none; in one statement, and so as of one moment."""
    on = and_(EVENTS.c.store_id == STORES.c.id, EVENTS.c.number > number)
    query = (
        select(STORES.c.epoch, STORES.c.last_event, EVENTS.c.number, EVENTS.c.name, EVENTS.c.operation, EVENTS.c.at_us)
        .select_from(STORES.outerjoin(EVENTS, on))
        .where(STORES.c.scope == scope, STORES.c.name == name)
        .order_by(EVENTS.c.number)
        .limit(BATCH)
    )  # fmt: skip
    return connection.execute(query).all()


def _missed(scope: str, name: str, place: Place) -> Change:
    return Change(name, None, MISSED, scope or None, _time(place.at_us), place.text, missed=True)


def _time(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)
