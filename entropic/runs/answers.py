"""What the runs of this process wait for outside of the library, told to those who wait for them.

A run may give work to a process that it has not started, as one of a pool, or start one that is no fork, and wait for
it. That one may ask for the run's own key, or for one that needs it; and it cannot see that it waits for itself. So
a thread of each process that runs looks for those who ask for its keys, and notes beside their notes which of the
things that they are at its runs wait for. Where nothing of that kind is seen nothing is noted: then the wait goes on.

What a serial sweep has claimed and not begun is given back to a process that asks for it from below: the sweep may be
at the run that waits for that process. The sweeps of other kinds do so themselves.

Nothing is looked for while no run goes on, nor by a process that has neither children nor a Dask client.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import uuid4

from entropic.disk.sidecars import WAITS
from entropic.disk.staging import Staging
from entropic.leases import held
from entropic.leases.heartbeat import heartbeat_pids
from entropic.leases.held import Mark
from entropic.process.identity import has_children, this_process
from entropic.process.logs import get_logger
from entropic.process.stacks import Task, waits_for
from entropic.runs.inside import Run, going, tell_children
from entropic.runs.wait_notes import ASKED, KINDS, Note, notes, text_of

__all__ = ["answering"]

log = get_logger(__name__)

LOOK_EVERY_S = 2.0  # of runs that go on


class _Answers:
    """The thread that looks, and what it has noted, by results folder."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._begun = threading.Event()
        self._closing = threading.Event()
        self._noted: dict[Path, dict[str, str]] = {}
        self._folders: dict[Path, Staging] = {}

    def watch(self) -> None:
        """See to it that somebody looks while runs go on."""
        if self._begun.is_set():
            return
        self._begun.set()
        if self._thread is None:
            tell_children()
            with self._lock:
                if self._thread is None:
                    self._thread = self._started()

    def _started(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._watch, name="entropic-answers", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # there can be no more: the next run tries again, and this one goes on
            log.debug("nobody answers those who wait for runs: %s", error)
            self._begun.clear()
            return None
        return thread

    def close(self) -> None:
        """Take back what was noted, as this process ends."""
        self._closing.set()
        self._begun.set()
        if self._thread is not None:
            self._thread.join(LOOK_EVERY_S)

    def _watch(self) -> None:
        while self._begun.wait() and not self._closing.wait(LOOK_EVERY_S):
            # First this, then the look: a run that begins meanwhile is seen, or sets it again.
            self._begun.clear()
            runs = going()
            if runs:
                self._begun.set()
            try:
                self._look(runs)
            except Exception:  # of the disk or the database: what asks waits a little longer
                log.debug("those who wait for runs could not be answered", exc_info=True)
        for root in list(self._folders):
            self._note(root, {})

    def _look(self, runs: dict[int, list[Run]]) -> None:
        may_be_asked = runs and ("distributed" in sys.modules or has_children(heartbeat_pids()))
        there = [run for of_thread in runs.values() for run in of_thread if run.folder]
        roots = {Path(run.folder).parents[1] for run in there} if may_be_asked else set()
        asked = {root: list(notes(root, ASKED)) for root in roots}
        for root in roots | self._folders.keys():
            self._note(root, _answers(root, asked.get(root, ()), runs.items()))
        for of_root in asked.values():
            _give_back(note for note in of_root if note.is_below_us())

    def _note(self, root: Path, answers: dict[str, str]) -> None:
        if not answers:
            self._noted.pop(root, None)
            folder = self._folders.pop(root, None)
            if folder is not None:
                folder.close()
        elif answers != self._noted.get(root):
            process = this_process()
            folder = self._folders.get(root)
            if folder is None:
                name = f"{process.owner}-{uuid4().hex[:12]}-answer"
                folder = self._folders[root] = Staging(root, name, process.as_dict())
            for name, text in answers.items():
                folder.write(name, text)
            self._noted[root] = answers


def _answers(root: Path, asked: Sequence[Note], runs: Iterable[tuple[int, Sequence[Run]]]) -> dict[str, str]:
    """Return a note for each thread whose runs wait for what those who ask are at, by its name."""
    answers: dict[str, str] = {}
    tasks = {task for note in asked for task in _tasks_of(note)}
    for thread, of_thread in runs if tasks else ():
        marks = {run.mark for run in of_thread}
        closing = {task for note in _waiting_for(marks, asked) for task in _tasks_of(note)}
        found = sorted(waits_for(thread, tasks, closing))
        if found:
            shown = [(run.mark, str(run)) for run in of_thread]
            answers[f"{WAITS}{thread}"] = text_of(shown, [(str(root), task) for task in found])
    return answers


def _tasks_of(note: Note) -> list[Task]:
    return [mark for mark, _ in note.runs if mark[0] in KINDS]


def _waiting_for(marks: set[Mark], asked: Sequence[Note]) -> list[Note]:
    """Return the notes of those who wait for one of *marks*, or for a run of one who does, and so on."""
    wanted, found, left = set(marks), [], list(asked)
    while there := [note for note in left if any(mark in wanted for _, mark in note.waits)]:
        found += there
        left = [note for note in left if note not in there]
        wanted.update(mark for note in there for mark, _ in note.runs)
    return found


def _give_back(asked: Iterable[Note]) -> None:
    holds = [held.find(mark) for note in asked for _, mark in note.waits]
    for keeper in {hold.keeper for hold in holds if hold is not None and not hold.is_begun}:
        if keeper.is_serial and keeper.lends:
            keeper.give_back()


_here = _Answers()


def answering() -> None:
    """See to it that those who wait for runs of this process are told what these wait for, as long as any goes on."""
    _here.watch()


@atexit.register
def _close() -> None:
    _here.close()


def _after_fork() -> None:
    global _here
    _here = _Answers()


os.register_at_fork(after_in_child=_after_fork)
