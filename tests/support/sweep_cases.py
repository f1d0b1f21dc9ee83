"""What the tests of the window share: a caller, and work that leaves traces."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

from entropic.sweeps.backends.base import SerialBackend
from entropic.sweeps.window import dispatch


class Caller:
    """Gives jobs and keeps outcomes, as a Store would."""

    def __init__(self, jobs):
        self.jobs = list(jobs)
        self.next = 0
        self.outcomes = []
        self.commits = []

    def take(self, n, *, wait):
        taken = self.jobs[self.next : self.next + n]
        self.next += len(taken)
        return taken or None

    def finish(self, outcomes):
        self.outcomes += outcomes
        self.commits.append(len(outcomes))

    def left(self):
        return len(self.jobs) - self.next

    def run(self, backend, **options):
        dispatch(self.take, self.finish, backend, key=key, crashed=crashed, left=self.left, **options)


def key(job_or_outcome):
    """Name a job, which is a number, or the job that an outcome is of."""
    return job_or_outcome[0] if isinstance(job_or_outcome, tuple) else job_or_outcome


def crashed(job):
    return job, "crashed"


def serially(work):
    """Return the backend that runs *work*, which returns the outcomes of a list of jobs, in this thread."""

    def add(jobs, outcomes):
        for job in jobs:
            outcomes += work([job])

    return SerialBackend(add)


def double(jobs):
    return [(job, 2 * job) for job in jobs]


class Trace:
    """Doubles, leaving a line per run in a file; job -1 kills its process, other jobs may take a while."""

    def __init__(self, path, seconds=0.0):
        self.path = str(path)
        self.seconds = seconds

    def __call__(self, jobs):
        for job in jobs:
            with open(self.path, "a") as file:
                file.write(f"{job}\n")
            if job == -1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(self.seconds)
        return double(jobs)

    def runs(self):
        return Counter(int(line) for line in Path(self.path).read_text().split())


def expected(jobs):
    return sorted(double(jobs))
