"""What a power cut leaves: a sidecar is emptied, or goes, only when rows and files are on the disk without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from entropic.disk import staging
from tests.support.disk_order import COMMITTED, DURABLY, disk_order
from tests.support.gone import Left

A = {"a": 1.5}


def test_database_and_folder_are_on_the_disk_before_the_folder_is_marked(place):
    """Else a power cut leaves a folder that is another database's, and no Store opens."""
    with disk_order() as order:
        store = place.store()

    marker = place.results / ".entropic-root.json"
    before = order.until("renamed", marker)
    commits = [what for what, path in before if what in {COMMITTED, DURABLY}]
    assert commits
    assert commits[-1] == DURABLY
    assert ("synced", str(place.results.parent)) in before
    assert level_of(store) == 1
    store.database.dispose()


def level_of(store) -> int:
    """How much SQLite syncs: 1 is NORMAL, 2 is FULL."""
    with store.database.reading() as connection:
        return connection.exec_driver_sql("PRAGMA synchronous").scalar_one()


def test_sidecar_is_emptied_only_after_a_durable_commit(place, store, monkeypatch):
    monkeypatch.setattr(staging, "LINES", 3)

    with disk_order() as order:
        for a in range(7):
            store.run_or_retrieve({"a": float(a)})

    (folder,) = place.state_folders()
    whats = [
        what for what, path in order if what in {COMMITTED, DURABLY} or path == f"{folder}/sidecar.jsonl"
    ]
    order.until("emptied", folder / "sidecar.jsonl").assert_safe(place.results, store.database.url.database)
    assert [whats[n - 1] for n, what in enumerate(whats) if what == "emptied"] == [DURABLY] * 2
    assert whats.count(DURABLY) == 2
    assert whats[-1] == COMMITTED


def test_folder_of_a_sweep_goes_only_when_its_results_are_on_the_disk(place, store):
    with disk_order() as order:
        store.sweep([{"a": float(n)} for n in range(3)], progress=False)

    (sidecar,) = {path for what, path in order if what == "removed" and path.endswith("/sidecar.jsonl")}
    order.until("removed", sidecar).assert_safe(place.results, store.database.url.database)
    assert place.state_folders() == []


def test_folder_of_a_sweep_that_is_interrupted_goes_only_when_its_results_are_on_the_disk(place, store):
    runner = store.runner

    def interrupted(params):
        if len(runner.calls) == 2:
            raise KeyboardInterrupt
        return runner(params)

    store.runner = interrupted
    with disk_order() as order, pytest.raises(KeyboardInterrupt):
        store.sweep([{"a": float(n)} for n in range(3)], progress=False)

    (sidecar,) = {path for what, path in order if what == "removed" and path.endswith("/sidecar.jsonl")}
    order.until("removed", sidecar).assert_safe(place.results, store.database.url.database)
    assert store.count() == 2


def test_folder_of_a_dead_process_goes_only_when_its_results_are_on_the_disk(place, store):
    left = Left(place)
    left.finish(1.5, "1")

    with disk_order() as order:
        store.recover()

    order.until("removed", left.sidecar).assert_safe(place.results, store.database.url.database)
    assert not left.folder.exists()


def test_own_folder_goes_at_the_end_of_a_process_only_when_its_results_are_on_the_disk(place):
    script = """
import atexit, sys
from pathlib import Path

def report():  # after what entropic does at exit, as it was registered before
    (sidecar,) = {path for what, path in order if what == "removed" and path.endswith("/sidecar.jsonl")}
    order.until("removed", sidecar).assert_safe(place.results, store.database.url.database)
    print("safe")

atexit.register(report)
from tests.support.disk_order import disk_order
from tests.support.protocol_cases import Place
place = Place(sys.argv[1], Path(sys.argv[2]))
recorder = disk_order()
order = recorder.__enter__()
store = place.store()
store.run_or_retrieve({"a": 1.5})
"""
    done = subprocess.run(
        [sys.executable, "-c", script, place.url, str(place.folder)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert done.stdout == "safe\n", done.stderr
    assert place.state_folders() == []


def test_durable_commit_writes_to_the_log_of_the_database(place, store):
    """SQLite syncs nothing at a commit that changed no page."""
    store.run_or_retrieve(A)
    log = Path(f"{store.database.url.database}-wal")
    before = log.stat().st_size, log.stat().st_mtime_ns

    store._table.publisher.flush()

    assert (log.stat().st_size, log.stat().st_mtime_ns) != before
