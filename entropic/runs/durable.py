"""Finished runs on the disk: what is not known to be there is synced before anything of it is committed. No SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from entropic.disk.staging import sync_noted
from entropic.runs.jobs import Failure, Receipt

__all__ = ["not_kept", "sync_runs"]


def sync_runs(root: Path, receipts: Iterable[Receipt]) -> dict[str, OSError]:
    """Bring finished runs to the disk that are not known to be there; return by attempt which are not, and why."""
    by_folder: defaultdict[str, dict[str, Path | None]] = defaultdict(dict)
    for receipt in receipts:
        if not receipt.is_synced:
            by_folder[receipt.folder][receipt.attempt] = (
                None if receipt.value is not None else receipt.path(root)
            )
    trouble: dict[str, OSError] = {}
    for folder, results in by_folder.items():
        trouble |= sync_noted(root, folder, results)
    return trouble


def not_kept(receipt: Receipt, error: OSError) -> Failure:
    """Return as what a finished run is recorded whose result could not be brought to the disk."""
    error.add_note(
        f"The run of {receipt.record_id} has finished, but its result could not be brought to the disk. Make room, or "
        "have the disk looked at; the next call runs it again"
    )
    return receipt.as_failure(error, f"the result could not be brought to the disk: {error}")
