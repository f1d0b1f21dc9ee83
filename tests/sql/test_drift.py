"""A table that no longer fits its model is refused with what would put it right; one that fits is read quickly."""

import enum
import logging
import statistics
import textwrap
import time
import uuid
from datetime import date, datetime, timedelta
from datetime import time as datetime_time
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    String,
    Table,
    Time,
    Uuid,
    inspect,
    text,
)
from sqlalchemy.dialects import mysql

from entropic.errors import SchemaError
from entropic.model.base import Base, Mapped, mapped_column, output, param
from entropic.sql.database import Database
from entropic.sql.drift import check_user_table, drift
from tests.support.counting import statements
from tests.support.naming import shown


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class DriftEvery(Base):
    __tablename__ = "drift_every"

    an_int: Mapped[int]
    a_float: Mapped[float]
    a_str: Mapped[str]
    a_bool: Mapped[bool]
    a_time: Mapped[datetime]
    a_date: Mapped[date]
    a_decimal: Mapped[Decimal]
    some_bytes: Mapped[bytes]
    a_dict: Mapped[dict[str, Any]]
    a_colour: Mapped[Colour]
    a_uuid: Mapped[uuid.UUID]
    a_while: Mapped[timedelta] = mapped_column(Interval())
    a_clock: Mapped[Any] = mapped_column(Time())
    plain_json: Mapped[Any] = mapped_column(JSON())
    score: Mapped[float | None] = output()


class DriftSim(Base):
    __tablename__ = "drift_sim"

    n: Mapped[int]
    x: Mapped[float]


class DriftGrown(Base):
    __tablename__ = "drift_grown"

    n: Mapped[int]
    noise: Mapped[float] = param(default=0.0)
    method: Mapped[str] = mapped_column(String(16))


RESERVED = (
    "id VARCHAR(200) NOT NULL PRIMARY KEY, result_file TEXT NOT NULL, created_at {time} NOT NULL, "
    "custom_data {json} NOT NULL"
)


def compare(database: Database, model: type[Base]) -> None:
    check_user_table(database, model.__table__, f"{model.__module__}.{model.__qualname__}")


def make_table(database: Database, name: str, columns: str, reserved: str = RESERVED) -> None:
    timestamp = {"postgresql": "TIMESTAMP WITH TIME ZONE", "sqlite": "DATETIME"}.get(
        database.dialect, "DATETIME(6)"
    )
    both = f"{reserved}, {columns}".format(time=timestamp, json="JSON")
    database.write(lambda c: c.execute(text(f"CREATE TABLE {name} ({both})")))


def drift_of(database: Database, table: Table) -> list[str]:
    with database.reading() as connection:
        return drift(connection, table)


def test_drift_of_a_table_made_from_a_model_of_every_type_is_nothing(database_url):
    database = Database(database_url)
    database.write(lambda c: Base.metadata.create_all(c, tables=[DriftEvery.__table__]))

    found = drift_of(database, DriftEvery.__table__)

    assert found == []


def test_check_of_a_table_made_by_the_published_release_passes(sqlite_url):
    database = Database(sqlite_url)
    reserved = "id VARCHAR NOT NULL PRIMARY KEY, result_file VARCHAR, created_at DATETIME, custom_data JSON"
    make_table(database, "drift_sim", "n INTEGER NOT NULL, x FLOAT NOT NULL", reserved)

    compare(database, DriftSim)

    assert drift_of(database, DriftSim.__table__) == []


def test_check_when_columns_are_missing_names_them_and_what_adds_them(database_url):
    database = Database(database_url)
    make_table(database, "drift_grown", "n BIGINT NOT NULL")

    with pytest.raises(SchemaError) as caught:
        compare(database, DriftGrown)

    told = str(caught.value).replace("(0.0)", "0.0")  # SQLAlchemy 2.1 writes the brackets
    noise = {"postgresql": "DOUBLE PRECISION DEFAULT 0.0 NOT NULL", "mysql": "DOUBLE NOT NULL DEFAULT 0.0"}
    definition = f"noise {noise.get(database.dialect, 'DOUBLE DEFAULT 0.0 NOT NULL')}"
    assert told.startswith(
        f"the table drift_grown does not match the model {__name__}.DriftGrown. Nothing was read"
    )
    assert f"in the model, not in the table: {definition}" in told
    assert "in the model, not in the table: method VARCHAR(16) NOT NULL" in told
    assert f"\n  ALTER TABLE drift_grown ADD COLUMN {definition};" in told
    assert "add_column(" in told
    assert "sa.Column('method', sa.String(length=16), nullable=False)" in told
    assert "need a value for a NOT NULL column: declare it with param(default=...)" in told


def test_statement_of_the_text_adds_a_column_to_a_table_with_rows(database_url):
    database = Database(database_url)
    make_table(database, "drift_grown", "n BIGINT NOT NULL, method VARCHAR(16) NOT NULL")
    row = "INSERT INTO drift_grown VALUES ('a', 'f', '2026-01-01 00:00:00', '{}', 1, 'rk4')"
    database.write(lambda c: c.exec_driver_sql(row))
    with pytest.raises(SchemaError) as caught:
        compare(database, DriftGrown)
    (statement,) = [
        line.strip() for line in str(caught.value).splitlines() if line.startswith("  ALTER TABLE")
    ]

    database.write(lambda c: c.exec_driver_sql(statement))

    compare(database, DriftGrown)
    with database.reading() as connection:
        assert connection.scalar(text("SELECT noise FROM drift_grown")) == 0.0


def test_operations_of_the_text_put_the_table_right(database_url):
    """What is printed runs as it stands in a migration: also without any import of entropic's."""
    database = Database(database_url)
    make_table(database, "drift_grown", "legacy INTEGER NOT NULL, n BIGINT NOT NULL")
    with pytest.raises(SchemaError) as caught:
        compare(database, DriftGrown)
    code = (
        str(caught.value)
        .partition("In an Alembic migration of your project:\n")[2]
        .partition("\nThe rows")[0]
    )

    with database.engine.begin() as connection:
        names = {"op": Operations(MigrationContext.configure(connection)), "sa": sqlalchemy, "mysql": mysql}
        exec(textwrap.dedent(code), names)

    compare(database, DriftGrown)
    columns = {column["name"]: column for column in inspect(database.engine).get_columns("drift_grown")}
    assert columns["legacy"]["nullable"], "nothing is dropped"


class DriftAll(Base):
    __tablename__ = "drift_all"

    n: Mapped[int] = param(default=1)
    x: Mapped[float] = param(default=0.5)
    text: Mapped[str] = param(default="it's")
    raw: Mapped[bytes | None]
    when: Mapped[datetime | None]
    day: Mapped[date | None]
    hour: Mapped[datetime_time | None]
    span: Mapped[timedelta | None]
    exact: Mapped[Decimal | None]
    unique: Mapped[uuid.UUID | None]
    options: Mapped[dict | None]
    values: Mapped[list[int] | None]
    colour: Mapped[Colour | None]
    is_fast: Mapped[bool] = param(default=True)
    small: Mapped[int | None] = output(sqlalchemy.SmallInteger)
    note: Mapped[str | None] = output(sqlalchemy.Text)


@pytest.mark.parametrize("way", ["sql", "alembic"])
def test_what_is_printed_for_columns_of_all_types_can_be_pasted(database_url, way):
    database = Database(database_url)
    make_table(database, "drift_all", "n BIGINT NOT NULL DEFAULT 1")
    with pytest.raises(SchemaError) as caught:
        compare(database, DriftAll)
    rest, _, code = str(caught.value).partition("\nIn an Alembic migration of your project:\n")
    statements = rest.partition("\nIn SQL:\n")[2].splitlines()

    with database.engine.begin() as connection:
        if way == "sql":
            for statement in statements:
                connection.exec_driver_sql(statement)
        else:
            names = {"op": Operations(MigrationContext.configure(connection)), "sa": sqlalchemy}
            exec(textwrap.dedent(code), names)

    compare(database, DriftAll)
    assert len(statements) >= 15
    assert "entropic" not in code
    database.dispose()


def test_check_when_an_insert_would_have_to_fill_a_strange_column_names_it(database_url):
    database = Database(database_url)
    make_table(
        database, "drift_sim", "n BIGINT NOT NULL, x DOUBLE PRECISION NOT NULL, legacy INTEGER NOT NULL"
    )

    with pytest.raises(
        SchemaError, match="NOT NULL without a default, not in the model: legacy INTEGER"
    ) as caught:
        compare(database, DriftSim)

    assert "nullable=True" in str(caught.value)
    assert "drop" not in str(caught.value)


@pytest.mark.parametrize("extra", ["INTEGER", "INTEGER NOT NULL DEFAULT 3"])
def test_extra_column_that_an_insert_may_leave_out_is_only_logged(database_url, extra, caplog):
    caplog.set_level(logging.DEBUG, "entropic.sql.drift")
    database = Database(database_url)
    make_table(database, "drift_sim", f"n BIGINT NOT NULL, x DOUBLE PRECISION, extra {extra}")

    compare(database, DriftSim)

    logged = [record.getMessage() for record in caplog.records]
    assert "drift_sim.extra is in the table, not in the model" in logged
    assert any("drift_sim.x: nullable" in line for line in logged)


def test_generated_column_in_the_place_of_a_parameter_is_drift(database_url):
    database = Database(database_url)
    make_table(
        database, "drift_sim", "n BIGINT GENERATED ALWAYS AS (1 + 1) STORED, x DOUBLE PRECISION NOT NULL"
    )

    with pytest.raises(
        SchemaError, match="generated in the table, so that no row can say what the model does: n"
    ):
        compare(database, DriftSim)


def test_number_that_postgresql_always_gives_is_drift_in_the_place_of_a_parameter(postgres_url):
    database = Database(postgres_url)
    numbered = "n BIGINT GENERATED ALWAYS AS IDENTITY, x DOUBLE PRECISION NOT NULL"
    make_table(database, "drift_sim", numbered)

    assert len(drift_of(database, DriftSim.__table__)) == 1
    database.write(lambda c: c.execute(text("ALTER TABLE drift_sim ALTER n SET GENERATED BY DEFAULT")))
    assert drift_of(database, DriftSim.__table__) == []


def test_extra_column_that_the_server_numbers_itself_is_no_drift(server_url):
    database = Database(server_url)
    numbered = "SERIAL" if database.dialect == "postgresql" else "BIGINT NOT NULL AUTO_INCREMENT UNIQUE"
    make_table(database, "drift_sim", f"n BIGINT NOT NULL, x DOUBLE PRECISION NOT NULL, number {numbered}")

    found = drift_of(database, DriftSim.__table__)

    assert found == []


@pytest.mark.parametrize(
    ("model_type", "stored"),
    [
        (Integer(), "VARCHAR(10)"),
        (String(10), "INTEGER"),
        (LargeBinary(), "VARCHAR(10)"),
        (BigInteger(), "DATE"),
        (Boolean(), "DATE"),
        (JSON(), "INTEGER"),
        (Interval(), "INTEGER"),
    ],
    ids=shown,
)
def test_check_when_the_kind_of_storage_differs_names_both_types(database_url, model_type, stored):
    database = Database(database_url)
    table = Table("kinds", MetaData(), Column("id", Integer, primary_key=True), Column("value", model_type))
    database.write(
        lambda c: c.execute(text(f"CREATE TABLE kinds (id INTEGER NOT NULL PRIMARY KEY, value {stored})"))
    )

    with pytest.raises(SchemaError, match=f"type differs: value is {stored.partition('(')[0]}") as caught:
        check_user_table(database, table, "models.Sim")

    assert "alter_column('value'" in str(caught.value).replace("'kinds', ", "")


@pytest.mark.parametrize(
    ("model_type", "stored"),
    [
        (Integer(), "BIGINT"),
        (Integer(), "SMALLINT"),
        (String(10), "VARCHAR(300)"),
        (String(300), "TEXT"),
        (Enum(Colour, native_enum=False), "VARCHAR(10)"),
        (Float(53), "DOUBLE PRECISION"),
        (Float(53), "NUMERIC(20, 10)"),
    ],
    ids=shown,
)
def test_type_that_holds_the_same_values_is_no_drift(database_url, model_type, stored):
    database = Database(database_url)
    table = Table("kinds", MetaData(), Column("id", Integer, primary_key=True), Column("value", model_type))
    database.write(
        lambda c: c.execute(text(f"CREATE TABLE kinds (id INTEGER NOT NULL PRIMARY KEY, value {stored})"))
    )

    found = drift_of(database, table)

    assert found == []


@pytest.mark.parametrize(
    ("model_type", "stored"), [(Uuid(), "CHAR(32)"), (Boolean(), "SMALLINT"), (JSON(), "TEXT")], ids=shown
)
def test_type_that_some_databases_store_as_another_is_drift_only_where_values_would_not_compare(
    database_url, model_type, stored
):
    database = Database(database_url)
    table = Table("kinds", MetaData(), Column("id", Integer, primary_key=True), Column("value", model_type))
    database.write(
        lambda c: c.execute(text(f"CREATE TABLE kinds (id INTEGER NOT NULL PRIMARY KEY, value {stored})"))
    )

    found = drift_of(database, table)

    assert bool(found) == (database.dialect == "postgresql")


def test_single_precision_where_a_double_is_wanted_says_what_to_declare(server_url):
    database = Database(server_url)
    single = "REAL" if database.dialect == "postgresql" else "FLOAT"
    make_table(database, "drift_sim", f"n BIGINT NOT NULL, x {single} NOT NULL")

    with pytest.raises(
        SchemaError, match=rf"x is {single} in the table.* declare it Mapped\[float\] or Double"
    ):
        compare(database, DriftSim)


def test_integer_column_for_a_float_is_drift_on_a_server_that_rounds(database_url):
    database = Database(database_url)
    make_table(database, "drift_sim", "n BIGINT NOT NULL, x INTEGER NOT NULL")

    found = drift_of(database, DriftSim.__table__)

    assert [line.rpartition("; ")[2] for line in found] == (
        [] if database.dialect == "sqlite" else ["it would round every value"]
    )


def test_check_when_the_primary_key_differs_names_both(database_url):
    database = Database(database_url)
    reserved = RESERVED.replace(" PRIMARY KEY", "")
    make_table(database, "drift_sim", "n BIGINT NOT NULL, x DOUBLE PRECISION, PRIMARY KEY (id, n)", reserved)

    with pytest.raises(SchemaError, match="primary key differs: it is id, n in the table, the model says id"):
        compare(database, DriftSim)


def test_check_of_a_table_that_fits_writes_nothing_and_is_quick(sqlite_url):
    database = Database(sqlite_url)
    database.write(lambda c: Base.metadata.create_all(c, tables=[DriftEvery.__table__]))
    compare(database, DriftEvery)
    times = []

    with statements(database.engine) as seen:
        for _ in range(20):
            start = time.perf_counter()
            compare(database, DriftEvery)
            times.append(time.perf_counter() - start)

    assert all(statement.startswith(("PRAGMA", "SELECT")) for statement in seen)
    assert len(seen) <= 20 * 4
    print(
        f"check_user_table: {statistics.median(times) * 1e3:.2f} ms for {len(DriftEvery.__table__.columns)} columns"
    )
