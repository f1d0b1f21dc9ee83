"""Configs of experiments: a document for each kind and name, and which runs are made of which."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from entropic.sql.columns import ByteString, FiniteJSON, LibraryBase

__all__ = ["ConfigPartRow", "ConfigRow"]


class ConfigRow(LibraryBase):
    """One config, as it was stored."""

    __tablename__ = "entropic_configs"

    id: Mapped[int] = mapped_column(primary_key=True)
    """Rises: names come in the order in which they were stored."""
    kind: Mapped[str] = mapped_column(ByteString(16))
    name: Mapped[str] = mapped_column(ByteString(255))
    type: Mapped[str] = mapped_column(ByteString(255))
    """What the class is called in documents."""
    document: Mapped[dict[str, Any]] = mapped_column(FiniteJSON())
    """As `entropic.values.documents` encodes it."""
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("kind", "name"),)


class ConfigPartRow(LibraryBase):
    """A part of a run, by its role, which is the part's kind."""

    __tablename__ = "entropic_config_parts"

    run_id: Mapped[int] = mapped_column(
        ForeignKey("entropic_configs.id", ondelete="CASCADE"), primary_key=True
    )
    role: Mapped[str] = mapped_column(ByteString(16), primary_key=True)
    name: Mapped[str] = mapped_column(ByteString(255))
    part_id: Mapped[int | None] = mapped_column(ForeignKey("entropic_configs.id"))
    """The part's own config, which cannot go before the run does; NULL if it is not stored."""

    __table_args__ = (Index(None, "part_id"), Index(None, "role", "name"))
