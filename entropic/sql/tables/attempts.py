"""Every execution of a runner, written when it ended as far as the claim's holder knows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from entropic.sql.columns import ID_LENGTH, LONG_TEXT, ByteString, FiniteJSON, LibraryBase

__all__ = ["CANCELLED", "COMPLETED", "FAILED", "LOST", "AttemptRow"]

COMPLETED, FAILED, CANCELLED, LOST = "COMPLETED", "FAILED", "CANCELLED", "LOST"


class AttemptRow(LibraryBase):
    """One execution. RUNNING is no state here: that is what a claim says."""

    __tablename__ = "entropic_attempts"

    id: Mapped[str] = mapped_column(ByteString(32), primary_key=True)
    table_name: Mapped[str] = mapped_column(ByteString(128))
    record_id: Mapped[str] = mapped_column(ByteString(ID_LENGTH))
    state: Mapped[str] = mapped_column(ByteString(16))
    params: Mapped[dict[str, Any]] = mapped_column(FiniteJSON())
    owner: Mapped[str | None] = mapped_column(ByteString(32))
    host: Mapped[str | None] = mapped_column(ByteString(255))
    pid: Mapped[int | None]
    worker: Mapped[str | None] = mapped_column(ByteString(255))
    batch_job: Mapped[str | None] = mapped_column(ByteString(255))
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime]
    exit_code: Mapped[int | None]
    error_type: Mapped[str | None] = mapped_column(ByteString(255))
    message: Mapped[str | None] = mapped_column(LONG_TEXT)
    traceback: Mapped[str | None] = mapped_column(LONG_TEXT)
    code: Mapped[str | None] = mapped_column(ByteString(32))
    """Digest of the runner's source, as `entropic.process.provenance.code_label` makes it."""
    git_commit: Mapped[str | None] = mapped_column(ByteString(64))
    git_dirty: Mapped[bool | None]

    __table_args__ = (Index(None, "table_name", "record_id"), Index(None, "table_name", "state", "code"))
