"""The right to run keys, from its claim to its end: one protocol for a call, a registration and a sweep.

In this order: claim; commit what a former owner had finished; record what was lost with it; look once more, under the
claim, for somebody may have finished the key since it was looked up. What is held then ends in a commit, a failure or a
cancellation, or is given back, on an error or an interrupt between any two steps too: the claim of a process that lives
on would block its key for as long as that does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from entropic.disk.staging import Staging, staging_for
from entropic.leases.claims import Grant, new_token
from entropic.model.identities import Identity
from entropic.model.records import Found
from entropic.process.identity import this_process
from entropic.runs.jobs import Failure, Job, Receipt
from entropic.runs.publishing import Published
from entropic.runs.recovery import recover
from entropic.runs.result_table import ResultTable

__all__ = ["Claimed", "Tenure", "own_staging"]

log = logging.getLogger(__name__)

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

    Notes
    -----
    For one thread at a time. Between processes the claims decide.
    """

    def __init__(self, table: ResultTable[Any]) -> None:
        self._table = table
        self._tokens: dict[str, str] = {}
        self._told: set[str] = set()  # of outputs that were warned of: once for all runs of a sweep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        held = list(self._tokens.items())
        try:
            self.release(self._tokens)
        except (
            Exception
        ):  # what is on its way matters more, and the claims remember what could not be released
            log.warning(
                "%d claims could not be released; they end with their lease", len(held), exc_info=True
            )

    def claim(self, wanted: Mapping[str, Identity], *, is_forced: bool = False) -> Claimed:
        """Claim what is free of *wanted*, or was left by an owner that is gone.

        Parameters
        ----------
        wanted : mapping
            The key where the row of each identity is, or will be.
        is_forced : bool
            Whether to run even what has a result by now.

        Raises
        ------
        HashCollisionError
            If a row holds other parameters.
        ResultFileMissingError
            If a registered file is gone, unless *is_forced*.
        """
        # Before they are granted: an interrupt must not leave behind what this one was not told of yet.
        tokens = {key: new_token() for key in wanted}
        self._tokens |= tokens
        grants = self._table.claims.acquire(tokens, tokens)
        self._drop(tokens.keys() - grants.keys())
        self._take_in(grants, wanted)
        held = [key for key in wanted if key in self._tokens]
        rows = self.find({key: wanted[key] for key in held} if is_forced else wanted)
        done = {} if is_forced else self.done(rows)
        self.release([key for key in held if key in done])
        granted = {key: rows.get(key) for key in held if key not in done}
        if not is_forced:
            for found in granted.values():
                if found is not None:
                    self._table.refuse_registered(found)
        if used := [key for key in grants if key not in held and key not in done]:
            # Their claims went with what was taken in; it is not the last word on a forced run, for instance.
            again = self.claim({key: wanted[key] for key in used}, is_forced=is_forced)
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
        present = self._table.present(rows.values())
        return {key: found for key, found in rows.items() if found.id in present}

    def _take_in(self, grants: Mapping[str, Grant], wanted: Mapping[str, Identity]) -> None:
        """Commit what former owners had finished, which uses up its claim, and record the others as lost."""
        held = {
            key: grant.token
            for key, grant in grants.items()
            if grant.former or self._mark(key) in _uncommitted
        }
        if not held:
            return
        known = list(held)
        # Also before a forced run: left for later, the finished run could be taken for the newer one.
        recover(self._table, held=held)
        self._drop(set(known) - held.keys())
        for key in known:
            self._forget_uncommitted(key)
        lost = [(key, grants[key].former) for key in held]
        self._table.publisher.lose(
            [
                (former, self._table.parameters.dump(wanted[key].values))
                for key, former in lost
                if former is not None
            ]
        )

    def _forget_uncommitted(self, key: str) -> None:
        folder = _uncommitted.pop(self._mark(key), None)
        staging = own_staging(self._table)
        if folder == staging.folder.name:
            staging.settle()

    def _mark(self, key: str) -> tuple[str, str, str]:
        return this_process().owner, self._table.marker.root, key

    def _drop(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            self._tokens.pop(key, None)

    def release(self, keys: Iterable[str]) -> None:
        """Give keys back of which nothing was run."""
        given = list(keys)
        self._table.claims.release([(key, self._tokens[key]) for key in given])
        self._drop(given)

    # The end of what was run

    def publish(self, receipts: Sequence[Receipt]) -> Published:
        """Commit finished runs, and return what could not be committed."""
        finished = [(receipt, self._tokens[receipt.record_id]) for receipt in receipts]
        try:
            published = self._table.publisher.publish(finished, self._table.code, self._told)
        except BaseException:
            # Their sidecars have the runs: whoever gets the keys next is to look there first, this process too.
            _uncommitted.update({self._mark(receipt.record_id): receipt.folder for receipt in receipts})
            raise
        self._drop(receipt.record_id for receipt in receipts)
        return published

    def register(self, identity: Identity, path: Path, shown: str, custom: Mapping[str, Any]) -> None:
        """Commit a file that was made elsewhere as the result of *identity*."""
        self._table.publisher.register(identity, path, shown, custom, self._tokens[identity.id])
        self._drop([identity.id])

    def fail(self, failures: Sequence[Failure]) -> None:
        """Record runs that raised, and give their keys back."""
        failed = [(failure, self._tokens[failure.record_id]) for failure in failures]
        self._table.publisher.fail(failed, self._table.code)
        self._drop(failure.record_id for failure in failures)

    def cancel(self, job: Job, started_at: datetime) -> None:
        """Record a run of this process that was interrupted, and give its key back."""
        self._table.publisher.cancel(job, self._tokens[job.record_id], started_at, self._table.code)
        self._drop([job.record_id])


def own_staging(table: ResultTable[Any]) -> Staging:
    """Return this process's own folder for single runs."""
    return staging_for(table.root, this_process().owner, this_process().as_dict())
