"""What each row has for a result: a file on the disk, or a value in the row itself."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from entropic.sql.columns import ID_LENGTH, LONG_TEXT, ByteString, LibraryBase

__all__ = ["FileRow"]


class FileRow(LibraryBase):
    """The result of one row: its file or folder, or its value; and what it must be, to the byte."""

    __tablename__ = "entropic_files"

    table_name: Mapped[str] = mapped_column(ByteString(128), primary_key=True)
    record_id: Mapped[str] = mapped_column(ByteString(ID_LENGTH), primary_key=True)
    attempt: Mapped[str | None] = mapped_column(ByteString(32))
    """The attempt that wrote it; NULL for a registered file."""
    name: Mapped[str | None] = mapped_column(LONG_TEXT)
    """Relative to the results folder; absolute for a registered file outside it; NULL for a value in its row."""
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(ByteString(64))
