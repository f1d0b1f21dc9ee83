"""What travels to a worker and back: the work, the jobs of a chunk, their outcomes or the error instead.

All of it is made with cloudpickle, so that what a script or a notebook defines in `__main__` travels by value.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, NamedTuple, Protocol, runtime_checkable

from entropic.errors import ClusterError
from entropic.process.raised import note_on, pickled, traceback_of, unpickled
from entropic.process.scripts import name_of_main, sent_by
from entropic.runs.inside import outside
from entropic.runs.jobs import WorkerDied
from entropic.sweeps.cuts import CutShort
from entropic.sweeps.prepared import Prepared
from entropic.values.arrays import make_masked, masked_parts

__all__ = [
    "Noting",
    "Reply",
    "Ticketed",
    "answer",
    "as_noting",
    "as_ticketed",
    "dump_jobs",
    "dump_work",
    "keep",
    "load_answer",
    "refuse",
    "run_chunk",
    "run_timed",
]

Work = Callable[[list[Any]], list[Any]]

# Ids of sweeps that were stopped.
_STOPPED: set[str] = set()


@runtime_checkable
class Noting(Protocol):
    """Work that notes what it begins where all workers see it.

    Dask gives a task whose worker died to the next worker, up to four times: a job that kills its worker would take
    them all down. The note tells the second one that the task was begun.
    """

    def for_task(self, task: str) -> Work:
        """Return the work under the name of one task; called for one that was begun already, it raises WorkerDied."""

    def death(self, task: str) -> WorkerDied | None:
        """Return what `for_task` would make the work raise, or None for a task that was not begun or has ended."""


@runtime_checkable
class Ticketed(Protocol):
    """Work whose chunks each have a ticket: who takes it has the chunk."""

    def issue(self, task: str) -> bool:
        """Make the ticket of a chunk; return whether that could be done."""

    def take(self, task: str) -> bool:
        """Take a ticket; return whether it was there."""


class Reply(NamedTuple):
    """The outcomes of one chunk, and how long its jobs took where they ran.

    Attributes
    ----------
    cause : BaseException or None
        What cut it short, so that jobs may be without an outcome.
    is_last : bool
        Whether that is nothing to run the rest elsewhere for: it ends the sweep.
    """

    outcomes: list[Any]
    seconds: float
    cause: BaseException | None = None
    is_last: bool = False


def as_noting(work: Any) -> Noting | None:
    """Return *work* if it notes what it begins, else None."""
    return work if isinstance(work, Noting) else None


def as_ticketed(work: Any) -> Ticketed | None:
    """Return *work* if its chunks have tickets, else None."""
    return work if isinstance(work, Ticketed) else None


def dump_work(work: Work, prepared: Prepared | None = None) -> bytes:
    """Pickle *work* by value where need be, or raise a ClusterError that names the part that does not pickle.

    Parameters
    ----------
    prepared : Prepared, optional
        What is to be found in the processes that it is for.
    """
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps((name_of_main(), work, prepared)))
    except Exception as error:  # a __reduce__ of the user's may raise anything
        raise ClusterError(
            f"{_blame(work, 'the work')} cannot be pickled for another process ({type(error).__name__}: {error}). "
            "Pass plain values as parameters; open files, locks and database connections inside the runner; import "
            "the model from a module rather than close over it. Or run it in this process: without client=, "
            "workers= and executor="
        ) from error


def dump_jobs(jobs: list[Any]) -> bytes:
    """Pickle the jobs of a chunk, parameters as they are: NumPy itself would drop what a masked array's mask is."""
    stream = BytesIO()
    _pickler()(stream).dump(jobs)
    return stream.getvalue()


@functools.cache
def _pickler() -> Any:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        def reducer_override(self, obj: Any) -> Any:
            if (parts := masked_parts(obj)) is not None:
                return make_masked, parts
            return super().reducer_override(obj)

    return Pickler


def _blame(value: Any, name: str, depth: int = 0) -> str:
    import cloudpickle

    for part_name, part in _parts(value) if depth < 6 else ():
        try:
            cloudpickle.dumps(part)
        except Exception:
            return _blame(part, f"{name} → {part_name}", depth + 1)
    return f"{name} (a {type(value).__name__})"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, functools.partial):
        yield from [("func", value.func), *((f"args[{i}]", arg) for i, arg in enumerate(value.args))]
        yield from value.keywords.items()
    elif code := getattr(value, "__code__", None):
        closure = zip(code.co_freevars, value.__closure__ or (), strict=True)
        for name, cell in closure:
            with contextlib.suppress(ValueError):  # a cell that is still empty
                yield name, cell.cell_contents
        if hasattr(value, "__self__"):
            yield "self", value.__self__
        yield from ((name, value.__globals__[name]) for name in code.co_names if name in value.__globals__)
    elif not isinstance(value, type):
        yield from getattr(value, "__dict__", {}).items()


def run_timed(work: Work, jobs: list[Any], sweep: str | None = None) -> Reply:
    """Call *work*, unless its sweep was stopped in this process."""
    started = time.perf_counter()
    cause: BaseException | None = None
    try:
        with outside():
            outcomes = [] if sweep in _STOPPED else work(jobs)
    except CutShort as cut:
        outcomes, cause = cut.outcomes, cut.cause
    is_last = cause is not None and not isinstance(cause, Exception)
    return Reply(outcomes, time.perf_counter() - started, cause, is_last)


@functools.lru_cache(maxsize=4)
def _load_work(payload: bytes) -> tuple[str, Work]:
    import cloudpickle

    prepared: Prepared | None
    script, work, prepared = cloudpickle.loads(payload)  # at once: only so both have the same globals
    if prepared is not None:
        prepared.adopt()
    return script, work


def run_chunk(payload: bytes, jobs: bytes, sweep: str | None = None, task: str | None = None) -> bytes:
    """Run a chunk where it was sent: what a worker, of whatever kind, is asked to call.

    Parameters
    ----------
    task
        Name of the task, where another worker may be asked to call it again.
    """
    import cloudpickle

    def call() -> Reply:
        script, work = _load_work(payload)
        if task is not None and (noting := as_noting(work)) is not None:
            work = noting.for_task(task)
        with sent_by(script):
            return run_timed(work, cloudpickle.loads(jobs), sweep)

    return answer(call)


def refuse(sweep: str) -> None:
    """Make chunks of *sweep* that are still queued in this process do nothing."""
    _STOPPED.add(sweep)


def keep(value: bytes) -> bytes:
    """Return *value*: the task that holds a large payload on a cluster."""
    return value


def answer(call: Callable[[], Reply]) -> bytes:
    """Pickle what *call* returns, or the exception that it raises, for `load_answer` to return or raise."""
    import cloudpickle

    try:
        reply = call()
        # By itself: one that does not pickle takes no outcome with it.
        cause = None if reply.cause is None else _told(reply.cause)
        return bytes(cloudpickle.dumps((reply._replace(cause=None), cause)))
    except BaseException as error:  # the worker does not end by it, whatever it is: its sweep is told
        return bytes(cloudpickle.dumps((None, _told(error))))


def _told(error: BaseException) -> tuple[bytes | None, str]:
    text = traceback_of(error)
    note_on(error, f"raised in a worker of the sweep:\n{text}")
    return pickled(error), text


def load_answer(data: bytes) -> Reply:
    """Return or raise what `answer` pickled."""
    import cloudpickle

    reply: Reply
    reply, told = cloudpickle.loads(data)
    if told is None:
        return reply
    error = unpickled(told[0]) or ClusterError(f"a worker of the sweep failed:\n{told[1]}")
    if reply is None:
        raise error
    return reply._replace(cause=error)
