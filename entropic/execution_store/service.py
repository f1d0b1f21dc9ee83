"""All stores of one context, a data set's or the global one: each method takes the name of a store.

A store is there once it was created or has a key, and gone with its last. Every value is written in one transaction,
or as part of the block that the call is in.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import DBAPIError

from entropic.errors import DuplicateStoreError, TransactionError
from entropic.execution_store import rows
from entropic.execution_store.arguments import check_key, check_name, policy_of, prefix_range, scope_of
from entropic.execution_store.contents import (
    Lifetime,
    key_document,
    metadata_text,
    store_document,
    value_of,
    value_text,
)
from entropic.execution_store.documents import STORE_KEY, DeleteCount, KeyDocument, StoreDocument
from entropic.execution_store.rows import KEYS, STORES
from entropic.process.logs import get_logger
from entropic.sql.clock import Clock, database_now
from entropic.sql.database import Database, DatabaseLike
from entropic.sql.upsert import chunks
from entropic.sql.urls import shown
from entropic.sql.versions import ensure_schema
from entropic.values.inline import is_alike

__all__ = ["ExecutionStoreService"]

log = get_logger(__name__)

PURGES_ONE_IN = 100  # writings of keys with a time to live


class _LostRaceError(TransactionError):
    """Another process was faster."""


class ExecutionStoreService:
    """Keeps values under keys, in named stores.

    Parameters
    ----------
    dataset_id : str, int, UUID or ObjectId, optional
        The context: what other data sets and the global context have is not seen, but by the methods ``..._global``.
        It counts as text: a UUID and its text are one data set. Default: the global context.
    database : Database, sqlalchemy.Engine, sqlalchemy.URL or str, optional
        Its tables are made if it has none. Default: ``Options().db_url``.
    clock : callable, optional
        Returns the SQL expression of the time now, in seconds since 1970, by which keys expire. Default: the
        database's clock.

    Raises
    ------
    ValueError
        If the context, or later a name, a key, a policy or a time to live, is none. Nothing is written then.
    SchemaError
        If the tables are of another version, or are missing and this user may not make them.

    Notes
    -----
    Threads and processes may share stores: each call is one transaction, or part of the block that it is in. A key is
    invisible from the microsecond on in which it expires; `purge_expired` only frees its place.

    Values are what JSON has, and times, bytes, tuples, sets, NumPy arrays, numbers that are not finite; what comes
    back is a copy, equal and of the same types.
    """

    def __init__(
        self, dataset_id: Any = None, *, database: DatabaseLike | None = None, clock: Clock = database_now
    ) -> None:
        self._scope = scope_of(dataset_id)
        if database is None:
            from entropic.options import Options

            database = Options().db_url
        self.database = Database.of(database)
        self._clock = clock
        ensure_schema(self.database, [])

    def __repr__(self) -> str:
        return f"ExecutionStoreService({self.dataset_id!r}, database={shown(self.database.url)!r})"

    @property
    def dataset_id(self) -> str | None:
        """The context, as text; ``None`` is the global one."""
        return self._scope or None

    # Stores

    def create_store(
        self,
        store_name: str,
        metadata: Mapping[str, Any] | None = None,
        policy: str = "persist",
        *,
        exist_ok: bool = False,
    ) -> StoreDocument:
        """Create a store, or give one that exists by its keys alone what it was not created with.

        Parameters
        ----------
        policy : {"persist", "evict"}
            Whether `clear_cache` takes the metadata away. Keys have policies of their own.
        exist_ok : bool
            Return the store as it is if it was created before.

        Raises
        ------
        DuplicateStoreError
            If it was created before.
        """
        name, lifetime = check_name(store_name), Lifetime.of(None, policy)
        document = metadata_text(self.database, metadata)

        def work(connection: Connection) -> StoreDocument:
            number = rows.require_store(connection, self._scope, name, is_exclusive=True)
            now = rows.now_us(connection, self._clock)
            values = {"is_explicit": True, "document": document, "policy": lifetime.of_new(now)["policy"]}
            one = update(STORES).where(STORES.c.id == number, ~STORES.c.is_explicit)
            is_new = connection.execute(one.values({**values, "created_us": now})).rowcount == 1
            if not is_new and not exist_ok:
                raise DuplicateStoreError(
                    f"the store {name!r} was created before: get_store returns it, exist_ok=True leaves it as it is, "
                    "and update_metadata changes it"
                )
            return store_document(connection.execute(self._stores(STORES.c.id == number)).one())

        return self.database.write(work)

    def update_metadata(self, store_name: str, metadata: Mapping[str, Any] | None) -> StoreDocument | None:
        """Replace the metadata of a store, and return it; ``None`` if it does not exist."""
        name, document = check_name(store_name), metadata_text(self.database, metadata)

        def work(connection: Connection) -> StoreDocument | None:
            query = self._stores(STORES.c.name == name)
            number = rows.store_of(connection, self._scope, name, is_exclusive=True)
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            now = rows.now_us(connection, self._clock)
            created = now if row.created_us is None else row.created_us
            new = {"is_explicit": True, "document": document, "created_us": created, "updated_us": now}
            connection.execute(update(STORES).where(STORES.c.id == number).values(new))
            return store_document(connection.execute(query).one())

        return self.database.write(work, repeatable=True)

    def get_store(self, store_name: str) -> StoreDocument | None:
        """Return a store, ``None`` if it does not exist; one that was not created is as old as its oldest key."""
        row = self._look(self._stores(STORES.c.name == check_name(store_name)))
        return None if row is None else store_document(row)

    def list_stores(self) -> list[str]:
        """Return the names of all stores, sorted."""
        query = self._stores(columns=[STORES.c.name])
        return self.database.read(lambda connection: list(connection.scalars(query)))

    def count_stores(self) -> int:
        """Return how many stores there are."""
        return self._count(self._stores(columns=[STORES.c.id]))

    def has_store(self, store_name: str) -> bool:
        """Return whether a store exists."""
        return self._is_any(self._stores(STORES.c.name == check_name(store_name), columns=[STORES.c.id]))

    def delete_store(self, store_name: str) -> DeleteCount:
        """Delete a store, its keys and its metadata; return how many documents that were."""
        return self._remove(*self._where(check_name(store_name)))

    def clear_cache(self, store_name: str | None = None) -> DeleteCount:
        """Delete keys that are to be evicted or have a time to live, and metadata with such a policy.

        Parameters
        ----------
        store_name : str, optional
            Default: in all stores.
        """
        where = self._where(store_name)
        return self.database.write(lambda connection: rows.clear_cache(connection, self._clock, *where))

    def cleanup(self) -> DeleteCount:
        """Delete all stores of this context; return how many documents that were."""
        return self._remove(*self._where(None))

    def purge_expired(self, store_name: str | None = None) -> int:
        """Free the place of keys that have expired, which nobody sees any more; return how many there were.

        In a store it happens now and then by itself, while keys with a time to live are written there.
        """
        where = self._where(store_name)
        return self.database.write(lambda connection: rows.remove_expired(connection, self._clock, *where))

    def _where(self, store_name: str | None) -> list[Any]:
        one = [] if store_name is None else [STORES.c.name == check_name(store_name)]
        return [STORES.c.scope == self._scope, *one]

    def _stores(self, *conditions: Any, columns: Any = ()) -> Any:
        return rows.select_stores(self._clock, STORES.c.scope == self._scope, *conditions, columns=columns)

    def _remove(self, *where: Any) -> DeleteCount:
        return self.database.write(lambda connection: rows.remove(connection, self._clock, *where))

    # Stores of all contexts

    def has_store_global(self, store_name: str) -> bool:
        """Return whether a store exists in any context."""
        where = STORES.c.name == check_name(store_name)
        return self._is_any(rows.select_stores(self._clock, where, columns=[STORES.c.id]))

    def list_stores_global(self) -> list[StoreDocument]:
        """Return the stores of all contexts, sorted by name and context."""
        query = rows.select_stores(self._clock)
        return [store_document(row) for row in self.database.read(lambda c: c.execute(query).all())]

    def count_stores_global(self) -> int:
        """Return how many stores there are in all contexts; one for each name and context."""
        return self._count(rows.select_stores(self._clock, columns=[STORES.c.id]))

    def delete_store_global(self, store_name: str) -> DeleteCount:
        """Delete the stores of a name in all contexts; return how many documents that were."""
        return self._remove(STORES.c.name == check_name(store_name))

    # Keys: writing

    def set_key(
        self, store_name: str, key: str, value: Any, ttl: float | None = None, policy: str = "persist"
    ) -> KeyDocument:
        """Store a value, in place of the one that is there; return the document as it is stored.

        Parameters
        ----------
        ttl : float, optional
            Time to live, in seconds; 0 is over at once. Default: without an end, also for a key that had one.
        policy : {"persist", "evict"}
            A key with a time to live is evicted, whatever is said here.

        Notes
        -----
        The time of creation stays while the key is there, all else is replaced.
        """
        row = self._put(store_name, {check_key(key): value}, Lifetime.of(ttl, policy), read_back=key)
        return key_document(row, store_name, self.dataset_id)

    def set_cache_key(self, store_name: str, key: str, value: Any, ttl: float | None = None) -> KeyDocument:
        """Store a value that `clear_cache` may delete."""
        return self.set_key(store_name, key, value, ttl, "evict")

    def set_keys(
        self, store_name: str, values: Mapping[str, Any], ttl: float | None = None, policy: str = "persist"
    ) -> None:
        """Store several values as a whole: all of them, or none."""
        self._put(store_name, {check_key(key): values[key] for key in values}, Lifetime.of(ttl, policy))

    def _put(
        self, store_name: str, values: Mapping[str, Any], lifetime: Lifetime, *, read_back: str | None = None
    ) -> Any:
        """Write keys, and return the row of one of them if that is asked for."""
        name = check_name(store_name)
        # Sorted: who writes the same keys takes them in the same order, and does not wait for one who waits.
        texts = {key: value_text(self.database, values[key]) for key in sorted(values)}
        statement = rows.put(self.database.dialect, replaces=True)

        def work(connection: Connection) -> Any:
            number = rows.require_store(connection, self._scope, name)
            now = rows.now_us(connection, self._clock)
            new = [rows.new_row(number, key, texts[key], now) | lifetime.of_new(now) for key in texts]
            connection.execute(statement, new)
            return None if read_back is None else rows.locked(connection, number, read_back)

        written = self.database.write(work, repeatable=True) if texts else None
        self._purge_sometimes(name, lifetime)
        return written

    def set_key_if_absent(
        self, store_name: str, key: str, value: Any, ttl: float | None = None, policy: str = "persist"
    ) -> bool:
        """Store a value if there is none, or one that has expired; return whether it was stored."""
        name, own, lifetime = check_name(store_name), check_key(key), Lifetime.of(ttl, policy)
        text = value_text(self.database, value)
        done = self.database.write(lambda connection: self._add(connection, name, own, text, lifetime))
        self._purge_sometimes(name, lifetime)
        return done

    def _add(self, connection: Connection, name: str, key: str, text: str, lifetime: Lifetime) -> bool:
        number = rows.require_store(connection, self._scope, name)
        now = rows.now_us(connection, self._clock)
        new = rows.new_row(number, key, text, now) | lifetime.of_new(now)
        connection.execute(rows.put(self.database.dialect, replaces=False), new)
        stored = select(KEYS.c.version).where(KEYS.c.store_id == number, KEYS.c.name == key)
        return bool(connection.scalar(stored) == new["version"])

    def compare_and_set_key(
        self,
        store_name: str,
        key: str,
        expected: Any,
        value: Any,
        ttl: float | None = None,
        policy: str | None = None,
    ) -> bool:
        """Store *value* if what is stored equals *expected*; return whether it was stored.

        Parameters
        ----------
        expected : object
            Compared with ``==``; arrays and NaN are equal if they would be stored alike. A key that is absent equals
            nothing, not even ``None``.
        ttl, policy : optional
            Default: both stay as they are.

        Raises
        ------
        TransactionError
            Inside a transaction, if another process changed the key meanwhile. Else it is looked at again.
        """
        name, own, lifetime = check_name(store_name), check_key(key), Lifetime.of(ttl, policy)
        text, query = value_text(self.database, value), self._one(store_name, key)

        def work(connection: Connection) -> bool:
            now = rows.now_us(connection, self._clock)
            new = rows.new_value(text, now) | lifetime.of_changed(now)
            return rows.change(connection, row, new, rows.alive_at(now))

        while True:
            row = self.database.read(lambda connection: connection.execute(query).one_or_none())
            if row is None or not is_alike(value_of(row, name), expected):
                return False
            if self.database.write(work):
                return True
            if self.database.is_in_block:
                raise _lost(name, own)

    def update_key(
        self,
        store_name: str,
        key: str,
        function: Callable[[Any], Any],
        ttl: float | None = None,
        policy: str | None = None,
        *,
        new_policy: str = "persist",
    ) -> Any:
        """Store ``function(value)`` in place of *value*, which nobody else changes meanwhile, and return it.

        Parameters
        ----------
        function : callable
            Given ``None`` where the key is absent. It is called once where the key is there, and once more each time
            that another process makes the key in the meantime. What it does with the same database is part of the
            transaction.
        ttl, policy : optional
            Default: both stay as they are.
        new_policy : {"persist", "evict"}
            Of a new key, if no other is given.

        Raises
        ------
        TransactionError
            Inside a transaction, if another process made the key meanwhile.

        Notes
        -----
        If the function raises, nothing is changed. While it runs, others who change the key wait, on SQLite all who
        write: it should be quick.
        """
        name, own, lifetime = check_name(store_name), check_key(key), Lifetime.of(ttl, policy)
        new = Lifetime.of(ttl, new_policy if policy is None else policy)
        while True:
            try:
                return self.database.atomically(lambda: self._update_once(name, own, function, lifetime, new))
            except _LostRaceError:
                if self.database.is_in_block:
                    raise

    def _update_once(
        self, name: str, key: str, function: Callable[[Any], Any], lifetime: Lifetime, new: Lifetime
    ) -> Any:
        def write(connection: Connection) -> bool:
            if row is None:
                return self._add(connection, name, key, text, new)
            now = rows.now_us(connection, self._clock)
            return rows.change(connection, row, rows.new_value(text, now) | lifetime.of_changed(now))

        row = self.database.write(lambda connection: self._locked(connection, name, key))
        value = function(None if row is None else value_of(row, name))
        text = value_text(self.database, value)
        if not self.database.write(write):
            raise _lost(name, key)
        return value

    def _locked(self, connection: Connection, name: str, key: str) -> Any:
        """Return the row of a key that is there, and let nobody change it until the transaction ends."""
        number = rows.store_of(connection, self._scope, name)
        row = None if number is None else rows.locked(connection, number, key)
        if row is None or row.expires_us is None:
            return row
        return row if row.expires_us > rows.now_us(connection, self._clock) else None

    def update_ttl(self, store_name: str, key: str, new_ttl: float | None) -> KeyDocument | None:
        """Let a key expire in so many seconds from now, and return it; ``None`` if it is absent.

        Parameters
        ----------
        new_ttl : float or None
            With a number the key is evicted from now on; ``None`` takes the end away, and leaves the policy.
        """
        lifetime = Lifetime.of(new_ttl, None)
        return self._change(store_name, key, lambda now: {"expires_us": None} | lifetime.of_changed(now))

    def update_policy(self, store_name: str, key: str, policy: str) -> KeyDocument | None:
        """Let a key persist, which takes its time to live away, or be evicted; return it, ``None`` if it is absent."""
        return self._change(store_name, key, Lifetime.of(None, policy_of(policy)).of_changed)

    def _change(
        self, store_name: str, key: str, values: Callable[[int], dict[str, Any]]
    ) -> KeyDocument | None:
        name, own = check_name(store_name), check_key(key)

        def work(connection: Connection) -> Any:
            row = self._locked(connection, name, own)
            if row is None:
                return None
            rows.change(connection, row, values(rows.now_us(connection, self._clock)))
            return rows.locked(connection, row.store_id, own)

        row = self.database.write(work, repeatable=True)
        return None if row is None else key_document(row, name, self.dataset_id)

    def delete_key(self, store_name: str, key: str) -> bool:
        """Delete a key; return whether it was there."""
        statement = rows.delete_key(self._clock, self._scope, check_name(store_name), check_key(key))
        return self.database.write(lambda connection: connection.execute(statement).rowcount == 1)

    def _purge_sometimes(self, name: str, lifetime: Lifetime) -> None:
        if lifetime.ttl is None or self.database.is_in_block or secrets.randbelow(PURGES_ONE_IN):
            return
        try:
            self.purge_expired(name)
        except DBAPIError as error:  # what was asked for is done
            log.debug("expired keys were not removed: %s", error.orig)

    # Keys: reading

    def has_key(self, store_name: str, key: str) -> bool:
        """Return whether a key is there; ``"__store__"`` is if the store was created."""
        if key == STORE_KEY:
            return self._is_any(self._stores(*self._created(store_name), columns=[STORES.c.id]))
        return self._is_any(self._one(store_name, key, KEYS.c.store_id))

    def get_key(self, store_name: str, key: str) -> KeyDocument | None:
        """Return a key with its value, ``None`` if it is absent; for ``"__store__"`` a store that was created."""
        if key == STORE_KEY:
            found = self._look(self._stores(*self._created(store_name)))
            return None if found is None else store_document(found)
        row = self._look(self._one(store_name, key))
        return None if row is None else key_document(row, store_name, self.dataset_id)

    def _created(self, store_name: str) -> list[Any]:
        return [STORES.c.name == check_name(store_name), STORES.c.is_explicit]

    def _one(self, store_name: str, key: str, *columns: Any) -> Any:
        query = rows.select_keys(self._clock, self._scope, check_name(store_name), *columns)
        return query.where(KEYS.c.name == check_key(key))

    def get_keys(self, store_name: str, keys: Iterable[str]) -> dict[str, KeyDocument]:
        """Return those of *keys* that are there, each with its value, in their order."""
        if isinstance(keys, str):
            raise TypeError(f"get_keys takes a list of keys, not the text {keys!r:.100}")
        wanted = list(dict.fromkeys(check_key(key) for key in keys))
        query = rows.select_keys(self._clock, self._scope, check_name(store_name))

        def work(connection: Connection) -> dict[str, Any]:
            parts = (query.where(KEYS.c.name.in_(chunk)) for chunk in chunks(wanted, rows.CHUNK))
            return {row.name: row for part in parts for row in connection.execute(part)}

        found = self.database.read(work)
        return {key: key_document(found[key], store_name, self.dataset_id) for key in wanted if key in found}

    def find_keys(self, store_name: str, prefix: str = "") -> dict[str, KeyDocument]:
        """Return the keys that begin with *prefix*, each with its value, sorted; in one statement."""
        query = self._range(store_name, prefix)
        found = self.database.read(lambda connection: connection.execute(query).all())
        return {row.name: key_document(row, store_name, self.dataset_id) for row in found}

    def list_keys(self, store_name: str, prefix: str = "") -> list[str]:
        """Return the keys that begin with *prefix*, sorted; in one statement."""
        query = self._range(store_name, prefix, KEYS.c.name)
        return self.database.read(lambda connection: list(connection.scalars(query)))

    def count_keys(self, store_name: str, prefix: str = "") -> int:
        """Return how many keys begin with *prefix*."""
        return self._count(self._range(store_name, prefix, KEYS.c.name))

    def _range(self, store_name: str, prefix: str, *columns: Any) -> Any:
        query = rows.select_keys(self._clock, self._scope, check_name(store_name), *columns)
        if prefix != "":
            # Not LIKE: it has characters of its own, and not everywhere an index.
            first, end = prefix_range(check_name(prefix, "a prefix"))
            query = query.where(KEYS.c.name >= first)
            query = query if end is None else query.where(KEYS.c.name < end)
        return query.order_by(KEYS.c.name)

    def _look(self, query: Any) -> Any:
        return self.database.look(lambda connection: connection.execute(query).one_or_none())

    def _is_any(self, query: Any) -> bool:
        one = query.order_by(None).limit(1)
        return self.database.look(lambda connection: connection.execute(one).first()) is not None

    def _count(self, query: Any) -> int:
        counted = select(func.count()).select_from(query.order_by(None).subquery())
        return int(self.database.read(lambda connection: connection.scalar(counted)) or 0)


def _lost(name: str, key: str) -> _LostRaceError:
    return _LostRaceError(
        f"another process changed the key {key!r} of the store {name!r} while this transaction was about to: leave the "
        "block and run all of it again"
    )
