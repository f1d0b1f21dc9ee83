"""Measure things side by side, and write down what came of it.

Machines are noisy and get noisier by the minute, so nothing is measured on its own: in each round every case is called
in turn, and a case's ratio is the median over the rounds of its median to the baseline's median in the same round.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

RESULTS = Path(__file__).parent / "results"
_ROOT = Path(__file__).parent.parent
_CPU_KEYS = ("model name", "Model")
_WARM_UP = 1
_PACKAGES = (
    "sqlalchemy",
    "numpy",
    "h5py",
    "distributed",
    "joblib",
    "diskcache",
    "cachier",
    "signac",
    "safetensors",
)

Call = Callable[[], object]


@runtime_checkable
class SelfTimed(Protocol):
    """A case that lies in another process, where its calls are timed: the way there is no part of them."""

    def __call__(self) -> object:
        """Call it once."""

    def timed(self, calls: int) -> list[float]:
        """Return what each of so many calls took, in seconds."""


@dataclass(frozen=True)
class Measurement:
    """What one case took, in the unit of its table, and its ratio to the baseline."""

    name: str
    n: int
    median: float
    p90: float
    p99: float
    ratio: float


@dataclass(frozen=True)
class Table:
    """The measurements of one comparison, the baseline first."""

    title: str
    rows: list[Measurement]
    unit: str = "µs"


def compare(
    title: str,
    cases: Mapping[str, Call],
    *,
    rounds: int,
    calls: int = 1,
    operations: int = 1,
) -> Table:
    """Time *cases* in turn; the first of them is the baseline.

    Parameters
    ----------
    rounds
        How often every case has its turn.
    calls
        Calls of a case in one turn, each timed on its own.
    operations
        How many operations one call stands for: times are given for one.
    """
    for call in cases.values():
        for _ in range(_WARM_UP):
            call()
    times: dict[str, list[list[float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
            times[name].append(_turn(call, calls, operations))
    return _tabulate(title, times, "µs")


def tabulate(title: str, measured: Mapping[str, Sequence[float]], unit: str = "µs") -> Table:
    """Return a table of what was measured of cases, one number a round; the first of them is the baseline."""
    return _tabulate(title, {name: [[one] for one in values] for name, values in measured.items()}, unit)


def _tabulate(title: str, times: Mapping[str, Sequence[Sequence[float]]], unit: str) -> Table:
    baseline = [statistics.median(turn) for turn in next(iter(times.values()))]
    return Table(title, [_summary(name, turns, baseline) for name, turns in times.items()], unit)


def _turn(call: Call, calls: int, operations: int) -> list[float]:
    clock = time.perf_counter
    taken = []
    gc.collect()  # or one case pays for another one's garbage; its own it pays for, as users do
    if isinstance(call, SelfTimed):
        return [seconds / operations * 1e6 for seconds in call.timed(calls)]
    for _ in range(calls):
        begun = clock()
        call()
        taken.append((clock() - begun) / operations * 1e6)
    return taken


def _summary(name: str, turns: Sequence[Sequence[float]], baseline: Sequence[float]) -> Measurement:
    every = sorted(one for turn in turns for one in turn)
    ratios = [statistics.median(turn) / base for turn, base in zip(turns, baseline, strict=True)]
    return Measurement(
        name=name,
        n=len(every),
        median=statistics.median(every),
        p90=_quantile(every, 0.9),
        p99=_quantile(every, 0.99),
        ratio=statistics.median(ratios),
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def as_markdown(tables: Iterable[Table]) -> str:
    """Return *tables* as text: times are those of one operation."""
    blocks = []
    for table in tables:
        lines = [
            f"## {table.title}",
            "",
            f"| what | n | median {table.unit} | p90 {table.unit} | p99 {table.unit} | × baseline |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {row.name} | {row.n} | {row.median:.1f} | {row.p90:.1f} | {row.p99:.1f} | {row.ratio:.2f} |"
            for row in table.rows
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def conditions() -> dict[str, Any]:
    """Return what measurements are made on: machine, versions, commit, day and load."""
    return {
        "machine": _machine(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "versions": _versions(),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
        "load": [round(one, 1) for one in os.getloadavg()],
    }


def write(topic: str, tables: Sequence[Table], *, folder: Path = RESULTS) -> Path:
    """Write *tables* to ``<folder>/<topic>.md``, with what they were measured on, and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{topic}.md"
    path.write_text(f"# {topic}\n\n{_conditions()}\n{as_markdown(tables)}", encoding="utf-8")
    return path


def _conditions() -> str:
    facts = conditions()
    versions = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
    load = ", ".join(map(str, facts["load"]))
    return (
        f"Machine: {facts['machine']}. Python {facts['python']}, SQLite {facts['sqlite']}, {versions}. "
        f"Commit {facts['commit']}. {facts['date']}.\n\n"
        f"The machine is noisy (load at the end: {load}): read the ratios, not the times. The first row of each table "
        "is the baseline; a ratio is the median over interleaved rounds.\n"
    )


def _machine() -> str:
    name = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in _CPU_KEYS:
                name = value.strip()
                break
    except OSError:
        pass
    return f"{platform.system()}, {os.cpu_count()} × {name}"


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "entropic")
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def parser(description: str | None, **defaults: int) -> argparse.ArgumentParser:
    """Return a command line whose options are the sizes of a benchmark, as ``--rounds 7``."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    for name, default in defaults.items():
        made.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=default, help=f"default: {default}"
        )
    return made


def main(topic: str, run: Callable[..., list[Table]], description: str | None, **defaults: int) -> None:
    """Read the sizes from the command line, run, print and write down."""
    sizes = vars(parser(description, **defaults).parse_args())
    tables = run(**sizes)
    print(as_markdown(tables))
    print(f"written to {write(topic, tables)}")
