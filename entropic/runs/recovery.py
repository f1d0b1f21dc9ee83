"""After a crash: commit what was finished, and clear away what nobody will finish.

The sidecars say what was finished, the table of attempts what of it is settled. Whatever is neither settled nor
superseded is published under its claim, as its own process would have done; a claim that somebody alive holds is left
alone. A process's folder goes when the process is gone (`abandoned`) and all its lines are settled. Whose runs are not
believed is not read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.exc import OperationalError, StatementError

from entropic.disk.files import remove
from entropic.disk.names import is_name
from entropic.disk.owners import Stranger, strangers
from entropic.disk.roots import STATE, quarantine
from entropic.disk.sidecars import Sidecar, clear_away, count_lines, process_folders, read_sidecar
from entropic.disk.staging import is_of_sweep, move, own_staging
from entropic.leases.claims import CHUNK, Grant
from entropic.model.base import table_key
from entropic.process.logs import get_logger
from entropic.process.raised import note_on
from entropic.runs.abandoned import is_abandoned, is_at_work
from entropic.runs.attempts import UNREAD, index_of
from entropic.runs.durable import sync_runs
from entropic.runs.holding import Holding
from entropic.runs.jobs import Receipt
from entropic.runs.result_table import ResultTable
from entropic.sql.tables import FileRow
from entropic.sql.upsert import chunks

__all__ = ["leftovers", "recover", "take_in_values", "unfinished", "unreadable"]

log = get_logger(__name__)

_files: Any = FileRow.__table__
_ROW_FAULTS = (StatementError, ValueError, TypeError, OverflowError, RecursionError)

_said: dict[str, list[Stranger]] = {}  # by results folder: whom a warning has named


def recover(table: ResultTable[Any], *, held: dict[str, str] | None = None) -> int:
    """Commit the finished runs that nobody committed, and clear away what processes that are gone left.

    Parameters
    ----------
    held : dict, optional
        Tokens of claims that the caller holds. Those that are used up are taken out.

    Returns
    -------
    int
        How many rows were committed.

    Raises
    ------
    OSError
        If something could not be recovered; with *held*, if it is of one of these keys. All else is, by then.

    Notes
    -----
    Safe to call from several processes at once: each line is published under its key's claim.
    """
    _warn_of_strangers(table.root)
    count = 0
    asked = None if held is None else set(held)
    held = {} if held is None else held
    trouble: dict[str, OSError] = {}  # by key: a full disk, or what this user may not read
    for folder in process_folders(table.root):
        sidecar = read_sidecar(folder)
        if is_at_work(sidecar):
            continue
        unread: dict[str, OSError] = {}
        try:
            count += _recover_lines(table, sidecar, held, unread)
        except OSError as error:  # the others may be there all the same
            unread |= dict.fromkeys([str(line.get("record_id")) for line in sidecar.lines] or [""], error)
        if unread:
            log.warning(
                "what a process left in %r could not be recovered, and stays there; store.recover() tries again: %s",
                str(folder),
                next(iter(unread.values())),
            )
            trouble |= unread
        else:
            _clear_if_done(table, sidecar)
    kept = set(held.values())
    left = [holder for holder in table.claims.abandoned() if holder.token not in kept]
    table.endings.lose([(holder, None) for holder in left])
    if left:
        first = min(left, key=lambda holder: holder.record_id)
        more = f", and {len(left) - 1} more" if len(left) > 1 else ""
        log.info("freed %s, which %s had begun and not finished%s", first.record_id, first, more)
    # What is finished must not be run again because it could not be read.
    if reasons := [reason for key, reason in trouble.items() if asked is None or key in asked]:
        raise reasons[0]
    return count


def _clear_if_done(table: ResultTable[Any], sidecar: Sidecar) -> None:
    try:
        if is_abandoned(table, sidecar) and not _has_work(table, sidecar) and not _foreign(table, sidecar):
            _clear(table, sidecar)
    except OSError as error:  # all that it held is committed: another process may have the right to remove it
        log.warning("what a process left in %r could not be cleared away: %s", str(sidecar.folder), error)


def _has_work(table: ResultTable[Any], sidecar: Sidecar) -> bool:
    """Whether something of a folder is yet to be committed, or moved again."""
    return bool(unfinished(table, sidecar) or _unmoved(table, sidecar))


def _warn_of_strangers(root: Path) -> None:
    """Say once in a process whose folders are not believed: one warning, however many there are."""
    found = strangers(root)
    if found and _said.get(str(root)) != found:
        _said[str(root)] = found
        first, *others = found
        uids = ", ".join(map(str, sorted({other.uid for other in others})))
        more = f" (and {len(others)} more, of uid {uids}: store.check() names all)" if others else ""
        log.warning("%s%s", first, more)


def unfinished(
    table: ResultTable[Any], sidecar: Sidecar, unread: dict[str, OSError] | None = None
) -> list[Receipt]:
    """Return the finished runs of a sidecar that are not settled and whose results are still there.

    Parameters
    ----------
    unread : dict, optional
        Where to put, by its key, why a result cannot be read. Default: that is raised.
    """
    receipts = {receipt.attempt: receipt for receipt in _receipts(table, sidecar)[0]}
    settled = table.endings.settled(list(receipts))
    found = []
    for receipt in (r for attempt, r in receipts.items() if attempt not in settled):
        try:
            if _has_file(table, receipt):
                found.append(receipt)
        except OSError as error:
            if unread is None:
                raise
            note_on(error, UNREAD.format(receipt.record_id))
            unread[receipt.record_id] = error
    return found


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
            except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError):
                failed += 1
                continue
            # A parameter may have been added to the model since.
            complete = loaded.keys() >= set(table.parameters.names)
            failed += not complete
            receipts += [receipt] if complete else []
    return receipts, failed


def _has_file(table: ResultTable[Any], receipt: Receipt) -> bool:
    """Whether the file of a receipt waits in its slot or, after a crash between move and commit, in its place.

    A value, which is in the receipt, waits until its attempt is settled.
    """
    if receipt.is_staged(table.root):
        return True
    # An equal file in its place may as well be that of a row, which another run committed.
    return receipt.placed(table.root) is not None and _is_wanted(table, receipt)


def _recover_lines(
    table: ResultTable[Any],
    sidecar: Sidecar,
    held: dict[str, str],
    unread: dict[str, OSError] | None = None,
) -> int:
    receipts = unfinished(table, sidecar, unread)
    unmoved = [receipt for receipt, _ in _unmoved(table, sidecar)]
    if not (receipts or unmoved):
        return 0
    count, recovered = 0, set()
    with _Taken(table, held) as taken:
        taken.acquire({receipt.record_id for receipt in receipts + unmoved})
        if unmoved:
            _move_again(table, sidecar, taken)
        with table.heartbeat.beating(is_run_here=False):  # there may be thousands
            # Not before they are ours: what a process that lives on another host has finished is for that to sync.
            for receipt in _synced(table, [receipt for receipt in receipts if receipt.record_id in taken]):
                key = receipt.record_id
                if key in recovered:  # a run, and now its re-run
                    taken.acquire([key])
                if key in taken and _recover_line(table, receipt, taken):
                    count += 1
                    recovered.add(key)
    if recovered:
        first, *others = sorted(recovered)
        more = f" and {len(others)} more" if others else ""
        log.warning("recovered %s%s, which process %s had finished", first, more, sidecar.process.get("pid"))
    return count


def take_in_values(table: ResultTable[Any], held: dict[str, str], skip: str) -> None:
    """Commit the values that processes which live have finished under keys that are *held* now, and nobody committed.

    Files that lie there so are taken by whoever runs the key next; of a value nothing but the database tells whether
    it was committed before.

    Parameters
    ----------
    held : dict
        Tokens by key. Those that are used up are taken out.
    skip : str
        The folder in which this process itself writes.
    """
    index = index_of(table.root)
    index.refresh(skip=skip)
    folders: dict[str, list[dict[str, Any]]] = {}
    for key in held:
        for line in index.get(key):
            if line.get("value") is not None and line["folder"] != skip:
                folders.setdefault(line["folder"], []).append(line)
    for folder, lines in folders.items():
        where = lines[0].get("where")
        process = where if isinstance(where, dict) else {}
        _recover_lines(table, Sidecar(table.root / STATE / folder, process, lines, 0), held)


def _synced(table: ResultTable[Any], receipts: list[Receipt]) -> list[Receipt]:
    """Bring what nobody may have brought there to the disk, all together; leave out what the disk does not keep."""
    trouble = sync_runs(table.root, receipts)
    for receipt in receipts:
        if receipt.attempt in trouble and receipt.value is not None:
            log.warning(
                "%s could not be brought to the disk: %s", receipt.record_id, trouble[receipt.attempt]
            )
        elif receipt.attempt in trouble:
            kept = quarantine(receipt.path(table.root))
            log.warning(
                "%s, which had finished, could not be brought to the disk (%s), and is kept in %r",
                receipt.record_id,
                trouble[receipt.attempt],
                str(kept),
            )
    return [replace(receipt, is_synced=True) for receipt in receipts if receipt.attempt not in trouble]


def _unmoved(table: ResultTable[Any], sidecar: Sidecar) -> list[tuple[Receipt, str]]:
    """Return committed runs whose files lie in their slots, each with the name that its row gives the file.

    The database may keep a commit through a power cut, and the file system lose the move that came before.
    """
    staged = {
        receipt.attempt: receipt
        for receipt in _receipts(table, sidecar)[0]
        if receipt.value is None and os.path.lexists(receipt.path(table.root))
    }
    names: dict[str, str] = {}
    statement = select(_files.c.attempt, _files.c.name).where(
        _files.c.table_name == table_key(table.model),
        _files.c.attempt.in_(bindparam("attempts", expanding=True)),
    )
    for some in chunks(staged, CHUNK):

        def look(connection: Connection, attempts: list[str] = some) -> None:
            names.update(
                (row.attempt, row.name) for row in connection.execute(statement, {"attempts": attempts})
            )

        table.database.read(look)
    found = [(staged[attempt], name) for attempt, name in names.items() if is_name(name)]
    return [
        (receipt, name)
        for receipt, name in found
        if receipt.is_at(receipt.path(table.root)) and not receipt.is_at(table.root / name)
    ]


def _move_again(table: ResultTable[Any], sidecar: Sidecar, keys: _Taken) -> None:
    """Move what a power cut put back into its slot to its place again, but for keys that somebody else is at."""
    for receipt, name in _unmoved(table, sidecar):  # under the claims: a run again may have come between
        if receipt.record_id in keys:
            move(receipt.path(table.root), table.root / name)
            log.warning("%s is in its place again, from where a power cut had taken it", table.root / name)


class _Taken(Holding):
    """The claims that one recovery takes, besides those that it was given.

    Parameters
    ----------
    given : dict
        Tokens by key. Those that are used up are taken out.
    """

    def __init__(self, table: ResultTable[Any], given: dict[str, str]) -> None:
        super().__init__(table)
        self._table = table
        self._given = given
        self._grants: dict[str, Grant] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._given or key in self._tokens

    def acquire(self, wanted: Iterable[str]) -> dict[str, Grant]:
        """Claim those of *wanted* that are not held, and that nobody alive is at."""
        grants = super().acquire(key for key in wanted if key not in self)
        self._grants |= grants
        return grants

    def pair(self, key: str) -> tuple[str, str]:
        return (key, self._given[key]) if key in self._given else super().pair(key)

    def forget(self, key: str) -> None:
        if self._given.pop(key, None) is None:
            super().forget(key)

    def __exit__(self, *error: object) -> None:
        """Give back what was taken and not used up, and record what was lost with those that it was taken over from."""
        left = [grant for key, grant in self._grants.items() if self._tokens.get(key) == grant.token]
        super().__exit__(*error)
        self._table.endings.lose([(grant.former, None) for grant in left if grant.former is not None])


def _recover_line(table: ResultTable[Any], receipt: Receipt, taken: _Taken) -> bool:
    """Commit one finished run, which uses up the token of its key, or drop it; return whether it was committed.

    What is raised leaves the token for whoever gives it back.
    """
    # Before we had the claim, another one may have committed it, and deleted the row.
    is_settled = bool(table.endings.settled([receipt.attempt]))
    if is_settled or not _is_wanted(table, receipt):
        if receipt.value is None:
            remove(receipt.path(table.root))
        elif not is_settled:
            table.endings.drop(receipt, "there was another result by then")
        return False
    try:
        lost, refused = table.publisher.publish([(receipt, taken.pair(receipt.record_id)[1])], table.code)
    except OperationalError:
        raise
    except _ROW_FAULTS as error:  # no row can be made of what it says, which does not keep the others
        log.warning(
            "%s, which had finished, cannot be made a row, and is left alone: %s", receipt.record_id, error
        )
        return False
    taken.forget(receipt.record_id)
    return not (lost or refused)


def _is_wanted(table: ResultTable[Any], receipt: Receipt) -> bool:
    rows = table.reader.find((receipt.record_id,))
    if not rows:
        return True
    stored = rows[0].sha256
    if stored == receipt.staged.sha256:
        # The row has this result already; but a run again may have had other outputs, or been for want of the file.
        # Only with a file of its own: once that was moved, nothing tells such a run from one that was dropped before
        # this row was written, and the row, whose bytes are the same, stays. (Of a value the dropping is recorded.)
        is_again = receipt.replaces is not None and receipt.is_staged(table.root)
        digest = receipt.staged.size_bytes, receipt.staged.sha256
        return is_again and (stored == receipt.replaces or not table.reader.holds(rows[0], *digest))
    return stored is not None and stored == receipt.replaces


def _foreign(table: ResultTable[Any], sidecar: Sidecar) -> bool:
    return any(
        (line.get("database"), line.get("table")) != (table.marker.database, table.marker.table)
        for line in sidecar.lines
    )


def _clear(table: ResultTable[Any], sidecar: Sidecar) -> None:
    table.publisher.flush()  # a commit that a power cut could undo must not be all that is left
    if lines := unreadable(table, sidecar):
        kept = quarantine(sidecar.folder)
        log.warning("%d lines of a sidecar cannot be read; it is kept in quarantine: %r", lines, str(kept))
    else:
        clear_away(sidecar.folder)


def leftovers(table: ResultTable[Any], sweep: str, committed: Mapping[str, int]) -> None:
    """Clear away the folders of a sweep that has ended, all of whose outcomes were handed over.

    Parameters
    ----------
    committed : mapping
        How many runs of each folder, by its name, were committed. Where there are as many lines, all of them were.
    """
    folders = [folder for folder in process_folders(table.root) if is_of_sweep(folder.name, sweep)]
    if not folders:
        return
    table.publisher.flush()
    own = own_staging(table.root, sweep)  # which knows without a look whether all its lines were committed
    own.close()
    for folder in folders:
        if not folder.is_dir() or (folder.name == own.folder.name and own.is_in_use()):
            continue  # the latter when a thread goes on with a run of a sweep that was given up
        is_done = committed.get(folder.name) == count_lines(folder)
        if is_done or not unfinished(table, read_sidecar(folder)):
            clear_away(folder)
