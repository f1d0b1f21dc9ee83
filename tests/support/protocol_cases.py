"""One table and one runner for the tests of the protocol, and what its child processes do.

A child process imports this module by name, patches itself where a crash is wanted, and goes on until it is killed:
the code under test is never patched in the process that looks at what is left.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from entropic import Base, Database, Mapped, Store, param
from entropic.disk import sidecars, staging
from entropic.disk.roots import Marker
from entropic.leases import claims
from entropic.model.base import CallBase, ModelOptions
from entropic.runs import attempts, publishing
from entropic.runs.jobs import InRow
from entropic.sql.clock import Clock, ManualClock, database_now
from entropic.sql.versions import ensure_schema
from tests.support.counting import append_line


class Sim(Base):
    __tablename__ = "protocol_sims"

    a: Mapped[float]
    b: Mapped[int] = param(default=0)


class ValueSim(CallBase):
    """As a memoized function's: its small results stand in the rows."""

    __tablename__ = "protocol_values"
    __entropic__ = ModelOptions(is_derived=True)

    a: Mapped[float]
    b: Mapped[int] = param(default=0)


class Other(Base):
    __tablename__ = "protocol_others"

    a: Mapped[float]


@dataclass(frozen=True)
class VersionedRunner:
    """Writes *version* and the parameter, leaves a line per call in *log*, and is killed in the middle if asked to.

    With *in_row* it returns what it would have written, as the runner of a memoized function does.
    """

    log: Path
    version: str = "1"
    die: bool = False
    in_row: bool = False

    def __call__(self, params: dict[str, Any]) -> dict[str, Any] | InRow:
        append_line(self.log, params["id"])
        if self.in_row:
            if self.die:
                kill_self()
            return InRow(self.result(params["a"]).decode(), {"version": self.version})
        path = Path(params["result_file"])
        if self.die:
            path.write_bytes(b"half")
            kill_self()
        path.write_bytes(self.result(params["a"]))
        return {"version": self.version}

    def result(self, a: float) -> bytes:
        """What a complete result of *a* is: text, or the JSON of it in a row."""
        text = f"version {self.version} of {a!r}"
        return (f'"{text}"' if self.in_row else text).encode()

    @property
    def calls(self) -> list[str]:
        """The ids that were begun, in any process."""
        return self.log.read_text().split() if self.log.exists() else []


MARKER = Marker("root", "database", "table")
"""What the marker of a results folder says where no database is asked."""


@dataclass(frozen=True)
class Place:
    """Where a test's table lives: it goes to children as it is."""

    url: str
    folder: Path
    in_row: bool = False
    """Whether the results are values in their rows, instead of files."""

    @property
    def table(self) -> str:
        return "protocol_values" if self.in_row else "protocol_sims"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def runner(self, version: str = "1", *, die: bool = False) -> VersionedRunner:
        return VersionedRunner(self.folder / "calls.log", version, die, self.in_row)

    def store(self, version: str = "1", *, die: bool = False, **options: Any) -> Store[Any]:
        options = {"wait_timeout_s": 20.0, "file_suffix": ".txt", **options}
        model: Any = ValueSim if self.in_row else Sim
        return Store(self.runner(version, die=die), model, self.results, db_url=self.url, **options)

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement past all code under test, and return its rows."""
        with Database(self.url).engine.connect() as connection:
            result = connection.execute(text(statement), values)
            rows = list(result) if result.returns_rows else []
            connection.commit()
        return rows

    def rows(self) -> dict[str, str]:
        """The basename of the result file of each row, by id, as the table says."""
        return {
            row.id: "" if row.result_file is None else Path(row.result_file).name
            for row in self.sql(f"SELECT id, result_file FROM {self.table}")
        }

    def content(self, row: Any) -> bytes:
        """The result of a row or record, to the byte, read past the code under test."""
        if self.in_row:
            assert row.result_file is None
            return str(row.result_value).encode()
        assert not hasattr(row, "result_value")
        return Path(row.result_file).read_bytes()

    def state_folders(self) -> list[Path]:
        """The folders of processes under `.entropic`."""
        return list(sidecars.process_folders(self.results))


TABLES = ("protocol_sims", "entropic_files", "entropic_attempts", "entropic_claims")


def kill_self(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap *function* so that its call is the last thing that this process sets out to do."""

    def killed(*args: Any, **kwargs: Any) -> Any:
        kill_self()

    return killed


def after(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap *function* so that this process dies when it has done its work."""

    def killed(*args: Any, **kwargs: Any) -> Any:
        function(*args, **kwargs)
        kill_self()

    return killed


FAIL_POINTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "claimed": (attempts.Place, "take", before),
    "slot taken": (attempts.Place, "take", after),
    "file staged": (attempts, "stage", after),
    "line written": (staging.Staging, "append", after),
    "claim deleted": (claims.Claims, "delete", after),
    "all written": (publishing, "_insert_attempt", after),
    "file moved": (publishing, "move", after),
    "committed": (publishing.Publisher, "publish", after),
}
"""Where a process can be killed, in the order of a run, and how that is done there."""

OF_FILES = ("file staged", "file moved")
"""The fail points that a value which is to stand in its row does not come to."""

FINISHED = ("line written", "claim deleted", "all written", "file moved", "committed")
"""The fail points at which the run must not be lost."""


def arm(point: str) -> None:
    """Make this process die at a fail point."""
    owner, name, wrap = FAIL_POINTS[point]
    setattr(owner, name, wrap(getattr(owner, name)))


# What children do


def run_until(
    place: Place, point: str, params: dict[str, Any], version: str = "1", forced: bool = False
) -> None:
    """Run *params* in a process that dies at *point*."""
    store = place.store(version, die=point == "in the runner")
    if point != "in the runner":
        arm(point)
    (store.run if forced else store.run_or_retrieve)(params)


def sweep_until(place: Place, grid: list[dict[str, Any]], point: str, nth: int) -> None:
    """Sweep *grid* in a process that dies when it comes to *point* for the *nth* time."""
    store = place.store()
    owner, name, _ = FAIL_POINTS[point]
    function, count = getattr(owner, name), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        result = function(*args, **kwargs)
        count += 1
        if count == nth:
            kill_self()
        return result

    setattr(owner, name, counted)
    store.sweep(grid, progress=False)


def run_holding(place: Place, held: str, params: dict[str, Any]) -> None:
    """Claim the key *held*, and run *params* until its line is written."""
    store = place.store()
    claims_on(store.database, place.table).acquire([held])
    arm("line written")
    store.run_or_retrieve(params)


def run_slowly(place: Place, params: dict[str, Any], begun: Path, version: str) -> None:
    """Run *params* in a runner that says that it has *begun* and takes its time."""
    fast = place.runner(version)

    def slow(given: dict[str, Any]) -> dict[str, Any]:
        begun.touch()
        time.sleep(1)
        return fast(given)

    store = place.store(version)
    store.runner = slow
    store.run(params)


def rerun_after(place: Place, params: dict[str, Any], begun: Path, version: str) -> None:
    """Run *params* while another process is at it, and die when the line is written."""
    store = place.store(version)
    while not begun.exists():
        time.sleep(0.01)
    arm("line written")
    store.run(params)


def slow_and_rerun(place: Place, params: dict[str, Any], begun: Path, version: str) -> None:
    """Do what one of the two above does: the first version runs slowly, the others come after."""
    (run_slowly if version == "1" else rerun_after)(place, params, begun, version)


def open_until(place: Place, point: str) -> None:
    """Open a Store in a process that dies at *point* of what it recovers."""
    arm(point)
    place.store()


def open_and_count(place: Place) -> int:
    """Open a Store and return how many rows it sees."""
    return place.store().count()


def call(place: Place, params: dict[str, Any]) -> str:
    """Run or retrieve *params*; return the bytes of the result as text."""
    return place.content(place.store().run_or_retrieve(params)).decode()


def take(place: Place, params: dict[str, Any]) -> None:
    """Run *params* after a lease that is over, without waiting until that counts."""
    claims.WATCHED = 0.0
    place.store().run_or_retrieve(params)


def rerun(place: Place, params: dict[str, Any], version: str) -> None:
    """Do what `take` does with another version of the runner, whatever result there is."""
    claims.WATCHED = 0.0
    place.store(version).run(params)


class Watch:
    """A clock of one's own that a test puts forward."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now_s += seconds


def claims_on(
    database: Database,
    table: str = "protocol_sims",
    *,
    lease_s: float = 60.0,
    clock: Clock = database_now,
    watch: Callable[[], float] | None = None,
) -> claims.Claims:
    """Claims on one table of a database whose schema is made if need be; a clock set by hand is one's own, too."""
    ensure_schema(database, [])
    by_hand = (lambda: clock.now) if isinstance(clock, ManualClock) else time.monotonic
    return claims.Claims(database, table, lease_s=lease_s, clock=clock, watch=watch or by_hand)


def acquire(url: str, keys: list[str], lease_s: float = 60.0) -> dict[str, str]:
    """Acquire *keys* and end without giving them back; return the tokens granted."""
    database = Database(url)
    granted = claims_on(database, lease_s=lease_s).acquire(keys)
    database.dispose()
    return {key: grant.token for key, grant in granted.items()}


def acquire_watched(url: str, keys: list[str]) -> None:
    """Acquire *keys*, whose leases are over, when that counts, and end without giving them back."""
    database, watch = Database(url), Watch()
    taker = claims_on(database, watch=watch)
    taker.holders(keys)
    watch.wait(taker.lease_s)
    assert taker.acquire(keys).keys() == set(keys)
    database.dispose()


def acquire_together(url: str, keys: list[str], meeting: Path, parties: int) -> dict[str, str]:
    """Acquire *keys* and stay alive until all *parties* have tried: a dead owner would be succeeded at once."""
    granted = acquire(url, keys)
    meet(meeting, parties)
    return granted


def take_over_together(url: str, keys: list[str], meeting: Path, parties: int) -> dict[str, str]:
    """Watch who holds *keys* for a lease, then acquire them when all *parties* do."""
    database, watch = Database(url), Watch()
    taker = claims_on(database, watch=watch)
    taker.holders(keys)
    watch.wait(taker.lease_s)
    meet(meeting / "before", parties)
    granted = taker.acquire(keys)
    database.dispose()
    meet(meeting / "after", parties)
    return {key: grant.token for key, grant in granted.items()}


def meet(meeting: Path, parties: int) -> None:
    """Wait until all *parties* are in one place."""
    meeting.mkdir(exist_ok=True)
    (meeting / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(os.listdir(meeting)) < parties and time.monotonic() < deadline:
        time.sleep(0.01)


def acquire_and_die(url: str, keys: list[str], lease_s: float = 60.0) -> None:
    """Acquire *keys* and be killed."""
    acquire(url, keys, lease_s)
    kill_self()


@contextmanager
def warned(caplog, fragment):
    """Expect a WARNING with *fragment* from inside the block."""
    caplog.clear()
    yield
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any(fragment in message for message in warnings), warnings
