"""Waiting for a run of another process, inside of a run: what is given back first, and what is noted for the others.

Who waits holds claims on nothing but the runs that it is inside of. What the sweeps of this process hold is given back
at once. A worker, which cannot reach its sweep's claims, begins none of its further jobs and leaves a note in its own
folder: what it is inside of, for what it waits, and what it will not begin; the sweep gives that back and commits what
the worker has finished. The notes also show circles over several processes.
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

from entropic.disk.guarded import opened, unlink, write_new
from entropic.disk.sidecars import WAITS, process_folders, read_waits
from entropic.errors import DependencyCycleError
from entropic.leases.held import Mark
from entropic.process.identity import Process, age_s, ancestors, this_process
from entropic.runs.inside import Run, around, inside_of, outside, refuse_chain, was_forked_inside
from entropic.runs.result_table import ResultTable
from entropic.runs.tenure import Tenure, give_back_before_waiting

__all__ = ["Note", "Waiting", "notes", "rejoin", "secede"]

GIVE_BACK_S = 0.1  # of waiting, after which what is held and not begun is given back
LOOK_AFTER_S = 1.0  # of waiting, after which notes are followed, and
LOOK_EVERY_S = 2.0
LOOK_LATER = 60


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
        self._noted: list[str] | None = None
        self._look_at_s = LOOK_AFTER_S
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
        if waited_s < self._look_at_s:
            return
        if runs := inside_of():
            self._look_at_s = waited_s + LOOK_EVERY_S
            self._look(runs, keys)
        elif not around():
            self._look_at_s *= LOOK_LATER
            self._refuse_ancestors(keys)

    def stand_aside(self, keys: Sequence[str] = ()) -> None:
        """Give back what is held and not begun, and say for which keys this context waits, be it by its workers."""
        give_back_before_waiting()
        runs = around()
        if runs and self._noted != keys:
            for run in runs:
                if run.chunk is not None:
                    run.chunk.is_struck = True
            self._note(runs, keys)
            self._noted = list(keys)
            self._has_seceded = self._has_seceded or secede()

    def _refuse_ancestors(self, keys: Sequence[str]) -> None:
        """Raise if a key is held by a process that started this one since, and so most likely waits for it."""
        for key, holder in self._table.claims.holders(keys).items():
            process = holder.process
            if process.boot != this_process().boot or process.pid not in ancestors():
                continue
            is_inside = was_forked_inside(process.pid)
            if is_inside is None:
                age = age_s()
                is_inside = age is not None and holder.held_s > age
            if is_inside:
                raise DependencyCycleError(
                    f"{key!r} is held by {holder}, which has started this process from inside of a run or a sweep and "
                    "would wait for itself: ask for what is needed before you start the process, and give it the result"
                )

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
