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
from typing import Any, NamedTuple, Self

from entropic.disk.staging import Staging, staging_for
from entropic.leases import held
from entropic.leases.claims import Grant
from entropic.leases.held import Mark
from entropic.model.identities import Identity
from entropic.model.records import Found
from entropic.process.identity import this_process
from entropic.process.logs import get_logger
from entropic.runs.inside import around, inside_of, refuse_circle, wait_for
from entropic.runs.jobs import Failure, Job, Receipt
from entropic.runs.publishing import Published
from entropic.runs.recovery import recover
from entropic.runs.result_table import ResultTable

__all__ = ["Claimed", "Tenure", "give_back_before_waiting", "own_staging"]

log = get_logger(__name__)

# By owner, root and key: the folder of a finished run that this process could not commit.
_uncommitted: dict[tuple[str, str, str], str] = {}


class Claimed(NamedTuple):
    """What came of claiming keys; one that is in neither part is held by somebody else."""

    granted: dict[str, Found | None]
    """Each key that is ours now, with the row that there is under it: to be replaced, or its result is gone."""
    done: dict[str, Found]
    """The rows of keys that have a result by now, and are not ours any more."""


class Tenure:
    """The claims that one call or one sweep holds: each is known from before it is taken until it is gone.

    A context manager: what is held when the block is left is given back.

    Parameters
    ----------
    name : str
        Of a sweep, as its `Work` has it.
    lends : bool
        Whether what it holds is begun in this process: a run that needs such a key before takes it.

    Notes
    -----
    Used by one thread; what others ask of it for their runs (`settle`, `hand_over`, `give_back`) is safe beside that.
    Between processes the claims decide.
    """

    def __init__(self, table: ResultTable[Any], *, name: str = "", lends: bool = False) -> None:
        self._table = table
        self._tokens: dict[str, str] = {}
        self._lock = threading.RLock()
        self._settled: dict[
            str, Published
        ] = {}  # attempts that were ended for others, and what became of them
        self._is_waiting = False
        self.name = name
        self.lends = lends
        self.is_serial = not name
        self.is_asked = False
        self.is_open = True
        self._told: set[str] = set()  # of outputs that were warned of: once for all runs of a sweep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False  # first of all: should the rest fail, what is left is nobody's any more
        left = list(self._tokens.items())
        try:
            if self._is_waiting:
                wait_for(())
            self.release(self._tokens)
        except Exception:  # what is on its way matters more, and nobody here counts them as held any more
            log.warning(
                "%d claims could not be released; they end with their lease",
                len(left),
                exc_info=True,
            )

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
        granted = self._ask(wanted, takes=takes or bool(inside_of()))
        claimed = self._claim({key: wanted[key] for key in wanted if key not in granted}, is_forced)
        for key, row in claimed.granted.items():
            held.offer(self._mark(key), self, self._tokens[key], row)
        return Claimed(granted | claimed.granted, claimed.done)

    def _ask(self, wanted: Iterable[str], *, takes: bool) -> dict[str, Found | None]:
        """Take what nobody in this process has begun, and commit what has ended; return what is ours now."""
        refuse_circle([self._mark(key) for key in wanted])
        taken: dict[str, Found | None] = {}
        for key in wanted:
            mark = self._mark(key)
            hold = held.find(mark)
            if hold is None or hold.keeper is self:
                continue
            hold.keeper.is_asked = True
            if hold.outcome is not None:
                hold.keeper.settle(key)
            elif takes and (ours := held.take(mark, self)) is not None:
                self._tokens[key] = ours.token
                taken[key] = ours.row
        return taken

    def _claim(self, wanted: Mapping[str, Identity], is_forced: bool) -> Claimed:
        if not wanted:
            return Claimed({}, {})
        # Before they are granted: an interrupt must not leave behind what this one was not told of yet.
        tokens = {key: self._table.claims.new_token() for key in wanted}
        held.know(tokens.values(), self)
        self._tokens |= tokens
        grants = self._table.claims.acquire(tokens, tokens)
        self._drop(tokens.keys() - grants.keys())
        self._take_in(grants, wanted)
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

    def wait_for(self, keys: Sequence[str]) -> None:
        """Note for which keys of others the run of this context waits; there may be none.

        Raises
        ------
        DependencyCycleError
            If one of them waits for a run of this context.
        """
        if keys or self._is_waiting:
            self._is_waiting = bool(keys)
            wait_for([self._mark(key) for key in keys])

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
        lost = [(key, grants[key].former) for key in mine]
        self._table.publisher.lose(
            [
                (former, self._table.parameters.dump(wanted[key].values))
                for key, former in lost
                if former is not None
            ]
        )

    def _forget_uncommitted(self, key: str) -> None:
        folder = _uncommitted.pop(self._own_mark(key), None)
        staging = own_staging(self._table)
        if folder == staging.folder.name:
            staging.settle()

    def _own_mark(self, key: str) -> tuple[str, str, str]:
        return this_process().owner, self._table.marker.root, key

    def _mark(self, key: str) -> Mark:
        return self._table.marker.root, key

    def _drop(self, keys: Iterable[str]) -> None:
        gone = list(keys)
        held.withdraw([self._mark(key) for key in gone], self)
        held.forget([token for key in gone if (token := self._tokens.pop(key, None)) is not None])

    def release(self, keys: Iterable[str]) -> None:
        """Give keys back of which nothing was run."""
        given = list(keys)
        held.withdraw([self._mark(key) for key in given], self)  # before: nobody is to take them now
        given = [key for key in given if key in self._tokens]
        self._table.claims.release([(key, self._tokens[key]) for key in given])
        self._drop(given)

    def not_at_work(self, keys: Iterable[str]) -> set[str]:
        """Return those of *keys* that are held, and of which it is not known that they are being run."""
        holds = {key: held.find(self._mark(key)) for key in keys if key in self._tokens}
        mine = {key: hold for key, hold in holds.items() if hold and hold.keeper is self}
        return {key for key, hold in mine.items() if hold.outcome is not None or not hold.is_begun}

    def can_have(self, key: str) -> bool:
        """Whether `claim` gets a key, or its row, although this process holds it."""
        hold = held.find(self._mark(key))
        if hold is None or hold.keeper is self:
            return False
        return hold.outcome is not None or (hold.keeper.lends and not hold.is_begun)

    # What others ask of it, who need a key that it holds, or wait

    def settle(self, key: str) -> None:
        """Commit or record what has come of a key, if it has ended; `publish` and `fail` know of it then."""
        self._settle_all([key])

    def hand_over(self, key: str) -> None:
        """Forget a key, which is another's now."""
        self._tokens.pop(key, None)

    def give_back(self) -> None:
        """Commit or record what has ended, and give back what was not begun: who waits must not block others."""
        self._settle_all(list(self._tokens))
        free = held.withdraw([self._mark(key) for key in list(self._tokens)], self, only_free=True)
        self._table.claims.release([(key, self._tokens[key]) for key in free])
        self._drop(free)

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
                # Their sidecars have the runs: whoever gets the keys next is to look there first, this process too.
                _uncommitted.update({self._own_mark(receipt.record_id): receipt.folder for receipt in todo})
                raise
            self._drop(receipt.record_id for receipt in todo)
            return Published(
                published.lost.union(*(one.lost for one in early)),
                [*published.refused, *(failure for one in early for failure in one.refused)],
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
            self._table.publisher.fail(failed, self._table.code)
            self._drop(failure.record_id for failure in todo)

    def cancel(self, job: Job, started_at: datetime) -> None:
        """Record a run of this process that was interrupted, and give its key back."""
        token = self._tokens.get(job.record_id)
        if token is not None:  # else it is no more ours: it was not begun here
            self._table.publisher.cancel(job, token, started_at, self._table.code)
            self._drop([job.record_id])


def give_back_before_waiting() -> None:
    """Give back what the sweeps of this process hold that may wait for this thread, but for what they have begun."""
    holds = (held.find(run.mark) for run in around())
    keepers = {id(hold.keeper): hold.keeper for hold in holds if hold is not None and hold.keeper.lends}
    for keeper in keepers.values():
        keeper.give_back()


def own_staging(table: ResultTable[Any]) -> Staging:
    """Return this process's own folder for single runs."""
    return staging_for(table.root, this_process().owner, this_process().as_dict())
