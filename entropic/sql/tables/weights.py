"""Which weights there are, in which file each of them is, and which of a run's were the best."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from entropic.sql.columns import AnyDouble, ByteString, LibraryBase

__all__ = ["BestWeightsRow", "WeightsRow"]


class WeightsRow(LibraryBase):
    """The weights of a run after so many iterations: the row is what makes the file visible."""

    __tablename__ = "entropic_weights"

    run_name: Mapped[str] = mapped_column(ByteString(255), primary_key=True)
    iteration: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    file_name: Mapped[str] = mapped_column(ByteString(255))
    """In the run's folder; never used again."""
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(ByteString(64))
    created_at: Mapped[datetime]


class BestWeightsRow(LibraryBase):
    """Which weights of a run were the best on a data set by a criterion; such weights cannot be deleted."""

    __tablename__ = "entropic_best_weights"

    run_name: Mapped[str] = mapped_column(ByteString(255), primary_key=True)
    dataset: Mapped[str] = mapped_column(ByteString(255), primary_key=True)
    criterion: Mapped[str] = mapped_column(ByteString(255), primary_key=True)
    iteration: Mapped[int]
    score: Mapped[float | None] = mapped_column(AnyDouble())
    """NULL where none was given, and for NaN."""
    created_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(
            ["run_name", "iteration"], ["entropic_weights.run_name", "entropic_weights.iteration"]
        ),
        Index(None, "run_name", "iteration"),  # MySQL would make one of its own
    )
