"""The tasks of one sweep: what comes next, what others are at, and what is left to them.

A task is claimed when there is room for it. What somebody else holds is come back to. What others wait for, and nobody
has begun, is given back and left to them for a while: sweeps that need each other's keys are not to stand in the way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from entropic.disk.sidecars import process_folders, read_sidecar
from entropic.disk.staging import is_of_sweep
from entropic.errors import ClaimTimeoutError
from entropic.leases.claims import Holder
from entropic.model.records import CHUNK, Found
from entropic.process.logs import get_logger
from entropic.process.patience import Wait, chance
from entropic.runs.inside import inside_of
from entropic.runs.jobs import Job, NotBegun
from entropic.runs.recovery import unfinished
from entropic.runs.result_table import ResultTable
from entropic.runs.tenure import Tenure
from entropic.runs.wait_notes import asked_of, notes
from entropic.runs.waits import Waiting
from entropic.sweeps.plan import Plan, Task
from entropic.sweeps.result import SweepOptions

__all__ = ["Tasks"]

log = get_logger(__name__)


class _Left(NamedTuple):
    """Until when a key is left to others, and how often it was."""

    until: float
    times: int


class Tasks:
    """What one sweep has yet to run.

    Parameters
    ----------
    plan : Plan
        Its tasks are begun in their order; the records of those that others commit meanwhile are added to its records.

    Attributes
    ----------
    open : dict
        The tasks of the plan that have not ended, as a record or a failure.
    taken_in : int
        How many others have committed.
    waiting : Waiting
        A context manager, for as long as tasks are taken.
    """

    def __init__(
        self,
        table: ResultTable[Any],
        tenure: Tenure,
        options: SweepOptions,
        plan: Plan[Any],
    ) -> None:
        self.open = plan.tasks
        self.taken_in = 0
        self.waiting = Waiting(table, tenure)
        self._table = table
        self._tenure = tenure
        self._options = options
        self._records = plan.records
        self._fresh: deque[Task] = deque(plan.tasks.values())
        self._ready: deque[Job] = deque()  # claimed, but given back by a backend that was lost
        self._busy: deque[Task] = deque()
        self._ended: dict[str, list[str]] = {}  # attempts of keys that run again: their lines are still there
        self._looked_at = time.monotonic()  # when the results of the tasks that come next were looked for
        self._wait_for_others: Wait | None = None
        self._asked: set[str] = set()  # keys that others wait for
        self._left: dict[str, _Left] = {}  # keys that were given back to such
        self._told = ""

    def count_left(self) -> int:
        """Return how many are yet to be taken."""
        return len(self._fresh) + len(self._ready) + len(self._busy)

    def count_busy(self) -> int:
        """Return how many are others' just now."""
        return len(self._busy)

    def go_elsewhere(self) -> None:
        """Go on at a random place: others that are at work on this grid are unlikely to be there."""
        if self._fresh:
            self._fresh.rotate(-chance.randrange(len(self._fresh)))

    def take(self, n: int, *, wait: bool) -> list[Job] | None:
        """Claim up to *n* keys; `dispatch` says what the answers mean."""
        if self._ready:
            return [self._ready.popleft() for _ in range(min(n, len(self._ready)))]
        if not (self._fresh or self._busy):
            return [] if self.open and not wait else None  # what is in flight may come back
        if self._fresh and time.monotonic() - self._looked_at > self._options.patience.look_again_s:
            self._collect(self._fresh, CHUNK // 2)  # up to two keys each
        if self._fresh:
            before = len(self._busy)
            jobs = self._claim([self._fresh.popleft() for _ in range(min(n, len(self._fresh)))], takes=False)
            if len(self._busy) > before and not inside_of():
                self.go_elsewhere()
        else:
            jobs = self._revisit(n, wait=wait) if self._busy else []
        if jobs:
            self._wait_for_others = None
            self.waiting.end()
        return jobs

    def _collect(self, tasks: deque[Task], n: int) -> None:
        """Take out of the first *n* tasks those that others have finished since they were looked up."""
        looked = [tasks.popleft() for _ in range(min(n, len(tasks)))]
        done = self._tenure.done(self._tenure.find({task.record_id: task.identity for task in looked}))
        self._looked_at = time.monotonic()
        tasks.extendleft(task for task in reversed(looked) if task.record_id not in done)
        self._note_done(done)

    def _note_done(self, done: Mapping[str, Found]) -> None:
        """Take in what somebody else has committed."""
        for record_id, found in done.items():
            key = self.open.pop(record_id).identity.id
            self._records[key] = self._table.reader.record(found)
        self.taken_in += len(done)

    def _revisit(self, n: int, *, wait: bool) -> list[Job]:
        """Look at what others hold: take what they have finished, and claim up to *n* of what they left."""
        held_before = len(self._busy)
        self._collect(self._busy, held_before)
        holders = self._table.claims.holders([task.record_id for task in self._busy])
        is_held = {key for key, holder in holders.items() if not holder.is_gone()}
        is_held = {key for key in is_held if not self._tenure.can_have(key)}
        is_held |= {task.record_id for task in self._busy if self._is_left(task.record_id)}
        left = [task for task in self._busy if task.record_id not in is_held][:n]
        wanted = {task.record_id for task in left}
        self._busy = deque(task for task in self._busy if task.record_id not in wanted)
        jobs = self._claim(left, takes=True)
        if not jobs and len(self._busy) == held_before:
            self._pause(list(holders.values()), wait)
        return jobs

    def _claim(self, wanted: Sequence[Task], *, takes: bool) -> list[Job]:
        asked = {task.record_id: task.identity for task in wanted if not self._is_left(task.record_id)}
        granted, done = self._tenure.claim(asked, takes=takes)
        self._note_done(done)
        self._busy.extend(
            task for task in wanted if task.record_id not in granted and task.record_id not in done
        )
        return [
            self._table.job(self.open[key].identity, key, found, ended=tuple(self._ended.get(key, ())))
            for key, found in granted.items()
        ]

    def _pause(self, holders: Sequence[Holder], wait: bool) -> None:
        patience = self._options.patience
        if self._wait_for_others is None:
            self._wait_for_others = Wait(patience)
        self.waiting.go_on([task.record_id for task in self._busy], self._wait_for_others.waited_s)
        if self._wait_for_others.is_worth_saying():
            self._say_who(holders)
        if self._wait_for_others.is_over():
            raise ClaimTimeoutError(
                f"{len(self._busy)} keys have been held by others for {patience.limit_s:g} s (wait_timeout_s); "
                "everything else is stored. Sweep again later"
            )
        if wait:
            self._table.database.rest()
            self._wait_for_others.pause()

    def _say_who(self, holders: Sequence[Holder]) -> None:
        """Name one who holds keys that are waited for, unless it was named and holds some yet."""
        if holders and self._told not in {holder.process.owner for holder in holders}:
            self._told = holders[0].process.owner
            log.warning(
                "the sweep waits for %d keys that are run elsewhere, the first by %s",
                len(self._busy),
                holders[0],
            )

    # What comes back

    def take_back(self, remaining: Sequence[Job]) -> None:
        """Run in this thread what a backend did not."""
        self._tenure.reset(job.record_id for job in remaining)
        for job in remaining:  # a run that began elsewhere may have changed its parameters
            identity = self.open[job.record_id].identity
            self._ready.append(replace(job, params=identity.for_runner()))

    def come_back(self, key: str) -> None:
        """Look at a task again later: another process has its key now, or may take it."""
        self._busy.append(self.open[key])

    def try_again(self, key: str) -> None:
        """Run a task once more, after all others."""
        self._fresh.append(self.open[key])

    def note_ended(self, key: str, attempt: str) -> None:
        """Note an attempt whose result is not committed, and not to be taken when the key runs again."""
        self._ended.setdefault(key, []).append(attempt)

    def give_back(self, jobs: Sequence[Job | NotBegun]) -> None:
        """Come back to keys later, whoever runs them; to those that others wait for when these have had their turn."""
        self._tenure.release(job.record_id for job in jobs)
        for key in self._asked.intersection(job.record_id for job in jobs):
            self._leave(key)
        self._busy.extend(self.open[job.record_id] for job in jobs if job.record_id in self.open)

    def _leave(self, key: str) -> None:
        """Leave a key to who waits for it, for longer than that one pauses, and twice as long each time."""
        if self._is_left(key):
            return
        times = self._left[key].times if key in self._left else 0
        seconds = 2 * self._options.patience.longest_pause_s * 2.0**times
        self._left[key] = _Left(time.monotonic() + seconds, times + 1)

    def _is_left(self, key: str) -> bool:
        return key in self._left and time.monotonic() < self._left[key].until

    def relieve(self) -> bool:
        """Do for runs that wait for others what they cannot do; return whether there are any that this sweep hinders.

        What a worker that waits will not begin is given back, and what it has finished is committed: it may be what
        another one waits for, or this one itself. And what anybody waits for is given back if it was not begun: that
        one may be in the way of it, where executors are shared.
        """
        found = [] if self._tenure.lends else list(notes(self._table.root, f"-{self._tenure.name}"))
        self._asked = self._tenure.not_at_work(asked_of(self._table.root, self._table.marker.root))
        if self._asked and not self._tenure.lends:
            self._commit_asked()
        for note in found:
            self._give_up(note.struck.get(self._tenure.name, ()))
            self._tenure.commit_for(unfinished(self._table, read_sidecar(note.folder)))
        if self._tenure.lends and self._asked:
            for key in self._asked:
                self._leave(key)
            self._tenure.give_back()
        if found:  # and so does this sweep, with what it is inside of
            self.waiting.stand_aside()
        # On Dask nothing is in the way: a task that waits lets go of its slot.
        return bool(found or (self._asked and self._options.client is None))

    def _commit_asked(self) -> None:
        """Commit what somebody waits for and a worker has finished, whose chunk goes on."""
        for folder in process_folders(self._table.root):
            if is_of_sweep(folder.name, self._tenure.name):
                ended = unfinished(self._table, read_sidecar(folder))
                self._tenure.commit_for([one for one in ended if one.record_id in self._asked])

    def _give_up(self, keys: Iterable[str]) -> None:
        """Release what a worker will not begin any more."""
        given = list(keys)
        for key in self._asked.intersection(given):
            self._leave(key)
        self._tenure.release(given)
