"""Weights in blocks of transactions, and of several threads and processes."""

import math
import sqlite3
import threading
from contextlib import closing, suppress

import pytest
from sqlalchemy.exc import IntegrityError

from entropic.weights_store import LocalWeightsStore
from tests.support.processes import run_together
from tests.support.weight_cases import NEW, OLD, files_of, value_of, weights


@pytest.fixture
def store(tmp_path):
    return LocalWeightsStore(tmp_path / "weights")


def test_block_commits_weights_and_the_best_together_or_neither(tmp_path, database):
    store = LocalWeightsStore(tmp_path, database)
    for iteration in (1, 2, 3):
        store.store_weights("r", iteration, weights(OLD))
    before = files_of(tmp_path)

    def change():
        store.store_weights("r", 3, weights(NEW / 2))
        store.store_weights("r", 3, weights(NEW))
        store.store_weights("r", 4, weights(NEW))
        store.store_best("r", 3, "d", "c")
        store.remove("r", 1)
        assert store.prune("r", keep_last=1) == [2]
        assert value_of(store.retrieve_weights("r", 3, verify=True)) == NEW

    with suppress(KeyboardInterrupt), database.transaction():
        change()
        raise KeyboardInterrupt
    assert files_of(tmp_path) == before
    assert [value_of(store.retrieve_weights("r", i)) for i in store.iterations("r")] == [OLD, OLD, OLD]

    with database.transaction():
        change()
        assert set(before) < set(files_of(tmp_path))  # they stay until it is committed
    assert [value_of(store.retrieve_weights("r", i)) for i in store.iterations("r")] == [NEW, NEW]
    assert len(files_of(tmp_path)) == 2
    assert store.retrieve_best("r", "d", "c") == 3


@pytest.mark.parametrize(("first", "second"), [(math.inf, 0.5), (0.5, -math.inf), (math.inf, -math.inf)])
def test_score_without_end_is_kept_with_all_else_of_its_block(tmp_path, database, first, second):
    store = LocalWeightsStore(tmp_path, database)
    for iteration, score in ((1, first), (2, second), (3, math.inf), (4, math.nan)):
        with database.transaction():
            store.store_weights("r", iteration, weights(OLD))
            is_best = store.store_best("r", iteration, "d", "loss", score=score, higher_is_better=False)
        assert is_best == (iteration < 3)

    assert store.iterations("r") == [1, 2, 3, 4]
    assert store.retrieve_best("r", "d", "loss") == 2


def test_row_that_is_refused_leaves_nothing_and_the_former_weights(store):
    """In a block, which goes on: what was written for the row is removed when it ends."""
    store.store_weights("r", 1, weights(OLD))
    former = files_of(store.basedir)
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER no BEFORE UPDATE ON entropic_weights BEGIN SELECT RAISE(ABORT, 'no'); END"
        )

    with pytest.raises(IntegrityError, match="no"):
        store.store_weights("r", 1, weights(NEW))
    assert files_of(store.basedir) == former
    with store.database.transaction():
        with pytest.raises(IntegrityError, match="no"):
            store.store_weights("r", 1, weights(NEW))
        store.store_weights("r", 2, weights(NEW))

    assert [value_of(store.retrieve_weights("r", i)) for i in (1, 2)] == [OLD, NEW]
    assert len(files_of(store.basedir)) == 2


def test_part_of_a_block_that_is_taken_back_loses_no_weights(store):
    """A SAVEPOINT around a call that had succeeded: the row is the former one again."""
    store.store_weights("r", 1, weights(OLD))

    def both(connection):
        store.store_weights("r", 1, weights(NEW))
        raise LookupError

    with store.database.transaction():
        with pytest.raises(LookupError):
            store.database.write(both)
        store.store_weights("r", 2, weights(NEW))

    assert [value_of(store.retrieve_weights("r", i, verify=True)) for i in (1, 2)] == [OLD, NEW]
    assert len(files_of(store.basedir)) == 2


def test_nobody_waits_for_the_database_while_a_block_writes_a_file(store, monkeypatch):
    store.store_weights("r", 1, weights(OLD))
    real, seen = LocalWeightsStore._written, []

    def written(self, *arguments):
        with closing(sqlite3.connect(store.database.url.database, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        seen.append(arguments)
        return real(self, *arguments)

    monkeypatch.setattr(LocalWeightsStore, "_written", written)
    with store.database.transaction():
        store.store_weights("r", 1, weights(NEW))

    assert len(seen) == 1
    assert value_of(store.retrieve_weights("r", 1)) == NEW
    assert len(files_of(store.basedir)) == 1


def test_threads_that_replace_one_another_leave_one_file(store):
    store.store_weights("r", 1, weights(OLD))
    errors = []

    def work(value):
        try:
            for _ in range(5):
                store.store_weights("r", 1, weights(value))
                value_of(store.retrieve_weights("r", 1, verify=True))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(float(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert len(files_of(store.basedir)) == 1


def replace_often(folder, url, value):
    store = LocalWeightsStore(folder, url)
    for _ in range(10):
        store.store_weights("r", 1, weights(value))
        value_of(store.retrieve_weights("r", 1, verify=True))


@pytest.mark.slow
def test_processes_that_replace_one_another_leave_one_file(tmp_path, server_url):
    LocalWeightsStore(tmp_path, server_url).database.dispose()

    run_together(replace_often, [(tmp_path, server_url, float(n)) for n in range(4)])

    store = LocalWeightsStore(tmp_path, server_url)
    assert value_of(store.retrieve_weights("r", 1, verify=True)) in range(4)
    assert len(files_of(tmp_path)) == 1
