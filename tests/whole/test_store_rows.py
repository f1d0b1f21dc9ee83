"""Rows of a Store: retrieve, register, delete, records, custom data, and keys that are given."""

import enum
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.orm import Session

from entropic import AlreadyExistsError, ParameterError, ResultFileMissingError, hash_params
from tests.support.store_cases import (
    PARAMS,
    Pendulum,
    Runner,
    claims_of,
    expected_bytes,
    results_in,
    rows_of,
    warnings_of,
)
from tests.support.stores import open_store

KEY = hash_params(PARAMS)


@pytest.fixture
def elsewhere(tmp_path):
    """A file that was computed elsewhere."""
    path = tmp_path / "elsewhere" / "measured.dat"
    path.parent.mkdir()
    path.write_bytes(b"measured")
    return path


# Retrieve


def test_retrieve_on_a_miss_is_none_and_writes_nothing(database, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)

    assert store.retrieve(PARAMS) is None
    assert (runner.seen, rows_of(database), claims_of(database)) == ([], [], 0)


def test_retrieve_on_a_hit_is_the_record(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    record = store.run_or_retrieve(PARAMS)

    found = store.retrieve({"swings": 3, "length": 1.5})

    assert (found.id, found.created_at, found.result_file) == (
        record.id,
        record.created_at,
        record.result_file,
    )


def test_retrieve_by_id_alone_needs_no_parameters(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    store.run_or_retrieve(PARAMS)

    assert store.retrieve({"id": KEY}).length == 1.5
    assert store.retrieve({"id": "0" * 16}) is None


def test_retrieve_of_a_row_whose_file_is_gone_is_none_with_a_warning(sqlite, tmp_path, caplog):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    record = store.run_or_retrieve(PARAMS)
    Path(record.result_file).unlink()

    assert store.retrieve(PARAMS) is None
    (warning,) = warnings_of(caplog)
    assert record.result_file in warning


# Register


def test_register_records_the_file_where_it_is(database, tmp_path, elsewhere):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)

    record = store.register(PARAMS, elsewhere, source="laboratory")

    assert (record.id, record.length, record.damping) == (KEY, 1.5, 0.0)
    assert record.result_file == str(elsewhere)
    assert record.custom_data == {"source": "laboratory"}
    assert store.run_or_retrieve(PARAMS).result_file == str(elsewhere)
    assert runner.seen == []
    assert elsewhere.read_bytes() == b"measured"
    assert results_in(tmp_path) == []


def test_register_keeps_the_path_as_it_was_given(sqlite, tmp_path, elsewhere, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)

    record = store.register(PARAMS, "elsewhere/measured.dat")

    assert record.result_file == "elsewhere/measured.dat"
    assert rows_of(sqlite)[0]["result_file"] == "elsewhere/measured.dat"


def test_registered_relative_path_is_still_a_hit_from_another_working_directory(
    sqlite, tmp_path, elsewhere, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)
    store.register(PARAMS, "elsewhere/measured.dat")
    monkeypatch.chdir("/")

    record = store.run_or_retrieve(PARAMS)

    assert record.id == KEY
    assert runner.seen == []


def test_register_of_the_same_file_again_replaces_custom_data_only(database, tmp_path, elsewhere):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    first = store.register(PARAMS, elsewhere, source="laboratory", old=1)

    second = store.register(PARAMS, str(elsewhere), source="field")

    assert second.created_at == first.created_at
    assert second.custom_data == {"source": "field"}
    (row,) = rows_of(database)
    assert row["custom_data"] == {"source": "field"}


def test_register_of_another_file_raises_and_changes_nothing(database, tmp_path, elsewhere):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    store.register(PARAMS, elsewhere, source="laboratory")
    other = elsewhere.with_name("other.dat")
    other.write_bytes(b"other")

    with pytest.raises(AlreadyExistsError, match=r"other\.dat") as caught:
        store.register(PARAMS, other, source="field")

    assert "measured.dat" in str(caught.value)
    assert "overwrite=True" in str(caught.value)
    record = store.retrieve(PARAMS)
    assert (record.result_file, record.custom_data) == (str(elsewhere), {"source": "laboratory"})


def test_register_over_a_run_raises_unless_overwrite(database, tmp_path, elsewhere):
    store = open_store(Pendulum, tmp_path, Runner(returns={"period": 1.0}), database)
    store.run_or_retrieve(PARAMS)
    with pytest.raises(AlreadyExistsError):
        store.register(PARAMS, elsewhere)

    record = store.register(PARAMS, elsewhere, overwrite=True, source="laboratory")

    assert record.result_file == str(elsewhere)
    assert record.custom_data == {"source": "laboratory"}
    assert record.period is None
    assert len(rows_of(database)) == 1
    assert claims_of(database) == 0


def test_register_of_a_missing_file_raises_and_writes_nothing(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)

    with pytest.raises(ResultFileMissingError, match="nowhere") as caught:
        store.register(PARAMS, tmp_path / "nowhere.dat")

    assert isinstance(caught.value, FileNotFoundError)
    assert rows_of(database) == []


def test_registered_file_that_vanished_is_an_error_and_never_a_rerun(sqlite, tmp_path, elsewhere):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)
    store.register(PARAMS, elsewhere)
    elsewhere.unlink()

    with pytest.raises(ResultFileMissingError, match=r"measured\.dat"):
        store.run_or_retrieve(PARAMS)

    assert runner.seen == []
    assert rows_of(sqlite)[0]["result_file"] == str(elsewhere)


@pytest.mark.parametrize("is_registered", [True, False])
def test_who_meets_a_result_that_is_gone_is_told_only_what_helps(
    sqlite, tmp_path, elsewhere, is_registered, caplog
):
    """Nothing makes a registered file again, so nobody is to be sent to a run that raises."""
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    record = store.register(PARAMS, elsewhere) if is_registered else store.run_or_retrieve(PARAMS)
    Path(record.result_file).unlink()

    assert store.retrieve(PARAMS) is None
    with pytest.raises(ResultFileMissingError) as opened:
        record.open()
    way = "delete the row, so that the next call runs it" if is_registered else "the next call runs it again"
    assert warnings_of(caplog)[0].endswith(f"or {way}")
    assert str(opened.value).endswith("or, unless it was registered, the next call runs it again")


def test_run_over_a_registered_file_leaves_that_file_alone(sqlite, tmp_path, elsewhere):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.register(PARAMS, elsewhere)

    record = store.run(PARAMS)

    assert Path(record.result_file).read_bytes() == expected_bytes(PARAMS)
    assert elsewhere.read_bytes() == b"measured"


def test_run_over_a_registered_file_in_the_results_folder_leaves_that_file_alone(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    registered = tmp_path / "results" / f"{store.key(PARAMS)}.json"
    registered.write_text("the only copy")
    store.register(PARAMS, registered)

    store.run(PARAMS)

    assert registered.read_text() == "the only copy"
    assert [finding.kind for finding in store.check(checksum=True)] == ["stray-file"]


def test_register_of_a_folder_is_a_result(sqlite, tmp_path, elsewhere):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)

    record = store.register(PARAMS, elsewhere.parent)

    assert store.retrieve(PARAMS).result_file == record.result_file == str(elsewhere.parent)


# Delete


def test_delete_removes_the_row_and_keeps_the_file(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    record = store.run_or_retrieve(PARAMS)

    assert store.delete(PARAMS) is True
    assert rows_of(database) == []
    assert Path(record.result_file).exists()
    assert store.delete(PARAMS) is False


def test_delete_takes_remove_file_second_and_removes_the_file(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    record = store.run_or_retrieve(PARAMS)

    assert store.delete(PARAMS, True) is True
    assert not Path(record.result_file).exists()
    assert store.retrieve(PARAMS) is None


def test_delete_by_hash_wins_over_params(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    kept = store.run_or_retrieve(PARAMS)
    gone = store.run_or_retrieve({**PARAMS, "swings": 4})

    assert store.delete(PARAMS, hash=gone.id) is True
    assert [row["id"] for row in rows_of(database)] == [kept.id]
    assert store.delete(hash="0" * 16) is False


def test_delete_of_nothing_raises_with_the_promised_text(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)

    with pytest.raises(ValueError, match=r"^Either 'params' or 'hash' need to be set$"):
        store.delete()


def test_delete_does_not_mind_a_missing_file(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    record = store.run_or_retrieve(PARAMS)
    Path(record.result_file).unlink()

    assert store.delete(PARAMS, remove_file=True) is True
    assert rows_of(sqlite) == []


def test_delete_unlinks_a_registered_file_outside_only_if_told(sqlite, tmp_path, elsewhere):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.register(PARAMS, elsewhere)
    store.delete(PARAMS)
    survived = elsewhere.exists()
    store.register(PARAMS, elsewhere)

    store.delete(PARAMS, remove_file=True)

    assert survived
    assert not elsewhere.exists()


def test_deleted_key_runs_again(sqlite, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)
    store.run_or_retrieve(PARAMS)
    store.delete(PARAMS)

    store.run_or_retrieve(PARAMS)

    assert len(runner.seen) == 2


# Records


class Label(enum.Enum):
    ODD = "odd"
    EVEN = "even"


@pytest.fixture
def five(database, tmp_path):
    """A Store with five rows, swings 0 to 4, whose period is 10 - swings, and none for the last."""

    def runner(params):
        Path(params["result_file"]).touch()
        return {"period": None if params["swings"] == 4 else 10.0 - params["swings"]}

    store = open_store(Pendulum, tmp_path, runner, database)
    for swings in range(5):
        store.run({"length": 1.0, "swings": swings, "label": "odd" if swings % 2 else "even"})
    return store


def test_records_without_conditions_are_all_as_they_were_made(five):
    assert [record.swings for record in five.records()] == [0, 1, 2, 3, 4]


def test_records_take_expressions_equalities_order_and_limit(five):
    found = five.records(
        Pendulum.period < 10, Pendulum.swings != 3, order_by=Pendulum.period, limit=1, length=1
    )

    assert [record.swings for record in found] == [2]
    assert [r.swings for r in five.records(label="odd", order_by=Pendulum.swings.desc())] == [3, 1]
    assert [r.swings for r in five.records(period=None)] == [4]


@pytest.mark.parametrize("kind", [list, tuple])
def test_records_order_by_takes_several_columns(five, kind):
    found = five.records(order_by=kind([Pendulum.label.desc(), Pendulum.swings.desc()]))

    assert [record.swings for record in found] == [3, 1, 4, 2, 0]


def test_equalities_find_what_their_columns_hold_of_a_value(five):
    """Drivers bind a NumPy integer as bytes, or not at all, and an Enum not at all."""
    assert five.count(swings=np.int64(3)) == 1
    assert five.count(length=np.float32(1.0), label=Label.ODD) == 2
    assert [record.swings for record in five.records(swings=3.0)] == [3]
    assert len(five.to_frame(label=Label.EVEN)) == 3


def test_equality_that_its_column_cannot_hold_raises(five):
    with pytest.raises(ParameterError, match="swings must be an integer"):
        five.count(swings=2.5)


def test_records_show_files_under_the_results_folder_of_this_store(five, tmp_path):
    assert {Path(record.result_file).parent for record in five.records()} == {tmp_path / "results"}


def test_records_with_an_unknown_equality_raise_and_name_it(five):
    with pytest.raises(ParameterError, match="lenght"):
        five.records(lenght=1.0)
    with pytest.raises(ParameterError, match="custom_data"):
        five.count(custom_data={})


def test_count_takes_what_records_takes(five):
    assert five.count() == 5
    assert five.count(Pendulum.swings > 0, label="even") == 2
    assert five.count(id="0" * 16) == 0


def test_to_frame_has_a_row_per_record_and_a_column_per_attribute(five):
    frame = five.to_frame(Pendulum.swings < 3, length=1.0)

    assert frame.index.name == "id"
    assert list(frame.columns) == [
        "length", "swings", "damping", "label", "period", "steps", "result_file", "created_at", "custom_data",
    ]  # fmt: skip
    assert list(frame["swings"]) == [0, 1, 2]
    assert list(frame["period"]) == [10.0, 9.0, 8.0]


def test_to_frame_of_an_empty_table_has_the_columns(sqlite, tmp_path):
    frame = open_store(Pendulum, tmp_path, Runner(), sqlite).to_frame()

    assert len(frame) == 0
    assert "swings" in frame.columns


# Records in sessions of the user's


def test_records_are_detached_and_readable(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    record = store.run_or_retrieve(PARAMS)
    sqlite.dispose()

    assert (record.length, record.swings, record.period) == (1.5, 3, None)
    assert isinstance(record.result_file, str)


@pytest.mark.parametrize("how", ["run", "hit", "records"])
def test_changes_of_custom_data_before_a_merge_are_seen(database, tmp_path, how):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    record = store.run_or_retrieve(PARAMS, tag="old")
    if how == "hit":
        record = store.run_or_retrieve(PARAMS)
    elif how == "records":
        (record,) = store.records()
    record.custom_data["tag"] = "new"
    record.label = "renamed"

    with Session(database.engine) as session:
        session.merge(record)
        session.commit()

    (row,) = rows_of(database)
    assert row["custom_data"]["tag"] == "new"
    assert row["label"] == "renamed"
    assert row["result_file"] == record.result_file


def test_merged_record_is_tracked_in_its_session(database, tmp_path):
    record = open_store(Pendulum, tmp_path, Runner(), database).run_or_retrieve(PARAMS)

    with Session(database.engine) as session:
        merged = session.merge(record)
        merged.custom_data["later"] = True
        merged.apply_patch({"custom_data": {"elapsed_seconds": None}})
        session.commit()

    assert rows_of(database)[0]["custom_data"] == {"later": True}


def test_row_added_by_a_session_of_the_users_is_a_hit(database, tmp_path, elsewhere):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)
    with Session(database.engine) as session:
        session.add(Pendulum(id=KEY, result_file=str(elsewhere), **PARAMS))
        session.commit()

    record = store.run_or_retrieve(PARAMS)

    assert (record.id, record.result_file, record.custom_data, record.damping) == (
        KEY,
        str(elsewhere),
        {},
        0.0,
    )
    assert runner.seen == []


def test_created_at_of_different_runs_orders_them(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)

    first, second = (store.run({**PARAMS, "swings": swings}) for swings in (1, 2))

    assert timedelta(0) < second.created_at - first.created_at < timedelta(minutes=1)
