"""A Store inside ``with database.transaction():``: what joins it, what is refused there, what waits for its end."""

import os
import signal

import pytest
from sqlalchemy import update

from entropic import ClaimTimeoutError, Database, Store, TransactionError, hash_params
from entropic.sql.tables import ClaimRow
from tests.support.processes import outcomes_of
from tests.support.protocol_cases import claims_on
from tests.support.store_cases import PARAMS, Pendulum, Runner, claims_of, results_in, rows_of
from tests.support.stores import open_store

OTHER = {**PARAMS, "length": 2.5}


@pytest.fixture
def elsewhere(tmp_path):
    """A file that was computed elsewhere."""
    path = tmp_path / "elsewhere.dat"
    path.write_bytes(b"measured")
    return path


class TakenBackError(Exception):
    pass


def test_hits_and_queries_are_part_of_a_block(database, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)
    made = store.run_or_retrieve(PARAMS)

    with database.transaction():
        assert store.run_or_retrieve(PARAMS).id == made.id
        assert store.retrieve(PARAMS).id == made.id
        assert [record.id for record in store.records()] == [made.id]
        assert store.count() == 1
        assert store.retrieve(OTHER) is None

    assert len(runner.seen) == 1


def test_register_annotate_and_delete_are_committed_together(database, tmp_path, elsewhere):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    gone = store.run_or_retrieve(OTHER)

    with database.transaction():
        record = store.register(PARAMS, elsewhere, note="first")
        assert store.retrieve(PARAMS).custom_data == {"note": "first"}
        store.annotate(PARAMS, more=1)
        store.delete(OTHER, remove_file=True)
        assert store.retrieve(OTHER) is None
        assert os.path.exists(gone.result_file)  # nothing of a block that may yet be taken back is removed

    assert not os.path.exists(gone.result_file)
    assert [(row["id"], row["custom_data"]) for row in rows_of(database)] == [
        (record.id, {"note": "first", "more": 1})
    ]
    assert claims_of(database) == 0
    assert not store.check()


def test_block_that_is_taken_back_leaves_everything_as_it_was(database, tmp_path, elsewhere):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    store.run_or_retrieve(OTHER)
    before, files = rows_of(database), results_in(tmp_path)

    def work():
        with database.transaction():
            store.register(PARAMS, elsewhere)
            store.annotate(OTHER, note="new")
            store.delete(OTHER, remove_file=True)
            store.register(OTHER, elsewhere)
            raise TakenBackError

    with pytest.raises(TakenBackError):
        work()

    assert (rows_of(database), results_in(tmp_path)) == (before, files)
    assert claims_of(database) == 0
    assert store.run_or_retrieve(PARAMS).custom_data["elapsed_seconds"] >= 0  # nobody holds the key
    assert not store.check()


NEEDS_MORE = {
    "run": lambda store: store.run(PARAMS),
    "miss": lambda store: store.run_or_retrieve(PARAMS),
    "sweep": lambda store: store.sweep([OTHER]),
    "recover": lambda store: store.recover(),
    "check": lambda store: store.check(fix=True),
    "open": lambda store: Store(store.runner, Pendulum, store.results_dir, ".npy", store.database),
    "adopt": lambda store: store.adopt_root(),
}


def test_what_needs_a_claim_or_a_retry_is_refused_before_anything_runs(database, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)
    store.run_or_retrieve(OTHER)

    with database.transaction():
        for need in NEEDS_MORE.values():
            with pytest.raises(
                TransactionError, match=r"is not possible inside a transaction on .*: .+"
            ) as caught:
                need(store)
            assert isinstance(caught.value, RuntimeError)
        assert store.count() == 1  # the block goes on

    assert len(runner.seen) == 1
    assert claims_of(database) == 0


def test_key_that_another_process_runs_is_not_waited_for(database, tmp_path, elsewhere):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    store.register(OTHER, elsewhere)
    claims_on(database, "pendulum").acquire([hash_params(PARAMS)])
    elsewhere_running = update(ClaimRow).values(host="elsewhere", boot="another", owner="another")
    database.write(lambda connection: connection.execute(elsewhere_running))

    with database.transaction():
        with pytest.raises(ClaimTimeoutError, match=r"elsewhere.* which a transaction does not wait for"):
            store.register(PARAMS, elsewhere)
        store.annotate(OTHER, seen=True)

    assert [row["custom_data"] for row in rows_of(database)] == [{"seen": True}]


def killed_in_a_block(url, folder, path):
    database = Database(url)
    store = Store(Runner(), Pendulum, folder, ".npy", database)
    with database.transaction():
        store.register(PARAMS, path)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_kill_in_a_block_leaves_nothing_of_it(request, tmp_path, elsewhere):
    for fixture in ("sqlite_url", "postgres_url", "mysql_url"):
        database = Database(request.getfixturevalue(fixture))
        store = open_store(Pendulum, tmp_path / fixture, Runner(), database)

        (outcome,) = outcomes_of(killed_in_a_block, [(str(database.url), store.results_dir, elsewhere)])

        assert outcome.exitcode == -signal.SIGKILL
        assert (rows_of(database), claims_of(database)) == ([], 0)
        assert store.register(PARAMS, elsewhere).id
        database.dispose()
