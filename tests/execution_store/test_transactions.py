"""The execution store inside a transaction, and after one whose answer was lost."""

import copy
import threading
from contextlib import nullcontext, suppress

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from entropic import TransactionError
from entropic.execution_store import ExecutionStore, ExecutionStoreService, changes
from tests.execution_store.test_service import Sneaky
from tests.support.lost_commits import lose_commit, lose_connection


def in_a_block(database, *acts):
    with database.transaction():
        for act in acts:
            act()


def interrupt():
    raise KeyboardInterrupt


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


def test_what_a_block_writes_is_committed_with_it_or_not_at_all(store, service, shared):
    store.set_many({"kept": 1, "counted": 1, "deleted": 1})
    service.create_store("made", {"a": 1})

    def everything():
        store.set("kept", 2, ttl=60)
        store.set_if_absent("new", 2)
        assert store.compare_and_set("kept", 2, 3)
        assert store.update("counted", lambda value: value + 1) == 2
        assert store.update("other", lambda value: value) is None
        store.delete("deleted")
        store.set_many({"a": 1, "b": 2})
        service.delete_store("made")
        service.create_store("jobs")
        assert store.items() == {"kept": 3, "new": 2, "counted": 2, "other": None, "a": 1, "b": 2}
        assert service.list_stores() == ["jobs"]

    with pytest.raises(KeyboardInterrupt):
        in_a_block(shared, everything, interrupt)
    assert store.items() == {"kept": 1, "counted": 1, "deleted": 1}
    assert service.get_store("made").metadata == {"a": 1}

    with shared.transaction():
        everything()
    assert store.items() == {"kept": 3, "new": 2, "counted": 2, "other": None, "a": 1, "b": 2}
    assert service.list_stores() == ["jobs"]


def test_what_is_refused_in_a_block_does_not_end_it(store, service, shared):
    service.create_store("made")
    with shared.transaction():
        store.set("k", 1)
        for act in (
            lambda: store.set("k", object()),
            lambda: store.set("", 1),
            lambda: store.update("k", lambda value: 1 // 0),
            lambda: service.create_store("made"),
        ):
            with pytest.raises((TypeError, ValueError, ZeroDivisionError)):
                act()
        store.set("l", 1)
    assert store.items() == {"k": 1, "l": 1}


def test_lost_race_in_a_block_is_raised(store, shared, clock):
    if shared.dialect == "sqlite":
        pytest.skip("on SQLite nobody writes meanwhile")
    other = ExecutionStore("jobs", ExecutionStoreService(database=copy.copy(shared), clock=clock))
    store.set("k", 1)

    def compare():
        assert store.compare_and_set("k", Sneaky(lambda: in_thread(other.set, "k", 2)), "mine")

    with pytest.raises(TransactionError, match="another process changed the key 'k'"):
        in_a_block(shared, compare)

    assert store.items() == {"k": 2}


@pytest.mark.parametrize("arrives", [False, True])
def test_set_does_not_mind_that_the_answer_to_its_commit_is_lost(store, shared, arrives):
    store.set("k", 0)
    lose_commit(shared, arrives=arrives)

    store.set("k", 1)

    assert store.get("k") == 1


def test_function_is_called_once_though_its_update_ends_in_a_deadlock(store, service, shared):
    """Two update a key each, and write into each other's store."""
    if shared.dialect == "sqlite":
        pytest.skip("on SQLite one waits for the other")
    other = ExecutionStore("others", service)
    store.set("k", 0)
    other.set("k", 0)
    barrier, calls, ended = threading.Barrier(2, timeout=20), [], {}

    def update(own, theirs, name):
        def function(value):
            calls.append(name)
            barrier.wait()
            theirs.set("by", name)
            return value + 1

        try:
            ended[name] = own.update("k", function)
        except TransactionError as error:
            ended[name] = str(error)
        finally:
            shared.release()

    threads = [
        threading.Thread(target=update, args=one) for one in ((store, other, "a"), (other, store, "b"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(calls) == ["a", "b"]
    (loser,) = (name for name in ended if ended[name] != 1)
    assert ended[loser].startswith("the function that updates the key 'k' of the store")
    lost, won = (store, other) if loser == "a" else (other, store)
    assert lost.items() == {"by": "ab".replace(loser, ""), "k": 0}
    assert won.items() == {"k": 1}


@pytest.mark.parametrize("goes_on", [False, True])
def test_function_is_called_once_though_the_connection_is_lost(store, shared, goes_on):
    if shared.dialect == "sqlite":
        pytest.skip("a file has no connection that another one ends")
    store.set("k", 0)
    calls = []

    def function(value):
        calls.append(value)
        lose_connection(shared)
        with suppress(DBAPIError) if goes_on else nullcontext():
            store.get("other")
        return value + 1

    with pytest.raises(TransactionError, match="was called, and then the database dropped the transaction"):
        store.update("k", function)

    assert calls == [0]
    assert store.get("k") == 0


def test_update_waits_again_where_its_function_was_not_called(store, shared, monkeypatch):
    if shared.dialect == "sqlite":
        pytest.skip("on SQLite the lock is waited for at the beginning")
    store.set("k", 0)
    original, tried = changes.locked_new, []

    def locked_new(connection, *args):
        tried.append(1)
        if len(tried) == 1:
            lose_connection(shared)
        return original(connection, *args)

    monkeypatch.setattr(changes, "locked_new", locked_new)
    assert store.update("k", lambda value: value + 1) == 1
    assert len(tried) == 2


def test_error_that_the_function_raises_is_left_as_it_is(store, shared):
    """Though another database would be asked again after it."""
    error, calls = OperationalError("SELECT 1", {}, Exception("deadlock detected")), []
    error.connection_invalidated = True

    def function(value):
        calls.append(value)
        raise error

    with pytest.raises(OperationalError) as caught:
        store.update("k", function)

    assert caught.value is error
    assert calls == [None]


@pytest.mark.parametrize("arrives", [False, True])
def test_change_that_may_not_happen_twice_says_so(store, shared, arrives):
    store.set("k", 0)
    lose_commit(shared, arrives=arrives)

    with pytest.raises(Exception) as caught:  # noqa: PT011  of the driver
        store.update("k", lambda value: value + 1)

    assert "may have been committed or not" in caught.value.__notes__[0]
    assert store.get("k") == int(arrives)
