"""Waiting for a run of another process, inside of a run: what is given back first, and what is noted for the others.

Who waits holds claims on nothing but the runs that it is inside of. What the sweeps of this process hold is given back
at once. A worker, which cannot reach its sweep's claims, begins none of its further jobs and leaves a note in its own
folder: what it is inside of, for what it waits, and what it will not begin; the sweep gives that back and commits what
the worker has finished. The notes also show circles over several processes.

A second copy of the note is where the keys are that it waits for: another sweep may have claimed them, and queued them
behind this very run in an executor that the two share. Whoever holds a key that is not begun gives it back when
somebody waits for it, and leaves it to that one for a while.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from entropic.disk.guarded import opened, unlink, write_new
from entropic.disk.sidecars import WAITS, process_folders, read_waits
from entropic.disk.staging import Staging
from entropic.errors import DependencyCycleError, ResultsDirUnavailableError
from entropic.leases.held import Mark
from entropic.process.identity import Process, this_process
from entropic.runs.descent import is_ancestor, is_waiting_for_us
from entropic.runs.inside import Run, around, fork, inside_of, outside, refuse_chain
from entropic.runs.result_table import ResultTable
from entropic.runs.tenure import Tenure, give_back_before_waiting

__all__ = ["Note", "Waiting", "asked_of", "notes", "rejoin", "secede"]

GIVE_BACK_S = 0.1  # of waiting, after which what is held and not begun is given back
LOOK_AFTER_S = 1.0  # of waiting, after which notes are followed, and
LOOK_EVERY_S = 2.0
LOOK_LATER = 60
ANCESTORS_S = 60.0  # of waiting, after which an ancestor that may wait for this process is taken to do so
ASKED = "-asked"  # how the names of folders end that hold a note for whoever holds what is waited for


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody left who waits.

    Attributes
    ----------
    runs : list
        Mark, and how it is shown, of each run that it is inside of, outermost first.
    waits : list
        Results folder and mark of each key that it waits for.
    struck : dict
        By sweep, the keys that it was given and will not begin.
    """

    folder: Path
    process: Process
    runs: list[tuple[Mark, str]]
    waits: list[tuple[str, Mark]]
    struck: dict[str, list[str]]


def notes(root: Path, suffix: str = "") -> Iterator[Note]:
    """Yield the notes of those who wait and live, in folders under *root* whose names end like that."""
    for folder in process_folders(root):
        if folder.name.endswith(suffix):
            for read in read_waits(folder):
                with suppress(KeyError, TypeError, ValueError, AttributeError):  # not of this release's
                    note = Note(
                        folder,
                        Process(**read["process"]),
                        [((root, key), shown) for root, key, shown in read["runs"]],
                        [(str(path), (root, key)) for path, root, key in read["waits"]],
                        {sweep: list(map(str, keys)) for sweep, keys in read["struck"].items()},
                    )
                    if not note.process.is_dead():
                        yield note


def asked_of(root: Path, marker: str) -> set[str]:
    """Return the keys under *root*, whose marker has that uuid, for which runs wait, in whatever process."""
    waits = (wait for note in notes(root, ASKED) for wait in note.waits)
    return {key for _, (of, key) in waits if of == marker}


class Waiting:
    """One wait of this thread for keys that others hold; a context manager, after which nothing is left of it.

    Parameters
    ----------
    tenure : Tenure
        On whose behalf.
    """

    def __init__(self, table: ResultTable[Any], tenure: Tenure) -> None:
        self._table = table
        self._tenure = tenure
        self._paths: set[Path] = set()
        self._asking: Staging | None = None
        self._noted: list[str] | None = None
        self._look_at_s = self._look_up_at_s = LOOK_AFTER_S
        self._seen: list[str] = []
        self._has_seceded = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Take the notes away: what was waited for is there."""
        self._tenure.wait_for(())
        paths, self._paths, self._noted = self._paths, set(), None
        for path in paths:
            with suppress(OSError):
                unlink(path)
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.close()
        if self._has_seceded:
            self._has_seceded = False
            rejoin()

    def go_on(self, keys: Sequence[str], waited_s: float) -> None:
        """Do what is due before the next pause.

        Raises
        ------
        DependencyCycleError
            If what is waited for waits for a run that this context is inside of, or for this process to end.
        """
        self._tenure.wait_for(keys)
        if waited_s < GIVE_BACK_S:
            return
        self.stand_aside(keys)
        if waited_s >= self._look_at_s and (runs := _all_around()):
            self._look_at_s = waited_s + LOOK_EVERY_S
            self._look(runs, keys)
        if waited_s >= self._look_up_at_s:
            self._look_up(keys, waited_s)

    def stand_aside(self, keys: Sequence[str] = ()) -> None:
        """Give back what is held and not begun, and say for which keys this context waits, be it by its workers."""
        give_back_before_waiting()
        runs = around()
        if runs and self._noted != list(keys):
            for run in runs:
                if run.chunk is not None:
                    run.chunk.is_struck = True
            self._note(runs, keys)
            self._noted = list(keys)
            self._has_seceded = self._has_seceded or secede()

    def _look_up(self, keys: Sequence[str], waited_s: float) -> None:
        """Raise if a key is held by a process that started this one, and waits for it; ask for it if that may be."""
        holders = self._table.claims.holders(keys)
        above = {key: holder for key, holder in holders.items() if is_ancestor(holder)}
        self._look_up_at_s = waited_s + LOOK_EVERY_S if above else waited_s * LOOK_LATER
        for key, holder in above.items():
            verdict = is_waiting_for_us((self._table.marker.root, key), holder)
            if verdict or (verdict is None and waited_s >= ANCESTORS_S):
                has = "has" if verdict else f"is at work yet after {waited_s:.0f} s, and most likely has"
                raise DependencyCycleError(
                    f"{key!r} is held by {holder}, which {has} started this process from inside of a run or a sweep "
                    "and would wait for itself: ask for what is needed before you start the process, and give it the "
                    "result"
                )
        if above and self._noted is None:  # a sweep of theirs may give it back
            self._note((), keys)
            self._noted = list(keys)

    def _note(self, runs: Sequence[Run], keys: Sequence[str]) -> None:
        chunks = [run.chunk for run in runs if run.chunk is not None]
        text = json.dumps(
            {
                "process": this_process().as_dict(),
                "runs": [[*run.mark, str(run)] for run in inside_of()],
                "waits": [[str(self._table.root), self._table.marker.root, key] for key in keys],
                "struck": {chunk.sweep: chunk.left() for chunk in chunks},
            }
        )
        for folder in {run.folder for run in runs if run.folder}:
            path = Path(folder, f"{WAITS}{threading.get_ident()}-{id(self)}")
            part = f".{path.name}"
            with (
                suppress(OSError),
                opened(path.parent) as own,
            ):  # a full disk: others do not see why this waits
                write_new(part, text.encode(), own)
                os.replace(part, path.name, src_dir_fd=own, dst_dir_fd=own)
                self._paths.add(path)
        if keys:
            self._ask(text)

    def _ask(self, text: str) -> None:
        """Leave the note where the keys are that it names."""
        process = this_process()
        if self._asking is None:
            name = f"{process.owner}-{uuid4().hex[:12]}{ASKED}"
            self._asking = Staging(self._table.root, name, process.as_dict())
        with suppress(OSError, ResultsDirUnavailableError):
            self._asking.write(f"{WAITS}{threading.get_ident()}", text)

    def _look(self, runs: Sequence[Run], keys: Sequence[str]) -> None:
        """Follow the notes; a circle that is there twice in a row is one."""
        mine = {run.mark: number for number, run in enumerate(runs)}
        way, end = _way(str(self._table.root), [(self._table.marker.root, key) for key in keys], mine)
        seen, self._seen = self._seen, way
        if end is None or not way:
            return
        self._look_at_s -= LOOK_EVERY_S / 2
        if way == seen:
            chain = [str(run) for run in runs[mine[end] :]]
            refuse_chain([*chain, *way, chain[0]])


def _all_around() -> tuple[Run, ...]:
    """Return the runs of this context, and before them those of the thread from which this process was forked."""
    forked = fork()
    return inside_of() if forked is None else (*forked.runs, *inside_of())


def secede() -> bool:
    """In a task of Dask's, let its worker's other tasks go on: one may be what is waited for. Return whether it is."""
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        with suppress(Exception), outside():  # not in a task, or one that has seceded already
            distributed.get_worker()
            distributed.secede()
            return True
    return False


def rejoin() -> None:
    """Take back `secede`, once there is a slot."""
    with suppress(Exception), outside():  # of a cluster that is closing
        sys.modules["distributed"].rejoin()


def _way(root: str, marks: Sequence[Mark], ends: Collection[Mark]) -> tuple[list[str], Mark | None]:
    """Return what is between the runs of the notes from *marks* to one of *ends*, as it is shown, and that one."""
    ways: list[tuple[str, Mark, list[str]]] = [(root, mark, []) for mark in marks]
    seen: set[Mark] = set()
    read: dict[str, list[Note]] = {}
    for path, mark, shown in ways:
        if mark in seen:
            continue
        seen.add(mark)
        if path not in read:
            read[path] = list(notes(Path(path)))
        for note in read[path]:
            places = [number for number, (run, _) in enumerate(note.runs) if run == mark]
            if not places:
                continue
            further = [*shown, *(text for _, text in note.runs[places[0] :])]
            for there, other in note.waits:
                if other in ends:
                    return further, other
                ways.append((there, other, further))
    return [], None
