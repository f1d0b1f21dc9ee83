"""What stores and their service promise, on each database."""

import copy
import enum
import pickle
import threading
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from entropic import DuplicateNameError, DuplicateStoreError, TransactionError
from entropic.execution_store import (
    ExecutionStore,
    ExecutionStoreService,
    KeyDocument,
    KeyPolicy,
    StoreDocument,
)
from tests.support.counting import statements

START = datetime.fromtimestamp(1.7e9, UTC)
TICK = 1e-6


def seconds(number):
    return timedelta(seconds=number)


def rows(database, table="entropic_execution_keys"):
    """Count rows, those of expired keys too."""
    return database.read(lambda c: c.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


# Keys


def test_absent_key_is_none_everywhere_and_changes_nothing(store, service):
    assert store.get("k") is None
    assert store.has("k") is False
    assert store.delete("k") is False
    assert store.get_metadata("k") is None
    assert store.update_ttl("k", 5) is None
    assert store.update_policy("k", "evict") is None
    assert service.update_ttl("jobs", "k", 5) is None
    assert service.update_policy("jobs", "k", "evict") is None
    assert store.compare_and_set("k", None, 1) is False
    assert store.list_keys() == [] == store.list_stores()
    assert service.count_keys("jobs") == 0


def test_stored_none_is_told_from_an_absent_key(store):
    assert store.set("k", None) is None

    assert store.get("k") is None
    assert store.has("k") is True


def test_key_is_replaced_and_keeps_its_time_of_creation(service, clock):
    first = service.set_key("jobs", "k", {"a": [1]}, ttl=100)
    assert first == KeyDocument("jobs", "k", {"a": [1]}, created_at=START, expires_at=START + seconds(100),
                                policy=KeyPolicy.EVICT)  # fmt: skip

    clock.advance(10)
    second = service.set_key("jobs", "k", 2, ttl=500)
    assert (second.created_at, second.updated_at) == (START, START + seconds(10))
    assert second.expires_at == START + seconds(510)

    clock.advance(10)
    third = service.set_key("jobs", "k", 3)
    assert (third.expires_at, third.policy, third.created_at) == (None, KeyPolicy.PERSIST, START)
    assert service.get_key("jobs", "k") == third


def test_what_is_returned_is_a_copy(store):
    value = {"a": [1]}
    store.set("k", value)
    value["a"].append(2)
    store.get("k")["a"].append(3)

    assert store.get("k") == {"a": [1]}


@pytest.mark.parametrize(
    ("ttl", "policy", "stored"),
    [(None, None, "persist"), (None, "evict", "evict"), (5, None, "evict"), (5, "persist", "evict"),
     (None, KeyPolicy.EVICT, "evict"), (0.5, KeyPolicy.PERSIST, "evict")],
)  # fmt: skip
def test_time_to_live_always_evicts(service, ttl, policy, stored):
    given = {} if policy is None else {"policy": policy}
    assert service.set_key("jobs", "k", 1, ttl, **given).policy == stored
    assert service.get_key("jobs", "k").policy is KeyPolicy(stored)


def test_default_policy_is_that_of_keys_without_one(service):
    cache = ExecutionStore("cache", service, default_policy="evict")
    cache.set("a", 1)
    cache.set("b", 1, policy="persist")
    cache.set_if_absent("c", 1)
    cache.update("d", lambda value: 1)
    cache.set_many({"e": 1})

    cache.clear_cache()

    assert cache.list_keys() == ["b"]


@pytest.mark.parametrize("policy", ["foo", "", None, 3, "PERSIST", ["evict"]])
def test_policy_that_is_none_is_refused(service, store, policy):
    if policy is not None:
        with pytest.raises(ValueError, match="a policy is 'persist' or 'evict', not"):
            service.set_key("jobs", "k", 1, policy=policy)
    for act in (
        lambda: service.update_policy("jobs", "k", policy),
        lambda: ExecutionStore("jobs", service, policy),
    ):
        with pytest.raises(ValueError, match="a policy is 'persist' or 'evict', not"):
            act()
    assert store.list_stores() == []


@pytest.mark.parametrize(
    "ttl", [-1, -0.001, True, "5", float("nan"), float("inf"), 1e12, 10**400, [1]], ids=str
)
def test_time_to_live_that_is_none_is_refused(service, store, ttl):
    store.set("k", 1)
    for act in (
        lambda: store.set("k", 2, ttl),
        lambda: store.set_if_absent("other", 2, ttl),
        lambda: store.compare_and_set("k", 1, 2, ttl),
        lambda: store.update("k", lambda value: 2, ttl),
        lambda: store.set_many({"k": 2}, ttl),
        lambda: store.update_ttl("k", ttl),
    ):
        with pytest.raises(ValueError, match="a ttl"):
            act()
    assert store.items() == {"k": 1}
    assert service.get_key("jobs", "k").expires_at is None


@pytest.mark.parametrize("key", ["", "x" * 256, "a\0b", "\ud800", None, 3, b"k"])
def test_key_that_no_database_keeps_is_refused(store, service, key):
    acts = (
        lambda: store.set(key, 1), lambda: store.get(key), lambda: store.has(key), lambda: store.delete(key),
        lambda: store.set_if_absent(key, 1), lambda: store.compare_and_set(key, 1, 2), lambda: store.update_ttl(key, 1),
        lambda: store.update(key, lambda value: 1), lambda: store.set_many({"good": 1, key: 2}),
        lambda: store.get_many([key]), lambda: store.update_policy(key, "evict"), lambda: store.get_metadata(key),
    )  # fmt: skip
    for act in acts:
        with pytest.raises(ValueError, match="a key "):
            act()
    for act in (lambda: ExecutionStore(key, service), lambda: service.set_key(key, "k", 1)):
        with pytest.raises(ValueError, match="the name of a store "):
            act()
    assert store.list_stores() == []


def test_key_that_is_an_array_is_refused_as_any_other_that_is_no_text(store):
    np = pytest.importorskip("numpy")
    for act in (store.get, store.has, store.delete, partial(store.set, value=1)):
        with pytest.raises(ValueError, match="a key is text of 1 to 255 characters"):
            act(np.arange(2))


KEYS = ["a", "A", "a ", " a", "á", "a\u0301", "x" * 255, "\U0001f4a5" * 255, "%", "_", "'", '"', "\\", "a/b", "..",
        "\ufffd", "\U0010ffff", "__Store__", "\n", "run:1", "🇩🇪", "`", "?", ":x", "%s", "ß", "ss"]  # fmt: skip


def test_every_other_key_is_kept_exactly_and_apart(store, service):
    for key in KEYS:
        store.set(key, key)
        ExecutionStore(key, service).set("k", key)

    assert store.list_keys() == sorted(KEYS)
    assert store.items() == {key: key for key in KEYS}
    assert store.get_many(KEYS) == {key: key for key in KEYS}
    assert all(store.has(key) and store.get(key) == key for key in KEYS)
    assert store.list_stores() == sorted([*KEYS, "jobs"])
    for key in KEYS:
        assert store.delete(key)
        service.delete_store(key)
    assert store.list_stores() == []


@pytest.mark.parametrize(
    "prefix", ["", "a", "a%", "_", "x" * 255, "\U0010ffff", "b\U0010ffff", "\ud7ff", "run:", "zz"]
)
def test_prefix_is_no_pattern(store, prefix):
    keys = ["a", "a%", "a%b", "ab", "A", "á", "_", "_a", "b\U0010ffff", "b\U0010ffffc", "c", "\ud7ff", "\ue000",
            "\U0010ffff", "\U0010ffff\U0010ffff", "run:1", "run:2", "run;", "x" * 255]  # fmt: skip
    store.set_many({key: key for key in keys})

    expected = sorted(key for key in keys if key.startswith(prefix))

    assert store.list_keys(prefix) == expected
    assert list(store.items(prefix)) == expected


@pytest.mark.parametrize("prefix", ["x" * 256, "\0", None, 3])
def test_prefix_that_no_key_has_is_refused(store, prefix):
    with pytest.raises(ValueError, match="a prefix"):
        store.list_keys(prefix)


def test_key_of_the_store_is_reserved(store, service):
    store.set("k", 1)
    assert service.has_key("jobs", "__store__") is False
    assert service.get_key("jobs", "__store__") is None
    service.create_store("jobs", {"owner": "Ada"})

    assert service.has_key("jobs", "__store__") is True
    assert service.get_key("jobs", "__store__") == service.get_store("jobs")
    assert store.get("__store__") == {"owner": "Ada"}
    assert store.list_keys() == ["k"]
    assert service.count_keys("jobs") == 1
    for act in (
        lambda: store.set("__store__", 1), lambda: store.delete("__store__"), lambda: store.update_ttl("__store__", 1),
        lambda: store.set_if_absent("__store__", 1), lambda: store.update("__store__", dict),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="reserved key"):
            act()


def test_metadata_of_a_key_are_its_times_and_policy(store, clock):
    store.set("k", 1)
    clock.advance(1)
    store.set_cache("k", 2, ttl=60)

    assert store.get_metadata("k") == {
        "created_at": START, "updated_at": START + seconds(1), "expires_at": START + seconds(61), "policy": "evict",
    }  # fmt: skip


# Expiry


@pytest.mark.parametrize(
    ("start", "ttl"),
    [(1.7e9, 60), (1.7e9 + 0.1, 0.1), (1_699_999_999.999999, TICK), (1_712_345_678.123457, 86400.123456)],
)
def test_key_is_invisible_from_the_microsecond_on_in_which_it_expires(service, clock, start, ttl):
    clock.now = start
    store = ExecutionStore("jobs", service)
    expires = service.set_key("jobs", "k", 1, ttl).expires_at
    assert expires == datetime.fromtimestamp(start, UTC) + seconds(ttl)

    clock.now = (expires - timedelta(microseconds=1)).timestamp()
    assert store.has("k")
    assert store.get("k") == 1
    assert service.count_keys("jobs") == 1
    assert store.set_if_absent("k", 2) is False
    assert store.compare_and_set("k", 1, 1)
    assert service.has_store("jobs")

    clock.now = expires.timestamp()
    assert not store.has("k")
    assert store.get("k") is None
    assert store.get_many(["k"]) == {} == store.items()
    assert store.list_keys() == []
    assert service.count_keys("jobs") == 0
    assert service.count_stores() == 0 == service.count_stores_global()
    assert not service.has_store("jobs")
    assert not service.has_store_global("jobs")
    assert service.get_store("jobs") is None
    assert service.list_stores() == [] == service.list_stores_global()
    assert store.get_metadata("k") is None
    assert not store.compare_and_set("k", 1, 2)
    assert not store.delete("k")
    assert service.update_ttl("jobs", "k", 60) is None
    assert service.update_policy("jobs", "k", "persist") is None
    assert store.set_if_absent("k", 3, ttl=5)
    assert store.get("k") == 3


@pytest.mark.parametrize("how", ["set", "set_if_absent", "update"])
def test_key_that_has_expired_is_made_anew(service, store, clock, how):
    store.set("k", 1, ttl=5)
    store.set("k", 1, ttl=5)
    clock.advance(5)
    write = {
        "set": lambda: store.set("k", 2),
        "set_if_absent": lambda: store.set_if_absent("k", 2),
        "update": lambda: store.update("k", lambda value: 2 if value is None else 0),
    }[how]

    write()

    assert service.get_key("jobs", "k") == KeyDocument("jobs", "k", 2, created_at=START + seconds(5))


def test_zero_seconds_are_over_at_once(store, service):
    assert service.set_key("jobs", "k", 1, ttl=0).expires_at == START
    assert not store.has("k")
    store.set("k", 1)
    document = service.update_ttl("jobs", "k", 0)
    assert document
    assert document.expires_at == START
    assert store.list_keys() == []


def test_time_to_live_is_changed_and_taken_away(store, service, clock):
    first = service.set_key("jobs", "k", 1)
    document = service.update_ttl("jobs", "k", 30)
    assert (document.expires_at, document.policy) == (START + seconds(30), KeyPolicy.EVICT)
    assert document.updated_at is None

    clock.advance(29)
    store.update_ttl("k", 30)
    clock.advance(29)
    assert store.has("k")
    assert service.update_ttl("jobs", "k", None).expires_at is None
    clock.advance(1e6)
    assert service.get_key("jobs", "k").policy is KeyPolicy.EVICT
    assert service.get_key("jobs", "k").created_at == first.created_at


def test_policy_is_changed_and_what_persists_has_no_end(store, service, clock):
    store.set("k", 1, ttl=5)
    assert service.update_policy("jobs", "k", "evict").expires_at == START + seconds(5)
    document = service.update_policy("jobs", "k", KeyPolicy.PERSIST)
    assert (document.policy, document.expires_at) == (KeyPolicy.PERSIST, None)
    clock.advance(10)
    store.clear_cache()
    assert store.has("k")
    store.update_policy("k", "evict")
    store.clear_cache()
    assert not store.has("k")


def test_expired_keys_are_removed_with_stores_that_have_no_others(service, store, shared, clock):
    other = ExecutionStoreService("d1", database=shared, clock=clock)
    store.set_many({"a": 1, "b": 1}, ttl=5)
    store.set("c", 1)
    service.set_key("gone", "a", 1, ttl=5)
    service.create_store("made")
    service.set_key("made", "a", 1, ttl=5)
    other.set_key("gone", "a", 1, ttl=5)
    assert service.purge_expired() == 0
    clock.advance(5)

    assert store.purge_expired() == 2
    assert service.purge_expired() == 2
    assert rows(shared) == 2
    assert service.list_stores() == ["jobs", "made"]
    assert other.purge_expired() == 1
    assert rows(shared, "entropic_execution_stores") == 4
    clock.advance(86_400)
    assert service.purge_expired() == 0
    assert rows(shared, "entropic_execution_stores") == 2


def test_expired_keys_are_removed_with_every_so_many_changes(service, store, shared, clock, monkeypatch):
    monkeypatch.setattr("entropic.execution_store.contexts.PURGES_ONE_IN", 3)
    store.set("a", 1, ttl=5)
    clock.advance(5)
    store.set("b", 1)
    assert rows(shared) == 2
    with shared.transaction():
        store.set("b", 2)  # the third change; but nothing is tidied inside a transaction
    assert rows(shared) == 2
    store.set_many({"c": 1, "d": 1})
    store.delete("d")  # the sixth
    assert rows(shared) == 2
    assert service.list_keys("jobs") == ["b", "c"]


# Changes that need to be atomic


def test_absent_key_is_set_once(store, service):
    assert store.set_if_absent("k", None, policy="evict") is True
    assert store.set_if_absent("k", 2) is False
    assert service.get_key("jobs", "k") == KeyDocument(
        "jobs", "k", None, created_at=START, policy=KeyPolicy.EVICT
    )


@pytest.mark.parametrize(
    ("stored", "expected", "is_equal"),
    [(1, 1, True), (1, True, True), (1, 1.0, True), (1, 2, False), ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
     (float("nan"), float("nan"), True), (None, None, True), ((1,), [1], False), (0, None, False),
     (1, object(), False)],
)  # fmt: skip
def test_value_is_set_if_the_stored_one_equals_the_expected_one(store, stored, expected, is_equal):
    store.set("k", stored)

    assert store.compare_and_set("k", expected, "new") is is_equal
    assert (store.get("k") == "new") is is_equal


def test_arrays_are_compared_as_wholes(store):
    np = pytest.importorskip("numpy")
    store.set("k", {"w": np.arange(3)})

    assert store.compare_and_set("k", {"w": np.arange(4)}, 1) is False
    assert store.compare_and_set("k", {"w": np.arange(3.0)}, 1) is False
    assert store.compare_and_set("k", {"w": np.arange(3)}, 1) is True


def test_comparing_and_setting_keeps_policy_and_expiry_unless_others_are_given(service, store, clock):
    store.set("k", 1, ttl=60)
    clock.advance(10)
    assert store.compare_and_set("k", 1, 2)
    document = service.get_key("jobs", "k")
    assert (document.created_at, document.updated_at) == (START, START + seconds(10))
    assert (document.expires_at, document.policy) == (START + seconds(60), KeyPolicy.EVICT)

    assert store.compare_and_set("k", 2, 3, ttl=60)
    assert service.get_key("jobs", "k").expires_at == START + seconds(70)
    assert store.compare_and_set("k", 3, 4, policy="persist")
    assert service.get_key("jobs", "k").expires_at is None
    assert store.compare_and_set("k", 4, 5, policy="evict")
    assert service.get_key("jobs", "k").policy is KeyPolicy.EVICT


class Sneaky:
    """Equal to everything, and changes the store while it is compared."""

    def __init__(self, *acts):
        self.acts = list(acts)

    def __eq__(self, other):
        if self.acts:
            self.acts.pop(0)()
        return True

    __hash__ = None


def test_value_that_was_written_meanwhile_is_compared_again(store):
    store.set("k", 1)
    sneaky = Sneaky(lambda: store.set("k", 1), lambda: store.set("k", 2))

    assert store.compare_and_set("k", sneaky, "mine") is True
    assert sneaky.acts == []

    store.set("k", 1)
    assert store.compare_and_set("k", Sneaky(lambda: store.delete("k")), "mine") is False
    assert store.has("k") is False


def test_version_is_another_one_after_each_write_and_what_has_another_is_not_set(service, store, clock):
    assert store.get_with_version("k") == (None, None)
    assert store.set_if_version("k", 1, None, ttl=60)
    assert not store.set_if_version("k", 2, None)
    value, first = store.get_with_version("k")
    store.update_ttl("k", 90)
    assert (value, store.get_with_version("k")) == (1, (1, first))

    assert store.set_if_version("k", 2, first)
    document = service.get_key("jobs", "k")
    assert (document.value, document.expires_at, document.policy) == (2, START + seconds(90), KeyPolicy.EVICT)
    assert not store.set_if_version("k", 3, first)
    store.set("k", 2)
    _, second = store.get_with_version("k")
    store.set("k", 2)
    assert not store.set_if_version("k", 3, second)
    assert not store.set_if_version("nowhere", 3, second)
    assert (store.get("k"), store.has("nowhere")) == (2, False)
    assert store.set_if_version("k", 3, store.get_with_version("k")[1], policy="evict")
    assert service.get_key("jobs", "k").policy is KeyPolicy.EVICT


def test_key_that_expired_or_was_made_anew_has_no_former_version(store, clock):
    store.set("k", 1, ttl=5)
    _, version = store.get_with_version("k")
    clock.advance(5)
    assert store.get_with_version("k") == (None, None)
    assert not store.set_if_version("k", 2, version)
    assert store.set_if_version("k", 2, None)
    assert not store.set_if_version("k", 3, version)
    store.delete("k")
    store.set("k", 1)
    assert not store.set_if_version("k", 3, version)


def test_new_key_has_the_policy_of_the_store_or_the_one_that_is_given(service):
    store = ExecutionStore("jobs", service, "evict")
    assert store.set_if_version("a", 1, None)
    assert store.set_if_version("b", 1, None, policy="persist")
    assert [service.get_key("jobs", key).policy.value for key in "ab"] == ["evict", "persist"]


@pytest.mark.parametrize("version", [True, "1", 1.0])
def test_what_is_no_version_is_refused(store, version):
    store.set("k", 1)
    with pytest.raises(TypeError, match="what get_with_version has given"):
        store.set_if_version("k", 2, version)
    assert store.get("k") == 1


def test_key_that_expired_meanwhile_is_not_set(store, clock):
    store.set("k", 1, ttl=5)

    assert store.compare_and_set("k", Sneaky(lambda: clock.advance(5)), 2, ttl=60) is False
    assert not store.has("k")


def test_update_gives_the_function_the_value_and_stores_what_it_returns(store, service, clock):
    assert store.update("k", lambda value: [value]) == [None]
    store.update_ttl("k", 60)
    clock.advance(1)
    assert store.update("k", lambda value: [*value, 2]) == [None, 2]

    document = service.get_key("jobs", "k")
    assert document.value == [None, 2]
    assert (document.created_at, document.updated_at) == (START, START + seconds(1))
    assert document.expires_at == START + seconds(60)
    store.update("k", str, ttl=5)
    assert service.get_key("jobs", "k").expires_at == START + seconds(6)
    store.update("k", str, policy="persist")
    assert service.get_key("jobs", "k").expires_at is None


def test_update_whose_function_raises_changes_nothing(store, service):
    for key in ("k", "absent"):
        if key == "k":
            store.set("k", {"a": 1})
        with pytest.raises(ZeroDivisionError):
            store.update(key, lambda value: 1 // 0)
        with pytest.raises(TypeError, match="cannot store"):
            store.update(key, lambda value: object())
    assert store.items() == {"k": {"a": 1}}
    assert service.list_stores() == ["jobs"]


def test_update_without_a_function_is_refused(store):
    with pytest.raises(TypeError, match="update needs a function of the value, not 5"):
        store.update("k", 5)
    assert store.list_stores() == []


def test_function_of_an_update_may_use_the_store(store):
    store.set_many({"a": 1, "b": 2})

    def total(value):
        store.set("copy", store.get("b"))
        return value + store.get("b")

    assert store.update("a", total) == 3
    assert store.items() == {"a": 3, "b": 2, "copy": 2}


@pytest.mark.parametrize("is_there", [True, False])
def test_update_calls_its_function_once_and_others_who_write_wait(store, shared, clock, is_there):
    other = ExecutionStoreService(database=pickle.loads(pickle.dumps(shared)), clock=clock)
    thread = threading.Thread(target=other.set_key, args=("jobs", "k", "theirs"))
    if is_there:
        store.set("k", "first")
    seen = []

    def replace(value):
        seen.append(value)
        thread.start()
        return "ours"

    assert store.update("k", replace) == "ours"
    thread.join()

    assert seen == ["first" if is_there else None]
    assert store.get("k") == "theirs"


@pytest.mark.parametrize("is_there", [True, False])
def test_function_of_an_update_that_sets_the_key_itself_is_an_error(store, is_there):
    if is_there:
        store.set("k", "first")

    with pytest.raises(TransactionError, match="'k' of the store 'jobs' has changed it itself"):
        store.update("k", lambda value: store.set("k", "inner"))

    assert store.items() == ({"k": "first"} if is_there else {})


# Many at once


def test_many_keys_are_set_as_a_whole_and_got_in_one_go(store, service):
    store.set_many({f"k{number:04}": number for number in range(1200)}, ttl=60)
    assert service.count_keys("jobs") == 1200
    assert store.get_many(f"k{number:04}" for number in (3, 1, 5000, 3)) == {"k0003": 3, "k0001": 1}
    assert len(store.get_many(store.list_keys())) == 1200
    with pytest.raises(TypeError, match="cannot store"):
        store.set_many({"a": 1, "b": object()})
    assert not store.has("a")
    store.set_many({})
    assert store.get_many([]) == {}
    with pytest.raises(TypeError, match="a list of keys"):
        store.get_many("k0001")


def test_listing_with_values_is_one_statement(store, shared):
    store.set_many({f"run:{number}": number for number in range(5)})
    with statements(shared.engine) as seen:
        store.items("run:")
        store.list_keys("run:")
    assert len([one for one in seen if "SELECT" in one]) == 2


def test_each_call_costs_few_statements(sqlite):
    store = ExecutionStore.create("jobs", database=sqlite)
    store.set("k", 1)

    def cost(call, *args):
        with statements(sqlite.engine) as seen:
            getattr(store, call)(*args)
        return len([one for one in seen if not one.startswith(("BEGIN", "PRAGMA"))])

    assert {call: cost(call, *args) for call, args in CALLS.items()} == {
        "get": 1, "has": 1, "list_keys": 1, "items": 1, "get_many": 1, "list_stores": 1, "get_metadata": 1,
        # The store's row and its counter; the event; and what is asked for.
        "set": 3, "set_many": 3, "set_if_absent": 4, "compare_and_set": 6, "delete": 5,
    }  # fmt: skip


def test_set_is_counted_and_told_in_three_statements_on_each_database(store, shared):
    store.set("k", 1)
    with statements(shared.engine) as seen:
        store.set("k", 2)

    kinds = [one.split()[0] for one in seen if not one.startswith("BEGIN")]
    # MySQL returns nothing of a row that it has changed.
    assert kinds == ["UPDATE", *["SELECT"] * (shared.dialect == "mysql"), "INSERT", "INSERT"]


CALLS = {
    "get": ("k",), "has": ("k",), "list_keys": (), "items": ("a",), "get_many": (["k", "l"],), "list_stores": (),
    "get_metadata": ("k",), "set": ("k", 2), "set_many": ({"a": 1, "b": 2},), "set_if_absent": ("k", 2),
    "compare_and_set": ("k", 2, 3), "delete": ("k",),
}  # fmt: skip


class Kind(enum.StrEnum):
    JOBS = "jobs"


class Mixed(str, enum.Enum):  # noqa: UP042
    KEY = "k"


def test_member_of_an_enum_of_texts_is_its_text(service, store):
    store.set("k", 1)

    assert ExecutionStore(Kind.JOBS, service).get(Mixed.KEY) == 1
    assert store.get_many([Mixed.KEY]) == {"k": 1}
    store.set(Mixed.KEY, 2)
    assert store.items() == {"k": 2}


# Stores


def test_store_exists_by_its_keys_alone(service, store, clock):
    store.set("b", 1)
    clock.advance(5)
    store.set("a", 1)

    assert service.get_store("jobs") == StoreDocument("jobs", created_at=START)
    assert service.get_store("jobs").metadata == {}
    assert service.has_store("jobs")
    store.delete("b")
    assert service.get_store("jobs").created_at == START + seconds(5)
    store.delete("a")
    assert service.get_store("jobs") is None


def test_created_store_has_metadata(service, clock):
    made = service.create_store("s", {"owner": ("Ada", 1)}, policy="evict")
    assert made == StoreDocument("s", value={"owner": ("Ada", 1)}, created_at=START, policy=KeyPolicy.EVICT)
    assert made == service.get_store("s")
    assert made.metadata == {"owner": ("Ada", 1)}
    assert service.list_stores() == ["s"]
    assert service.count_keys("s") == 0

    clock.advance(1)
    changed = service.update_metadata("s", {"a": 1})
    assert (changed.metadata, changed.updated_at, changed.created_at) == ({"a": 1}, START + seconds(1), START)
    assert service.update_metadata("absent", {}) is None
    assert service.update_metadata("s", None).metadata == {}
    assert service.list_stores() == ["s"]


def test_store_is_created_once(service, store):
    store.set("k", 1)
    service.create_store("jobs", {"a": 1})
    with pytest.raises(DuplicateStoreError, match=r"the store 'jobs' was created before") as caught:
        service.create_store("jobs", {"a": 2})

    assert isinstance(caught.value, DuplicateNameError)
    assert service.create_store("jobs", {"a": 2}, exist_ok=True).metadata == {"a": 1}
    assert store.get("k") == 1
    for wrong in ([], "text", 3):
        with pytest.raises(TypeError, match="metadata of a store are a dict"):
            service.create_store("other", wrong)
    with pytest.raises(ValueError, match="a policy"):
        service.create_store("other", policy="x")
    assert service.list_stores() == ["jobs"]


def test_metadata_make_a_store_a_created_one(service, store, clock):
    store.set("k", 1)
    clock.advance(1)
    assert service.update_metadata("jobs", {"a": 1}).metadata == {"a": 1}
    store.delete("k")
    assert service.list_stores() == ["jobs"]


def test_cache_is_cleared_of_what_may_be_evicted_and_no_more(service, store):
    service.create_store("jobs", {"a": 1}, policy="evict")
    store.set("persists", 1)
    store.set("ttl", 1, policy="persist")
    store.update_ttl("ttl", 60)
    store.set_cache("evicts", 1)
    store.set("short", 1, ttl=0)
    service.set_cache_key("other", "k", 1)
    service.create_store("empty", policy="evict")

    count = service.clear_cache("jobs")

    assert (count, count.stores, count.keys) == (3, 0, 2)
    assert store.list_keys() == ["persists"]
    assert service.get_store("jobs").metadata == {}
    assert service.list_stores() == ["empty", "jobs", "other"]
    count = service.clear_cache()
    assert (count, count.stores, count.keys) == (2, 2, 1)
    assert service.list_stores() == ["jobs"]
    assert service.clear_cache() == 0 == service.clear_cache("unknown")


def test_counts_of_what_was_deleted_have_documents_stores_and_keys(service, store, shared):
    store.set_many({"a": 1, "b": 1})
    count = service.delete_store("jobs")
    assert (count, count.stores, count.keys) == (2, 1, 2)
    assert service.delete_store("jobs") == 0
    service.create_store("s")
    store.set("short", 1, ttl=0)
    count = service.delete_store("s")
    assert (count, count.stores, count.keys) == (1, 1, 0)
    assert service.delete_store("jobs").stores == 0

    service.create_store("s")
    service.set_keys("s", {"a": 1, "b": 1})
    count = service.cleanup()
    assert (count, count.stores, count.keys) == (3, 1, 2)
    assert rows(shared) == 0
    for copied in (pickle.loads(pickle.dumps(count)), copy.copy(count)):
        assert (copied, copied.stores, copied.keys) == (3, 1, 2)


def test_clear_takes_everything(service, store):
    service.create_store("jobs", {"a": 1})
    store.set("k", 1)
    assert store.clear() is None
    assert service.list_stores() == []


# Contexts


@pytest.fixture
def contexts(service, shared, clock):
    """The services of the global context and of two data sets, each with a store "s"."""
    one = uuid.UUID(int=1)
    found = [service, *(ExecutionStoreService(id_, database=shared, clock=clock) for id_ in ("d1", one))]
    for number, each in enumerate(found):
        each.set_key("s", "k", number)
    return found


def test_contexts_do_not_see_each_other(contexts):
    assert [each.get_key("s", "k").value for each in contexts] == [0, 1, 2]
    assert [each.dataset_id for each in contexts] == [None, "d1", str(uuid.UUID(int=1))]
    assert [each.get_key("s", "k").dataset_id for each in contexts] == [None, "d1", str(uuid.UUID(int=1))]

    contexts[1].create_store("mine", {"a": 1})
    assert [each.list_stores() for each in contexts] == [["s"], ["mine", "s"], ["s"]]
    assert [each.count_stores() for each in contexts] == [1, 2, 1]
    contexts[0].delete_store("s")
    assert [each.has_store("s") for each in contexts] == [False, True, True]


def test_global_methods_see_all_contexts(contexts):
    contexts[1].create_store("s", {"a": 1})
    found = contexts[0].list_stores_global()
    assert [(one.store_name, one.dataset_id, one.metadata) for one in found] == [
        ("s", None, {}), ("s", str(uuid.UUID(int=1)), {}), ("s", "d1", {"a": 1}),
    ]  # fmt: skip
    assert {one.created_at for one in found} == {START}
    assert contexts[1].count_stores_global() == 3
    assert contexts[1].has_store_global("s")

    assert contexts[1].cleanup() == 2
    assert contexts[0].count_stores_global() == 2
    count = contexts[1].delete_store_global("s")
    assert (count, count.stores, count.keys) == (2, 2, 2)
    assert contexts[0].list_stores_global() == []
    assert not contexts[0].has_store_global("s")


class ObjectId:
    def __str__(self):
        return "5f8f8c44b54764421b7156c1"


def test_context_is_text(shared, clock):
    for ids in (
        ("5f8f8c44b54764421b7156c1", ObjectId()), ("7", 7),
        ("00000000-0000-0000-0000-000000000001", uuid.UUID(int=1)),
    ):  # fmt: skip
        first, second = (ExecutionStoreService(one, database=shared, clock=clock) for one in ids)
        first.set_key("s", "k", 1)
        assert second.get_key("s", "k").value == 1


@pytest.mark.parametrize("wrong", [True, 1.5, b"x", object(), "", "x" * 256, "\0", ["d"]])
def test_context_that_is_none_is_refused(shared, wrong):
    with pytest.raises(ValueError, match="a dataset_id"):
        ExecutionStoreService(wrong, database=shared)


@pytest.mark.parametrize(
    "url", ["sqlite:///lab.sqlite3", "postgresql+psycopg://me:secret@host/lab", "mysql://host/lab"]
)
def test_database_in_the_place_of_a_context_is_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for act in (ExecutionStoreService, partial(ExecutionStore.create, "jobs")):
        with pytest.raises(ValueError, match="the dataset_id is the URL of a database") as raised:
            act(url)
        assert "secret" not in str(raised.value)
    with pytest.raises(TypeError, match="a store needs an ExecutionStoreService, not 'str'"):
        ExecutionStore("jobs", url)

    assert list(tmp_path.iterdir()) == []


def test_store_is_made_in_one_call(shared):
    store = ExecutionStore.create("s", "d1", "evict", database=shared)
    assert store.store_name == "s"
    assert store.list_stores() == []
    store.set("k", 1, ttl=600)
    assert store.get("k") == 1
    assert ExecutionStore.create("s", database=shared).get("k") is None
    before = datetime.now(UTC)
    assert abs(store.get_metadata("k")["created_at"] - before) < seconds(60)
    assert store.get_metadata("k")["expires_at"] - store.get_metadata("k")["created_at"] == seconds(600)
    assert "'s'" in repr(store)
    assert "d1" in repr(store)


def test_service_travels(service):
    service.set_key("s", "k", 1)
    again = pickle.loads(pickle.dumps(ExecutionStoreService("d", database=service.database)))
    assert again.dataset_id == "d"
    assert again.has_store_global("s")
