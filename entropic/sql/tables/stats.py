"""What trainings leave behind: losses, scores of validations and metrics of the user's, each run's under a number.

Not imported with the other tables: a plain Store has no use for them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from entropic.sql.columns import LONG_TEXT, AnyDouble, ByteString, FiniteJSON, LibraryBase

__all__ = ["LabelRow", "MetricRow", "ScoreRow", "StatsRunRow", "TrainingRow", "ValidationRow"]

# The rows of a run lie together in the primary key's order, and are written once: SQLite keeps a second copy otherwise.
_CLUSTERED: dict[str, Any] = {"sqlite_with_rowid": False}


class StatsRunRow(LibraryBase):
    """The number of a run, and what writers of its statistics lock. Never deleted."""

    __tablename__ = "entropic_stats_runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(ByteString(255))

    __table_args__ = (UniqueConstraint("name"),)


class TrainingRow(LibraryBase):
    """One iteration of a training. NULL is NaN."""

    __tablename__ = "entropic_training_stats"

    run_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    iteration: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    loss: Mapped[float | None] = mapped_column(AnyDouble())
    time: Mapped[float | None] = mapped_column(AnyDouble())

    __table_args__ = (_CLUSTERED,)


class ValidationRow(LibraryBase):
    """One validation, after a number of iterations."""

    __tablename__ = "entropic_validations"

    run_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    iteration: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shape: Mapped[list[Any]] = mapped_column(FiniteJSON())
    """How many scores there are for each data set and each parameters of it: what makes nested lists of them again."""

    __table_args__ = (_CLUSTERED,)


class ScoreRow(LibraryBase):
    """One score of a validation. NULL is NaN."""

    __tablename__ = "entropic_validation_scores"

    run_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    iteration: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Among the scores of the validation, data set by data set and parameters by parameters."""
    dataset: Mapped[int | None]
    """Number of its label, as the next two; NULL where it was given none."""
    parameters: Mapped[int | None]
    criterion: Mapped[int | None]
    score: Mapped[float | None] = mapped_column(AnyDouble())

    __table_args__ = (_CLUSTERED,)


class LabelRow(LibraryBase):
    """What a number stands for among the scores and metrics of one run."""

    __tablename__ = "entropic_stats_labels"

    run_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    axis: Mapped[str] = mapped_column(ByteString(16), primary_key=True)
    """``"dataset"``, ``"parameters"``, ``"criterion"`` or ``"metric"``; of the last that was deleted ``"gone …"``."""
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str] = mapped_column(LONG_TEXT)
    higher_is_better: Mapped[bool | None]
    """Of a criterion."""


class MetricRow(LibraryBase):
    """One value of a metric of the user's. NULL is NaN."""

    __tablename__ = "entropic_metrics"

    run_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    metric: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Number of its label."""
    iteration: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float | None] = mapped_column(AnyDouble())

    __table_args__ = (_CLUSTERED,)
