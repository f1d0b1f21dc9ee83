"""What a call costs: SQL statements and files, counted and never timed."""

import sys
from math import ceil
from pathlib import Path

import pytest
from sqlalchemy import event, insert

from entropic.model.records import CHUNK
from tests.support.counting import statements
from tests.support.memo_cases import memoized
from tests.support.naming import shown
from tests.support.store_cases import PARAMS, Pendulum, Runner
from tests.support.stores import open_store

PER_CHUNK = CHUNK // 2  # parameter sets per look-up of a sweep: each may have two keys

_opened: list[str] | None = None  # paths that were opened for writing, while somebody looks
_read: list[str] = []  # and for reading


def _audit(name, arguments):
    # An audit hook stays for the life of the process, so there is one, and it does nothing unless it is asked to.
    if _opened is None:
        return
    if name == "open":
        path, mode, flags = arguments
        if set(mode or "") & set("wax+") or (flags or 0) & 0b11:
            _opened.append(str(path))
        else:
            _read.append(str(path))
    elif name in {"os.mkdir", "os.rename", "os.remove", "os.truncate", "os.utime", "os.link"}:
        _opened.append(f"{name} {arguments[0]}")


sys.addaudithook(_audit)


@pytest.fixture
def writes(monkeypatch):
    """The files that were written to since the test began to look, by clearing the list."""
    seen = []
    monkeypatch.setattr(sys.modules[__name__], "_opened", seen)
    return seen


def kinds(seen):
    return [statement.split()[0] for statement in seen]


def test_hit_is_one_select_and_no_file_is_written(database, tmp_path, writes):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    store.run_or_retrieve(PARAMS)
    store.run_or_retrieve(PARAMS)  # the connection for look-ups is there now
    writes.clear()

    with statements(database.engine) as seen:
        store.run_or_retrieve(PARAMS)

    assert kinds(seen) == ["SELECT"]
    assert writes == []


def test_watch_for_writes_sees_those_of_a_miss(sqlite, tmp_path, writes):
    record = open_store(Pendulum, tmp_path, Runner(), sqlite).run_or_retrieve(PARAMS)

    assert any(path.endswith(Path(record.result_file).name) for path in writes)


@pytest.mark.parametrize(
    "params", [{"length": 2, "swings": 3}, {**PARAMS, "damping": 0.0}, {"id": "mine", **PARAMS}], ids=shown
)
def test_hit_whose_parameters_were_typed_is_one_select(database, tmp_path, params):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    store.run_or_retrieve(params)
    store.run_or_retrieve(params)

    with statements(database.engine) as seen:
        store.run_or_retrieve(params)

    assert kinds(seen) == ["SELECT"]


def test_listener_that_comes_after_the_first_hits_sees_the_select(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.run_or_retrieve(PARAMS)
    store.run_or_retrieve(PARAMS)
    seen = []

    @event.listens_for(store.database.engine, "before_cursor_execute")
    def listen(connection, cursor, statement, parameters, context, executemany):
        seen.append(statement)

    store.run_or_retrieve(PARAMS)

    (statement,) = seen
    assert "FROM pendulum" in statement


@pytest.fixture
def traced(sqlite):
    """The statements that SQLite itself sees, while nobody listens."""
    seen = []
    event.listen(sqlite.engine, "checkout", lambda raw, record, proxy: raw.set_trace_callback(seen.append))
    return seen


def test_hit_that_nobody_listens_to_is_one_select_too(sqlite, tmp_path, traced):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.run_or_retrieve(PARAMS)
    sqlite.release()
    store.run_or_retrieve(PARAMS)
    traced.clear()

    store.run_or_retrieve(PARAMS)

    assert kinds(traced) == ["SELECT"]


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({"length": 2.5, "swings": 3}, 1),
        ({"length": 2, "swings": 3}, 2),  # of which the published release made another key
    ],
    ids=["own key", "former key too"],
)
def test_retrieve_of_nothing_is_one_select_for_each_key(sqlite, tmp_path, traced, params, count):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.run_or_retrieve(PARAMS)
    traced.clear()

    assert store.retrieve(params) is None

    assert kinds(traced) == ["SELECT"] * count


def test_miss_that_nobody_listens_to_costs_no_look_up_more(sqlite, tmp_path, traced):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.run_or_retrieve(PARAMS)
    with statements(sqlite.engine) as heard:
        store.run_or_retrieve({**PARAMS, "swings": 4})
    traced.clear()

    store.run_or_retrieve({**PARAMS, "swings": 5})

    assert kinds(traced).count("SELECT") <= kinds(heard).count("SELECT")


def test_hit_of_a_memoized_function_is_one_select_and_one_file(database, tmp_path, writes, monkeypatch):
    function = memoized(tmp_path, url=database)
    for _ in range(2):
        function(3, log=str(tmp_path / "log"))
    writes.clear()
    read = []
    monkeypatch.setattr(sys.modules[__name__], "_read", read)

    with statements(database.engine) as seen:
        function(3)

    assert kinds(seen) == ["SELECT"]
    assert writes == []
    assert [Path(path).suffix for path in read if str(tmp_path) in path] == [".npy"]


@pytest.mark.parametrize("is_there", [True, False])
def test_retrieve_is_one_select(database, tmp_path, is_there):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    if is_there:
        store.run_or_retrieve(PARAMS)
    store.retrieve(PARAMS)

    with statements(database.engine) as seen:
        found = store.retrieve(PARAMS)

    assert (found is not None) is is_there
    assert kinds(seen) == ["SELECT"]


def test_records_and_count_are_one_select_whatever_there_is(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    store.sweep(({**PARAMS, "swings": swings} for swings in range(20)), progress=False)
    with database.reading():
        pass  # the pool has a connection now

    for call in (store.records, store.count, store.failures):
        with statements(database.engine) as seen:
            call()
        assert kinds(seen) == ["SELECT"], call


def test_miss_costs_as_many_statements_as_any_other(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    store.run_or_retrieve(PARAMS)
    costs = []

    for swings in (4, 5, 6):
        with statements(database.engine) as seen:
            store.run_or_retrieve({**PARAMS, "swings": swings})
        costs.append([kind for kind in kinds(seen) if kind not in {"BEGIN", "PRAGMA"}])

    assert costs[0] == costs[1] == costs[2]
    # Look-up; who holds the claim, claim, its token; look-up under the claim; give back, former row, row, file record
    # (two), attempt; the row as it is now.
    assert len(costs[0]) <= 12
    assert sum(kind != "SELECT" for kind in costs[0]) <= 6


def test_first_open_of_a_registered_table_writes_nothing(database, tmp_path):
    open_store(Pendulum, tmp_path, Runner(), database)

    with statements(database.engine) as seen:
        open_store(Pendulum, tmp_path, Runner(), database)

    assert not set(kinds(seen)) & {"INSERT", "UPDATE", "DELETE", "CREATE", "ALTER"}
    assert kinds(seen).count("SELECT") <= 60


@pytest.fixture
def many(database, tmp_path):
    """A Store with 1200 rows that share one file, as a session of the user's may have written them, and their sets."""
    store = open_store(Pendulum, tmp_path, Runner(), database)
    shared = tmp_path / "shared.json"
    shared.touch()
    sets = [{"length": 1.5, "swings": swings} for swings in range(1200)]
    rows = [
        {**one, "id": store.key(one), "result_file": str(shared), "damping": 0.0, "custom_data": {}}
        for one in sets
    ]
    database.write(lambda connection: connection.execute(insert(Pendulum), rows))
    return store, sets


def test_cached_sweep_is_one_select_per_chunk_and_writes_no_file(database, many, writes):
    store, sets = many
    store.retrieve(sets[0])
    writes.clear()

    with statements(database.engine) as seen:
        result = store.sweep(iter(sets), progress=False)

    assert [record.swings for record in result] == list(range(1200))
    assert kinds(seen) == ["SELECT"] * ceil(1200 / PER_CHUNK)
    assert writes == []
    assert store.runner.seen == []


def test_cached_sweep_that_nobody_listens_to_is_one_select_per_chunk(sqlite, tmp_path, traced):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    sets = [{**PARAMS, "swings": swings} for swings in range(30)]
    store.sweep(sets, progress=False)
    traced.clear()

    store.sweep(sets, progress=False)

    assert kinds(traced) == ["SELECT"]


def test_sweep_of_misses_costs_fewer_statements_than_runs_would_one_by_one(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.run_or_retrieve({"length": 9.0, "swings": 1})
    with statements(sqlite.engine) as one:
        store.run_or_retrieve({"length": 9.0, "swings": 2})

    with statements(sqlite.engine) as many:
        store.sweep(({**PARAMS, "swings": swings} for swings in range(200)), progress=False)

    assert len(many) < 200 * len(one) / 4
