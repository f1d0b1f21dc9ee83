"""Values of every size and shape: kept exactly, or refused with nothing lost."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entropic import DecodeError
from tests.support import strategies
from tests.support.values import is_same

texts = st.text(st.characters(), max_size=20)
values = strategies.nested(
    strategies.json_scalars
    | texts
    | st.floats()
    | st.datetimes()
    | st.binary(max_size=20)
    | strategies.arrays
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values)
def test_value_comes_back_as_it_was(store, value):
    store.set("k", value)

    assert is_same(store.get("k"), value)
    assert store.compare_and_set("k", value, value)


def test_texts_of_any_length_come_back(store):
    lengths, characters = (0, 1, 255, 256, 10_000), "a\0%'\"\\\U0001f4a5\ud800 "
    values = {f"{length} {ord(each)}": each * length for each in characters for length in lengths}

    store.set_many(values)

    assert store.items() == values


def nested(depth, make):
    value = "core"
    for _ in range(depth):
        value = make(value)
    return value


@pytest.mark.parametrize("make", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: (inner,)])
def test_deep_nesting_comes_back_or_is_refused(store, make):
    value = nested(100, make)
    store.set("k", value)
    assert store.get("k") == value
    assert store.compare_and_set("k", value, value)

    for depth in (1000, 100_000):
        deeper = nested(depth, make)
        try:
            store.set("k", deeper)
        except TypeError as error:
            assert "nested too deeply" in str(error)  # noqa: PT017
            assert store.get("k") == value
        else:
            assert is_same(store.get("k"), deeper)
        assert store.list_keys() == ["k"]


def test_value_that_contains_itself_is_refused(store):
    value = {"a": []}
    value["a"].append(value)
    with pytest.raises(TypeError, match="contains itself"):
        store.set("k", value)
    assert store.list_keys() == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(max_size=400), name=st.text(max_size=400))
def test_key_and_name_are_kept_exactly_or_refused(service, key, name):
    try:
        service.set_key(name, key, key)
    except ValueError as error:
        assert "a key" in str(error) or "the name of a store" in str(error)  # noqa: PT017
        assert service.list_stores() == []
        return
    assert service.list_stores() == [name]
    assert service.list_keys(name) == [key]
    assert service.get_key(name, key).value == key
    assert service.delete_key(name, key)
    assert service.list_stores() == []


@pytest.mark.parametrize("character", ["a", "%", "'", "\U0001f4a5"])
def test_key_of_ten_thousand_characters_is_refused(store, service, character):
    long = character * 10_000
    for act in (lambda: store.set(long, 1), lambda: store.get(long), lambda: service.create_store(long)):
        with pytest.raises(ValueError, match="is text of 1 to 255 characters, not of 10000"):
            act()


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000_000, pytest.param(b"\0" * 10_000_000, marks=pytest.mark.slow)],
    ids=["text", "bytes"],
)
def test_ten_megabytes_come_back(store, value):
    store.set("k", value)
    assert store.get("k") == value


def test_value_that_is_too_large_is_refused_and_the_transaction_lives(store, shared, monkeypatch):
    from entropic.execution_store import contents

    large = "\\" * 8_000_000  # on MySQL each takes four bytes in a statement
    monkeypatch.setattr(contents, "LONGEST", 15_000_000)
    store.set("k", 1)

    with shared.transaction():
        with pytest.raises(
            ValueError, match=r"the value takes .* bytes in a statement, and this database takes"
        ):
            store.set("k", large)
        store.set("l", 2)

    assert store.items() == {"k": 1, "l": 2}


def test_value_that_was_written_by_hand_is_an_error_that_names_the_key(store, shared):
    store.set("k", 1)
    shared.write(lambda c: c.exec_driver_sql("UPDATE entropic_execution_keys SET value = '{'"))

    with pytest.raises(
        DecodeError, match=r"the value of the key 'k' in the store 'jobs' cannot be read: .* no JSON"
    ):
        store.get("k")
    store.set("k", 2)
    assert store.get("k") == 2
