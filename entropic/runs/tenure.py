"""The right to run keys, from its claim to its end: one protocol for a call, a registration and a sweep.

In this order: claim; commit what a former owner had finished; record what was lost with it; look once more, under the
claim, for somebody may have finished the key since it was looked up. What is held then ends in a commit, a failure or a
cancellation, or is given back, on an error or an interrupt between any two steps too: the claim of a process that lives
on would block its key for as long as that does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from entropic.disk.staging import folder_name, own_staging
from entropic.leases import held
from entropic.leases.claims import Grant
from entropic.model.identities import Identity
from entropic.model.records import Found
from entropic.process.identity import this_process
from entropic.runs.holding import Holding
from entropic.runs.inside import around
from entropic.runs.jobs import Failure, Job, Receipt
from entropic.runs.publishing import Published
from entropic.runs.recovery import recover, take_in_values
from entropic.runs.result_table import ResultTable

__all__ = ["Claimed", "Tenure", "give_back_before_waiting"]

# By owner, root and key: the folder of a finished run that this process could not commit.
_uncommitted: dict[tuple[str, str, str], str] = {}


class Claimed(NamedTuple):
    """What came of claiming keys; one that is in neither part is held by somebody else."""

    granted: dict[str, Found | None]
    """Each key that is ours now, with the row that there is under it: to be replaced, or its result is gone."""
    done: dict[str, Found]
    """The rows of keys that have a result by now, and are not ours any more."""


class Tenure(Holding):
    """The claims that one call or one sweep holds on the keys of a table of results."""

    def __init__(self, table: ResultTable[Any], *, name: str = "", lends: bool = False) -> None:
        super().__init__(table, name=name, lends=lends)
        self._table = table
        self._lock = threading.RLock()
        self._settled: dict[str, Published] = {}  # what became of attempts that were ended for others
        self._told: set[str] = set()  # of outputs that were warned of: once for all runs of a sweep

    def claim(
        self, wanted: Mapping[str, Identity], *, is_forced: bool = False, takes: bool = True
    ) -> Claimed:
        """Claim what is free of *wanted*, was left by an owner that is gone, or is not begun yet in this process.

        Parameters
        ----------
        wanted : mapping
            The key where the row of each identity is, or will be.
        is_forced : bool
            Whether to run even what has a result by now.
        takes : bool
            Whether to take what another keeper in this process has not begun; inside of a run that is done anyway.

        Raises
        ------
        DependencyCycleError
            If one of *wanted* waits for a run that this call is inside of.
        HashCollisionError
            If a row holds other parameters.
        ResultFileMissingError
            If a registered file is gone, unless *is_forced*.
        """
        granted: dict[str, Found | None] = self.take_over(wanted, takes=takes)
        claimed = self._claim({key: wanted[key] for key in wanted if key not in granted}, is_forced)
        for key, row in claimed.granted.items():
            self.offer(key, row)
        return Claimed(granted | claimed.granted, claimed.done)

    def claim_free(self, keys: Iterable[str]) -> dict[str, Found | None]:
        """Claim what nobody holds of *keys*, which then nobody commits or runs; return that, each with its row."""
        granted = self._claim({key: Identity.of_key(key) for key in keys}, is_forced=True).granted
        for key, row in granted.items():
            self.offer(key, row)
        return granted

    def _claim(self, wanted: Mapping[str, Identity], is_forced: bool) -> Claimed:
        if not wanted:
            return Claimed({}, {})
        grants = self.acquire(wanted)
        self._take_in(grants, wanted)
        if self._table.holds_values and not is_forced:
            self._take_in_values(wanted)
        mine = [key for key in wanted if key in self._tokens]
        rows = self.find({key: wanted[key] for key in mine} if is_forced else wanted)
        done = {} if is_forced else self.done(rows)
        self.release([key for key in mine if key in done])
        granted = {key: rows.get(key) for key in mine if key not in done}
        if not is_forced:
            for found in granted.values():
                if found is not None:
                    self._table.refuse_registered(found)
        if used := [key for key in grants if key not in mine and key not in done]:
            # Their claims went with what was taken in; it is not the last word on a forced run, for instance.
            again = self._claim({key: wanted[key] for key in used}, is_forced)
            return Claimed({**granted, **again.granted}, {**done, **again.done})
        return Claimed(granted, done)

    def find(self, wanted: Mapping[str, Identity]) -> dict[str, Found]:
        """Return the rows that there are of *wanted*, by its keys."""
        ids = [one for identity in wanted.values() for one in identity.ids]
        rows = {found.id: found for found in self._table.reader.find_many(ids)}
        matched = (
            (key, self._table.match(identity, (rows[one] for one in identity.ids if one in rows)))
            for key, identity in wanted.items()
        )
        return {key: found for key, found in matched if found is not None}

    def done(self, rows: Mapping[str, Found]) -> dict[str, Found]:
        """Return those of *rows* whose result is there."""
        present = self._table.reader.present(rows.values())
        return {key: found for key, found in rows.items() if found.id in present}

    def _take_in(self, grants: Mapping[str, Grant], wanted: Mapping[str, Identity]) -> None:
        """Commit what former owners had finished, which uses up its claim, and record the others as lost."""
        mine = {
            key: grant.token
            for key, grant in grants.items()
            if grant.former or self._own_mark(key) in _uncommitted
        }
        if not mine:
            return
        known = list(mine)
        # Also before a forced run: left for later, the finished run could be taken for the newer one.
        recover(self._table, held=mine)
        self._drop(set(known) - mine.keys())
        for key in known:
            self._forget_uncommitted(key)
        self._table.endings.lose(
            [
                (former, self._table.parameters.dump(wanted[key].values))
                for key in mine
                if (former := grants[key].former) is not None
            ]
        )

    def _take_in_values(self, wanted: Iterable[str]) -> None:
        """Commit what processes which live had finished of *wanted* and gave back, which uses up its claim."""
        mine = {key: self._tokens[key] for key in wanted if key in self._tokens}
        known = list(mine)
        take_in_values(self._table, mine, folder_name(self.name))
        self._drop(set(known) - mine.keys())

    def _forget_uncommitted(self, key: str) -> None:
        folder = _uncommitted.pop(self._own_mark(key), None)
        staging = own_staging(self._table.root)
        if folder == staging.folder.name:
            staging.settle()

    def _own_mark(self, key: str) -> tuple[str, str, str]:
        return this_process().owner, self._table.marker.root, key

    def not_at_work(self, keys: Iterable[str]) -> set[str]:
        """Return those of *keys* that are held, and of which it is not known that they are being run."""
        return {
            key for key, hold in self._mine(keys).items() if hold.outcome is not None or not hold.is_begun
        }

    def can_have(self, key: str) -> bool:
        """Whether `claim` gets a key, or its row, although this process holds it."""
        hold = held.find(self._mark(key))
        if hold is None or hold.keeper is self:
            return False
        return hold.outcome is not None or (hold.keeper.lends and not hold.is_begun)

    # What others ask of it, who need a key that it holds, or wait: `publish` and `fail` know of it then

    def _settle_all(self, keys: Iterable[str]) -> None:
        with self._lock:
            holds = (held.find(self._mark(key)) for key in keys)
            outcomes = [hold.outcome for hold in holds if hold is not None and hold.keeper is self]
            ended = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
            failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
            self._commit_early(ended)
            self.fail(failed)
            self._settled |= {outcome.attempt: Published(set(), []) for outcome in failed}

    def _commit_early(self, receipts: Sequence[Receipt]) -> None:
        lost, refused = self.publish(receipts)
        for receipt in receipts:
            key = receipt.record_id
            failures = [failure for failure in refused if failure.record_id == key]
            self._settled[receipt.attempt] = Published({key} & lost, failures)

    def commit_for(self, receipts: Iterable[Receipt]) -> None:
        """Commit what a worker has finished of what is held, before it says so itself; `publish` knows of it then."""
        with self._lock:
            ended = list({r.record_id: r for r in receipts if r.record_id in self._tokens}.values())
            self._commit_early(ended)

    def reset(self, keys: Iterable[str]) -> None:
        """Let keys be begun again that a backend had, which is lost."""
        for key in keys:
            held.reset(self._mark(key), self)

    # The end of what was run

    def publish(self, receipts: Sequence[Receipt]) -> Published:
        """Commit finished runs, and return what could not be committed."""
        with self._lock:
            todo = [receipt for receipt in receipts if receipt.attempt not in self._settled]
            early = [self._settled.pop(r.attempt) for r in receipts if r.attempt in self._settled]
            finished = [(receipt, self._tokens[receipt.record_id]) for receipt in todo]
            try:
                published = self._table.publisher.publish(finished, self._table.code, self._told)
            except BaseException:
                self.leave(todo)
                raise
            self._drop(receipt.record_id for receipt in todo)
            return Published(
                published.lost.union(*(one.lost for one in early)),
                [*published.refused, *(failure for one in early for failure in one.refused)],
            )

    def leave(self, receipts: Iterable[Receipt]) -> None:
        """Leave finished runs, of which it is not known that they are committed, to whoever gets their keys next."""
        # Sidecars have them, and this process looks into its own there only if it is told to.
        _uncommitted.update(
            {self._own_mark(one.record_id): one.folder for one in receipts if one.record_id in self._tokens}
        )

    def register(self, identity: Identity, path: Path, shown: str, custom: Mapping[str, Any]) -> None:
        """Commit a file that was made elsewhere as the result of *identity*."""
        self._table.publisher.register(identity, path, shown, custom, self._tokens[identity.id])
        self._drop([identity.id])

    def fail(self, failures: Sequence[Failure]) -> None:
        """Record runs that raised, and give their keys back."""
        with self._lock:
            todo = [failure for failure in failures if self._settled.pop(failure.attempt, None) is None]
            failed = [(failure, self._tokens[failure.record_id]) for failure in todo]
            self._table.endings.fail(failed, self._table.code)
            self._drop(failure.record_id for failure in todo)

    def cancel(self, job: Job, started_at: datetime) -> None:
        """Record a run of this process that was interrupted, and give its key back."""
        token = self._tokens.get(job.record_id)
        if token is not None:  # else it is no more ours: it was not begun here
            self._table.endings.cancel(job, token, started_at, self._table.code)
            self._drop([job.record_id])


def give_back_before_waiting() -> None:
    """Give back what the sweeps of this process hold that may wait for this thread, but for what they have begun."""
    holds = (held.find(run.mark) for run in around())
    keepers = {id(hold.keeper): hold.keeper for hold in holds if hold is not None and hold.keeper.lends}
    for keeper in keepers.values():
        keeper.give_back()
