"""What the kernel says of other processes, and signals to them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def stat_of(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def state_of(pid: int) -> str:
    """Return the kernel's letter for the state of a process, "" if there is none."""
    return "".join(stat_of(pid)[:1])


def started_at(pid: int) -> str:
    """Return when a process began, in ticks since the boot; "" if there is none."""
    return "".join(stat_of(pid)[19:20])


def is_alive(pid: int) -> bool:
    return state_of(pid) not in {"", "Z", "X"}


def children_of(pid: int) -> set[int]:
    """Return the children of all threads of a process, and of those that have ended."""
    found = {int(folder.name) for folder in Path("/proc").glob("[0-9]*")}
    return {child for child in found if stat_of(child)[1:2] == [str(pid)]}


def living() -> Iterator[tuple[int, int, int]]:
    """Yield each living process, its group and its session."""
    for folder in Path("/proc").glob("[0-9]*"):
        state, _, group, session, *_ = stat_of(int(folder.name)) or ["X", "", "", ""]
        if state not in "ZX":
            yield int(folder.name), int(group), int(session)


def group_of(pid: int) -> set[int]:
    """Return the living processes of the group that *pid* leads."""
    return {one for one, group, _ in living() if group == pid}


def session_of(pid: int) -> set[int]:
    """Return the living processes of the session that *pid* leads."""
    return {one for one, _, session in living() if session == pid}


def pipes_of(pid: int) -> set[str]:
    """Return the pipes that a process holds an end of."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.add(os.readlink(path))
    return {name for name in found if name.startswith("pipe:")}


def send(pid: int, number: int) -> None:
    """Signal a process; one that has ended is fine."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
