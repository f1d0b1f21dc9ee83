"""A sweep over one table: what must run, and the way of each key to its row.

Everything is looked up before anything runs (`plan`). What has no result is claimed batch by batch as there is room,
looked up once more under its claim (`entropic.runs.tenure`), run, and committed as it arrives; what others hold is come
back to. So processes that sweep the same grid divide it between them. A key ends as a record or as a failure.
"""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import uuid4

from sqlalchemy.exc import DBAPIError

from entropic.diagnosis.history import FailedRun
from entropic.disk.guarded import unlink
from entropic.disk.roots import STATE
from entropic.disk.sidecars import process_folders, read_sidecar
from entropic.disk.staging import is_of_sweep, own_staging
from entropic.display.progress import ProgressBar, progress_bar
from entropic.errors import ClaimLostError, ClaimTimeoutError, ClusterError, EntropicError
from entropic.leases.claims import Holder
from entropic.model.base import Base
from entropic.model.identities import Identity
from entropic.model.records import CHUNK, Found
from entropic.process.blocks import transparent
from entropic.process.identity import this_process
from entropic.process.logs import get_logger
from entropic.process.patience import Wait, chance
from entropic.process.raised import note_on, text_of
from entropic.process.termination import raise_if_terminated, terminable
from entropic.runs.attempts import Runner, Work
from entropic.runs.inside import inside_of
from entropic.runs.jobs import Failure, Interrupted, Job, NotBegun, Receipt, WorkerDied
from entropic.runs.recovery import leftovers, recover, unfinished
from entropic.runs.result_table import ResultTable
from entropic.runs.tenure import Tenure
from entropic.runs.wait_notes import asked_of, notes
from entropic.runs.waits import Waiting
from entropic.sweeps.backends import backend_for
from entropic.sweeps.backends.base import Backend, SerialBackend
from entropic.sweeps.backends.executor import RunsHere, is_thread_of
from entropic.sweeps.backends.task_notes import NotedWork
from entropic.sweeps.backends.tickets import TicketedWork
from entropic.sweeps.cuts import Outcomes, run_noted, run_whole
from entropic.sweeps.plan import Plan, Task, make_plan
from entropic.sweeps.result import SweepOptions, SweepResult
from entropic.sweeps.window import BackendLost, dispatch

__all__ = ["Sweep"]

log = get_logger(__name__)

_MANY_OBJECTS = 10_000  # to look at fewer takes the collector less than a millisecond

ModelT = TypeVar("ModelT", bound=Base)


class _Left(NamedTuple):
    """Until when a key is left to others, and how often it was."""

    until: float
    times: int


class Sweep(Generic[ModelT]):
    """One sweep; used once."""

    def __init__(self, table: ResultTable[ModelT], runner: Runner, options: SweepOptions) -> None:
        self._table = table
        self._runner = runner
        self._options = options
        self._sweep = uuid4().hex[:12]
        self._tenure = Tenure(table, name=self._sweep)
        self._stop = table.root / STATE / this_process().owner / f"stop-{self._sweep}"
        self._has_orphans = False  # workers that a lost cluster left behind
        self._is_run_here = False  # in this thread
        self._records: dict[str, ModelT] = {}
        self._order: dict[str, str] = {}  # key → where its row is; in input order
        self._tasks: dict[str, Task] = {}  # by record id, until each ends as a record or a failure
        self._is_all_there = False
        self._fresh: deque[Task] = deque()
        self._ready: deque[Job] = deque()  # claimed, but given back by a backend that was lost
        self._busy: deque[Task] = deque()
        self._finished: list[str] = []
        self._committed: Counter[str] = Counter()  # runs, by the folder that has their lines
        self._failures: dict[str, Failure] = {}
        self._tries: dict[str, int] = {}  # how often more a run that failed may be tried
        self._ended: dict[str, list[str]] = {}  # attempts of keys that run again: their lines are still there
        self._exit_codes: dict[str, int | None] = {}  # of workers that died once with a run
        self._looked_at = 0.0  # when the results of the tasks that come next were looked for
        self._wait_for_others: Wait | None = None
        self._asked: set[str] = set()  # keys that others wait for
        self._left: dict[str, _Left] = {}  # keys that were given back to such
        self._waiting = Waiting(table, self._tenure)
        self._told = ""
        self._bar = ProgressBar()

    def run(self, params: Iterable[Mapping[str, Any]]) -> SweepResult[ModelT]:
        """Run or retrieve a record for each of *params*."""
        with _no_collection():
            self._begin(make_plan(self._table, params))
        with progress_bar(len(self._order), self._options.progress) as bar:
            self._bar = bar
            bar.add(cached=len(self._records))
            if self._tasks:
                with terminable():
                    self._run_tasks()
        with _no_collection():
            return self._result()

    def _begin(self, plan: Plan[ModelT]) -> None:
        plan.check_gone(self._table, self._options.missing)
        self._order, self._records, self._tasks = plan.order, plan.records, plan.tasks
        self._is_all_there = not self._tasks  # and the records are in order
        self._fresh.extend(self._tasks.values())
        self._looked_at = time.monotonic()

    def _go_elsewhere(self) -> None:
        """Go on at a random place: others that are at work on this grid are unlikely to be there."""
        if self._fresh:
            self._fresh.rotate(-chance.randrange(len(self._fresh)))

    # While it runs

    def _run_tasks(self) -> None:
        self._table.require_root()
        if recover(self._table):
            self._refresh()
        # Else in order: of runs that need each other the small ones come first, as a rule.
        if self._table.claims.has_others():
            self._go_elsewhere()
        work = Work(
            runner=self._runner,
            root=str(self._table.root),
            marker=self._table.marker,
            sweep=self._sweep,
            stop=str(self._stop),
            holder=this_process().as_dict(),
            outer=inside_of(),
            is_in_memory=self._table.database.is_memory,
        )
        try:
            with self._tenure, self._waiting:
                self._dispatch(work)
                self._require_ends()
        except BaseException:
            # Runs that ended in a worker that was stopped; if this fails the next Store to open tries again.
            with suppress(Exception):
                recover(self._table)
            raise
        finally:
            with suppress(OSError):
                leftovers(self._table, self._sweep, self._committed)
                if not self._has_orphans:
                    unlink(self._stop)
        recover(self._table)

    def _refresh(self) -> None:
        """Read the hits again: a re-run that was recovered may have replaced some of them."""
        key_of = {record.id: key for key, record in self._records.items()}
        for found in self._table.reader.find_many(list(key_of)):
            key = key_of[found.id]
            self._table.parameters.verify(Identity.of_row(vars(self._records[key])), found.row)
            self._records[key] = self._table.reader.record(found)

    def _require_ends(self) -> None:
        if self._tasks:
            first = next(iter(self._tasks))
            raise ClusterError(
                f"{len(self._tasks)} keys of the sweep have neither a record nor a failure, the first of them {first}. "
                "What is finished is stored; sweep again"
            )

    def _dispatch(self, work: Work) -> None:
        options = self._options
        if is_thread_of(options.executor):
            log.info(
                "the sweep runs in this thread, which is one of its executor's own: the others may be as busy"
            )
        elif (options.client, options.workers, options.executor) != (None, None, None) and (
            self._dispatch_away(work)
        ):
            return
        self._is_run_here = self._tenure.lends = self._tenure.is_serial = True
        here = partial(self._run_here, replace(work, stop=""))
        with SerialBackend(here) as backend, self._table.heartbeat.beating():
            self._loop(backend)

    def _dispatch_away(self, work: Work) -> bool:
        """Run where the arguments of the sweep say; return False if what is left is to run in this thread."""
        options = self._options
        sent: Any = partial(run_whole, work)
        if options.client is not None:
            sent = NotedWork(work)
        elif options.executor is not None and not isinstance(options.executor, ThreadPoolExecutor):
            sent = TicketedWork(work)
        try:
            backend = backend_for(
                sent, client=options.client, workers=options.workers, executor=options.executor
            )
        except ClusterError as error:
            self._fall_back(error, [])
            return False
        is_here = self._tenure.lends = isinstance(options.executor, ThreadPoolExecutor)
        try:
            with backend, self._table.heartbeat.beating(is_run_here=is_here):
                self._loop(backend)
        except BackendLost as lost:
            if isinstance(lost.cause, RunsHere):
                kind = type(options.executor).__name__
                log.info(
                    "the sweep runs in this thread, where its executor (%s) calls what it is given", kind
                )
                self._take_back(lost.remaining)
                return False
            # Workers may outlive their scheduler: they must not go on with a chunk that runs here too.
            self._has_orphans = True
            self._abort()
            self._fall_back(lost.cause, lost.remaining)
            return False
        return True

    def _run_here(self, work: Work, jobs: list[Job], outcomes: Outcomes) -> None:
        """Run jobs in this thread."""
        run_noted(work, jobs, lambda number: raise_if_terminated(), outcomes)

    def _fall_back(self, cause: BaseException, remaining: Sequence[Job]) -> None:
        """Go on in this process, or raise what happened to the cluster."""
        said = text_of(cause)
        if not isinstance(cause, EntropicError):
            said = f"{type(cause).__name__}: {said}" if said else type(cause).__name__
        if self._options.fallback == "raise":
            if isinstance(cause, EntropicError):
                raise cause
            raise ClusterError(
                f"the cluster failed: {said}. What is finished is stored: sweep again"
            ) from cause
        log.warning("the cluster failed, what is left runs in this process: %s", said)
        self._take_back(remaining)

    def _take_back(self, remaining: Sequence[Job]) -> None:
        """Run in this thread what a backend did not."""
        self._tenure.reset(job.record_id for job in remaining)
        for job in remaining:  # a run that began elsewhere may have changed its parameters
            identity = self._tasks[job.record_id].identity
            self._ready.append(replace(job, params=identity.for_runner()))

    def _loop(self, backend: Backend) -> None:
        dispatch(
            self._take,
            self._finish,
            backend,
            key=attrgetter("record_id"),
            crashed=self._crashed,
            died=self._died,
            left=lambda: len(self._fresh) + len(self._ready) + len(self._busy),
            abort=self._abort,
            idle=self._relieve,
            nests=None if self._is_run_here else lambda: self._tenure.is_asked,
            give_back=self._give_back,
            threads=self._options.threads_per_run,
        )

    def _take(self, n: int, *, wait: bool) -> list[Job] | None:
        """Claim up to *n* keys; `dispatch` says what the answers mean."""
        jobs = self._next(n, wait=wait)
        if jobs and self._is_run_here:
            self._table.database.rest()  # before the runs: many such processes share a server's connections
        return jobs

    def _next(self, n: int, *, wait: bool) -> list[Job] | None:
        if self._ready:
            return [self._ready.popleft() for _ in range(min(n, len(self._ready)))]
        if not (self._fresh or self._busy):
            return [] if self._tasks and not wait else None  # what is in flight may come back
        if self._fresh and time.monotonic() - self._looked_at > self._options.patience.look_again_s:
            self._collect(self._fresh, CHUNK // 2)  # up to two keys each
        if self._fresh:
            before = len(self._busy)
            jobs = self._claim([self._fresh.popleft() for _ in range(min(n, len(self._fresh)))], takes=False)
            if len(self._busy) > before and not inside_of():
                self._go_elsewhere()
        else:
            jobs = self._revisit(n, wait=wait) if self._busy else []
        if jobs:
            self._wait_for_others = None
            self._waiting.end()
        self._bar.wait_for(len(self._busy))
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
            key = self._tasks.pop(record_id).identity.id
            self._records[key] = self._table.reader.record(found)
        if done:
            self._bar.add(cached=len(done))

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
            self._table.job(self._tasks[key].identity, key, found, ended=tuple(self._ended.get(key, ())))
            for key, found in granted.items()
        ]

    def _pause(self, holders: Sequence[Holder], wait: bool) -> None:
        patience = self._options.patience
        if self._wait_for_others is None:
            self._wait_for_others = Wait(patience)
        self._waiting.go_on([task.record_id for task in self._busy], self._wait_for_others.waited_s)
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

    def _finish(self, outcomes: Outcomes) -> None:
        self._cancel([outcome for outcome in outcomes if isinstance(outcome, Interrupted)])
        # Whoever took the key, or gets it now, commits it or gives it back.
        self._give_back([outcome for outcome in outcomes if isinstance(outcome, NotBegun)])
        finished = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
        failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        lost, refused = self._tenure.publish(finished)
        own = own_staging(self._table.root, self._sweep)
        own.settle(sum(o.folder == own.folder.name and o.record_id not in lost for o in finished))
        self._tenure.fail(failed)
        failed += refused
        is_refused = {failure.record_id for failure in refused}
        for receipt in finished:
            key = receipt.record_id
            if key in is_refused or key in lost:
                self._ended.setdefault(key, []).append(receipt.attempt)
            if key in is_refused:
                continue
            if key in lost:  # another process has it now, and will commit it
                self._busy.append(self._tasks[key])
            else:
                identity = self._tasks.pop(key).identity
                self._finished.append(key)
                self._committed[receipt.folder] += 1
                # It may be a run that another process had finished under this id.
                self._table.parameters.verify(identity, self._table.parameters.load(receipt.stored))
        given_up = [failure for failure in failed if not self._is_tried_again(failure)]
        for failure in given_up:
            self._failures[self._tasks.pop(failure.record_id).identity.id] = failure
        self._bar.add(done=len(finished) - len(lost) - len(refused), failed=len(given_up))

    def _cancel(self, interrupted: Sequence[Interrupted]) -> None:
        """Record runs that were interrupted, and give their keys back."""
        for one in interrupted:
            at = datetime.fromtimestamp(one.started_at, UTC)
            with suppress(KeyError):  # it is no more ours: it was not begun by this sweep
                pair = self._tenure.pair(one.record_id)
                self._table.endings.cancel(one.job, pair[1], at, self._table.code, one.where)
                self._tenure.forget(one.record_id)
            if one.record_id in self._tasks:
                self._busy.append(self._tasks[one.record_id])

    def _give_back(self, jobs: Sequence[Job | NotBegun]) -> None:
        """Come back to keys later, whoever runs them; to those that others wait for when these have had their turn."""
        self._tenure.release(job.record_id for job in jobs)
        for key in self._asked.intersection(job.record_id for job in jobs):
            self._leave(key)
        self._busy.extend(self._tasks[job.record_id] for job in jobs if job.record_id in self._tasks)

    def _leave(self, key: str) -> None:
        """Leave a key to who waits for it, for longer than that one pauses, and twice as long each time."""
        if self._is_left(key):
            return
        times = self._left[key].times if key in self._left else 0
        seconds = 2 * self._options.patience.longest_pause_s * 2.0**times
        self._left[key] = _Left(time.monotonic() + seconds, times + 1)

    def _is_left(self, key: str) -> bool:
        return key in self._left and time.monotonic() < self._left[key].until

    def _relieve(self) -> bool:
        """Do for runs that wait for others what they cannot do; return whether there are any that this sweep hinders.

        What a worker that waits will not begin is given back, and what it has finished is committed: it may be what
        another one waits for, or this one itself. And what anybody waits for is given back if it was not begun: that
        one may be in the way of it, where executors are shared.
        """
        found = [] if self._tenure.lends else list(notes(self._table.root, f"-{self._sweep}"))
        self._asked = self._tenure.not_at_work(asked_of(self._table.root, self._table.marker.root))
        if self._asked and not self._tenure.lends:
            self._commit_asked()
        for note in found:
            self._give_up(note.struck.get(self._sweep, ()))
            self._tenure.commit_for(unfinished(self._table, read_sidecar(note.folder)))
        if self._tenure.lends and self._asked:
            for key in self._asked:
                self._leave(key)
            self._tenure.give_back()
        if found:  # and so does this sweep, with what it is inside of
            self._waiting.stand_aside()
        # On Dask nothing is in the way: a task that waits lets go of its slot.
        return bool(found or (self._asked and self._options.client is None))

    def _commit_asked(self) -> None:
        """Commit what somebody waits for and a worker has finished, whose chunk goes on."""
        for folder in process_folders(self._table.root):
            if is_of_sweep(folder.name, self._sweep):
                ended = unfinished(self._table, read_sidecar(folder))
                self._tenure.commit_for([one for one in ended if one.record_id in self._asked])

    def _give_up(self, keys: Iterable[str]) -> None:
        """Release what a worker will not begin any more."""
        given = list(keys)
        for key in self._asked.intersection(given):
            self._leave(key)
        self._tenure.release(given)

    def _is_tried_again(self, failure: Failure) -> bool:
        """Queue a run that failed once more, after all others, if it may fail again."""
        left = self._tries.get(failure.record_id, self._options.retries + failure.is_deep)
        if not left:
            return False
        self._tries[failure.record_id] = left - 1
        self._fresh.append(self._tasks[failure.record_id])
        return True

    def _died(self, job: Job, death: WorkerDied) -> None:
        self._exit_codes[job.record_id] = death.exit_code
        try:
            self._table.endings.lose_worker(job, death, self._table.code)
        except DBAPIError as trouble:  # no reason to end the sweep, which may be ending already
            log.warning("it could not be recorded that a run of %s was lost: %s", job.record_id, trouble)

    def _crashed(self, job: Job) -> Failure:
        self._tries[job.record_id] = 0  # it had its second chance
        error = ClusterError(
            f"the run of {job.record_id} with {job.stored!r:.500} killed its worker twice, or its workers went out of "
            "reach, and was given up; their logs tell why (often memory)"
        )
        return Failure(
            record_id=job.record_id,
            attempt=uuid4().hex,
            stored=job.stored,
            error_type="ClusterError",
            message=str(error),
            traceback="",
            started_at=time.time(),
            elapsed_s=0.0,
            where={"owner": None, "host": None, "pid": None, "worker": None, "batch_job": None},
            exception=error,
            exit_code=self._exit_codes.get(job.record_id),
        )

    def _abort(self) -> None:
        with suppress(OSError):
            # In this process's own folder, which goes when the process ends, even if a worker is never told.
            own_staging(self._table.root).touch(self._stop.name)

    # When all is done

    def _result(self) -> SweepResult[ModelT]:
        key_of = {record_id: key for key, record_id in self._order.items()}
        for found in self._table.reader.find_many(self._finished):
            self._records[key_of.pop(found.id)] = self._table.reader.record(found)
        if deleted := [key for key in self._finished if key in key_of]:
            raise ClaimLostError(
                f"the row of {deleted[0]!r} was deleted by another process right after its commit: sweep again if it "
                "was not meant to be"
            )
        failed = [self._failed(self._failures[key]) for key in self._order if key in self._failures]
        if failed and self._options.on_error == "raise":
            first = next(self._failures[key] for key in self._order if key in self._failures)
            error = first.error()
            note_on(
                error,
                f"{len(failed)} of {len(self._order)} runs of the sweep failed, and this is the first of them; "
                "the others are stored. on_error='continue' returns them; store.failures() lists what failed",
            )
            raise error
        records = self._records
        if not self._is_all_there:
            records = {key: records[key] for key in self._order if key in records}
        return SweepResult(
            records,
            failed,
            key_of=lambda params: self._table.parameters.identify(params).id,
            names=self._table.names_of_columns,
        )

    def _failed(self, failure: Failure) -> FailedRun:
        return FailedRun(
            id=failure.record_id,
            params=self._table.parameters.for_people(failure.stored),
            error_type=failure.error_type,
            message=failure.message,
            traceback=failure.traceback,
            host=failure.where.get("host"),
            ended_at=datetime.fromtimestamp(failure.started_at + failure.elapsed_s, UTC),
            exception=failure.error(),
        )


@transparent
def _no_collection() -> Iterator[None]:
    """Pause the collector of reference cycles while many records are made.

    None of them is garbage, but it would look at all of them again and again: four fifths of the time of a sweep of
    100 000 cached sets. Nor does it look at them afterwards, as at what is new: they are made old at once.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            # What the user has frozen would thaw; to ask walks all of that, so few objects are left young.
            if gc.get_count()[0] >= _MANY_OBJECTS and not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()
