"""Which run is this: typed, defaults left out, hashed, looked at twice."""

from __future__ import annotations

import json
import math
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select
from sqlalchemy.dialects import mysql, postgresql, sqlite

from entropic import Base, Mapped, Store, hash_params, mapped_column, param, register_hasher
from entropic.errors import HashCollisionError, ParameterError, UnhashableParamError
from entropic.model.identities import Identity
from entropic.model.parameters import Parameters
from entropic.values import hashing
from entropic.values.hashing import digest
from tests.support import strategies
from tests.support.counting import NumberedRunner
from tests.support.every_type import EXAMPLE, Colour, Everything, parameters
from tests.support.naming import shown

DIALECTS = {"sqlite": sqlite.dialect(), "postgresql": postgresql.dialect(), "mysql": mysql.dialect()}

quick = settings(deadline=None, max_examples=40)
on_database = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Decay(Base):
    __tablename__ = "identity_decay"

    rate: Mapped[float]
    steps: Mapped[int] = param(default=10)
    note: Mapped[str | None]
    grid: Mapped[dict[str, Any]] = param(default={"cells": [1, 0.3]})


def decay(dialect: str = "sqlite") -> Parameters:
    return Parameters(Decay, DIALECTS[dialect])


@pytest.fixture(scope="module", params=DIALECTS)
def everything(request: pytest.FixtureRequest) -> Parameters:
    return Parameters(Everything, DIALECTS[request.param])


def key_of(parameters_: Parameters, values: dict[str, Any]) -> str:
    """Make the key anew of what the columns hold; no default is among the values."""
    forms = {name: parameters_._params[name].form(value) for name, value in values.items()}
    return digest({n: form for n, form in forms.items() if form != parameters_._params[n].default_form})


def named(params: dict[str, Any]) -> Identity:
    return decay().identify(params)


# Names


def test_unknown_parameter_raises_with_the_name_meant_and_all_there_are():
    with pytest.raises(ParameterError, match=r"'stepz'.*steps.*It has: rate, steps, note, grid"):
        named({"rate": 1.0, "stepz": 3})


def test_unknown_parameter_like_no_other_is_said_in_two_sentences():
    with pytest.raises(ParameterError, match=r"has no parameter 'qqq'\. It has: "):
        named({"qqq": 1})


def test_missing_parameters_raise_by_name():
    with pytest.raises(ParameterError, match="'rate', which was not given and has no default"):
        named({"steps": 3})


def test_output_as_a_parameter_raises(everything):
    with pytest.raises(ParameterError, match=r"Everything\.score is an output"):
        everything.identify({**EXAMPLE, "score": 1.0})


def test_refused_value_raises_with_model_and_parameter():
    with pytest.raises(ParameterError, match=r"^Decay\.rate must be a number, not 'fast' \(str\)"):
        named({"rate": "fast"})


def test_unhashable_value_raises_with_model_and_parameter():
    with pytest.raises(
        UnhashableParamError, match=r"^Decay\.grid\['f'\] is a builtins\.function, which has no"
    ):
        named({"rate": 1.0, "grid": {"f": lambda: 1}})


def test_reserved_names_do_not_count():
    reserved = {"result_file": "a.h5", "created_at": datetime.now(UTC), "custom_data": {"a": 1}}

    assert named({"rate": 1.0, **reserved}) == named({"rate": 1.0})


def test_identify_does_not_change_what_it_is_given():
    params = {"rate": np.float64(1.0), "grid": {"cells": (1, 2)}, "result_file": "a.h5"}
    before = dict(params)

    named(params)

    assert params == before
    assert params["grid"] == {"cells": (1, 2)}


# Defaults


def test_values_have_defaults_filled_in():
    assert named({"rate": 1}).values == {"rate": 1.0, "steps": 10, "note": None, "grid": {"cells": [1, 0.3]}}


def test_defaults_given_or_left_out_are_not_in_the_key():
    given_ = {"rate": 1.0, "steps": 10, "note": None, "grid": {"cells": [1, 0.1 + 0.2]}}

    assert named(given_).id == named({"rate": 1.0}).id == hash_params({"rate": 1.0})


def test_parameter_added_with_a_default_changes_no_key():
    class Wider(Base):
        __tablename__ = "identity_wider"
        rate: Mapped[float]
        steps: Mapped[int] = param(default=10)
        note: Mapped[str | None]
        grid: Mapped[dict[str, Any]] = param(default={"cells": [1, 0.3]})
        damping: Mapped[float] = param(default=0.0)

    wider = Parameters(Wider, DIALECTS["sqlite"])

    assert wider.identify({"rate": 1.0, "steps": 3}).id == named({"rate": 1.0, "steps": 3}).id


@pytest.mark.parametrize(
    "column",
    [lambda: mapped_column(default=lambda: 3), lambda: mapped_column(default=select(1).scalar_subquery())],
)
def test_default_that_is_a_function_or_sql_makes_the_parameter_required(column):
    class Computed(Base):
        __tablename__ = "identity_computed"
        steps: Mapped[int] = column()

    with pytest.raises(ParameterError, match="'steps'"):
        Parameters(Computed, DIALECTS["sqlite"]).identify({})


def test_default_that_is_no_value_of_its_column_raises():
    class Wrong(Base):
        __tablename__ = "identity_wrong"
        steps: Mapped[int] = param(default=1.5)

    with pytest.raises(ParameterError, match=r"steps"):
        Parameters(Wrong, DIALECTS["sqlite"])


# Keys


def test_key_of_parameters_in_the_columns_types_is_their_hash():
    params = {"rate": 0.5, "steps": 3, "note": "a", "grid": {"cells": [2, "é"]}}

    identity = named(params)

    assert (identity.id, identity.former_id) == (hash_params(params), None)


@quick
@given(parameters(strategies.ordinary_floats))
def test_key_of_typed_values_not_at_a_default_is_their_hash(params):
    everything = Parameters(Everything, DIALECTS["sqlite"])
    identity = everything.identify({**params, "maybe": 1.5, "rate": 1.5, "tree": {}})

    assert hash_params({**identity.values, "colour": identity.values["colour"].name}) == identity.id


@quick
@given(params=parameters(), random=st.randoms(use_true_random=False))
def test_identity_does_not_depend_on_order(everything, params, random):
    items = list(params.items())
    random.shuffle(items)

    assert everything.identify(dict(items)).id == everything.identify(params).id


@quick
@given(params=parameters())
def test_identify_of_what_the_runner_gets_changes_nothing(everything, params):
    identity = everything.identify(params)
    again = everything.identify(identity.for_runner())

    assert (again.id, again.values) == (identity.id, identity.values)
    assert [type(value) for value in again.values.values()] == [type(v) for v in identity.values.values()]


@quick
@given(params=parameters())
def test_load_of_a_dump_that_travelled_as_json_is_the_values(everything, params):
    identity = everything.identify(params)

    stored = json.loads(json.dumps(everything.dump(identity.values), allow_nan=False))

    assert everything.load(stored) == identity.values
    assert key_of(everything, everything.load(stored)) == identity.id


def test_load_of_a_dump_keeps_infinities_and_leaves_vanished_names_out():
    parameters_ = decay()
    dumped = parameters_.dump(parameters_.identify({"rate": math.inf}).values)

    assert json.loads(json.dumps(dumped, allow_nan=False))["rate"] == "inf"
    assert parameters_.load({**dumped, "gone": 1})["rate"] == math.inf
    assert "gone" not in parameters_.load({**dumped, "gone": 1})


@quick
@given(array=strategies.arrays.filter(lambda array: array.size), data=st.data())
def test_arrays_that_differ_in_one_element_are_two_runs(array, data):
    place = data.draw(st.integers(0, array.size - 1))
    other = array.copy()
    octets = other.reshape(-1).view("u1")
    octets[place * array.itemsize] ^= 1

    if other.tobytes() != array.tobytes():
        one, two = (named({"rate": 1.0, "grid": {"cells": cells}}) for cells in (array, other))
        assert one.id != two.id
        assert decay().differences(one, two.values).keys() == {"grid"}


@pytest.mark.parametrize(
    "kind", ["sqlite_url", "postgres_url", "mysql_url"], ids=["sqlite", "postgresql", "mysql"]
)
def test_key_made_anew_from_the_row_is_its_key(kind, request, tmp_path):
    store = Store(print, Everything, tmp_path / "results", db_url=request.getfixturevalue(kind))
    table = Everything.__table__
    names = Parameters(Everything, DIALECTS["sqlite"]).names
    typed = Parameters(Everything, store.database.engine.dialect)

    @on_database
    @given(parameters())
    def holds(params):
        identity = typed.identify(params)
        row = {"id": identity.id, "result_file": "a.h5", "custom_data": {}, **identity.values}
        with store.database.engine.begin() as connection:
            connection.execute(table.delete())
            connection.execute(insert(table), row)
        (record,) = store.records()

        found = {name: getattr(record, name) for name in names}
        assert key_of(typed, found) == record.id == identity.id
        assert typed.differences(identity, found) == {}

    holds()


# What the published release did


@pytest.mark.parametrize(
    "params", [{"rate": 1}, {"rate": 1.0, "steps": 10}, {"rate": 1e-13}, {"rate": np.float64(2)}]
)
def test_second_key_is_what_the_published_release_made_of_the_raw_parameters(params):
    identity = named(params)

    former = hash_params(params)
    assert identity.ids == ((identity.id,) if former == identity.id else (identity.id, former))
    assert (identity.former_id is None) is (type(params["rate"]) is np.float64)


def test_second_key_is_absent_where_the_raw_parameters_have_no_hash_or_an_id():
    assert named({"rate": 1, "id": "mine"}).ids == ("mine",)


RAW = {"rate": 1, "steps": 10}


@pytest.fixture
def former(tmp_path: Path, sqlite_url: str) -> Any:
    """A store whose one row stands under the key that the published release gave `RAW`."""
    runner = NumberedRunner()
    store = Store(runner, Decay, tmp_path / "results", ".txt", sqlite_url)
    put(store, tmp_path, rate=1.0)
    return store, runner


def put(store: Any, folder: Path, **values: Any) -> None:
    file = folder / "former.txt"
    file.write_text("former")
    row = {
        "id": hash_params(RAW),
        "result_file": str(file),
        "custom_data": {},
        "steps": 10,
        "grid": {"cells": [1, 0.3]},
    }
    with store.database.engine.begin() as connection:
        connection.execute(Decay.__table__.delete())
        connection.execute(insert(Decay.__table__), {**row, "created_at": datetime.now(UTC), **values})


def test_row_under_the_former_key_is_a_hit(former):
    store, runner = former

    record = store.run_or_retrieve(RAW)

    assert (record.id, runner.calls, Path(record.result_file).read_text()) == (hash_params(RAW), 0, "former")


def test_row_of_other_parameters_under_the_former_key_is_a_miss_and_stays(former, tmp_path):
    store, runner = former
    put(store, tmp_path, rate=2.0)

    record = store.run_or_retrieve(RAW)

    assert (record.id, record.rate, runner.calls) == (store.key(RAW), 1.0, 1)
    assert sorted(row.rate for row in store.records()) == [1.0, 2.0]


def test_run_acts_on_the_row_under_the_former_key(former):
    store, runner = former

    record = store.run(RAW)

    assert (record.id, runner.calls, store.count()) == (hash_params(RAW), 1, 1)


def test_register_acts_on_the_row_under_the_former_key(former, tmp_path):
    store, _ = former
    file = tmp_path / "mine.txt"
    file.write_text("mine")

    record = store.register(RAW, file, overwrite=True)

    assert (record.id, record.result_file, store.count()) == (hash_params(RAW), str(file), 1)


def test_delete_acts_on_the_row_under_the_former_key(former):
    store, _ = former

    assert store.delete(RAW)
    assert store.count() == 0


def test_row_under_the_own_key_with_other_parameters_is_a_collision_that_shows_both(former):
    store, runner = former
    record = store.run_or_retrieve({"rate": 3.0})
    with store.database.engine.begin() as connection:
        connection.execute(Decay.__table__.update().where(Decay.id == record.id).values(rate=4.0))

    with pytest.raises(HashCollisionError, match=r"rate: asked for 3\.0, stored 4\.0"):
        store.run_or_retrieve({"rate": 3.0})
    assert runner.calls == 1


# What a row must be


@pytest.mark.parametrize(
    ("stored", "is_same"),
    [
        ({"rate": 1.0 + 1e-10}, True),
        ({"rate": 1.0 + 1e-8}, False),
        ({"rate": None}, False),
        ({"steps": 11}, False),
        ({"steps": None}, True),  # the row is from before the column, whose default is meant
        ({"note": ""}, False),
        ({"note": None}, False),
        ({"grid": {"cells": [1, 0.1 + 0.2]}}, True),
        ({"grid": {"cells": [1, 0.31]}}, False),
        ({"grid": None}, True),
        ({"steps": "many"}, False),  # what the column would refuse, SQLite holds all the same
        ({"grid": {"cells": [math.nan]}}, False),
        ({"grid": object()}, False),
    ],
)
def test_row_is_the_run_asked_for_or_differs(stored, is_same):
    identity = named({"rate": 1.0, "note": "a"})
    row = {**identity.values, **stored}

    assert decay().differences(identity, row) == (
        {} if is_same else {name: (identity.values[name], value) for name, value in stored.items()}
    )


def test_explicit_id_compares_only_what_was_given():
    identity = named({"id": "mine", "rate": 1.0})

    assert decay().differences(identity, {"rate": 1.0, "steps": 99, "note": "x", "grid": {}}) == {}
    assert decay().differences(identity, {"rate": 2.0}).keys() == {"rate"}


def test_id_alone_will_do_where_the_parameters_need_not_be_complete():
    assert decay().identify({"id": "mine"}, complete=False).id == "mine"
    with pytest.raises(ParameterError, match="'rate'"):
        decay().identify({"id": "mine"})


# What the runner gets


def test_runner_gets_copies_of_its_own():
    grid = {"cells": np.arange(3), "deep": {"a": [1, 2]}}
    identity = named({"rate": 1, "grid": grid})

    got = identity.for_runner()
    got["grid"]["cells"][0] = 9
    got["grid"]["deep"]["a"].append(3)

    assert list(grid["cells"]) == [0, 1, 2]
    assert grid["deep"] == {"a": [1, 2]}
    assert list(identity.for_runner()["grid"]["cells"]) == [0, 1, 2]


def test_runner_gets_what_was_given_to_the_type():
    grid = {"cells": np.arange(3), "colour": Colour.RED, "size": (np.int64(3), {"a": {1, 2}})}

    got = named({"rate": np.float32(0.5), "grid": grid}).for_runner()

    assert (got["rate"], type(got["rate"])) == (0.5, float)
    assert isinstance(got["grid"]["cells"], np.ndarray)
    assert (got["grid"]["colour"], got["grid"]["size"]) == (Colour.RED, (3, {"a": {1, 2}}))
    assert type(got["grid"]["size"][0]) is int


def test_array_that_was_changed_before_it_is_run_is_refused():
    cells = np.arange(3)
    identity = named({"rate": 1.0, "grid": {"cells": cells}})
    cells[0] = 9

    with pytest.raises(
        ParameterError, match=r"'grid' is a numpy\.ndarray that was changed since it was given"
    ):
        identity.for_runner()


@pytest.mark.parametrize("missing", [None, float("nan"), np.float64("nan")])
def test_id_that_is_missing_is_no_key(missing):
    with pytest.raises(ParameterError, match="leave it out, for the key of the parameters"):
        named({"rate": 1.0, "grid": {}, "id": missing})


class Guarded:
    def __init__(self) -> None:
        self.lock = threading.Lock()


def test_object_with_a_hasher_that_cannot_be_copied_is_refused_before_it_is_run(monkeypatch):
    monkeypatch.setattr(hashing, "_hashers", {})
    register_hasher(Guarded, lambda value: 1)
    identity = named({"rate": 1.0, "grid": {"client": Guarded()}})

    with pytest.raises(ParameterError, match=r"is a .*Guarded, of which .* Give Guarded a __deepcopy__"):
        identity.for_runner()


def test_two_floats_that_the_key_calls_one_are_one_row():
    one, other = (named({"rate": rate, "grid": {"a": rate}}) for rate in (0.0005 + 4.8e-13, 0.0005 - 4.8e-13))

    assert one.id == other.id
    assert decay().differences(one, other.values) == {}


@pytest.mark.parametrize(
    ("stored", "is_same"),
    [
        ({"cells": [1, 2.0]}, True),
        ({"cells": [1.0, 2]}, True),  # JSONB and SQLite do not keep 1.0 from 1
        ({"cells": [True, 2.0]}, False),
        ({"cells": [1, 2.0, 3]}, False),
        ({"cells": {"__entropic__": "tuple", "value": [1, 2.0]}}, False),
        ({"cells": [1, 2.0], "more": None}, False),
        ({"cells": [1, 2.0 + 1e-14]}, True),
    ],
)
def test_document_in_a_row_is_compared_by_type_and_numbers_by_value(stored, is_same):
    identity = named({"rate": 1.0, "grid": {"cells": [1, 2.0]}})

    assert (decay().differences(identity, {**identity.values, "grid": stored}) == {}) is is_same


def test_row_of_the_published_release_has_lists_for_tuples():
    identity = named({"rate": 1.0, "grid": {"cells": (1, (2.0,))}})
    row = {**identity.values, "grid": {"cells": [1, [2.0]]}}

    assert identity.former_id == hash_params({"rate": 1.0, "grid": {"cells": [1, [2.0]]}})
    assert decay().differences(identity, row, is_former=True) == {}
    assert decay().differences(identity, row).keys() == {"grid"}


@pytest.mark.parametrize("value", [{1, 2}, Path("a"), Colour.RED, np.arange(2), {1: 2}, b"x"], ids=shown)
def test_value_that_the_published_release_could_not_store_is_not_looked_for_twice(value):
    assert named({"rate": 1, "grid": {"a": value}}).former_id is None


def test_parameters_for_people_are_as_given_where_their_document_says_all():
    parameters_ = decay()
    given_ = {"rate": 1.0, "grid": {"at": (1, Path("a")), "of": {2: datetime(2026, 1, 2)}}}
    with_array = {"rate": 1.0, "grid": {"cells": np.arange(2)}}

    shown = [
        parameters_.for_people(json.loads(json.dumps(parameters_.dump(parameters_.identify(one).values))))
        for one in (given_, with_array)
    ]

    assert shown[0]["grid"] == given_["grid"]
    assert shown[1]["grid"]["cells"]["__entropic__"] == "array"


def test_dict_that_looks_like_a_document_is_a_dict():
    posing = {"__entropic__": "tuple", "value": [1, 2]}

    identity = named({"rate": 1.0, "grid": posing})

    assert identity.for_runner()["grid"] == posing
    assert identity.id != named({"rate": 1.0, "grid": {"a": (1, 2)}}).id


# What it returns


def test_split_parts_outputs_from_the_rest(everything):
    outputs, rest = everything.outputs.split_returned(
        {"score": np.float64(0.5), "rank": 3.0, "iterations": 7}
    )

    assert (outputs, rest) == ({"score": 0.5, "rank": 3}, {"iterations": 7})


@pytest.mark.parametrize("value", [math.nan, np.float64("nan"), None])
def test_split_makes_nan_null(everything, value):
    assert everything.outputs.split_returned({"score": value}) == ({"score": None}, {})


def test_split_keeps_an_infinity_where_the_database_has_one():
    outputs = {
        name: Parameters(Everything, dialect).outputs.split_returned({"score": math.inf})[0]["score"]
        for name, dialect in DIALECTS.items()
    }

    assert outputs == {"sqlite": math.inf, "postgresql": math.inf, "mysql": None}


def test_split_reads_times_as_they_travelled(everything):
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)

    assert everything.outputs.split_returned({"seen": moment.isoformat()}) == ({"seen": moment}, {})


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ({"score": "high"}, "score, returned by the runner, is left out"),
        ({"rank": 1.5}, "rank, returned by the runner, is left out"),
        ({"seen": "yesterday"}, "seen, returned by the runner, is left out"),
        ({"count": 3}, "'count', returned by the runner, is left out"),
        ({"id": "x"}, "'id', returned by the runner, is left out"),
        ({"curve": [1.0, math.nan]}, "'curve', returned by the runner, is left out"),
    ],
)
def test_split_leaves_out_what_cannot_be_stored_with_a_warning(everything, caplog, returned, text):
    assert everything.outputs.split_returned({**returned, "tag": "kept"}) == ({"tag": "kept"}, {})
    assert text in caplog.text


# What the database remembers, and look-ups by column


def test_describe_says_the_same_of_every_dialect_and_release_of_sqlalchemy(everything):
    kinds = {name: about["type"] for name, about in everything.describe().items()}

    assert kinds == {
        **{"number": "float", "count": "int", "flag": "bool", "name": "str", "octets": "bytes"},
        **{"moment": "datetime", "day": "date", "clock": "time", "duration": "timedelta", "price": "decimal"},
        **{
            "colour": "enum",
            "key": "uuid",
            "tree": "json",
            "items": "json",
            "maybe": "float",
            "rate": "float",
        },
    }


def test_describe_says_which_defaults_there_are():
    assert decay().describe() == {
        "rate": {"type": "float"},
        "steps": {"type": "int", "default": 10},
        "note": {"type": "str", "default": None},
        "grid": {"type": "json", "default": {"cells": [1, 0.3]}},
    }


def test_typed_filters_type_as_parameters_are_typed():
    assert decay().typed_filters({"rate": np.float32(0.5), "id": "a"}) == {"rate": 0.5, "id": "a"}


@pytest.mark.parametrize(
    ("equals", "text"), [({"grid": {}}, "is JSON"), ({"gird": {}}, "gird"), ({"custom_data": {}}, "JSON")]
)
def test_typed_filters_refuse_json_and_unknown_names(equals, text):
    with pytest.raises(ParameterError, match=text):
        decay().typed_filters(equals)
