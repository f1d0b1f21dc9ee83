"""Chunks that end before their last job: what had ended by then is not lost with what cut them short.

A runner's own error is an outcome. What is none is not: an interrupt, what asyncio raises in a task that is cancelled,
or an error of the disk around a run. It ends the chunk, and the chunk tells of it together with what had ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from entropic.process.identity import where_now
from entropic.runs.attempts import Work
from entropic.runs.jobs import Interrupted, Job, NotBegun, Outcome, WorkerDied

__all__ = ["CutShort", "Outcomes", "run_noted", "run_whole"]

Outcomes = list[Outcome | NotBegun | Interrupted]


class CutShort(Exception):
    """What work raises whose chunk was cut short by its cause.

    Attributes
    ----------
    outcomes : list
        Of the jobs until then.
    cause : BaseException
    """

    def __init__(self, outcomes: Outcomes, cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__} after {len(outcomes)} outcomes")
        self.outcomes = outcomes
        self.cause = cause


def run_noted(work: Work, jobs: list[Job], on_begin: Callable[[int], None], outcomes: Outcomes) -> None:
    """Add what comes of *jobs* to *outcomes*, of one that is interrupted too; what cuts them short is raised.

    Parameters
    ----------
    on_begin : callable
        As for `Work`.
    """
    begun: list[tuple[Job, float]] = []

    def begin(number: int) -> None:
        on_begin(number)
        begun[:] = [(jobs[number], time.time())]

    own: Any = outcomes  # to which only outcomes of this work's kinds are added
    try:
        work(jobs, begin, own)
    except BaseException:
        ended = {outcome.record_id for outcome in outcomes}
        outcomes += [Interrupted(job, at, where_now()) for job, at in begun if job.record_id not in ended]
        raise


def run_whole(work: Work, jobs: list[Job], on_begin: Callable[[int], None] = lambda number: None) -> Outcomes:
    """Return what comes of *jobs*, or raise `CutShort` with it; that a worker has died is raised as it is."""
    outcomes: Outcomes = []
    try:
        run_noted(work, jobs, on_begin, outcomes)
    except WorkerDied:
        raise
    except Exception as error:
        # It may be this worker's trouble: the run that it was at is tried again elsewhere.
        raise CutShort([one for one in outcomes if not isinstance(one, Interrupted)], error) from error
    except BaseException as error:
        raise CutShort(outcomes, error) from error
    return outcomes
