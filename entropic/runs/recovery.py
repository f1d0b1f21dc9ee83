"""After a crash: commit what was finished, and clear away what nobody will finish.

The sidecars say what was finished, the table of attempts what of it is settled. Whatever is neither settled nor
superseded is published under its claim, as its own process would have done; a claim that somebody alive holds is left
alone. A process's folder goes when the process is gone and all its lines are settled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from entropic.disk.files import remove
from entropic.disk.roots import quarantine
from entropic.disk.sidecars import Sidecar, clear_away, process_folders, read_sidecar
from entropic.disk.staging import Staging
from entropic.leases.claims import new_token
from entropic.process.identity import Process, this_process
from entropic.runs.jobs import Receipt
from entropic.runs.result_table import ResultTable

__all__ = ["is_abandoned", "leftovers", "recover", "unfinished", "unreadable"]

log = logging.getLogger(__name__)

_PROCESS_FIELDS = [field.name for field in fields(Process)]


def recover(table: ResultTable[Any], *, held: Mapping[str, str] | None = None) -> int:
    """Commit the finished runs that nobody committed, and clear away what processes that are gone left.

    Parameters
    ----------
    held : mapping, optional
        Tokens of claims that the caller holds and that may be used up.

    Returns
    -------
    int
        How many rows were committed.

    Notes
    -----
    Safe to call from several processes at once: each line is published under its key's claim.
    """
    count = 0
    for folder in process_folders(table.root):
        sidecar = read_sidecar(folder)
        if _is_at_work(sidecar):
            continue
        count += _recover_lines(table, sidecar, held or {})
        if is_abandoned(table, sidecar) and not unfinished(table, sidecar) and not _foreign(table, sidecar):
            _clear(table, sidecar)
    kept = set((held or {}).values())
    left = [holder for holder in table.claims.abandoned() if holder.token not in kept]
    table.publisher.lose([(holder, None) for holder in left])
    return count


def unfinished(table: ResultTable[Any], sidecar: Sidecar) -> list[Receipt]:
    """Return the finished runs of a sidecar that are not settled and whose files are still there."""
    receipts = {receipt.attempt: receipt for receipt in _receipts(table, sidecar)[0]}
    settled = table.publisher.settled(list(receipts))
    return [r for attempt, r in receipts.items() if attempt not in settled and _has_file(table, r)]


def unreadable(table: ResultTable[Any], sidecar: Sidecar) -> int:
    """Return how many lines of a sidecar are not JSON, or are this table's and cannot be made rows of it."""
    return sidecar.malformed + _receipts(table, sidecar)[1]


def _receipts(table: ResultTable[Any], sidecar: Sidecar) -> tuple[list[Receipt], int]:
    receipts, failed = [], 0
    for line in sidecar.lines:
        if (line.get("database"), line.get("table")) == (table.marker.database, table.marker.table):
            try:
                receipt = Receipt.from_line({**line, "folder": sidecar.folder.name})
                loaded = table.parameters.load(receipt.stored)
            except (KeyError, TypeError, ValueError, ArithmeticError):
                failed += 1
                continue
            # A parameter may have been added to the model since.
            complete = loaded.keys() >= set(table.parameters.names)
            failed += not complete
            receipts += [receipt] if complete else []
    return receipts, failed


def _has_file(table: ResultTable[Any], receipt: Receipt) -> bool:
    """Whether the file of a receipt waits in its slot or, after a crash between move and commit, in its place."""
    if receipt.is_at(receipt.path(table.root)):
        return True
    # An equal file in its place may as well be that of a row, which another run committed.
    return receipt.is_at(table.root / receipt.final_name) and _is_wanted(table, receipt)


def _recover_lines(table: ResultTable[Any], sidecar: Sidecar, held: Mapping[str, str]) -> int:
    receipts = unfinished(table, sidecar)
    if not receipts:
        return 0
    tokens = dict(held)
    count, recovered = 0, set()
    try:
        tokens |= _acquired(table, {receipt.record_id for receipt in receipts} - held.keys())
        with table.heartbeat.beating(is_run_here=False):  # there may be thousands
            for receipt in receipts:
                key = receipt.record_id
                if key in recovered:  # a run, and now its re-run
                    tokens |= _acquired(table, [key])
                if key in tokens and _recover_line(table, receipt, tokens):
                    count += 1
                    recovered.add(key)
    finally:
        kept = set(held.values())
        table.claims.release([(key, token) for key, token in tokens.items() if token not in kept])
    if recovered:
        first, *others = sorted(recovered)
        more = f" and {len(others)} more" if others else ""
        log.warning("recovered %s%s, which process %s had finished", first, more, sidecar.process.get("pid"))
    return count


def _acquired(table: ResultTable[Any], keys: Iterable[str]) -> dict[str, str]:
    """Return tokens of those of *keys* that nobody alive is at."""
    tokens = {key: new_token() for key in keys}
    try:
        return {key: grant.token for key, grant in table.claims.acquire(tokens, tokens).items()}
    except BaseException:
        table.claims.release(tokens.items())  # some may have been granted
        raise


def _recover_line(table: ResultTable[Any], receipt: Receipt, tokens: dict[str, str]) -> bool:
    """Commit one finished run, which uses up the token of its key, or drop it; return whether it was committed.

    What is raised leaves the token for whoever gives it back.
    """
    # Before we had the claim, another one may have committed it, and deleted the row.
    if table.publisher.settled([receipt.attempt]) or not _is_wanted(table, receipt):
        remove(receipt.path(table.root))
        return False
    lost, refused = table.publisher.publish([(receipt, tokens[receipt.record_id])], table.code)
    del tokens[receipt.record_id]
    return not (lost or refused)


def _is_wanted(table: ResultTable[Any], receipt: Receipt) -> bool:
    rows = table.reader.find((receipt.record_id,))
    if not rows:
        return True
    stored = rows[0].sha256
    if stored == receipt.staged.sha256:
        # The row has this result already; but a run again may have had other outputs, or been for want of the file.
        is_again = receipt.replaces is not None and receipt.is_at(receipt.path(table.root))
        path = Path(table.reader.path(rows[0]))
        return is_again and (stored == receipt.replaces or not receipt.is_at(path))
    return stored is not None and stored == receipt.replaces


def _is_at_work(sidecar: Sidecar) -> bool:
    """Whether both who writes here and who commits it are surely alive: no need to read on."""
    here = this_process()
    writer, holder = _process(sidecar.process), _process(sidecar.process.get("holder") or sidecar.process)
    if writer is None or holder is None or holder.owner == here.owner:
        return False
    return all(process.is_alive() for process in (writer, holder))


def is_abandoned(table: ResultTable[Any], sidecar: Sidecar) -> bool:
    """Whether nobody writes to a folder any more: its process is dead or, where that cannot be seen, silent.

    Silent is who has written nothing for a lease, and holds no claim that is alive, nor does the process for which it
    works: a run of an hour may write at its end only.
    """
    writer = _process(sidecar.process)
    is_alive = None if writer is None else writer.is_alive()
    if is_alive is not None:
        return not is_alive
    try:
        newest = max(path.stat().st_mtime for path in [sidecar.folder, *sidecar.folder.rglob("*")])
    except OSError:
        return False
    if time.time() - newest <= table.claims.lease_s:
        return False
    holder = _process(sidecar.process.get("holder") or {})
    return not table.claims.has_live(process.owner for process in (writer, holder) if process is not None)


def _foreign(table: ResultTable[Any], sidecar: Sidecar) -> bool:
    return any(
        (line.get("database"), line.get("table")) != (table.marker.database, table.marker.table)
        for line in sidecar.lines
    )


def _clear(table: ResultTable[Any], sidecar: Sidecar) -> None:
    table.publisher.flush()  # a commit that a power cut could undo must not be all that is left
    if lines := unreadable(table, sidecar):
        kept = quarantine(sidecar.folder)
        log.warning("%d lines of a sidecar cannot be read; it is kept in quarantine: %s", lines, kept)
    else:
        clear_away(sidecar.folder)


def leftovers(table: ResultTable[Any], sweep: str, own: Staging) -> None:
    """Clear away the folders of a sweep that has ended, all of whose outcomes were handed over.

    Parameters
    ----------
    own : Staging
        This process's part of them, which knows without a look whether all its lines were committed.
    """
    folders = [folder for folder in process_folders(table.root) if folder.name.endswith(f"-{sweep}")]
    if not folders:
        return
    table.publisher.flush()
    own.close()
    for folder in folders:
        if folder.is_dir() and not unfinished(table, read_sidecar(folder)):
            clear_away(folder)


def _process(values: Mapping[str, Any]) -> Process | None:
    try:
        return Process(**{name: values[name] for name in _PROCESS_FIELDS})
    except (KeyError, TypeError):
        return None
