"""Chunks as tasks of a Dask cluster."""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, Self

from entropic.errors import ClusterError
from entropic.runs.jobs import WorkerDied
from entropic.runs.waits import rejoin, secede
from entropic.sweeps.backends.base import Backend
from entropic.sweeps.chunks import (
    Reply,
    Work,
    as_noting,
    dump_jobs,
    dump_work,
    keep,
    load_answer,
    refuse,
    run_chunk,
)

__all__ = ["DaskBackend"]
_LARGE_PAYLOAD_BYTES = 100_000
_RECOUNT_S = 1.0
_GATHER_S = 30.0
_TELL_S = 2.0
_LOOK_S = 0.5


class DaskBackend(Backend):
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
        self._has_seceded = False

    def __enter__(self) -> Self:
        self._has_seceded = secede()  # a task that sweeps must not be in the way of what it waits for
        return self

    def slots(self) -> int:
        if time.monotonic() - self._counted_at >= _RECOUNT_S:
            self._recount()
        return sum(self._workers.values())

    def slots_of(self, threads: int) -> int:
        self.slots()
        return sum(max(1, n // threads) for n in self._workers.values())

    def _recount(self) -> None:
        if self._client.status != "running":
            raise ClusterError(
                f"the Dask scheduler cannot be reached any more (the client's status is {self._client.status!r}). What "
                "is finished is stored: sweep again with a client that is connected"
            )
        self._workers = self._client.nthreads()
        self._counted_at = time.monotonic()
        # A worker with threads takes other chunks with it, which had begun as well.
        self.isolates = self._noting is not None and all(n == 1 for n in self._workers.values())

    def submit(self, jobs: list[Any]) -> Future[Reply]:
        future: Future[Reply] = Future()
        self._send(future, dump_jobs(jobs))
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
                "Dask cancelled a task of the sweep: somebody restarted the cluster, or cancelled it. What is finished "
                "is stored: sweep again"
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
        with suppress(Exception):  # a client that is closing refuses; then the scheduler forgets it anyway
            if cancel:
                task.cancel()
            task.release()
        if error is not None:
            future.set_exception(error)
        elif reply is not None:
            future.set_result(reply)

    def stop(self, idle: Callable[[], object]) -> list[Any]:
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
                        self._tell(list(workers - told))
                        told |= workers
                    if wait(list(self._flying), timeout=_LOOK_S).not_done:
                        idle()
                    # An interrupt may have come before a task had its callback: nobody else would tell of its end.
                    flying = self._flying.copy()
                    for future, (task, _) in flying.items():
                        if future in ended:
                            self._deliver(future, task)
                    ended = {future for future, (task, _) in flying.items() if task.done()}
        finally:
            self._drop()
        return []

    def _tell(self, workers: list[str]) -> None:
        """Make *workers* begin nothing more; not waited for where one cannot be reached, as Ctrl-C ends them too."""

        def run() -> None:
            with suppress(Exception):
                self._client.run(refuse, self._sweep, workers=workers, on_error="ignore")

        thread = threading.Thread(target=run, name="entropic-stop", daemon=True)
        thread.start()
        thread.join(_TELL_S)

    def _drop(self) -> None:
        for future in list(self._flying):
            self._settle(future, error=ClusterError("the sweep was stopped"), cancel=True)

    def close(self) -> None:
        self._drop()
        if self._shared is not None:
            self._shared.release()
            self._shared = None
        if self._has_seceded:
            self._has_seceded = False
            rejoin()
