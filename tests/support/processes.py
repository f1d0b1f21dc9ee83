"""Real processes that start one function at the same moment, for races that threads cannot show."""

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from typing import Any

from entropic.sql.tables import STORES

PRELOAD = [
    *("sqlalchemy.orm", "entropic", "psycopg", "pymysql", "pytest"),
    *("tests.support.protocol_cases", "tests.support.last_calls"),
    *(f"sqlalchemy.dialects.{dialect}" for dialect in ("sqlite", "postgresql", "mysql")),
    *(f"entropic.sql.tables.{name}" for name in STORES),
]
"""What the fork server imports once, so that its children need not: models and drivers, but no engine."""


def forkserver() -> ForkServerContext:
    """What makes processes that have the library, and else nothing of this one's."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


@dataclass(frozen=True)
class Outcome:
    """How one process ended: with a value, with a traceback, or with neither when it was killed."""

    value: Any = None
    traceback: str | None = None
    exitcode: int | None = None
    finished: bool = False


class ProcessesFailedError(AssertionError):
    """Some of the processes raised or died; the message has every traceback."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        failed = [(i, o) for i, o in enumerate(outcomes) if not o.finished]
        reports = [
            f"process {i} (exit code {o.exitcode}):\n{o.traceback or 'no traceback'}" for i, o in failed
        ]
        super().__init__(f"{len(failed)} of {len(outcomes)} processes failed\n" + "\n".join(reports))


class ProcessesTimeoutError(AssertionError):
    """Some of the processes did not end in time and were killed."""

    def __init__(self, hanging: Sequence[int], timeout_s: float) -> None:
        super().__init__(
            f"processes {list(hanging)} were still running after {timeout_s:g} s and were killed"
        )


def run_together(
    function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], *, timeout_s: float = 60.0
) -> list[Any]:
    """Call *function* in one new process for each item of *arguments*, all at once; return what they returned.

    Parameters
    ----------
    function : callable
        Defined at the top level of a module: a new process imports it by name.
    arguments : sequence of tuple
        One process is started for each; the tuple is its positional arguments.
    timeout_s : float
        From the first start to the last end. What runs longer is killed.

    Raises
    ------
    ProcessesFailedError
        If a process raised or died, with the tracebacks of all that did.
    ProcessesTimeoutError
        If a process did not end in time.
    """
    outcomes = outcomes_of(function, arguments, timeout_s=timeout_s)
    if not all(outcome.finished for outcome in outcomes):
        raise ProcessesFailedError(outcomes)
    return [outcome.value for outcome in outcomes]


def outcomes_of(
    function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], *, timeout_s: float = 60.0
) -> list[Outcome]:
    """Do what `run_together` does, for processes that are meant to fail: return how each one ended."""
    context = forkserver()
    barrier = context.Barrier(len(arguments), timeout=timeout_s)
    processes, receivers = [], []
    try:
        for each in arguments:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(sender, barrier, function, each))
            process.start()
            # Only the child's copy may stay open: its end is what tells that a killed child sends nothing more.
            sender.close()
            processes.append(process)
            receivers.append(receiver)
        outcomes = _collect(receivers, deadline=time.monotonic() + timeout_s)
        hanging = [i for i in range(len(processes)) if i not in outcomes]
        if hanging:
            raise ProcessesTimeoutError(hanging, timeout_s)
        return [_with_exitcode(outcomes[i], process) for i, process in enumerate(processes)]
    finally:
        for process in processes:
            process.kill()
            process.join()
            process.close()
        for receiver in receivers:
            receiver.close()


def _collect(receivers: list[Connection], *, deadline: float) -> dict[int, Outcome]:
    outcomes: dict[int, Outcome] = {}
    pending = {receiver: i for i, receiver in enumerate(receivers)}
    while pending:
        ready = wait(list(pending), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for receiver in ready:
            try:
                outcome = receiver.recv()
            except EOFError:
                outcome = Outcome()
            outcomes[pending.pop(receiver)] = outcome
    return outcomes


def _with_exitcode(outcome: Outcome, process: multiprocessing.process.BaseProcess) -> Outcome:
    process.join(timeout=10)
    return Outcome(outcome.value, outcome.traceback, process.exitcode, outcome.finished)


def _child(
    sender: Connection, barrier: Any, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    try:
        barrier.wait()
        outcome = Outcome(value=function(*arguments), finished=True)
    except BaseException:
        outcome = Outcome(traceback=traceback.format_exc())
    try:
        sender.send(outcome)
    except Exception:
        sender.send(Outcome(traceback=traceback.format_exc()))
    sender.close()


def open_files() -> set[str]:
    """What this process has open, by path."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return found
