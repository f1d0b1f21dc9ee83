"""The right to write a file, as a second file that names who has it: for folders that several hosts share.

It is made whole, or not at all where there is one (`entropic.disk.exclusive`). An owner that has surely ended loses it
at once; one of which that cannot be told, as on another host, when its lock has not changed for a lease by our own
clock. That a late owner does no harm is up to what is written; `entropic.disk.journal` sees to it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from entropic.disk.exclusive import put_new
from entropic.disk.guarded import load_json, read_file
from entropic.errors import ClaimLostError, ClaimTimeoutError
from entropic.process.identity import Process, this_process
from entropic.process.logs import get_logger
from entropic.process.patience import Patience, Wait

__all__ = ["LEASE_S", "LinkedLock"]

log = get_logger(__name__)

LEASE_S = 60.0
PATIENCE = Patience(limit_s=600.0, longest_pause_s=0.25)
LIMIT = 4096  # bytes of a lock


def _now() -> float:
    """Return seconds that nobody sets, and that go on while the host is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class LinkedLock:
    """A context manager that holds the lock *path*.

    Parameters
    ----------
    path : Path
        In a folder that exists. Readers need not look at it.
    lease_s : float
        How long one must not change whose owner cannot be seen, before it is broken.
    patience : Patience
        How long to wait for it.

    Raises
    ------
    ClaimTimeoutError
        If another one has it all the time. The text says who.
    """

    def __init__(self, path: Path, *, lease_s: float = LEASE_S, patience: Patience = PATIENCE) -> None:
        self._path = path
        self._lease_s = lease_s
        self._patience = patience
        self._data = b""
        self._since = 0.0

    def __enter__(self) -> LinkedLock:
        self._data = json.dumps({**this_process().as_dict(), "token": uuid4().hex}).encode()
        try:
            self._acquire()
        except BaseException:  # an interrupt may come when it is there already
            self._remove(self._data)
            raise
        return self

    def _acquire(self) -> None:
        wait, seen, since, has_said = Wait(self._patience), b"", 0.0, False
        while not self._link():
            there = self._read()
            if there is None:
                continue
            if there != seen:
                seen, since = there, _now()
            holder = _holder(there)
            if (holder is not None and holder.is_dead()) or self._is_silent(holder, since):
                self._break(there, holder)
                continue
            if wait.is_over():
                raise ClaimTimeoutError(
                    f"{str(self._path)!r} is held by {_shown(holder)}, and was for {wait.waited_s:.0f} s: end that "
                    "process, or remove the file if it has ended"
                )
            if wait.is_worth_saying() and not has_said:
                has_said = True
                log.warning("waiting for %s, which has %s", _shown(holder), self._path)
            wait.pause()

    def __exit__(self, *_: object) -> None:
        self._remove(self._data)

    def require(self) -> None:
        """Raise `ClaimLostError` if it may have been broken meanwhile, as this process stood still."""
        if _now() - self._since > self._lease_s / 2 or self._read() != self._data:
            raise ClaimLostError(
                f"this process had {str(self._path)!r} for too long, and another one may have taken it over: nothing "
                "more was written. Store it again"
            )

    def _is_silent(self, holder: Process | None, since: float) -> bool:
        is_seen = holder is not None and holder.is_alive()
        return not is_seen and _now() - since > self._lease_s

    def _link(self) -> bool:
        """Make the lock, unless there is one."""
        own = self._path.with_name(f".entropic-{uuid4().hex}.lock")
        self._since = _now()
        try:
            own.write_bytes(self._data)
            put_new(own, self._path)
        except FileExistsError:
            return False
        finally:
            own.unlink(missing_ok=True)
        return True

    def _read(self) -> bytes | None:
        try:
            return read_file(str(self._path), limit=LIMIT)
        except FileNotFoundError:
            return None

    def _break(self, there: bytes, holder: Process | None) -> None:
        log.warning("breaking the lock %s, as %s is gone", self._path, _shown(holder))
        self._remove(there)

    def _remove(self, data: bytes) -> None:
        """Remove the lock if it still says *data*."""
        if self._read() != data:
            return
        aside = self._path.with_name(f".entropic-{uuid4().hex}.lock")
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return
        try:
            if aside.read_bytes() != data:  # another one broke it in between, and got it
                put_new(aside, self._path)
        except FileExistsError:
            log.debug("%s was taken before it could be put back", self._path)
        finally:
            aside.unlink(missing_ok=True)


def _holder(data: bytes) -> Process | None:
    try:
        facts: Any = load_json(data)
        return Process(
            str(facts["owner"]),
            str(facts["host"]),
            str(facts["boot"]),
            int(facts["pid"]),
            str(facts["started"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def _shown(holder: Process | None) -> str:
    return "somebody unknown" if holder is None else f"process {holder.pid} on {holder.host}"
