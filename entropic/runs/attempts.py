"""One attempt: take a slot, run, look at what was written, sync it, note it in the sidecar. No SQL.

This is what a worker executes, wherever it is. A `Work` travels to it once, `Job`s after it; what comes back is a
`Receipt` or a `Failure` per job, never an exception of the runner. A worker stops at *staged*: only the holder of the
claim moves a file to its place.

A Dask worker leaves a note in `.entropic/tasks-<sweep>/` while it runs a task, which says who it is and at which job.
When the worker dies Dask gives the task to the next one, which finds the note and reports the death instead of running
the task: so a job that kills its worker kills one each time the sweep tries it, not four. The next one also puts the
note into another file: a worker that was only frozen sees that its own is gone, and begins no further job.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from entropic.disk.files import MARKER, STATE, Marker, read_marker, stage
from entropic.disk.sidecars import PROCESS, SidecarIndex, Staging
from entropic.errors import ResultsDirUnavailableError
from entropic.process.provenance import Process, batch_job, this_process
from entropic.runs.jobs import Failure, Job, Outcome, Receipt, plain
from entropic.sweeps.chunks import WorkerDied

__all__ = ["Runner", "Work", "staging_for"]

log = logging.getLogger(__name__)

Runner = Callable[[dict[str, Any]], Any]

_UNKNOWN = "a Dask worker was killed, ran out of memory, or could not be reached for too long"
_LOOK_S = 0.2
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL

_staging: dict[tuple[str, str, str], Staging] = {}
_indices: dict[str, SidecarIndex] = {}
os.register_at_fork(after_in_child=_indices.clear)  # a lock of theirs may have been held at the fork


@dataclass(frozen=True)
class Work:
    """What a worker must know to run jobs of one table.

    Attributes
    ----------
    root : str
        The results folder as the workers see it.
    marker : Marker
        What the folder's marker must say.
    sweep : str
        Names the folders of this sweep, so that they can go when it ends; empty for a single run.
    stop : str
        While a file of this path exists, no further job is begun; empty for none.
    holder : dict
        The process that holds the claims. Once it has surely died no further job is begun.
    """

    runner: Runner
    root: str
    marker: Marker
    sweep: str = ""
    stop: str = ""
    holder: dict[str, Any] = field(default_factory=dict)

    def __call__(self, jobs: list[Job], task: str | None = None) -> list[Outcome]:
        """Run *jobs* one after the other; the rest is left out once the sweep is being stopped.

        Raises
        ------
        ResultsDirUnavailableError
            If this process does not see the results folder.
        WorkerDied
            If another worker has begun *task* and did not end it, or if *task* was taken from this one meanwhile.
        """
        root = Path(self.root)
        if read_marker(root) != self.marker:
            raise ResultsDirUnavailableError(
                f"process {os.getpid()} on {this_process().host} does not see the results folder {self.root!r} "
                f"(no {MARKER} of this table there). Workers must share the results folder: put it on a file system "
                "that all of them mount at the same path"
            )
        if any(job.look for job in jobs):
            index = _index_of(root)
            # Its own lines a process need not read if it publishes them itself; a worker may be given a task again.
            index.refresh(skip=self._folder() if self.holder.get("owner") == this_process().owner else "")
        outcomes: list[Outcome] = []
        with self._noted(task) as note:
            for number, job in enumerate(jobs):
                if self._is_over():
                    break
                note(number)
                receipt = self._finished(root, index.get(job.record_id)) if job.look else None
                if receipt is not None:
                    log.info("%s was finished by an earlier attempt, which is taken", job.record_id)
                    outcomes.append(replace(receipt, custom={**receipt.custom, **job.custom}))
                else:
                    outcomes.append(self._attempt(root, job))
        return outcomes

    def _is_over(self) -> bool:
        """Whether nobody waits for what would be run now."""
        if self.stop and os.path.exists(self.stop):
            return True
        return bool(self.holder) and _has_died(tuple(self.holder.items()), int(time.monotonic() / _LOOK_S))

    def for_task(self, task: str) -> Callable[[list[Job]], list[Outcome]]:
        """Return this work under the name of one task, which at most one worker begins."""
        return functools.partial(self, task=task)

    def death(self, task: str) -> WorkerDied | None:
        """Return what the note of *task* says of a worker that began it and did not end it; None without a note."""
        try:
            text = self._note(task).read_text(encoding="utf-8")
        except OSError:
            return None
        who, _, number = text.partition("\n")
        try:
            worker, host, pid = json.loads(who)
            return WorkerDied(
                f"the Dask worker {worker}, process {pid} on {host}, was killed, ran out of memory, or could not be "
                "reached for too long",
                at=int(number),
                worker=worker,
            )
        except ValueError:  # it died before the note was written
            return WorkerDied(_UNKNOWN)

    def _note(self, task: str) -> Path:
        return Path(self.root, STATE, f"tasks-{self.sweep}", task)

    @contextmanager
    def _noted(self, task: str | None) -> Iterator[Callable[[int], None]]:
        """Leave a note of *task* while it runs; what is given notes the number of the job that is begun."""
        head = json.dumps([_dask_worker(), this_process().host, os.getpid()]).encode() + b"\n"
        descriptor = None if task is None else self._create_note(task, head + b"0")
        if task is None or descriptor is None:
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
                self._note(task).unlink(missing_ok=True)
            os.close(descriptor)

    def _create_note(self, task: str, text: bytes) -> int | None:
        path = self._note(task)
        descriptor = None
        try:
            try:
                descriptor = os.open(path, _CREATE, 0o666)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                # It is the holder's, and goes when that is dead, if not with the sweep.
                process = json.dumps({**self.holder, "holder": self.holder})
                (path.parent / PROCESS).write_text(process, encoding="utf-8")
                descriptor = os.open(path, _CREATE, 0o666)
            os.write(descriptor, text)
        except FileExistsError:
            raise self._take_note(path) from None
        except OSError as error:  # a full disk, for instance: the runs will say so themselves
            log.warning("the task could not be noted in %s: %s", path.parent, error)
        return descriptor

    def _take_note(self, path: Path) -> WorkerDied:
        """Take the note of a task from the worker that wrote it, and return what it says."""
        death = self.death(path.name) or WorkerDied(_UNKNOWN)
        with suppress(OSError):  # it ended after all
            copy = path.with_name(f"{path.name}-{this_process().owner}")
            shutil.copyfile(path, copy)
            os.replace(copy, path)
        return death

    def _finished(self, root: Path, line: dict[str, Any] | None) -> Receipt | None:
        """Return the receipt of a sidecar's *line* if its result will do for a job that is to be run."""
        ours = (self.marker.database, self.marker.table)
        if line is None or (line.get("database"), line.get("table")) != ours:
            return None
        try:
            receipt = Receipt.from_line(line)
        except (KeyError, TypeError):
            return None  # recovery reports it
        if receipt.is_at(receipt.path(root)):
            return receipt  # nobody has published it
        # A task of this sweep that Dask runs again, although its results were committed. (In another sweep the row
        # may have been deleted since, so that it runs again.)
        is_own = bool(self.sweep) and receipt.folder.endswith(f"-{self.sweep}")
        return receipt if is_own and receipt.is_at(root / receipt.final_name) else None

    def _folder(self) -> str:
        owner = this_process().owner
        return f"{owner}-{self.sweep}" if self.sweep else owner

    def _attempt(self, root: Path, job: Job) -> Outcome:
        staging = staging_for(root, self._folder(), self.holder)
        attempt = uuid4().hex
        where = _where()
        slot = staging.take()
        begun, clock = time.time(), time.perf_counter()
        clear = True
        try:
            returned = self.runner({**job.params, "id": job.record_id, "result_file": str(slot / job.name)})
            elapsed = time.perf_counter() - clock
            staged = stage(slot, job.name)
            kept = (
                {k: v for k, v in returned.items() if _is_kept(k, v)} if isinstance(returned, Mapping) else {}
            )
            receipt = Receipt(
                record_id=job.record_id,
                attempt=attempt,
                folder=staging.folder.name,
                slot=slot.name,
                staged=staged,
                stored=job.stored,
                custom=job.custom,
                returned={key: plain(value) for key, value in kept.items()},
                replaces=job.replaces,
                started_at=begun,
                elapsed_s=elapsed,
                is_folder=(slot / staged.name).is_dir(),
                where=where,
            )
            staging.append(receipt.as_line(self.marker.database, self.marker.table))
            clear = False
        except (Exception, SystemExit) as error:  # sys.exit() in a runner must not end a worker
            return _failure(job, attempt, begun, time.perf_counter() - clock, where, error)
        finally:
            staging.give_back(slot, clear=clear)
        log.info("%s finished in %.3f s", job.record_id, elapsed)
        return receipt


@functools.lru_cache(maxsize=4)
def _has_died(process: tuple[tuple[str, Any], ...], tick: int) -> bool:
    """Whether a process has surely died; looks once per *tick*, as a look costs a part of what a short run does."""
    return Process(**dict(process)).is_dead()


def _is_taken(descriptor: int) -> bool:
    """Whether a note is no longer in its place."""
    try:
        return not os.fstat(descriptor).st_nlink
    except OSError:  # a network file system knows nothing of it any more
        return True


def _index_of(root: Path) -> SidecarIndex:
    return _indices.setdefault(str(root), SidecarIndex(root))


def staging_for(root: Path, name: str, holder: Mapping[str, Any]) -> Staging:
    """Return this process's folder of this name under *root*; the same one each time."""
    process = this_process()
    key = (process.owner, str(root), name)
    staging = _staging.get(key)
    if staging is None:
        # Several threads of a sweep come here at once: each step is atomic, and a Staging opens nothing when made.
        for old, ended in list(_staging.items()):
            if ended.is_gone():
                _staging.pop(old, None)
        made = Staging(root, name, {**process.as_dict(), "holder": dict(holder)})
        staging = _staging.setdefault(key, made)
    return staging


def _is_kept(name: Any, value: Any) -> bool:
    try:
        plain(value)
    except (TypeError, RecursionError) as error:
        log.warning("the runner returned %r, which is left out: %s", name, error)
        return False
    return True


def _where() -> dict[str, Any]:
    process = this_process()
    return {
        "owner": process.owner,
        "host": process.host,
        "pid": process.pid,
        "worker": _dask_worker(),
        "batch_job": batch_job(),
    }


def _dask_worker() -> str | None:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return str(distributed.get_worker().address)
    except ValueError:  # not in a task
        return None


def _failure(
    job: Job, attempt: str, begun: float, elapsed: float, where: dict[str, Any], error: BaseException
) -> Failure:
    error.add_note(f"while running {job.record_id} with {_brief(job.stored)}")
    return Failure(
        record_id=job.record_id,
        attempt=attempt,
        stored=job.stored,
        error_type=type(error).__qualname__,
        message=_text(error),
        traceback="".join(traceback.format_exception(error)),
        started_at=begun,
        elapsed_s=elapsed,
        where=where,
        exception=error,
        exit_code=error.code & 0xFF
        if isinstance(error, SystemExit) and isinstance(error.code, int)
        else None,
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as reason:  # a user's __str__ may do anything
        return f"<str() failed with {type(reason).__name__}>"


def _brief(stored: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name}={value!r}" for name, value in stored.items())
    return text if len(text) <= 500 else text[:497] + "..."
