"""Many runs at once: send their jobs out in chunks, and keep as many in flight as there is room for.

`dispatch` is one window loop over any backend (`entropic.sweeps.backends`). It claims jobs through a
callable when there is room for them and hands outcomes to another as they arrive, so memory does not grow with the
sweep. Every job that was taken ends exactly once: in an outcome, in what `crashed` makes of a job that killed its
worker twice, or, when the backend is lost, in `BackendLost.remaining`. A reply without exactly one outcome for each job
of its chunk is an error.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from entropic.errors import ClusterError
from entropic.process.logs import get_logger
from entropic.process.raised import first_line
from entropic.runs.jobs import WorkerDied
from entropic.sweeps.backends.base import Backend
from entropic.sweeps.chunks import Reply

__all__ = ["BackendLost", "dispatch"]

log = get_logger(__name__)

JobT = TypeVar("JobT")
OutcomeT = TypeVar("OutcomeT")

_POLL_S = 0.5
_SETTLE_S = 10.0
_QUIET_S = 5.0
_REMIND_S = 60.0
_DEADLY = 2
MAX_CHUNK = 500  # jobs
_GROWTH = 4  # from one chunk to the next
_LEAST = 1 / 20  # of the time that a chunk should last: what it costs to send one is then a few per cent


class BackendLost(Exception):
    """The backend cannot go on; everything that it finished was handed over.

    Attributes
    ----------
    remaining : list
        The jobs that were taken and have no outcome.
    cause : BaseException
        What the backend, or the work where it ran, raised.
    """

    def __init__(self, remaining: list[Any], cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.remaining = remaining
        self.cause = cause


class Take(Protocol[JobT]):
    """Claims jobs: up to *n*; none if others hold them just now (after a pause if *wait*); None if all are done."""

    def __call__(self, n: int, *, wait: bool) -> list[JobT] | None: ...


def dispatch(
    take: Take[JobT],
    finish: Callable[[list[OutcomeT]], object],
    backend: Backend,
    *,
    key: Callable[[JobT | OutcomeT], Hashable],
    crashed: Callable[[JobT], OutcomeT],
    died: Callable[[JobT, WorkerDied], object] | None = None,
    left: Callable[[], int] | None = None,
    abort: Callable[[], object] | None = None,
    idle: Callable[[], bool] | None = None,
    nests: Callable[[], bool] | None = None,
    give_back: Callable[[list[JobT]], object] | None = None,
    threads: int = 1,
) -> None:
    """Run the jobs that *take* gives on *backend* and hand their outcomes to *finish* as they arrive.

    Parameters
    ----------
    take
        Called with the number of jobs that there is room for. With ``wait=True`` nothing is in flight: if it has no
        job to give it pauses before it returns ``[]``, as the loop asks again at once.
    finish
        Called in this thread, with the outcomes of the chunks that have ended since.
    key
        Names a job, and the job that an outcome is of.
    crashed
        Makes the outcome of a job that killed its worker twice. Such a job never runs in this process.
    died
        Told of a job that its worker died with, and which is tried once more; where that is sure.
    left
        How many jobs *take* has yet to give, about: chunks shrink towards the end so that all slots share it.
    abort
        Called first when the loop ends by an exception, to make the work give up between two jobs.
    idle
        Called when nothing has arrived for a while; says whether runs wait for others. From then on no job waits in a
        queue, and those that do are given back.
    nests
        Says whether runs have needed jobs of this sweep. From then on no job waits in a queue: many of them would be
        run inside of each other.
    give_back
        Takes jobs that were not begun, and which *take* may give again.
    threads
        How many of a backend's threads or processes each job takes. With more than one no chunk waits in a queue, from
        where it would be begun beside the others.

    Raises
    ------
    BackendLost
        If the backend is gone or cannot run the work. With a backend that is this process the cause itself is raised.
    ClusterError
        If a chunk came back without exactly one outcome for each of its jobs. What is sure is handed over.
    BaseException
        What cut a chunk short and ends the sweep (`Reply.is_last`), be it an interrupt of a worker.

    Notes
    -----
    When this has returned or raised no job is running.
    """
    window = _Window(
        take,
        finish,
        backend,
        key=key,
        crashed=crashed,
        died=died,
        left=left,
        idle=idle,
        nests=nests,
        give_back=give_back,
        threads=threads,
    )
    try:
        window.run()
    except _Lost as lost:
        raise BackendLost(window.surrender(), lost.cause) from lost.cause
    except BaseException:
        if abort is not None:
            abort()
        window.abandon()
        raise


class _Lost(Exception):
    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Pace:
    """How many jobs make a chunk: from a running mean of the seconds that one takes."""

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s
        self._largest = 0
        self._mean_s = 0.0

    def learn(self, jobs: int, seconds: float) -> None:
        each = seconds / jobs
        self._mean_s = 0.7 * self._mean_s + 0.3 * each if self._largest else each
        self._largest = max(self._largest, jobs)

    def size(self) -> int:
        wanted = int(self._target_s / max(self._mean_s, 1e-9))
        # At most four times what has been seen: one quick job says little about the next five hundred.
        return max(1, min(wanted, _GROWTH * self._largest, MAX_CHUNK))

    def least(self) -> int:
        """How many jobs are worth a chunk, where it is smaller than it might be only for the slots to share the end."""
        if not self._largest:
            return 1
        return min(self.size(), max(1, int(self._target_s * _LEAST / max(self._mean_s, 1e-9))))


class _Chunk(Generic[JobT]):
    """Jobs in flight; *deaths* counts the workers that the one job of a suspect's chunk has killed."""

    def __init__(self, jobs: list[JobT], *, deaths: int = 0, alone: bool = False) -> None:
        self.jobs = jobs
        self.deaths = deaths
        self.alone = alone


class _Drought:
    """Says that there are no workers: a batch queue can be empty for hours, which is no failure."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._say_at = 0.0

    def look(self, slots: int) -> None:
        now = time.monotonic()
        if slots:
            self._since = None
        elif self._since is None:
            self._since, self._say_at = now, now + _QUIET_S
        elif now >= self._say_at:
            seconds = now - self._since
            level = logging.WARNING if self._say_at == self._since + _QUIET_S else logging.INFO
            log.log(
                level,
                "No workers for %.0f s: the sweep waits until some come (Ctrl-C stops it and keeps what is finished)",
                seconds,
            )
            self._say_at = now + _REMIND_S


class _Window(Generic[JobT, OutcomeT]):
    """The chunks in flight, and the jobs that were taken and are not."""

    def __init__(
        self,
        take: Take[JobT],
        finish: Callable[[list[OutcomeT]], object],
        backend: Backend,
        *,
        key: Callable[[JobT | OutcomeT], Hashable],
        crashed: Callable[[JobT], OutcomeT],
        died: Callable[[JobT, WorkerDied], object] | None,
        left: Callable[[], int] | None,
        idle: Callable[[], bool] | None,
        nests: Callable[[], bool] | None,
        give_back: Callable[[list[JobT]], object] | None,
        threads: int,
    ) -> None:
        self._take = take
        self._finish = finish
        self._backend = backend
        self._pace = _Pace(backend.target_s)
        self._key = key
        self._crashed = crashed
        self._died = died
        self._left = left
        self._idle = idle
        self._nests = nests
        self._give_back = give_back
        self._threads = threads
        self._nested = 0  # once runs have waited for others: how many chunks may be in flight
        self._beside = 0  # how many suspects are tried although there is no room
        self._drought = _Drought()
        self._exhausted = False
        self._taken: deque[JobT] = deque()
        self._suspects: deque[_Chunk[JobT]] = deque()
        self._flying: dict[Future[Reply], _Chunk[JobT]] = {}
        # A queue rather than wait(): that one looks at every future of the window for each that ends.
        self._ended: SimpleQueue[Future[Reply]] = SimpleQueue()

    def run(self) -> None:
        while True:
            slots = self._slots()
            self._drought.look(slots)
            self._try_suspects(slots)
            if not self._suspects and (self._backend.isolates or not self._is_trying()):
                self._fill(slots)
            if self._flying:
                arrived = self._arrivals(_POLL_S)
                self._absorb(arrived)
                if not arrived and self._idle is not None and self._idle():
                    self._clear_queue()
            elif self._exhausted and not self._suspects and not self._taken:
                return

    def _clear_queue(self) -> None:
        """Give back what nobody has begun: it may be what those wait for who are at work."""
        jobs = list(self._taken)
        self._taken.clear()
        for future in self._backend.withdraw():
            chunk = self._flying.pop(future, None)
            if chunk is not None and chunk.alone:
                self._suspects.append(chunk)
            elif chunk is not None:
                jobs += chunk.jobs
        # No more than have begun: what is claimed and waits here again is out of reach for who needs it.
        self._nested = max(1, len(self._flying))
        if jobs and self._give_back is not None:
            self._give_back(jobs)
        if self._suspects:  # not to be given back, or whoever waits for it would run it inside of its own run
            self._beside = 1
            self._backend.widen()

    def _slots(self) -> int:
        try:
            return self._backend.slots_of(self._threads)
        except Exception as error:
            if not self._backend.remote:
                raise
            raise _Lost(error) from error

    def _is_trying(self) -> bool:
        return any(chunk.alone for chunk in self._flying.values())

    def _try_suspects(self, slots: int) -> None:
        """Run what may have killed a worker where its death can be laid to nobody else."""
        limit = max(1, slots) if self._backend.isolates else 1
        while self._suspects and (self._beside or len(self._flying) < limit):
            self._beside -= len(self._flying) >= limit
            self._submit(self._suspects[0])
            self._suspects.popleft()

    def _fill(self, slots: int) -> None:
        # Two even without a worker: an adaptive cluster starts none before it has something to do.
        capacity = max(2, 2 * slots) if self._backend.remote else 1
        if self._threads > 1:
            capacity = max(1, slots)
        if not self._nested and self._nests is not None and self._nests():
            self._nested = max(1, slots)
        if self._nested:
            capacity = max(1, min(slots, self._nested))
        room = capacity - len(self._flying)
        if room <= 0:
            return
        size, least = (1, 1) if self._nested else (self._pace.size(), self._pace.least())
        if not self._taken:  # else they are what a worker that died was given besides the job that it was at
            if self._exhausted:
                return
            if self._left is not None:
                size = min(size, max(least, math.ceil(self._left() / capacity)))
            jobs = self._take(size * room, wait=not self._flying)
            if jobs is None:
                self._exhausted = True
                return
            self._taken.extend(jobs)
        size = min(size, max(least, math.ceil(len(self._taken) / room)))
        while self._taken:
            chunk = list(itertools.islice(self._taken, size))
            self._submit(_Chunk(chunk))
            for _ in chunk:
                self._taken.popleft()
            self._absorb(self._arrivals(0))

    def _submit(self, chunk: _Chunk[JobT]) -> None:
        try:
            future = self._backend.submit(chunk.jobs)
        except Exception as error:
            if not self._backend.remote:
                raise
            raise _Lost(error) from error
        self._flying[future] = chunk
        future.add_done_callback(self._ended.put)

    def _arrivals(self, timeout_s: float) -> list[Future[Reply]]:
        arrived: list[Future[Reply]] = []
        try:
            if timeout_s:
                arrived.append(self._ended.get(timeout=timeout_s))
            while True:
                arrived.append(self._ended.get_nowait())
        except Empty:
            return arrived

    def _absorb(self, arrived: Iterable[Future[Reply]]) -> None:
        """Hand over what the futures carry, in their order; then raise if one of them says the backend is lost."""
        outcomes: list[OutcomeT] = []
        lost: BaseException | None = None
        last: BaseException | None = None
        wrong: ClusterError | None = None
        for future in arrived:
            chunk = self._flying.pop(future, None)
            if chunk is None:  # it was withdrawn
                continue
            error = future.exception()
            if error is None:
                reply = future.result()
                sure, without = self._matched(chunk, reply.outcomes)
                outcomes += sure
                if reply.cause is not None:
                    self._take_back(chunk, without)
                    lost, last = lost or reply.cause, reply.cause if reply.is_last else last
                elif without or len(sure) != len(reply.outcomes):
                    wrong = wrong or _mismatch(chunk, reply, without)
                self._pace.learn(len(chunk.jobs), reply.seconds)
                self._nested += bool(self._nested)  # where one has ended another can begin
            elif isinstance(error, WorkerDied):
                outcomes += self._suspect(chunk, error)
            else:
                self._take_back(chunk, chunk.jobs)
                lost = lost or error
        if outcomes:
            self._finish(outcomes)
        if wrong is not None:
            raise wrong
        if last is not None:
            raise last
        if lost is not None:
            raise _Lost(lost)

    def _take_back(self, chunk: _Chunk[JobT], jobs: list[JobT]) -> None:
        """Keep jobs of a chunk that have no outcome, a suspect as such: it is not to enter this process."""
        if chunk.alone and jobs:
            self._suspects.append(chunk)
        else:
            self._taken.extend(jobs)

    def _matched(self, chunk: _Chunk[JobT], outcomes: list[OutcomeT]) -> tuple[list[OutcomeT], list[JobT]]:
        """Return the outcomes of a chunk that are the only ones of a job of it, and the jobs that have none such."""
        of = {self._key(job): job for job in chunk.jobs}
        count = Counter(self._key(outcome) for outcome in outcomes)
        sure = [
            outcome for outcome in outcomes if self._key(outcome) in of and count[self._key(outcome)] == 1
        ]
        return sure, [job for key, job in of.items() if count[key] != 1]

    def _suspect(self, chunk: _Chunk[JobT], error: WorkerDied) -> list[OutcomeT]:
        if chunk.alone and chunk.deaths + 1 >= _DEADLY:
            log.warning(
                "A run has lost its second worker and is given up (its workers' logs tell why, often memory): %s",
                error,
            )
            return [self._crashed(chunk.jobs[0])]
        at = 0 if len(chunk.jobs) == 1 else error.at
        if at is None:
            log.warning(
                "A worker was lost, and what it was given (%d) is tried again, one run at a time: %s",
                len(chunk.jobs),
                error,
            )
            self._suspects.extend(_Chunk([job], deaths=chunk.deaths, alone=True) for job in chunk.jobs)
        else:
            log.warning("A worker was lost, and the run that it was at is tried once more: %s", error)
            if self._died is not None and self._backend.isolates and not error.is_shared:
                self._died(chunk.jobs[at], error)
            self._suspects.append(_Chunk([chunk.jobs[at]], deaths=chunk.deaths + 1, alone=True))
            self._taken.extend(job for number, job in enumerate(chunk.jobs) if number != at)
        return []

    def surrender(self) -> list[JobT]:
        """Stop, hand over what has finished, and return the jobs that have no outcome."""
        outcomes = self._stop()
        remaining = list(self._taken)
        for chunk in self._suspects:
            # The caller may run what remains in this process, which a job that has killed one must not enter.
            if chunk.deaths:
                outcomes += [self._crashed(job) for job in chunk.jobs]
            else:
                remaining += chunk.jobs
        if outcomes:
            self._finish(outcomes)
        return remaining

    def abandon(self) -> None:
        """Stop, and hand over what has finished if *finish* takes it: the error that is on its way matters more."""
        outcomes = self._stop()
        try:
            if outcomes:
                self._finish(outcomes)
        except Exception as error:
            log.warning(
                "%d outcomes could not be handed over after an error; what finished is taken in when a Store opens: %s",
                len(outcomes),
                first_line(error),
            )
            log.debug("why they could not", exc_info=True)

    def _relieve(self) -> None:
        """Give back what was not begun if what is at work waits for it, and would not end."""
        try:
            if self._idle is not None and self._idle():
                self._clear_queue()
        except Exception:  # be it why all is stopped
            log.debug("runs that wait for others could not be helped", exc_info=True)

    def _stop(self) -> list[OutcomeT]:
        outcomes: list[OutcomeT] = list(self._backend.stop(self._relieve))
        wait(self._flying, timeout=_SETTLE_S)
        while self._flying:
            future, chunk = self._flying.popitem()
            error = ClusterError("the chunk was given up") if _is_void(future) else future.exception()
            if error is None and future.result().outcomes:
                # What was left out, as the sweep is being stopped, is given back like what was never begun.
                sure, without = self._matched(chunk, future.result().outcomes)
                outcomes += sure
                self._take_back(chunk, without)
            elif isinstance(error, WorkerDied):
                outcomes += self._suspect(chunk, error)
            else:
                self._take_back(chunk, chunk.jobs)
        return outcomes


def _mismatch(chunk: _Chunk[Any], reply: Reply, without: list[Any]) -> ClusterError:
    return ClusterError(
        f"a chunk of {len(chunk.jobs)} runs came back with {len(reply.outcomes)} outcomes, {len(without)} of its runs "
        f"without exactly one{f', the first of them {without[0]!r:.300}' if without else ''}. What is sure is stored; "
        "make sure that all workers have this version of entropic, and sweep again"
    )


def _is_void(future: Future[Reply]) -> bool:
    return future.cancelled() or not future.done()
