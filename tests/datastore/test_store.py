"""The component datastore on each database: data, rows, files, what is listed and what goes."""

import hashlib
import logging
import os
import pickle
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import h5py
import numpy as np
import pytest
from sqlalchemy import create_engine, delete, insert, make_url
from sqlalchemy.exc import IntegrityError

from entropic import (
    AlreadyExistsError,
    CorruptFileError,
    Database,
    DecodeError,
    HashCollisionError,
    NotFoundError,
    ResultFileMissingError,
    ResultsDirUnavailableError,
)
from entropic.datastore import ComponentState, DataItem, DataStore, hash_state, join_with_underscores
from entropic.datastore import store as module
from entropic.disk.files import digest_of
from entropic.sql.tables.components import ComponentInputRow, ComponentStateRow, DataItemRow
from tests.support.component_cases import Component, Filter, Source, chain, counts, files_of
from tests.support.counting import statements

NAMES = ["spikes", "a/b", "../up", "/x", ".", "50%", "it's", '"q"', "β/γ 😀", "ä" * 255, " x ", "A", "a"]


def both(value, other):
    np.testing.assert_array_equal(value, other)
    assert type(value) is type(other)


# What is stored, on every database


@pytest.mark.parametrize("generator", [hash_state, join_with_underscores])
def test_data_come_back_by_component_and_attribute(shared, tmp_path, generator):
    store = DataStore(shared, tmp_path / "data", generator)
    source = Source({"rate": 8.0, "url": "a/b c"}, version=0.1)
    filtered = Filter({"k": 2}, source)
    mixed = Component({}, [source, filtered])
    values = {
        "range": range(1000),
        "none": None,
        "array": np.arange(6).reshape(2, 3),
        "dict": {"a": (1, {2})},
    }

    for one in (source, filtered, mixed):
        for name, value in values.items():
            store.store(one, name, value)

    for one in (source, filtered, mixed):
        for name, value in values.items():
            both(store.retrieve(one, name), value)
            assert store.has(one, name)
    again = DataStore(shared, tmp_path / "data", generator)
    both(again.retrieve(Filter({"k": 2}, Source({"url": "a/b c", "rate": 8.0}, version=0.1))
                        if generator is hash_state else filtered, "array"), values["array"])  # fmt: skip
    assert counts(store)["component_states"] == 3
    assert counts(store)["component_inputs"] == 3


def test_what_is_missing_is_none_and_leaves_no_row(store):
    source = Source({"rate": 1})
    store.store(source, "x", 1)
    before = counts(store)

    for one, name in ((source, "y"), (Source({"rate": 2}), "x"), (Filter({}, source), "x")):
        assert store.retrieve(one, name) is None
        assert store.retrieve(one, name, 7) == 7
        assert not store.has(one, name)
        with pytest.raises(NotFoundError, match=f"has no '{name}' in DataStore"):
            store.retrieve(one, name, strict=True)
        assert store.ancestors(Filter({}, Filter({}))) == []
        assert store.delete(one, name) == 0
    assert counts(store) == before


def test_data_of_a_component_are_not_those_of_its_input(store):
    first = Source({"rate": 1})
    second = Filter({"k": 1}, first)
    store.store(second, "x", 2)

    assert not store.has(first, "x")
    assert store.retrieve(second, "x") == 2
    store.store(first, "x", 1)
    assert (store.retrieve(first, "x"), store.retrieve(second, "x")) == (1, 2)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_that_of_an_attribute(local, name):
    one = Component({name: name}, version=name)
    local.store(one, name, np.arange(3))
    local.store(one, name + "2" if len(name) < 255 else "other", 2)

    both(local.retrieve(one, name), np.arange(3))
    (item,) = local.list_contents(attribute=name, version=name, parameters={name: name})
    assert (item.attribute, item.version, item.parameters) == (name, name, {name: name})
    assert local.root_dir in item.path.parents
    assert len(files_of(local)) == 1


def test_names_that_differ_in_case_accents_and_spaces_are_several(store):
    names = ["a", "A", "á", "a ", " a", "a%", "ａ"]
    one = Component({"n": 1})
    for name in names:
        store.store(one, name, name)

    assert [store.retrieve(one, name) for name in names] == names
    assert sorted(item.attribute for item in store.list_contents()) == sorted(names)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", ValueError),
        ("x" * 256, ValueError),
        ("a\0", ValueError),
        ("\ud800", ValueError),
        (3, TypeError),
        (None, TypeError),
    ],
)
def test_name_that_not_every_database_keeps_is_refused(local, name, error):
    for call in (
        local.retrieve,
        local.has,
        lambda c, n: local.store(c, n, 1),
        lambda c, n: local.compute_once(c, n, int),
    ):
        with pytest.raises(error, match="the name of an attribute"):
            call(Component(), name)
    assert sum(counts(local).values()) == 0


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000,
        "😀%'\"\\\0\ud800",
        pytest.param(b"\0" * 10_000_000, marks=pytest.mark.slow),
        pytest.param("ß" * 10_000_000, marks=pytest.mark.slow),
        np.arange(1_500_000.0),
        list(range(10_000)),
    ],
    ids=["long", "odd", "bytes", "text", "array", "list"],
)
def test_large_and_odd_values_are_kept_exactly(store, value):
    store.store(Component(), "x", value)

    found = store.retrieve(Component(), "x", verify=True)
    assert bool(np.all(found == value))
    assert type(found) is type(value)


def test_what_cannot_be_kept_leaves_nothing(local):
    nested = [1]
    for _ in range(100_000):
        nested = [nested]
    for value in (object(), [lambda: 1], nested, iter([])):
        with pytest.raises(TypeError):
            local.store(Component(), "x", value)
    assert sum(counts(local).values()) == 0
    assert files_of(local) == []


@pytest.mark.slow
def test_long_chain_is_registered_and_found_whole(store):
    """MariaDB leaves out what lies more than a thousand steps away, unless it is told not to."""
    components = chain(1200)
    with statements(store.database.engine) as seen:
        store.store(components[-1], "x", 1)
    assert len(seen) < 60

    assert [state.parameters["n"] for state in store.ancestors(components[-1])] == list(range(1198, -1, -1))
    assert len(store.descendants(components[0])) == 1199
    assert store.delete(components[0], dependents=True) == 1
    assert counts(store)["component_states"] == 0


def test_retrieve_is_one_statement(local):
    one = chain(3)[-1]
    local.store(one, "x", 1)
    local.retrieve(one, "x")

    for call in (
        lambda: local.retrieve(one, "x"),
        lambda: local.has(one, "x"),
        lambda: local.compute_once(one, "x", int),
    ):
        with statements(local.database.engine) as seen:
            assert call()
        assert len(seen) == 1


# What is there gives way, or not


def test_data_that_are_there_give_way_unless_that_is_excluded(store, clock):
    one = Component()
    for value in (np.arange(3), 1, np.arange(4), np.arange(5), 2, 3):
        store.store(one, "x", value)
        both(store.retrieve(one, "x"), value)
        assert len(files_of(store)) == counts(store)["data_files"] == int(isinstance(value, np.ndarray))
    (item,) = store.list_contents()
    assert item.created_at == item.updated_at
    clock.advance(5)

    with pytest.raises(
        AlreadyExistsError, match=r"Component has 'x' already, and it was left alone: say if_exists"
    ):
        store.store(one, "x", 4, if_exists="error")
    with pytest.raises(AlreadyExistsError):
        store.store(one, "x", np.arange(4), if_exists="error")
    assert store.retrieve(one, "x") == 3
    assert files_of(store) == []
    store.store(one, "y", 4, if_exists="error")
    store.store(one, "x", 4)
    (item, _) = store.list_contents()
    assert item.updated_at - item.created_at == timedelta(seconds=5)
    with pytest.raises(ValueError, match="if_exists is one of 'replace', 'error', 'verify', not 'ignore'"):
        store.store(one, "x", 4, if_exists="ignore")


@pytest.mark.parametrize(
    ("value", "same", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(6)),
        (1, 1, 1.0),
        (float("nan"), float("nan"), 0),
    ],
    ids=str,
)
def test_verify_leaves_the_same_data_alone_and_refuses_others(local, value, same, other):
    one = Component()
    local.store(one, "x", value, if_exists="verify")
    (before,) = local.list_contents()

    local.store(one, "x", same, if_exists="verify")

    assert local.list_contents() == [before]
    with pytest.raises(
        AlreadyExistsError, match="has another 'x' already, and it was left alone: the same parameters"
    ):
        local.store(one, "x", other, if_exists="verify")
    assert local.list_contents() == [before]
    assert len(files_of(local)) == int(before.path is not None)


@pytest.mark.parametrize("if_exists", ["error", "verify", "replace"])
def test_data_that_another_process_stored_meanwhile_are_not_overlooked(local, monkeypatch, if_exists):
    real = DataStore._change

    def change(self, *arguments):
        monkeypatch.undo()
        DataStore(local.database, local.root_dir).store(Component(), "x", np.arange(3))
        return real(self, *arguments)

    monkeypatch.setattr(DataStore, "_change", change)
    if if_exists == "replace":
        local.store(Component(), "x", np.arange(4))
    else:
        with pytest.raises(AlreadyExistsError):
            local.store(Component(), "x", np.arange(4), if_exists=if_exists)
    both(local.retrieve(Component(), "x"), np.arange(4 if if_exists == "replace" else 3))
    assert len(files_of(local)) == 1

    monkeypatch.setattr(DataStore, "_change", change)
    local.delete(Component())
    monkeypatch.setattr(DataStore, "_change", change)
    local.store(Component(), "x", 1)  # whose note does not name the file yet
    assert local.retrieve(Component(), "x") == 1
    assert files_of(local) == []


def test_states_that_share_a_key_are_never_taken_for_one(shared, tmp_path):
    store = DataStore(shared, tmp_path, join_with_underscores)
    one, other = Component({"a": "1 2"}), Component({"a": "1_2"})
    store.store(one, "x", 1)
    before = counts(store)

    for call in (
        lambda: store.retrieve(other, "x"),
        lambda: store.has(other, "x"),
        lambda: store.retrieve(other, "y"),
        lambda: store.store(other, "x", 2),
        lambda: store.store(other, "y", 2),
        lambda: store.delete(other),
        lambda: store.ancestors(other),
        lambda: store.compute_once(other, "x", lambda: pytest.fail("it was computed")),
        lambda: store.compute_once(other, "y", lambda: pytest.fail("it was computed")),
        lambda: store.compute_once(Filter({}, other), "y", lambda: pytest.fail("it was computed")),
        lambda: store.store(Filter({}, [one, other]), "x", 2),
    ):
        with pytest.raises(
            HashCollisionError, match="is also that of a component of another type, version, parameters"
        ):
            call()
    assert counts(store) == before
    assert store.retrieve(one, "x") == 1


def test_any_function_of_a_component_can_make_the_keys(shared, tmp_path):
    store = DataStore(shared, tmp_path, lambda one: f'β 😀 "%\\ {hash_state(one)}')
    store.store(Component({"a": 1}), "x", np.arange(2))

    (item,) = store.list_contents()
    assert item.key == f'β 😀 "%\\ {hash_state(Component({"a": 1}))}'
    assert item.path.name.startswith(hashlib.sha256(item.key.encode()).hexdigest())
    with pytest.raises(TypeError, match="a key_generator is a function of a component"):
        DataStore(shared, tmp_path, "hash_state")


# What there is


def test_contents_are_listed_and_found_by_type_and_parameters(store, clock):
    source = Source({"rate": 8.0, "solver": {"dt": 0.1, "steps": 3}}, version=1)
    other = Source({"rate": 9, "solver": {"dt": 0.1}}, version=2)
    store.store(source, "spikes", np.arange(3))
    clock.advance(1)
    store.store(other, "spikes", "none")
    store.store(Filter({"k": 2}, source), "signal", 1)

    everything = store.list_contents()
    assert [(item.full_type.rpartition(".")[2], item.version, item.attribute) for item in everything] == [
        ("Filter", "0.1", "signal"), ("Source", "1", "spikes"), ("Source", "2", "spikes"),
    ]  # fmt: skip
    item = everything[1]
    (path,) = files_of(store)
    assert item == DataItem(
        "tests.support.component_cases.Source", "1", source.parameters, None, hash_state(source), "spikes", "hdf5",
        path, *digest_of(path), datetime.fromtimestamp(1.7e9, UTC), datetime.fromtimestamp(1.7e9, UTC),
    )  # fmt: skip
    assert everything[2].codec == "json"
    assert everything[2].path is None
    assert everything[2].sha256 == hashlib.sha256(b'"none"').hexdigest()
    assert everything[2].updated_at == datetime.fromtimestamp(1.7e9 + 1, UTC)

    def found(**given):
        return [everything.index(one) for one in store.list_contents(**given)]

    kind = item.full_type
    assert found(full_type=kind) == [1, 2]
    assert found(full_type=kind.upper()) == []
    assert found(parameters={"solver": {"dt": 0.1}}) == [1, 2]
    assert found(parameters={"solver": {"dt": 0.1, "steps": 3}, "rate": 8.0}) == [1]
    assert found(parameters={"rate": 9}) == [2]
    assert found(parameters={"rate": 9.0}) == found(parameters={"rate": 8}) == []  # a number of another type
    assert found(parameters={"solver": {"dt": 0.1}, "rate": 7}) == []
    assert found(parameters={}) == [0, 1, 2]
    assert found(full_type=kind, version=2, parameters={"rate": 9}, attribute="spikes") == [2]
    assert found(version="1", attribute="signal") == []


def test_what_parameters_were_is_listed_as_far_as_it_can_be(local):
    parameters = {"t": (1, 2), "s": {1}, "nan": float("inf"), "b": b"x", "array": np.arange(3), 1: 2}
    local.store(Component(parameters), "x", 1)

    (item,) = local.list_contents()

    assert set(item.parameters) == {"__entropic__", "value"}  # of the array there is a digest only
    local.store(Component({key: value for key, value in parameters.items() if key != "array"}), "y", 1)
    assert local.list_contents(attribute="y")[0].parameters == {
        "t": (1, 2), "s": {1}, "nan": float("inf"), "b": b"x", 1: 2,
    }  # fmt: skip


class ParameterSet(dict):
    def __init__(self, values, url):
        super().__init__(values)
        self._url = url


def test_where_parameters_were_read_from_is_kept(store):
    store.store(Component(ParameterSet({"a": 1}, "file:///β.yaml")), "x", 1)

    (item,) = store.list_contents()
    assert (item.parameters, item.parameters_url) == ({"a": 1}, "file:///β.yaml")
    assert store.retrieve(Component({"a": 1}), "x") == 1


def test_lineage_is_told_by_the_database(store):
    a, b = Source({"n": 1}), Source({"n": 2})
    c = Filter({"n": 3}, [a, b])
    d = Filter({"n": 4}, c)
    e = Filter({"n": 5}, [d, a])
    store.store(e, "x", 1)
    store.store(Filter({"n": 6}, b), "x", 1)

    def numbers(states):
        return [state.parameters["n"] for state in states]

    assert numbers(store.ancestors(e)) == [4, 3, 2, 1] or numbers(store.ancestors(e)) == [4, 3, 1, 2]
    assert sorted(numbers(store.ancestors(c))) == [1, 2]
    assert store.ancestors(a) == []
    assert numbers(store.descendants(a)) == [3, 4, 5]
    assert numbers(store.descendants(b)) == [3, 4, 5, 6]
    assert store.descendants(e) == []
    assert store.ancestors(d)[0] == ComponentState(
        "tests.support.component_cases.Filter", "0.1", {"n": 3}, None, hash_state(c)
    )


def test_database_itself_refuses_what_refers_to_nothing(store):
    store.store(Filter({}, Source()), "x", np.arange(2))

    for table in (DataItemRow, ComponentInputRow):
        with pytest.raises(IntegrityError), store.database.engine.begin() as connection:
            connection.execute(insert(table), {**row_of(table), "state_id": 10**6})
    with pytest.raises(IntegrityError), store.database.engine.begin() as connection:
        connection.execute(delete(ComponentStateRow))
    with pytest.raises(IntegrityError), store.database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM entropic_data_files")


def row_of(table):
    now = datetime.now(UTC)
    if table is ComponentInputRow:
        return {"position": 0, "input_state_id": 10**6}
    return {"attribute": "x", "writing": "w", "codec": "json", "payload": "1", "sha256": "", "size_bytes": 1,
            "created_at": now, "updated_at": now}  # fmt: skip


# What goes


def filled(store):
    """Four components: a is the input of b, and b of c; d stands alone."""
    a = Source({"n": 1})
    b = Filter({"n": 2}, a)
    c, d = Filter({"n": 3}, b), Source({"n": 4})
    for one in (a, c, d):
        store.store(one, "array", np.arange(3))
        store.store(one, "plain", 1)
    return a, b, c, d


def test_data_are_deleted_one_by_one_or_all_of_a_component(store):
    a, _, c, d = filled(store)

    assert store.delete(c, "array") == 1
    assert store.delete(c, "array") == 0
    assert (store.has(c, "array"), store.has(c, "plain"), store.has(a, "array")) == (False, True, True)
    assert len(files_of(store)) == 2
    assert counts(store)["component_states"] == 4

    assert store.delete(c) == 1  # and b, which had no data, is there for nothing
    assert counts(store)["component_states"] == 2
    assert store.delete(d) == 2
    assert store.delete(a) == 2
    assert store.list_contents() == []
    assert files_of(store) == []
    assert {name: count for name, count in counts(store).items() if count} == {"component_types": 2}


def test_what_others_depend_on_stays_known(store):
    a, _, c, _ = filled(store)

    assert store.delete(a) == 2

    assert [state.parameters["n"] for state in store.ancestors(c)] == [2, 1]
    assert not store.has(a, "plain")
    assert store.has(c, "plain")
    store.store(a, "plain", 2)
    assert store.retrieve(a, "plain") == 2
    assert counts(store)["component_states"] == 4


def test_data_are_deleted_with_all_that_depends_on_them(store):
    a, b, _, d = filled(store)

    assert store.delete(a, "plain", dependents=True) == 3

    assert [(item.parameters["n"], item.attribute) for item in store.list_contents()] == [
        (1, "array"), (4, "array"), (4, "plain"),
    ]  # fmt: skip
    assert len(files_of(store)) == 2
    assert store.delete(b, dependents=True) == 0
    assert store.delete(a, dependents=True) == 1
    assert store.delete(d, dependents=True) == 2
    assert counts(store)["component_states"] == 0


def test_oldest_data_go_first(store, clock):
    sizes = {}
    for n in range(6):
        store.store(Source({"n": n}), "x", np.zeros(100 * n) if n % 2 else "x" * 1000 * n)
        sizes[n] = store.list_contents(parameters={"n": n})[0].size_bytes
        clock.advance(10)

    def left():
        return sorted(item.parameters["n"] for item in store.list_contents())

    assert store.prune(older_than=1000) == []
    gone = store.prune(older_than=timedelta(seconds=45))  # stored 60 and 50 seconds ago
    assert [item.parameters["n"] for item in gone] == [0, 1]
    assert left() == [2, 3, 4, 5]
    assert store.prune(max_bytes=sum(sizes[n] for n in (2, 3, 4, 5))) == []
    assert [item.size_bytes for item in store.prune(max_bytes=sizes[5] + sizes[4])] == [sizes[2], sizes[3]]
    assert left() == [4, 5]
    store.retrieve(Source({"n": 4}), "x")  # to read writes nothing
    assert len(store.prune(max_bytes=sizes[5], older_than=5)) == 2
    assert files_of(store) == []
    assert counts(store)["component_states"] == 0

    store.store(Source(), "x", 1)
    assert len(store.prune(max_bytes=0)) == 1


def test_limit_that_nothing_reaches_is_one(store):
    store.store(Source(), "x", 1)

    for far in (timedelta.max, 1e12, 10**400, float("inf")):
        assert store.prune(older_than=far) == []
    for many in (1e9, 10**30, float("inf"), np.int64(1 << 40)):
        assert store.prune(max_bytes=many) == []
    assert len(store.prune(older_than=np.float64(0), max_bytes=0.5)) == 1


NO_LIMITS = (-1, float("nan"), True, "5", np.bool_(True), [1])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"older_than": timedelta(-1)},
        *({name: one} for one in NO_LIMITS for name in ("max_bytes", "older_than")),
    ],
    ids=str,
)
def test_prune_without_a_limit_is_refused(local, given):
    with pytest.raises(ValueError, match="prune needs max_bytes, older_than, or both"):
        local.prune(**given)


# Files that are not as they should be


def the_file(store):
    (path,) = files_of(store)
    return path


def damage(path, at):
    octets = bytearray(path.read_bytes())
    octets[at] ^= 255
    path.write_bytes(octets)


def test_damage_is_found_out(local):
    one, value = Component(), np.full(6, 3.0)
    local.store(one, "x", value)
    path = the_file(local)
    damage(path, path.read_bytes().index(value.tobytes()))
    assert local.retrieve(one, "x")[0] != 3.0
    with pytest.raises(CorruptFileError, match="is not what was stored: its SHA-256 is"):
        local.retrieve(one, "x", verify=True)

    damage(path, 1)  # no HDF5 any more
    with pytest.raises(CorruptFileError, match="SHA-256"):
        local.retrieve(one, "x")
    with pytest.raises(CorruptFileError):
        local.compute_once(one, "x", lambda: 1)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CorruptFileError, match=r"it has \d+ bytes, not \d+"):
        local.retrieve(one, "x")


def test_damage_in_a_row_is_found_out(store):
    store.store(Component(), "x", 1)
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE entropic_data_items SET payload = '2'")

    with pytest.raises(CorruptFileError, match=r"'x' of .*Component is not what was stored"):
        store.retrieve(Component(), "x")


def test_file_that_is_gone_is_an_error_and_is_computed_again(local, caplog):
    one = Component()
    local.store(one, "x", np.arange(3))
    the_file(local).unlink()

    with pytest.raises(
        ResultFileMissingError, match=r"'x' of .* is recorded, but its file .* is gone: mount"
    ):
        local.retrieve(one, "x")
    both(local.compute_once(one, "x", lambda: np.arange(4)), np.arange(4))
    assert caplog.text.count("WARNING") == 1
    both(local.retrieve(one, "x"), np.arange(4))
    the_file(local).unlink()
    local.store(one, "x", 5)
    assert local.retrieve(one, "x") == 5


def test_data_that_are_replaced_between_row_and_file_are_read_anew(local, monkeypatch):
    local.store(Component(), "x", np.arange(3))
    real = DataStore._find

    def find(self, *arguments):
        found = real(self, *arguments)
        monkeypatch.undo()
        DataStore(local.database, local.root_dir).store(Component(), "x", np.arange(4))
        return found

    monkeypatch.setattr(DataStore, "_find", find)
    both(local.retrieve(Component(), "x"), np.arange(4))


def test_data_that_are_deleted_between_row_and_file_are_not_there(local, monkeypatch, caplog):
    real = DataStore._find

    def find(self, *arguments):
        found = real(self, *arguments)
        monkeypatch.undo()
        assert DataStore(local.database, local.root_dir).delete(Component()) == 1
        return found

    def deleted_meanwhile():
        local.store(Component(), "x", np.arange(3))
        monkeypatch.setattr(DataStore, "_find", find)

    deleted_meanwhile()
    assert local.retrieve(Component(), "x", "none") == "none"
    deleted_meanwhile()
    with pytest.raises(NotFoundError, match="has no 'x'"):
        local.retrieve(Component(), "x", strict=True)
    deleted_meanwhile()
    local.store(Component(), "x", np.arange(4), if_exists="verify")
    both(local.retrieve(Component(), "x"), np.arange(4))
    deleted_meanwhile()
    both(local.compute_once(Component(), "x", lambda: np.arange(5)), np.arange(5))
    assert caplog.text == ""


def test_what_a_row_names_is_read_only_if_it_is_a_file_of_data(local, tmp_path):
    (tmp_path / "secret.h5").write_bytes(b"x")
    local.store(Component(), "x", np.arange(3))
    path = the_file(local)
    with local.database.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO entropic_data_files VALUES ('../secret.h5', 1)")
        connection.exec_driver_sql(
            "UPDATE entropic_data_items SET file_name = '../secret.h5', size_bytes = 1"
        )

    with pytest.raises(CorruptFileError, match="is no name of a file with data, and is not read"):
        local.retrieve(Component(), "x")
    local.store(Component(), "x", 1)
    assert (tmp_path / "secret.h5").exists()
    assert path.exists()


def test_file_with_a_link_is_not_read(local):
    """It has the digest of its row: somebody wrote both."""
    local.store(Component(), "x", np.arange(3))
    path = the_file(local)
    with h5py.File(path, "r+") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    with local.database.engine.begin() as connection:
        size, sha256 = digest_of(path)
        connection.exec_driver_sql(f"UPDATE entropic_data_items SET size_bytes = {size}, sha256 = '{sha256}'")

    with pytest.raises(DecodeError, match="elsewhere"):
        local.retrieve(Component(), "x")


def test_pipe_in_the_place_of_a_file_is_not_waited_for(local):
    local.store(Component(), "x", np.arange(3))
    path = the_file(local)
    path.unlink()
    os.mkfifo(path)

    with pytest.raises(CorruptFileError, match="it has 0 bytes"):
        local.retrieve(Component(), "x")


def test_full_disk_leaves_nothing_and_the_former_data(local, monkeypatch):
    local.store(Component(), "x", np.arange(3))
    former = files_of(local)

    def no_space(*arguments):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "link"):
        monkeypatch.setattr(os, name, no_space)
        with pytest.raises(OSError, match="No space left"):
            local.store(Component(), "x", np.arange(4))
        monkeypatch.undo()
        assert files_of(local) == former
    both(local.retrieve(Component(), "x", verify=True), np.arange(3))


def test_name_that_was_given_twice_does_no_harm(local, monkeypatch):
    local.store(Component(), "x", np.arange(3))
    (former,) = files_of(local)
    monkeypatch.setattr(module, "new_writing", lambda: former.stem[-32:])

    with pytest.raises(FileExistsError):
        local.store(Component(), "x", np.arange(4))

    assert files_of(local) == [former]
    both(local.retrieve(Component(), "x", verify=True), np.arange(3))


def test_file_that_cannot_be_removed_is_left_to_who_opens_the_store_later(local, caplog, monkeypatch):
    local.store(Component(), "x", np.arange(3))

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    local.delete(Component())
    monkeypatch.undo()

    assert "is left to whoever opens the store later" in caplog.text
    assert local.list_contents() == []
    assert len(files_of(local)) == 2  # the file, and a note


# Opening


def test_folder_is_made_with_those_above_it_and_a_file_is_none(tmp_path, sqlite_url):
    store = DataStore(sqlite_url, str(tmp_path / "deep" / "what? #1 %20"))
    store.store(Component(), "x", np.arange(3))
    assert store.root_dir.is_dir()

    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "dangling"):
        with pytest.raises(NotADirectoryError, match="exists but is not a directory"):
            DataStore(sqlite_url, tmp_path / name)
    with pytest.raises(NotADirectoryError):
        DataStore(sqlite_url, tmp_path / "file" / "below")


@pytest.mark.parametrize("name", ["lease_s", "wait_timeout_s"])
@pytest.mark.parametrize("wrong", [-1, "5", True, float("nan")])
def test_times_that_are_none_are_refused_before_anything_is_made(tmp_path, sqlite_url, name, wrong):
    with pytest.raises(ValueError, match=f"{name} is a number of seconds"):
        DataStore(sqlite_url, tmp_path / "data", **{name: wrong})

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", [str, make_url, create_engine, Database])
def test_database_is_given_in_any_form(tmp_path, sqlite_url, form):
    given = form(sqlite_url)
    DataStore(given, tmp_path / "d").store(Component(), "x", np.arange(3))

    both(DataStore(sqlite_url, tmp_path / "d").retrieve(Component(), "x"), np.arange(3))
    if form is create_engine:
        given.dispose()


def test_database_that_is_not_given_is_that_of_the_options(tmp_path, sqlite_url, monkeypatch):
    monkeypatch.setenv("ENTROPIC_DB_URL", sqlite_url)
    DataStore(None, tmp_path / "d").store(Component(), "x", 1)

    assert DataStore(sqlite_url, tmp_path / "d").retrieve(Component(), "x") == 1


def test_several_stores_stand_side_by_side(tmp_path):
    stores = [DataStore(f"sqlite:///{tmp_path / name}.sqlite3", tmp_path / "shared") for name in "ab"]
    for number, store in enumerate(stores):
        store.store(Component(), "x", np.arange(number))

    for number, store in enumerate(stores):
        both(DataStore(store.database, store.root_dir).retrieve(Component(), "x"), np.arange(number))
        assert len(store.list_contents()) == 1
    stores[1].delete(Component())
    both(stores[0].retrieve(Component(), "x"), np.arange(0))


def test_store_in_memory_works(tmp_path):
    store = DataStore("sqlite://", tmp_path)
    store.store(Component(), "x", np.arange(3))

    both(store.retrieve(Component(), "x"), np.arange(3))
    assert store.compute_once(Component(), "y", lambda: 2) == store.retrieve(Component(), "y") == 2


def test_folder_that_is_not_that_of_the_data_is_not_written_to(tmp_path, sqlite_url):
    """It is not mounted, or another one: its data would take the rows of the others."""
    store = DataStore(sqlite_url, tmp_path / "share")
    store.store(Component(), "x", np.arange(3))
    (tmp_path / "share").rename(tmp_path / "mounted elsewhere")
    (tmp_path / "share").mkdir()

    for change in (
        lambda: store.store(Component(), "x", np.arange(4)),
        lambda: store.store(Component(), "x", 4),
        lambda: store.store(Component(), "y", np.arange(4)),
        lambda: store.delete(Component()),
        lambda: store.prune(max_bytes=0),
        lambda: store.compute_once(Component(), "x", lambda: 1),
        lambda: store.compute_once(Component(), "y", lambda: 1),
        lambda: DataStore(sqlite_url, tmp_path / "another").store(Component(), "x", np.arange(4)),
    ):
        with pytest.raises(ResultsDirUnavailableError, match=r"is not the folder of the data in .* Mount it"):
            change()
    assert os.listdir(tmp_path / "share") == []

    again = DataStore(sqlite_url, tmp_path / "mounted elsewhere")
    both(again.retrieve(Component(), "x"), np.arange(3))
    again.store(Component(), "x", np.arange(4))
    assert len(files_of(again)) == 1


def test_store_travels_to_other_processes(local):
    local.store(Component(), "x", np.arange(3))

    again = pickle.loads(pickle.dumps(local))

    both(again.retrieve(Component(), "x"), np.arange(3))
    assert again._options["lease_s"] == local._options["lease_s"]


@pytest.mark.slow
def test_threads_that_store_and_delete_one_chain_do_not_disturb_each_other(shared, tmp_path):
    components = chain(4)
    store = DataStore(shared, tmp_path)
    errors = []

    def work(number):
        try:
            for turn in range(6):
                one = components[(number + turn) % 4]
                store.store(one, f"x{number}", np.arange(3) if turn % 2 else turn)
                assert store.has(one, f"x{number}")
                store.delete(one, f"x{number}")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert store.list_contents() == []
    assert files_of(store) == []
    assert counts(store)["component_states"] == counts(store)["data_files"] == 0


@pytest.mark.slow
def test_store_of_results_loads_nothing_of_it(tmp_path):
    script = (
        "import sys, entropic; from entropic import Base, Database, Mapped, Store\n"
        "class Run(Base):\n    __tablename__ = 'runs'\n    n: Mapped[int]\n"
        "Store(print, Run, 'results', '.txt', 'sqlite://')\n"
        "print([name for name in sys.modules if name in ('h5py', 'entropic.datastore')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert done.stdout.strip() == "[]"


def test_nothing_is_said_where_nothing_was_repaired(local, caplog):
    caplog.set_level(logging.WARNING)
    local.store(Filter({}, Source()), "x", np.arange(3))
    local.compute_once(Source(), "x", lambda: 1)
    DataStore(local.database, local.root_dir)

    assert caplog.records == []
    assert repr(local).startswith("DataStore(Database('sqlite:///")
