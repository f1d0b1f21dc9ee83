"""A memoized function's parameters change: new ones with defaults are added to its table, all else is refused."""

import datetime
import enum
import itertools
import re
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, event, inspect

from entropic import Database, SchemaError
from entropic.model import growth
from entropic.sql.columns import LONG_TEXT
from tests.support.counting import statements
from tests.support.memo_cases import grow, memoized, runs, simulate
from tests.support.processes import run_together


def one_fast(fast):
    """Every database, one of which is fast."""
    each = ("sqlite-file", "sqlite-memory", "postgresql", "mysql")
    slow = [pytest.param(one, marks=[] if one == fast else pytest.mark.slow) for one in each]
    return pytest.mark.parametrize("database_url", slow, indirect=True)


class Scheme(enum.Enum):
    EULER = 1
    RK4 = 4


ran = []


def before(n: int, dt: float = 0.1) -> float:
    ran.append(n)
    return n * dt


def after(
    n: int,
    flag: bool = True,
    count: int = 3,
    noise: float = 0.5,
    tiny: float = 1e-30,
    word: str = "it's 100 %",
    when: datetime.datetime = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
    day: datetime.date = datetime.date(2026, 1, 2),
    span: datetime.timedelta = datetime.timedelta(seconds=1.5),
    exact: Decimal = Decimal("1.25"),
    key: uuid.UUID = uuid.UUID(int=7),  # noqa: B008
    raw: bytes = b"\x00\xff",
    scheme: Scheme = Scheme.RK4,
    method: Literal["rk4", "euler"] = "rk4",
    source: Path = Path("in.csv"),
    shape: tuple[int, ...] = (2, 3),
    weights: np.ndarray = np.ones(3),  # noqa: B008
    label: str | None = None,
    limit: float | None = 2.0,
    dt: float = 0.1,
) -> float:
    raise AssertionError("it ran")


def version(folder, function, database, **options):
    """Memoize *function* as the next version of one that is called ``grown``."""
    function.__name__ = function.__qualname__ = "grown"
    return memoized(folder, function, url=database, table="grown", **options)


@pytest.fixture
def database(database_url):
    database = Database(database_url)
    yield database
    database.dispose()


def columns(database, table="grown"):
    with database.reading() as connection:
        return [column["name"] for column in inspect(connection).get_columns(table)]


def registered(database):
    with database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT table_name, parameters FROM entropic_tables").all()
    return dict(rows)


def test_new_parameters_with_defaults_keep_every_hit(tmp_path, database):
    old = version(tmp_path, before, database)
    values = [old(n) for n in range(4)] + [old(1, dt=0.5)]
    keys = sorted(record.id for record in old.records())

    new = version(tmp_path, after, database)

    assert [new(n) for n in range(4)] + [new(1, dt=0.5)] == values
    assert sorted(record.id for record in new.records()) == keys
    assert set(columns(database)) == {column.name for column in new.model.__table__.columns}
    assert not new.store.check(checksum=True)


def test_old_records_say_that_they_are_the_runs_at_the_defaults(tmp_path, database):
    version(tmp_path, before, database)(3)
    new = version(tmp_path, after, database)

    (record,) = new.records(flag=True, count=3, word="it's 100 %", scheme=Scheme.RK4, source=Path("in.csv"))

    assert (record.n, record.noise, record.tiny, record.exact) == (3, 0.5, 1e-30, Decimal("1.25"))
    assert record.when == datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    assert (record.day, record.span) == (datetime.date(2026, 1, 2), datetime.timedelta(seconds=1.5))
    assert (record.key, record.raw) == (uuid.UUID(int=7), b"\x00\xff")
    assert (record.scheme, record.method, record.source) == (Scheme.RK4, "rk4", "in.csv")
    assert record.shape == {"__entropic__": "tuple", "value": [2, 3]}
    assert (record.label, record.limit) == (None, 2.0)


def test_runs_at_other_values_are_other_runs(tmp_path, database):
    old = version(tmp_path, before, database)
    old(3)

    def doubled(n: int, dt: float = 0.1, factor: int = 1, names: list = []) -> float:  # noqa: B006
        return n * dt * factor

    new = version(tmp_path, doubled, database)

    assert [new(3), new(3, factor=2), new(3, names=["a"]), new(3, factor=1)] == pytest.approx(
        [0.3, 0.6, 0.3, 0.3]
    )
    assert new.store.count() == 3


def test_new_output_is_added_and_null_in_old_rows(tmp_path, database):
    def measured(n: int) -> dict:
        return {"rmse": 1 / n}

    version(tmp_path, measured, database)(2)
    new = version(tmp_path, measured, database, outputs={"rmse": float})

    new(4)

    assert [(record.n, record.rmse) for record in new.records(order_by=new.model.n)] == [(2, None), (4, 0.25)]


def scaled(n: int, dt: float = 0.1, value: float = 1.0) -> float:
    return n * dt * value


def labelled(n: int, dt: float = 0.1, value: str | None = None) -> float:
    return n * dt


@pytest.mark.parametrize("function", [scaled, labelled])
def test_new_parameter_with_the_name_of_an_output_of_before_is_refused(tmp_path, database, function):
    old = version(tmp_path, before, database)
    old(3)
    there, known = columns(database), registered(database)

    with pytest.raises(SchemaError, match=r"value is a new parameter, .* such as 'value_'"):
        version(tmp_path, function, database)(3)

    assert (columns(database), registered(database)) == (there, known)
    assert version(tmp_path, before, database).records()[0].value == pytest.approx(0.3)


def test_new_parameter_takes_an_output_in_which_there_is_nothing(tmp_path, database):
    def measured(n: int, dt: float = 0.1) -> dict:
        return {"rmse": None}

    def noisy(n: int, dt: float = 0.1, rmse: float = 0.5) -> dict:
        return {"noise": rmse}

    version(tmp_path, measured, database, outputs={"rmse": float})(3)
    new = version(tmp_path, noisy, database)

    assert (new(3), new(3, rmse=2.0), new(3)) == ({"rmse": None}, {"noise": 2.0}, {"rmse": None})


RETURNS = {
    datetime.date: lambda n: datetime.date(2026, 1, n),
    datetime.datetime: lambda n: datetime.datetime(2026, 1, n, tzinfo=datetime.UTC),
    datetime.time: datetime.time,
    bool: lambda n: n > 2,
    int: lambda n: n,
    str: str,
}


def returning(n: int) -> int:
    return RETURNS[returning.__annotations__["return"]](n)


@pytest.mark.parametrize(
    ("one", "other"), [*itertools.pairwise([*RETURNS, datetime.date]), (datetime.datetime, datetime.date)]
)
def test_output_of_another_type_is_refused_with_a_way_that_works(tmp_path, database, monkeypatch, one, other):
    monkeypatch.setitem(returning.__annotations__, "return", one)
    first = version(tmp_path, returning, database)(1)
    monkeypatch.setitem(returning.__annotations__, "return", other)

    with pytest.raises(SchemaError, match=r"the column 'value' .* has what was returned before") as caught:
        version(tmp_path, returning, database)(1)

    (column,) = re.findall(r"outputs={'(\w+)': 'value'}", str(caught.value))
    new = version(tmp_path, returning, database, outputs={column: "value"})
    assert (new(1), new(2)) == (first, RETURNS[other](2))
    assert getattr(new.records(n=2)[0], column) == RETURNS[other](2)


def test_new_ignored_parameter_needs_no_column(tmp_path, database):
    def louder(n: int, dt: float = 0.1, verbose: bool = False) -> float:
        return 0.0

    value = version(tmp_path, before, database)(3)
    there = columns(database)

    assert version(tmp_path, louder, database, ignore=["verbose"])(3, verbose=True) == value
    assert columns(database) == there


def needs_more(n: int, cells: int, dt: float = 0.1) -> float:
    return 0.0


def has_less(n: int) -> float:
    return 0.0


def has_another_type(n: float, dt: float = 0.1) -> float:
    return 0.0


def has_another_default(n: int, dt: float = 0.2, more: int = 1) -> float:
    return 0.0


def has_no_default(n: int, dt: float) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (needs_more, "cells is a new parameter, and has no default: give it one"),
        (has_less, "dt was a parameter and is none now"),
        (has_another_type, "n was of type int and is float now"),
        (has_another_default, "the default of dt was 0.1 and is 0.2 now"),
        (has_no_default, "the default of dt was 0.1 and is 'no default' now"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_any_other_change_is_refused_and_alters_nothing(tmp_path, database, changed, reason):
    old = version(tmp_path, before, database)
    old(3)
    there, known = columns(database), registered(database)

    with pytest.raises(SchemaError, match=reason):
        version(tmp_path, changed, database)(3)

    assert (columns(database), registered(database)) == (there, known)
    assert version(tmp_path, before, database)(3) == pytest.approx(0.3)


def ignoring(n: int, dt: float = 0.1, solver: str = "fast") -> float:
    return n * dt if solver == "fast" else -1.0


def test_parameter_that_was_left_out_of_the_keys_cannot_come_into_them(tmp_path, sqlite):
    """Its rows are runs at any value of it: at the default they would be wrong hits."""
    version(tmp_path, ignoring, sqlite, ignore=["solver"])(3, solver="exact")
    version(tmp_path, before, sqlite)(4)  # which has no such parameter
    known = registered(sqlite)

    with pytest.raises(SchemaError, match=r"solver was left out .* as in ignore=\['solver'\]"):
        version(tmp_path, ignoring, sqlite)(3)

    assert registered(sqlite) == known
    assert version(tmp_path, ignoring, sqlite, ignore=["solver"])(3) == -1.0


def test_parameter_that_was_left_out_is_remembered_when_the_table_grows(tmp_path, sqlite):
    def grown(n: int, dt: float = 0.1, more: int = 1) -> float:
        return 0.0

    def keyed(n: int, dt: float = 0.1, more: int = 1, solver: str = "fast") -> float:
        return 0.0

    version(tmp_path, ignoring, sqlite, ignore=["solver"])(3, solver="exact")
    version(tmp_path, grown, sqlite)(3)

    with pytest.raises(SchemaError, match="solver was left out of the keys and is in them now"):
        version(tmp_path, keyed, sqlite)(3)


def test_parameter_of_the_keys_cannot_be_left_out_of_them(tmp_path, sqlite):
    version(tmp_path, ignoring, sqlite)(3, solver="exact")

    with pytest.raises(SchemaError, match="solver was a parameter and is left out of the keys now"):
        version(tmp_path, ignoring, sqlite, ignore=["solver"])(3)


def test_function_that_lacks_a_column_that_was_added_is_refused(tmp_path, sqlite):
    """An old version of the code, after the new one ran: its keys would mean something else."""
    version(tmp_path, before, sqlite)(3)
    version(tmp_path, after, sqlite)(3)

    with pytest.raises(SchemaError, match="noise was a parameter and is none now"):
        version(tmp_path, before, sqlite)(3)


def test_function_that_was_opened_before_goes_on(tmp_path, database):
    old = version(tmp_path, before, database)
    old(3)
    new = version(tmp_path, after, database)
    new(3)

    assert old(4) == pytest.approx(0.4)
    assert new(4) == pytest.approx(0.4)
    assert new.records(n=4)[0].noise in (0.5, None)


@one_fast("sqlite-file")
def test_several_processes_add_the_columns_once(tmp_path, database_url):
    if database_url == "sqlite://":
        pytest.skip("a database in memory belongs to one process")
    first = memoized(tmp_path, simulate, url=database_url, table="simulate")
    values = [first(n, log=str(tmp_path / "log")).tolist() for n in range(3)]
    first.store.database.dispose()

    answers = run_together(grow, [(tmp_path, database_url)] * 4)

    assert answers == [values] * 4
    assert len(runs(tmp_path)) == 3


def added(n: int, dt: float = 0.1, names: list = ["a"]) -> float:  # noqa: B006
    return n * dt


def test_row_that_another_process_writes_while_a_column_is_filled_keeps_its_own(tmp_path, mysql_url):
    """DDL commits by itself there, so that the column can be used before the old rows have their default."""
    database, other = Database(mysql_url), create_engine(mysql_url)
    version(tmp_path, before, database)(3)

    def write(connection, cursor, statement, *_):
        if statement.startswith("UPDATE grown"):
            with other.begin() as elsewhere:
                elsewhere.exec_driver_sql(
                    "INSERT INTO grown (id, result_value, created_at, custom_data, n, dt, names) "
                    "SELECT 'theirs', result_value, created_at, custom_data, n, dt, '[\"theirs\"]' FROM grown"
                )

    event.listen(database.engine, "before_cursor_execute", write)
    new = version(tmp_path, added, database)
    new(3)

    assert {record.id == "theirs": record.names for record in new.records()} == {
        True: ["theirs"],
        False: ["a"],
    }
    other.dispose()
    database.dispose()


def test_new_columns_with_a_default_on_the_server_write_no_row(tmp_path, database):
    version(tmp_path, before, database)(3)

    def louder(
        n: int, dt: float = 0.1, noise: float = 0.5, word: str = "x", label: str | None = None
    ) -> float:
        raise AssertionError("it ran")

    new = version(tmp_path, louder, database)
    with statements(database.engine) as seen:
        assert new(3) == pytest.approx(0.3)

    assert len([statement for statement in seen if statement.startswith("ALTER")]) == 3
    assert [statement for statement in seen if statement.startswith("UPDATE grown")] == []
    (record,) = new.records()
    assert (record.noise, record.word, record.label) == (0.5, "x", None)


def test_column_that_was_added_without_being_registered_is_registered_later(tmp_path, database):
    """As when the process was killed between the two, where DDL commits by itself."""
    version(tmp_path, before, database)(3)

    database.write(lambda connection: connection.exec_driver_sql("ALTER TABLE grown ADD COLUMN names JSON"))
    new = version(tmp_path, added, database)

    assert new(3) == pytest.approx(0.3)
    assert new.records()[0].names is None
    assert "names" in str(registered(database)["grown"])


# Tables of before values stood in rows


def make_old(database, table="grown"):
    """Make the table as releases did whose results were all files, past the code under test."""
    with database.engine.connect() as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table(table) as batch:
            batch.drop_column("result_value")
            batch.drop_column("value")
            batch.alter_column("result_file", existing_type=LONG_TEXT, nullable=False)
        connection.commit()


def in_files(folder, function, database):
    return version(folder, function, database, inline_bytes=0)


@pytest.mark.parametrize("function", [before, after], ids=["as it was", "with every type"])
def test_table_of_before_is_altered_once_and_keeps_its_rows(tmp_path, database, function, monkeypatch):
    old = in_files(tmp_path, before, database)
    values = [old(n) for n in range(3)]
    monkeypatch.setattr(sys.modules[__name__], "ran", ran := [])
    if function is after:
        in_files(tmp_path, after, database)(1)
    rows = sorted((r.id, r.n, r.result_file, r.created_at, dict(r.custom_data)) for r in old.records())
    make_old(database)

    new = version(tmp_path, function, database)
    got = [new(n) for n in range(3)]
    with statements(database.engine) as seen:
        version(tmp_path, function, database)(1)

    assert (got, ran) == (values, [])
    found = new.records()
    assert sorted((r.id, r.n, r.result_file, r.created_at, dict(r.custom_data)) for r in found) == rows
    assert not new.store.check(checksum=True)
    assert [statement for statement in seen if statement.startswith(("ALTER", "CREATE"))] == []
    assert new.fill_columns() == 3
    assert sorted(r.value for r in new.records()) == sorted(values)


def test_value_goes_into_the_table_of_before_and_a_file_over_it(tmp_path, database):
    in_files(tmp_path, before, database)(1)
    make_old(database)
    new = version(tmp_path, before, database)

    assert new.run(1) == new(1) == pytest.approx(0.1)
    assert [(r.result_file, r.result_value, r.value) for r in new.records()] == [(None, "0.1", 0.1)]
    assert [path.name for path in new.results_dir.iterdir() if path.suffix] == [".entropic-root.json"]
    assert in_files(tmp_path, before, database).run(1) == pytest.approx(0.1)
    assert [r.result_value for r in new.records()] == [None]
    assert not new.store.check(checksum=True)


def test_indices_triggers_and_views_of_the_users_are_kept(tmp_path, sqlite):
    in_files(tmp_path, before, sqlite)(1)
    make_old(sqlite)
    own = [
        "CREATE INDEX mine ON grown (n, dt)",
        "CREATE TABLE seen (id TEXT)",
        "CREATE TRIGGER told AFTER INSERT ON grown BEGIN INSERT INTO seen VALUES (NEW.id); END",
        "CREATE VIEW brief AS SELECT id, n FROM grown",
        "ALTER TABLE grown ADD COLUMN remark TEXT DEFAULT 'none'",
    ]
    for statement in own:
        sqlite.write(lambda connection, one=statement: connection.exec_driver_sql(one))

    new = version(tmp_path, before, sqlite)
    new(2)

    with sqlite.reading() as connection:
        assert len(connection.exec_driver_sql("SELECT * FROM brief").all()) == 2
        assert [row[0] for row in connection.exec_driver_sql("SELECT id FROM seen")] == [new.record(2).id]
        assert {row[0] for row in connection.exec_driver_sql("SELECT remark FROM grown")} == {"none"}
        assert [one["column_names"] for one in inspect(connection).get_indexes("grown")] == [["n", "dt"]]
        assert connection.exec_driver_sql("PRAGMA legacy_alter_table").scalar() == 0


@one_fast("postgresql")
def test_several_processes_alter_the_table_of_before_once(tmp_path, database_url):
    if database_url == "sqlite://":
        pytest.skip("a database in memory belongs to one process")
    database = Database(database_url)
    first = in_files(tmp_path, before, database)
    values = [first(n) for n in range(3)]
    make_old(database)
    database.dispose()

    answers = run_together(call_grown, [(tmp_path, database_url)] * 4)

    assert answers == [values] * 4


def call_grown(folder, url):
    return [version(folder, before, url)(n) for n in range(3)]


def test_alteration_that_fails_leaves_the_table_as_it_was(tmp_path, sqlite, monkeypatch):
    in_files(tmp_path, before, sqlite)(1)
    make_old(sqlite)
    names = columns(sqlite)

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(growth, "_add_columns", fail)
    with pytest.raises(ZeroDivisionError):
        version(tmp_path, before, sqlite)(1)
    monkeypatch.undo()

    assert columns(sqlite) == names
    assert version(tmp_path, before, sqlite)(1) == pytest.approx(0.1)
