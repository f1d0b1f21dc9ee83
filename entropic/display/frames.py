"""Rows as people look at them: plain values in, nothing of SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from entropic.extras import need

if TYPE_CHECKING:
    import pandas

__all__ = ["frame_of"]


def frame_of(records: Iterable[Any], names: Sequence[str], *, index: str = "id") -> pandas.DataFrame:
    """Return a frame with a row for each record and a column for each of its attributes *names*.

    Parameters
    ----------
    index : str
        The attribute by which the rows are called, if it is among the *names*.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    make: type[pandas.DataFrame] = need("pandas", "frames", "to_frame()").DataFrame
    rows = [[getattr(record, name) for name in names] for record in records]
    frame = make(rows, columns=list(names))
    return frame.set_index(index) if index in names else frame
