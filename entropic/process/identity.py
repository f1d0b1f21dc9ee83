"""Who runs: process, host, batch job; and whether that one is still there.

Unknown is not dead. Whether there is a process of a pid is asked of the kernel, which hides nobody; `/proc` may be
that of another pid namespace, or hide the processes of other users.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

__all__ = [
    "ARRAY_INDICES",
    "BATCH_SYSTEMS",
    "Process",
    "ancestors",
    "batch_job",
    "dask_worker",
    "has_children",
    "this_process",
    "where_now",
]


# Variable of the batch system → how its job is written.
BATCH_SYSTEMS = {"SLURM_JOB_ID": "slurm", "PBS_JOBID": "pbs", "LSB_JOBID": "lsf", "JOB_ID": "sge"}
ARRAY_INDICES = ("SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX", "LSB_JOBINDEX", "SGE_TASK_ID")


@dataclass(frozen=True, slots=True)
class Process:
    """One incarnation of a process.

    Attributes
    ----------
    owner : str
        uuid, 32 hexadecimal digits.
    boot : str
        Boot id of the kernel and pid namespace: where `pid` means something.
    started : str
        Start time of the process, in the kernel's words; empty where it cannot be read.
    """

    owner: str
    host: str
    boot: str
    pid: int
    started: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON and SQL."""
        # By name: each run asks, and `dataclasses.asdict` copies each value.
        return {
            "owner": self.owner,
            "host": self.host,
            "boot": self.boot,
            "pid": self.pid,
            "started": self.started,
        }

    def is_dead(self) -> bool:
        """Whether the process has surely ended; False where this cannot be told, as for another host."""
        return self.is_alive() is False

    def is_alive(self) -> bool | None:
        """Whether the process is there; None where this cannot be told, as for another host."""
        here = this_process()
        if self.owner == here.owner:
            return True
        if not self.boot or self.boot != here.boot:
            return None
        if not _is_pid_in_use(self.pid):
            return False
        started = _started(self.pid)
        if started is None:
            return False
        return started == self.started if started and self.started else None


def this_process() -> Process:
    """Return who this process is."""
    return _this(os.getpid())


@functools.lru_cache(maxsize=1)
def _this(pid: int) -> Process:
    # Cached by pid: a forked child, which inherits the cache, makes a uuid of its own.
    return Process(uuid4().hex, socket.gethostname(), _boot(), pid, _started(pid) or "")


def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_pid_in_use(pid: int) -> bool:
    """Whether there may be a process of this pid in our pid namespace, of whatever user."""
    if pid <= 0:  # to `kill` these are groups of processes
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # not ours to signal
        return True
    return True


def _started(pid: int) -> str | None:
    """Return the start time of a process, None of one that has ended, "" where `/proc` does not tell."""
    own = _stat("self")
    if own is None or own.partition(" ")[0] != str(os.getpid()):
        return ""  # that of another pid namespace: its numbers are not ours
    stat = own if pid == os.getpid() else _stat(str(pid))
    if stat is None:
        return ""
    fields = _fields(stat)
    return None if fields[0] in {"Z", "X"} else fields[19]


def _fields(stat: str) -> list[str]:
    return stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets


def _stat(pid: str) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def ancestors() -> list[int]:
    """Return the pids of the process that started this one, of the one that started that, and so on."""
    found: list[int] = []
    pid = os.getppid()
    while pid > 0 and pid not in found:
        found.append(pid)
        stat = _stat(str(pid)) if _started(pid) else None
        pid = int(_fields(stat)[1]) if stat else 0
    return found


def has_children(apart_from: Collection[int] = ()) -> bool:
    """Whether this process has children that have not ended, but for these; True if nobody says."""
    try:
        threads = os.listdir("/proc/self/task")
        lists = [Path(f"/proc/self/task/{tid}/children").read_text(encoding="ascii") for tid in threads]
    except OSError:
        return True  # a thread has ended: its children are another's now, whom we may have read before
    return bool({int(pid) for text in lists for pid in text.split()}.difference(apart_from))


def batch_job() -> str | None:
    """Return the batch job that this process is part of, as ``slurm:4711`` or ``slurm:4711[3]``."""
    for variable, system in BATCH_SYSTEMS.items():
        if job := os.environ.get(variable):
            index = next((os.environ[name] for name in ARRAY_INDICES if os.environ.get(name)), None)
            return f"{system}:{job}" + (f"[{index}]" if index is not None else "")
    return None


def dask_worker() -> str | None:
    """Return the address of the Dask worker in whose task this thread is, or None."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return str(distributed.get_worker().address)
    except ValueError:  # not in a task
        return None


def where_now() -> dict[str, Any]:
    """Return where this thread runs what it runs, for JSON and SQL."""
    process = this_process()
    return {
        "owner": process.owner,
        "host": process.host,
        "pid": process.pid,
        "worker": dask_worker(),
        "batch_job": batch_job(),
    }
