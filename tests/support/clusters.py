"""Dask clusters: one to run on, and one whose processes can be stopped, woken and killed, nannies too."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.process_states import send, session_of
from tests.support.sweep_runs import ROOT
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from distributed import Client

SELDOM = {
    # Idle processes that look at themselves fifty times a second take a tenth of a core all through the tests.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.profile.enabled": False,
}


class Group:
    """One process of a cluster, and those that it started."""

    def __init__(self, log: Path, *command: Any, **variables: str) -> None:
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dask", *map(str, command)],
                env={**os.environ, "PYTHONPATH": str(ROOT), **variables}, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
        self.log = log

    def pids(self) -> set[int]:
        """Return the processes of the group that live."""
        # A nanny's worker is a group of its own in some versions, but always of the nanny's session.
        return session_of(self._process.pid)

    def stop(self) -> None:
        """Freeze all of it."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        while pids := self.pids():  # a nanny may start another worker meanwhile
            for pid in pids:
                send(pid, signal.SIGKILL)
            self._process.poll()
        self._process.wait()

    def _signal(self, number: int) -> None:
        for pid in self.pids():
            send(pid, number)


@dataclass
class Cluster:
    """A scheduler, workers of one thread each, and a client in this process."""

    folder: Path
    scheduler: Group
    workers: list[Group]
    stack: contextlib.ExitStack
    client: Any = None

    @property
    def address(self) -> str:
        return str(self.client.scheduler.address)

    def add_worker(self, *, nanny: bool = False) -> Group:
        number = len(self.workers)
        worker = Group(
            self.folder / f"worker-{number}.log",
            "worker", "--scheduler-file", self.folder / "scheduler.json", "--host", "127.0.0.1", "--nthreads", 1,
            "--no-dashboard", "--nanny" if nanny else "--no-nanny", "--memory-limit", 0,
            "--local-directory", self.folder / f"space-{number}",
        )  # fmt: skip
        self.stack.callback(worker.kill)
        self.workers.append(worker)
        return worker

    def worker_of(self, pid: int) -> Group:
        """Return the worker that *pid* is a process of."""
        return next(worker for worker in self.workers if pid in worker.pids())

    def address_of(self, pid: int) -> str:
        """Return the address of the worker whose process is *pid*."""
        return next(address for address, found in self.client.run(os.getpid).items() if found == pid)

    def lost_workers(self) -> int:
        """Count the workers that the scheduler has lost so far."""
        return sum(event["action"] == "remove-worker" for _, event in self.client.get_events("all"))


@contextlib.contextmanager
def cluster(
    folder: Path, *, workers: int = 2, nanny: bool = False, worker_ttl: str = "5 minutes"
) -> Iterator[Cluster]:
    """Start a cluster on free ports of this machine; at the end all of it is killed."""
    from distributed import Client

    folder.mkdir()
    with contextlib.ExitStack() as stack:
        scheduler = Group(
            folder / "scheduler.log",
            "scheduler", "--scheduler-file", folder / "scheduler.json", "--host", "127.0.0.1", "--port", 0,
            "--no-dashboard",
            DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL=worker_ttl,
        )  # fmt: skip
        stack.callback(scheduler.kill)
        started = Cluster(folder, scheduler, [], stack)
        for _ in range(workers):
            started.add_worker(nanny=nanny)
        wait_for((folder / "scheduler.json").exists)
        started.client = stack.enter_context(
            Client(scheduler_file=str(folder / "scheduler.json"), timeout=60)
        )
        wait_for(lambda: len(started.client.nthreads()) == workers)
        yield started
        # While the scheduler is there: the client releases its futures in a thread of its own, a moment later.
        wait_for(lambda: not started.client.futures)


@contextlib.contextmanager
def local_client(*, workers: int = 2, threads: int = 1, processes: bool = True) -> "Iterator[Client]":
    """Yield a client of a cluster on this machine; what it says at its end is no news.

    Without *processes* its workers are threads of this one.
    """
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set(SELDOM),
        LocalCluster(
            n_workers=workers, threads_per_worker=threads, processes=processes, dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as made,
        Client(made) as client,
    ):  # fmt: skip
        yield client


def is_idle(client: Any) -> bool:
    """Whether the scheduler knows no task, and no worker is at one, not even at one that was forgotten."""
    return not client.run_on_scheduler(_count_tasks) and not any(client.run(_count_runs).values())


def _count_tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


def _count_runs(dask_worker: Any) -> int:
    return len(dask_worker.active_threads)
