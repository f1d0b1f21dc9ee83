"""Subscribers are told of every change once and in the order of commits, or that they missed some."""

import copy
import logging
import os
import threading
import time

import pytest
from sqlalchemy import create_engine, text

from entropic import Database, TransactionError
from entropic.execution_store import Change, ExecutionStore, ExecutionStoreService, subscriptions
from entropic.execution_store import events as events_module
from entropic.sql.clock import database_now
from tests.execution_store.test_service import START, seconds
from tests.execution_store.test_transactions import in_a_block, interrupt
from tests.support.scripts import run_text
from tests.support.waiting import wait_for


class Heard(list):
    """A callback that keeps what it is told."""

    def __call__(self, change):
        self.append(change)

    @property
    def facts(self):
        return [(change.operation, change.key) for change in self]

    def wait(self, count):
        wait_for(lambda: len(self) >= count)
        return self.facts


@pytest.fixture(autouse=True)
def nobody_is_left():
    """End the subscriptions of a test, and wait for the thread to end."""
    yield
    subscriptions._end()
    wait_for(lambda: not [one for one in threading.enumerate() if one.name == "entropic-subscriptions"])


@pytest.fixture
def heard(store):
    """What a subscriber of the store hears."""
    callback = Heard()
    store.subscribe(callback)
    return callback


def events_of(database):
    return database.read(
        lambda c: (
            c.execute(text("SELECT number FROM entropic_execution_events ORDER BY number")).scalars().all()
        )
    )


def elsewhere(database, clock, **kept):
    """The service, as another process has it: with an engine of its own."""
    return ExecutionStoreService(database=Database(create_engine(database.url)), clock=clock, **kept)


def test_each_kind_of_change_is_told_once_and_in_order(store, service, clock, heard):
    acts = [
        (lambda: store.set("a", 1), [("set", "a")]),
        (lambda: store.set_cache("c", 1), [("set", "c")]),
        (lambda: store.set_many({"y": 1, "x": 1}, ttl=5), [("set", "x"), ("set", "y")]),
        (lambda: store.set_if_absent("b", 1), [("set", "b")]),
        (lambda: store.set_if_absent("b", 2), []),
        (lambda: store.compare_and_set("b", 1, 2), [("set", "b")]),
        (lambda: store.compare_and_set("b", 1, 2), []),
        (lambda: store.compare_and_set("nowhere", 1, 2), []),
        (lambda: store.set_if_version("b", 2, store.get_with_version("b")[1]), [("set", "b")]),
        (lambda: store.set_if_version("b", 2, 1), []),
        (lambda: store.update("b", str), [("set", "b")]),
        (lambda: store.update("new", str), [("set", "new")]),
        (lambda: store.update_ttl("a", 60), [("set", "a")]),
        (lambda: store.update_ttl("nowhere", 60), []),
        (lambda: store.update_policy("a", "persist"), [("set", "a")]),
        (lambda: store.delete("new"), [("delete", "new")]),
        (lambda: store.delete("new"), []),
        (lambda: service.create_store("jobs", {"a": 1}, "evict"), [("set", "__store__")]),
        (lambda: service.create_store("jobs", exist_ok=True), []),
        (lambda: service.update_metadata("jobs", {}), [("set", "__store__")]),
        (lambda: service.update_metadata("nowhere", {}), []),
        (lambda: clock.advance(5), []),
        (lambda: store.purge_expired(), [("expire", "x"), ("expire", "y")]),
        (lambda: store.purge_expired(), []),
        (lambda: service.clear_cache(), [("delete", "c"), ("delete", "__store__")]),
        (lambda: store.set("short", 1, ttl=0), [("set", "short")]),
        (lambda: service.create_store("jobs"), [("set", "__store__")]),
        (lambda: service.delete_store("jobs"),
         [("delete", "a"), ("delete", "b"), ("expire", "short"), ("delete", "__store__")]),
        (lambda: service.delete_store("jobs"), []),
        (lambda: store.set("again", 1), [("set", "again")]),
        (lambda: service.cleanup(), [("delete", "again")]),
        (lambda: store.set("z", 1), [("set", "z")]),
        (lambda: service.delete_store_global("jobs"), [("delete", "z")]),
        (lambda: store.set("last", 1), [("set", "last")]),
        (lambda: store.clear(), [("delete", "last")]),
    ]  # fmt: skip
    expected = []
    for act, facts in acts:
        act()
        expected += facts

    assert heard.wait(len(expected)) == expected
    assert not any(change.missed for change in heard)


def test_change_says_where_and_when(service, store, clock, shared):
    theirs = ExecutionStoreService("d1", database=shared, clock=clock)
    own, other = Heard(), Heard()
    store.subscribe(own)
    theirs.subscribe("jobs", other)
    service.set_key("elsewhere", "k", 1)
    store.set("k", 1)
    clock.advance(1)
    theirs.set_key("jobs", "l", 1)

    own.wait(1), other.wait(1)

    assert own == [Change("jobs", "k", "set", None, START, own[0].place)]
    assert other == [Change("jobs", "l", "set", "d1", START + seconds(1), other[0].place)]


def test_subscriber_is_not_told_of_what_was_before(store):
    store.set("before", 1)
    heard = Heard()
    store.subscribe(heard)
    store.set("after", 1)

    assert heard.wait(1) == [("set", "after")]


def test_subscriber_goes_on_from_a_place(store, service, shared, clock):
    start = store.place()
    for number in range(5):
        store.set(str(number), number)
    first = Heard()
    store.subscribe(first, place=start)
    assert first.wait(5) == [("set", str(number)) for number in range(5)]

    again = Heard()
    elsewhere(shared, clock).subscribe("jobs", again, place=first[2].place)
    assert again.wait(2) == [("set", "3"), ("set", "4")]
    assert [one.place for one in again] == [one.place for one in first[3:]]
    assert not any(one.missed for one in first + again)


def test_many_changes_come_in_several_parts(store, monkeypatch):
    monkeypatch.setattr(events_module, "BATCH", 3)
    start = store.place()
    store.set_many({f"{number:02}": 0 for number in range(10)})
    heard = Heard()

    store.subscribe(heard, place=start)

    assert heard.wait(10) == [("set", f"{number:02}") for number in range(10)]


def test_other_process_is_noticed(store, shared, clock, heard):
    other = Heard()
    theirs = elsewhere(shared, clock)
    theirs.subscribe("jobs", other, poll_s=0.01)
    store.set("k", 1)
    other.wait(1)
    theirs.set_key("jobs", "l", 1)

    assert other.wait(2) == [("set", "k"), ("set", "l")]
    assert heard.wait(2) == other.facts


def test_postgresql_tells_who_listens(store, shared, clock):
    if shared.dialect != "postgresql":
        pytest.skip("others do not tell")
    heard = Heard()
    theirs = elsewhere(shared, clock)
    theirs.subscribe("jobs", heard, poll_s=3600)
    store.set("k", 1)
    assert heard.wait(1) == [("set", "k")]

    theirs.database.dispose()  # and it listens again on the next connection
    store.set("l", 1)
    store.delete("l")
    assert heard.wait(3) == [("set", "k"), ("set", "l"), ("delete", "l")]


def test_server_that_drops_the_connection_is_asked_again(store, shared, heard):
    if shared.dialect == "sqlite":
        pytest.skip("there is no server")
    store.set("a", 1)
    heard.wait(1)

    is_mysql = shared.dialect == "mysql"
    others = (
        "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        if is_mysql
        else "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    engine = create_engine(shared.url)
    with engine.connect() as connection:
        for (number,) in connection.execute(text(others)).all():
            connection.execute(
                text(f"KILL {number}" if is_mysql else f"SELECT pg_terminate_backend({number})")
            )
    engine.dispose()
    store.set("b", 1)

    assert heard.wait(2) == [("set", "a"), ("set", "b")]


# Transactions


def test_block_is_told_after_its_commit_and_never_if_it_comes_to_nothing(store, service, shared, heard):
    seen = []
    with shared.transaction():
        store.set("a", 1)
        store.delete("a")
        service.create_store("jobs")
        seen += heard
    with pytest.raises(KeyboardInterrupt):
        in_a_block(shared, lambda: store.set("never", 1), lambda: service.delete_store("jobs"), interrupt)
    with pytest.raises(ZeroDivisionError):
        store.update("a", lambda value: 1 // 0)
    store.set("z", 1)

    assert heard.wait(4) == [("set", "a"), ("delete", "a"), ("set", "__store__"), ("set", "z")]
    assert seen == []
    assert len(events_of(shared)) == 4


def test_subscribing_in_a_block_is_refused(store, shared):
    with shared.transaction():
        for act in (lambda: store.subscribe(print), lambda: store.place()):
            with pytest.raises(TransactionError, match=r"before the block, or after it"):
                act()


def test_callback_may_use_the_store_and_subscribe(store, shared):
    places = ExecutionStore("places", store._service)
    inner = Heard()

    def callback(change):
        with shared.transaction():
            places.set("jobs", change.place)
            places.update("count", lambda count: (count or 0) + 1)
        if change.key == "b":
            store.subscribe(inner)

    store.subscribe(callback)
    store.set_many({"a": 1, "b": 1})
    wait_for(lambda: places.get("count") == 2)
    wait_for(lambda: len(subscriptions._watchers[shared.engine].subscriptions) == 2)
    store.set("c", 1)

    assert inner.wait(1) == [("set", "c")]
    wait_for(lambda: places.get("count") == 3)
    assert places.get("jobs") == inner[0].place


# What is forgotten


def test_subscriber_that_was_away_for_too_long_is_told(store, service, clock, shared):
    store.set("a", 1)
    start = store.place()
    store.set("b", 1)
    clock.advance(86_399)
    store.set("c", 1)
    store.purge_expired()
    in_time = Heard()
    id_ = store.subscribe(in_time, place=start)
    assert in_time.wait(2) == [("set", "b"), ("set", "c")]
    assert store.unsubscribe(id_)

    clock.advance(1)
    store.purge_expired()
    assert events_of(shared) == [3]
    late = Heard()
    store.subscribe(late, place=start)
    assert late.wait(2) == [("missed", None), ("set", "c")]
    assert [one.missed for one in late] == [True, False]

    again = Heard()
    store.subscribe(again, place=late[0].place)
    assert again.wait(1) == [("set", "c")]


def test_only_so_many_events_are_kept(shared, clock, monkeypatch):
    monkeypatch.setattr("entropic.execution_store.contexts.PURGES_ONE_IN", 10)
    service = ExecutionStoreService(database=shared, clock=clock, events_kept=4)
    start = service.place("jobs")
    for number in range(19):
        service.set_key("jobs", str(number), 1)
    assert events_of(shared) == list(range(7, 20))
    service.set_key("jobs", "19", 1)
    assert events_of(shared) == list(range(17, 21))

    heard = Heard()
    service.subscribe("jobs", heard, place=start)
    assert heard.wait(5) == [("missed", None), *(("set", str(number)) for number in range(16, 20))]


def test_all_events_of_a_store_may_be_forgotten(store, service, clock, shared):
    store.set("a", 1)
    start = store.place()
    store.set("b", 1)
    clock.advance(86_400)
    store.purge_expired()
    assert events_of(shared) == []

    late, here = Heard(), Heard()
    store.subscribe(late, place=start)
    assert late.wait(1) == [("missed", None)]
    store.subscribe(here, place=late[0].place)
    store.set("c", 1)
    assert late.wait(2) == [("missed", None), ("set", "c")]
    assert here.wait(1) == [("set", "c")]


def test_store_that_goes_and_comes_back_is_followed(store, service, clock, shared, heard):
    store.set("a", 1)
    place = store.place()
    store.set("b", 1)
    store.clear()
    assert heard.wait(4) == [("set", "a"), ("set", "b"), ("delete", "a"), ("delete", "b")]
    seen = store.place()

    clock.advance(86_400)
    wait_for(lambda: _seen_at(shared) >= clock.now * 1e6)
    service.purge_expired()
    assert shared.read(lambda c: c.scalar(text("SELECT count(*) FROM entropic_execution_stores"))) == 0
    clock.advance(86_399)
    wait_for(lambda: _seen_at(shared) >= clock.now * 1e6)
    clock.advance(1)
    store.set("c", 1)
    assert heard.wait(5)[4:] == [("set", "c")]

    for kept in (place, seen):  # nobody knows what became of the store meanwhile
        late = Heard()
        store.subscribe(late, place=kept)
        assert late.wait(2) == [("missed", None), ("set", "c")]


def _seen_at(database):
    """When the subscribers of a database saw that there was nothing new."""
    watcher = subscriptions._watchers[database.engine]
    watcher.ring()
    return min(one.place.at_us for one in watcher.subscriptions.values())


def test_place_in_a_database_that_was_put_back_is_told_as_missed(store, shared):
    store.set("a", 1)
    for number in range(3):
        store.set("b", number)
    place = store.place()
    shared.write(lambda c: c.execute(text("DELETE FROM entropic_execution_events WHERE number > 2")))
    shared.write(lambda c: c.execute(text("UPDATE entropic_execution_stores SET last_event = 2")))
    heard = Heard()

    store.subscribe(heard, place=place)
    heard.wait(1)
    store.set("c", 1)

    assert heard.wait(2) == [("missed", None), ("set", "c")]


@pytest.mark.parametrize(
    "wrong",
    [{"events_kept": 0}, {"events_kept": True}, {"events_kept": 1.5}, {"events_kept_s": 0}, {"events_kept_s": None},
     {"events_kept_s": float("inf")}],
)  # fmt: skip
def test_number_of_events_that_is_none_is_refused(shared, wrong):
    with pytest.raises(ValueError, match=r"events_kept"):
        ExecutionStoreService(database=shared, **wrong)


# Callbacks and subscriptions


def test_callback_that_raises_is_logged_and_ended_and_others_go_on(store, heard, caplog):
    places = []

    def raises(change):
        places.append(change.place)
        if change.key == "b":
            raise SystemExit("mine")

    id_ = store.subscribe(raises)
    with caplog.at_level(logging.ERROR, "entropic"):
        for key in "abc":
            store.set(key, 1)
        heard.wait(3)
        wait_for(lambda: not store.unsubscribe(id_))
        store.set("d", 1)
        heard.wait(4)

    assert len(places) == 2
    (record,) = caplog.records
    assert (
        "a subscriber of the store 'jobs' raised and is told no more; the change was set of 'b'"
        in record.message
    )
    assert "SystemExit: mine" in record.exc_text
    place = record.message.rpartition(" ")[2]
    again = Heard()
    store.subscribe(again, place=place)
    assert again.wait(3) == [("set", "b"), ("set", "c"), ("set", "d")]


def test_who_has_unsubscribed_is_told_no_more_and_the_thread_ends(store, shared):
    first, second = Heard(), Heard()
    ids = [store.subscribe(first), store.subscribe(second)]
    thread = next(one for one in threading.enumerate() if one.name == "entropic-subscriptions")
    assert thread.daemon
    store.set("a", 1)
    first.wait(1), second.wait(1)

    assert store.unsubscribe(ids[0]) is True
    assert store.unsubscribe(ids[0]) is False
    assert store.unsubscribe("unknown") is False
    store.set("b", 1)
    assert second.wait(2) == [("set", "a"), ("set", "b")]
    assert first.facts == [("set", "a")]

    assert store.unsubscribe(ids[1]) is True
    thread.join(10)
    assert not thread.is_alive()
    store.set("c", 1)
    third = Heard()
    store.subscribe(third)
    store.set("d", 1)
    assert third.wait(1) == [("set", "d")]


def test_callback_may_end_its_own_subscription(store, heard):
    seen = []

    def once(change):
        seen.append(change.key)
        assert store.unsubscribe(id_)

    id_ = store.subscribe(once)
    store.set_many({"a": 1, "b": 1})

    heard.wait(2)
    store.set("c", 1)
    heard.wait(3)
    assert seen == ["a"]


def test_many_subscribe_at_once(store):
    heard = [Heard() for _ in range(60)]
    ids = []

    def subscribe(callback):
        ids.append(store.subscribe(callback))
        store._service.database.release()

    threads = [threading.Thread(target=subscribe, args=(one,)) for one in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.set("k", 1)

    for one in heard:
        assert one.wait(1) == [("set", "k")]
    assert len(set(ids)) == 60
    assert len([one for one in threading.enumerate() if one.name == "entropic-subscriptions"]) == 1


@pytest.mark.parametrize("wrong", ["", "1-2", "x-y-z", 3, "1-2-3-4"])
def test_place_that_is_none_is_refused(store, wrong):
    with pytest.raises(ValueError, match="a place is what a change has as its place"):
        store.subscribe(print, place=wrong)


def test_time_between_looks_that_is_none_is_refused(store):
    for wrong in (0, -1, True, "1", float("nan"), float("inf")):
        with pytest.raises(ValueError, match="poll_s"):
            store.subscribe(print, poll_s=wrong)


@pytest.mark.parametrize("poll_s", [1e8, 10**400], ids=["years", "more"])
def test_time_between_looks_may_be_as_long_as_one_likes(store, poll_s):
    heard = Heard()
    store.subscribe(heard, poll_s=poll_s)
    for number in range(3):
        store.set("k", number)
        heard.wait(number + 1)

    assert heard.facts == [("set", "k")] * 3


def test_subscriber_that_cannot_be_called_is_refused(store):
    with pytest.raises(TypeError, match="subscribe needs a function of a Change, not 'print'"):
        store.subscribe("print")


async def told_later(change):
    raise AssertionError


def told_bit_by_bit(change):
    yield change


class ToldLater:
    async def __call__(self, change):
        raise AssertionError


@pytest.mark.parametrize("callback", [told_later, told_bit_by_bit, ToldLater()], ids=["def", "yield", "call"])
def test_subscriber_whose_calls_do_nothing_yet_is_refused(store, callback):
    with pytest.raises(
        TypeError, match="is still to be run, as of each coroutine and generator: give a plain"
    ):
        store.subscribe(callback)
    with pytest.raises(TypeError, match=r"update needs a function of the value, and what .* still to be run"):
        store.update("k", callback)


def test_database_that_cannot_be_read_is_asked_again(sqlite, caplog, monkeypatch):
    monkeypatch.setattr(subscriptions, "TROUBLE_S", 0.01)
    store = ExecutionStore.create("jobs", database=sqlite)
    heard = Heard()
    store.subscribe(heard)
    rename = "ALTER TABLE {} RENAME TO {}"
    names = ("entropic_execution_events", "hidden")
    with caplog.at_level(logging.WARNING, "entropic"):
        sqlite.write(lambda c: c.execute(text(rename.format(*names))))
        subscriptions.ring(sqlite)
        wait_for(lambda: caplog.records)
        sqlite.write(lambda c: c.execute(text(rename.format(*names[::-1]))))
    store.set("k", 1)

    assert heard.wait(1) == [("set", "k")]
    (record,) = caplog.records
    assert "the changes in" in record.message
    assert "cannot be read, and subscribers wait for them" in record.message


def test_look_that_fails_in_whatever_way_is_made_again(sqlite, monkeypatch):
    """As where the driver's own error comes through, of a connection that another thread has closed."""
    monkeypatch.setattr(subscriptions, "TROUBLE_S", 0.01)
    failures = []

    def clock():
        if threading.current_thread().name == "entropic-subscriptions" and len(failures) < 3:
            failures.append(1)
            raise ValueError("buf must not be NULL")
        return database_now()

    store = ExecutionStore("jobs", ExecutionStoreService(database=sqlite, clock=clock))
    heard, later = Heard(), Heard()
    store.subscribe(heard)
    store.set("k", 1)
    assert heard.wait(1) == [("set", "k")]
    store.subscribe(later)
    store.set("l", 1)

    assert later.wait(1) == [("set", "l")]
    assert len(failures) == 3


def test_subscription_without_a_thread_leaves_the_next_one_alone(store, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            store.subscribe(print)
    heard = Heard()
    store.subscribe(heard)
    store.set("k", 1)

    assert heard.wait(1) == [("set", "k")]


def test_database_is_disposed_of_under_a_subscriber_who_looks_all_the_time(shared, monkeypatch):
    monkeypatch.setattr(subscriptions, "TROUBLE_S", 0.01)
    store = ExecutionStore.create("jobs", database=shared)
    heard = Heard()
    store.subscribe(heard, poll_s=1e-6)
    for number in range(100):
        store.set(str(number), number)
        shared.dispose()

    assert heard.wait(100) == [("set", str(number)) for number in range(100)]


def test_database_in_memory_has_subscribers_too(clock):
    store = ExecutionStore("jobs", ExecutionStoreService(database="sqlite://", clock=clock))
    heard = Heard()
    store.subscribe(heard)
    store.set("a", 1)
    with store._service.database.transaction():
        store.set("b", 1)

    assert heard.wait(2) == [("set", "a"), ("set", "b")]


def test_forked_child_has_no_subscriptions_and_may_have_its_own(store, shared, clock, heard, tmp_path):
    store.set("before", 1)
    heard.wait(1)
    id_ = store.subscribe(Heard())

    pid = os.fork()
    if not pid:
        try:
            assert not subscriptions._watchers
            assert store.unsubscribe(id_) is False
            own = Heard()
            store.subscribe(own)
            store.set("child", 1)
            own.wait(1)
            (tmp_path / "heard").write_text(repr(own.facts))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)

    assert (tmp_path / "heard").read_text() == "[('set', 'child')]"
    wait_for(lambda: subscriptions._watchers[shared.engine].ring() or len(heard) == 2)
    assert heard.facts == [("set", "before"), ("set", "child")]


def test_copies_of_a_database_share_the_thread(store, shared, clock):
    heard = Heard()
    ExecutionStore("jobs", ExecutionStoreService(database=copy.copy(shared), clock=clock)).subscribe(
        heard, poll_s=3600
    )
    store.set("k", 1)

    assert heard.wait(1) == [("set", "k")]


ENDS = """
from entropic.execution_store import ExecutionStore

store = ExecutionStore.create("jobs", database="sqlite:///jobs.sqlite3")
store.subscribe(lambda change: print(change.key, flush=True), poll_s=3600)
store.set("k", 1)
store.set("l", 1)
"""


@pytest.mark.slow
def test_process_with_a_subscriber_ends_as_any_other(tmp_path):
    begun = time.monotonic()
    done = run_text(ENDS, tmp_path)

    assert done.returncode == 0
    assert done.stderr == ""
    assert time.monotonic() - begun < 60
