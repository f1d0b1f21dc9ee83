"""Waiting for a run of another process, inside of a run: what is given back first, and what is noted for the others.

Who waits holds claims on nothing but the runs that it is inside of. What the sweeps of this process hold is given back
at once. A worker, which cannot reach its sweep's claims, begins none of its further jobs and leaves a note in its own
folder: what it is inside of, for what it waits, and what it will not begin; the sweep gives that back and commits what
the worker has finished. The notes also show circles over several processes.

A second copy of the note is where the keys are that it waits for: another sweep may have claimed them, and queued them
behind this very run in an executor that the two share. Whoever holds a key that is not begun gives it back when
somebody waits for it, and leaves it to that one for a while. And a process of a pool, or one that was started, leaves
it for the run that may wait for it in turn (`entropic.runs.answers`).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from entropic.disk.guarded import opened, unlink, write_new
from entropic.disk.sidecars import WAITS
from entropic.disk.staging import Staging
from entropic.errors import DependencyCycleError, ResultsDirUnavailableError
from entropic.leases.held import Mark
from entropic.process.identity import ancestors, this_process
from entropic.process.logs import get_logger
from entropic.process.stacks import PROCESS, tasks_around
from entropic.runs.descent import is_ancestor, is_waiting_for_us
from entropic.runs.holding import Holding, Keys
from entropic.runs.inside import Run, around, inside_of, origin, outside, refuse_chain
from entropic.runs.tenure import give_back_before_waiting
from entropic.runs.wait_notes import ASKED, KINDS, Shown, text_of, way_to

__all__ = ["Waiting", "rejoin", "secede"]

log = get_logger(__name__)

GIVE_BACK_S = 0.1  # of waiting, after which what is held and not begun is given back
LOOK_AFTER_S = 1.0  # of waiting, after which notes are followed, and
LOOK_EVERY_S = 2.0
LOOK_LATER = 60
WARN_AFTER_S = 30.0  # of waiting for a process that started this one


class Waiting:
    """One wait of this thread for keys that others hold; a context manager, after which nothing is left of it.

    Parameters
    ----------
    keys : Keys
        What the keys are.
    holding : Holding
        On whose behalf.
    """

    def __init__(self, keys: Keys, holding: Holding) -> None:
        self._keys = keys
        self._holding = holding
        self._paths: set[Path] = set()
        self._asking: Staging | None = None
        self._noted: list[str] | None = None
        self._inside: tuple[Run, ...] = ()
        self._look_at_s = self._look_up_at_s = LOOK_AFTER_S
        self._seen: list[str] = []
        self._tasks: list[Shown] | None = None
        self._has_warned = False
        self._has_seceded = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Take the notes away: what was waited for is there."""
        self._holding.wait_for(())
        self._take_away()
        if self._has_seceded:
            self._has_seceded = False
            rejoin()

    def _take_away(self) -> None:
        """Leave no note."""
        paths, self._paths, self._noted = self._paths, set(), None
        for path in paths:
            with suppress(OSError):
                unlink(path)
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.close()

    def go_on(self, keys: Sequence[str], waited_s: float) -> None:
        """Do what is due before the next pause.

        Raises
        ------
        DependencyCycleError
            If what is waited for waits for a run that this context is inside of, or for this process to end.
        """
        self._holding.wait_for(keys)
        if waited_s < GIVE_BACK_S:
            return
        self.stand_aside(keys)
        if waited_s >= self._look_up_at_s:
            self._look_up(keys, waited_s)
        runs = self._all_around()
        if waited_s >= self._look_at_s and (runs or self._noted is not None):
            self._look_at_s = waited_s + LOOK_EVERY_S
            self._look(runs, keys)

    def stand_aside(self, keys: Sequence[str] = ()) -> None:
        """Give back what is held and not begun, and say for which keys this context waits, be it by its workers."""
        give_back_before_waiting()
        if self._noted is not None and self._inside != inside_of():  # a run has ended, and this goes on
            self._take_away()
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
        holders = self._keys.claims.holders(keys)
        above = {key: holder for key, holder in holders.items() if is_ancestor(holder)}
        self._look_up_at_s = waited_s + LOOK_EVERY_S if above else waited_s * LOOK_LATER
        for key, holder in above.items():
            if not self._is_at_task() and is_waiting_for_us((self._keys.marker.root, key), holder):
                raise DependencyCycleError(
                    f"{key!r} is held by {holder}, which has started this process from inside of its run and would "
                    "wait for itself: ask for what is needed before you start the process, and give it the result"
                )
        if not around() and self._noted != list(keys) and (above or self._is_at_work()):
            self._note((), keys)  # whoever has them may give them back, or wait for this process
            self._noted = list(keys)
        if above and waited_s >= WARN_AFTER_S and not self._has_warned:
            self._has_warned = True
            first = next(iter(above))
            log.warning(
                "%s has been waited for for %.0f s, and %s, which has it, has started this process. Should its run "
                "wait for this process in a way that cannot be seen, neither ends: ask for what is needed before you "
                "give work to another process, or limit the wait with wait_timeout_s",
                first,
                waited_s,
                above[first],
            )

    def _is_at_work(self) -> bool:
        """Whether this context may be at something that another process waits for."""
        return multiprocessing.parent_process() is not None or self._is_at_task()

    def _is_at_task(self) -> bool:
        """Whether this context is at a task of a pool: that may be anybody's, whoever started the process."""
        return any(kind != PROCESS for (kind, _), _ in self._around_us())

    def _around_us(self, *, is_new: bool = False) -> list[Shown]:
        """Return what this thread is at for other processes, outermost first; where *is_new*, as it is now."""
        if self._tasks is None or is_new:
            tasks = tasks_around(threading.get_ident())
            self._tasks = [(task, KINDS[task[0]].format(os.getpid())) for task in tasks]
        return self._tasks

    def _note(self, runs: Sequence[Run], keys: Sequence[str]) -> None:
        self._inside = inside_of()
        chunks = [run.chunk for run in runs if run.chunk is not None]
        text = text_of(
            [*self._around_us(), *((run.mark, str(run)) for run in inside_of())],
            [(str(self._keys.root), (self._keys.marker.root, key)) for key in keys],
            struck={chunk.sweep: chunk.left() for chunk in chunks},
            above=ancestors(),
        )
        for folder in {run.folder for run in runs if run.folder}:
            path = Path(folder, f"{WAITS}{threading.get_ident()}-{id(self)}")
            part = f".{path.name}"
            # On a full disk others do not see why this waits.
            with suppress(OSError), opened(path.parent) as own:
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
            self._asking = Staging(self._keys.root, name, process.as_dict())
        with suppress(OSError, ResultsDirUnavailableError):
            self._asking.write(f"{WAITS}{threading.get_ident()}", text)

    def _look(self, runs: Sequence[Run], keys: Sequence[str]) -> None:
        """Follow the notes; a circle that is there twice in a row is one."""
        before = self._tasks
        tasks = self._around_us(is_new=True)
        if tasks != before and self._noted is not None:  # another thread has begun to wait for this one
            self._note(around(), keys)
        around_us = [*tasks, *((run.mark, str(run)) for run in runs)]
        mine = {mark: number for number, (mark, _) in enumerate(around_us)}
        way, end = way_to(str(self._keys.root), [(self._keys.marker.root, key) for key in keys], mine)
        seen, self._seen = self._seen, way
        if end is None or not way:
            return
        self._look_at_s -= LOOK_EVERY_S / 2
        if way == seen and self._is_of_now(end):
            chain = [shown for _, shown in around_us[mine[end] :]]
            refuse_chain([*chain, *way, chain[0]], is_over_tasks=end[0] in KINDS)

    def _all_around(self) -> tuple[Run, ...]:
        """Return the runs of this context, and before them those of the thread that started this process."""
        above = None if self._is_at_task() else origin()
        return inside_of() if above is None else (*above.runs, *inside_of())

    def _is_of_now(self, end: Mark) -> bool:
        """Whether a run that this process is inside of goes on: one that it was started from may be another by now."""
        if end in {run.mark for run in inside_of()} or end[0] != self._keys.marker.root:
            return True
        holder = self._keys.claims.holders([end[1]]).get(end[1])
        return holder is not None and is_waiting_for_us(end, holder)


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
