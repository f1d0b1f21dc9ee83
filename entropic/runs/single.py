"""One run, from a miss to its row: claim, attempt, publish and commit; or wait for whoever is at it.

How a key is claimed and what becomes of the claim is `tenure`'s, the wait for it `turns`'; here is its run in this
thread.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from entropic.disk.staging import own_staging
from entropic.errors import ClaimLostError, ResultsDirUnavailableError
from entropic.model.identities import Identity
from entropic.model.records import Found
from entropic.process.identity import this_process
from entropic.process.logs import get_logger
from entropic.process.patience import Patience
from entropic.process.termination import terminable
from entropic.runs.attempts import Runner, Work
from entropic.runs.jobs import Failure, Job, NotBegun, Outcome, Receipt
from entropic.runs.result_table import ResultTable
from entropic.runs.tenure import Claimed, Tenure
from entropic.runs.turns import Turn
from entropic.sql.outages import without_waiting

__all__ = ["RunMaker", "clear_away"]

log = get_logger(__name__)

# By root: the Stores may be gone when the process ends, the folders are not.
_used: dict[str, ResultTable[Any]] = {}


@dataclass(frozen=True, slots=True)
class RunMaker:
    """Makes runs of one table in this process."""

    table: ResultTable[Any]
    runner: Runner
    patience: Patience

    def obtain(
        self, identity: Identity, found: Found | None, custom: Mapping[str, Any], *, is_forced: bool
    ) -> Found:
        """Run *identity* and return its row, or that which another process committed meanwhile.

        Parameters
        ----------
        found : Found or None
            The row that there is: to be replaced if *is_forced*, else one whose file is gone.
        is_forced : bool
            Run even if there is a result by now.
        """
        table = self.table
        table.database.refuse_block("a run", f"run {identity.id!r} first, then open the block")
        table.require_root()
        if found is not None and not is_forced:
            table.refuse_registered(found)
            log.warning("the result of %s is gone (%s): it is run again", found.id, table.reader.place(found))
        record_id = identity.key_of_run(None if found is None else found.id)
        with terminable(), Tenure(table) as tenure:
            claimed = self._claim(tenure, identity, record_id, is_forced=is_forced)
            if record_id in claimed.done:
                return claimed.done[record_id]
            with table.heartbeat.beating():
                replaced = claimed.granted[record_id]
                job = table.job(identity, record_id, replaced, custom=custom, look=not is_forced)
                table.database.rest()
                self._run(job, tenure)
        return self._committed(identity, record_id)

    def register(
        self, identity: Identity, path: Path, shown: str, custom: Mapping[str, Any], *, overwrite: bool
    ) -> None:
        """Make a file that was computed elsewhere the result of *identity*, once nobody runs it.

        Inside a transaction the claim is part of it, which nobody sees before it is gone again.
        """
        table = self.table
        if (problem := table.root_problem()) is not None:  # what was finished under its key is taken in first
            raise ResultsDirUnavailableError(problem)
        with terminable(), Tenure(table) as tenure:
            claimed = self._claim(tenure, identity, identity.id, is_forced=True)
            is_seen = not table.database.is_in_block
            # Not only a runner takes its time: so does the digest of a large file.
            with table.heartbeat.beating(is_run_here=False) if is_seen else nullcontext():
                found = claimed.granted[identity.id]
                if found is not None and not overwrite:  # whoever had the key before had finished
                    table.refuse_other_file(found, path)
                tenure.register(identity, path, shown, custom)

    def _claim(self, tenure: Tenure, identity: Identity, record_id: str, *, is_forced: bool) -> Claimed:
        """Wait until the key is ours or, unless *is_forced*, somebody else has committed it."""

        def attempt() -> Claimed | None:
            claimed = tenure.claim({record_id: identity}, is_forced=is_forced)
            return claimed if claimed.granted or claimed.done else None

        return Turn(self.table.database, self.table, self.patience).wait(record_id, tenure, attempt)

    def _run(self, job: Job, tenure: Tenure) -> None:
        """Run *job* and commit it; if it fails or is interrupted, record that and give the key back."""
        table = self.table
        _used[table.marker.root] = table
        work = Work(self.runner, str(table.root), table.marker, holder=this_process().as_dict())
        started_at = datetime.now(UTC)
        ended: list[Outcome | NotBegun] = []
        try:
            (outcome,) = work([job], outcomes=ended)
            if isinstance(outcome, Receipt):
                self._publish(outcome, tenure)
        except BaseException:
            if ended:
                tenure.leave(one for one in ended if isinstance(one, Receipt))
            else:
                tenure.cancel(job, started_at)
            raise
        if isinstance(outcome, Failure):
            tenure.fail([outcome])
            raise outcome.error()
        if isinstance(outcome, NotBegun):
            raise ClaimLostError(f"{job.record_id!r} was not begun: its claim is not this call's any more")

    def _publish(self, receipt: Receipt, tenure: Tenure) -> None:
        table = self.table
        lost, refused = tenure.publish([receipt])
        staging = own_staging(table.root)
        if receipt.folder == staging.folder.name and staging.settle():
            table.publisher.flush()
            staging.forget()
        if refused:
            raise refused[0].error()
        if lost:
            error = ClaimLostError(
                f"{receipt.record_id!r} was taken over while it ran: this process was silent for longer than its "
                f"lease of {table.claims.lease_s:g} s. Its result was not published"
            )
            found = next(iter(table.reader.find((receipt.record_id,))), None)
            error.record = None if found is None else table.reader.record(found)
            raise error

    def _committed(self, identity: Identity, record_id: str) -> Found:
        found = self.table.reader.find((record_id,))
        if not found:
            raise ClaimLostError(
                f"the row of {record_id!r} was deleted by another process right after its commit: call again if it was "
                "not meant to be"
            )
        # What was published may be a run that another process had finished under this id.
        self.table.parameters.verify(identity, found[0].row)
        return found[0]


def clear_away(table: ResultTable[Any]) -> None:
    """Remove this process's own folder if all that it held is committed."""
    # The database or the folder may be gone; recover() knows what to make of the rest.
    with suppress(Exception):
        staging = own_staging(table.root)
        if staging.folder.is_dir() and table.has_root():
            table.publisher.flush()
            staging.close()


@atexit.register
def _clear_all_away() -> None:
    with without_waiting():
        for table in list(_used.values()):
            clear_away(table)
