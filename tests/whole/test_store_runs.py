"""One run of a Store: hit and miss, what the runner gets and may return, and what is left when it fails."""

import logging
import math
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from entropic import ParameterError, hash_params
from tests.support.store_cases import (
    PARAMS,
    Pendulum,
    Runner,
    attempts_of,
    claims_of,
    expected_bytes,
    results_in,
    rows_of,
    staged_in,
    warnings_of,
)
from tests.support.stores import open_store


def test_run_or_retrieve_on_a_miss_commits_row_and_file(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)

    record = store.run_or_retrieve(PARAMS, campaign="may")

    assert isinstance(record, Pendulum)
    assert (record.length, record.swings, record.damping, record.label) == (1.5, 3, 0.0, None)
    assert record.id == hash_params(PARAMS)
    assert record.result_file == str(tmp_path / "results" / f"{record.id}.json")
    assert Path(record.result_file).read_bytes() == expected_bytes(PARAMS)
    (row,) = rows_of(database)
    assert (row["id"], row["length"], row["swings"]) == (record.id, 1.5, 3)
    assert row["result_file"] == record.result_file
    assert row["custom_data"]["campaign"] == "may"
    assert claims_of(database) == 0
    assert attempts_of(database) == [("COMPLETED", None)]


def test_run_or_retrieve_on_a_hit_returns_the_row_and_runs_nothing(database, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)
    first = store.run_or_retrieve(PARAMS, campaign="may")

    again = store.run_or_retrieve({"swings": 3, "length": 1.5, "damping": 0.0}, campaign="june")

    assert len(runner.seen) == 1
    assert again.id == first.id
    assert again.created_at == first.created_at
    assert again.custom_data == first.custom_data
    assert again.custom_data["campaign"] == "may"


def test_run_of_a_stored_key_overwrites_row_and_file(database, tmp_path):
    runner = Runner(returns={"period": 1.0, "only_first": 1})
    store = open_store(Pendulum, tmp_path, runner, database)
    first = store.run_or_retrieve(PARAMS, campaign="may", old=True)
    runner.returns, runner.note = {"steps": 7}, b"again"

    second = store.run(PARAMS, campaign="june")

    assert second.id == first.id
    assert second.created_at > first.created_at
    assert second.custom_data.keys() == {"campaign", "elapsed_seconds"}
    assert second.custom_data["campaign"] == "june"
    assert (second.period, second.steps) == (None, 7)
    assert Path(second.result_file).read_bytes() == b"again" + expected_bytes(PARAMS)
    assert results_in(tmp_path) == [f"{first.id}.json"]
    (row,) = rows_of(database)
    assert row["custom_data"] == dict(second.custom_data)
    assert store.retrieve(PARAMS).created_at == second.created_at


def test_run_of_a_stored_key_keeps_the_good_file_until_its_successor_is_complete(sqlite, tmp_path):
    seen = []

    def runner(params):
        final = tmp_path / "results" / Path(params["result_file"]).name
        seen.append(final.read_bytes() if final.exists() else None)
        Path(params["result_file"]).write_bytes(b"version %d" % len(seen))

    store = open_store(Pendulum, tmp_path, runner, sqlite)
    store.run(PARAMS)

    record = store.run(PARAMS)

    assert seen == [None, b"version 1"]
    assert Path(record.result_file).read_bytes() == b"version 2"


def test_run_of_a_stored_key_that_fails_leaves_row_and_file(database, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)
    first = store.run(PARAMS, campaign="may")
    runner.raises = RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        store.run(PARAMS, campaign="june")

    record = store.retrieve(PARAMS)
    assert (record.created_at, record.custom_data) == (first.created_at, first.custom_data)
    assert Path(record.result_file).read_bytes() == expected_bytes(PARAMS)
    assert staged_in(tmp_path) == []


def test_created_at_is_aware_utc_and_the_time_of_the_run(database, tmp_path):
    before = datetime.now(UTC)

    record = open_store(Pendulum, tmp_path, Runner(), database).run(PARAMS)

    assert record.created_at.utcoffset().total_seconds() == 0
    assert before <= record.created_at <= datetime.now(UTC)
    assert open_store(Pendulum, tmp_path, Runner(), database).retrieve(PARAMS).created_at == record.created_at


def test_runner_gets_typed_parameters_defaults_id_and_result_file(sqlite, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)

    record = store.run_or_retrieve({"length": 2, "swings": np.int64(3)}, campaign="may")

    (seen,) = runner.seen
    assert seen.keys() == {"length", "swings", "damping", "label", "id", "result_file"}
    assert (seen["length"], type(seen["length"])) == (2.0, float)
    assert (seen["swings"], type(seen["swings"])) == (3, int)
    assert (seen["damping"], seen["label"]) == (0.0, None)
    assert seen["id"] == record.id
    assert Path(seen["result_file"]).name == f"{record.id}.json"


def test_callers_dict_is_untouched_even_if_the_runner_changes_its_own(sqlite, tmp_path):
    def runner(params):
        Path(params["result_file"]).touch()
        params["length"] = -1.0
        params["extra"] = "mess"

    given = dict(PARAMS)

    record = open_store(Pendulum, tmp_path, runner, sqlite).run_or_retrieve(given)

    assert given == PARAMS
    assert record.length == 1.5


def test_elapsed_seconds_is_added_unless_given(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)

    measured = store.run(PARAMS)
    given = store.run({**PARAMS, "swings": 4}, elapsed_seconds=99)

    assert 0 <= measured.custom_data["elapsed_seconds"] < 60
    assert given.custom_data["elapsed_seconds"] == 99


def test_returned_mapping_fills_outputs_and_custom_data(database, tmp_path):
    runner = Runner(
        returns={"period": np.float32(2.5), "steps": np.int64(12), "solver": "rk4", "grid": np.arange(3)}
    )

    record = open_store(Pendulum, tmp_path, runner, database).run_or_retrieve(PARAMS, campaign="may")

    assert (record.period, record.steps) == (2.5, 12)
    assert record.custom_data["solver"] == "rk4"
    assert record.custom_data["grid"] == [0, 1, 2]
    assert record.custom_data["campaign"] == "may"
    (row,) = rows_of(database)
    assert (row["period"], row["steps"]) == (2.5, 12)
    assert row["custom_data"] == dict(record.custom_data)


def test_explicit_keyword_wins_over_what_the_runner_returns(sqlite, tmp_path):
    runner = Runner(returns={"campaign": "from the runner", "elapsed_seconds": 1.0})

    record = open_store(Pendulum, tmp_path, runner, sqlite).run_or_retrieve(PARAMS, campaign="explicit")

    assert record.custom_data == {"campaign": "explicit", "elapsed_seconds": 1.0}


@pytest.mark.parametrize("returned", [[1, 2], "text", 3.5, ("period", 1.0)])
def test_returned_value_that_is_no_mapping_is_ignored(sqlite, tmp_path, returned):
    record = open_store(Pendulum, tmp_path, Runner(returns=returned), sqlite).run_or_retrieve(PARAMS)

    assert record.custom_data.keys() == {"elapsed_seconds"}
    assert record.period is None


def test_nan_in_an_output_is_null(database, tmp_path):
    record = open_store(Pendulum, tmp_path, Runner(returns={"period": math.nan}), database).run_or_retrieve(
        PARAMS
    )

    assert record.period is None
    assert rows_of(database)[0]["period"] is None


@pytest.mark.parametrize("infinity", [math.inf, -math.inf])
def test_infinity_in_an_output_is_kept_where_the_dialect_has_one_else_null(database, tmp_path, infinity):
    has_one = database.dialect in {"sqlite", "postgresql"}

    record = open_store(Pendulum, tmp_path, Runner(returns={"period": infinity}), database).run_or_retrieve(
        PARAMS
    )

    assert record.period == (infinity if has_one else None)
    assert rows_of(database)[0]["period"] == (infinity if has_one else None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("figure", object()),
        ("loss", math.nan),
        ("history", [1.0, math.inf]),
        ("nested", {"deep": {"a": math.nan}}),
        ("steps", "many"),
        ("steps", 2**70),
        ("period", "fast"),
        ("length", 9.0),
        ("id", "mine"),
        ("result_file", "elsewhere"),
    ],
)
def test_returned_value_that_cannot_be_stored_is_left_out_with_a_warning_that_names_it(
    database, tmp_path, caplog, name, value
):
    runner = Runner(returns={name: value, "solver": "rk4"})

    record = open_store(Pendulum, tmp_path, runner, database).run_or_retrieve(PARAMS)

    assert record.custom_data.keys() == {"solver", "elapsed_seconds"}
    assert (record.length, record.id) == (1.5, hash_params(PARAMS))
    assert (record.period, record.steps) == (None, None)
    (warning,) = warnings_of(caplog)
    assert name in warning
    assert len(rows_of(database)) == 1


@pytest.mark.parametrize("value", ["a\0b", "\ud800", 10**400], ids=["nul", "surrogate", "huge"])
def test_returned_value_that_some_databases_cannot_hold_does_not_lose_the_run(database, tmp_path, value):
    runner = Runner(returns={"remark": value, "nested": [value]})

    record = open_store(Pendulum, tmp_path, runner, database).run_or_retrieve(PARAMS)

    assert Path(record.result_file).read_bytes() == expected_bytes(PARAMS)
    assert len(rows_of(database)) == 1
    assert staged_in(tmp_path) == []


def test_returned_decimal_and_date_go_to_custom_data_as_text(sqlite, tmp_path):
    runner = Runner(returns={"price": Decimal("1.10"), "day": datetime(2024, 5, 1, tzinfo=UTC)})

    record = open_store(Pendulum, tmp_path, runner, sqlite).run_or_retrieve(PARAMS)

    assert record.custom_data["price"] == "1.10"
    assert record.custom_data["day"] == "2024-05-01T00:00:00+00:00"


@pytest.mark.parametrize("value", [object(), math.nan, {"a": [math.inf]}], ids=["object", "nan", "nested"])
def test_custom_data_that_json_cannot_hold_is_an_error_before_the_run(sqlite, tmp_path, value):
    runner = Runner()

    with pytest.raises(ParameterError, match="campaign"):
        open_store(Pendulum, tmp_path, runner, sqlite).run_or_retrieve(PARAMS, campaign=value)

    assert runner.seen == []
    assert claims_of(sqlite) == 0


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"length": 1.0, "swings": 3, "lenght": 2.0}, "lenght"),
        ({"length": 1.0}, "swings"),
        ({"length": "long", "swings": 3}, "length"),
        ({"length": 1.0, "swings": 2.5}, "swings"),
        ({"length": 1.0, "swings": True}, "swings"),
        ({"length": math.nan, "swings": 3}, "length"),
        ({"length": 1.0, "swings": None}, "swings"),
        ({"length": 1.0, "swings": 3, "period": 2.0}, "period"),
    ],
    ids=["unknown", "missing", "text", "fraction", "bool", "nan", "none", "output"],
)
def test_parameters_that_do_not_fit_are_an_error_before_anything_runs(sqlite, tmp_path, params, named):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)

    for method in (store.run_or_retrieve, store.run, store.retrieve):
        with pytest.raises(ParameterError, match=named):
            method(params)

    assert runner.seen == []
    assert rows_of(sqlite) == []
    assert attempts_of(sqlite) == []


def test_failing_runner_raises_its_own_exception_with_a_note_of_its_parameters(database, tmp_path):
    error = ZeroDivisionError("in step 7")
    store = open_store(Pendulum, tmp_path, Runner(raises=error), database)

    with pytest.raises(ZeroDivisionError) as caught:
        store.run_or_retrieve({**PARAMS, "label": "stiff"})

    assert caught.value is error
    assert caught.value.args == ("in step 7",)
    (note,) = error.__notes__
    assert "length=1.5" in note
    assert "swings=3" in note
    assert "label='stiff'" in note


def test_failing_runner_leaves_nothing_but_a_failed_attempt(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(raises=ValueError("diverged")), database)
    with pytest.raises(ValueError, match="diverged"):
        store.run_or_retrieve(PARAMS)

    (failure,) = store.failures()

    assert (failure.id, failure.error_type, failure.message) == (
        hash_params(PARAMS),
        "ValueError",
        "diverged",
    )
    assert failure.params == {**PARAMS, "damping": 0.0, "label": None}
    assert "raise self.raises" in failure.traceback
    assert failure.host
    assert failure.ended_at.utcoffset().total_seconds() == 0
    assert rows_of(database) == []
    assert results_in(tmp_path) == []
    assert staged_in(tmp_path) == []
    assert claims_of(database) == 0
    assert attempts_of(database) == [("FAILED", "ValueError")]


def test_failures_forget_a_key_that_succeeded_since(database, tmp_path):
    runner = Runner(raises=ValueError("diverged"))
    store = open_store(Pendulum, tmp_path, runner, database)
    for _ in range(2):
        with pytest.raises(ValueError, match="diverged"):
            store.run_or_retrieve(PARAMS)
    before = store.failures()
    runner.raises = None

    store.run_or_retrieve(PARAMS)

    assert [failure.id for failure in before] == [hash_params(PARAMS)]
    assert store.failures() == []


def test_failure_with_text_that_a_database_refuses_is_recorded_all_the_same(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(raises=ValueError("null \0 and \ud800 and ∞ 𝄞")), database)

    with pytest.raises(ValueError, match="null"):
        store.run_or_retrieve(PARAMS)

    (failure,) = store.failures()
    assert failure.message.startswith("null ")
    assert claims_of(database) == 0


class Unspeakable(Exception):
    def __str__(self):
        raise TypeError("no text")


def test_failure_whose_exception_does_not_print_is_raised_as_it_is(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(raises=Unspeakable()), sqlite)

    with pytest.raises(Unspeakable):
        store.run_or_retrieve(PARAMS)

    assert [failure.error_type for failure in store.failures()] == ["Unspeakable"]
    assert claims_of(sqlite) == 0


def test_sys_exit_in_a_runner_is_a_failure_that_propagates(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(raises=SystemExit(3)), sqlite)

    with pytest.raises(SystemExit) as caught:
        store.run_or_retrieve(PARAMS)

    assert caught.value.code == 3
    assert [failure.error_type for failure in store.failures()] == ["SystemExit"]
    with sqlite.reading() as connection:
        assert connection.scalar(text("SELECT exit_code FROM entropic_attempts")) == 3
    assert (rows_of(sqlite), staged_in(tmp_path), claims_of(sqlite)) == ([], [], 0)


def test_keyboard_interrupt_in_a_runner_cancels_and_frees_the_key(database, tmp_path):
    runner = Runner(raises=KeyboardInterrupt())
    store = open_store(Pendulum, tmp_path, runner, database)

    with pytest.raises(KeyboardInterrupt):
        store.run_or_retrieve(PARAMS)

    assert attempts_of(database) == [("CANCELLED", None)]
    assert (store.failures(), rows_of(database), staged_in(tmp_path), claims_of(database)) == ([], [], [], 0)
    runner.raises = None
    assert store.run_or_retrieve(PARAMS).id == hash_params(PARAMS)


def test_runner_that_asks_for_its_own_key_raises_instead_of_waiting(sqlite, tmp_path):
    def runner(params):
        store.run_or_retrieve({"length": params["length"], "swings": params["swings"]})

    store = open_store(Pendulum, tmp_path, runner, sqlite)

    with pytest.raises(RuntimeError, match=r"need each other: runner\(.*swings=3\) → runner\("):
        store.run_or_retrieve(PARAMS)

    assert claims_of(sqlite) == 0


def test_runner_may_ask_the_store_for_another_key(sqlite, tmp_path):
    def runner(params):
        if params["swings"]:
            store.run_or_retrieve({"length": params["length"], "swings": params["swings"] - 1})
        Path(params["result_file"]).touch()

    store = open_store(Pendulum, tmp_path, runner, sqlite)

    store.run_or_retrieve(PARAMS)

    assert sorted(row["swings"] for row in rows_of(sqlite)) == [0, 1, 2, 3]


def test_finished_run_is_logged_at_info_and_a_hit_is_not(sqlite, tmp_path, caplog):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    with caplog.at_level(logging.INFO, "entropic"):
        record = store.run_or_retrieve(PARAMS)
        finished = [r.getMessage() for r in caplog.records if record.id in r.getMessage()]
        caplog.clear()

        store.run_or_retrieve(PARAMS)

    assert len(finished) == 1
    assert caplog.records == []


def test_numbers_that_only_look_alike_are_one_run_and_those_that_differ_are_two(sqlite, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)

    same = [
        store.run_or_retrieve({"length": length, "swings": swings}).id
        for length, swings in [(2, 5), (2.0, np.int64(5)), (np.float64(2), 5.0), (np.int32(2), np.uint8(5))]
    ]
    small = [
        store.run_or_retrieve({"length": length, "swings": 5}).id for length in (1e-13, 2e-13, 0.0, -0.0)
    ]

    assert len(set(same)) == 1
    assert len(set(small)) == 3
    assert len(runner.seen) == 4
