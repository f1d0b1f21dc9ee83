"""What somebody new writes: each either works, or says in one sentence what does."""

import enum
import functools
import time
import types
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import CheckConstraint, Numeric, inspect
from sqlalchemy.exc import ArgumentError

from entropic import Base, Database, Mapped, ParameterError, SchemaError, Store, memoize
from entropic.sql import engines


def once(n: int) -> int:
    return 10 * n


def twice(n: int, dt: float = 0.5) -> float:
    return n * dt


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """Everything with its default place, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The shapes of a sweep


@pytest.mark.parametrize(
    "sets",
    [
        [{"n": 1}, {"n": 2}],
        {"n": [1, 2]},
        {"n": np.array([1, 2])},
        pd.DataFrame({"n": [1, 2]}),
        [row for _, row in pd.DataFrame({"n": [1, 2]}).iterrows()],
        [1, 2],
        range(1, 3),
        np.array([1, 2]),
        pd.Series([1, 2]),
    ],
    ids=["dicts", "grid", "grid of array", "frame", "rows", "numbers", "range", "array", "series"],
)
def test_sweep_takes_any_shape_that_says_what_is_meant(in_folder, sets):
    function = memoize(once)

    assert [record.load() for record in function.sweep(sets, progress=False)] == [10, 20]
    result = function.store.sweep(sets, progress=False)
    assert [record.n for record in result.align(sets)] == [1, 2]
    assert result.align([{"n": 1}, {"n": 2}]) == result.align(sets)


def test_sweep_takes_a_grid_of_several_and_a_frame_with_the_types_of_its_columns(in_folder):
    function = memoize(twice)
    frame = pd.DataFrame({"n": [1, 2], "dt": [0.25, 0.5]})

    grid = function.sweep({"n": [1, 2], "dt": (0.25, 0.5)}, progress=False)
    rows = function.sweep(frame, progress=False)

    assert [(record.n, record.dt) for record in grid] == [(1, 0.25), (1, 0.5), (2, 0.25), (2, 0.5)]
    assert [record.id for record in rows] == [grid[0].id, grid[3].id]


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ([1, 2], "parameter set 0 is 1, which does not say whose value it is: a sweep takes dicts"),
        ({"n": 1}, "{'n': 1} is one parameter set: a sweep takes dicts"),
        (5, "5 is no parameter sets: a sweep takes dicts"),
        ("n", "'n' is no parameter sets"),
        ({"n": [1], "dt": 0.5}, r"wrap it in a list, \[0.5\]"),
        ([{"N": 1}], "needs 'n', .* 'N' was; did you mean 'n'?"),
        ([{"m": 1}], r"needs 'n', .* 'm' was given\. It has: n, dt\."),
        ([{"n": 1, "dtt": 1}], "no parameter 'dtt'; did you mean 'dt'?"),
    ],
)
def test_sweep_says_what_it_takes(in_folder, sets, words):
    with pytest.raises(ParameterError, match=words):
        memoize(twice).sweep(sets)


def test_sweep_with_a_second_number_or_an_executor_names_the_keyword(in_folder):
    with pytest.raises(TypeError, match="workers=4"):
        memoize(once).sweep([1], 4)
    with ThreadPoolExecutor() as executor, pytest.raises(TypeError, match="executor="):
        memoize(once).sweep([1], executor)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers must be an int of at least 1, not 0"),
        ({"workers": "4"}, "not '4'"),
        ({"workers": 2, "client": object()}, "client= and workers= exclude each other"),
        ({"on_error": "ignore"}, "on_error must be one of .*, not 'ignore'"),
    ],
)
def test_sweep_with_an_option_that_is_none_says_so_even_where_nothing_is_to_run(in_folder, options, words):
    function = memoize(once)
    function(1)

    with pytest.raises(ValueError, match=words):
        function.sweep([1], **options)


# What there is


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (True, "True is no condition: one is an expression of a column"),
        ("n > 3", "'n > 3' is no condition"),
        (3, "3 is no condition"),
        (lambda record: record.n > 3, "is no condition"),
    ],
)
def test_condition_that_is_none_is_refused(in_folder, where, words):
    function = memoize(once)
    function(1)

    for ask in (function.records, function.store.count, function.to_frame):
        with pytest.raises(ParameterError, match=words):
            ask(where)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"limit": -1}, "at least 0, not -1"),
        ({"limit": "a"}, "at least 0, not 'a'"),
        ({"limit": 2.5}, r"at least 0, not 2\.5"),
        ({"n": [1, 2]}, r"once.n is compared with one value, not with \[1, 2\]; .*Model\.n\.in_"),
        ({"order_by": "nn"}, r"once has no column 'nn' to order by; did you mean 'n'\?"),
        (
            {"order_by": "-n"},
            r"no column '-n' to order by: the other way round is Model\.n\.desc\(\)\. It has",
        ),
    ],
)
def test_question_that_cannot_be_meant_says_what_can(in_folder, asked, words):
    with pytest.raises(ParameterError, match=words):
        memoize(once).records(**asked)


@pytest.mark.parametrize("of", [list, tuple])
def test_conditions_in_a_list_are_told_how_they_are_given(in_folder, of):
    function = memoize(once)
    function.sweep([1, 2, 3], progress=False)
    conditions = of([function.model.n > 1, function.model.n < 3])

    with pytest.raises(
        ParameterError, match=r"are in a list: conditions are given one by one, as in records\(\*"
    ):
        function.records(conditions)
    assert [record.n for record in function.records(*conditions)] == [2]


def test_limit_of_zero_and_of_none_are_what_they_say(in_folder):
    function = memoize(once)
    function.sweep([1, 2], progress=False)

    assert (len(function.records(limit=0)), len(function.records(limit=None))) == (0, 2)


# Calls and decorations


class Scheme(enum.Enum):
    EULER = 1
    RK4 = 4


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (Scheme, 4, r"must be one of Scheme\.EULER, Scheme\.RK4, not 4 \(int\); did you mean Scheme\.RK4\?"),
        (
            Literal["rk4", "euler"],
            "rk",
            r"must be one of 'rk4', 'euler', not 'rk' \(str\); did you mean 'rk4'\?",
        ),
        (
            datetime,
            "2024-01-01",
            r"must be a datetime, not .*; write datetime\.fromisoformat\('2024-01-01'\)",
        ),
        (date, datetime(2024, 1, 1), r"must be a date, not a datetime: .*; write \.date\(\)"),
        (
            timedelta,
            timedelta(days=3_000_000),
            r"cannot be stored: .* of datetime\.timedelta\(days=3000000\)",
        ),
        (int, 2**70, r"is 1180591620717411303424, .*Annotated\[int, Numeric\(40, 0\)\], or as a str"),
        (
            int,
            None,
            r"is None, but the column is not nullable: pass a value, or annotate it as \.\.\. \| None",
        ),
        (str, "a\0", r"holds a NUL character, .*'a\\x00' \(str\); pass bytes"),
    ],
    ids=["member", "choice", "time as text", "date", "duration", "int", "None", "NUL"],
)
def test_value_that_does_not_fit_says_which_and_what_to_write(in_folder, annotation, value, words):
    def fitting(value):
        return 0

    fitting.__annotations__["value"] = annotation

    with pytest.raises(ParameterError, match=rf"fitting\.value {words}"):
        memoize(fitting)(value)


def test_int_of_any_size_fits_the_column_that_the_message_names(in_folder):
    @memoize
    def wide(value: Annotated[int, Numeric(40, 0)]) -> int:
        return int(value)

    assert wide(2**70) == 2**70


@pytest.mark.parametrize("annotation", [np.float64, np.int32, np.bool_], ids=lambda one: one.__name__)
def test_annotation_of_a_numpy_scalar_names_pythons_own(annotation):
    def scaled(value):
        return 0

    scaled.__annotations__["value"] = annotation

    with pytest.raises(TypeError, match="write int, float, bool or str for it"):
        memoize(scaled)


@pytest.mark.parametrize("params", [1000, [("n", 1)], "n", None])
def test_parameters_that_are_no_dict_are_refused(in_folder, params):
    with pytest.raises(
        ParameterError, match=r"the parameters of once are a dict by name, as in \{'n': \.\.\.\}, not"
    ):
        memoize(once).store.run_or_retrieve(params)


def test_function_that_is_memoized_already_says_so():
    function = memoize(once)

    with pytest.raises(TypeError, match="cannot memoize once: it is memoized already"):
        memoize(function)


@pytest.mark.parametrize(
    "runner", [lambda n, dt: None, lambda: None, lambda *, params: None], ids=["two", "none", "keyword"]
)
def test_runner_that_takes_no_dict_is_refused_before_anything_is_made(in_folder, runner):
    model = memoize(once).model

    with pytest.raises(
        TypeError, match=r"called with one dict of parameters, as runner\(params\), but .* takes \("
    ):
        Store(runner, model, "results")
    assert list(in_folder.iterdir()) == []


class Untabled(Base):
    __abstract__ = True
    n: Mapped[int]


@pytest.mark.parametrize("model", [Base, Untabled, dict, "walks"])
def test_model_without_a_table_is_refused_before_anything_is_made(in_folder, model):
    with pytest.raises(
        TypeError, match=r"subclass of entropic\.Base, with a table, not .*Store\(runner, Model"
    ):
        Store(print, model)
    assert list(in_folder.iterdir()) == []


def test_missing_argument_of_a_call_is_said_in_sentences(in_folder):
    with pytest.raises(TypeError, match=r"missing a required argument: 'n'\. It is twice\(n, dt=0\.5\)"):
        memoize(twice)()


def test_misspelt_argument_of_a_call_is_a_type_error_with_what_was_meant(in_folder):
    with pytest.raises(TypeError, match=r"twice\(\) .*'dtt'; did you mean 'dt'\? It is twice\(n, dt=0.5\)"):
        memoize(twice)(5, dtt=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outputs": ["a"]}, r"outputs=\{'a': float\}, not \['a'\]"),
        ({"outputs": "a"}, r"outputs=\{'a': float\}"),
        ({"output": {"a": float}}, "no option 'output'; did you mean 'outputs'"),
        ({"cache": 1}, "no option 'cache'. It has: results_dir, "),
    ],
)
def test_option_that_is_none_says_which_there_are(options, words):
    with pytest.raises(TypeError, match=words):
        memoize(**options)
    with pytest.raises(TypeError, match=words):
        memoize(table="x")(**options)


def hidden(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def named(function):
    return functools.wraps(function)(hidden(function))


def test_decorator_without_wraps_is_named_as_the_reason():
    with pytest.raises(TypeError, match=r"functools\.wraps"):
        memoize(hidden(once))
    assert memoize(named(once)).__name__ == "once"


@pytest.mark.parametrize(
    "names",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"__name__": "nowhere"},
        pytest.param({"__name__": "__main__"}, marks=pytest.mark.slow),
    ],
)
def test_function_that_exec_made_works(in_folder, names):
    exec("def made(n: int) -> int:\n    return n + 1", names)
    made = memoize(names["made"])

    assert made(1) == made(1) == 2
    assert [record.load() for record in made.sweep([1, 2], workers=1, progress=False)] == [2, 3]


def test_default_that_the_machine_makes_names_ignore_which_works(in_folder):
    def define(**options: Any) -> Any:
        def timed(n: int, started: float = time.time()) -> int:
            return n

        return memoize(**{"table": "timed", **options})(timed)

    define()(1)
    with pytest.raises(
        SchemaError, match=r"begin anew with ignore=\['started'\](.|\n)*memoize: table='timed_2'"
    ):
        define()(1)

    assert [define(table="timed_2", ignore=["started"])(1) for _ in range(2)] == [1, 1]


# Databases


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("my.sqlite3", "SQLite file write 'sqlite:///my.sqlite3'"),
        ("", "SQLite file write 'sqlite:///file.sqlite3'"),
        ("sqlite://my.sqlite3", "'sqlite:///my.sqlite3', or four"),
        ("sqlite://data/my.sqlite3", "'sqlite:///data/my.sqlite3'"),
        (Path("my.sqlite3"), "such as 'sqlite:///my.sqlite3'"),
        (3.5, "named by its URL, not by a float"),
        ("postgres://lab@db/runs", "not on postgres; did you mean 'postgresql'"),
        ("oracle://lab@db/runs", "not on oracle"),
    ],
)
def test_database_that_is_no_url_says_what_is(url, words):
    for make in (Database, lambda url: memoize(db_url=url)(once)):
        with pytest.raises(ArgumentError, match=words):
            make(url)


def test_database_of_nothing_says_what_is_wanted():
    with pytest.raises(ArgumentError, match="named by its URL, not by a NoneType"):
        Database(None)


def test_url_that_cannot_be_parsed_is_not_shown_with_its_password():
    with pytest.raises(ArgumentError) as caught:
        Database("lab:secret@db/runs")

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "postgresql://lab:secret@db/runs",
            r"postgresql\+psycopg.*'psycopg'.*pip install 'entropic\[postgres\]'",
        ),
        ("mysql://lab:secret@db/runs", r"mysql\+pymysql.*'pymysql'.*pip install 'entropic\[mysql\]'"),
        (
            "postgresql+asyncpg://lab:secret@db/runs",
            r"'asyncpg'.*postgresql:// with the driver of pip install",
        ),
        ("sqlite+aiosqlite:///runs.sqlite3", r"'aiosqlite'.*: install it, or use sqlite://$"),
    ],
)
def test_driver_that_is_missing_is_named_with_the_extra(url, words, monkeypatch):
    def create(url, **options):
        raise ModuleNotFoundError(
            "No module", name={"psycopg": "psycopg"}.get(url.get_driver_name(), url.get_driver_name())
        )

    monkeypatch.setattr(engines, "create_engine", create)

    with pytest.raises(ImportError, match=words) as caught:
        Database(url).engine  # noqa: B018
    assert "secret" not in str(caught.value)


def test_driver_that_is_asynchronous_is_refused_with_one_that_is_not():
    with pytest.raises(ArgumentError, match=r"psycopg_async.*asynchronous.*postgresql://") as caught:
        Database("postgresql+psycopg_async://lab:secret@db/runs").engine  # noqa: B018
    assert "secret" not in str(caught.value)


def test_check_without_a_name_holds_on_every_database(database, tmp_path):
    body = {
        "__module__": __name__,
        "__tablename__": "checked",
        "__annotations__": {"n": Mapped[int]},
        "__table_args__": (CheckConstraint("n > 0"), CheckConstraint("n < 100", name="small")),
    }
    model = types.new_class("Checked", (Base,), exec_body=lambda namespace: namespace.update(body))
    store = Store(lambda p: Path(p["result_file"]).touch(), model, tmp_path, ".txt", database)

    assert store.run_or_retrieve({"n": 1}).n == 1
    names = {one["name"] for one in inspect(database.engine).get_check_constraints("checked")}
    assert "ck_checked_small" in names
    assert len({name for name in names if name.startswith("ck_checked_")}) == 2


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"file_suffix": "npy"}, ValueError, r"a dot and what follows it, .* not 'npy': write '\.npy'"),
        ({"file_suffix": None}, TypeError, "a file suffix is a text"),
        ({"lease_s": 0}, ValueError, "lease_s is a number of seconds, more than 0, not 0"),
        ({"lease_s": "3"}, ValueError, "lease_s is a number of seconds, more than 0, not '3'"),
        ({"wait_timeout_s": -1}, ValueError, "wait_timeout_s is a number of seconds, 0 or more, not -1"),
    ],
)
def test_store_with_an_option_that_is_none_is_refused_before_anything_is_made(
    in_folder, options, error, words
):
    with pytest.raises(error, match=words):
        Store(lambda params: None, Number, **options)

    assert list(Path().iterdir()) == []


class Number(Base):
    __tablename__ = "first_numbers"
    n: Mapped[int]
