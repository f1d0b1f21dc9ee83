"""Values and metadata on their way into rows, and the documents that are made of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from entropic.errors import DecodeError
from entropic.execution_store.arguments import EPOCH, check_ttl, expiry, policy_of
from entropic.execution_store.documents import KeyDocument, KeyPolicy, StoreDocument
from entropic.sql.database import Database
from entropic.sql.outages import bytes_of
from entropic.values.inline import from_text, to_text

__all__ = [
    "Lifetime",
    "key_document",
    "metadata_text",
    "store_document",
    "value_from",
    "value_of",
    "value_text",
]

LONGEST = 900_000_000  # bytes of a value: SQLite and PostgreSQL take a little more
LARGE = 1 << 20  # below that every server takes a statement
ROOM = 1 << 12  # for the rest of the statement


@dataclass(frozen=True)
class Lifetime:
    """A time to live and a policy that a caller gave for a key; None leaves each as it is."""

    ttl: float | None
    policy: KeyPolicy | None

    @classmethod
    def of(cls, ttl: Any, policy: Any) -> Lifetime:
        """Make one of what a caller gave.

        Raises
        ------
        ValueError
            If it is no time to live, or no policy.
        """
        if ttl is None and type(policy) is str and policy in _WITHOUT_END:
            return _WITHOUT_END[policy]
        return cls(check_ttl(ttl), None if policy is None else policy_of(policy))

    def of_new(self, now: int) -> dict[str, Any]:
        """Return the columns of a key that is written at *now*."""
        policy = KeyPolicy.EVICT if self.ttl is not None else self.policy or KeyPolicy.PERSIST
        return {"expires_us": expiry(now, self.ttl), "policy": policy.value}

    def of_changed(self, now: int) -> dict[str, Any]:
        """Return the columns that change of a key that is there at *now*."""
        if self.ttl is not None:
            return self.of_new(now)
        if self.policy is KeyPolicy.PERSIST:  # it is never removed by itself
            return self.of_new(now)
        return {} if self.policy is None else {"policy": self.policy.value}


_WITHOUT_END = {one.value: Lifetime(None, one) for one in KeyPolicy}


def value_text(database: Database, value: Any) -> str:
    """Return *value* as the text that is stored.

    Raises
    ------
    TypeError
        If it cannot be written so that every process reads the same.
    ValueError
        If the database takes no text as long.
    """
    text = to_text(value)
    if len(text) <= LARGE:
        return text
    limit, way = LONGEST, ""
    if database.dialect in {"mysql", "mariadb"}:
        # Asked before: the server hangs up on what is too large, and with it the transaction is lost.
        ask = "SELECT @@max_allowed_packet"
        limit = database.read(lambda connection: connection.exec_driver_sql(ask).scalar_one()) - ROOM
        way = ", or raise the server's max_allowed_packet"
    size = bytes_of({"value": text})
    if size > limit:
        raise ValueError(
            f"the value takes {size} bytes in a statement, and this database takes {limit}: store it as a file and "
            f"keep the file's name here{way}"
        )
    return text


def metadata_text(database: Database, metadata: Mapping[str, Any] | None) -> str | None:
    """Return a store's metadata as the text that is stored.

    Raises
    ------
    TypeError
        If they are no dict, or hold what `value_text` refuses.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise TypeError(f"the metadata of a store are a dict, not {metadata!r:.100}")
    return value_text(database, dict(metadata))


def value_of(row: Any, store_name: str) -> Any:
    """Return the value of a key's row.

    Raises
    ------
    DecodeError
        If this release writes no such text.
    """
    return value_from(row.value, row.name, store_name)


def value_from(text: str, key: str, store_name: str) -> Any:
    """Return the value of which a key's row has the text, as `value_of`."""
    try:
        return from_text(text)
    except DecodeError as error:
        raise DecodeError(
            f"the value of the key {key!r} in the store {store_name!r} cannot be read: {error}"
        ) from error


def key_document(row: Any, store_name: str, dataset_id: str | None) -> KeyDocument:
    """Return the document of a key's row."""
    return KeyDocument(
        store_name,
        row.name,
        value_of(row, store_name),
        dataset_id=dataset_id,
        created_at=_time(row.created_us),
        updated_at=_maybe_time(row.updated_us),
        expires_at=_maybe_time(row.expires_us),
        policy=KeyPolicy(row.policy),
    )


def store_document(row: Any) -> StoreDocument:
    """Return the document of a store's row; one that was not created is as old as its oldest key."""
    return StoreDocument(
        row.name,
        value=None if row.document is None else from_text(row.document),
        dataset_id=row.scope or None,
        created_at=_time(row.first_us if row.created_us is None else row.created_us),
        updated_at=_maybe_time(row.updated_us),
        policy=KeyPolicy(row.policy),
    )


def _time(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def _maybe_time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _time(microseconds)
