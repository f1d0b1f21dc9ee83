"""Who is computing what: the exclusive right to run and commit a key, with a lease by the database's clock.

A claim is acquired by one conditional INSERT, and taken over by one conditional UPDATE, each in a transaction of its
own: looking first and writing later would let two win. Each claim has a token that is never used again; a commit
deletes the claim with that token, and if nothing is deleted the claim was lost and nothing is published. The protocol
is that of leases with fencing tokens (C. Gray and D. Cheriton, "Leases", SOSP 1989; M. Kleppmann, "How to do
distributed locking", 2016).

A clock that is set takes nothing away, and keeps nothing: that a lease is over counts only of a claim that was watched
for a third of a lease, by this process's own clock, and did not change. An owner that lives changes it six times in a
lease. A claim that does not change for a whole lease is over whatever the database's clock says. The lease is the
owner's, which its token tells: those who work on a table need not have the same.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from secrets import token_hex
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Double,
    bindparam,
    delete,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from entropic.leases import held
from entropic.printable import one_line
from entropic.process.identity import Process, this_process
from entropic.process.logs import get_logger
from entropic.sql.clock import Clock, database_now
from entropic.sql.database import Database
from entropic.sql.prepared import PreparedInsert, PreparedQuery
from entropic.sql.tables import ClaimRow
from entropic.sql.upsert import chunks, insert_new

__all__ = ["CHUNK", "Claims", "Grant", "Holder"]

log = get_logger(__name__)

CHUNK = 500  # keys per statement
WATCHED = 1 / 3  # of a lease, for which a claim must not have changed before the end of its lease counts

_claims: Any = ClaimRow.__table__


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a key."""

    record_id: str
    process: Process
    token: str
    acquired_at: float
    expires_at: float
    left_s: float
    """Seconds until the lease is over by the database's clock; negative when it is."""
    is_silent: bool
    """Whether the lease is over, and that counts."""

    @property
    def held_s(self) -> float:
        """For how long it has been held, by the database's clock."""
        return self.expires_at - self.left_s - self.acquired_at

    def is_gone(self) -> bool:
        """Whether the key may be taken over: the lease is over, or its owner has surely ended."""
        return self.is_silent or self.process.is_dead() or self.is_forgotten()

    def is_forgotten(self) -> bool:
        """Whether the claim is this process's own, and nobody in it will give it back: a clean-up failed."""
        return self.process.owner == this_process().owner and not held.is_known(self.token)

    def is_abandoned(self) -> bool:
        """Whether nobody will give the claim back: its owner has ended or, where that cannot be seen, is silent."""
        is_alive = self.process.is_alive()
        return self.is_silent if is_alive is None else not is_alive

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.acquired_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"process {self.process.pid} on {one_line(self.process.host)}, since {since}"


class Grant(NamedTuple):
    """A claim that was acquired."""

    token: str
    former: Holder | None = None
    """From whom it was taken over: that one may have left a finished run."""


_is_token = re.compile(r"[0-9a-f]{12}8[0-9a-f]{19}\Z").match
_LEASE_DIGITS = 8


def _lease_of(token: str) -> float | None:
    """Return the lease that a token tells."""
    return int(token[-_LEASE_DIGITS:], 16) / 1000 if _is_token(token) else None


class _Row(NamedTuple):
    """A claim as `Claims` selects it: the columns of `ClaimRow` in their order, and what is left of the lease."""

    table_name: str
    record_id: str
    owner: str
    token: str
    host: str
    boot: str
    pid: int
    started: str
    acquired_at: float
    expires_at: float
    left_s: float


class _Seen(NamedTuple):
    """How a claim was found, and by which time of our own: first so, and last at all."""

    token: str
    expires_at: float
    since: float
    last: float
    lease_s: float


class Claims:
    """The claims on the keys of one table.

    Parameters
    ----------
    lease_s : float
        How long a claim holds, in seconds, unless extended: one that is made here.
    clock : Clock
        By which a lease is counted.
    watch : callable
        Seconds that nobody sets, by which the claims of others are watched.

    Notes
    -----
    Safe between threads and processes. What the database says counts; kept in memory is only what it could not be
    told, and since when the claims of others have not changed.
    """

    def __init__(
        self,
        database: Database,
        table_name: str,
        *,
        lease_s: float,
        clock: Clock = database_now,
        watch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._now = clock
        self._table = table_name
        self.lease_s = lease_s
        self._watch = watch
        self._unreleased: set[tuple[str, str]] = set()  # given up while that could not be written
        self._watched: dict[str, _Seen] = {}  # claims of whoever
        self._forget_at = 2 * CHUNK  # so many of them
        # Built once: SQLAlchemy takes longer to build a statement than SQLite to run it.
        is_table = _claims.c.table_name == table_name
        is_key = _claims.c.record_id.in_(bindparam("keys", expanding=True))
        left_s = (_claims.c.expires_at - clock()).label("left_s")
        self._select_holders = PreparedQuery(select(_claims, left_s).where(is_table, is_key))
        self._select_won = PreparedQuery(
            select(_claims.c.token).where(is_table, is_key, _claims.c.owner == bindparam("owner"))
        )
        pair = tuple_(_claims.c.record_id, _claims.c.token)
        is_pair = pair.in_(bindparam("keys", expanding=True))
        self._delete_pairs = PreparedQuery(delete(_claims).where(is_table, is_pair), width=2)
        self._insert_free = PreparedInsert(self._insertion())

    def new_token(self) -> str:
        """Return a token that was never used: a UUID of version 8, which ends in the lease in milliseconds."""
        unique, lease_ms = token_hex(16), min(math.ceil(self.lease_s * 1000), 16**_LEASE_DIGITS - 1)
        version, lease = (
            (8, f"{lease_ms:0{_LEASE_DIGITS}x}") if lease_ms > 0 else (4, unique[-_LEASE_DIGITS:])
        )
        return f"{unique[:12]}{version}{unique[13:16]}8{unique[17:-_LEASE_DIGITS]}{lease}"

    def acquire(self, keys: Iterable[str], tokens: Mapping[str, str] | None = None) -> dict[str, Grant]:
        """Claim what is free of *keys*, or was left by an owner that is gone; return what was granted.

        Parameters
        ----------
        tokens : mapping, optional
            A new token for each key. A caller that may be interrupted in here makes them itself, so that it can give
            back what it was granted without having been told, and sees to it that they are known as held here.
        """
        self.release(())  # what could not be before: or this process would wait for itself
        grants: dict[str, Grant] = {}
        if not tokens:
            tokens = {key: self.new_token() for key in keys}
            held.know(tokens.values())
        # Sorted, so that two processes that want the same keys lock them in one order and never deadlock.
        for chunk in chunks(sorted(set(keys)), CHUNK):
            # Looking first sizes the work, and keeps losers from InnoDB's shared lock on the duplicate.
            holders = self.holders(chunk)
            won = self._insert({key: tokens[key] for key in chunk if key not in holders})
            grants |= {key: Grant(tokens[key]) for key in won}
            for key, holder in holders.items():
                if holder.is_gone() and self._take_over(key, holder, tokens[key]):
                    grants[key] = Grant(tokens[key], holder)
        if taken := {key: grant.former for key, grant in grants.items() if grant.former}:
            first, *others = taken
            more = f" and {len(others)} more" if others else ""
            log.warning("took over %s%s from %s", first, more, taken[first])
        return grants

    def holders(self, keys: Sequence[str]) -> dict[str, Holder]:
        """Return who holds which of *keys*."""
        found: dict[str, Holder] = {}
        for chunk in chunks(keys, CHUNK):
            for row in self._database.look(partial(self._fetch_holders, keys=chunk)):
                found[row.record_id] = self._holder(row)
        return found

    def _holder(self, row: _Row) -> Holder:
        """Return who holds a key, and note since when its claim has been as it is."""
        now = self._watch()
        seen = self._watched.get(row.record_id)
        is_same = seen is not None and (seen.token, seen.expires_at) == (row.token, row.expires_at)
        since = seen.since if seen is not None and is_same else now
        owners = _lease_of(row.token)
        lease_s = max(self.lease_s, 0) if owners is None else owners
        self._watched[row.record_id] = _Seen(row.token, row.expires_at, since, now, lease_s)
        if len(self._watched) > self._forget_at:
            watched = self._watched.copy()
            self._watched = {key: seen for key, seen in watched.items() if seen.last >= now - seen.lease_s}
            self._forget_at = 2 * (len(self._watched) + CHUNK)
        needed_s = lease_s * (WATCHED if row.left_s <= 0 else 1)
        return Holder(
            record_id=row.record_id,
            process=Process(row.owner, row.host, row.boot, row.pid, row.started),
            token=row.token,
            acquired_at=row.acquired_at,
            expires_at=row.expires_at,
            left_s=row.left_s,
            is_silent=now - since >= needed_s,
        )

    def _fetch_holders(self, connection: Connection, keys: Sequence[str]) -> list[_Row]:
        return [_Row._make(row) for row in self._select_holders.rows(connection, keys)]

    def abandoned(self) -> list[Holder]:
        """Return the claims on this table that nobody will give back."""
        statement = select(_claims.c.record_id).where(_claims.c.table_name == self._table)
        keys = self._database.read(lambda connection: connection.scalars(statement).all())
        return [holder for holder in self.holders(keys).values() if holder.is_abandoned()]

    def has_others(self) -> bool:
        """Whether another process holds a claim on this table, be it alive or not."""
        statement = (
            select(_claims.c.owner)
            .where(_claims.c.table_name == self._table, _claims.c.owner != this_process().owner)
            .limit(1)
        )
        return self._database.read(lambda connection: connection.scalar(statement)) is not None

    def has_live(self, owners: Iterable[str]) -> bool:
        """Whether any of these processes holds a claim on this table whose lease is not over, as far as that counts."""
        statement = select(_claims.c.record_id).where(
            _claims.c.table_name == self._table, _claims.c.owner.in_(list(owners))
        )
        keys = self._database.read(lambda connection: connection.scalars(statement).all())
        return any(not holder.is_silent for holder in self.holders(keys).values())

    def _insert(self, tokens: Mapping[str, str]) -> list[str]:
        if not tokens:
            return []
        process = this_process().as_dict()
        common = {"table_name": self._table, "lease_s": self.lease_s, **process}
        rows = [{"record_id": key, "token": token, **common} for key, token in tokens.items()]

        def work(connection: Connection) -> set[str]:
            self._insert_free(connection, rows)
            # Not rowcount: drivers disagree on what it means for an INSERT that may do nothing.
            return {
                token for (token,) in self._select_won.rows(connection, list(tokens), owner=process["owner"])
            }

        won = self._database.write(work, repeatable=True)
        return [key for key, token in tokens.items() if token in won]

    def _insertion(self) -> Any:
        """Return the INSERT of claims that leaves alone what is held."""
        given = [column.name for column in _claims.c if column.name not in {"acquired_at", "expires_at"}]
        values = {
            **{name: bindparam(name) for name in given},
            "acquired_at": self._now(),
            "expires_at": self._now() + bindparam("lease_s", type_=Double()),
        }
        return insert_new(_claims, self._database.dialect, values)

    def _lease_columns(self) -> dict[str, Any]:
        now = self._now()
        return {**this_process().as_dict(), "acquired_at": now, "expires_at": now + self.lease_s}

    def _take_over(self, key: str, holder: Holder, token: str) -> bool:
        is_dead = holder.process.is_dead() or holder.is_forgotten()
        statement = (
            update(_claims)
            .where(
                _claims.c.table_name == self._table,
                _claims.c.record_id == key,
                _claims.c.token == holder.token,
                # An owner that extended its lease after we looked keeps its claim, unless it is dead for sure.
                or_(_claims.c.expires_at == holder.expires_at, literal(is_dead)),
            )
            .values(token=token, **self._lease_columns())
        )
        # Not rowcount: of a transaction that was repeated after its commit had succeeded it would be 0.
        mine = select(_claims.c.token).where(
            _claims.c.table_name == self._table, _claims.c.record_id == key, _claims.c.token == token
        )

        def work(connection: Connection) -> bool:
            connection.execute(statement)
            return connection.scalar(mine) is not None

        return self._database.write(work, repeatable=True)

    def extend(self) -> None:
        """Extend every claim of this process on this table, to a lease from now: one statement."""
        self._database.write(lambda connection: connection.execute(self._extension()), repeatable=True)

    def extension_sql(self) -> tuple[str, list[Any] | dict[str, Any]]:
        """Return the statement of `extend` and its parameters as the driver takes them."""
        compiled = self._extension().compile(dialect=self._database.url.get_dialect()())
        parameters = compiled.construct_params()
        if compiled.positional:
            return str(compiled), [parameters[name] for name in compiled.positiontup]
        return str(compiled), parameters

    def _extension(self) -> Any:
        return (
            update(_claims)
            .where(_claims.c.table_name == self._table, _claims.c.owner == this_process().owner)
            .values(expires_at=self._now() + self.lease_s)
        )

    def release(self, tokens: Iterable[tuple[str, str]]) -> None:
        """Give up claims, each as key and token, and those that could not be before; what is lost is left alone."""
        pairs = sorted({*tokens, *list(self._unreleased)})
        if pairs:
            self._unreleased.update(pairs)
            self._database.write(lambda connection: self.delete(connection, pairs), repeatable=True)
            self._unreleased.difference_update(pairs)

    def release_later(self, tokens: Iterable[tuple[str, str]]) -> None:
        """Give up claims with those that are given up next."""
        self._unreleased.update(tokens)

    def delete(self, connection: Connection, pairs: Sequence[tuple[str, str]]) -> int:
        """Delete claims inside the transaction of a commit; return how many were still ours.

        This comes first in the transaction: it takes the row's lock, so that a take-over at the same moment waits and
        then finds another token.
        """
        return sum(self._delete_pairs.count(connection, chunk) for chunk in chunks(pairs, CHUNK))
