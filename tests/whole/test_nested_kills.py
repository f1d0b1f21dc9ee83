"""kill -9 of who waits for another run, or whose workers do, at each step of a wait: who comes next ends the work."""

import json
from collections import Counter
from pathlib import Path

import pytest

from entropic.disk.sidecars import WAITS, process_folders
from tests.support.heartbeat_cases import child
from tests.support.nested_cases import Needs, chain, sweep, sweep_at, sweep_until
from tests.support.process_states import session_of
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

N = 8
UP = list(range(N))
ODD = [0, *range(N - 1, 0, -1)]  # one that is finished soon; then each needs the next, which its sweep holds

OF_ONE_THAT_WAITS = ("given back", "note written", "wait over", "in a run inside", "run inside committed")
OF_A_SWEEP = (
    "chunks withdrawn", "keys released", "about to commit for a worker", "committed for a worker"
)  # fmt: skip


@pytest.fixture
def needs(tmp_path, sqlite_url):
    made = Needs(str(tmp_path), sqlite_url, chain(N))
    made.store()
    return made


def finished(needs):
    """The runs that must not be lost: whose attempt is completed, or in a whole line of a sidecar."""
    with needs.store().database.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT params FROM entropic_attempts WHERE state = 'COMPLETED'"
        ).all()
    found = {json.loads(row[0])["n"] for row in rows}
    for sidecar in Path(needs.folder).glob("nodes/.entropic/*/sidecar.jsonl"):
        found |= {json.loads(line)["stored"]["n"] for line in sidecar.read_text().split("\n")[:-1]}
    return found


def assert_ended_by_the_next(needs, before, done):
    """Another process has what was asked for without a second run of what was finished, and all is clean."""
    assert sweep(needs, UP) == [n + 1 for n in UP]

    again = Counter(needs.calls()) - before
    assert not {f"node{n}" for n in done} & again.keys()
    assert max(again.values(), default=1) == 1
    with needs.store().database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM entropic_claims").scalar() == 0
    needs.store().recover()
    assert not needs.store().check(checksum=True)
    assert not list(Path(needs.folder).rglob(f"{WAITS}*"))
    assert not [f for f in process_folders(needs.store()._table.root) if (f / "sidecar.jsonl").exists()]


@pytest.mark.parametrize("point", OF_ONE_THAT_WAITS)
def test_process_that_is_killed_while_it_waits_for_another_leaves_all_to_that(needs, point):
    """The rival is at the key that all others need, until the victim is where it dies."""
    slow = Needs(needs.folder, needs.url, needs.graph, holds=(0,))
    with child(sweep_at, slow, UP, "serial") as rival:
        wait_for(needs.lines)
        with child(sweep_until, needs, ODD, point, "serial") as victim:
            if point == "wait over":
                wait_for(lambda: list(Path(needs.folder).rglob(f"{WAITS}*")))
                Path(needs.folder, "go").touch()
            assert victim.wait() == -9
            before, done = needs.calls(), finished(needs)
            Path(needs.folder, "go").touch()
            assert rival.result() == [n + 1 for n in UP]

    assert not {f"node{n}" for n in done} & (needs.calls() - before).keys()
    assert_ended_by_the_next(needs, needs.calls(), finished(needs))


@pytest.mark.parametrize("point", OF_A_SWEEP)
def test_sweep_that_is_killed_while_its_workers_wait_is_ended_by_the_next(needs, point):
    with child(sweep_until, needs, ODD, point, "workers") as victim:
        assert victim.wait() == -9
        wait_for(lambda: not session_of(victim.pid))  # its workers end what they are at
        assert_ended_by_the_next(needs, needs.calls(), finished(needs))


@pytest.mark.parametrize("point", ["note written", "wait over", "in a run inside", "run inside committed"])
def test_worker_that_is_killed_while_it_waits_costs_the_runs_that_it_was_inside_of(needs, point):
    dying = Needs(needs.folder, needs.url, needs.graph, dies_at=point)

    assert sweep_at(dying, ODD, "workers") == [n + 1 for n in ODD]

    assert Path(needs.folder, "armed").exists()
    assert max(needs.calls().values()) <= 2
    assert_ended_by_the_next(needs, needs.calls(), finished(needs))
