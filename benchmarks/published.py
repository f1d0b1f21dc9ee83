"""The published release 2.3.0, in an environment of its own, asked over a pipe to call itself and say how long it took.

It is installed once, beside the benchmarks; where it cannot be, it is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["PublishedHit", "PublishedMiss", "python_with"]

VERSION = "2.3.0"
_HOME = Path(__file__).parent / ".published"

_WORKER = """
import json, random, sys, time
from entropic import Base, Mapped, Store

class Run(Base):
    __tablename__ = "runs"
    n: Mapped[int]
    dt: Mapped[float]
    method: Mapped[str]

def write(params):
    with open(params["result_file"], "wb") as file:
        file.write(bytes(1000))

url = "sqlite:///" + sys.argv[1] + "/runs.sqlite3"
store = Store(write, Run, sys.argv[1] + "/results", file_suffix=".bin", db_url=url)
order = random.Random(20)
sets = []
out, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    told = json.loads(line)
    taken = []
    if "fill" in told:
        sets = told["fill"]
        store.sweep(sets)
    for one in told.get("call") or [order.choice(sets) for _ in range(told.get("again", 0))]:
        begun = time.perf_counter()
        store.run_or_retrieve(dict(one))
        taken.append(time.perf_counter() - begun)
    print(json.dumps(taken), file=out, flush=True)
"""


@cache
def python_with(requirement: str = f"entropic=={VERSION}") -> Path | None:
    """Return the Python of an environment with the published release, or None where it cannot be installed."""
    python = _HOME / "bin" / "python"
    if not (_HOME / "installed").exists():
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", _HOME], check=False)
        command = [python, "-m", "pip", "install", "--quiet", requirement, "numpy"]
        if made.returncode or subprocess.run(command, check=False).returncode:
            print(f"{requirement} cannot be installed here: it is left out")
            return None
        (_HOME / "installed").touch()
    return python


class _Published:
    def __init__(self, python: Path, folder: Path, stack: ExitStack) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._process: Any = subprocess.Popen(
            [python, "-c", _WORKER, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
        )
        stack.callback(self._end)

    def _end(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _tell(self, **order: Any) -> list[float]:
        print(json.dumps(order), file=self._process.stdin, flush=True)
        taken: list[float] = json.loads(self._process.stdout.readline())
        return taken


class PublishedHit(_Published):
    """A hit of the published release, on one of *sets*."""

    def __init__(self, python: Path, folder: Path, stack: ExitStack, sets: Sequence[dict[str, Any]]) -> None:
        super().__init__(python, folder, stack)
        self._tell(fill=list(sets))

    def __call__(self) -> None:
        self.timed(1)

    def timed(self, calls: int) -> list[float]:
        """Return what each of so many hits took, in seconds."""
        return self._tell(again=calls)


class PublishedMiss(_Published):
    """A miss of the published release, on the next of *sets*."""

    def __init__(self, python: Path, folder: Path, stack: ExitStack, sets: Sequence[dict[str, Any]]) -> None:
        super().__init__(python, folder, stack)
        self._sets = list(sets)

    def __call__(self) -> None:
        self.timed(1)

    def timed(self, calls: int) -> list[float]:
        """Return what each of so many misses took, in seconds."""
        first, self._sets = self._sets[:calls], self._sets[calls:]
        return self._tell(call=first)
