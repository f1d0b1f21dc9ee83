"""Keys of a Store that come with the parameters: reserved names, and an ``id`` given by the caller."""

from pathlib import Path

import pytest

from entropic import HashCollisionError, hash_params
from tests.support.store_cases import PARAMS, Pendulum, Runner, rows_of
from tests.support.stores import open_store

KEY = hash_params(PARAMS)


def test_reserved_names_in_params_are_harmless(database, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)
    mess = {**PARAMS, "result_file": "/etc/passwd", "created_at": "yesterday", "custom_data": 7}

    record = store.run_or_retrieve(mess, campaign="may")

    assert record.id == KEY
    assert record.result_file == str(tmp_path / "results" / f"{KEY}.json")
    assert record.custom_data["campaign"] == "may"
    assert Path(runner.seen[0]["result_file"]).name == f"{KEY}.json"
    assert store.retrieve(mess).id == KEY
    assert store.run(mess).id == KEY
    assert store.sweep([mess, PARAMS])[0].id == KEY
    assert store.delete(mess) is True


def test_record_as_params_finds_itself(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    record = store.run_or_retrieve(PARAMS)
    whole = {
        c: getattr(record, c) for c in ("id", "result_file", "created_at", "custom_data", *PARAMS, "damping")
    }

    assert store.run_or_retrieve(whole).created_at == record.created_at


def test_explicit_id_is_the_key_verbatim(database, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)

    record = store.run_or_retrieve({**PARAMS, "id": "Baseline é 1"})

    assert record.id == "Baseline é 1"
    assert record.result_file == str(tmp_path / "results" / "Baseline é 1.json")
    assert runner.seen[0]["id"] == "Baseline é 1"
    assert store.retrieve({"id": "Baseline é 1"}).length == 1.5
    assert store.retrieve({"id": "baseline e 1"}) is None
    assert store.retrieve(PARAMS) is None
    assert store.delete({"id": "Baseline é 1"}) is True


def test_explicit_id_compares_only_what_else_was_given(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.run_or_retrieve({**PARAMS, "damping": 0.5, "id": "mine"})

    assert store.retrieve({"id": "mine", "length": 1.5}).damping == 0.5
    with pytest.raises(HashCollisionError, match="length"):
        store.retrieve({"id": "mine", "length": 9.0})


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "..",
        "a/b",
        "/etc/passwd",
        "../up",
        "a\\b",
        "nul\0",
        "x" * 196,
        "é" * 98,
        ".entropic",
        "tail ",
    ],
)
def test_explicit_id_that_is_no_file_name_is_a_value_error(sqlite, tmp_path, bad):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)

    for method in (store.run_or_retrieve, store.run, store.retrieve, store.delete):
        with pytest.raises(ValueError, match="file's name"):
            method({**PARAMS, "id": bad})

    assert runner.seen == []
    assert rows_of(sqlite) == []


def test_longest_id_with_its_suffix_works(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)

    record = store.run_or_retrieve({**PARAMS, "id": "x" * 195})

    assert Path(record.result_file).exists()
    assert store.retrieve({"id": "x" * 195}).id == record.id
