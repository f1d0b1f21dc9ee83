"""kill -9 of a process at each step of a change, and what its successor finds."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entropic import Database
from tests.support.processes import outcomes_of

STEPS = ("link", "unlink", "fsync", "fdatasync", "pwrite", "mkdir")  # of the operating system


def killing_at(step: int) -> Callable[[Any], Any]:
    """Return what wraps functions so that this process is killed before the *step*-th call of any of them."""
    left = step

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    return counted


def kill_at(step: int, database: Database) -> None:
    """Have this process killed before its *step*-th call of the system or of COMMIT; it may end before."""
    counted = killing_at(step)
    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    dialect: Any = database.engine.dialect
    dialect.do_commit = counted(dialect.do_commit)


def die_at_each_step(
    change: str,
    folder: Path,
    url_of: Callable[[int], str],
    *,
    fill: Callable[[Path, str], Any],
    killed_at: Callable[[str, int, Path, str], None],
    look: Callable[[Path, str], Any],
    before: Any,
    after: Any,
) -> int:
    """Kill a process before its first step, before its second, and so on, until one gets to its end.

    Parameters
    ----------
    fill, killed_at, look
        Make a store as it is *before*; make a change of it in a process that is killed; open it and return its state.

    Returns
    -------
    int
        How many steps there were. At each the state was that *before* or, from some step on, that *after*.
    """
    seen: list[Any] = []
    is_killed = True
    while is_killed:
        step = len(seen)
        place, url = folder / str(step), url_of(step)
        fill(place, url).database.dispose()
        (outcome,) = outcomes_of(killed_at, [(change, step, place, url)])
        is_killed = outcome.exitcode == -signal.SIGKILL
        assert is_killed or outcome.finished, outcome.traceback
        state = look(place, url)
        assert state in (before, after), step
        seen.append(state)
    assert seen[-1] == after
    changes = [number for number, state in enumerate(seen) if state == after]
    assert changes == list(range(changes[0], len(seen)))  # once it is there it stays
    return len(seen)
