"""What a function returns, as columns: which there are, what is in them, and how rows that are older get it."""

import datetime
import logging
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import numpy as np
import pytest
from pydantic import BaseModel

from entropic import Database, ParameterError
from entropic.functions import filling
from entropic.functions.returned import Column, columns_of
from tests.support.memo_cases import memoized
from tests.support.naming import shown


class Fit(NamedTuple):
    rmse: float
    steps: int
    label: str
    coefficients: list[float]


@dataclass
class Point:
    x: float
    day: datetime.date
    name: str | None = None
    other: Any = None
    cached: float = field(default=0.0, init=False)


class Model(BaseModel):
    ok: bool
    at: datetime.datetime


class Partly(TypedDict):
    rmse: float
    mesh: "OnlyForTypeCheckers"  # noqa: F821


class Report(TypedDict):
    rmse: float
    note: NotRequired[str]
    values: np.ndarray


def returning(annotation: Any) -> Any:
    def function(n: int):
        raise AssertionError("it ran")

    function.__annotations__["return"] = annotation
    return function


def names_of(function: Any, outputs: Any = None, parameters: Any = ("n",)) -> dict[str, Any]:
    return {column.name: column.field for column in columns_of(function, parameters, outputs)}


@pytest.mark.parametrize(
    "annotation",
    [float, int, str, bool, datetime.date, datetime.datetime, datetime.time, float | None, Annotated[float, "m"],
     typing.NewType("Kelvin", float), Literal["a", "b"], Literal[1, None], np.float32, np.int64, np.bool_],
    ids=shown,
)  # fmt: skip
def test_scalar_is_the_column_value(annotation):
    assert names_of(returning(annotation)) == {"value": None}


@pytest.mark.parametrize(
    "annotation",
    [None, Any, object, dict, dict[str, float], list[float], np.ndarray, float | str, complex, Literal["a", 1],
     datetime.timedelta, tuple[float, int], "Unknown", "OnlyForTypeCheckers[int]"],
    ids=shown,
)  # fmt: skip
def test_anything_else_has_no_column(annotation):
    assert names_of(returning(annotation)) == {}


def test_function_without_an_annotation_has_no_column():
    def function(n: int):
        return n

    assert names_of(function) == {}


@pytest.mark.parametrize(
    ("class_", "names"),
    [
        (Fit, ["rmse", "steps", "label"]),
        (Point, ["x", "day", "name"]),
        (Model, ["ok", "at"]),
        (Report, ["rmse", "note"]),
        (Partly, ["rmse"]),
        (Fit | None, ["rmse", "steps", "label"]),
    ],
)
def test_fields_that_are_scalars_are_columns(class_, names):
    assert names_of(returning(class_)) == {name: name for name in names}


def test_name_that_a_parameter_or_a_record_has_gets_a_prefix():
    class Odd(TypedDict):
        n: float
        id: str
        load: float
        value: int
        result_n: int

    assert names_of(returning(Odd), parameters=("n", "value")) == {
        "result_result_n": "n",
        "result_id": "id",
        "result_load": "load",
        "result_result_value": "value",
        "result_n": "result_n",
    }
    assert names_of(returning(float), parameters=("value",)) == {"result_result_value": None}


def test_field_that_no_column_can_be_named_after_is_left_out():
    fields = {"a b": float, "x" * 61: float, "fine": float}

    assert names_of(returning(TypedDict("Named", fields))) == {"fine": "fine"}


@pytest.mark.parametrize(
    ("annotation", "outputs", "expected"),
    [
        (Fit, {}, {}),
        (Fit, {"rmse": float}, {"rmse": "rmse"}),
        (Fit, {"error": "rmse", "steps": "steps"}, {"error": "rmse", "steps": "steps"}),
        (float, {"rmse": "value"}, {"rmse": None}),
        (dict, {"rmse": float}, {"rmse": "rmse"}),
    ],
    ids=str,
)
def test_outputs_choose_and_rename(annotation, outputs, expected):
    assert names_of(returning(annotation), outputs) == expected


@pytest.mark.parametrize(
    ("outputs", "named"),
    [
        ({"n": float}, "'n' is a parameter"),
        ({"n": "rmse"}, "'n' is a parameter"),
        ({"id": str}, "'id'"),
        ({"result_value": float}, "'result_value' is a column that every record has"),
        ({"rmse": object}, "'rmse' is said to be object"),
        ({"rmse": "loss"}, "the field 'loss' .* its annotation has 'rmse', 'steps', 'label'"),
    ],
    ids=str,
)
def test_output_that_cannot_be_one_is_refused(outputs, named):
    with pytest.raises(TypeError, match=named):
        columns_of(returning(Fit), ["n"], outputs)


def test_name_of_a_type_is_no_field_and_the_advice_has_the_type():
    with pytest.raises(TypeError, match=r"say the type, as in outputs=\{'rmse': float\}$"):
        columns_of(returning(dict), ["n"], {"rmse": "float"})
    with pytest.raises(TypeError, match=r"say the type, as in outputs=\{'error': float\}$"):
        columns_of(returning(dict), ["n"], {"rmse": "error"})


def test_outputs_that_are_asked_for_are_told_apart():
    (asked,) = columns_of(returning(float), ["n"], {"rmse": "value"})
    (found,) = columns_of(returning(float), ["n"], None)

    assert (asked, found) == (Column("rmse", None, is_asked=True), Column("value", None))


# What is in them

VALUES: dict[int, Any] = {}


def factorial_of(n: int) -> int:
    return math.factorial(n)


def value_of(n: int) -> float:
    return VALUES[n]


def fit_of(n: int) -> Fit:
    return VALUES[n]


def report_of(n: int, rmse: float = 0.0) -> Report:
    return VALUES[n]


def point_of(n: int) -> Point:
    return VALUES[n]


def text_of(n: int) -> str:
    return VALUES[n]


@pytest.fixture(
    params=[
        "sqlite_url",
        pytest.param("postgres_url", marks=pytest.mark.slow),
        pytest.param("mysql_url", marks=pytest.mark.slow),
    ]
)
def database(request):
    database = Database(request.getfixturevalue(request.param))
    yield database
    database.dispose()


def test_numbers_are_filtered_and_ordered_by_the_database(tmp_path, database):
    function = memoized(tmp_path, value_of, url=database)
    VALUES.update({1: 1 / 3, 2: 1e300, 3: -2.5, 4: 3, 5: np.float64(0.1), 6: math.nan})
    for n in VALUES:
        function(n)
    model = function.model

    assert [r.n for r in function.records(model.value > 0, order_by=model.value)] == [5, 1, 4, 2]
    assert [(r.n, r.value) for r in function.records(value=1 / 3)] == [(1, 1 / 3)]
    assert [r.value for r in function.records(n=6)] == [None]
    assert math.isnan(function(6))
    assert (function.records(n=4)[0].value, function(4), type(function(4))) == (3.0, 3, int)
    with pytest.raises(ParameterError, match="is an output"):
        function.store.run_or_retrieve({"n": 1, "value": 2.0})


def test_fields_of_objects_and_mappings_fill_their_columns(tmp_path, database):
    fit, report = (memoized(tmp_path, f, url=database) for f in (fit_of, report_of))
    point = memoized(tmp_path, point_of, url=database)
    VALUES.update({1: Fit(0.5, 7, "a", [1.0]), 2: {"rmse": 0.25, "values": np.arange(3)}})
    VALUES[3] = Point(1.5, datetime.date(2026, 1, 2))
    fit(1), report(2), point(3)

    assert [(r.rmse, r.steps, r.label, r.load()) for r in fit.records()] == [(0.5, 7, "a", VALUES[1])]
    (record,) = report.records(report.model.result_rmse < 1)
    assert (record.rmse, record.result_rmse, record.note) == (0.0, 0.25, None)
    assert Path(record.result_file).suffix == ".h5"
    (record,) = point.records(day=datetime.date(2026, 1, 2))
    assert (record.x, record.name, record.load()) == (1.5, None, VALUES[3])


def test_text_that_is_too_long_for_its_column_is_in_the_result_alone(tmp_path, database, caplog):
    function = memoized(tmp_path, text_of, url=database)
    VALUES.update({1: "x" * 255, 2: "x" * 256, 3: "x" * 5000})

    with caplog.at_level(logging.WARNING):
        assert [function(n) for n in (1, 2, 3)] == [VALUES[1], VALUES[2], VALUES[3]]

    assert [r.value for r in function.records(order_by=function.model.n)] == [VALUES[1], None, None]
    assert [r.result_file is None for r in function.records(order_by=function.model.n)] == [True, True, False]
    assert caplog.records == []


@pytest.mark.parametrize(("value", "says"), [(1j, "is left out"), ("many", "is left out")])
def test_value_that_is_not_what_the_annotation_says_is_kept_and_said(tmp_path, sqlite, caplog, value, says):
    function = memoized(tmp_path, value_of, url=sqlite)
    VALUES[1] = value

    assert function(1) == value

    assert function.records()[0].value is None
    assert says in caplog.text


def test_number_of_more_digits_than_python_writes_is_in_the_result_alone(tmp_path, sqlite, caplog):
    factorial = memoized(tmp_path, factorial_of, url=sqlite)

    assert factorial(2000) == factorial(2000) == math.factorial(2000)
    assert [(record.n, record.value) for record in factorial.records()] == [(2000, None)]
    assert "'value', which is left out: JSON cannot hold an int of 19053 bits" in caplog.text
    assert len(factorial.store.failures()) == 0


def test_columns_are_filled_by_workers_too(tmp_path, sqlite_url):
    function = memoized(tmp_path, squares, url=sqlite_url)

    result = function.sweep([{"n": n} for n in range(4)], workers=2, progress=False)

    assert [record.value for record in result] == [0, 1, 4, 9]
    assert result.to_frame().to_dict("list") == {"n": [0, 1, 2, 3], "value": [0, 1, 4, 9]}
    assert [record.result_value for record in result] == ["0", "1", "4", "9"]


def squares(n: int) -> int:
    return n * n


# Rows that are older


def untyped(n: int):
    return VALUES[n]


def older(folder, function, database, **options):
    """Memoize *function* as the next version of one that is called ``measured``."""
    function.__name__ = function.__qualname__ = "measured"
    return memoized(folder, function, url=database, table="measured", **options)


@pytest.fixture
def grown(tmp_path, database):
    """A function that says by now what it returns, with two results of before and one of after."""
    VALUES.update({1: 0.5, 2: math.nan, 3: 1.5, 4: [1.0]})
    before = older(tmp_path, untyped, database)
    before(1)
    before(2)
    older(tmp_path, untyped, database, inline_bytes=0)(4)
    after = older(tmp_path, value_of, database)
    after(3)
    return after


def test_frame_with_holes_names_the_call_that_fills_them(grown, caplog):
    with caplog.at_level(logging.WARNING):
        holes = grown.to_frame()["value"].isna().tolist()
        said = [record.getMessage() for record in caplog.records]
        caplog.clear()
        filled = grown.fill_columns()
        values = grown.to_frame().set_index("n")["value"]

    assert holes.count(True) == 3
    assert len(said) == 1
    assert "older than the columns value" in said[0]
    assert "measured.fill_columns() fills them in" in said[0]
    assert filled == 1
    assert (values[1], values[3]) == (0.5, 1.5)
    assert values.isna().tolist().count(True) == 2  # a result that is NaN, and one that is none
    assert not [r for r in caplog.records if "fill" in r.getMessage()]


def test_filling_columns_runs_nothing_and_again_changes_nothing(grown, monkeypatch):
    VALUES.clear()

    assert (grown.fill_columns(), grown.fill_columns()) == (1, 0)
    assert [r.result_value for r in grown.records(n=1)] == ["0.5"]
    assert not grown.store.check(checksum=True)


def test_row_that_is_made_anew_while_columns_are_filled_keeps_its_own(grown, monkeypatch):
    real = filling._write

    def write(table, changes):
        VALUES[1] = 9.5
        grown.run(1)
        return real(table, changes)

    monkeypatch.setattr(filling, "_write", write)

    assert grown.fill_columns() == 0
    assert grown.records(n=1)[0].value == 9.5


def test_result_that_is_gone_is_left_and_said_and_the_call_still_named(grown, caplog):
    Path(grown.records(n=4)[0].result_file).unlink()

    filled = grown.fill_columns()

    assert filled == 1
    assert "are not filled in" in caplog.text
    caplog.clear()
    grown.to_frame()
    assert "fill_columns()" in caplog.text


def test_new_table_has_no_holes_to_tell_of(tmp_path, sqlite, caplog):
    VALUES[1] = math.nan
    function = memoized(tmp_path, value_of, url=sqlite)
    function(1)

    assert function.to_frame()["value"].isna().all()
    assert function.fill_columns() == 0
    assert caplog.records == []


def test_parameter_that_is_called_bookkeeping_is_one(tmp_path, sqlite):
    def kept(bookkeeping: int) -> int:
        return bookkeeping

    function = memoized(tmp_path, kept, url=sqlite)
    function(3), function(4)

    assert function.to_frame(bookkeeping=3).to_dict("list") == {"bookkeeping": [3], "value": [3]}


@pytest.mark.parametrize("size", [-1, 1_000_001, True, 2.0, "2 kB"])
def test_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="inline_bytes= is how large a value in the row may be"):
        memoized(Path(), value_of, inline_bytes=size)


@pytest.mark.parametrize(("size", "is_in_row"), [(2, False), (3, True)])
def test_value_of_just_the_size_is_in_the_row(tmp_path, sqlite, size, is_in_row):
    VALUES[1] = 0.5

    record = memoized(tmp_path, value_of, url=sqlite, inline_bytes=size).record(1)

    assert (record.result_file is None) is is_in_row
