"""Rows that a database refuses, and how to spell what it would refuse to be told of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from entropic.runs.jobs import Failure, Receipt
from entropic.sql.tables import AttemptRow

__all__ = ["refused", "spellings", "storable"]

_attempts: Any = AttemptRow.__table__
_KEYS = {"id", "table_name", "record_id", "state"}  # as they are, or they would be another's
_LONGEST = 2000  # characters of a text that was too long


def refused(receipt: Receipt, error: Exception, kept: Path | None) -> Failure:
    """Return as what a finished run is recorded whose row the database refuses.

    Parameters
    ----------
    kept : Path or None
        Where its file is now.
    """
    where = "its file is gone" if kept is None else f"its file is kept in {str(kept)!r}"
    if receipt.value is not None:
        where = f"it had returned {receipt.value}"
    error.add_note(
        f"The run of {receipt.record_id} has finished, but the database refuses its row; {where}. Put the model, the "
        "table or the runner right; the next call runs it again"
    )
    reason = getattr(error, "orig", None) or error
    return receipt.as_failure(error, f"the database refuses the row: {reason}; {where}")


def storable(text: str) -> str:
    """Return *text* with what some database would refuse written as escapes: a failure is not lost for its message."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")


def spellings(attempt: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield *attempt* in plainer and plainer words: short ones, in ASCII, and in the end without its parameters."""
    plain = {
        name: _plain(value, _attempts.c[name].type.length) if isinstance(value, str) else value
        for name, value in attempt.items()
    }
    plain |= {name: attempt[name] for name in _KEYS}
    yield plain
    yield {**plain, "params": {}}


def _plain(text: str, length: int | None) -> str:
    ascii_only = text[:_LONGEST].encode("ascii", errors="backslashreplace").decode().replace("\0", "\\0")
    return ascii_only[:length]
