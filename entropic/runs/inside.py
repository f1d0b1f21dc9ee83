"""The runs that this context is inside of, and what becomes of a key that one of them asks for itself."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NamedTuple, NoReturn

from entropic.errors import ClusterError, DependencyCycleError
from entropic.leases import held
from entropic.leases.held import Mark
from entropic.process import started
from entropic.process.blocks import transparent

__all__ = [
    "Chunk",
    "Origin",
    "Run",
    "around",
    "going",
    "inside_of",
    "origin",
    "outside",
    "refuse_chain",
    "refuse_circle",
    "refuse_memory",
    "running",
    "tell_children",
    "wait_for",
]


class Chunk:
    """Jobs that a worker was given.

    Attributes
    ----------
    at : int
        The number of the one that it is at.
    is_struck : bool
        Whether it begins no further one.
    is_cut_off : bool
        Whether the sweep's database is in the memory of another process.
    """

    __slots__ = ("_keys", "at", "is_cut_off", "is_struck", "sweep")

    def __init__(self, sweep: str, keys: Sequence[str], *, is_cut_off: bool = False) -> None:
        self.sweep = sweep
        self.is_cut_off = is_cut_off
        self.at = 0
        self.is_struck = False
        self._keys = keys

    def left(self) -> list[str]:
        """Return the keys that it has not begun."""
        return list(self._keys[self.at + 1 :])


class Run(NamedTuple):
    """A run that goes on."""

    mark: Mark
    name: str
    """Of the function."""
    stored: Mapping[str, Any]
    folder: str = ""
    """Of the process that runs it, under its results folder; empty in another process."""
    chunk: Chunk | None = None
    """What of a sweep it is part of, where that sweep's claims are another process's."""

    def __str__(self) -> str:
        text = ", ".join(f"{name}={value!r}" for name, value in self.stored.items())
        return f"{self.name}({text if len(text) <= 100 else text[:97] + '...'})"


_runs: ContextVar[tuple[Run, ...]] = ContextVar("entropic_runs", default=())
_going: dict[Mark, Run] = {}  # in all threads of this process
_threads: dict[Mark, int] = {}  # the identifier of the thread that each goes on in


def inside_of() -> tuple[Run, ...]:
    """Return the runs of this context that go on, outermost first.

    A context may outlive its run: a task of asyncio's that it started, or a thread, has a copy.
    """
    runs = _runs.get()
    for run in runs:
        if not _goes_on(run):
            return tuple(filter(_goes_on, runs))
    return runs


def _goes_on(run: Run) -> bool:
    # Of those of other processes nothing is known here: whoever is inside of one is at its work.
    return not run.folder or _going.get(run.mark) is run


def around() -> tuple[Run, ...]:
    """Return the runs that may wait for this thread.

    Those of this context or, as a run may have started this thread, all that go on in this process.
    """
    return inside_of() or tuple(_going.values())


def going() -> dict[int, list[Run]]:
    """Return the runs that go on in this process by the identifier of their thread, outermost first."""
    found: dict[int, list[Run]] = {}
    for mark, run in _going.copy().items():
        thread = _threads.get(mark)
        if thread is not None:
            found.setdefault(thread, []).append(run)
    return found


class outside:
    """A context manager: be inside of no run.

    What a worker begins is not inside of what its thread's context says: a Dask worker starts a task in the context of
    whoever left it the slot, which may be a run that waits.
    """

    def __enter__(self) -> None:
        self._token = _runs.set(())

    def __exit__(self, *_: object) -> None:
        _runs.reset(self._token)


@transparent
def running(run: Run, outer: tuple[Run, ...] = ()) -> Iterator[None]:
    """Be inside of *run* in this block, and inside of *outer* if it was begun for those elsewhere."""
    runs = inside_of() or outer
    token = _runs.set((*runs, run))
    try:
        _threads[run.mark] = threading.get_ident()
        _going[run.mark] = run
        if runs:
            held.enter(runs[-1].mark, run.mark)
        yield
    finally:
        _going.pop(run.mark, None)
        _threads.pop(run.mark, None)
        _runs.reset(token)
        if runs:
            held.leave(runs[-1].mark, run.mark)
        held.end_waits(run.mark)


def refuse_circle(marks: Iterable[Mark]) -> None:
    """Raise `DependencyCycleError` if a run of this context is among *marks*, which are asked for now."""
    runs = inside_of()
    if not runs:
        return
    place = {run.mark: number for number, run in enumerate(runs)}
    for mark in marks:
        if mark in place:
            _refuse([*runs[place[mark] :], runs[place[mark]]])


def wait_for(marks: Collection[Mark]) -> None:
    """Note for which keys the innermost run of this context waits, which may be none.

    Raises
    ------
    DependencyCycleError
        If one of them is run by another thread of this process, and waits for a run of this context.
    """
    runs = inside_of()
    if not runs:
        return
    # First the note, then the look: of two threads that close a circle at once one at least sees it.
    held.wait_for(runs[-1].mark, marks)
    if not _goes_on(runs[-1]):  # it has ended meanwhile
        held.end_waits(runs[-1].mark)
    place = {run.mark: number for number, run in enumerate(runs)}
    for mark in marks:
        if way := held.circle(mark, place.keys()):
            held.wait_for(runs[-1].mark, ())
            *others, last = way
            _refuse([*runs[place[last] :], *(_going.get(other) for other in others), runs[place[last]]])


def _refuse(chain: Sequence[Run | None]) -> NoReturn:
    refuse_chain(["…" if run is None else str(run) for run in chain])


def refuse_chain(chain: Sequence[str], *, is_over_tasks: bool = False) -> NoReturn:
    """Raise `DependencyCycleError` for runs, of which the last is the first again.

    Parameters
    ----------
    is_over_tasks : bool
        Whether some are no runs, but what runs have given to other processes.
    """
    shown = " → ".join(chain)
    way = (
        "ask for what is needed before you give work to another process, and give it the result"
        if is_over_tasks
        else "give one of them another way to its result"
    )
    raise DependencyCycleError(f"these runs need each other: {shown}. None of them can end first: {way}")


def refuse_memory(database: str) -> None:
    """Raise `ClusterError` if this context is in a worker of a sweep whose database is in another process's memory.

    Parameters
    ----------
    database : str
        The one that is asked, which is in this process's memory.
    """
    for run in inside_of():
        if run.chunk is not None and run.chunk.is_cut_off:
            raise ClusterError(
                f"{run} asks the database {database!r} for another run, but the sweep's database is in the memory of "
                "the process that sweeps, where no worker can reach it: give db_url= a file or a server, or sweep in "
                "this process or in threads"
            )


class Origin(NamedTuple):
    """From inside of what this process was started by its parent."""

    runs: tuple[Run, ...]
    """What the thread was inside of that did it; none for a thread that a run had started."""
    tokens: Mapping[Mark, str]
    """Of the claims that the parent held on these runs."""
    at: float
    """When, by the clock that nobody sets."""


_fork: Origin | None = None


def origin() -> Origin | None:
    """Return from inside of what this process was forked, or started by `multiprocessing`; None if nobody says."""
    with suppress(TypeError, ValueError):  # told nothing, or by another release
        at, *told = started.told()
        runs = [Run((root, key), name, stored) for root, key, name, stored, _ in told]
        tokens = {(root, key): token for root, key, _, _, token in told if token}
        return Origin(tuple(runs), tokens, at)
    return _fork


def tell_children() -> None:
    """See to it that processes that runs start know what they are inside of."""
    started.tell(_for_child)


def _for_child() -> tuple[Any, ...]:
    runs, tokens = inside_of(), _tokens(inside_of(), held.find)
    told = [(*run.mark, run.name, dict(run.stored), tokens.get(run.mark, "")) for run in runs]
    return time.monotonic(), *told


def _tokens(runs: Iterable[Run], find: Callable[[Mark], held.Hold | None]) -> dict[Mark, str]:
    holds = {run.mark: find(run.mark) for run in runs}
    return {mark: hold.token for mark, hold in holds.items() if hold is not None}


def _forget_parent() -> None:
    # A child of a runner's is inside of nothing: what it asks for the parent cannot see.
    global _fork
    runs = tuple(run._replace(folder="", chunk=None) for run in inside_of())
    _fork = Origin(runs, _tokens(runs, held.of_parent), time.monotonic())
    _runs.set(())
    _going.clear()
    _threads.clear()


os.register_at_fork(after_in_child=_forget_parent)
