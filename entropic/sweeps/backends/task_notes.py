"""What a Dask worker leaves behind while it runs a task, so that the next one knows that it was begun.

A Dask worker leaves a note in `.entropic/tasks-<sweep>/` while it runs a task, which says who it is and at which job.
When the worker dies Dask gives the task to the next one, which finds the note and reports the death instead of running
the task: so a job that kills its worker kills one each time the sweep tries it, not four. The next one also puts the
note into another file: a worker that was only frozen sees that its own is gone, and begins no further job.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from entropic.disk.guarded import copy_new, load_json, located, open_file, opened, read_file, unlink
from entropic.disk.roots import STATE
from entropic.process.identity import dask_worker, this_process
from entropic.process.logs import get_logger
from entropic.runs.attempts import Work
from entropic.runs.jobs import Job, WorkerDied
from entropic.sweeps.backends.tickets import make_task_folder
from entropic.sweeps.cuts import Outcomes, run_whole

__all__ = ["NotedWork"]

log = get_logger(__name__)

_UNKNOWN = "a Dask worker was killed, ran out of memory, or could not be reached for too long"
_NOTE_BYTES = 1 << 16
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@dataclass(frozen=True)
class NotedWork:
    """Work that notes what it begins where all workers see it."""

    work: Work

    def __call__(self, jobs: list[Job], task: str | None = None) -> Outcomes:
        """Run *jobs* under the name of a task.

        Raises
        ------
        WorkerDied
            If another worker has begun *task* and did not end it, or if *task* was taken from this one meanwhile.
        """
        if task is None:
            return run_whole(self.work, jobs)
        self.work.require_root()  # nothing is noted in a folder that is not ours
        with self._noted(task) as note:
            return run_whole(self.work, jobs, note)

    def for_task(self, task: str) -> Callable[[list[Job]], Outcomes]:
        """Return this work under the name of one task, which at most one worker begins."""
        return functools.partial(self, task=task)

    def death(self, task: str) -> WorkerDied | None:
        """Return what the note of *task* says of a worker that began it and did not end it; None without a note."""
        try:
            with located(self._note(task)) as (name, folder):
                text = read_file(name, folder=folder, limit=_NOTE_BYTES)
        except OSError:
            return None
        who, _, number = text.partition(b"\n")
        try:
            worker, host, pid = load_json(who)
            return WorkerDied(
                f"the Dask worker {worker}, process {pid} on {host}, was killed, ran out of memory, or could not be "
                "reached for too long",
                at=int(number),
                worker=worker,
            )
        except (ValueError, TypeError):  # it died before the note was written
            return WorkerDied(_UNKNOWN)

    def _note(self, task: str) -> Path:
        return Path(self.work.root, STATE, f"tasks-{self.work.sweep}", task)

    @contextmanager
    def _noted(self, task: str) -> Iterator[Callable[[int], None]]:
        """Leave a note of *task* while it runs; what is given notes the number of the job that is begun."""
        head = json.dumps([dask_worker(), this_process().host, os.getpid()]).encode() + b"\n"
        descriptor = self._create_note(task, head + b"0")
        if descriptor is None:
            yield lambda number: None
            return

        def note(number: int) -> None:
            if _is_taken(descriptor):
                raise WorkerDied("the task was given to another Dask worker meanwhile")
            with suppress(OSError):  # a full disk: the run that was at work will be found a little earlier
                os.pwrite(descriptor, b"%d" % number, len(head))

        try:
            yield note
        finally:
            if not _is_taken(descriptor):
                with suppress(FileNotFoundError):
                    unlink(self._note(task))
            os.close(descriptor)

    def _create_note(self, task: str, text: bytes) -> int | None:
        path = self._note(task)
        descriptor = None
        try:
            try:
                descriptor = _create(path)
            except FileNotFoundError:
                make_task_folder(path.parent, self.work)
                descriptor = _create(path)
            os.write(descriptor, text)
        except FileExistsError:
            raise self._take_note(path) from None
        except OSError as error:  # a full disk, for instance: the runs will say so themselves
            log.warning(
                "the task could not be noted in %s, so that it cannot be said what ran if its worker dies: %s",
                path.parent,
                error,
            )
        return descriptor

    def _take_note(self, path: Path) -> WorkerDied:
        """Take the note of a task from the worker that wrote it, and return what it says."""
        death = self.death(path.name) or WorkerDied(_UNKNOWN)
        with suppress(OSError):  # it ended after all
            copy = f"{path.name}-{this_process().owner}"
            with opened(path.parent) as folder:
                with open_file(path.name, folder=folder, limit=_NOTE_BYTES) as note:
                    copy_new(note, copy, folder)
                os.replace(copy, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        return death


def _create(path: Path) -> int:
    with located(path) as (name, folder):
        return os.open(name, _CREATE, 0o666, dir_fd=folder)


def _is_taken(descriptor: int) -> bool:
    """Whether a note is no longer in its place."""
    try:
        return not os.fstat(descriptor).st_nlink
    except OSError:  # a network file system knows nothing of it any more
        return True
