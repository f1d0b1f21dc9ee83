"""Whether a process that holds a key waits for this one, which it has started, to end.

This is known from the start of one that was forked in Python, or that `multiprocessing` started: it is told what the
thread was inside of that did it. Of others, and of what was begun since, the holder tells (`entropic.runs.answers`).
"""

from __future__ import annotations

import time

from entropic.leases.claims import Holder
from entropic.leases.held import Mark
from entropic.process.identity import ancestors, this_process
from entropic.runs.inside import origin

__all__ = ["is_ancestor", "is_waiting_for_us"]


def is_ancestor(holder: Holder) -> bool:
    """Whether a key is held by the process that started this one, or by one that started that, and so on."""
    process = holder.process
    return process.boot == this_process().boot and process.pid in ancestors()


def is_waiting_for_us(mark: Mark, holder: Holder) -> bool:
    """Whether this process was started from inside of the very run of a key that *holder* is at."""
    above = origin()
    if above is None or mark not in {run.mark for run in above.runs}:
        return False
    token = above.tokens.get(mark)
    if token is not None:
        return token == holder.token
    # A worker's: another process holds what it runs. A claim that is younger is of another try.
    return holder.held_s > time.monotonic() - above.at
