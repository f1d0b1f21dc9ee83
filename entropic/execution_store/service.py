"""All stores of one context, a data set's or the global one: each method takes the name of a store.

A store is there once it was created or has a key, and gone with its last. Every value is written in one transaction,
or as part of the block that the call is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection

from entropic.execution_store import changes, events, refusals, rows, subscriptions
from entropic.execution_store.arguments import (
    check_function,
    check_key,
    check_name,
    check_poll,
    check_version,
    is_store_key,
    policy_of,
    prefix_range,
)
from entropic.execution_store.changes import Named
from entropic.execution_store.contents import (
    Lifetime,
    key_document,
    store_document,
    value_from,
    value_of,
    value_text,
)
from entropic.execution_store.contexts import StoresOfContext
from entropic.execution_store.documents import KeyDocument
from entropic.execution_store.events import KEYS, STORES, Change, Place
from entropic.sql.upsert import chunks
from entropic.values.inline import is_alike

__all__ = ["ExecutionStoreService"]


class ExecutionStoreService(StoresOfContext):
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
    events_kept, events_kept_s : int, float
        How many changes of a store are kept for subscribers at most, and for how long. All who use a database should
        say the same. Default: 100 000, a day.

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
        store, own = self._named(store_name), check_key(key)
        texts = self._texts({own: value})
        row = self._put(store, texts, Lifetime.of(ttl, policy), read_back=own)
        return key_document(row, store.name, self.dataset_id)

    def set_cache_key(self, store_name: str, key: str, value: Any, ttl: float | None = None) -> KeyDocument:
        """Store a value that `clear_cache` may delete."""
        return self.set_key(store_name, key, value, ttl, "evict")

    def set_value(
        self, store_name: str, key: str, value: Any, ttl: float | None = None, policy: str = "persist"
    ) -> None:
        """Store a value, as `set_key` does, for a fraction of its time."""
        name, own, lifetime = check_name(store_name), check_key(key), Lifetime.of(ttl, policy)
        text = value_text(self.database, value)
        held = self._direct.write(name, own, text, lifetime)
        if held is None:
            self._put(self._named(name), {own: text}, lifetime)
        else:
            self._written(name, held)

    def set_keys(
        self, store_name: str, values: Mapping[str, Any], ttl: float | None = None, policy: str = "persist"
    ) -> None:
        """Store several values as a whole: all of them, or none."""
        store, own = self._named(store_name), {check_key(key): values[key] for key in values}
        self._put(store, self._texts(own), Lifetime.of(ttl, policy))

    def _texts(self, values: Mapping[str, Any]) -> dict[str, str]:
        return {key: value_text(self.database, values[key]) for key in sorted(values)}

    def _put(
        self, store: Named, texts: Mapping[str, str], lifetime: Lifetime, *, read_back: str | None = None
    ) -> Any:
        """Write keys, and return the row of one of them if that is asked for."""
        if not texts:
            return None
        return self._write(
            store, lambda c: changes.put(c, store, texts, lifetime, read_back), repeatable=True
        )

    def set_key_if_absent(
        self, store_name: str, key: str, value: Any, ttl: float | None = None, policy: str = "persist"
    ) -> bool:
        """Store a value if there is none, or one that has expired; return whether it was stored."""
        store, own, lifetime = self._named(store_name), check_key(key), Lifetime.of(ttl, policy)
        text = value_text(self.database, value)
        return self._write(store, lambda c: changes.add(c, store, own, text, lifetime))

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
            Compared with ``==``; arrays and NaN are equal if they hold the same, with the same type. A key that is
            absent equals nothing, not even ``None``.
        ttl, policy : optional
            Default: both stay as they are.

        Raises
        ------
        TransactionError
            Inside a transaction, if another process changed the key meanwhile. Else it is looked at again.
        """
        store, own, lifetime = self._named(store_name), check_key(key), Lifetime.of(ttl, policy)
        text, query = value_text(self.database, value), self._one(store_name, key)
        while True:
            row = self.database.read(lambda connection: connection.execute(query).one_or_none())
            if row is None or not is_alike(value_of(row, store.name), expected):
                return False
            if self._write(
                store, partial(changes.change, store=store, row=row, text=text, lifetime=lifetime)
            ):
                return True
            if self.database.is_in_block:
                raise refusals.lost(store.name, own)

    def set_key_if_version(
        self,
        store_name: str,
        key: str,
        value: Any,
        version: int | None,
        ttl: float | None = None,
        policy: str | None = None,
        *,
        new_policy: str = "persist",
    ) -> bool:
        """Store *value* if nobody has written since *version* was read; return whether it was stored.

        Parameters
        ----------
        version : int or None
            As `get_key_with_version` has given it; ``None`` if the key is to be absent.
        ttl, policy : optional
            Default: both stay as they are.
        new_policy : {"persist", "evict"}
            Of a new key, if no other is given.

        Raises
        ------
        TypeError
            If the version is none.

        Notes
        -----
        For values that `compare_and_set_key` cannot compare, or that are long.
        """
        if version is None:
            return self.set_key_if_absent(
                store_name, key, value, ttl, new_policy if policy is None else policy
            )
        store, own, lifetime = self._named(store_name), check_key(key), Lifetime.of(ttl, policy)
        known, text = check_version(version), value_text(self.database, value)
        return self._write(store, lambda c: changes.change_version(c, store, own, known, text, lifetime))

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
            Given ``None`` where the key is absent. It is called once, or not at all; what it does with the same
            database is part of the transaction.
        ttl, policy : optional
            Default: both stay as they are.
        new_policy : {"persist", "evict"}
            Of a new key, if no other is given.

        Raises
        ------
        TransactionError
            If the function has changed the key itself, or was called when the database dropped the transaction, after
            a deadlock or with the connection. Nothing is changed then.

        Notes
        -----
        If the function raises, nothing is changed. While it runs, others who change the store wait, on SQLite all who
        write: it should be quick. Two that write into each other's store end in a deadlock, of which one is told.
        """
        store, own, lifetime = self._named(store_name), check_key(key), Lifetime.of(ttl, policy)
        new = Lifetime.of(ttl, new_policy if policy is None else policy)
        check_function(function, "update needs a function of the value")
        is_called = False

        def work() -> Any:
            nonlocal is_called
            row, held = self.database.write(lambda connection: changes.locked_new(connection, store, own))
            is_called = True
            value = function(None if row is None else value_of(row, store.name))
            text = value_text(self.database, value)
            if row is None:
                is_written = self._write(store, lambda c: changes.add(c, store, own, text, new))
            else:
                is_written = self._write(
                    store, lambda c: changes.change_held(c, store, row, text, lifetime, held.now)
                )
            if not is_written:
                raise refusals.changed_itself(store.name, own)
            return value

        why = refusals.called_already(store.name, own)
        return self.database.atomically(work, refusal=lambda: why if is_called else "")

    def update_ttl(self, store_name: str, key: str, new_ttl: float | None) -> KeyDocument | None:
        """Let a key expire in so many seconds from now, and return it; ``None`` if it is absent.

        Parameters
        ----------
        new_ttl : float or None
            With a number the key is evicted from now on; ``None`` takes the end away, and leaves the policy.
        """
        lifetime = Lifetime.of(new_ttl, None)
        return self._modify(store_name, key, lambda now: {"expires_us": None} | lifetime.of_changed(now))

    def update_policy(self, store_name: str, key: str, policy: str) -> KeyDocument | None:
        """Let a key persist, which takes its time to live away, or be evicted; return it, ``None`` if it is absent."""
        return self._modify(store_name, key, Lifetime.of(None, policy_of(policy)).of_changed)

    def _modify(
        self, store_name: str, key: str, values: Callable[[int], dict[str, Any]]
    ) -> KeyDocument | None:
        store, own = self._named(store_name), check_key(key)
        row = self._write(store, lambda c: changes.modify(c, store, own, values), repeatable=True)
        return None if row is None else key_document(row, store.name, self.dataset_id)

    def delete_key(self, store_name: str, key: str) -> bool:
        """Delete a key; return whether it was there."""
        store, own = self._named(store_name), check_key(key)
        return self._write(store, lambda connection: changes.delete(connection, store, own))

    # Keys: reading

    def has_key(self, store_name: str, key: str) -> bool:
        """Return whether a key is there; ``"__store__"`` is if the store was created."""
        if is_store_key(key):
            return self._is_any(self._stores(*self._created(store_name), columns=[STORES.c.id]))
        return self._is_any(self._one(store_name, key, KEYS.c.store_id))

    def get_key(self, store_name: str, key: str) -> KeyDocument | None:
        """Return a key with its value, ``None`` if it is absent; for ``"__store__"`` a store that was created."""
        if is_store_key(key):
            found = self._look(self._stores(*self._created(store_name)))
            return None if found is None else store_document(found)
        row = self._look(self._one(store_name, key))
        return None if row is None else key_document(row, store_name, self.dataset_id)

    def get_value(self, store_name: str, key: str) -> Any:
        """Return the value of a key, ``None`` if it is absent: what `get_key` has, for a fraction of its time."""
        row = self._direct.read(store_name, key) if type(key) is type(store_name) is str else None
        if row is None:
            found = self.get_key(store_name, key)
            return None if found is None else found.value
        return value_from(row[0], key, store_name)

    def get_key_with_version(self, store_name: str, key: str) -> tuple[Any, int | None]:
        """Return the value of a key and its version, which is another one after each write; of none ``(None, None)``.

        A new time to live or policy alone makes no other version.
        """
        row = self._look(self._one(store_name, key))
        return (None, None) if row is None else (value_of(row, store_name), row.version)

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

    # Changes

    def place(self, store_name: str) -> str:
        """Return the place after the last change of a store so far, from which `subscribe` can go on later.

        Raises
        ------
        TransactionError
            Inside a transaction.
        """
        name = check_name(store_name)
        self.database.refuse_block("asking for the place of a store", "ask before the block, or after it")
        return self._here(name).text

    def _here(self, name: str) -> Place:
        return self.database.read(lambda connection: events.here(connection, self._clock, self._scope, name))

    def subscribe(
        self,
        store_name: str,
        callback: Callable[[Change], object],
        *,
        place: str | None = None,
        poll_s: float = 0.5,
    ) -> str:
        """Call *callback* with each change of a store, once and in the order of commits; return what ends that.

        Parameters
        ----------
        callback : callable
            Given a `Change` after it was committed, in a thread of this process, which calls one after the other. One
            that raises is logged, and called no more. A forked child has no subscriptions.
        place : str, optional
            Of the last change that was seen, in this process or an earlier one. If a later one is forgotten, because
            it was too long ago or there were too many, the first change says so: it is ``missed``. Default: only what
            is changed from now on.
        poll_s : float
            How often to look what other processes have changed. PostgreSQL tells by itself.

        Raises
        ------
        ValueError
            If the place is none.
        TransactionError
            Inside a transaction.
        """
        name, every_s = check_name(store_name), check_poll(poll_s)
        check_function(callback, "subscribe needs a function of a Change")
        self.database.refuse_block("subscribing", "do it before the block, or after it")
        begin = self._here(name) if place is None else Place.of(place)
        one = subscriptions.Subscription(
            str(uuid4()), self._scope, name, callback, begin, self._clock, self._kept.age_us, every_s
        )
        subscriptions.add(self.database, one)
        return one.id

    def unsubscribe(self, subscription_id: str) -> bool:
        """End a subscription of this process; return whether there was one. A call under way is not waited for."""
        return subscriptions.remove(subscription_id)
