"""The user's tables: how their keys are made, and where their results lie."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from entropic.sql.columns import LONG_TEXT, ByteString, FiniteJSON, LibraryBase

__all__ = ["TableRow"]


class TableRow(LibraryBase):
    """One table of the user's, as the last Store that changed it registered it."""

    __tablename__ = "entropic_tables"

    table_name: Mapped[str] = mapped_column(ByteString(128), primary_key=True)
    key_rule: Mapped[int]
    """Version of the rule that makes keys of parameters."""
    parameters: Mapped[dict[str, Any]] = mapped_column(FiniteJSON())
    """``{name: {"type": ..., "default": ...}}``; ``default`` is absent where there is none.

    What is in no key, or once was in none, is ``{"ignored": True}``.
    """
    root: Mapped[str | None] = mapped_column(ByteString(32))
    """uuid of the results folder."""
    results_dir: Mapped[str | None] = mapped_column(LONG_TEXT)
    """The folder, as the Store that made or adopted it saw it: for people."""
    created_at: Mapped[datetime]
