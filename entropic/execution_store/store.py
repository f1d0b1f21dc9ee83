"""One store by its name: what most callers need of `ExecutionStoreService`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from entropic.execution_store.arguments import check_name, policy_of
from entropic.execution_store.events import Change
from entropic.execution_store.service import ExecutionStoreService
from entropic.sql.database import DatabaseLike

__all__ = ["ExecutionStore"]


class ExecutionStore:
    """Values under keys, in one store.

    Parameters
    ----------
    store_name : str
        1 to 255 characters. The store is there once it has a key.
    store_service : ExecutionStoreService
        Says in which context and database.
    default_policy : {"persist", "evict"}
        Of keys that are set without one.

    Raises
    ------
    ValueError
        If the name or the policy is none, or later a key, a policy or a time to live. Nothing is written then.
    TypeError
        If *store_service* is no service.

    Notes
    -----
    As with `ExecutionStoreService`, threads and processes may share a store, and each call is one transaction.
    """

    def __init__(
        self, store_name: str, store_service: ExecutionStoreService, default_policy: str = "persist"
    ) -> None:
        self.store_name = check_name(store_name)
        if not isinstance(store_service, ExecutionStoreService):
            raise TypeError(
                f"a store needs an ExecutionStoreService, not {type(store_service).__name__!r}: "
                "ExecutionStore.create(store_name, database=...) makes both"
            )
        self._service = store_service
        self._default_policy = policy_of(default_policy)

    @staticmethod
    def create(
        store_name: str,
        dataset_id: Any = None,
        default_policy: str = "persist",
        *,
        database: DatabaseLike | None = None,
    ) -> ExecutionStore:
        """Return the store of a name in the context of a data set; nothing is written to it.

        Parameters
        ----------
        dataset_id, database
            As for `ExecutionStoreService`.
        """
        service = ExecutionStoreService(dataset_id, database=database)
        return ExecutionStore(store_name, service, default_policy)

    def __repr__(self) -> str:
        return f"ExecutionStore({self.store_name!r}, {self._service!r})"

    def list_stores(self) -> list[str]:
        """Return the names of all stores of the context."""
        return self._service.list_stores()

    def get(self, key: str) -> Any:
        """Return the value of a key, ``None`` if it is absent; `has` tells that from a stored ``None``."""
        return self._service.get_value(self.store_name, key)

    def set(self, key: str, value: Any, ttl: float | None = None, policy: str | None = None) -> None:
        """Store a value, in place of the one that is there.

        Parameters
        ----------
        ttl : float, optional
            Time to live, in seconds. Default: without an end, also for a key that had one.
        policy : {"persist", "evict"}, optional
            Default: the store's. A key with a time to live is evicted, whatever is said here.
        """
        self._service.set_value(self.store_name, key, value, ttl, self._policy(policy))

    def set_cache(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Store a value that `clear_cache` may delete."""
        self.set(key, value, ttl, "evict")

    def set_many(
        self, values: Mapping[str, Any], ttl: float | None = None, policy: str | None = None
    ) -> None:
        """Store several values as a whole: all of them, or none."""
        self._service.set_keys(self.store_name, values, ttl, self._policy(policy))

    def set_if_absent(
        self, key: str, value: Any, ttl: float | None = None, policy: str | None = None
    ) -> bool:
        """Store a value if there is none, or one that has expired; return whether it was stored."""
        return self._service.set_key_if_absent(self.store_name, key, value, ttl, self._policy(policy))

    def compare_and_set(
        self, key: str, expected: Any, value: Any, ttl: float | None = None, policy: str | None = None
    ) -> bool:
        """Store *value* if what is stored equals *expected*; return whether it was stored.

        As `ExecutionStoreService.compare_and_set_key`.
        """
        return self._service.compare_and_set_key(self.store_name, key, expected, value, ttl, policy)

    def get_with_version(self, key: str) -> tuple[Any, int | None]:
        """Return the value of a key and its version, which is another one after each write; of none ``(None, None)``.

        As `ExecutionStoreService.get_key_with_version`.
        """
        return self._service.get_key_with_version(self.store_name, key)

    def set_if_version(
        self, key: str, value: Any, version: int | None, ttl: float | None = None, policy: str | None = None
    ) -> bool:
        """Store *value* if nobody has written since *version* was read; return whether it was stored.

        As `ExecutionStoreService.set_key_if_version`; a new key has the store's policy.
        """
        return self._service.set_key_if_version(
            self.store_name, key, value, version, ttl, policy, new_policy=self._default_policy
        )

    def update(
        self,
        key: str,
        function: Callable[[Any], Any],
        ttl: float | None = None,
        policy: str | None = None,
    ) -> Any:
        """Store ``function(value)`` in place of *value*, which nobody else changes meanwhile, and return it.

        As `ExecutionStoreService.update_key`; a new key has the store's policy.
        """
        return self._service.update_key(
            self.store_name, key, function, ttl, policy, new_policy=self._default_policy
        )

    def delete(self, key: str) -> bool:
        """Delete a key; return whether it was there."""
        return self._service.delete_key(self.store_name, key)

    def has(self, key: str) -> bool:
        """Return whether a key is there."""
        return self._service.has_key(self.store_name, key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those of *keys* that are there, in their order."""
        return {key: one.value for key, one in self._service.get_keys(self.store_name, keys).items()}

    def clear(self) -> None:
        """Delete all that is in the store, its metadata too."""
        self._service.delete_store(self.store_name)

    def clear_cache(self) -> None:
        """Delete keys that are to be evicted or have a time to live."""
        self._service.clear_cache(self.store_name)

    def purge_expired(self) -> int:
        """Free the place of keys that have expired, which nobody sees any more; return how many there were.

        As `ExecutionStoreService.purge_expired`.
        """
        return self._service.purge_expired(self.store_name)

    def update_ttl(self, key: str, new_ttl: float | None) -> None:
        """Let a key expire in so many seconds from now, or with ``None`` not at all; one that is absent stays so."""
        self._service.update_ttl(self.store_name, key, new_ttl)

    def update_policy(self, key: str, policy: str) -> None:
        """Let a key persist, which takes its time to live away, or be evicted; one that is absent stays so."""
        self._service.update_policy(self.store_name, key, policy)

    def get_metadata(self, key: str) -> dict[str, Any] | None:
        """Return ``created_at``, ``updated_at``, ``expires_at`` and ``policy`` of a key; ``None`` if it is absent."""
        found = self._service.get_key(self.store_name, key)
        if found is None:
            return None
        return {name: getattr(found, name) for name in ("created_at", "updated_at", "expires_at", "policy")}

    def list_keys(self, prefix: str = "") -> list[str]:
        """Return the keys that begin with *prefix*, sorted."""
        return self._service.list_keys(self.store_name, prefix)

    def items(self, prefix: str = "") -> dict[str, Any]:
        """Return the keys that begin with *prefix*, sorted, and their values; in one statement."""
        return {key: one.value for key, one in self._service.find_keys(self.store_name, prefix).items()}

    def place(self) -> str:
        """Return the place after the last change so far, from which `subscribe` can go on later."""
        return self._service.place(self.store_name)

    def subscribe(
        self, callback: Callable[[Change], object], *, place: str | None = None, poll_s: float = 0.5
    ) -> str:
        """Call *callback* with each change of the store, once and in the order of commits; return what ends that.

        As `ExecutionStoreService.subscribe`.
        """
        return self._service.subscribe(self.store_name, callback, place=place, poll_s=poll_s)

    def unsubscribe(self, subscription_id: str) -> bool:
        """End a subscription of this process; return whether there was one."""
        return self._service.unsubscribe(subscription_id)

    def _policy(self, policy: str | None) -> str:
        return self._default_policy if policy is None else policy
