"""What the database says of itself: its uuid, who made its tables, and the oldest code that may use them."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from entropic.sql.columns import ByteString, LibraryBase

__all__ = ["MetaRow"]


class MetaRow(LibraryBase):
    """One fact; the names are ``database``, ``created_by`` and ``needs``."""

    __tablename__ = "entropic_meta"

    name: Mapped[str] = mapped_column(ByteString(64), primary_key=True)
    value: Mapped[str] = mapped_column(ByteString(255))
