"""Many processes that want the same at the same time: each key is run once, and everybody gets its record."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from entropic import Base, Database, Mapped
from tests.support.counting import CountingRunner, append_line
from tests.support.memo_cases import memoized
from tests.support.processes import run_together
from tests.support.stores import open_store

N_PROCESSES = 16
N_ROUNDS = 20
N_SWEPT = 300


class Wanted(Base):
    __tablename__ = "wanted"

    n: Mapped[int]


class SlowRunner(CountingRunner):
    def __call__(self, params: dict[str, Any]) -> None:
        time.sleep(0.02)
        super().__call__(params)


@pytest.fixture(
    params=[
        "sqlite_url",
        pytest.param("postgres_url", marks=pytest.mark.slow),
        pytest.param("mysql_url", marks=pytest.mark.slow),
    ]
)
def shared_url(request):
    """URL of a database that other processes can reach."""
    return request.getfixturevalue(request.param)


def want_each(url: str, folder: Path, barrier: Any) -> list[tuple[Any, ...]]:
    """Ask for one key after the other, each at the same moment as everybody else; return what was got."""
    store = open_store(Wanted, folder, SlowRunner(folder / "calls"), url, wait_timeout_s=120.0)
    got = []
    for n in range(N_ROUNDS):
        barrier.wait()
        record = store.run_or_retrieve({"n": n})
        got.append((record.id, record.n, record.result_file, record.created_at))
    store.database.dispose()
    return got


@pytest.mark.slow
def test_key_wanted_by_sixteen_processes_at_once_runs_once_each_time(shared_url, tmp_path):
    runner = CountingRunner(tmp_path / "calls")
    open_store(Wanted, tmp_path, runner, shared_url).database.dispose()
    barrier = multiprocessing.get_context("forkserver").Barrier(N_PROCESSES, timeout=120)

    got = run_together(want_each, [(shared_url, tmp_path, barrier)] * N_PROCESSES, timeout_s=300)

    ids = [record_id for record_id, *_ in got[0]]
    assert [n for _, n, *_ in got[0]] == list(range(N_ROUNDS))
    assert all(one == got[0] for one in got)
    assert runner.calls == ids
    assert_clean(shared_url, tmp_path, ids)


def sweep_all(url: str, folder: Path) -> list[str]:
    store = open_store(Wanted, folder, CountingRunner(folder / "calls"), url, wait_timeout_s=120.0)
    records = store.sweep([{"n": n} for n in range(N_SWEPT)], progress=False)
    store.database.dispose()
    return [record.id for record in records]


def test_two_processes_that_sweep_the_same_keys_run_each_once(shared_url, tmp_path):
    runner = CountingRunner(tmp_path / "calls")
    open_store(Wanted, tmp_path, runner, shared_url).database.dispose()

    first, second = run_together(sweep_all, [(shared_url, tmp_path)] * 2, timeout_s=300)

    assert first == second
    assert len(set(first)) == N_SWEPT
    assert sorted(runner.calls) == sorted(first)
    assert_clean(shared_url, tmp_path, first)
    assert os.listdir(tmp_path / "results" / ".entropic") == []


def assert_clean(url: str, folder: Path, ids: list[str]) -> None:
    """The database and the folder have just these results, and no claim: read past the code under test."""
    database = Database(url)
    with database.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT id, result_file FROM wanted").all()
        (claims,) = connection.exec_driver_sql("SELECT count(*) FROM entropic_claims").one()
        attempts = connection.exec_driver_sql("SELECT record_id, state FROM entropic_attempts").all()
    database.dispose()
    assert sorted(record_id for record_id, _ in rows) == sorted(ids)
    assert all(Path(path).is_file() for _, path in rows)
    assert claims == 0
    assert sorted(tuple(attempt) for attempt in attempts) == sorted((one, "COMPLETED") for one in ids)
    store = open_store(Wanted, folder, CountingRunner(folder / "calls"), url)
    report = store.check(checksum=True)
    store.database.dispose()
    assert not report, str(report)


# Of a memoized function, whose results are values in their rows


def slowly(n: int, log: str = "") -> float:
    append_line(Path(log), str(n))
    time.sleep(0.02)
    return n / 2


def call_each(url: str, folder: Path, barrier: Any) -> list[float]:
    function = memoized(folder, slowly, url=url, table="slowly", ignore=["log"], wait_timeout_s=120.0)
    got = []
    for n in range(N_ROUNDS // 4):
        barrier.wait()
        got.append(function(n, log=str(folder / "calls")))
    function.store.database.dispose()
    return got


def sweep_values(url: str, folder: Path) -> list[float]:
    function = memoized(folder, slowly, url=url, table="slowly", ignore=["log"], wait_timeout_s=120.0)
    sets = [{"n": n, "log": str(folder / "calls")} for n in range(N_SWEPT // 5)]
    records = function.sweep(sets, progress=False)
    function.store.database.dispose()
    return [record.load(verify=True) for record in records]


@pytest.mark.slow
def test_value_wanted_by_sixteen_processes_at_once_is_computed_once_each_time(shared_url, tmp_path):
    barrier = multiprocessing.get_context("forkserver").Barrier(N_PROCESSES, timeout=120)

    got = run_together(call_each, [(shared_url, tmp_path, barrier)] * N_PROCESSES, timeout_s=300)

    assert got == [[n / 2 for n in range(N_ROUNDS // 4)]] * N_PROCESSES
    assert_each_value_once(shared_url, tmp_path, N_ROUNDS // 4)


def test_two_processes_that_sweep_the_same_values_compute_each_once(shared_url, tmp_path):
    first, second = run_together(sweep_values, [(shared_url, tmp_path)] * 2, timeout_s=300)

    assert first == second == [n / 2 for n in range(N_SWEPT // 5)]
    assert_each_value_once(shared_url, tmp_path, N_SWEPT // 5)
    assert os.listdir(tmp_path / "results" / "slowly" / ".entropic") == []


def assert_each_value_once(url: str, folder: Path, count: int) -> None:
    """The database has just these results, the folder none, and each ran once: read past the code under test."""
    database = Database(url)
    with database.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT n, value, result_value, result_file FROM slowly").all()
        (claims,) = connection.exec_driver_sql("SELECT count(*) FROM entropic_claims").one()
        attempts = connection.exec_driver_sql("SELECT state FROM entropic_attempts").all()
    database.dispose()
    assert sorted(map(tuple, rows)) == [(n, n / 2, str(n / 2), None) for n in range(count)]
    assert claims == 0
    assert [state for (state,) in attempts] == ["COMPLETED"] * count
    assert sorted(map(int, (folder / "calls").read_text().split())) == list(range(count))
    assert {path.name for path in (folder / "results" / "slowly").iterdir()} == {
        ".entropic",
        ".entropic-root.json",
    }
