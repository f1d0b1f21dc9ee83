"""What the execution store returns: a key with its value, a store with its metadata, and how many were deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Self

__all__ = ["STORE_KEY", "DeleteCount", "KeyDocument", "KeyPolicy", "StoreDocument"]

STORE_KEY = "__store__"
"""The key under which a store shows its metadata; no value can be kept there."""


class KeyPolicy(str, Enum):  # noqa: UP042  a StrEnum would print as its value
    """Whether a key may be removed without anybody naming it."""

    PERSIST = "persist"
    """It stays until it is deleted."""
    EVICT = "evict"
    """It goes when its time to live is over, or with ``clear_cache()``."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class KeyDocument:
    """A key of a store, as it was when it was read; changing the document changes nothing that is stored.

    Attributes
    ----------
    dataset_id : str, optional
        The context; ``None`` is the global one.
    created_at, updated_at, expires_at : datetime
        Timezone-aware, in UTC. ``updated_at`` is ``None`` before the first change, ``expires_at`` without a time to
        live.
    """

    store_name: str
    key: str
    value: Any
    _id: Any = None
    dataset_id: Any = None
    created_at: datetime = field(default_factory=_now)
    updated_at: datetime | None = None
    expires_at: datetime | None = None
    policy: KeyPolicy = KeyPolicy.PERSIST

    @staticmethod
    def get_expiration(ttl: float | None) -> datetime | None:
        """Return the time *ttl* seconds from now; ``None`` for ``None``."""
        return None if ttl is None else _now() + timedelta(seconds=ttl)

    @classmethod
    def from_dict(cls, doc: Mapping[str, Any]) -> Self:
        """Make a document of its fields by name; without a policy, one that expires is to be evicted.

        Raises
        ------
        TypeError
            If there is a name that is no field.
        ValueError
            If the policy is none.
        """
        values = dict(doc)
        policy = values.pop("policy", None)
        if not policy:
            policy = KeyPolicy.EVICT if values.get("expires_at") else KeyPolicy.PERSIST
        return cls(**values, policy=KeyPolicy(policy))

    def to_mongo_dict(self, exclude_id: bool = True) -> dict[str, Any]:
        """Return the fields by name, the policy as text; without ``_id`` unless *exclude_id* is false."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        if exclude_id:
            del values["_id"]
        return values | {"policy": KeyPolicy(self.policy).value}


@dataclass
class StoreDocument(KeyDocument):
    """A store, as the document of the key that stands for it."""

    key: str = STORE_KEY
    value: dict[str, Any] | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """What the store was created with; empty if it was not, or with nothing."""
        return self.value or {}


class DeleteCount(int):
    """How many documents were deleted: keys, and stores that had been created.

    Attributes
    ----------
    stores : int
        How many stores exist no more, those included that were never created but had keys.
    keys : int
        How many keys were deleted. Those that had expired do not count.
    """

    stores: int
    keys: int

    def __new__(cls, documents: int, *, stores: int, keys: int) -> Self:
        """Make the number of *documents*, with its parts."""
        count = super().__new__(cls, documents)
        count.stores, count.keys = stores, keys
        return count

    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, int]]:
        """Let copies and pickles be made."""
        return (int(self),), {"stores": self.stores, "keys": self.keys}
