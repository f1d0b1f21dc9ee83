"""Files that stand or fall with a row, where nobody knows at first what became of the transaction."""

import threading

import pytest
from sqlalchemy.exc import DBAPIError

from entropic import Database
from entropic.process.identity import Process
from entropic.sql.exchange import Exchange
from entropic.weights_store import LocalWeightsStore
from tests.support.lost_commits import lose_commit
from tests.support.weight_cases import NEW, OLD, files_of, value_of, weights


@pytest.fixture(params=["sqlite_url", "postgres_url", "mysql_url"])
def url(request):
    return request.getfixturevalue(request.param)


def opened_after_the_end_of_this_process(folder, url, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Process, "is_alive", lambda process: False)
        return LocalWeightsStore(folder, url)


@pytest.mark.parametrize("arrives", [True, False])
def test_row_is_written_though_the_answer_to_its_commit_was_lost(tmp_path, url, arrives):
    folder = tmp_path / "w"
    store = LocalWeightsStore(folder, url)
    store.store_weights("r", 1, weights(OLD))

    lose_commit(store.database, arrives=arrives)
    store.store_weights("r", 1, weights(NEW))

    assert value_of(store.retrieve_weights("r", 1, verify=True)) == NEW
    assert len(files_of(folder)) == 1


@pytest.mark.parametrize("arrives", [True, False])
def test_block_in_doubt_keeps_both_files_until_its_process_has_ended(tmp_path, url, arrives, monkeypatch):
    folder = tmp_path / "w"
    store = LocalWeightsStore(folder, url)
    store.store_weights("r", 1, weights(OLD))

    with pytest.raises(DBAPIError), store.database.transaction():  # noqa: PT012
        store.store_weights("r", 1, weights(NEW))
        lose_commit(store.database, arrives=arrives)

    value = NEW if arrives else OLD
    assert value_of(store.retrieve_weights("r", 1, verify=True)) == value
    again = opened_after_the_end_of_this_process(folder, url, monkeypatch)
    assert value_of(again.retrieve_weights("r", 1, verify=True)) == value
    assert len(files_of(folder)) == 1


def killed_before_commit(store, iteration, monkeypatch):
    """Do all that `store_weights` does but write the row; return what the row is to say."""
    found = []
    monkeypatch.setattr(Exchange, "change", lambda self, note, work: found.append(work.keywords["stored"]))
    store.store_weights("r", iteration, weights(NEW))
    monkeypatch.undo()
    (stored,) = found
    return stored


@pytest.mark.parametrize(
    "server_url", ["postgresql", pytest.param("mysql", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.parametrize(
    ("is_committed", "iteration"),
    [
        pytest.param(True, 1, id="True-replaced"),
        pytest.param(True, 2, id="True-added", marks=pytest.mark.slow),
        pytest.param(False, 1, id="False-replaced", marks=pytest.mark.slow),
        pytest.param(False, 2, id="False-added"),
    ],
)
def test_row_that_a_server_is_still_committing_is_waited_for(
    tmp_path, server_url, monkeypatch, iteration, is_committed
):
    """The process was killed after it had sent COMMIT."""
    store = LocalWeightsStore(tmp_path, server_url)
    store.store_weights("r", 1, weights(OLD))
    stored = killed_before_commit(store, iteration, monkeypatch)
    note = store._exchange.notes.write("r", [])
    monkeypatch.setattr(Process, "is_alive", lambda process: False)
    opening = threading.Thread(
        target=lambda: LocalWeightsStore(tmp_path, Database(server_url)).database.dispose()
    )

    with store.database.engine.connect() as connection:
        store._rows.put(connection, stored, note, exist_ok=True)
        opening.start()
        opening.join(0.5)
        assert opening.is_alive()
        connection.commit() if is_committed else connection.rollback()
    opening.join(30)

    assert not opening.is_alive()
    kept = {1: OLD, **({iteration: NEW} if is_committed else {})}
    assert {i: value_of(store.retrieve_weights("r", i, verify=True)) for i in store.iterations("r")} == kept
    assert len(files_of(tmp_path)) == len(kept)


def test_note_that_cannot_be_settled_is_left(tmp_path, sqlite_url, monkeypatch, caplog):
    store = LocalWeightsStore(tmp_path / "w", sqlite_url)
    store.store_weights("r", 1, weights(OLD))
    killed_before_commit(store, 1, monkeypatch)
    forged = store._exchange.notes.write("../elsewhere", ["1-00000000.h5"])

    again = opened_after_the_end_of_this_process(tmp_path / "w", sqlite_url, monkeypatch)

    assert "is left to whoever opens the store later: a name is no path" in caplog.text
    assert "of 'r' a process that has ended left ['1-" in caplog.text
    assert forged.path.exists()
    assert value_of(again.retrieve_weights("r", 1, verify=True)) == OLD
    assert len(files_of(tmp_path / "w")) == 2


def test_files_that_are_not_of_the_row_that_a_note_is_on_stay(tmp_path, sqlite_url, monkeypatch):
    """Notes lie where others may write: what they name is not believed."""
    store = LocalWeightsStore(tmp_path / "w", sqlite_url)
    store.store_weights("r", 1, weights(OLD))
    store.store_weights("r", 2, weights(OLD))
    (tmp_path / "precious").touch()
    names = files_of(tmp_path / "w")
    folder = store._folder("r")
    (folder / "precious.h5").touch()
    store._exchange.notes.write("r", [*names, "../../../../precious", "precious.h5", "/etc/hosts", "."])

    again = opened_after_the_end_of_this_process(tmp_path / "w", sqlite_url, monkeypatch)

    assert files_of(tmp_path / "w") == sorted([*names, "precious.h5"])
    assert (tmp_path / "precious").exists()
    assert [value_of(again.retrieve_weights("r", i, verify=True)) for i in (1, 2)] == [OLD, OLD]


def test_store_opened_in_a_block_repairs_nothing_yet(tmp_path, sqlite_url, monkeypatch):
    store = LocalWeightsStore(tmp_path / "w", sqlite_url)
    killed_before_commit(store, 1, monkeypatch)

    with store.database.transaction():
        opened_after_the_end_of_this_process(tmp_path / "w", sqlite_url, monkeypatch)
        assert len(files_of(tmp_path / "w")) == 2
    opened_after_the_end_of_this_process(tmp_path / "w", sqlite_url, monkeypatch)

    assert files_of(tmp_path / "w") == []
