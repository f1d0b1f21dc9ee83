"""Whether a process that holds a key waits for this one, which it has started, to end.

Of a process that was forked in Python this is known: the child inherits what its thread was inside of, and what was
held. Of others there is only their age: a claim that is older than this process is of somebody who may wait for it.
That is sure if the holder has but one thread, else another one of its threads may have started this process.
"""

from __future__ import annotations

from entropic.leases import held
from entropic.leases.claims import Holder
from entropic.leases.held import Mark
from entropic.process.identity import age_s, ancestors, this_process, threads_of
from entropic.runs.inside import fork

__all__ = ["is_ancestor", "is_waiting_for_us"]

UNSURE_S = 1.0  # by which a claim may seem younger than this process, and is not


def is_ancestor(holder: Holder) -> bool:
    """Whether a key is held by the process that started this one, or by one that started that, and so on."""
    process = holder.process
    return process.boot == this_process().boot and process.pid in ancestors()


def is_waiting_for_us(mark: Mark, holder: Holder) -> bool | None:
    """Whether an ancestor cannot end or give back what it holds before this process ends; None if nobody can tell."""
    forked = fork()
    if forked is not None and forked.pid == holder.process.pid:
        hold = held.of_parent(mark)
        if hold is None or not forked.is_any_going:  # claimed since, or no run has started this process
            return False
        if not forked.runs:  # a run's own thread, or any
            return None
        around = [held.of_parent(run.mark) for run in forked.runs]
        is_serial = (
            any(one is not None and one.keeper is hold.keeper for one in around) and hold.keeper.is_serial
        )
        return is_serial or mark in {run.mark for run in forked.runs}
    age = age_s()
    if age is None:
        return None
    if holder.held_s <= age:
        return None if holder.held_s > age - UNSURE_S else False
    return True if threads_of(holder.process.pid) == 1 else None
