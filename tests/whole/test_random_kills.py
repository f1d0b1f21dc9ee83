"""kill -9 at random moments of runs and sweeps, on one database and folder that live through all of it.

What must hold after each kill is read past the code under test: rows and attempts from the database, results and
sidecars from the folder, runs from what the runner logs. A run has *finished* when its sidecar's line is written, or
its attempt is COMPLETED.
"""

import atexit
import contextlib
import hashlib
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from entropic import Base, Mapped, Store, output
from entropic.model.base import CallBase, ModelOptions
from entropic.runs.jobs import InRow
from tests.support.counting import append_line
from tests.support.history_model import read_history, record_history, replay
from tests.support.process_states import is_alive, session_of, started_at
from tests.support.processes import forkserver
from tests.support.stores import open_store
from tests.support.sweep_runs import ROOT
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

SEED_VARIABLE = "ENTROPIC_TEST_SEED"
TABLE = "killed_runs"
STATE, MARKER = ".entropic", ".entropic-root.json"


class Killed(Base):
    __tablename__ = TABLE

    n: Mapped[int]
    version: Mapped[str | None] = output()


class KilledValue(CallBase):
    """As a memoized function's: the results are values in the rows."""

    __tablename__ = "killed_values"
    __entropic__ = ModelOptions(is_derived=True)

    n: Mapped[int]
    version: Mapped[str | None] = output()


@dataclass(frozen=True)
class Runner:
    """Writes its result in two halves, 1 to 20 ms apart, and notes when it begins and when it is through.

    With *in_row* it returns it, after as long a time, as the runner of a memoized function does.
    """

    log: Path
    version: str = "1"
    in_row: bool = False

    def __call__(self, params: dict[str, Any]) -> dict[str, Any] | InRow:
        n = params["n"]
        append_line(self.log, json.dumps(["begun", n]))
        if self.in_row:
            time.sleep((1 + 7 * n % 20) / 1000)
            append_line(self.log, json.dumps(["ended", n]))
            return InRow(json.dumps(f"version {self.version} of {n}"), {"version": self.version})
        whole = content(n, self.version)
        with open(params["result_file"], "wb", buffering=0) as file:
            file.write(whole[: len(whole) // 2])
            time.sleep((1 + 7 * n % 20) / 1000)
            file.write(whole[len(whole) // 2 :])
        append_line(self.log, json.dumps(["ended", n]))
        return {"version": self.version}


def content(n: int, version: str) -> bytes:
    """What a complete result is."""
    return f"version {version} of {n}\n".encode() * 500


# What the children do


def opened(folder: Path, version: str = "1") -> Store[Any]:
    """Open the Store of the place: the folder says whether its results are values."""
    in_row = (folder / "in rows").exists()
    return open_store(KilledValue if in_row else Killed, folder, Runner(folder / "log", version, in_row))


def run(folder: Path, n: int, version: str, is_forced: bool) -> None:
    store = opened(folder, version)
    (store.run if is_forced else store.run_or_retrieve)({"n": n})


def sweep(folder: Path, ns: range, workers: int | None = None) -> None:
    opened(folder).sweep([{"n": n} for n in ns], workers=workers, progress=False)


def sweep_on_cluster(folder: Path, ns: range, address: str) -> None:
    from distributed import Client

    with Client(address, timeout=60) as client:
        opened(folder).sweep([{"n": n} for n in ns], client, progress=False, fallback="raise")


# Where they come from


class Children:
    """Forks children from a process that has imported all they need.

    Each child leads a session of its own, by which what it started is found when it is dead.
    """

    def __init__(self) -> None:
        context = forkserver()
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()
        self._ask("ready")

    def start(self, function: Callable[..., Any], *arguments: Any) -> int:
        """Call *function* in a new child and return its pid, which is its own until `wait` is called."""
        return int(self._ask("start", function, arguments))

    def wait(self, pid: int) -> int:
        """Wait for a child to end; return its exit status, or the negative number of the signal that killed it."""
        return int(self._ask("wait", pid))

    def _ask(self, *question: Any) -> Any:
        self._connection.send(question)
        if not self._connection.poll(120):
            raise TimeoutError(f"the process that forks did not answer {question}")
        return self._connection.recv()

    def close(self) -> None:
        self._connection.close()
        self._process.join(10)
        self._process.kill()
        self._process.join()
        self._process.close()


def _serve(connection: Any) -> None:
    import distributed  # noqa: F401

    with contextlib.suppress(EOFError):
        while True:
            what, *given = connection.recv()
            if what == "start":
                child = os.fork()
                if child == 0:
                    connection.close()
                    _be_child(*given)
                connection.send(child)
            elif what == "wait":
                connection.send(os.waitstatus_to_exitcode(os.waitpid(given[0], 0)[1]))
            else:
                connection.send(what)


def _be_child(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    status = 1
    try:
        function(*arguments)
        atexit._run_exitfuncs()  # a script's end clears away too; os._exit() would skip that
        status = 0
    except BaseException:
        (arguments[0] / "traceback").write_text(traceback.format_exc())
    finally:
        os._exit(status)


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.close()


# What is looked at, and what must hold


@dataclass
class Length:
    """How long an operation takes, to its first run and after it."""

    to_first_s: float
    after_first_s: float

    def learn(self, was_killed: bool) -> None:
        """Go with the machine, whose load changes: about one kill in six is to come after the end."""
        factor = 1.02 if was_killed else 0.9
        self.to_first_s *= factor
        self.after_first_s *= factor


@dataclass
class World:
    """One database and folder, what is known to have finished there, and who kills."""

    folder: Path
    children: Children
    random: random.Random
    in_row: bool = False
    """Whether the results are values in their rows."""
    wait_for_orphans: Callable[[], None] = lambda: None
    version: dict[int, str] = field(default_factory=dict)
    """The version of each key's last finished run."""
    attempts: set[str] = field(default_factory=set)
    """All that ever finished."""
    kills: int = 0
    in_the_middle: int = 0
    """Kills after the first run had begun."""
    landed: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, Length] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.in_row:
            (self.folder / "in rows").touch()
        opened(self.folder).database.dispose()
        record_history(self.database, self.table)

    @property
    def database(self) -> Path:
        return self.folder / "runs.sqlite3"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def table(self) -> str:
        return KilledValue.__tablename__ if self.in_row else TABLE

    def query(self, sql: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def logged(self) -> list[tuple[str, int]]:
        log = self.folder / "log"
        return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []

    def log_size(self) -> int:
        log = self.folder / "log"
        return log.stat().st_size if log.exists() else 0

    # Operations

    def measure(self, kind: str, version: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Do an operation without a kill, to learn how long it takes."""
        before, size, begun = self.logged(), self.log_size(), time.monotonic()
        pid = self.children.start(function, self.folder, *arguments)
        wait_for(lambda: self.log_size() > size or not is_alive(pid))
        first = time.monotonic()
        wait_for(lambda: not is_alive(pid))
        self.lengths[kind] = Length(first - begun, time.monotonic() - first)
        self.settle(pid, kind, before, version)

    def kill(
        self, kind: str, version: str, function: Callable[..., Any], *arguments: Any, rival: bool = False
    ) -> None:
        """Do an operation, kill its process at a random moment, and see what is left.

        Half of the moments are spread over the whole of it. The others come after the first run has begun, and more of
        them soon after, since a short run is little beside the preparation and the end of its process.
        """
        before, size, length = self.logged(), self.log_size(), self.lengths[kind]
        pid = self.children.start(function, self.folder, *arguments)
        other = self.children.start(function, self.folder, *arguments) if rival else None
        delay_s = self.random.uniform(0, 1.1 * (length.to_first_s + length.after_first_s))
        if self.random.random() < 0.5:
            delay_s = self.random.random() ** 2 * 1.1 * length.after_first_s
            wait_for(lambda: self.log_size() > size or not is_alive(pid))
        time.sleep(delay_s)
        os.kill(pid, signal.SIGKILL)
        if other is not None:
            assert self.children.wait(other) == 0, self.traceback()
        length.learn(self.settle(pid, kind, before, version, n_processes=2 if rival else 1))

    def settle(
        self, pid: int, kind: str, before: list[tuple[str, int]], version: str, n_processes: int = 1
    ) -> bool:
        """Wait for the end of a child and what it started, check everything, and return whether it was killed."""
        status = self.children.wait(pid)
        assert status in (0, -signal.SIGKILL), self.traceback()
        wait_for(lambda: not session_of(pid))
        self.wait_for_orphans()
        was_killed = status != 0
        self.kills += was_killed
        begun, ended = (
            Counter(n for what, n in self.logged()[len(before) :] if what == kind_of)
            for kind_of in ("begun", "ended")
        )
        finished = self.finished()
        new = Counter(n for attempt, n in finished.items() if attempt not in self.attempts)
        self.note(kind, was_killed, begun, new)
        # Workers outlive the process that swept: only a run of the killed process itself is cut short.
        most_cut = int(was_killed and kind not in {"workers", "cluster"})

        assert self.attempts <= finished.keys()
        assert max(new.values(), default=0) <= 1
        assert max(begun.values(), default=0) <= n_processes
        assert (begun - ended).total() + (ended - new).total() <= most_cut
        assert not new - ended
        if kind != "re-run":
            assert not begun.keys() & self.version.keys(), "a run that had finished was begun again"
        if not was_killed:
            assert self.claims() == 0
        self.attempts |= finished.keys()
        self.version |= dict.fromkeys(new, version)
        self.check()
        return was_killed

    def note(self, kind: str, was_killed: bool, begun: Counter[int], new: Counter[int]) -> None:
        if not was_killed:
            where = "after its end"
        elif not begun:
            where = "before its first run"
        else:
            where = (
                "with runs to commit"
                if len(self.completed()) < len(self.finished())
                else "with all committed"
            )
            where = where if new else "in a run, with nothing new"
        self.landed[f"{kind}: {where}"] += 1
        self.in_the_middle += was_killed and bool(begun)

    def check(self) -> None:
        """Open the Store, which recovers, and check all that must hold now."""
        runs_before = len(self.logged())
        store = opened(self.folder)
        report = store.check(checksum=True)
        store.database.dispose()

        assert not report, str(report)
        assert len(self.logged()) == runs_before, "the recovery ran something"
        assert self.completed().keys() == self.attempts, "a finished run was lost, or one made up"
        assert self.rows() == self.version
        assert self.claims() == 0
        for path in (self.results / STATE).iterdir():
            assert is_of_a_living_process(path) or is_unsigned(path), (
                f"{path} was left: {list(path.iterdir())}"
            )
        assert not (self.results / STATE / "quarantine").exists()

    # Past the code under test

    def rows(self) -> dict[int, str]:
        """Return the version of each row, each of whose files is whole, and nothing else there."""
        value = "r.result_value" if self.in_row else "NULL"
        rows = self.query(
            f"SELECT r.n, r.version, r.result_file, {value}, f.size_bytes, f.sha256 FROM {self.table} r "
            "LEFT JOIN entropic_files f ON f.record_id = r.id"
        )
        for n, version, path, value, size_bytes, sha256 in rows:
            assert (path is None) == (value is not None) == self.in_row
            whole = value.encode() if self.in_row else Path(path).read_bytes()
            assert whole == (
                json.dumps(f"version {version} of {n}").encode() if self.in_row else content(n, version)
            )
            assert (size_bytes, sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
        named = set() if self.in_row else {Path(path).name for _, _, path, *_ in rows}
        assert {path.name for path in self.results.iterdir()} - {STATE, MARKER} == named
        return {n: version for n, version, *_ in rows}

    def completed(self) -> dict[str, int]:
        """Return the key of each attempt that the database says is COMPLETED."""
        found = self.query("SELECT id, params, state FROM entropic_attempts")
        assert {state for *_, state in found} <= {"COMPLETED", "LOST"}
        return {attempt: json.loads(params)["n"] for attempt, params, state in found if state == "COMPLETED"}

    def finished(self) -> dict[str, int]:
        """Return the key of each attempt that is COMPLETED, or in a whole line of a sidecar."""
        finished = self.completed()
        for sidecar in (self.results / STATE).glob("*/sidecar.jsonl"):
            for text in sidecar.read_text().split("\n")[:-1]:
                line = json.loads(text)
                finished[line["attempt"]] = line["stored"]["n"]
        return finished

    def claims(self) -> int:
        return int(self.query("SELECT count(*) FROM entropic_claims")[0][0])

    def traceback(self) -> str:
        path = self.folder / "traceback"
        return path.read_text() if path.exists() else "no traceback"

    def finish(self) -> None:
        """Sweep every key once more: only what had not finished runs. Then ask the model what it thinks."""
        before, keys = len(self.logged()), range(max(self.version) + 5)
        missing = set(keys) - self.version.keys()
        assert self.children.wait(self.children.start(sweep, self.folder, keys)) == 0, self.traceback()
        begun = Counter(n for what, n in self.logged()[before:] if what == "begun")
        self.attempts = set(self.finished())
        self.version |= dict.fromkeys(missing, "1")
        make_old(self.results / STATE)
        self.check()
        history = replay(read_history(self.database))

        assert self.in_the_middle
        assert begun == Counter(missing)
        assert list((self.results / STATE).iterdir()) == []
        assert (history.held, set(history.commits)) == ({}, self.attempts)
        assert len(history.rows) == len(self.version) == len(keys)


def is_of_a_living_process(folder: Path) -> bool:
    try:
        process = json.loads((folder / "process.json").read_text())
    except (OSError, ValueError):
        return False
    return started_at(process["pid"]) == process["started"] and is_alive(process["pid"])


def is_unsigned(folder: Path) -> bool:
    """Whether a process was killed while it made or removed a folder, so that nobody can tell whose it is.

    It goes when it has not been touched for a lease.
    """
    try:
        json.loads((folder / "process.json").read_text())
    except (OSError, ValueError):
        return True
    return False


def make_old(folder: Path) -> None:
    """Let nothing in *folder* have been touched for a day."""
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (time.time() - 86_400,) * 2)


@contextlib.contextmanager
def world_of(folder: Path, children: Children, in_row: bool) -> Iterator[World]:
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(2**32))
    world = World(folder, children, random.Random(seed), in_row)
    try:
        yield world
    except BaseException as error:
        error.add_note(f"after {world.kills} kills, with {SEED_VARIABLE}={seed}")
        raise
    finally:
        for what, count in sorted(world.landed.items()):
            print(f"{count:4} {what}")


def new_keys(world: World) -> Iterator[int]:
    """Yield keys that have no result, each once."""
    n = 0
    while True:
        n = max(n, max(world.version, default=-1)) + 1
        yield n


def grid(world: World, *, cached: int, fresh: int) -> range:
    """Return keys of which about so many have a result and about so many have none."""
    first = next(n for n in range(10**6) if n not in world.version)
    return range(max(0, first - cached), first + fresh)


# Fewer of values: what differs between the kinds of results is killed at each step in `test_recovery`.
each_kind = pytest.mark.parametrize(("in_row", "kills"), [(False, 1.0), (True, 0.5)], ids=["file", "value"])


@each_kind
def test_runs_and_re_runs_killed_at_random_moments_lose_and_repeat_nothing(tmp_path, children, in_row, kills):
    with world_of(tmp_path, children, in_row) as world:
        fresh = new_keys(world)
        # Each is another one: a re-run that made the same bytes again need not be committed after a crash.
        versions = (str(number) for number in itertools.count(1))
        for kind, n in (("run", 0), ("run", next(fresh)), ("re-run", 0)):
            version = next(versions)
            world.measure(kind, version, run, n, version, kind == "re-run")
        world.lengths["rivals"] = world.lengths["run"]

        while world.kills < 40 * kills:
            version = next(versions)
            kind = world.random.choice(["run", "run", "re-run", "re-run", "rivals"])
            if kind == "re-run":
                n = world.random.choice(sorted(world.version))
                world.kill(kind, version, run, n, version, True)
            else:
                world.kill(kind, version, run, next(fresh), version, False, rival=kind == "rivals")
        world.finish()


@each_kind
def test_sweeps_killed_at_random_moments_lose_and_repeat_nothing(tmp_path, children, in_row, kills):
    workers = {"serial": None, "workers": 2}
    with world_of(tmp_path, children, in_row) as world:
        for kind, count in workers.items():
            world.measure(kind, "1", sweep, grid(world, cached=10, fresh=15), count)

        while world.kills < 30 * kills:
            kind = world.random.choice(["serial", "serial", "workers"])  # whose start takes a second
            world.kill(kind, "1", sweep, grid(world, cached=10, fresh=15), workers[kind])
        world.finish()


@each_kind
def test_cluster_sweeps_killed_at_random_moments_lose_and_repeat_nothing(tmp_path, children, in_row, kills):
    """The process of the Dask client is killed; scheduler and workers live on."""
    with world_of(tmp_path, children, in_row) as world:
        with cluster_in_processes(tmp_path) as client:
            address = client.scheduler.address
            world.wait_for_orphans = lambda: wait_for(lambda: is_idle(client))
            for _ in range(2):
                world.measure("cluster", "1", sweep_on_cluster, grid(world, cached=10, fresh=20), address)

            while world.kills < 30 * kills:
                world.kill("cluster", "1", sweep_on_cluster, grid(world, cached=10, fresh=20), address)
        world.wait_for_orphans = lambda: None
        world.finish()


@contextlib.contextmanager
def cluster_in_processes(folder: Path) -> Iterator[Any]:
    """Start a scheduler and two workers, and yield a client that watches them."""
    from distributed import Client

    address = folder / "scheduler.json"
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask's, about what is taken from it
        start_dask(stack, "scheduler", "--scheduler-file", address, "--no-dashboard", "--port", 0)
        for _ in range(2):
            start_dask(stack, "worker", "--scheduler-file", address, "--no-nanny", "--nthreads", 1,
                       "--no-dashboard", "--local-directory", folder / "scratch")  # fmt: skip
        with Client(scheduler_file=str(address), timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            yield client


def start_dask(stack: contextlib.ExitStack, *command: Any) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    stack.callback(process.wait)
    stack.callback(process.kill)


def is_idle(client: Any) -> bool:
    """Whether the scheduler knows no other client and no task, and no worker is at anything."""
    return client.run_on_scheduler(n_clients_and_tasks) == (1, 0) and not any(client.run(n_tasks).values())


def n_clients_and_tasks(dask_scheduler: Any) -> tuple[int, int]:
    return len(dask_scheduler.clients.keys() - {"fire-and-forget"}), len(dask_scheduler.tasks)


def n_tasks(dask_worker: Any) -> int:
    return len(dask_worker.state.tasks)
