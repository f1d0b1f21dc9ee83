"""What the initializer of an executor prepares is nowhere but in its processes: nothing else takes their place."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from entropic import ClusterError
from tests.support import prepared_cases as cases
from tests.support.processes import forkserver
from tests.support.stores import open_store
from tests.support.sweep_runs import Swept

SETS = [{"n": n} for n in range(8)]


@pytest.mark.parametrize("fallback", ["serial", "raise"])
def test_no_process_that_was_not_prepared_takes_the_place_of_a_pool_that_broke(tmp_path, fallback):
    store = open_store(Swept, tmp_path, cases.shown)

    with (
        ProcessPoolExecutor(2, forkserver(), cases.prepare, ("data",)) as executor,
        pytest.raises(ClusterError, match="What is finished is stored"),
    ):
        store.sweep(SETS, executor=executor, fallback=fallback, progress=False)

    assert {Path(record.result_file).read_text() for record in store.records()} <= {"data"}
    with ProcessPoolExecutor(2, forkserver(), cases.prepare, ("data",)) as executor:
        rest = [one for one in SETS if one["n"] != cases.DEADLY]
        result = store.sweep(rest, executor=executor, progress=False)
    assert {Path(record.result_file).read_text() for record in result} == {"data"}


def test_threads_that_an_initializer_prepared_are_threads_all_the_same(tmp_path, monkeypatch):
    store = open_store(Swept, tmp_path, cases.shown)
    monkeypatch.setattr(cases, "DEADLY", None)
    monkeypatch.setattr(cases, "found", None)

    with ThreadPoolExecutor(2, initializer=cases.prepare, initargs=("data",)) as executor:
        result = store.sweep(SETS, executor=executor, progress=False)

    assert {Path(record.result_file).read_text() for record in result} == {"data"}
