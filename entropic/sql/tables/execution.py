"""Stores of keys and their values, each in the context of a data set or in the global one, and what changed in them.

Not imported with the other tables: a plain Store has no use for them. Times are microseconds since 1970 UTC: the
database compares them with its own clock.
"""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from entropic.sql.columns import LONG_TEXT, ByteString, LibraryBase

__all__ = ["ExecutionEventRow", "ExecutionKeyRow", "ExecutionStoreRow"]

# Elsewhere a ByteString sorts bytewise, too; PostgreSQL sorts as people do unless told otherwise.
SORTED = ByteString(255).with_variant(String(collation="C"), "postgresql")


class ExecutionStoreRow(LibraryBase):
    """A store: it exists if it was created, or has a key that has not expired.

    Its row stays until the last of its events is forgotten, or nobody could tell what was missed.
    """

    __tablename__ = "entropic_execution_stores"

    id: Mapped[int] = mapped_column(primary_key=True)
    scope: Mapped[str] = mapped_column(SORTED)
    """The id of the data set; empty for the global context."""
    name: Mapped[str] = mapped_column(SORTED)
    is_explicit: Mapped[bool]
    """Whether it was created; the columns below are those of such a store."""
    document: Mapped[str | None] = mapped_column(LONG_TEXT)
    """Its metadata, as `entropic.values.inline` writes them."""
    policy: Mapped[str] = mapped_column(ByteString(16))
    created_us: Mapped[int | None]
    updated_us: Mapped[int | None]
    epoch: Mapped[int]
    """A number that is drawn with the row: the store's counter began anew with it."""
    last_event: Mapped[int]
    """How many events there were; who writes one holds this row, so that they are numbered as they are committed."""

    __table_args__ = (UniqueConstraint("scope", "name"),)


class ExecutionKeyRow(LibraryBase):
    """A key of a store and its value; none for readers once it has expired."""

    __tablename__ = "entropic_execution_keys"

    # No ON DELETE CASCADE: the row of a store without keys may go while another process writes one.
    store_id: Mapped[int] = mapped_column(
        ForeignKey("entropic_execution_stores.id"), primary_key=True, autoincrement=False
    )
    name: Mapped[str] = mapped_column(SORTED, primary_key=True)
    policy: Mapped[str] = mapped_column(ByteString(16))
    version: Mapped[int]
    """A number that each writing of the value draws anew, so that none comes back."""
    created_us: Mapped[int]
    updated_us: Mapped[int | None]
    expires_us: Mapped[int | None]
    value: Mapped[str] = mapped_column(LONG_TEXT)
    """As `entropic.values.inline` writes it."""

    __table_args__ = (Index(None, "expires_us"),)


class ExecutionEventRow(LibraryBase):
    """A change in a store. Those of a store are numbered without a gap; the oldest are forgotten first."""

    __tablename__ = "entropic_execution_events"

    store_id: Mapped[int] = mapped_column(
        ForeignKey("entropic_execution_stores.id"), primary_key=True, autoincrement=False
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(SORTED)
    """The key; ``"__store__"`` for the store itself."""
    operation: Mapped[str] = mapped_column(ByteString(16))
    at_us: Mapped[int]
