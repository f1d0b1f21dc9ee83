"""The execution store inside a transaction, and after one whose answer was lost."""

import copy
import threading

import pytest

from entropic import TransactionError
from entropic.execution_store import ExecutionStore, ExecutionStoreService
from tests.execution_store.test_service import Sneaky
from tests.support.lost_commits import lose_commit


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


@pytest.mark.parametrize("arrives", [False, True])
def test_change_that_may_not_happen_twice_says_so(store, shared, arrives):
    store.set("k", 0)
    lose_commit(shared, arrives=arrives)

    with pytest.raises(Exception) as caught:  # noqa: PT011  of the driver
        store.update("k", lambda value: value + 1)

    assert "may have been committed or not" in caught.value.__notes__[0]
    assert store.get("k") == int(arrives)
