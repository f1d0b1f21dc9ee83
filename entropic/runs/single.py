"""One run, from a miss to its row: claim, attempt, publish and commit; or wait for whoever is at it.

Between the look-up and the claim another process may have finished the key, so it is looked up once more under the
claim. Whatever ends a run early, the runner's own exception included, gives the key back.
"""

from __future__ import annotations

import atexit
import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from entropic.disk.names import safe_name
from entropic.disk.staging import Staging, staging_for
from entropic.errors import ClaimLostError, ClaimTimeoutError
from entropic.leases.claims import Grant, new_token
from entropic.model.parameters import Identity
from entropic.model.records import Found
from entropic.process.identity import this_process
from entropic.process.termination import Terminated, terminable
from entropic.runs.attempts import Runner, Work
from entropic.runs.jobs import Failure, Job, Receipt
from entropic.runs.recovery import recover
from entropic.runs.result_table import ResultTable

__all__ = ["RunMaker"]

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 2.0
_SAY_AFTER_S = 2.0

_running = threading.local()  # .keys: what this thread runs just now, so that it never waits for itself
_uncommitted: set[tuple[str, str]] = set()  # by root, keys whose finished run this process could not commit
_used: dict[
    str, ResultTable[Any]
] = {}  # by root: the Stores may be gone when the process ends, the folders are not


@dataclass(frozen=True, slots=True)
class RunMaker:
    """Makes runs of one table in this process."""

    table: ResultTable[Any]
    runner: Runner
    suffix: str
    wait_timeout_s: float | None

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
        self.table.require_root()
        if found is not None and not is_forced:
            self.table.refuse_registered(found)
            log.warning(
                "the result of %s is gone (%s): it is run again", found.id, self.table.reader.path(found)
            )
        record_id = identity.id if found is None else found.id
        with terminable():
            claimed = self.claim(identity, record_id, is_forced=is_forced)
            if isinstance(claimed, Found):
                return claimed
            has_begun = False
            try:
                with self.table.heartbeat.beating():
                    job = self._job(identity, record_id, found, custom, is_forced=is_forced)
                    self.table.database.rest()
                    has_begun = True
                    self._publish(self._attempt(job, claimed), claimed)
            except BaseException as error:
                # What has begun gives the key back itself, unless an interrupt comes between two of its steps.
                if not has_begun or isinstance(error, KeyboardInterrupt | Terminated):
                    self.table.claims.release([(record_id, claimed)])
                raise
        return self._committed(record_id)

    def _job(
        self,
        identity: Identity,
        record_id: str,
        found: Found | None,
        custom: Mapping[str, Any],
        *,
        is_forced: bool,
    ) -> Job:
        if is_forced:
            # What is replaced is the row as it is under the claim: recovery drops a run that replaces another one.
            found = self.table.find(identity)
        return Job(
            record_id=record_id,
            name=safe_name(f"{record_id}{self.suffix}"),
            params=identity.for_runner(),
            stored=self.table.parameters.dump(identity.values),
            custom=dict(custom),
            replaces=None if found is None else found.sha256,
            look=not is_forced,
        )

    def register(
        self, identity: Identity, path: Path, shown: str, custom: Mapping[str, Any], *, overwrite: bool
    ) -> None:
        """Make a file that was computed elsewhere the result of *identity*, once nobody runs it."""
        token = str(self.claim(identity, identity.id, is_forced=True))
        # Not only a runner takes its time: so does the digest of a large file.
        with self._given_back_on_error(identity.id, token), self.table.heartbeat.beating(is_run_here=False):
            found = self.table.find(identity)
            if found is not None and not overwrite:  # whoever had the key before had finished
                self.table.refuse_other_file(found, path)
            self.table.publisher.register(identity, path, shown, custom, token)

    def claim(self, identity: Identity, record_id: str, *, is_forced: bool) -> str | Found:
        """Return a claim's token, or, unless *is_forced*, the row that another process committed meanwhile."""
        if (self.table.marker.root, record_id) in _keys():
            raise RuntimeError(
                f"the runner of {record_id!r} asked for {record_id!r} itself: it would wait for ever"
            )
        begun, pause_s, told = time.monotonic(), _FIRST_PAUSE_S, ""
        while True:
            token = new_token()
            with self._given_back_on_error(record_id, token):
                grant = self.table.claims.acquire([record_id], {record_id: token}).get(record_id)
                if grant is not None and (grant.former or self._mark(record_id) in _uncommitted):
                    grant = self._recovered(identity, grant, record_id)
                if not is_forced:
                    found = self.table.find(identity)
                    if found is not None and self.table.is_present(found):
                        if grant is not None:
                            self.table.claims.release([(record_id, token)])
                        return found
            if grant is not None:
                return token
            waited_s = time.monotonic() - begun
            told = self._say_who(record_id, told) if waited_s > _SAY_AFTER_S else told
            self._check_patience(record_id, waited_s)
            self.table.database.rest()
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @contextmanager
    def _given_back_on_error(self, record_id: str, token: str) -> Iterator[None]:
        # A claim of a process that lives on would block its key for the whole lease.
        try:
            yield
        except BaseException:
            self.table.claims.release([(record_id, token)])
            raise

    def _recovered(self, identity: Identity, grant: Grant, record_id: str) -> Grant | None:
        """Commit what the former owner of a claim may have finished; return the claim unless that used it up."""
        # Also before a forced run: left for later, the finished run could be taken for the newer one.
        recover(self.table, held={record_id: grant.token})
        holder = self.table.claims.holders([record_id]).get(record_id)
        if holder is None or holder.token != grant.token:
            if self._mark(record_id) in _uncommitted:
                _uncommitted.discard(self._mark(record_id))
                _staging(self.table).settle()
            return None
        if grant.former is not None:
            self.table.publisher.lose([(grant.former, self.table.parameters.dump(identity.values))])
        return grant

    def _mark(self, record_id: str) -> tuple[str, str]:
        return self.table.marker.root, record_id

    def _say_who(self, record_id: str, told: str) -> str:
        """Say who holds the key, unless that was told; return the token of the claim."""
        holder = self.table.claims.holders([record_id]).get(record_id)
        if holder is None or holder.token == told:
            return told
        log.warning("waiting for %s, which is run by %s", record_id, holder)
        return holder.token

    def _check_patience(self, record_id: str, waited_s: float) -> None:
        if self.wait_timeout_s is None or waited_s <= self.wait_timeout_s:
            return
        holder = self.table.claims.holders([record_id]).get(record_id)
        raise ClaimTimeoutError(
            f"{record_id!r} is held by {holder or 'another process'} for longer than wait_timeout_s="
            f"{self.wait_timeout_s:g}. Nothing was run; try again later"
        )

    def _attempt(self, job: Job, token: str) -> Receipt:
        """Run *job*; if it fails or is interrupted, record that and give the key back."""
        table = self.table
        _used[table.marker.root] = table
        work = Work(self.runner, str(table.root), table.marker, holder=this_process().as_dict())
        key = (table.marker.root, job.record_id)
        _keys().add(key)
        started_at = datetime.now(UTC)
        try:
            (outcome,) = work([job])
        except BaseException:
            table.publisher.cancel(job, token, started_at, table.code)
            raise
        finally:
            _keys().discard(key)
        if isinstance(outcome, Failure):
            table.publisher.fail([(outcome, token)], table.code)
            raise outcome.error()
        return outcome

    def _publish(self, receipt: Receipt, token: str) -> None:
        table = self.table
        try:
            lost, refused = table.publisher.publish([(receipt, token)], table.code)
        except BaseException:
            _uncommitted.add(self._mark(receipt.record_id))
            with suppress(Exception):  # the sidecar has the run: whoever gets the key may recover it
                table.claims.release([(receipt.record_id, token)])
            raise
        staging = _staging(table)
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

    def _committed(self, record_id: str) -> Found:
        found = self.table.reader.find((record_id,))
        if not found:
            raise ClaimLostError(
                f"the row of {record_id!r} was deleted by another process right after its commit"
            )
        return found[0]


def _staging(table: ResultTable[Any]) -> Staging:
    """Return this process's own folder for single runs."""
    return staging_for(table.root, this_process().owner, this_process().as_dict())


def _keys() -> set[tuple[str, str]]:
    keys: set[tuple[str, str]] = _running.__dict__.setdefault("keys", set())
    return keys


@atexit.register
def _clear_away() -> None:
    """Remove this process's own folders if all that they held is committed."""
    for table in list(_used.values()):
        # The database or the folder may be gone; recover() knows what to make of the rest.
        with suppress(Exception):
            staging = _staging(table)
            if staging.folder.is_dir() and table.has_root():
                table.publisher.flush()
                staging.close()
