"""One attempt: take a slot, run, look at what was written, note it in the sidecar, sync. No SQL.

This is what a worker executes, wherever it is. A `Work` travels to it once, `Job`s after it; what comes back is a
`Receipt` or a `Failure` per job, never an exception of the runner. A worker stops at *staged*: only the holder of the
claim moves a file to its place. Once noted, a run outlives its process. It is on the disk before anybody is told of it,
but for the short runs of a sweep in its own process, whose `Receipt`s say so: the commit syncs those.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from entropic.disk.files import remove
from entropic.disk.roots import MARKER, Marker, read_marker
from entropic.disk.sidecars import SidecarIndex
from entropic.disk.staged import Staged, is_named_by, stage
from entropic.disk.staging import LATEST_S, Staging, folder_name, is_of_sweep, staging_for
from entropic.display.text import printed
from entropic.errors import ResultsDirUnavailableError
from entropic.leases import held
from entropic.process.callables import STILL_TO_BE_RUN, returns_later
from entropic.process.identity import Process, this_process, where_now
from entropic.process.logs import get_logger
from entropic.process.raised import note_on, text_of, traceback_of
from entropic.runs.calls import call_inside, explain
from entropic.runs.durable import not_kept
from entropic.runs.inside import Chunk, Run
from entropic.runs.jobs import Failure, InRow, Job, NotBegun, Outcome, Receipt
from entropic.values.documents import scalar_document
from entropic.values.plain import plain, plain_key
from entropic.values.row_texts import digest_of_text

__all__ = [
    "UNREAD",
    "Place",
    "Runner",
    "Work",
    "index_of",
    "kept",
    "require_runner",
]

log = get_logger(__name__)

Runner = Callable[[dict[str, Any]], Any]

UNREAD = (
    "{} was finished by an earlier attempt and is not committed, and its result cannot be read: it is not run again. "
    "Let the user who ran it open a Store, or run() it anew, or remove that result"
)

_LOOK_S = 0.2

_indices: dict[str, SidecarIndex] = {}
os.register_at_fork(after_in_child=_indices.clear)  # a lock of theirs may have been held at the fork


def require_runner(runner: Any) -> None:
    """Raise TypeError unless *runner* can be called with one dict."""
    if not callable(runner):
        raise TypeError(f"runner must be a function of one dict, not {runner!r}")
    if returns_later(runner):
        raise TypeError(
            f"what the runner {runner!r} returns {STILL_TO_BE_RUN}: write the result in a plain function, be it by "
            "asyncio.run(...)"
        )
    try:
        signature = inspect.signature(runner, follow_wrapped=False)  # what it wraps is called by itself
    except (ValueError, TypeError):
        return  # of what C defines there may be none
    try:
        signature.bind({})
    except TypeError as error:
        raise TypeError(
            f"runner is called with one dict of parameters, as runner(params), but {runner!r} takes {signature} "
            f"({error}): take them from the dict; or memoize a function of parameters"
        ) from None


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
    outer : tuple of Run
        The runs that the sweep itself is inside of.
    is_in_memory : bool
        Whether the sweep's database is in the memory of its process.
    """

    runner: Runner
    root: str
    marker: Marker
    sweep: str = ""
    stop: str = ""
    holder: dict[str, Any] = field(default_factory=dict)
    outer: tuple[Run, ...] = ()
    is_in_memory: bool = False

    def __getstate__(self) -> dict[str, Any]:
        # In another process their folders and chunks are out of reach.
        return {**self.__dict__, "outer": tuple(run._replace(folder="", chunk=None) for run in self.outer)}

    def __call__(
        self,
        jobs: list[Job],
        on_begin: Callable[[int], None] = lambda number: None,
        outcomes: list[Outcome | NotBegun] | None = None,
    ) -> list[Outcome | NotBegun]:
        """Run *jobs* one after the other; the rest is left out once the sweep is being stopped.

        Parameters
        ----------
        on_begin : callable
            Told the number of each job before that is begun; what it raises ends the work.
        outcomes : list, optional
            Where the outcome of each job is put when that ends, as well as those of before; it is returned.

        Raises
        ------
        ResultsDirUnavailableError
            If this process does not see the results folder.
        """
        self.require_root()
        is_holder = self.holder.get("owner") == this_process().owner
        outcomes = [] if outcomes is None else outcomes
        try:
            self._run_all(jobs, outcomes, on_begin, is_holder=is_holder)
        finally:
            if not is_holder:
                self._sync(outcomes)
            elif len(jobs) > 1:  # should the disk refuse something, the commit is told
                self._staging().sync()
        return outcomes

    def _run_all(
        self,
        jobs: list[Job],
        outcomes: list[Outcome | NotBegun],
        on_begin: Callable[[int], None],
        *,
        is_holder: bool,
    ) -> None:
        """Add what comes of each of *jobs* to *outcomes*."""
        root = Path(self.root)
        if [job for job in jobs if job.look]:  # a generator would tell of an interrupt once more
            index = index_of(root)
            # Its own lines a process need not read if it publishes them itself; a worker may be given a task again.
            index.refresh(skip=folder_name(self.sweep) if is_holder else "")
        keys, is_cut_off = [job.record_id for job in jobs], self.is_in_memory and not is_holder
        chunk = Chunk(self.sweep, keys, is_cut_off=is_cut_off) if self.sweep else None
        # Where one of its own is all that there is to sync, nothing is shared.
        shares = bool(self.sweep) and (is_holder or len(jobs) > 1)
        with closing(Place(self._staging(), self._name(), where_now(), chunk, shares)) as place:
            for number, job in enumerate(jobs):
                if self._is_over(is_holder=is_holder):
                    break
                mark = (self.marker.root, job.record_id)
                if chunk is not None and not chunk.is_struck:
                    chunk.at = number
                if (chunk is not None and chunk.is_struck) or (
                    is_holder and not held.begin(mark, self.sweep)
                ):
                    outcomes.append(NotBegun(job.record_id))
                    continue
                on_begin(number)
                lines = index.get(job.record_id) if job.look else []
                try:
                    receipt = next(
                        (r for line in lines if (r := self._finished(root, job, line)) is not None), None
                    )
                except OSError as error:  # of a disk that fails, or it is another user's alone
                    note_on(error, UNREAD.format(job.record_id))
                    outcomes.append(_failure(job, token_hex(16), time.time(), 0.0, place.where, error))
                else:
                    if receipt is None:
                        self._attempt(job, place, outcomes)
                    else:
                        log.info("%s was finished by an earlier attempt, which is taken", job.record_id)
                        outcomes.append(replace(receipt, custom={**receipt.custom, **job.custom}))
                if is_holder:
                    held.end(mark, self.sweep, outcomes[-1])

    def _sync(self, outcomes: list[Outcome | NotBegun]) -> None:
        """Bring what was run here to the disk before anybody is told; what cannot be brought there has failed."""
        staging = self._staging()
        own = [
            (number, outcome)
            for number, outcome in enumerate(outcomes)
            if isinstance(outcome, Receipt) and outcome.folder == staging.folder.name
        ]
        trouble = staging.sync([receipt.attempt for _, receipt in own])
        for number, receipt in own:
            if receipt.attempt not in trouble:
                outcomes[number] = replace(receipt, is_synced=True)
                continue
            with suppress(OSError, ValueError):  # of a value there is none: its attempt is recorded as failed
                remove(receipt.path(staging.root))  # without it the line in the sidecar counts for nothing
            staging.settle()
            outcomes[number] = not_kept(receipt, trouble[receipt.attempt])

    def require_root(self) -> None:
        """Raise `ResultsDirUnavailableError` unless this process sees the results folder."""
        if read_marker(Path(self.root)) != self.marker:
            raise ResultsDirUnavailableError(
                f"process {os.getpid()} on {this_process().host} does not see the results folder {self.root!r} "
                f"(no {MARKER} of this table there). Workers must share the results folder: put it on a file system "
                "that all of them mount at the same path"
            )

    def _is_over(self, *, is_holder: bool) -> bool:
        """Whether nobody waits for what would be run now."""
        if self.stop and os.path.exists(self.stop):
            return True
        if is_holder or not self.holder:
            return False
        return _has_died(tuple(self.holder.items()), int(time.monotonic() / _LOOK_S))

    def _finished(self, root: Path, job: Job, line: dict[str, Any]) -> Receipt | None:
        """Return the receipt of a sidecar's *line* if its result will do for *job*."""
        ours = (self.marker.database, self.marker.table)
        if (line.get("database"), line.get("table")) != ours or line["attempt"] in job.ended:
            return None
        try:
            receipt = Receipt.from_line(line)
        except (KeyError, TypeError):
            return None  # recovery reports it
        if job.replaces not in (None, receipt.replaces):
            return None  # of before the result that there was: recovery drops it, too
        # A task of this sweep that Dask runs again, although its results were committed. (In another sweep the row
        # may have been deleted since, so that it runs again.)
        is_own = bool(self.sweep) and is_of_sweep(receipt.folder, self.sweep)
        if receipt.value is not None:
            # Nothing on the disk tells whether another's was published: who claims the key asks the database.
            return receipt if is_own else None
        if receipt.is_at(receipt.path(root)):
            return receipt  # nobody has published it
        return receipt if is_own and receipt.placed(root) else None

    def _staging(self) -> Staging:
        return staging_for(Path(self.root), folder_name(self.sweep), self.holder)

    def _name(self) -> str:
        """Return what the function is called."""
        function = getattr(self.runner, "__wrapped__", self.runner)  # of a memoized function
        return getattr(function, "__name__", None) or type(function).__name__

    def _attempt(self, job: Job, place: Place, outcomes: list[Outcome | NotBegun]) -> None:
        """Run *job*, and add what comes of it to *outcomes*."""
        staging, number = place.staging, len(outcomes)
        slot, is_used = place.take()
        attempt = _Attempt(token_hex(16), slot, is_used, time.time(), time.perf_counter())
        try:
            receipt = self._run(job, place, attempt)
            # Before its line is written: whatever interrupts from here on must find that the run has ended.
            outcomes.append(receipt)
            self._note(staging, receipt, attempt)
            if not attempt.is_shared:
                outcomes[number] = replace(receipt, is_synced=True)
            log.info("%s finished in %.3f s", job.record_id, receipt.elapsed_s)
        except (Exception, SystemExit) as error:  # sys.exit() in a runner must not end a worker
            if attempt.is_noted:
                staging.settle()  # as failed
            elapsed = time.perf_counter() - attempt.clock
            outcomes[number:] = [_failure(job, attempt.id, attempt.begun, elapsed, place.where, error)]
        finally:
            ended = outcomes[number] if len(outcomes) > number else None
            if not isinstance(ended, Receipt):
                if attempt.gathered is not None:
                    remove(attempt.gathered)
                staging.retire(attempt.slot, clear=True)
            elif ended.value is None and not is_named_by(ended.staged.name, job.record_id):
                staging.retire(attempt.slot)  # what this runner writes late would be taken for the next one's
            elif ended.value is None and attempt.gathered is None:
                staging.give_back(attempt.slot)
            else:  # there is nothing in it
                place.slot = attempt.slot

    def _run(self, job: Job, place: Place, attempt: _Attempt) -> Receipt:
        """Call the runner, and return what its result is, which is in its slot or gathered, and not noted yet."""
        staging, slot = place.staging, attempt.slot
        run = Run((self.marker.root, job.record_id), place.name, job.stored, str(staging.folder), place.chunk)
        given = {**job.params, "id": job.record_id, "result_file": os.path.join(slot, job.name)}
        returned = call_inside(run, self.outer, self.runner, given)
        elapsed = time.perf_counter() - attempt.clock
        attempt.is_shared = place.shares and elapsed < LATEST_S
        value, there = None, slot
        if isinstance(returned, InRow):
            value, returned = returned.text, returned.returned
            staged = Staged("", *digest_of_text(value))
        else:
            key = job.record_id if attempt.is_after_another else ""
            staged = stage(slot, job.name, sync=not attempt.is_shared, key=key)
            if attempt.is_shared and (there := staging.gather(slot, staged.name)) != slot:
                attempt.gathered = there / staged.name
        returned, spelled = kept(returned)
        return Receipt(
            record_id=job.record_id,
            attempt=attempt.id,
            folder=staging.folder.name,
            slot=there.name,
            staged=staged,
            stored=job.stored,
            custom=job.custom,
            returned=returned,
            spelled=spelled,
            replaces=job.replaces,
            started_at=attempt.begun,
            elapsed_s=elapsed,
            is_folder=value is None and (there / staged.name).is_dir(),
            where=place.where,
            value=value,
        )

    def _note(self, staging: Staging, receipt: Receipt, attempt: _Attempt) -> None:
        """Write the line of a run that has ended; raise OSError if it is to be on the disk now, and cannot be."""
        line = receipt.as_line(self.marker.database, self.marker.table)
        if attempt.is_shared:
            paths = [] if receipt.value is not None else [receipt.path(staging.root)]
            staging.append(line, paths, age_s=time.perf_counter() - attempt.clock - receipt.elapsed_s)
        else:
            staging.append(line)
        attempt.is_noted = True
        if not attempt.is_shared and (trouble := staging.sync([receipt.attempt])):
            raise trouble[receipt.attempt]


@dataclass(slots=True)
class _Attempt:
    """One call of the runner.

    Attributes
    ----------
    is_after_another : bool
        Whether another run has had the slot before.
    is_shared : bool
        Whether it shares its sync with others.
    is_noted : bool
        Whether its line is written.
    gathered : Path or None
        Where its result is, if that has left the slot.
    """

    id: str
    slot: Path
    is_after_another: bool
    begun: float
    clock: float
    is_shared: bool = False
    is_noted: bool = False
    gathered: Path | None = None


@dataclass
class Place:
    """Where the runs of a chunk go on, one after the other, and what is the same for all of them.

    Attributes
    ----------
    name : str
        Of the function.
    where : dict
        As `Receipt` has it.
    shares : bool
        Whether short runs share their syncs.
    slot : Path or None
        One that the run before has left empty.
    """

    staging: Staging
    name: str
    where: dict[str, Any]
    chunk: Chunk | None
    shares: bool
    slot: Path | None = None

    def take(self) -> tuple[Path, bool]:
        """Return an empty slot, and whether another run has had it before."""
        slot, self.slot = self.slot, None
        if slot is not None:
            return slot, True
        slot = self.staging.take()
        return slot, self.staging.is_used(slot)

    def close(self) -> None:
        """Give back what was taken."""
        if self.slot is not None:
            self.staging.give_back(self.slot)


@functools.lru_cache(maxsize=4)
def _has_died(process: tuple[tuple[str, Any], ...], tick: int) -> bool:
    """Whether a process has surely died; looks once per *tick*, as a look costs a part of what a short run does."""
    return Process(**dict(process)).is_dead()


def index_of(root: Path) -> SidecarIndex:
    """Return this process's index of the sidecars under a results folder."""
    return _indices.setdefault(str(root), SidecarIndex(root))


def kept(returned: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what JSON holds of what a runner returned, and the documents of scalars that JSON has no word for."""
    held: dict[str, Any] = {}
    spelled: dict[str, Any] = {}
    for name, value in returned.items() if isinstance(returned, Mapping) else ():
        document = None
        try:
            key = plain_key(name)
            if (document := scalar_document(value)) is not None:
                spelled[key] = document
            held[key] = plain(value)
        except TypeError as error:
            if document is None:  # else a column may hold it; only who has the model knows
                log.warning("the runner returned %s, which is left out: %s", printed(name), error)
    return held, spelled


def _failure(
    job: Job, attempt: str, begun: float, elapsed: float, where: dict[str, Any], error: BaseException
) -> Failure:
    is_deep = explain(error, job.record_id, job.stored)
    return Failure(
        record_id=job.record_id,
        attempt=attempt,
        stored=job.stored,
        error_type=type(error).__qualname__,
        message=text_of(error),
        traceback=traceback_of(error),
        started_at=begun,
        elapsed_s=elapsed,
        where=where,
        exception=error,
        is_deep=is_deep,
        exit_code=error.code & 0xFF
        if isinstance(error, SystemExit) and isinstance(error.code, int)
        else None,
    )
