"""Run all benchmarks, three times in turn, and write down what came of it.

``python -m benchmarks`` writes to ``benchmarks/results/``: ``results.json`` with machine and commit, ``targets.md``
with each target and whether it is met, a table for each topic, and ``overview.svg``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness import RESULTS, Measurement, Table, conditions, write
from benchmarks.targets import Verdict, judge

SIZES: dict[str, dict[str, int]] = {
    # Of one repetition: what takes its time anyway is done less often than when its topic is run alone.
    "import": {"rounds": 5},
    "lookup": {"rounds": 5},
    "kinds": {"rounds": 5},
    "servers": {"rounds": 5},
    "sweep": {"few": 1000, "rounds": 3},
    "million": {},
    "miss": {"rounds": 7, "sweep": 1000},
    "dask": {"rounds": 3},
    "dask_many": {"rounds": 1},
    "memoize": {"rounds": 5},
    "values": {"rounds": 5},
    "execution_store": {"rounds": 7},
    "stats": {"rounds": 3},
    "weights": {"rounds": 3},
    "long": {},
}
ONCE = {"million", "long"}  # takes minutes

Measured = dict[str, list[list[Table]]]


def main() -> None:
    """Read the command line, run, and write down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=3, help="default: 3")
    parser.add_argument("--only", nargs="+", choices=list(SIZES), default=list(SIZES), metavar="TOPIC")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    asked = parser.parse_args()
    measured = measure(asked.only, asked.repetitions)
    verdicts = list(judge(measured))
    write_all(measured, verdicts, asked.folder)
    print(targets_as_markdown(verdicts))


def measure(topics: Sequence[str], repetitions: int) -> Measured:
    """Run *topics* one after the other, and all of them again: what disturbs the machine for minutes is seen."""
    measured: Measured = {topic: [] for topic in topics}
    for repetition in range(repetitions):
        for topic in topics:
            if topic in ONCE and repetition:
                continue
            module = importlib.import_module(f"benchmarks.bench_{topic}")
            begun = time.perf_counter()
            measured[topic].append(module.run(**{**module.DEFAULTS, **SIZES[topic]}))
            print(f"{repetition + 1}. {topic}: {time.perf_counter() - begun:.0f} s", flush=True)
    return measured


def write_all(measured: Measured, verdicts: Sequence[Verdict], folder: Path) -> None:
    """Write tables, verdicts, everything as JSON, and the figure."""
    for topic, repetitions in measured.items():
        write(topic, middle_of(repetitions), folder=folder)
    facts = {
        **conditions(),
        "topics": {
            topic: [[asdict(table) for table in tables] for tables in repetitions]
            for topic, repetitions in measured.items()
        },
        "targets": [{**asdict(one), "ratio": one.ratio, "is_met": one.is_met} for one in verdicts],
    }
    (folder / "results.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "targets.md").write_text(targets_as_markdown(verdicts), encoding="utf-8")
    draw(measured, folder / "overview.svg")


def middle_of(repetitions: Sequence[Sequence[Table]]) -> list[Table]:
    """Return one table for each, with the medians over the repetitions."""
    return [
        Table(
            tables[0].title,
            [_middle(rows) for rows in zip(*(table.rows for table in tables), strict=True)],
            tables[0].unit,
        )
        for tables in zip(*repetitions, strict=True)
    ]


def _middle(rows: Sequence[Measurement]) -> Measurement:
    def median(name: str) -> float:
        return statistics.median(getattr(row, name) for row in rows)

    figures = {name: median(name) for name in ("median", "p90", "p99", "ratio")}
    return Measurement(rows[0].name, sum(row.n for row in rows), **figures)


def targets_as_markdown(verdicts: Sequence[Verdict]) -> str:
    """Return the targets as a table: ratio, limit, and why, where one is missed."""
    lines = [
        "| what | to | ratio | of each repetition | target | met |",
        "|---|---|--:|---|--:|---|",
    ]
    for one in verdicts:
        each = ", ".join(f"{ratio:.2f}" for ratio in one.ratios)
        met = "yes" if one.is_met else f"**no**{': ' if one.target.reason else ''}{one.target.reason}"
        lines.append(
            f"| {one.title}: {one.target.case} | {one.to} | {one.ratio:.2f} | {each} | ≤ {one.target.limit:g} | {met} |"
        )
    return "\n".join(lines) + "\n"


PANELS = {
    "lookup": "A hit among 1 000",
    "sweep": "A cached sweep of 1 000",
    "miss": "A miss, 1 kB",
    "memoize": "A memoized array, 1 kB",
}
_OURS = {"run_or_retrieve", "memoize", "sweep"}


def draw(measured: Mapping[str, Sequence[Sequence[Table]]], path: Path) -> None:
    """Draw what a call costs, as a multiple of raw code that does the same, for us and for the peers."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    shown = [topic for topic in PANELS if topic in measured]
    if not shown:
        return
    figure, axes = pyplot.subplots(len(shown), 1, figsize=(7, 2.2 * len(shown)), squeeze=False)
    for axis, topic in zip(axes[:, 0], shown, strict=True):
        table = middle_of(measured[topic])[0]
        rows = sorted(table.rows[1:], key=lambda row: row.ratio, reverse=True)
        colours = ["#d1495b" if row.name in _OURS else "#8d99ae" for row in rows]
        bars = axis.barh([row.name for row in rows], [row.ratio for row in rows], color=colours)
        axis.bar_label(bars, [f" {row.ratio:.1f}×" for row in rows], fontsize=8)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.margins(x=0.15)
        axis.set_title(f"{PANELS[topic]}: times {table.rows[0].name}", fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
