"""The stores of one context, and of all: which there are, and what happens to a store as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from entropic.errors import DuplicateStoreError
from entropic.execution_store import changes, events, rows, subscriptions
from entropic.execution_store.arguments import check_kept, check_name, scope_of
from entropic.execution_store.changes import Named
from entropic.execution_store.contents import Lifetime, metadata_text, store_document
from entropic.execution_store.direct import Direct
from entropic.execution_store.documents import DeleteCount, StoreDocument
from entropic.execution_store.events import STORES, Held, Kept
from entropic.process.logs import get_logger
from entropic.sql.clock import Clock, database_now
from entropic.sql.database import Database, DatabaseLike
from entropic.sql.urls import shown
from entropic.sql.versions import ensure_schema

__all__ = ["StoresOfContext"]

log = get_logger(__name__)

T = TypeVar("T")

PURGES_ONE_IN = 1000  # events of a store


class StoresOfContext:
    """What `ExecutionStoreService` is without the keys; its parameters are described there."""

    def __init__(
        self,
        dataset_id: Any = None,
        *,
        database: DatabaseLike | None = None,
        clock: Clock = database_now,
        events_kept: int = 100_000,
        events_kept_s: float = 86_400.0,
    ) -> None:
        self._scope = scope_of(dataset_id)
        self._kept = Kept(*check_kept(events_kept_s, events_kept))
        if database is None:
            from entropic.options import Options

            database = Options().db_url
        self.database = Database.of(database)
        self._clock = clock
        ensure_schema(self.database, [])
        self._direct = Direct(self.database, self._scope, clock)

    def __repr__(self) -> str:
        return f"ExecutionStoreService({self.dataset_id!r}, database={shown(self.database.url)!r})"

    @property
    def dataset_id(self) -> str | None:
        """The context, as text; ``None`` is the global one."""
        return self._scope or None

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
        store, lifetime = self._named(store_name), Lifetime.of(None, policy)
        document = metadata_text(self.database, metadata)

        def work(connection: Connection) -> tuple[StoreDocument, Held]:
            is_new, held = changes.create(connection, store, document, lifetime)
            if not is_new and not exist_ok:
                raise DuplicateStoreError(
                    f"the store {store.name!r} was created before: get_store returns it, exist_ok=True leaves it as it "
                    "is, and update_metadata changes it"
                )
            return store_document(connection.execute(self._stores(STORES.c.id == held.id)).one()), held

        return self._write(store, work)

    def update_metadata(self, store_name: str, metadata: Mapping[str, Any] | None) -> StoreDocument | None:
        """Replace the metadata of a store, and return it; ``None`` if it does not exist."""
        store, document = self._named(store_name), metadata_text(self.database, metadata)

        def work(connection: Connection) -> tuple[StoreDocument | None, Held | None]:
            exists, held = changes.describe(connection, store, document)
            query = self._stores(STORES.c.name == store.name)
            return store_document(connection.execute(query).one()) if exists else None, held

        return self._write(store, work, repeatable=True)

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
        return self._remove(rows.remove, *self._where(check_name(store_name)))

    def clear_cache(self, store_name: str | None = None) -> DeleteCount:
        """Delete keys that are to be evicted or have a time to live, and metadata with such a policy.

        Parameters
        ----------
        store_name : str, optional
            Default: in all stores.
        """
        return self._remove(rows.clear_cache, *self._where(store_name))

    def cleanup(self) -> DeleteCount:
        """Delete all stores of this context; return how many documents that were."""
        return self._remove(rows.remove, *self._where(None))

    def purge_expired(self, store_name: str | None = None) -> int:
        """Free the place of keys that have expired, which nobody sees any more; return how many there were.

        And of changes that need not be kept for subscribers any more. In a store it happens by itself with every
        thousandth change.
        """
        where = self._where(store_name)
        count = self.database.write(lambda connection: rows.remove_expired(connection, self._clock, *where))
        subscriptions.ring(self.database)
        self.database.write(lambda connection: events.forget(connection, self._clock, self._kept, *where))
        self.database.write(lambda connection: rows.forget_stores(connection, self._clock, self._kept))
        return count

    def _where(self, store_name: str | None) -> list[Any]:
        one = [] if store_name is None else [STORES.c.name == check_name(store_name)]
        return [STORES.c.scope == self._scope, *one]

    def _stores(self, *conditions: Any, columns: Any = ()) -> Any:
        return rows.select_stores(self._clock, STORES.c.scope == self._scope, *conditions, columns=columns)

    def _remove(self, how: Callable[..., DeleteCount], *where: Any) -> DeleteCount:
        count = self.database.write(lambda connection: how(connection, self._clock, *where))
        subscriptions.ring(self.database)
        return count

    def _named(self, store_name: Any) -> Named:
        return Named(self._clock, self._scope, check_name(store_name))

    def _write(
        self, store: Named, work: Callable[[Connection], tuple[T, Held | None]], *, repeatable: bool = False
    ) -> T:
        """Run *work* in a transaction, let subscribers know, and tidy up now and then."""
        result, held = self.database.write(work, repeatable=repeatable)
        if held is not None and held.last_event != held.first_event:
            self._written(store.name, held)
        return result

    def _written(self, store_name: str, held: Held) -> None:
        subscriptions.ring(self.database)
        if held.crosses(PURGES_ONE_IN) and not self.database.is_in_block:
            try:
                self.purge_expired(store_name)
            except DBAPIError as error:  # what was asked for is done
                log.debug("expired keys were not removed: %s", error.orig)

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
        return self._remove(rows.remove, STORES.c.name == check_name(store_name))

    # Statements

    def _look(self, query: Any) -> Any:
        return self.database.look(lambda connection: connection.execute(query).one_or_none())

    def _is_any(self, query: Any) -> bool:
        one = query.order_by(None).limit(1)
        return self.database.look(lambda connection: connection.execute(one).first()) is not None

    def _count(self, query: Any) -> int:
        counted = select(func.count()).select_from(query.order_by(None).subquery())
        return int(self.database.read(lambda connection: connection.scalar(counted)) or 0)
