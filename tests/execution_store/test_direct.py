"""The short way to single keys does what the long one does, and leaves to that what it cannot do."""

import os
import pickle
import sqlite3
import threading
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from entropic import DecodeError
from entropic.execution_store import ExecutionStore
from entropic.execution_store import direct as direct_module
from tests.support.counting import statements
from tests.support.waiting import wait_for

WAYS = ("short", "long")


@pytest.fixture
def store(sqlite):
    """A store by the clock of its database, on a thread that keeps a connection."""
    made = ExecutionStore.create("jobs", "d", database=sqlite)
    made.set("first", 1)
    assert made.get("first") == 1
    return made


@pytest.fixture(params=WAYS)
def any_store(request, store):
    """That store, which goes one way."""
    if request.param == "long":
        store._service._direct._is_unheard = None
    return store


def traced(database, call):
    """Return what a call has SQLite do on the connection that this thread keeps."""
    seen = []
    database.kept.set_trace_callback(seen.append)
    try:
        call()
    finally:
        database.kept.set_trace_callback(None)
    return [one.split()[0] for one in seen]


def sql(database, statement):
    database.write(lambda connection: connection.execute(text(statement)))


def test_get_is_one_statement_and_set_a_short_transaction(store, sqlite):
    assert traced(sqlite, lambda: store.get("first")) == ["SELECT"]
    assert traced(sqlite, lambda: store.set("k", 1)) == ["BEGIN", "UPDATE", "INSERT", "INSERT", "COMMIT"]
    assert traced(sqlite, lambda: store.set_many({"k": 1, "l": 1})) == []  # by a connection of the pool


def test_key_is_written_as_on_the_long_way(any_store):
    place = any_store.place()
    any_store.set("k", {"a": [1.5, None]}, ttl=60)
    first = any_store.get_metadata("k")
    any_store.set("k", "second", policy="evict")
    second = any_store.get_metadata("k")
    any_store.set("k", "third")
    third = any_store.get_metadata("k")
    found = []
    subscription = any_store.subscribe(found.append, place=place)

    assert first["expires_at"] - first["created_at"] == timedelta(seconds=60)
    assert (first["policy"], first["updated_at"]) == ("evict", None)
    assert (second["policy"], second["expires_at"]) == ("evict", None)
    assert first["created_at"] <= second["updated_at"] <= third["updated_at"]
    assert second["created_at"] == third["created_at"] == first["created_at"]
    assert third["policy"] == "persist"
    assert any_store.get("k") == "third"
    wait_for(lambda: len(found) == 3)
    any_store.unsubscribe(subscription)
    assert [(one.operation, one.key, one.dataset_id) for one in found] == [("set", "k", "d")] * 3
    assert [one.at for one in found] == [first["created_at"], second["updated_at"], third["updated_at"]]


def test_key_that_has_expired_is_absent_and_made_anew(any_store, sqlite):
    any_store.set("k", 1, ttl=3600)
    before = any_store.get_metadata("k")["created_at"]
    sql(sqlite, "UPDATE entropic_execution_keys SET created_us = created_us - 9, expires_us = created_us - 1")
    assert any_store.get("k") is None

    any_store.set("k", 2)

    after = any_store.get_metadata("k")
    assert after["created_at"] >= before
    assert after["updated_at"] is None
    assert any_store.get("k") == 2
    any_store.set("gone", 1, ttl=0)
    assert any_store.get("gone") is None


VALUES = [
    *("", "é\0\U0001f4a5\ud800", '"__entropic__"', {"__entropic__": 1}, {1: 2}, 10**30, -(2**63), 2**53 + 1),
    *(1e308, 1e18, float("nan"), float("inf"), -0.0, True, [], {}, [[[[[1]]]]], (1, 2), b"\0"),
    {"a": {"b": {"c": {"d": (1,)}}}},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_value_comes_back_of_the_same_type(any_store, value):
    if value == {1: 2}:
        with pytest.raises(TypeError, match="keys of a dict must be text"):
            any_store.set("k", value)
        return
    any_store.set("k", value)
    found = any_store.get("k")
    assert repr(found) == repr(value)
    assert type(found) is type(value)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\0b", "\ud800", None, 3, b"first"])
def test_key_that_is_none_is_refused(any_store, key):
    for act in (lambda: any_store.get(key), lambda: any_store.set(key, 1)):
        with pytest.raises(ValueError, match="a key "):
            act()
    assert any_store.list_keys() == ["first"]


def test_metadata_and_stores_that_are_not_there(any_store, sqlite):
    other = ExecutionStore("other", any_store._service)
    assert other.get("first") is None
    assert any_store.get("__store__") is None
    any_store._service.create_store("jobs", {"a": 1})
    assert any_store.get("__store__") == {"a": 1}
    other.set("k", 1)
    assert other.get("k") == 1
    assert ExecutionStore.create("jobs", database=sqlite).get("first") is None


def test_block_sees_and_commits_what_it_wrote(any_store, sqlite):
    with sqlite.transaction():
        any_store.set("first", 2)
        assert any_store.get("first") == 2
        other = []
        thread = threading.Thread(target=lambda: (other.append(any_store.get("first")), sqlite.release()))
        thread.start()
        thread.join()
    assert other == [1]
    assert any_store.get("first") == 2


def test_who_listens_sees_the_statements(store, sqlite):
    with statements(sqlite.engine) as seen:
        store.get("first")
        store.set("first", 2)

    assert [one.split()[0] for one in seen] == ["SELECT", "BEGIN", "UPDATE", "INSERT", "INSERT"]


def test_write_that_fails_leaves_nothing_and_is_done_the_long_way(store, sqlite):
    sql(
        sqlite,
        "CREATE TRIGGER no BEFORE INSERT ON entropic_execution_events BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    with pytest.raises(Exception, match="no"):
        store.set("k", 1)
    assert store.get("k") is None
    assert not sqlite.kept.in_transaction

    sql(sqlite, "DROP TRIGGER no")
    store.set("k", 1)
    assert store.get("k") == 1
    sqlite.kept.close()
    assert store.get("k") == 1
    store.set("k", 2)
    assert store.get("k") == 2


def test_interrupt_in_a_write_leaves_no_transaction(store, sqlite, monkeypatch):
    from entropic.execution_store import direct

    def interrupt(bits):
        raise KeyboardInterrupt

    monkeypatch.setattr(direct.secrets, "randbits", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.set("k", 1)
    monkeypatch.undo()

    assert not sqlite.kept.in_transaction
    store.set("k", 1)
    assert store.get("k") == 1


def moved(path, to):
    for end in ("", "-wal", "-shm"):
        if os.path.exists(path + end):
            os.rename(path + end, to + end)


def test_file_that_is_replaced_is_written_to_and_soon_read(store, sqlite, monkeypatch, tmp_path):
    other = ExecutionStore.create("jobs", "d", database=f"sqlite:///{tmp_path / 'other.sqlite3'}")
    other.set("first", "other")
    other._service.database.dispose()
    moved(sqlite.url.database, str(tmp_path / "aside"))
    moved(str(tmp_path / "other.sqlite3"), sqlite.url.database)

    monkeypatch.setattr(direct_module, "SEEN_S", 0.0)
    assert store.get("first") == "other"
    moved(sqlite.url.database, str(tmp_path / "other.sqlite3"))
    moved(str(tmp_path / "aside"), sqlite.url.database)
    monkeypatch.setattr(direct_module, "SEEN_S", 3600.0)
    store.set("second", 2)
    assert store.items() == {"first": 1, "second": 2}


def test_nothing_is_written_once_the_file_is_removed(store, sqlite, monkeypatch, tmp_path):
    moved(sqlite.url.database, str(tmp_path / "aside"))

    with pytest.raises(OperationalError, match="was removed while this process used it"):
        store.set("first", 2)
    monkeypatch.setattr(direct_module, "SEEN_S", 0.0)
    with pytest.raises(OperationalError, match="was removed while this process used it"):
        store.get("first")
    moved(str(tmp_path / "aside"), sqlite.url.database)
    assert store.get("first") == 1


def test_every_thread_has_a_connection_of_its_own(store, sqlite):
    kept = [sqlite.kept]

    def use():
        store.set("k", 1)
        kept.append(sqlite.kept)
        sqlite.release()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()

    assert all(isinstance(one, sqlite3.Connection) for one in kept)
    assert len({id(one) for one in kept}) == 2


def test_text_that_is_no_value_is_an_error_that_names_the_key(store, sqlite):
    for wrong in ("{", "1 2", "", "[1,]"):
        sql(sqlite, f"UPDATE entropic_execution_keys SET value = '{wrong}'")
        with pytest.raises(
            DecodeError, match=r"the value of the key 'first' in the store 'jobs' cannot be read"
        ):
            store.get("first")


def test_service_that_travelled_takes_the_short_way_again(store, sqlite):
    again = pickle.loads(pickle.dumps(store))
    assert again.get("first") == 1
    assert again._service._direct._raw() is not None
