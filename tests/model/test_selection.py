"""A model that was defined again while a Store of the former class is kept, as when a notebook's cell runs twice."""

import enum
import types
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, or_, select

from entropic import Base, Mapped, ParameterError, Store, memoize, output, param


def define(**more):
    body = {
        "__module__": __name__,
        "__tablename__": "selected",
        "__annotations__": {"n": Mapped[int], **dict.fromkeys(more, Mapped[float])},
        **more,
    }
    return types.new_class("Selected", (Base,), exec_body=lambda namespace: namespace.update(body))


@pytest.fixture
def classes(database, tmp_path):
    """The class that a Store has, one that was defined before it, one since, and the Store."""
    before = define()
    own = define()
    store = Store(lambda p: Path(p["result_file"]).touch(), own, tmp_path, ".txt", database)
    for n in range(6):
        store.run_or_retrieve({"n": n})
    return before, own, define(x=param(default=0.5)), store


CONDITIONS = {
    "compare": lambda c: c.n > 2,
    "or": lambda c: or_(c.n == 3, c.n.in_([4, 5])),
    "arithmetic": lambda c: (c.n + 1).between(4, 6),
    "subquery": lambda c: c.n > select(func.min(c.n) + 2).scalar_subquery(),
}


def test_condition_on_any_definition_of_the_class_selects_the_same(classes):
    store = classes[-1]
    for definition, condition in product(classes[:3], CONDITIONS.values()):
        where = condition(definition)

        assert [record.n for record in store.records(where, order_by=definition.n.desc())] == [5, 4, 3]
        assert store.count(where) == len(store.to_frame(where)) == 3
        assert store.run_or_retrieve({"n": 3}).n == 3


def test_column_that_the_stores_class_lacks_is_refused_with_the_way_out(classes):
    with pytest.raises(ParameterError, match=r"the column 'x', which .*Make the Store anew"):
        classes[-1].records(classes[2].x > 0)


def members(**values):
    return enum.Enum("Scheme", values, module=__name__, qualname="Scheme")


SEEN: list[enum.Enum] = []


def test_member_of_an_enum_that_was_defined_again_is_the_same_key_and_reaches_the_function_as_given(tmp_path):
    first, second = members(EULER=1, RK4=4), members(EULER=1, RK4=4)

    def solve(scheme: first, n: int = 1) -> str:
        SEEN.append(scheme)
        return scheme.name

    solve = memoize(results_dir=tmp_path, db_url="sqlite://")(solve)

    assert solve(first.RK4) == solve(second.RK4) == solve(second.RK4, 2) == "RK4"
    assert [SEEN[0] is first.RK4, SEEN[1] is second.RK4, len(SEEN)] == [True, True, 2]
    assert len(solve.records(scheme=second.RK4)) == 2


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"EULER": 1, "RK4": 5}, "where RK4 was 4"), ({"RK4": 4, "AB": 2}, "without this member")],
)
def test_member_that_the_former_enum_had_not_is_refused(tmp_path, values, reason):
    first, second = members(EULER=1, RK4=4), members(**values)

    def name_of(scheme: first) -> str:
        return scheme.name

    name_of = memoize(results_dir=tmp_path, db_url="sqlite://")(name_of)

    with pytest.raises(ParameterError, match=f"{reason}: define the function or the model again"):
        name_of(list(second)[-1])


class Shaped(Base):
    __tablename__ = "selected_shapes"
    n: Mapped[int]
    values: Mapped[dict]
    name: Mapped[str]


@pytest.fixture
def shaped(database, tmp_path):
    store = Store(lambda p: Path(p["result_file"]).touch(), Shaped, tmp_path, ".txt", database)
    store.run_or_retrieve({"n": 1, "values": {"x": 2}, "name": "a"})
    return store


@pytest.mark.parametrize(
    "condition",
    [
        lambda: Shaped.values == np.arange(3),
        lambda: Shaped.values == {"x": 2},
        lambda: Shaped.values.in_([{"x": 2}]),
        lambda: or_(Shaped.n > 0, Shaped.values != {"x": np.arange(3)}),
        lambda: Shaped.custom_data == {"x": 2},
    ],
)
def test_condition_on_json_says_what_one_by_name_does(shaped, condition):
    for ask in (shaped.records, shaped.count, shaped.to_frame):
        with pytest.raises(ParameterError, match=r"is JSON, which SQL cannot compare: select the records by"):
            ask(condition())


@pytest.mark.parametrize("value", [np.arange(3), np.zeros((2, 2))])
@pytest.mark.parametrize("name", ["n", "name", "id"])
def test_condition_that_compares_with_an_array_says_what_the_column_takes(shaped, name, value):
    column = getattr(Shaped, name)
    for condition in (column == value, column.in_([value]), column > value):
        with pytest.raises(ParameterError, match=f"{name} (must be|is compared with one value)"):
            shaped.records(condition)


def test_conditions_that_databases_know_are_theirs(shaped):
    for condition in (
        Shaped.values["x"].as_integer() == 2,
        Shaped.values.is_not(None),
        Shaped.n == np.int64(1),
        Shaped.n.in_([1, 2]),
        Shaped.n.in_([np.int64(1), 2]),
        Shaped.n.between(np.int8(1), np.array(2)),
        Shaped.n > 0.5,
        Shaped.name.like("a%"),
    ):
        assert shaped.count(condition) == 1


@pytest.fixture
def measured(database, tmp_path):
    class Measured(Base):
        __tablename__ = "selected_outputs"
        n: Mapped[int]
        steps: Mapped[int | None] = output()
        error: Mapped[float | None] = output()
        ended: Mapped[datetime | None] = output()

    def run(params):
        Path(params["result_file"]).touch()
        return {"steps": 7 * params["n"], "error": params["n"] / 2, "ended": datetime(2026, 1, params["n"])}

    store = Store(run, Measured, tmp_path, ".txt", database)
    store.sweep({"n": [1, 2, 3]}, progress=False)
    return store


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", np.int64(14)),
        ("steps", np.int8(14)),
        ("steps", 14.0),
        ("error", np.float32(1.0)),
        ("error", 1),
        ("ended", datetime(2026, 1, 2, tzinfo=UTC)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_output_is_found_by_whatever_is_a_value_of_it(measured, name, value):
    """SQLite takes NumPy's ints for bytes, and finds no row: nobody would know."""
    assert [record.n for record in measured.records(**{name: value})] == [2]
    assert (measured.count(**{name: value}), measured.to_frame(**{name: value})["n"].tolist()) == (1, [2])


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("steps", "14", r"Measured\.steps must be an integer, not '14'"),
        ("error", [0.5, 1.0], r"Measured\.error is compared with one value"),
        ("error", float("nan"), r"Measured\.error is NaN"),
        ("ended", "2026-01-02", r"Measured\.ended must be a datetime"),
        ("created_at", "2026-01-02", r"Measured\.created_at must be a datetime"),
        ("id", 5, r"Measured\.id must be a string"),
    ],
)
def test_value_that_no_output_and_no_column_of_the_library_has_is_refused(measured, name, value, says):
    with pytest.raises(ParameterError, match=says):
        measured.records(**{name: value})


def test_columns_of_the_library_are_asked_for_by_name(measured):
    (record,) = measured.records(n=2)

    asked = {name: getattr(record, name) for name in ("id", "created_at", "result_file")}

    assert [one.n for name in asked for one in measured.records(**{name: asked[name]})] == [2, 2, 2]
