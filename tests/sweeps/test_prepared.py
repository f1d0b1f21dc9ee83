"""What the initializer of an executor prepares is there for each run, and nowhere but in its processes."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from entropic import ClusterError
from entropic.sweeps.prepared import prepared_by
from tests.support import prepared_cases as cases
from tests.support.processes import forkserver
from tests.support.scripts import run_text
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


def test_runner_that_travels_by_value_finds_what_is_prepared(tmp_path):
    store = open_store(Swept, tmp_path, cases.by_value())

    with ProcessPoolExecutor(2, forkserver(), cases.prepare, ("data",)) as executor:
        first = store.sweep(SETS[:4], executor=executor, progress=False)
        second = store.sweep(SETS[4:], executor=executor, progress=False)

    assert {Path(record.result_file).read_text() for record in [*first, *second]} == {"data data"}


SCRIPT = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from entropic import Base, Mapped, Store, memoize

class Scripted(Base):
    __tablename__ = "scripted"
    n: Mapped[int]

data, limits = "nothing", {}

def load(value):
    global data
    data = value

def prepare(value):
    load(value)
    limits["most"] = value

def show(params):
    Path(params["result_file"]).write_text(f"{data} {limits.get('most')}")

@memoize(db_url="sqlite:///runs.sqlite3", results_dir="memoized")
def shown(n: int) -> str:
    return f"{data} {limits.get('most')}"

if __name__ == "__main__":
    store = Store(show, Scripted, "results", ".txt", "sqlite:///runs.sqlite3")
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(1, mp_context=context, initializer=prepare, initargs=("data",)) as executor:
        result = store.sweep({"n": [1, 2]}, executor=executor, fallback="raise")
        values = shown.sweep({"n": [1, 2]}, executor=executor, fallback="raise")
    print({Path(record.result_file).read_text() for record in result}, {one.value for one in values})
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_runner_of_a_script_finds_what_is_prepared(tmp_path, method):
    ended = run_text(SCRIPT, tmp_path, method)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["{'data data'} {'data data'}"]


def test_globals_that_are_prepared_are_those_that_the_initializer_names():
    prepared = prepared_by(cases.prepare)

    assert prepared is not None
    assert prepared[:3] == (cases.__name__, "prepare", ["found", "settings"])


@pytest.mark.parametrize("initializer", [None, print, lambda: None, "".upper])
def test_initializer_that_works_on_no_globals_prepares_none_of_them(initializer):
    assert prepared_by(initializer) is None
