"""Tickets of the chunks that wait in an executor whose queue is not ours: who has a chunk's ticket has the chunk.

A chunk has a file in `.entropic/tasks-<sweep>/` from before it is submitted. Whoever removes it has it: the worker
that begins the chunk, or the sweep that gives its keys back, as they may be what all workers wait for. What is begun
without a ticket, because the chunk was withdrawn or its sweep is over, does nothing.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from entropic.disk.guarded import STATE, located, make_folder, open_folder, unlink, write_new
from entropic.disk.sidecars import PROCESS
from entropic.process.logs import get_logger
from entropic.runs.attempts import Work
from entropic.runs.jobs import Job, NotBegun, WorkerDied
from entropic.sweeps.cuts import Outcomes, run_whole

__all__ = ["TicketedWork", "make_task_folder"]

log = get_logger(__name__)


@dataclass(frozen=True)
class TicketedWork:
    """Work that begins a chunk only with its ticket."""

    work: Work

    def __call__(self, jobs: list[Job], task: str | None = None) -> Outcomes:
        """Run *jobs*, or none of them where *task* has no ticket any more."""
        if task is not None and not self.take(task):
            return [NotBegun(job.record_id) for job in jobs]
        return run_whole(self.work, jobs)

    def for_task(self, task: str) -> Callable[[list[Job]], Outcomes]:
        """Return this work for the chunk that has this ticket."""
        return functools.partial(self, task=task)

    def death(self, task: str) -> WorkerDied | None:
        """Return None: tickets tell nothing of who took them."""
        return None

    def issue(self, task: str) -> bool:
        """Make the ticket of a chunk; whether that could be done."""
        path = self._path(task)
        try:
            make_task_folder(path.parent, self.work)
            with located(path) as (name, folder):
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder))
        except OSError as error:  # a full disk: the runs will say so themselves
            log.warning("a chunk has no ticket in %s, and cannot be withdrawn: %s", path.parent, error)
            return False
        return True

    def take(self, task: str) -> bool:
        """Take a ticket, which only one can."""
        try:
            unlink(self._path(task))
        except OSError:
            return False
        return True

    def _path(self, task: str) -> Path:
        return Path(self.work.root, STATE, f"tasks-{self.work.sweep}", task)


def make_task_folder(folder: Path, work: Work) -> None:
    """Make the folder of a sweep's chunks; it is the holder's, and goes when that is dead, if not with the sweep."""
    process = json.dumps({**work.holder, "holder": work.holder})
    with open_folder(folder.parents[1]) as root, make_folder(STATE, root, is_shared=True) as state:
        try:
            os.mkdir(folder.name, 0o775, dir_fd=state)
        except FileExistsError:
            return
        with make_folder(folder.name, state) as own:
            write_new(PROCESS, process.encode(), own)
