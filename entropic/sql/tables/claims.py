"""Who is computing what: one row per key that is being run."""

from __future__ import annotations

from sqlalchemy import Double, Index
from sqlalchemy.orm import Mapped, mapped_column

from entropic.sql.columns import ID_LENGTH, ByteString, LibraryBase

__all__ = ["ClaimRow"]


class ClaimRow(LibraryBase):
    """The exclusive right to run and commit one key, until `expires_at`.

    Times are seconds since 1970-01-01 UTC by the *database's* clock.
    """

    __tablename__ = "entropic_claims"

    table_name: Mapped[str] = mapped_column(ByteString(128), primary_key=True)
    record_id: Mapped[str] = mapped_column(ByteString(ID_LENGTH), primary_key=True)
    owner: Mapped[str] = mapped_column(ByteString(32))
    """uuid of the process incarnation."""
    token: Mapped[str] = mapped_column(ByteString(32))
    """uuid of this claim, never used again: what a commit must show."""
    host: Mapped[str] = mapped_column(ByteString(255))
    boot: Mapped[str] = mapped_column(ByteString(128))
    """Boot id and pid namespace: within one, `pid` and `started` tell whether the owner lives."""
    pid: Mapped[int]
    started: Mapped[str] = mapped_column(ByteString(32))
    """Start time of the process, in the kernel's words."""
    acquired_at: Mapped[float] = mapped_column(Double())
    expires_at: Mapped[float] = mapped_column(Double())

    __table_args__ = (Index(None, "owner"),)
