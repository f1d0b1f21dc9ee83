"""The benchmarks run, tiny: what they measure is nobody's promise, but they must not rot."""

import importlib
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

import benchmarks
from benchmarks import __main__ as everything
from benchmarks import bench_lookup, bench_miss, harness
from benchmarks.targets import TARGETS, judge

TINY = {
    "bench_lookup": {"rows": 5, "many_rows": 8, "rounds": 3, "calls": 3},
    "bench_memoize": {"entries": 4, "rounds": 3, "calls": 2, "large_entries": 2, "large_calls": 1},
    "bench_miss": {"rounds": 3, "calls": 1, "sweep": 4, "sweep_rounds": 3, "batch": 2},
    "bench_sweep": {"few": 5, "many": 8, "rounds": 3},
    "bench_dask": {"runs": 4, "rounds": 3, "in_a_task": 2},
    "bench_dask_many": {"few": 4, "many": 8, "rounds": 1, "in_a_task": 2},
    "bench_import": {"rounds": 3},
    "bench_weights": {"rounds": 3, "small": 3, "small_kb": 1, "large": 2, "large_kb": 2},
    "bench_heartbeat": {"rounds": 3, "lease_s": 3, "run_s": 1},
    "bench_long": {"iterations": 30, "fewer": 20, "batch": 10, "rounds": 1},
    "bench_stats": {"iterations": 20, "batch": 5, "rounds": 3},
    "bench_execution_store": {"keys": 5, "rounds": 3, "calls": 3},
    "bench_values": {"entries": 5, "rounds": 3, "calls": 2, "runs": 8, "sweep_rounds": 3},
    "bench_kinds": {"rows": 5, "rounds": 3, "calls": 3},
    "bench_servers": {"rows": 5, "rounds": 3, "calls": 3},
    "bench_million": {"sets": 100, "rounds": 1},
}


def test_every_benchmark_is_listed_here():
    there = {path.stem for path in Path(benchmarks.__file__).parent.glob("bench_*.py")}

    assert there == set(TINY)


@pytest.fixture(scope="module")
def measured(former_python):
    """The tables of every topic, tiny, once; with the published release where the tests have installed it."""
    sizes = {name.removeprefix("bench_"): tiny for name, tiny in TINY.items()}
    with pytest.MonkeyPatch.context() as patch:
        for module in (bench_lookup, bench_miss):
            patch.setattr(module, "python_with", lambda: former_python)
        patch.setattr(everything, "SIZES", sizes)
        return everything.measure(list(sizes), 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_benchmark_when_tiny_measures_every_case(name, measured):
    (tables,) = measured[name.removeprefix("bench_")]

    assert set(TINY[name]) == set(importlib.import_module(f"benchmarks.{name}").DEFAULTS)
    assert all(row.n >= TINY[name]["rounds"] for table in tables for row in table.rows)
    assert all(row.median > 0 for table in tables for row in table.rows if "Memory" not in table.title)
    assert all(table.rows[0].ratio == 1 and len(table.rows) > 1 for table in tables)


@pytest.mark.slow
def test_all_of_them_give_a_verdict_on_each_target_a_figure_and_what_they_were_measured_on(
    tmp_path, measured
):
    verdicts = list(judge(measured))
    everything.write_all(measured, verdicts, tmp_path)

    facts = json.loads((tmp_path / "results.json").read_text())
    there = [target for target in TARGETS if not target.to or find_spec(target.to.partition(".")[0])]
    assert [one.target for one in verdicts] == there  # peers are not installed with the tests
    assert set(facts["topics"]) == set(measured)
    assert facts["commit"]
    assert "</svg>" in (tmp_path / "overview.svg").read_text()
    assert len((tmp_path / "targets.md").read_text().splitlines()) == len(there) + 2


@pytest.mark.slow
def test_written_results_name_machine_versions_and_commit(tmp_path):
    table = harness.compare("Nothing", {"one": dict, "two": list}, rounds=3)

    text = harness.write("nothing", [table], folder=tmp_path).read_text()

    assert "Machine: " in text
    assert "SQLite " in text
    assert "Commit " in text
    assert "| two | 3 |" in text


def test_every_topic_but_heartbeats_is_run_with_the_others():
    assert set(everything.SIZES) == {name.removeprefix("bench_") for name in TINY} - {"heartbeat"}
