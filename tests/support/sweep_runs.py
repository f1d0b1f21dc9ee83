"""What the tests of `Store.sweep` share: a table, runners that leave traces in any process, places to run them."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropic import Base, Mapped, output, param
from tests.support.counting import append_line
from tests.support.executors import executor_of
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
PLACES = ("serial", "workers", "threads", "processes", "dask")


class Swept(Base):
    __tablename__ = "swept"

    n: Mapped[int]
    x: Mapped[float] = param(default=0.5)
    label: Mapped[str | None]
    square: Mapped[float | None] = output()


class Odd(ValueError):
    """What a runner raises; pickles with more than a message."""

    def __init__(self, n: int, why: str) -> None:
        super().__init__(n, why)
        self.n = n


@dataclass(frozen=True)
class Runs:
    """A runner that notes when each run begins and ends, and misbehaves where it is told to."""

    log: Path
    seconds: float = 0.0
    raises: tuple[int, ...] = ()
    raises_once: tuple[int, ...] = ()
    slow: tuple[int, ...] = ()
    kills: tuple[int, ...] = ()
    kills_once: tuple[int, ...] = ()
    holds: tuple[int, ...] = ()
    """Runs that do not end before there is a file named like the log with ``.go`` after it."""
    holds_after: int | None = None
    """Holds the run that is begun after so many others, whichever it is: a sweep begins at a random place."""

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        n = params["n"]
        self._note("begun", n)
        first = self.count("begun")[n] == 1
        if n in self.holds or (self.holds_after is not None and self.total() == self.holds_after + 1):
            wait_for(Path(f"{self.log}.go").exists)
        time.sleep(0.4 if n in self.slow else self.seconds)
        if n in self.kills or (first and n in self.kills_once):
            os.kill(os.getpid(), signal.SIGKILL)
        if n in self.raises or (first and n in self.raises_once):
            raise Odd(n, "is odd")
        Path(params["result_file"]).write_text(json.dumps({"n": n, "x": params["x"]}))
        self._note("ended", n)
        return {"square": float(n * n)}

    def release(self) -> None:
        """Let the runs that hold go on."""
        Path(f"{self.log}.go").touch()

    def _note(self, what: str, n: int) -> None:
        append_line(self.log, json.dumps([what, n, os.getpid()]))

    def _lines(self) -> list[Any]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def count(self, what: str = "begun") -> Counter[int]:
        """Count the runs that were begun, or ended, by ``n``."""
        return Counter(n for kind, n, _ in self._lines() if kind == what)

    def total(self, what: str = "begun") -> int:
        return sum(self.count(what).values())

    def order(self) -> list[int]:
        """Return each ``n`` in the order in which the runs began."""
        return [n for kind, n, _ in self._lines() if kind == "begun"]

    def most_at_once(self) -> int:
        """Return how many runs went on at the same time at most."""
        going = most = 0
        for kind, _, _ in self._lines():
            going += 1 if kind == "begun" else -1
            most = max(most, going)
        return most

    def processes(self, n: int | None = None) -> set[int]:
        """Return the processes that ran anything, or that ran *n*."""
        return {pid for kind, k, pid in self._lines() if kind == "begun" and n in (None, k)}


def sets(n: int) -> list[dict[str, Any]]:
    return [{"n": i} for i in range(n)]


@contextlib.contextmanager
def place(where: str, request: Any) -> Iterator[dict[str, Any]]:
    """Yield the arguments with which a sweep runs at one of `PLACES`."""
    if where in {"threads", "processes"}:
        with executor_of(where) as executor:
            yield {"executor": executor}
    elif where == "dask":
        client = request.getfixturevalue("dask_client")
        yield {"client": client}
        wait_for(lambda: not client.futures)  # released by the client's own thread, a moment later
    else:
        yield {"workers": 2} if where == "workers" else {}


def query(folder: Path, sql: str) -> list[Any]:
    """Ask the SQLite file of *folder* through a connection that nothing else uses."""
    with contextlib.closing(sqlite3.connect(folder / "runs.sqlite3", timeout=30)) as connection:
        return connection.execute(sql).fetchall()


def rows(folder: Path) -> list[int]:
    return [n for (n,) in query(folder, "SELECT n FROM swept ORDER BY n")]


def states(folder: Path) -> dict[str, int]:
    return dict(query(folder, "SELECT state, count(*) FROM entropic_attempts GROUP BY state"))


def claims(folder: Path) -> int:
    return int(query(folder, "SELECT count(*) FROM entropic_claims")[0][0])


def files(folder: Path) -> list[Path]:
    """Return the results: all that lies in the results folder but what the library keeps there."""
    return [path for path in (folder / "results").iterdir() if not path.name.startswith(".entropic")]


def start(script: str, *arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """Start Python on the text of a script, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True, text=True, **options,
    )  # fmt: skip
