"""A sweep over one table: what must run, and the way of each key to its row.

Everything is looked up before anything runs (`plan`). What has no result is claimed batch by batch as there is room,
looked up once more under its claim (`entropic.runs.tenure`), run, and committed as it arrives; what others hold is come
back to. So processes that sweep the same grid divide it between them. A key ends as a record or as a failure.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any, Generic, TypeVar
from uuid import uuid4

from sqlalchemy.exc import DBAPIError

from entropic.diagnosis.history import FailedRun
from entropic.disk.guarded import unlink
from entropic.disk.roots import STATE
from entropic.disk.staging import own_staging
from entropic.display.progress import ProgressBar, progress_bar
from entropic.errors import ClaimLostError, ClusterError, EntropicError
from entropic.model.base import Base
from entropic.model.identities import Identity
from entropic.process.blocks import transparent
from entropic.process.identity import this_process
from entropic.process.logs import get_logger
from entropic.process.raised import note_on, text_of
from entropic.process.termination import raise_if_terminated, terminable
from entropic.runs.attempts import Runner, Work
from entropic.runs.inside import inside_of
from entropic.runs.jobs import Failure, Interrupted, Job, NotBegun, Receipt, WorkerDied
from entropic.runs.recovery import leftovers, recover
from entropic.runs.result_table import ResultTable
from entropic.runs.tenure import Tenure
from entropic.sweeps.backends import backend_for
from entropic.sweeps.backends.base import Backend, SerialBackend
from entropic.sweeps.backends.executor import RunsHere, is_thread_of
from entropic.sweeps.backends.task_notes import NotedWork
from entropic.sweeps.backends.tickets import TicketedWork
from entropic.sweeps.cuts import Outcomes, run_noted, run_whole
from entropic.sweeps.plan import Plan, make_plan
from entropic.sweeps.prepared import initializer_of
from entropic.sweeps.result import SweepOptions, SweepResult
from entropic.sweeps.tasks import Tasks
from entropic.sweeps.window import BackendLost, dispatch

__all__ = ["Sweep"]

log = get_logger(__name__)

_MANY_OBJECTS = 10_000  # to look at fewer takes the collector less than a millisecond

ModelT = TypeVar("ModelT", bound=Base)


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
        self._tasks: Tasks
        self._is_all_there = False
        self._finished: list[str] = []
        self._committed: Counter[str] = Counter()  # runs, by the folder that has their lines
        self._failures: dict[str, Failure] = {}
        self._tries: dict[str, int] = {}  # how often more a run that failed may be tried
        self._exit_codes: dict[str, int | None] = {}  # of workers that died once with a run
        self._bar = ProgressBar()

    def run(self, params: Iterable[Mapping[str, Any]]) -> SweepResult[ModelT]:
        """Run or retrieve a record for each of *params*."""
        with _no_collection():
            self._begin(make_plan(self._table, params))
        with progress_bar(len(self._order), self._options.progress) as bar:
            self._bar = bar
            bar.add(cached=len(self._records))
            if self._tasks.open:
                with terminable():
                    self._run_tasks()
        with _no_collection():
            return self._result()

    def _begin(self, plan: Plan[ModelT]) -> None:
        plan.check_gone(self._table, self._options.missing)
        self._order, self._records = plan.order, plan.records
        self._is_all_there = not plan.tasks  # and the records are in order
        self._tasks = Tasks(self._table, self._tenure, self._options, plan)

    # While it runs

    def _run_tasks(self) -> None:
        self._table.require_root()
        self._recover()
        # Else in order: of runs that need each other the small ones come first, as a rule.
        if self._table.claims.has_others():
            self._tasks.go_elsewhere()
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
            with self._tenure, self._tasks.waiting:
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
        with suppress(OSError):
            recover(self._table)

    def _recover(self) -> None:
        """Take in what crashes have left. What cannot be is logged, and said of its keys when their turn comes."""
        try:
            is_changed = recover(self._table) > 0
        except OSError:
            is_changed = True
        if is_changed:
            self._refresh()

    def _refresh(self) -> None:
        """Read the hits again: a re-run that was recovered may have replaced some of them."""
        key_of = {record.id: key for key, record in self._records.items()}
        for found in self._table.reader.find_many(list(key_of)):
            key = key_of[found.id]
            self._table.parameters.verify(Identity.of_row(vars(self._records[key])), found.row)
            self._records[key] = self._table.reader.record(found)

    def _require_ends(self) -> None:
        if left := self._tasks.open:
            first = next(iter(left))
            raise ClusterError(
                f"{len(left)} keys of the sweep have neither a record nor a failure, the first of them {first}. "
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
                self._tasks.take_back(lost.remaining)
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
        if initializer_of(self._options.executor) is not None:
            raise ClusterError(
                f"the executor failed: {said}. Its initializer prepares each of its processes and was not called in "
                "this one, so that nothing is run here. What is finished is stored: sweep again with a new executor"
            ) from cause
        log.warning("the cluster failed, what is left runs in this process: %s", said)
        self._tasks.take_back(remaining)

    def _loop(self, backend: Backend) -> None:
        dispatch(
            self._take,
            self._finish,
            backend,
            key=attrgetter("record_id"),
            crashed=self._crashed,
            died=self._died,
            left=self._tasks.count_left,
            abort=self._abort,
            idle=self._tasks.relieve,
            nests=None if self._is_run_here else lambda: self._tenure.is_asked,
            give_back=self._tasks.give_back,
            threads=self._options.threads_per_run,
        )

    def _take(self, n: int, *, wait: bool) -> list[Job] | None:
        before = self._tasks.taken_in
        jobs = self._tasks.take(n, wait=wait)
        if cached := self._tasks.taken_in - before:
            self._bar.add(cached=cached)
        self._bar.wait_for(self._tasks.count_busy())
        if jobs and self._is_run_here:
            self._table.database.rest()  # before the runs: many such processes share a server's connections
        return jobs

    def _finish(self, outcomes: Outcomes) -> None:
        self._cancel([outcome for outcome in outcomes if isinstance(outcome, Interrupted)])
        # Whoever took the key, or gets it now, commits it or gives it back.
        self._tasks.give_back([outcome for outcome in outcomes if isinstance(outcome, NotBegun)])
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
                self._tasks.note_ended(key, receipt.attempt)
            if key in is_refused:
                continue
            if key in lost:  # another process has it now, and will commit it
                self._tasks.come_back(key)
            else:
                identity = self._tasks.open.pop(key).identity
                self._finished.append(key)
                self._committed[receipt.folder] += 1
                # It may be a run that another process had finished under this id.
                self._table.parameters.verify(identity, self._table.parameters.load(receipt.stored))
        given_up = [failure for failure in failed if not self._is_tried_again(failure)]
        for failure in given_up:
            self._failures[self._tasks.open.pop(failure.record_id).identity.id] = failure
        self._bar.add(done=len(finished) - len(lost) - len(refused), failed=len(given_up))

    def _cancel(self, interrupted: Sequence[Interrupted]) -> None:
        """Record runs that were interrupted, and give their keys back."""
        for one in interrupted:
            at = datetime.fromtimestamp(one.started_at, UTC)
            with suppress(KeyError):  # it is no more ours: it was not begun by this sweep
                pair = self._tenure.pair(one.record_id)
                self._table.endings.cancel(one.job, pair[1], at, self._table.code, one.where)
                self._tenure.forget(one.record_id)
            if one.record_id in self._tasks.open:
                self._tasks.come_back(one.record_id)

    def _is_tried_again(self, failure: Failure) -> bool:
        """Queue a run that failed once more, after all others, if it may fail again."""
        left = self._tries.get(failure.record_id, self._options.retries + failure.is_deep)
        if not left:
            return False
        self._tries[failure.record_id] = left - 1
        self._tasks.try_again(failure.record_id)
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
                "what succeeded is stored. on_error='continue' returns that; store.failures() lists what failed",
            )
            raise error
        records = self._records
        if not self._is_all_there:
            records = {key: records[key] for key in self._order if key in records}
        return SweepResult(
            records,
            failed,
            key_of=lambda params: self._table.parameters.identify(params).id,
            parameters=self._table.parameters.names,
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
