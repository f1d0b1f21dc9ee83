"""Sweeps of runs that need other runs, in several processes at once: they end, and each key runs once."""

from tests.support.nested_cases import Needs, chain, sweep
from tests.support.processes import run_together


def meet(needs, numbers, options):
    return sweep(needs, numbers, **options)


def test_two_processes_that_need_each_others_keys_share_them(tmp_path, sqlite_url):
    """One begins at each end of a chain: each holds what the other waits for, and gives back what it has not begun."""
    needs = Needs(str(tmp_path), sqlite_url, chain(16))
    needs.store()
    up, down = list(range(16)), list(range(15, -1, -1))

    found = run_together(meet, [(needs, up, {}), (needs, down, {})], timeout_s=60)

    assert found == [[n + 1 for n in up], [n + 1 for n in down]]
    assert needs.calls() == {f"node{n}": 1 for n in up}
    assert len(needs.pids()) == 2
