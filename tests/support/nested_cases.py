"""Runs that need other runs: functions that ask their own Store, or another, for what they build on; in any process."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from entropic import Base, Mapped, Store
from entropic.runs import waits
from entropic.runs.inside import inside_of
from entropic.runs.publishing import Publisher
from entropic.runs.tenure import Tenure
from entropic.sweeps import window
from entropic.sweeps.backends.processes import Processes
from entropic.sweeps.tasks import Tasks
from tests.support.counting import append_line
from tests.support.executors import executor_of
from tests.support.protocol_cases import kill_self
from tests.support.waiting import wait_for


class Node(Base):
    __tablename__ = "nested_nodes"

    n: Mapped[int]


class Leaf(Base):
    __tablename__ = "nested_leaves"

    n: Mapped[int]


class Twig(Base):
    __tablename__ = "nested_twigs"

    n: Mapped[int]


@dataclass(frozen=True)
class Needs:
    """A runner that asks for what each key needs, by number, and writes the sum of what it finds and one.

    Attributes
    ----------
    graph : mapping
        What each number needs of the same table.
    leaves : mapping
        What it needs of the other one; those need numbers of this one in turn, by `back`.
    """

    folder: str
    url: str
    graph: Mapping[int, Sequence[int]]
    leaves: Mapping[int, Sequence[int]] | None = None
    back: Mapping[int, Sequence[int]] | None = None
    is_leaf: bool = False
    meet: int = 0
    """How many runs must have begun, each for the first time, before any of them asks."""
    holds: tuple[int, ...] = ()
    """Numbers whose runs do not end before there is a file ``go`` in the folder."""
    falls: tuple[int, ...] = ()
    """Numbers whose first run kills its process."""
    dies_at: str = ""
    """One of `POINTS`: where the worker dies that begins the first run."""

    @property
    def __name__(self) -> str:
        return "leaf" if self.is_leaf else "node"

    def __call__(self, params: dict[str, Any]) -> None:
        n = params["n"]
        outer = _depth.get()
        if self.dies_at and not outer:
            with contextlib.suppress(FileExistsError), open(Path(self.folder, "armed"), "x"):
                arm(self.dies_at)
        append_line(Path(self.folder, "log"), f"{self.__name__}{n} {os.getpid()} {outer}")
        wait_for(lambda: len(self.calls()) >= self.meet)
        if n in self.falls and self.calls()[f"node{n}"] == 1:
            kill_self()
        depth = _depth.set(outer + 1)
        try:
            self._write(n, Path(params["result_file"]))
        finally:
            _depth.reset(depth)

    def _write(self, n: int, result: Path) -> None:
        if n in self.holds and not self.is_leaf:
            wait_for(Path(self.folder, "go").exists)
        nodes, leaves = (self.back, {}) if self.is_leaf else (self.graph, self.leaves)
        total = 1
        for is_leaf, needs in ((False, nodes), (True, leaves)):
            for one in (needs or {}).get(n, ()):
                record = self.store(is_leaf=is_leaf).run_or_retrieve({"n": one})
                total += int(Path(record.result_file).read_text())
        result.write_text(str(total))

    def store(self, *, is_leaf: bool = False) -> Store[Any]:
        """Return the Store of this runner's table, or of the other one, one for each in a process."""
        key = (os.getpid(), self.folder, is_leaf, self.holds, self.falls, self.dies_at)
        if key not in _stores:
            runner = replace(self, is_leaf=is_leaf)
            name = "leaves" if is_leaf else "nodes"
            _stores[key] = Store(runner, Leaf if is_leaf else Node, Path(self.folder, name), ".txt", self.url)
        return _stores[key]

    def calls(self) -> Counter[str]:
        """How often each run was begun, in whatever process."""
        return Counter(line.split()[0] for line in self.lines())

    def pids(self, *, inside: bool = False) -> set[str]:
        """In which processes runs were begun; with *inside* those that were begun inside of another."""
        lines = [line.split() for line in self.lines()]
        return {pid for _, pid, depth in lines if not inside or int(depth)}

    def lines(self) -> list[str]:
        """The runs in the order in which they were begun, each with its process."""
        log = Path(self.folder, "log")
        return log.read_text().splitlines() if log.exists() else []


def error_of(needs: Needs, n: int, look_s: float = 0.2) -> tuple[str, str] | None:
    """Ask for a number and return what is raised.

    Parameters
    ----------
    look_s : float
        How soon, and how often, this process looks for what it waits for.
    """
    waits.LOOK_AFTER_S, waits.LOOK_EVERY_S = look_s, 2 * look_s
    try:
        needs.store().run_or_retrieve({"n": n})
    except Exception as error:
        return type(error).__name__, str(error)
    return None


@dataclass(frozen=True)
class Sweeps:
    """A runner that sweeps three numbers of another table, and writes how many it got.

    Attributes
    ----------
    how : str
        On what: "serial", "workers", "threads" (those of `pool`), or "dask".
    """

    folder: str
    url: str
    how: str

    def __call__(self, params: dict[str, Any]) -> None:
        options: dict[str, Any] = {}
        if self.how == "workers":
            options = {"workers": 2}
        elif self.how == "threads":
            options = {"executor": pool[0]}
        elif self.how == "dask":
            from distributed import get_client

            options = {"client": get_client()}
        sets = [{"n": 10 * params["n"] + k} for k in range(3)]
        found = self.inner().sweep(sets, progress=False, fallback="raise", **options)
        Path(params["result_file"]).write_text(str(len(found)))

    def inner(self) -> Store[Any]:
        return Store(self._leaf, Leaf, Path(self.folder, "leaves"), ".txt", self.url)

    def _leaf(self, params: dict[str, Any]) -> None:
        append_line(Path(self.folder, "log"), f"{params['n']} {os.getpid()}")
        Path(params["result_file"]).write_text("1")

    def ran(self) -> list[int]:
        log = Path(self.folder, "log")
        return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []

    def store(self) -> Store[Any]:
        return Store(self, Node, Path(self.folder, "nodes"), ".txt", self.url)


@dataclass(frozen=True)
class Ring:
    """A runner of one of three tables that need each other: each key one of the next table, and so on around.

    Attributes
    ----------
    number : int
        Of the table; a key of the last one needs that of the first which is one smaller.
    """

    folder: str
    url: str
    number: int

    def __call__(self, params: dict[str, Any]) -> None:
        n = params["n"]
        append_line(Path(self.folder, "log"), f"{self.number}.{n}")
        total = 1
        if self.number < 2:
            total += self._value(self.number + 1, n)
        elif n:
            total += self._value(0, n - 1)
        Path(params["result_file"]).write_text(str(total))

    def _value(self, number: int, n: int) -> int:
        return int(Path(self.store(number).run_or_retrieve({"n": n}).result_file).read_text())

    def store(self, number: int) -> Store[Any]:
        """Return the Store of one of the tables."""
        key = (os.getpid(), self.folder, number)
        if key not in _stores:
            model = (Node, Leaf, Twig)[number]
            folder = Path(self.folder, model.__tablename__)
            _stores[key] = Store(replace(self, number=number), model, folder, ".txt", self.url)
        return _stores[key]

    def sweep(self, number: int, numbers: Sequence[int], **options: Any) -> list[int]:
        """Sweep a table and return what the files say."""
        records = self.store(number).sweep(({"n": n} for n in numbers), progress=False, **options)
        return [int(Path(record.result_file).read_text()) for record in records]

    def calls(self) -> Counter[str]:
        """How often each run was begun, by table and key."""
        return Counter(Path(self.folder, "log").read_text().split())


pool: list[Executor] = []
"""The executor of a sweep whose runs sweep on it, too."""

_depth: ContextVar[int] = ContextVar("depth", default=0)

_stores: dict[tuple[Any, ...], Store[Any]] = {}


def chain(n: int) -> dict[int, tuple[int, ...]]:
    """Each number but the first needs the one before."""
    return {one: (one - 1,) for one in range(1, n)}


def shuffled(n: int, seed: int) -> tuple[dict[int, tuple[int, ...]], list[int]]:
    """Return what each of *n* numbers needs of those below it, up to three, and all of them in an order."""
    chance = random.Random(seed)
    graph = {one: tuple(chance.sample(range(one), min(one, chance.randrange(4)))) for one in range(n)}
    return graph, chance.sample(range(n), n)


def sweep(needs: Needs, numbers: Sequence[int], *, is_leaf: bool = False, **options: Any) -> list[int]:
    """Sweep *numbers* and return what their files say."""
    store = needs.store(is_leaf=is_leaf)
    records = store.sweep(({"n": n} for n in numbers), **{"progress": False, **options})
    return [int(Path(record.result_file).read_text()) for record in records]


@contextlib.contextmanager
def options_at(where: str, address: str = "") -> Iterator[dict[str, Any]]:
    """Yield the arguments of a sweep at one of `PLACES`, on the cluster at an address if that is what it is."""
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"fallback": "raise", "progress": False}
        if where in {"threads", "processes"}:
            options["executor"] = stack.enter_context(executor_of(where))
        elif where == "workers":
            options["workers"] = 2
        elif where == "dask":
            from distributed import Client

            options["client"] = stack.enter_context(Client(address, timeout=60))
        yield options


def sweep_at(needs: Needs, numbers: Sequence[int], where: str, address: str = "") -> list[int]:
    """Do what `sweep` does at one of `PLACES`."""
    with options_at(where, address) as options:
        return sweep(needs, numbers, **options)


def failures_at(
    needs: Needs, numbers: Sequence[int], where: str, address: str = ""
) -> tuple[list[int], list[tuple[str | None, str | None]]]:
    """Sweep *numbers* and return those that have a record, and type and message of each that failed."""
    sets = [{"n": n} for n in numbers]
    with options_at(where, address) as options:
        result = needs.store().sweep(sets, on_error="continue", **options)
    return [record.n for record in result], [(failed.error_type, failed.message) for failed in result.failed]


# Where a process can be killed that waits, or whose workers do


def _after(owner: Any, name: str, is_due: Callable[..., object]) -> Callable[[], None]:
    """Return what makes this process die when a function has done its work, if that was what is meant."""

    def patch() -> None:
        function = getattr(owner, name)

        def killed(*given: Any, **named: Any) -> Any:
            due = is_due(*given)
            result = function(*given, **named)
            if due or (due is None and result):
                kill_self()
            return result

        setattr(owner, name, killed)

    return patch


def _before(owner: Any, name: str, is_due: Callable[..., object]) -> Callable[[], None]:
    def patch() -> None:
        function = getattr(owner, name)

        def killed(*given: Any, **named: Any) -> Any:
            if is_due(*given):
                kill_self()
            return function(*given, **named)

        setattr(owner, name, killed)

    return patch


POINTS: dict[str, Callable[[], None]] = {
    "given back": _after(waits, "give_back_before_waiting", lambda: True),
    "note written": _after(waits.Waiting, "_note", lambda *_: True),
    "wait over": _after(waits.Waiting, "end", lambda waiting: bool(waiting._paths)),
    "in a run inside": _before(Needs, "_write", lambda *_: _depth.get() > 1),
    "run inside committed": _after(Publisher, "publish", lambda *_: bool(inside_of())),
    "chunks withdrawn": _after(Processes, "withdraw", lambda *_: None),
    "keys released": _after(Tenure, "release", lambda _, keys: isinstance(keys, list) and bool(keys)),
    "about to commit for a worker": _before(Tenure, "commit_for", lambda _, receipts: bool(receipts)),
    "committed for a worker": _after(Tenure, "commit_for", lambda _, receipts: bool(receipts)),
}
"""Steps of a wait, each with what makes this process die there."""


def arm(point: str) -> None:
    """Make this process die at a point."""
    POINTS[point]()


def sweep_until(needs: Needs, numbers: Sequence[int], point: str, where: str) -> None:
    """Sweep in a process that dies at a point; its chunks are of three, and it begins at the first key."""
    needs.store()
    Tasks.go_elsewhere = lambda self: None  # type: ignore[method-assign]
    window._Pace.size = lambda self: 3  # type: ignore[method-assign]
    arm(point)
    sweep_at(needs, numbers, where)


def expected(graph: Mapping[int, Sequence[int]], n: int) -> int:
    """What the file of a number says in the end."""
    return 1 + sum(expected(graph, one) for one in graph.get(n, ()))


def in_threads(*calls: Callable[[], Any], timeout_s: float = 30.0) -> list[Any]:
    """Make all calls at once; return what each returned or raised, or fail where one does not end."""
    ended: list[Any] = [None] * len(calls)

    def make(number: int) -> None:
        try:
            ended[number] = calls[number]()
        except Exception as error:
            ended[number] = error

    threads = [threading.Thread(target=make, args=(number,), daemon=True) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_s)
        assert not thread.is_alive(), "a call does not end"
    return ended
