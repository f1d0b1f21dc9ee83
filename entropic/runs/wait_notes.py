"""Notes of those who wait, beside what is finished in the folders of processes: what each is inside of, and waits for.

Besides runs there are tasks (`entropic.process.stacks`): what a process is at for another one, which may wait for it.
They are told of like runs, and by their kind instead of a root. So a way from a key leads over what its run waits for,
be it a key or a task, to those who are inside of that, and on to what they wait for.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropic.disk.sidecars import process_folders, read_waits
from entropic.leases.held import Mark
from entropic.process.identity import Process, this_process
from entropic.process.stacks import EXECUTOR, POOL, PROCESS, TASK

__all__ = ["ASKED", "KINDS", "Note", "Shown", "asked_of", "notes", "text_of", "way_to"]

ASKED = "-asked"  # how the names of folders end that hold a note for whoever holds what is waited for

_AT_WORK = "a task of process {}"
KINDS = {EXECUTOR: _AT_WORK, POOL: _AT_WORK, TASK: _AT_WORK, PROCESS: "process {}"}
"""How what is no run is shown, with its pid, by what its mark has in the place of a root."""

Shown = tuple[Mark, str]
"""A run, or what is told of like one, and how it is shown."""


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody left who waits.

    Attributes
    ----------
    runs : list
        Mark, and how it is shown, of each run that it is inside of, outermost first; before them the tasks.
    waits : list
        Results folder and mark of each key that it waits for.
    struck : dict
        By sweep, the keys that it was given and will not begin.
    above : list
        The pids of the processes that it was started by, where `process` is.
    """

    folder: Path
    process: Process
    runs: list[tuple[Mark, str]]
    waits: list[tuple[str, Mark]]
    struck: dict[str, list[str]]
    above: list[int]

    def is_below_us(self) -> bool:
        """Whether it is of a process that this one has started, or one that this one has started, and so on."""
        here = this_process()
        return self.process.boot == here.boot and here.pid in self.above


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
                        [pid for pid in read["above"] if isinstance(pid, int)],
                    )
                    if not note.process.is_dead():
                        yield note


def asked_of(root: Path, marker: str) -> set[str]:
    """Return the keys under *root*, whose marker has that uuid, for which runs wait, in whatever process."""
    waits = (wait for note in notes(root, ASKED) for wait in note.waits)
    return {key for _, (of, key) in waits if of == marker}


def text_of(
    runs: Sequence[Shown],
    waits: Sequence[tuple[str, Mark]],
    *,
    struck: dict[str, list[str]] | None = None,
    above: Sequence[int] = (),
) -> str:
    """Return the text of a note of this process's."""
    content: dict[str, Any] = {
        "process": this_process().as_dict(),
        "runs": [[*mark, shown] for mark, shown in runs],
        "waits": [[path, *mark] for path, mark in waits],
        "struck": struck or {},
        "above": list(above),
    }
    return json.dumps(content)


def way_to(root: str, marks: Sequence[Mark], ends: Collection[Mark]) -> tuple[list[str], Mark | None]:
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
