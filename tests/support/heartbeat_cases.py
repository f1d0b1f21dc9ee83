"""What the tests of heartbeats share: processes that can be stopped and killed, what they run, looks from outside.

A runner here holds its key until it is told to go on, or holds the interpreter's lock; whoever looks at the claims
meanwhile is another process, or asks the database past the code under test.
"""

import ctypes
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropic import ClaimLostError, Store
from entropic.leases import heartbeat
from tests.support.counting import append_line
from tests.support.process_states import children_of, group_of, is_alive, state_of
from tests.support.processes import Outcome, forkserver
from tests.support.protocol_cases import Place, Sim
from tests.support.waiting import wait_for

SCRIPT = "heartbeat_process.py"


# Looking


def heartbeats_of(pid: int) -> set[int]:
    """Return the living heartbeat processes of a process."""
    found = set()
    for child in children_of(pid):
        with suppress(OSError):
            if SCRIPT in Path(f"/proc/{child}/cmdline").read_text() and is_alive(child):
                found.add(child)
    return found


def heartbeat_of(pid: int, besides: frozenset[int] = frozenset()) -> int:
    """Return the one heartbeat process of a process, as soon as there is one."""
    found: set[int] = set()
    wait_for(lambda: found.update(heartbeats_of(pid) - besides) or found)
    (one,) = found
    return one


def ends_of_leases(place: Place) -> dict[str, float]:
    """Return when each claim ends, by the record's id."""
    rows = place.sql("SELECT record_id, expires_at FROM entropic_claims")
    return {row.record_id: row.expires_at for row in rows}


def wait_for_beats(place: Place, n: int = 2) -> None:
    """Wait until every claim that there is has been extended *n* times."""
    for _ in range(n):
        before = ends_of_leases(place)
        assert before
        wait_for(lambda before=before: all(end > before[key] for key, end in ends_of_leases(place).items()))


def attempts(place: Place) -> list[str]:
    """Return the state of each attempt."""
    return sorted(row.state for row in place.sql("SELECT state FROM entropic_attempts"))


@contextmanager
def fresh_heartbeats(monkeypatch: Any) -> Iterator[Callable[[], set[int]]]:
    """Let this process begin without a heartbeat process; give what returns those that it has started since."""
    former = heartbeats_of(os.getpid())
    outside = heartbeat._Outside()
    with monkeypatch.context() as patch:
        patch.setattr(heartbeat, "_outside", outside)
        try:
            yield lambda: heartbeats_of(os.getpid()) - former
        finally:
            outside.close()


# Running


@dataclass(frozen=True)
class HoldingRunner:
    """Writes *version*; before that the run of *held* waits until it is told to go on."""

    place: Place
    version: str = "1"
    held: float | None = 0.0
    during: Callable[[Place], Any] | None = None

    @property
    def begun(self) -> Path:
        return self.place.folder / "begun"

    @property
    def go(self) -> Path:
        return self.place.folder / "go"

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        append_line(self.place.folder / "calls.log", params["id"])
        if params["a"] == self.held:
            self.begun.touch()
            if self.during is not None:
                self.during(self.place)
            else:
                wait_for(self.go.exists)
        Path(params["result_file"]).write_bytes(self.place.runner(self.version).result(params["a"]))
        return {"version": self.version}


def open_holding(
    place: Place,
    *,
    version: str = "1",
    held: float | None = 0.0,
    during: Callable[[Place], Any] | None = None,
    **options: Any,
) -> Store[Sim]:
    runner = HoldingRunner(place, version, held, during)
    return Store(runner, Sim, place.results, ".txt", place.url, **{"wait_timeout_s": 120.0, **options})


def run_here(place: Place, during: Callable[[Place], Any], *, lease_s: float, a: float = 0.0) -> Any:
    """Run one key in this process; *during* is called in the middle of it."""
    store = open_holding(place, held=a, during=during, lease_s=lease_s)
    record = store.run_or_retrieve({"a": a})
    return store, record


# What children do


class Child:
    """A process that leads a group of its own, so that it can be stopped or killed with all that it started."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        context = forkserver()
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_child, args=(sender, function, arguments))
        self._process.start()
        sender.close()
        self.pid: int = self._process.pid or 0
        wait_for(lambda: self.pid in group_of(self.pid) or not is_alive(self.pid))

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        os.killpg(self.pid, number)

    def stop_group(self) -> None:
        """Stop every process of the group, and wait until each stands still."""
        self.signal_group(signal.SIGSTOP)
        wait_for(lambda: {state_of(pid) for pid in group_of(self.pid)} == {"T"})

    def result(self, timeout_s: float = 120.0) -> Any:
        """Return what the function returned."""
        assert self._receiver.poll(timeout_s), "the child did not end in time"
        try:
            outcome: Outcome = self._receiver.recv()
        except EOFError:
            outcome = Outcome(traceback="it was killed")
        self.wait()
        assert outcome.finished, outcome.traceback
        return outcome.value

    def wait(self, timeout_s: float = 60.0) -> int | None:
        """Wait for its end, and return its exit code."""
        self._process.join(timeout_s)
        return self._process.exitcode

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.signal_group(signal.SIGKILL)
        self._process.join()
        self._process.close()
        self._receiver.close()


@contextmanager
def child(function: Callable[..., Any], *arguments: Any) -> Iterator[Child]:
    """Call *function* in another process; it and all that it started are killed afterwards."""
    process = Child(function, *arguments)
    try:
        yield process
    finally:
        process.close()


def _child(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    try:
        outcome = Outcome(value=function(*arguments), finished=True)
    except BaseException:
        outcome = Outcome(traceback=traceback.format_exc())
    sender.send(outcome)
    sender.close()


def obtain(place: Place, version: str, lease_s: float, held: float | None, a: float = 0.0) -> tuple[str, Any]:
    """Run or retrieve the key *a*; return what came of it, and the version of the record that was got."""
    store = open_holding(place, version=version, held=held, lease_s=lease_s)
    try:
        record: Any = store.run_or_retrieve({"a": a})
    except ClaimLostError as error:
        return "lost", error.record.custom_data["version"]
    return "obtained", record.custom_data["version"]


def sweep(place: Place, version: str, lease_s: float, n: int) -> list[tuple[float, str]]:
    """Sweep *n* keys, of which the first holds; return parameter and version of each."""
    store: Any = open_holding(place, version=version, lease_s=lease_s)
    records = store.sweep([{"a": float(a)} for a in range(n)], progress=False)
    return [(record.a, record.custom_data["version"]) for record in records]


def sweep_holding_the_lock(place: Place, lease_s: float, n: int, seconds: float) -> None:
    """Sweep *n* keys whose runs hold the interpreter's lock for *seconds* each; ``begun`` says which is the first."""

    def runner(params: dict[str, Any]) -> dict[str, Any]:
        append_line(place.folder / "calls.log", params["id"])
        if not (place.folder / "begun").exists():
            (place.folder / "begins").write_text(str(params["a"]))
            (place.folder / "begins").rename(place.folder / "begun")
        hold_the_lock(seconds)
        Path(params["result_file"]).touch()
        return {"version": "1"}

    Store(runner, Sim, place.results, ".txt", place.url, lease_s=lease_s).sweep(
        [{"a": float(a)} for a in range(n)], progress=False
    )


def run_holding_the_lock(place: Place, lease_s: float, seconds: float) -> int:
    """Run the key 0 in one call that holds the interpreter's lock; return how far another thread came meanwhile."""
    turns, is_over = 0, False

    def turn() -> None:
        nonlocal turns
        while not is_over:
            turns += 1
            time.sleep(0.01)

    def held(_: Place) -> None:
        nonlocal before, after
        before = turns
        hold_the_lock(seconds)
        after = turns

    before = after = 0
    thread = threading.Thread(target=turn)
    thread.start()
    try:
        open_holding(place, during=held, lease_s=lease_s).run_or_retrieve({"a": 0.0})
    finally:
        is_over = True
        thread.join()
    return after - before


def hold_the_lock(seconds: float) -> None:
    """Sleep in C without letting any other thread of this process run."""
    ctypes.PyDLL(None).usleep(int(1e6 * seconds))


def fork_and_hold(place: Place, how: str, lease_s: float) -> None:
    """Run the key 0, whose runner forks a child that does nothing, and goes on."""

    def fork(_: Place) -> None:
        pid = os.fork() if how == "by Python" else ctypes.PyDLL(None).fork()
        if pid == 0:
            (place.folder / "forking").write_text(str(os.getpid()))
            (place.folder / "forking").rename(place.folder / "forked")
            while True:
                signal.pause()
        wait_for((place.folder / "go").exists)

    open_holding(place, during=fork, lease_s=lease_s).run_or_retrieve({"a": 0.0})
