"""`Base`, `param`, `output`: what a model may be, and what its columns hold on every database."""

from __future__ import annotations

import gc
import warnings
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Double, PickleType, create_engine, insert, inspect, select, text
from sqlalchemy.exc import ArgumentError, StatementError
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import MappedAsDataclass, Session, column_property, declared_attr
from sqlalchemy.schema import CreateColumn, CreateTable

from entropic import Base, Database, Mapped, SchemaError, Store, mapped_column, output, param
from entropic.errors import ParameterError
from entropic.model.base import RESERVED, is_output
from tests.support.every_type import EXAMPLE, Everything

# Reserved columns


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_column_redefined_raises_and_names_it(name):
    with pytest.raises(SchemaError, match=rf"redefines {name}: .*another name"):
        type("Taken", (Base,), {"__tablename__": "taken", name: mapped_column()})
    with pytest.raises(SchemaError, match=f"redefines {name}"):
        type("Taken", (Base,), {"__tablename__": "taken", "__annotations__": {name: Mapped[str]}})
    with pytest.raises(SchemaError, match=f"redefines {name}"):
        type("Taken", (Base,), {"__tablename__": "taken", "other": mapped_column(name)})

    assert "taken" not in Base.metadata.tables


def test_reserved_column_redefined_by_a_mixin_raises_and_names_the_mixin():
    class Stamped:
        created_at: Mapped[datetime]

    class Computed:
        @declared_attr
        def custom_data(self) -> Mapped[str]:
            return mapped_column()

    for mixin in (Stamped, Computed):
        with pytest.raises(SchemaError, match=f"{mixin.__name__} redefines"):
            type("Taken", (mixin, Base), {"__tablename__": "taken", "alpha": mapped_column()})


def test_columns_of_a_mixin_are_parameters():
    class Physical:
        mass: Mapped[float]

    class Ball(Physical, Base):
        __tablename__ = "schema_ball"
        radius: Mapped[float] = param(default=1.0)

    assert {column.name for column in Ball.__table__.columns} == {*RESERVED, "radius", "mass"}


def test_expression_is_refused_with_what_works(tmp_path):
    mass = param(Double)
    body = {"__tablename__": "schema_area", "mass": mass}
    with pytest.raises(SchemaError, match=r"Box\.double is a column_property, .* a hybrid_property"):
        type("Box", (Base,), {**body, "double": column_property(mass * 2)})

    doubled = hybrid_property(lambda self: self.mass * 2)
    model = type("Box", (Base,), {**body, "double": doubled})
    store = Store(
        lambda params: Path(params["result_file"]).write_text(""), model, tmp_path, ".txt", "sqlite://"
    )

    assert store.run_or_retrieve({"mass": 2.0}).double == 4.0
    assert len(store.records(model.double > 3)) == 1


# A model defined again


def cell(default: float = 1.0) -> type[Base]:
    class Cell(Base):
        __qualname__ = "Cell"
        __tablename__ = "schema_cell"
        rate: Mapped[float] = param(default=default)

    return Cell


def test_model_defined_again_replaces_the_old_without_a_warning(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.sqlite3'}"
    old = cell()
    record = Store(write, old, tmp_path / "r", db_url=url).run_or_retrieve({"rate": 2.0})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = cell()
        again = Store(write, new, tmp_path / "r", db_url=url).run_or_retrieve({"rate": 2.0})

    assert new is not old
    assert (type(again), again.id, again.rate) == (new, record.id, 2.0)
    assert (record.rate, record.custom_data["elapsed_seconds"] >= 0, record.created_at.tzinfo) == (
        2.0,
        True,
        UTC,
    )


def test_two_classes_with_one_table_raise_and_both_are_named():
    kept = cell()

    with pytest.raises(SchemaError, match=r"test_schema\.Other and .*test_schema\.Cell both have the table"):
        type("Other", (Base,), {"__tablename__": "schema_cell", "__module__": __name__, "a": mapped_column()})
    assert Base.metadata.tables["schema_cell"] is kept.__table__


def test_table_of_a_class_that_is_gone_is_free():
    gone = type("Gone", (Base,), {"__tablename__": "schema_gone", "__annotations__": {"a": Mapped[int]}})
    del gone
    gc.collect()

    heir = type("Heir", (Base,), {"__tablename__": "schema_gone", "__annotations__": {"b": Mapped[int]}})
    assert "b" in heir.__table__.columns


def write(params: dict[str, Any]) -> None:
    with open(params["result_file"], "w") as file:
        file.write("x")


# apply_patch


class Patched(Base):
    __tablename__ = "schema_patched"
    rate: Mapped[float]
    note: Mapped[str | None]
    rmse: Mapped[float | None] = output()


@pytest.fixture
def record() -> Patched:
    return Patched(id="a", result_file="a.h5", rate=1.0, note="n", custom_data={"a": 1, "b": {"c": 2}})


@pytest.mark.parametrize(
    ("patch", "custom"),
    [
        ({"a": 2, "d": 3}, {"a": 2, "b": {"c": 2}, "d": 3}),
        ({"a": None}, {"b": {"c": 2}}),
        ({"unknown": None}, {"a": 1, "b": {"c": 2}}),
        ({}, {}),
        (None, {"a": 1, "b": {"c": 2}}),
    ],
)
def test_apply_patch_merges_custom_data(record, patch, custom):
    record.apply_patch({"custom_data": patch})

    assert record.custom_data == custom


def test_apply_patch_sets_columns_and_skips_none(record):
    record.apply_patch({"rate": 2.0, "note": None, "rmse": 0.5, "id": "a"})

    assert (record.rate, record.note, record.rmse, record.id) == (2.0, "n", 0.5, "a")


@pytest.mark.parametrize(
    ("patch", "text_"),
    [({"ratte": 1}, "'ratte'"), ({"id": "b"}, "cannot change"), ({"metadata": 1}, "metadata")],
)
def test_apply_patch_that_cannot_be_raises_and_changes_nothing(record, patch, text_):
    with pytest.raises(AttributeError, match=text_):
        record.apply_patch({"rate": 2.0, "custom_data": {}, **patch})

    assert (record.rate, record.custom_data) == (1.0, {"a": 1, "b": {"c": 2}})


@pytest.fixture
def engine():
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


def test_apply_patch_before_a_commit_is_written(record, engine):
    Base.metadata.create_all(engine, [Patched.__table__])

    with Session(engine) as session:
        session.add(record)
        session.commit()
        record.apply_patch({"custom_data": {"a": None, "z": 1}})
        session.commit()
        stored = session.execute(text("SELECT custom_data FROM schema_patched")).scalar_one()

    assert stored == '{"b": {"c": 2}, "z": 1}'


# param and output


class Defaults(Base):
    __tablename__ = "schema_defaults"
    alpha: Mapped[float]
    number: Mapped[float] = param(default=1e-13)
    count: Mapped[int] = param(default=2**40)
    flag: Mapped[bool] = param(default=True)
    name: Mapped[str] = param(default='it\'s 5 % \\ "é"')
    day: Mapped[date] = param(default=date(2026, 1, 2))
    price: Mapped[Decimal] = param(default=Decimal("0.3"))
    rmse: Mapped[float | None] = output()


VALUES = {
    **{"number": 1e-13, "count": 2**40, "flag": True, "name": 'it\'s 5 % \\ "é"', "day": date(2026, 1, 2)},
    **{"price": Decimal("0.3"), "rmse": None},
}


def test_row_inserted_without_the_column_has_the_default(database_url):
    engine = Database(database_url).engine
    Base.metadata.create_all(engine, [Defaults.__table__])

    with engine.begin() as connection:
        row = "INSERT INTO schema_defaults (id, result_file, created_at, custom_data, alpha) VALUES "
        connection.execute(text(row + "('a', 'a.h5', '2026-01-02 03:04:05', '{}', 1.0)"))
        found = connection.execute(select(*(getattr(Defaults, name) for name in VALUES))).one()

    assert found._asdict() == VALUES


def test_column_with_a_default_is_added_to_a_table_with_rows(database_url):
    engine = Database(database_url).engine
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE schema_defaults (id VARCHAR(20) PRIMARY KEY)"))
        connection.execute(text("INSERT INTO schema_defaults VALUES ('a')"))

        for name in VALUES:
            column = str(CreateColumn(Defaults.__table__.columns[name]).compile(dialect=engine.dialect))
            connection.exec_driver_sql(f"ALTER TABLE schema_defaults ADD COLUMN {column}")
        found = connection.execute(select(*(getattr(Defaults, name) for name in VALUES))).one()

    assert found._asdict() == VALUES


def test_default_that_is_a_function_is_no_server_default():
    assert param(default=lambda: 1.0).column.server_default is None


def test_output_is_nullable_and_no_parameter(tmp_path):
    column = Patched.__table__.columns["rmse"]
    store = Store(write, Patched, tmp_path, db_url="sqlite://")

    assert (column.nullable, is_output(column)) == (True, True)
    assert not is_output(Patched.__table__.columns["rate"])
    assert output(nullable=False, info={"unit": "m"}).column.nullable
    with pytest.raises(ParameterError, match="output"):
        store.run_or_retrieve({"rate": 1.0, "rmse": 0.5})


# Types


def test_every_type_comes_back_as_it_was(database_url):
    engine = Database(database_url).engine
    Base.metadata.create_all(engine, [Everything.__table__])

    with Session(engine) as session:
        session.add(
            Everything(id="a", result_file="x" * 70_000, custom_data={"long": "y" * 70_000}, **EXAMPLE)
        )
        session.commit()
        session.expire_all()
        record = session.get(Everything, "a")
        found = {name: getattr(record, name) for name in EXAMPLE}
        rest = (record.result_file, record.custom_data, record.created_at.tzinfo, record.rate)

    assert found == EXAMPLE
    assert [type(value) for value in found.values()] == [type(value) for value in EXAMPLE.values()]
    assert rest == ("x" * 70_000, {"long": "y" * 70_000}, UTC, 0.25)


@pytest.mark.parametrize("other", ["ab ", "Ab", "AB ", "Äb ", "Ab\u0301 "])
def test_strings_compare_bytewise(database_url, other):
    engine = Database(database_url).engine
    Base.metadata.create_all(engine, [Patched.__table__])

    with engine.begin() as connection:
        for key in ("Ab ", other):
            row = {"id": key, "result_file": "a", "custom_data": {}, "created_at": datetime.now(UTC)}
            connection.execute(insert(Patched.__table__), {**row, "rate": 1.0, "note": key})
        found = connection.execute(select(Patched.id).where(Patched.note == other)).scalars().all()

    assert found == [other]


def test_times_are_compared_and_ordered_as_instants(database_url):
    engine = Database(database_url).engine
    Base.metadata.create_all(engine, [Patched.__table__])
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)

    with engine.begin() as connection:
        for n, created_at in enumerate([moment, moment + timedelta(microseconds=1), datetime(2026, 1, 2, 3)]):
            row = {"id": str(n), "result_file": "a", "custom_data": {}, "rate": 1.0, "created_at": created_at}
            connection.execute(insert(Patched.__table__), row)
        later = connection.execute(select(Patched.id).where(Patched.created_at > moment)).scalars().all()
        ordered = connection.execute(select(Patched.id).order_by(Patched.created_at)).scalars().all()

    assert (later, ordered) == (["1"], ["2", "0", "1"])


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": [1, {"b": float("inf")}]}])
def test_json_with_nan_is_refused_by_the_column(value, engine):
    Base.metadata.create_all(engine, [Patched.__table__])

    with Session(engine) as session:
        session.add(Patched(id="a", result_file="a", rate=1.0, custom_data=value))
        with pytest.raises(StatementError, match=r"NaN or infinity, but the value at value\['a'\]"):
            session.commit()


def test_null_in_json_is_sql_null(engine):
    class Nullable(Base):
        __tablename__ = "schema_nullable"
        tree: Mapped[dict[str, float] | None]
        items: Mapped[list[int] | None]

    Base.metadata.create_all(engine, [Nullable.__table__])
    with Session(engine) as session:
        session.add(Nullable(id="a", result_file="a", tree=None, items=[1, 2]))
        session.commit()
        found = session.execute(text("SELECT tree IS NULL, items, custom_data FROM schema_nullable")).one()

    assert tuple(found) == (1, "[1, 2]", "{}")


def test_model_that_is_a_dataclass_works(tmp_path):
    class Point(MappedAsDataclass, Base, kw_only=True):
        __tablename__ = "schema_point"
        x: Mapped[float]
        y: Mapped[float] = param(default=0.5)
        rmse: Mapped[float | None] = output(default=None)

    store = Store(write, Point, tmp_path, db_url="sqlite://")

    assert store.run_or_retrieve({"x": 1}).id == store.run_or_retrieve({"x": 1.0, "y": 0.5}).id
    assert store.count() == 1


def test_constraints_have_names():
    class Named(Base):
        __tablename__ = "schema_named"
        rate: Mapped[float] = mapped_column(index=True)
        code: Mapped[int] = mapped_column(unique=True)

    table: Any = Named.__table__
    names = {str(constraint.name) for constraint in table.constraints} | {
        str(index.name) for index in table.indexes
    }

    assert names == {"pk_schema_named", "uq_schema_named_code", "ix_schema_named_rate"}


def test_library_and_user_tables_never_share_metadata(sqlite_url, tmp_path):
    store = Store(write, Patched, tmp_path, db_url=sqlite_url)

    tables = set(inspect(store.database.engine).get_table_names())
    assert {name for name in tables if name in Base.metadata.tables} == {"schema_patched"}
    assert "CREATE TABLE schema_patched" in str(CreateTable(Patched.__table__))


def test_model_after_one_whose_definition_failed_is_defined():
    with pytest.raises(SchemaError) as kept:
        type("Broken", (Base,), {"__tablename__": "schema_broken", "__annotations__": {"a": Mapped[object]}})

    mended = type(
        "Broken", (Base,), {"__tablename__": "schema_broken", "__annotations__": {"a": Mapped[int]}}
    )

    assert "a" in mended.__table__.columns
    assert isinstance(kept.value.__cause__, ArgumentError)


# Annotations


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (
            Mapped[complex],
            r"Mapped\[complex\], whose values have no column.*\. Use a type such as int, .*ndarray",
        ),
        (Mapped[np.float64], "float64.*write int, float, bool or str for it"),
        (Mapped[Path | None], "Path.*write str for it"),
        (Mapped[object], "object.*no column.*Use a type"),
        (int, r"int, which makes no column: write a: Mapped\[int\]"),
        ("int", r"int, which makes no column: write a: Mapped\[int\]"),
        (Mapped, r"Mapped: say of what, as in a: Mapped\[int\]"),
    ],
)
def test_annotation_that_makes_no_column_raises_and_says_what_would(annotation, says):
    with pytest.raises(SchemaError, match=rf"^Unclear\.a is annotated as .*{says}"):
        type("Unclear", (Base,), {"__tablename__": "schema_unclear", "__annotations__": {"a": annotation}})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (3.0, r"a = 3\.0 makes no column: write a: Mapped\[\.\.\.\] = param\(default=3\.0\)$"),
        ("rk4", r"a = 'rk4' makes no column: .* = param\(default='rk4'\)$"),
        (output, r"a = <function output.* makes no column: .* = output\(\)$"),
        (mapped_column, r"a = <.* makes no column: .* = mapped_column\(\)$"),
    ],
    ids=["number", "text", "output", "mapped_column"],
)
@pytest.mark.parametrize("annotation", [Mapped[float], "Mapped[float]"], ids=["type", "text"])
def test_value_in_the_place_of_a_column_raises_and_says_what_would_make_one(annotation, value, says):
    """SQLAlchemy leaves it out: it would be no parameter, or no output, and nobody would know."""
    contents = {"a": value, "__annotations__": {"a": annotation}}

    with pytest.raises(SchemaError, match=rf"^Plain\.{says}"):
        type("Plain", (Base,), {"__tablename__": "schema_plain", **contents})
    with pytest.raises(SchemaError, match=rf"^Mixin\.{says}"):
        type("Plain", (type("Mixin", (), contents), Base), {"__tablename__": "schema_plain"})
    assert "schema_plain" not in Base.metadata.tables


def test_none_in_the_place_of_a_mixins_column_takes_it_away():
    class Timed:
        seconds: Mapped[float] = mapped_column()

    class Untimed(Timed, Base):
        __tablename__ = "schema_untimed"
        seconds = None
        n: Mapped[int]

    assert set(Untimed.__table__.columns.keys()) == {*RESERVED, "n"}


@pytest.mark.parametrize("function", [param, output])
@pytest.mark.parametrize("given", [3, 0.5, False, [1], float])
def test_default_or_type_without_its_name_raises_and_says_how_it_is_given(function, given):
    with pytest.raises(SchemaError, match=r"makes no column: a default is given by name, .*Mapped\[float\]"):
        function(given)


def test_annotation_that_makes_no_column_is_not_blamed_where_the_column_has_a_type():
    columns = {
        "a": mapped_column(PickleType),
        "__annotations__": {"a": Mapped[complex], "b": Mapped["Unknown"]},
    }

    with pytest.raises(ArgumentError, match="Unknown"):
        type("Unclear", (Base,), {"__tablename__": "schema_unclear", **columns})


def test_array_is_a_parameter_and_may_be_its_default(tmp_path, sqlite_url):
    class Weighted(Base):
        __tablename__ = "schema_weighted"
        weights: Mapped[np.ndarray] = param(default=np.zeros(3))

    seen = []
    store = Store(lambda p: seen.append(p["weights"]) or write(p), Weighted, tmp_path, db_url=sqlite_url)
    ids = [
        store.run_or_retrieve(given).id for given in ({}, {"weights": np.zeros(3)}, {"weights": np.ones(3)})
    ]

    assert [array.tolist() for array in seen] == [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    assert ids[0] == ids[1] != ids[2]
