"""Where the chunks of a sweep run: this process, processes of our own, an executor of the user's, a Dask cluster.

A backend takes chunks of jobs and gives a `concurrent.futures.Future` of a `Reply` for each. A future
fails in one of two ways: with `WorkerDied`, when the process that held the chunk is gone, or with anything else,
which means that the backend is of no use for this work any more.

On Dask a chunk is a task. Dask runs a task again when its worker is gone, on one worker after the other until four have
died, and no argument of `submit` says otherwise. Work that notes what it begins (`payload.Noting`) reports the death at
the second worker instead; the sweep then tries the job that was begun once more, and gives it up if that kills a
worker too. A task that no worker had begun is simply run by the next one, by Dask.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
import uuid
from abc import ABC, abstractmethod
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, Self

from entropic.errors import ClusterError
from entropic.process.termination import raise_if_terminated
from entropic.sweeps.chunks import (
    Reply,
    Work,
    WorkerDied,
    as_noting,
    dump_work,
    keep,
    load_answer,
    refuse,
    run_chunk,
    run_timed,
)

__all__ = ["Backend", "backend_for"]

log = logging.getLogger(__name__)


_LARGE_PAYLOAD_BYTES = 100_000
_RECOUNT_S = 1.0
_GATHER_S = 30.0


class Backend(ABC):
    """A place where chunks run; a context manager that gives back what it holds.

    Attributes
    ----------
    remote : bool
        Whether jobs run outside the calling thread, so that losing the backend leaves something to fall back to.
    isolates : bool
        Whether a worker that dies takes only the chunk that it was running with it.
    target_s : float
        How long a chunk should last.
    """

    remote = True
    isolates = False
    target_s = 1.0

    @abstractmethod
    def slots(self) -> int:
        """Count the chunks that can run at the same time just now; raise if the backend is gone."""

    @abstractmethod
    def submit(self, jobs: list[Any]) -> Future[Reply]:
        """Queue a chunk."""

    @abstractmethod
    def stop(self) -> list[Any]:
        """Drop what is queued, wait until nothing runs, and return finished outcomes that no future carries."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the backend holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def backend_for(
    work: Work, *, client: Any = None, workers: int | None = None, executor: Executor | None = None
) -> Backend:
    """Return the backend that the arguments of a sweep ask for; without any, this thread.

    Raises
    ------
    ValueError
        If more than one of the three is given, or *workers* is not a positive int.
    ClusterError
        If *work* would have to be pickled and cannot be. Nothing has run.
    """
    given = [
        f"{name}="
        for name, value in (("client", client), ("workers", workers), ("executor", executor))
        if value is not None
    ]
    if len(given) > 1:
        raise ValueError(
            f"{' and '.join(given)} exclude each other: give one, or none to run in this process"
        )
    if workers is not None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"workers must be an int of at least 1, not {workers!r}")
        return _PoolBackend(dump_work(work), workers)
    if executor is not None:
        return _ExecutorBackend(work, executor)
    return _SerialBackend(work) if client is None else _DaskBackend(work, client)


class _SerialBackend(Backend):
    """Run each chunk in the calling thread, when it is submitted."""

    remote = False
    target_s = 0.5

    def __init__(self, work: Work) -> None:
        self._work = work
        self._kept: list[Any] = []

    def slots(self) -> int:
        return 1

    def submit(self, jobs: list[Any]) -> Future[Reply]:
        future: Future[Reply] = Future()
        started = time.perf_counter()
        # Job by job: what was finished before Ctrl-C is kept for stop() to hand over.
        for job in jobs:
            raise_if_terminated()
            self._kept += self._work([job])
        outcomes, self._kept = self._kept, []
        future.set_result(Reply(outcomes, time.perf_counter() - started))
        return future

    def stop(self) -> list[Any]:
        kept, self._kept = self._kept, []
        return kept

    def close(self) -> None:
        self._kept = []


class _PoolBackend(Backend):
    """Run chunks in processes of our own, one chunk at a time in each."""

    isolates = True

    def __init__(self, payload: bytes, workers: int) -> None:
        from entropic.sweeps.backends.processes import (
            Processes,  # with multiprocessing, which a hit does not need
        )

        self._workers = workers
        self._processes = Processes(workers, functools.partial(run_chunk, payload), load_answer)

    def slots(self) -> int:
        return self._workers

    def submit(self, jobs: list[Any]) -> Future[Reply]:
        import cloudpickle

        return self._processes.submit(cloudpickle.dumps(jobs))

    def stop(self) -> list[Any]:
        self._processes.kill()
        return []

    def close(self) -> None:
        self._processes.close()


class _ExecutorBackend(Backend):
    """Run chunks in an executor of the user's, which is never shut down here.

    Threads call the work itself. Processes get it pickled; once their pool is broken, processes of our own take over,
    since a broken executor cannot be repaired and is not ours to replace.
    """

    def __init__(self, work: Work, executor: Executor) -> None:
        self._executor = executor
        self._sweep = uuid.uuid4().hex
        self._slots = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
        self._flying: dict[Future[Reply], Future[Any]] = {}
        self._pool: _PoolBackend | None = None
        self._threads = isinstance(executor, ThreadPoolExecutor)
        self._work = work
        self._payload = b"" if self._threads else dump_work(work)

    def slots(self) -> int:
        return self._slots

    def submit(self, jobs: list[Any]) -> Future[Reply]:
        if self._pool is None:
            try:
                return self._relay(self._submit(jobs))
            except BrokenExecutor:
                log.warning("The executor's pool is broken; going on with %d new processes", self._slots)
                self._pool = _PoolBackend(self._payload, self._slots)
                self.isolates = True
        return self._pool.submit(jobs)

    def _submit(self, jobs: list[Any]) -> Future[Any]:
        import cloudpickle

        if self._threads:
            return self._executor.submit(run_timed, self._work, jobs, self._sweep)
        return self._executor.submit(run_chunk, self._payload, cloudpickle.dumps(jobs), self._sweep)

    def _relay(self, inner: Future[Any]) -> Future[Reply]:
        future: Future[Reply] = Future()
        self._flying[future] = inner
        inner.add_done_callback(functools.partial(self._deliver, future))
        return future

    def _deliver(self, future: Future[Reply], inner: Future[Any]) -> None:
        if self._flying.pop(future, None) is None:
            return
        try:
            result = inner.result()
            reply = result if self._threads else load_answer(result)
        except BrokenExecutor as error:
            future.set_exception(WorkerDied(str(error), is_shared=True))
        except BaseException as error:  # whatever it is belongs to the thread that waits for the future
            future.set_exception(error)
        else:
            future.set_result(reply)

    def stop(self) -> list[Any]:
        refuse(self._sweep)  # for threads: what is queued in them
        flying = list(self._flying.items())
        for _, inner in flying:
            inner.cancel()
        wait([inner for _, inner in flying])
        for future, inner in flying:
            self._deliver(
                future, inner
            )  # unless its callback does: an interrupt may have come before it had one
        if self._pool is not None:
            self._pool.stop()
        return []

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


class _DaskBackend(Backend):
    """Run chunks on a Dask cluster; the client stays the user's, and keeps no future of ours."""

    def __init__(self, work: Work, client: Any) -> None:
        if getattr(client, "asynchronous", False):
            raise ValueError("client is asynchronous: give a Client that was made without asynchronous=True")
        self._client = client
        self._noting = as_noting(work)
        self._payload = dump_work(work)
        self._shared: Any = None
        self._sweep = uuid.uuid4().hex
        self._flying: dict[Future[Reply], tuple[Any, bytes]] = {}
        self._lock = threading.Lock()
        self._workers: dict[str, int] = {}
        self._counted_at = float("-inf")

    def slots(self) -> int:
        if time.monotonic() - self._counted_at >= _RECOUNT_S:
            self._recount()
        return sum(self._workers.values())

    def _recount(self) -> None:
        if self._client.status != "running":
            raise ClusterError(
                f"the Dask scheduler cannot be reached any more (the client's status is {self._client.status!r})"
            )
        self._workers = self._client.nthreads()
        self._counted_at = time.monotonic()
        # A worker with threads takes other chunks with it, which had begun as well.
        self.isolates = self._noting is not None and all(n == 1 for n in self._workers.values())

    def submit(self, jobs: list[Any]) -> Future[Reply]:
        import cloudpickle

        future: Future[Reply] = Future()
        self._send(future, cloudpickle.dumps(jobs))
        return future

    def _send(self, future: Future[Reply], chunk: bytes) -> None:
        key = self._key()
        task = self._client.submit(
            run_chunk, self._require_payload(), chunk, self._sweep, key, pure=False, key=key
        )
        self._flying[future] = task, chunk
        task.add_done_callback(functools.partial(self._deliver, future))

    def _key(self) -> str:
        return f"entropic-{uuid.uuid4().hex}"

    def _require_payload(self) -> Any:
        if len(self._payload) <= _LARGE_PAYLOAD_BYTES:
            return self._payload
        if self._shared is None:
            # A task rather than scatter(): the scheduler makes it again when the worker that holds it dies.
            self._shared = self._client.submit(keep, self._payload, pure=False, key=self._key())
        return self._shared

    def _deliver(self, future: Future[Reply], task: Any) -> None:
        from distributed.scheduler import KilledWorker

        try:
            self._receive(future, task)
        except KilledWorker as error:
            begun = None if self._noting is None else self._noting.death(task.key)
            self._settle(future, error=begun or WorkerDied(str(error)))
        except BaseException as error:  # whatever it is belongs to the thread that waits for the future
            self._settle(future, error=error)

    def _receive(self, future: Future[Reply], task: Any) -> None:
        """Settle a chunk whose task has ended, or send it again if it is to blame for nothing."""
        if task.status == "cancelled":
            raise ClusterError(
                "Dask cancelled a task of the sweep: somebody restarted the cluster, or cancelled it"
            )
        answered = self._gather(task)
        if answered is not None:
            try:
                self._settle(future, load_answer(answered))
            except WorkerDied as error:
                if not self._was_retired(error.worker):
                    raise
            else:
                return
        if future in self._flying:
            self._send(future, self._flying[future][1])
            task.release()

    def _was_retired(self, worker: str | None) -> bool:
        """Whether a worker was sent away, as when a cluster shrinks or a worker's time is up: no job is to blame."""
        with suppress(Exception):  # whatever a scheduler that goes away makes of the question
            events = self._client.get_events(worker) if worker else ()
            return any(
                event.get("action") == "remove-worker" and event.get("expected") for _, event in events
            )
        return False

    @staticmethod
    def _gather(task: Any) -> bytes | None:
        """Return the answer, or None if it was lost with the worker that held it."""
        # Dask would make it again, but all deliveries share one thread, which must not wait for that.
        if task.status == "lost":
            return None
        try:
            answered: bytes = task.result(timeout=_GATHER_S)
        except TimeoutError:
            return None
        return answered

    def _settle(
        self,
        future: Future[Reply],
        reply: Reply | None = None,
        *,
        error: BaseException | None = None,
        cancel: bool = False,
    ) -> None:
        with self._lock:
            task, _ = self._flying.pop(future, (None, b""))
        if task is None:  # the callback and stop() may both tell of its end
            return
        with suppress(
            Exception
        ):  # a client that is closing refuses; then the scheduler forgets the task anyway
            if cancel:
                task.cancel()
            task.release()
        if error is not None:
            future.set_exception(error)
        elif reply is not None:
            future.set_result(reply)

    def stop(self) -> list[Any]:
        # Not by cancelling: Dask forgets a cancelled task that runs, and nobody could tell when it has ended.
        told: set[str] = set()
        ended: set[Future[Reply]] = set()
        try:
            with suppress(Exception):  # whatever a scheduler that goes away makes of the questions
                while self._flying and self._client.status == "running":
                    workers = set(self._client.nthreads())
                    if not workers:
                        break
                    if workers - told:
                        self._client.run(refuse, self._sweep, workers=list(workers - told), on_error="ignore")
                        told |= workers
                    wait(list(self._flying), timeout=0.5)
                    # An interrupt may have come before a task had its callback: nobody else would tell of its end.
                    flying = list(self._flying.items())
                    for future, (task, _) in flying:
                        if future in ended:
                            self._deliver(future, task)
                    ended = {future for future, (task, _) in flying if task.done()}
        finally:
            self._drop()
        return []

    def _drop(self) -> None:
        for future in list(self._flying):
            self._settle(future, error=ClusterError("the sweep was stopped"), cancel=True)

    def close(self) -> None:
        self._drop()
        if self._shared is not None:
            self._shared.release()
            self._shared = None
