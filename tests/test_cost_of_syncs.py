"""What a run costs on the disk: syncs, files and folders, and the statements of a chunk; counted and never timed."""

from collections import Counter
from pathlib import Path

import pytest

from entropic.disk import roots, sidecars, staging
from entropic.disk.roots import Marker
from entropic.runs import attempts
from entropic.runs.attempts import Work
from entropic.runs.jobs import Job
from entropic.sweeps.backends.base import SerialBackend
from tests.support.counting import statements
from tests.support.disk_order import disk_order
from tests.support.store_cases import PARAMS, Pendulum, Runner
from tests.support.stores import open_store

CHUNKS = [1, 4, 16, 64]  # each may be four times the one before


@pytest.fixture
def no_clock(monkeypatch):
    """Runs are short, and chunks end by their count, however slow this machine is."""
    for module in (staging, attempts):
        monkeypatch.setattr(module, "LATEST_S", 1e6)
    monkeypatch.setattr(SerialBackend, "target_s", 1e9)


@pytest.fixture
def store(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.run_or_retrieve({**PARAMS, "length": 9.0})
    return store


def sets(count, length=1.5):
    return [{"length": length, "swings": swings} for swings in range(count)]


def what_it_is(path):
    """Say which kind of thing a path is, as far as syncs go."""
    path = Path(path)
    if path.suffix == ".json" and path.parent.parent.parent.name == roots.STATE:
        return "result"
    if path.parent.parent.name == roots.STATE:
        return path.name if path.suffix else "slot"
    return {roots.STATE: "folder of a process"}.get(path.parent.name, path.name)


def synced(order):
    return Counter(what_it_is(path) for what, path in order if what == "synced")


def test_single_call_syncs_its_file_and_its_line(store):
    with disk_order() as order:
        store.run_or_retrieve(PARAMS)

    assert synced(order) == {"result": 1, sidecars.SIDECAR: 1}
    assert [what for what, _ in order if what == "made"] == []


def test_hit_syncs_nothing(store):
    store.run_or_retrieve(PARAMS)

    with disk_order() as order:
        store.run_or_retrieve(PARAMS)
        store.sweep([PARAMS], progress=False)

    assert order == []


def test_chunk_of_a_serial_sweep_syncs_each_file_its_slot_and_the_sidecar_once(store, no_clock):
    with disk_order() as order:
        store.sweep(sets(sum(CHUNKS)), progress=False)

    found = synced(order)
    assert found["result"] == sum(CHUNKS)
    assert found["slot"] == len(CHUNKS)
    assert found[sidecars.SIDECAR] == len(CHUNKS)
    assert found["folder of a process"] <= 3  # while there are new slots
    # Once in a sweep: what is above its folder as that is made, and the results folder before that goes.
    others = {sidecars.PROCESS: 1, roots.STATE: 1, "results": 2}
    assert {name: found[name] for name in others} == others
    assert sum(found.values()) == sum(CHUNKS) + 2 * len(CHUNKS) + found["folder of a process"] + 4


def test_serial_sweep_makes_no_folder_per_run(store, no_clock):
    with disk_order() as order:
        store.sweep(sets(sum(CHUNKS)), progress=False)

    # Of the process, and slots that are used again.
    assert len([what for what, _ in order if what == "made"]) <= 4


def test_statements_of_a_chunk_do_not_grow_with_its_runs(store, sqlite, no_clock):
    counts = []
    for number in range(2, len(CHUNKS) + 1):
        with statements(sqlite.engine) as seen:
            store.sweep(sets(sum(CHUNKS[:number]), length=float(number)), progress=False)
        counts.append(len(seen))

    each = counts[1] - counts[0]
    assert counts[2] - counts[1] == each
    assert each <= 14


@pytest.mark.parametrize("count", [2, 50])
def test_chunk_of_a_worker_costs_three_syncs_besides_its_files(tmp_path, no_clock, count):
    marker = Marker("root", "database", "table")
    roots.write_marker(tmp_path, marker)
    work = Work(lambda params: Path(params["result_file"]).touch(), str(tmp_path), marker, sweep="sweep")
    jobs = [Job(f"k{n}", f"k{n}.json", {"n": n}, {"n": n}) for n in range(count + 1)]
    work(jobs[:1])

    with disk_order() as order:
        work(jobs[1:])

    assert synced(order) == {"result": count, "slot": 1, sidecars.SIDECAR: 1, "folder of a process": 1}


def test_worker_that_has_one_run_shares_nothing(tmp_path, no_clock):
    marker = Marker("root", "database", "table")
    roots.write_marker(tmp_path, marker)
    work = Work(lambda params: Path(params["result_file"]).touch(), str(tmp_path), marker, sweep="sweep")
    jobs = [Job(f"k{n}", f"k{n}.json", {"n": n}, {"n": n}) for n in range(2)]
    work(jobs[:1])

    with disk_order() as order:
        work(jobs[1:])

    assert synced(order) == {"result": 1, sidecars.SIDECAR: 1, "folder of a process": 1}  # a slot is new
