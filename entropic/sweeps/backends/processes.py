"""Processes of our own, each with the thread that feeds it.

A `ProcessPoolExecutor` fails every future that it holds when one of its processes dies. Here a death costs the one
chunk that the process was running, and a new process takes its place; so it is known who did it.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from queue import Empty, SimpleQueue
from typing import Any

from entropic.errors import ClusterError
from entropic.process.forked_locks import ForkedLock
from entropic.runs.jobs import WorkerDied
from entropic.sweeps.backends.base import Backend
from entropic.sweeps.chunks import Reply, dump_jobs, load_answer, run_chunk

__all__ = ["Processes"]

_LOOK_S = 1.0
_GRACE_S = 2.0
_starting = ForkedLock()


class Processes:
    """A fixed number of processes that call *function* on chunks of bytes, in the order of their submission.

    Parameters
    ----------
    count : int
        Each is started when it first has something to do.
    function
        Sent to each process once, with pickle; gives bytes.
    load
        Called here on those bytes; what it returns or raises is the future's.

    Notes
    -----
    `kill` ends the processes at once, whatever they are doing; `close` lets them end what they are doing.
    """

    def __init__(self, count: int, function: Callable[[bytes], bytes], load: Callable[[bytes], Any]) -> None:
        self._chunks: SimpleQueue[_Chunk | None] = SimpleQueue()
        self._make = functools.partial(_Process, function, load, self._chunks)
        self._processes = [self._make() for _ in range(count)]

    def submit(self, chunk: bytes) -> Future[Any]:
        """Queue a chunk; its future fails with `WorkerDied` if the process that runs it dies."""
        future: Future[Any] = Future()
        self._chunks.put((future, chunk))
        return future

    def withdraw(self) -> list[Future[Any]]:
        """Cancel what is queued, and return its futures."""
        withdrawn = []
        with contextlib.suppress(Empty):
            while True:
                chunk = self._chunks.get_nowait()
                if chunk is not None and chunk[0].cancel():
                    chunk[0].set_running_or_notify_cancel()  # only then does wait() count it as done
                    withdrawn.append(chunk[0])
        return withdrawn

    def widen(self) -> None:
        """Add a process."""
        self._processes.append(self._make())

    def kill(self) -> None:
        """End every process now and cancel what is queued."""
        self.withdraw()
        for process in self._processes:
            process.terminate()
        self.close()

    def close(self) -> None:
        """Wait for what is queued, then end the processes."""
        for _ in self._processes:
            self._chunks.put(None)
        for process in self._processes:
            process.join()


_Chunk = tuple[Future[Any], bytes]


class _Process:
    def __init__(
        self,
        function: Callable[[bytes], bytes],
        load: Callable[[bytes], Any],
        chunks: SimpleQueue[_Chunk | None],
    ) -> None:
        self._function = function
        self._load = load
        self._chunks = chunks
        self._lock = threading.Lock()
        self._stopped = False
        self._ready = False
        self._process: Any = None
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._serve, name="entropic-process", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            future, jobs = chunk
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = self._load(self._ask(jobs))
            except BaseException as error:  # whatever it is belongs to the thread that waits for the future
                future.set_exception(error)
            else:
                future.set_result(result)
        self._bury()

    def _ask(self, jobs: bytes) -> bytes:
        connection = self._require_process()
        try:
            connection.send_bytes(jobs)
            if not self._ready:
                self._receive(connection)
                self._ready = True
            return self._receive(connection)
        except (EOFError, OSError) as error:
            was_ready, exit_code = self._ready, self._bury()
            if self._stopped:
                raise ClusterError("the sweep was stopped") from None
            if not was_ready:  # no job is to blame: another process would end in the same way
                raise ClusterError(
                    f"a process for the sweep ended with {_shown(exit_code)} as it started: what it printed tells "
                    "why. Without workers= the sweep runs in this process"
                ) from error
            message = f"a process of the sweep ended with {_shown(exit_code)}"
            raise WorkerDied(message, exit_code=exit_code) from error

    def _receive(self, connection: Connection) -> bytes:
        # Not the end of file alone: a grandchild that a runner forked holds the other end of the pipe open.
        while not connection.poll(_LOOK_S):
            if self._stopped or (not _is_alive(self._process) and not connection.poll(0)):
                raise EOFError
        return connection.recv_bytes()

    def _require_process(self) -> Connection:
        with self._lock:
            if self._stopped:
                raise ClusterError("the sweep was stopped")
            if self._connection is None:
                context = multiprocessing.get_context("spawn")
                ours, theirs = context.Pipe()
                process = context.Process(target=_child, args=(theirs, self._function))
                resource_tracker.ensure_running()  # lets SIGINT through in this thread where it starts one
                # The child inherits the mask, so that Ctrl-C in the terminal cannot reach it even while it starts.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                with theirs, _hidden_main():
                    process.start()
                self._process, self._connection = process, ours
            return self._connection

    def _bury(self) -> int | None:
        """End the process, if there is one, and forget it."""
        self._ready = False
        with self._lock:
            process, self._process = self._process, None
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()  # the child reads the end of file and returns
        if process is None:
            return None
        if not self._stopped:
            process.join(_GRACE_S)
        return _end(process)

    def terminate(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process is not None and self._process.pid is not None:
                self._process.terminate()

    def join(self) -> None:
        self._thread.join()


def _end(process: Any) -> int | None:
    """End a process, and return its exit code; None if nobody can know it."""
    for ask in (None, process.terminate, process.kill):
        if ask is not None:
            ask()
        process.join(0 if ask is None else _GRACE_S)
        if not _is_alive(process):
            process.join(_GRACE_S)
            break
    exit_code: int | None = process.exitcode
    if exit_code is not None:  # else it refuses, as what it takes for a process that runs
        process.close()
    return exit_code


def _shown(exit_code: int | None) -> str:
    return f"exit code {exit_code}" if exit_code is not None else "an exit code that is not known"


def _is_alive(process: Any) -> bool:
    """Whether a process goes on, also where this one ignores SIGCHLD: then the system forgets each that ends.

    `multiprocessing` takes such a one for alive. Its sentinel tells, unless a child of its own holds that open.
    """
    if not process.is_alive():
        return False
    if not hasattr(os, "waitid"):  # macOS
        return not wait([process.sentinel], 0)
    try:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return ended is None or bool(process.is_alive())


def _child(connection: Connection, function: Callable[[bytes], bytes]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):  # the parent closed its end, or died
        connection.send_bytes(b"ready")
        while True:
            connection.send_bytes(function(connection.recv_bytes()))


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Hide where `__main__` came from while a process starts.

    A spawned process imports its parent's main module again. A script without `if __name__ == "__main__"` would run
    its sweep once more in each child, and nothing needs the import: what lives in `__main__` travels by value.
    """
    main: dict[str, Any] = sys.modules["__main__"].__dict__
    with _starting.held():
        kept: dict[str, Any] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
        main["__spec__"] = None
        main.pop("__file__", None)
        try:
            yield
        finally:
            main.update(kept)


class PoolBackend(Backend):
    """Run chunks in processes of our own, one chunk at a time in each."""

    isolates = True

    def __init__(self, payload: bytes, workers: int) -> None:
        if multiprocessing.current_process().daemon:
            raise ClusterError(
                f"workers={workers} was asked for in process {multiprocessing.current_process().name}, which cannot "
                "have children, as the workers of a Dask cluster: sweep without workers= there, or with the "
                "cluster's client (distributed.get_client())"
            )
        self._workers = workers
        self._processes = Processes(workers, functools.partial(run_chunk, payload), load_answer)

    def slots(self) -> int:
        return self._workers

    def submit(self, jobs: list[Any]) -> Future[Reply]:
        return self._processes.submit(dump_jobs(jobs))

    def withdraw(self) -> list[Future[Reply]]:
        return self._processes.withdraw()

    def widen(self) -> None:
        self._processes.widen()

    def stop(self, idle: Callable[[], object]) -> list[Any]:
        self._processes.kill()
        return []

    def close(self) -> None:
        self._processes.close()
