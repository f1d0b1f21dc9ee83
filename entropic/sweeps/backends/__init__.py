"""Where the chunks of a sweep run: this process, processes of our own, an executor of the user's, a Dask cluster.

A backend takes chunks of jobs and gives a `concurrent.futures.Future` of a `Reply` for each. A future
fails in one of two ways: with `WorkerDied`, when the process that held the chunk is gone, or with anything else,
which means that the backend is of no use for this work any more.

On Dask a chunk is a task. Dask runs a task again when its worker is gone, on one worker after the other until four have
died, and no argument of `submit` says otherwise. Work that notes what it begins (`chunks.Noting`) reports the death at
the second worker instead; the sweep then tries the job that was begun once more, and gives it up if that kills a
worker too. A task that no worker had begun is simply run by the next one, by Dask.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

from entropic.sweeps.backends.base import Backend
from entropic.sweeps.backends.dask import DaskBackend
from entropic.sweeps.backends.executor import ExecutorBackend
from entropic.sweeps.backends.processes import PoolBackend
from entropic.sweeps.chunks import Work, dump_work

__all__ = ["backend_for"]


def backend_for(
    work: Work, *, client: Any = None, workers: int | None = None, executor: Executor | None = None
) -> Backend:
    """Return the backend that the arguments of a sweep ask for, one of which is given; else see `SerialBackend`.

    Raises
    ------
    ClusterError
        If *work* would have to be pickled and cannot be. Nothing has run.
    """
    if workers is not None:
        return PoolBackend(dump_work(work), workers)
    if executor is not None:
        return ExecutorBackend(work, executor)
    return DaskBackend(work, client)
