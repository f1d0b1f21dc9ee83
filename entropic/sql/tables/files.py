"""What lies on disk for each row."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from entropic.sql.columns import ID_LENGTH, LONG_TEXT, ByteString, LibraryBase

__all__ = ["FileRow"]


class FileRow(LibraryBase):
    """The result file or folder of one row."""

    __tablename__ = "entropic_files"

    table_name: Mapped[str] = mapped_column(ByteString(128), primary_key=True)
    record_id: Mapped[str] = mapped_column(ByteString(ID_LENGTH), primary_key=True)
    attempt: Mapped[str | None] = mapped_column(ByteString(32))
    """The attempt that wrote it; NULL for a registered file."""
    name: Mapped[str] = mapped_column(LONG_TEXT)
    """Relative to the results folder; absolute for a registered file outside it."""
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(ByteString(64))
