"""The straight way of a hit gives what the general way gives, or nothing."""

from __future__ import annotations

import dataclasses
import enum
import logging
import math
import os
import pickle
import sqlite3
from collections import OrderedDict
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from inspect import getsource
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, Float, Numeric, String, event, inspect, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from entropic import Base, HashCollisionError, Mapped, param, register_hasher
from entropic.errors import ParameterError, UnhashableParamError
from entropic.model.base import RECORDED
from entropic.model.compiled import identify_function
from entropic.model.hits import ABSENT
from entropic.model.parameters import Parameters
from entropic.values import hashing
from entropic.values.documents import MARKER
from tests.support import strategies
from tests.support.counting import NumberedRunner, statements
from tests.support.databases import database_of
from tests.support.every_type import Colour, Everything, parameters
from tests.support.store_cases import Pendulum
from tests.support.stores import open_store

DIALECTS = {"sqlite": sqlite.dialect(), "postgresql": postgresql.dialect(), "mysql": mysql.dialect()}

quick = settings(deadline=None, max_examples=60)
on_database = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Method(enum.StrEnum):
    EULER = "euler"
    RK4 = "rk4"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Loose(enum.Enum):
    """Members that are equal although they differ."""

    ONE = 1
    TWO = 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loose)

    def __hash__(self) -> int:
        return 0


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Day(date):
    def __str__(self) -> str:
        return "a day"


class Span(timedelta):
    def __str__(self) -> str:
        return "a span"


class Options:
    def __init__(self, dt: float) -> None:
        self.dt = dt


class Straight(Base):
    """Every kind of column, each with a default, so that any may be left out."""

    __tablename__ = "hits_straight"

    number: Mapped[float] = param(default=0.25)
    count: Mapped[int] = param(default=0)
    flag: Mapped[bool] = param(default=True)
    name: Mapped[str] = param(default="")
    octets: Mapped[bytes] = param(default=b"")
    moment: Mapped[datetime] = param(default=datetime(2026, 1, 1, tzinfo=UTC))
    day: Mapped[date] = param(default=date(2026, 1, 1))
    clock: Mapped[time] = param(default=time(1))
    duration: Mapped[timedelta] = param(default=timedelta(1))
    price: Mapped[Decimal] = param(default=Decimal("0.5"))
    colour: Mapped[Colour] = param(default=Colour.RED)
    method: Mapped[Method] = param(default=Method.RK4)
    level: Mapped[Level] = param(default=Level.LOW)
    loose: Mapped[Loose] = param(default=Loose.ONE)
    choice: Mapped[Literal["a", "b"]] = param(default="a")
    key: Mapped[UUID] = param(default=UUID(int=0))
    tree: Mapped[dict[str, Any]] = param(default={"a": [1, 0.5]})
    other: Mapped[list[Any]] = param(default=[])
    plain: Mapped[dict] = param(default={})
    maybe: Mapped[float | None]
    short: Mapped[str] = param(String(5), default="")
    cents: Mapped[Decimal] = param(Numeric(8, 2), default=Decimal("0.25"))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    strategies.floats,
    st.sampled_from(
        [0.0, -0.0, 0.1 + 0.2, 1e-13, 2e-13, 1 / 3e12, 123456.1234567890123, 1e300, 5e-324, 0.25]
    ),
    st.text(max_size=8),
    st.sampled_from(
        ["", "a", "b", "rk4", "RED", "LOW", "é", "\ud800", "\0", 'q"\\{}', "x" * 300, "2026-01-01"]
    ),
    st.binary(max_size=4),
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5)), ZoneInfo("Europe/Berlin")])),
    st.just(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))),
    st.dates(),
    st.times(),
    st.just(time(1, tzinfo=UTC)),
    st.timedeltas(),
    st.decimals(),
    st.decimals(-1000, 1000, places=2),
    st.uuids(),
    st.sampled_from([*Colour, *Method, *Level, *Loose]),
    st.sampled_from(
        [Text("a"), Day(2026, 1, 1), Fraction(1, 2), complex(1, 2), Options(0.5), float, object()]
    ),
    st.sampled_from([np.float64(0.1), np.float32(0.25), np.int64(3), np.bool_(True), np.str_("a"), np.nan]),
    st.sampled_from([np.datetime64("2026-01-01"), pd.Timestamp("2026-01-01"), pd.Timedelta("1s"), pd.NaT]),
)
values = scalars | strategies.nested(scalars)
ZONES = [None, UTC, timezone(timedelta(hours=-5))]
usual = {
    "number": strategies.floats,
    "count": st.integers(-(2**63), 2**63 - 1),
    "flag": st.booleans(),
    "name": strategies.texts_to_store,
    "octets": st.binary(max_size=4),
    "moment": st.datetimes(datetime(1001, 1, 1), datetime(9998, 1, 1), timezones=st.sampled_from(ZONES)),
    "day": st.dates(date(1000, 1, 1)),
    "clock": st.times(),
    "duration": st.timedeltas(timedelta(days=-9999), timedelta(days=9999)),
    "price": st.decimals(-(10**17), 10**17, places=12) | st.decimals(-10, 10, places=1),
    "colour": st.sampled_from(Colour),
    "method": st.sampled_from(Method),
    "level": st.sampled_from(Level),
    "loose": st.sampled_from(Loose),
    "choice": st.sampled_from(["a", "b"]),
    "key": st.uuids(),
    "tree": st.dictionaries(
        strategies.texts_to_store, strategies.nested(strategies.json_scalars), max_size=3
    ),
    "other": st.lists(strategies.json_scalars | strategies.arrays | st.sampled_from(Colour), max_size=3),
    "plain": st.dictionaries(strategies.names, strategies.floats, max_size=3),
    "maybe": st.none() | strategies.floats,
    "short": st.text("abc", max_size=5),
    "cents": st.decimals(-1000, 1000, places=2),
}
usual_params = st.fixed_dictionaries({}, optional=usual)
odd_params = st.builds(
    lambda one, odd: {**one, **odd},
    usual_params,
    st.dictionaries(
        st.sampled_from([*usual, "unknown", "id", "result_file"]), values, min_size=1, max_size=1
    ),
)


def exactly(value: Any) -> Any:
    """Return what tells values apart that are only equal."""
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [type(value), *map(exactly, value)]
    return type(value), repr(value), value if not isinstance(value, datetime) else value.tzinfo


def straight(parameters_: Parameters, dialect: Any, params: Any) -> Any:
    """Return key and values of the straight way; None where it says nothing."""
    identify = identify_function(parameters_, dialect, tuple(params))
    if identify is None:
        return None
    try:
        key, typed = identify(params)
    except Exception:
        return None
    return key, dict(zip(parameters_.params, typed, strict=True))


@pytest.fixture(scope="module", params=DIALECTS)
def dialect(request):
    return DIALECTS[request.param]


@pytest.mark.parametrize("strategy", [usual_params, odd_params], ids=["usual", "odd"])
@quick
@given(data=st.data())
def test_key_and_values_are_those_of_the_general_way(dialect, strategy, data):
    params = data.draw(strategy)
    parameters_ = Parameters(Straight, dialect)

    require_agreement(parameters_, dialect, params, is_usual=strategy is usual_params)


def require_agreement(parameters_, dialect, params, *, is_usual=False):
    got = straight(parameters_, dialect, params)
    try:
        identity = parameters_.identify(params)
    except (ParameterError, UnhashableParamError, ValueError):
        assert got is None  # what is wrong the general way says
        return
    if got is not None or is_usual:
        assert got[0] == identity.id
        assert exactly(got[1]) == exactly(identity.values)


def nest(depth):
    return [] if not depth else [nest(depth - 1)]


@pytest.mark.parametrize(
    ("name", "values_"),
    [
        (
            "number",
            [-0.0, 0.0, math.inf, -math.inf, math.nan, 1e-13, 2e-13, 0.1 + 0.2, 1e300, True, 10**400, "1"],
        ),
        ("maybe", [-0.0, 0.0, None, 5e-324]),
        ("count", [True, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 1.0, 1.5, None]),
        ("flag", [1, 0, 2, "yes", None]),
        ("name", ["é", "\ud800", "a\0", "x" * 300, "é" * 300, 'q"\\', Text("a"), Method.RK4]),
        ("short", ["abcde", "abcdef", "é" * 5, "é" * 6]),
        (
            "moment",
            [datetime.max, datetime.min.replace(tzinfo=timezone(timedelta(hours=9))), date(2026, 1, 1)],
        ),
        (
            "price",
            [Decimal("-0"), Decimal("NaN"), Decimal("Infinity"), Decimal("1e-13"), Decimal(10**20), 0.1, 3],
        ),
        ("day", [Day(2026, 1, 1), Day(2026, 1, 2), datetime(2026, 1, 2)]),
        ("clock", [time(1, fold=1), time(2, fold=1), time(1, tzinfo=UTC)]),
        ("duration", [Span(1), Span(days=-1, microseconds=3), timedelta.max]),
        ("colour", ["RED", "red", 2, Colour.BLUE, Method.RK4]),
        ("method", ["rk4", "RK4", "EULER"]),
        ("choice", ["a", "c", Text("a"), None]),
        (
            "tree",
            [
                {"__entropic__": 1},
                {MARKER: "tuple", "value": [1]},
                {1: 2},
                {"a": (1,)},
                {"a": {3}},
                [1],
                None,
            ],
        ),
        (
            "tree",
            [
                {"a": one}
                for one in (2**3000, math.nan, math.inf, -0.0, 1e-13, "\0", "\ud800", nest(150), nest(250))
            ],
        ),
        (
            "tree",
            [
                {"\0": 1},
                {"\ud800": 1},
                {"é": "é"},
                {Text("a"): 1},
                OrderedDict(a=1),
                {"b": 1, "a": {"d": 1, "c": 2}},
            ],
        ),
        ("other", [[np.arange(3)], [Options(0.5)], (1, 2), [1, (2,)], "abc"]),
        ("plain", [{}, {"a": np.float64(1)}, {"a": Colour.RED}]),
    ],
)
def test_special_values_are_what_the_general_way_makes_of_them(dialect, name, values_):
    parameters_ = Parameters(Straight, dialect)

    for value in values_:
        require_agreement(parameters_, dialect, {name: value})
        require_agreement(parameters_, dialect, {"count": 3, name: value, "plain": {"x": 1.0}})


def test_classes_of_one_name_in_two_parameters_are_refused(dialect):
    def solver(n):
        return dataclasses.make_dataclass("Solver", [("n", int)], namespace={"__module__": "solvers"})(n)

    params = {"tree": {"a": solver(1)}, "other": [solver(2)]}

    require_agreement(Parameters(Straight, dialect), dialect, params)
    with pytest.raises(UnhashableParamError):
        Parameters(Straight, dialect).identify(params)


@pytest.mark.parametrize("number", [0.5, 0.1, 1e300, 3, -0.0])
def test_column_of_single_precision_takes_what_it_holds(number):
    class Single(Base):
        __tablename__ = "hits_single"
        x: Mapped[float] = param(Float(24))

    parameters_ = Parameters(Single, DIALECTS["postgresql"])

    got = straight(parameters_, DIALECTS["postgresql"], {"x": number})

    if number in (0.1, 1e300):
        assert got is None
    else:
        identity = parameters_.identify({"x": number})
        assert (got[0], exactly(got[1])) == (identity.id, exactly(identity.values))


@quick
@given(params=parameters())
def test_parameters_of_every_type_go_straight(params):
    parameters_ = Parameters(Everything, DIALECTS["sqlite"])

    key, values_ = straight(parameters_, DIALECTS["sqlite"], params)

    identity = parameters_.identify(params)
    assert (key, exactly(values_)) == (identity.id, exactly(identity.values))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("moment", datetime(2020, 1, 1)),
        ("day", date(2020, 1, 1)),
        ("clock", time(3)),
        ("duration", timedelta(3)),
        ("price", Decimal(3)),
        ("key", UUID(int=3)),
        ("octets", b"3"),
    ],
)
def test_hasher_that_is_registered_later_counts(name, value, monkeypatch):
    monkeypatch.setattr(hashing, "_hashers", {})
    parameters_ = Parameters(Straight, DIALECTS["sqlite"])
    identify = identify_function(parameters_, DIALECTS["sqlite"], (name,))
    before = identify({name: value})[0]

    register_hasher(type(value), lambda value: ["mine", str(value)])

    after = identify({name: value})[0]
    assert after == parameters_.identify({name: value}).id != before


# Rows


PARAMS = {"number": 1.5, "count": 3, "tree": {"a": [True, 1, 1.0]}}


@pytest.fixture
def store(tmp_path, sqlite):
    return open_store(Straight, tmp_path, NumberedRunner(), sqlite)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mysql"])
def store_anywhere(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hits")
    with database_of(request, folder) as database:
        yield open_store(Straight, folder, NumberedRunner(), database)
        database.dispose()


def general(store, params):
    """Return the record that the general way gives."""
    with statements(store.database.engine):
        return store.run_or_retrieve(params)


def columns(record):
    return {name: value for name, value in vars(record).items() if not name.startswith("_")}


@on_database
@given(params=usual_params)
def test_record_is_that_of_the_general_way(store_anywhere, params):
    store = store_anywhere
    store.run_or_retrieve(params)
    store.retrieve(PARAMS)  # the connection for look-ups is there now

    record, other = store._table.hits.find(params), general(store, params)

    assert record is not ABSENT
    if record is None and store.database.dialect != "sqlite":
        return  # some numbers a server gives back as others, of which the general way says that they are the same
    assert exactly(columns(record)) == exactly(columns(other))
    assert type(record.custom_data) is type(other.custom_data)
    assert vars(record)[RECORDED] == vars(other)[RECORDED]
    assert vars(record).keys() == vars(other).keys()
    assert inspect(record).identity_key == inspect(other).identity_key
    assert inspect(record).detached
    assert not inspect(record).modified


def test_hit_goes_straight_once_the_thread_has_a_connection(store_anywhere):
    store = store_anywhere
    store.run_or_retrieve(PARAMS)
    before = store.runner.calls

    assert store._table.hits.find(PARAMS).count == 3
    assert store._table.hits.find({**PARAMS, "count": 4}) is ABSENT
    assert store.runner.calls == before


def test_rows_of_many_keys_come_by_key_wherever_they_are(store_anywhere):
    hits = store_anywhere._table.hits
    sets = [{**PARAMS, "count": count} for count in (11, 12, 13)]
    there = {record.id: record for record in store_anywhere.sweep(sets, progress=False)}
    known = hits.identify_all(sets)

    rows = hits.rows([*there, "absent"])

    assert rows.keys() == there.keys()
    for key, values_ in known:
        record = hits.record(rows[key], values_, ())
        assert exactly(columns(record)) == exactly(columns(there[key]))
        assert hits.record(rows[key], hits.identify_all([PARAMS])[0][1], ()) is None


def test_change_of_a_record_that_came_straight_is_seen(store):
    store.run_or_retrieve(PARAMS)
    record = store._table.hits.find(PARAMS)

    with Session(store.database.engine) as session, statements(store.database.engine) as seen:
        session.add(record)
        record.custom_data["note"] = "seen"
        session.commit()
        written = [one for one in seen if one.startswith("UPDATE")]

    assert written == ["UPDATE hits_straight SET custom_data=? WHERE hits_straight.id = ?"]
    assert store.retrieve(PARAMS).custom_data["note"] == "seen"


def test_record_that_came_straight_pickles(store):
    store.run_or_retrieve(PARAMS)
    record = store._table.hits.find(PARAMS)

    back = pickle.loads(pickle.dumps(record))

    assert columns(back) == columns(record)
    assert inspect(back).detached


def test_notes_outlive_their_record(store):
    store.run_or_retrieve(PARAMS)
    notes = store._table.hits.find(PARAMS).custom_data

    notes["a"] = 1  # there is nobody left to tell

    assert notes["a"] == 1


@pytest.mark.parametrize(
    "change",
    [
        "count = 4",
        "number = 1.5001",
        "colour = 'BLUE'",
        "tree = '{\"a\": [1, true, 1.0]}'",
        "day = '2026-01-02'",
        "price = '7'",
    ],
)
def test_row_with_other_values_is_no_hit(store, change):
    """With documents among them, and below without."""
    store.run_or_retrieve(PARAMS)
    store.database.write(lambda connection: connection.execute(text(f"UPDATE hits_straight SET {change}")))

    assert store._table.hits.find(PARAMS) is None
    with pytest.raises(HashCollisionError):
        store.run_or_retrieve(PARAMS)


@pytest.mark.parametrize("change", ["swings = 4", "length = 1.5001", "label = 'a'", "damping = 1"])
def test_row_with_other_scalars_is_no_hit(tmp_path, sqlite, change):
    store = open_store(Pendulum, tmp_path, NumberedRunner(), sqlite)
    params = {"length": 1.5, "swings": 3}
    store.run_or_retrieve(params)
    assert store._table.hits.find(params).swings == 3
    sqlite.write(lambda connection: connection.execute(text(f"UPDATE pendulum SET {change}")))

    assert store._table.hits.find(params) is None
    with pytest.raises(HashCollisionError):
        store.run_or_retrieve(params)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entropic_files SET name = '../x'",
        "UPDATE entropic_files SET name = '/etc/hosts'",
        "UPDATE entropic_files SET name = '.x'",
        "UPDATE entropic_files SET name = ''",
        "DELETE FROM entropic_files",
        "DELETE FROM hits_straight",
        "UPDATE hits_straight SET custom_data = '[1]'",
    ],
)
def test_row_that_is_odd_says_nothing(store, change):
    store.run_or_retrieve(PARAMS)
    (store.results_dir / ".x").touch()
    (store.results_dir.parent / "x").touch()
    store.database.write(lambda connection: connection.execute(text(change)))

    assert store._table.hits.find(PARAMS) is (ABSENT if change == "DELETE FROM hits_straight" else None)


@pytest.mark.parametrize("there", [None, os.mkfifo, "link"], ids=["nothing", "fifo", "dangling link"])
def test_result_that_is_not_there_says_nothing(store, there):
    path = store.run_or_retrieve(PARAMS).result_file
    os.unlink(path)
    if there == "link":
        os.symlink("nowhere", path)
    elif there is not None:
        there(path)

    assert store._table.hits.find(PARAMS) is None


def test_whoever_listens_sees_the_statement_of_a_hit(store):
    store.run_or_retrieve(PARAMS)
    engine, find = store.database.engine, store._table.hits.find
    assert find(PARAMS) is not None

    engine.echo = True
    assert find(PARAMS) is None
    engine.echo = False
    for target in (engine, Engine):
        for name in ("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute"):

            def listen(*_):
                pass

            event.listen(target, name, listen)
            assert find(PARAMS) is None, name
            event.remove(target, name, listen)
            assert find(PARAMS) is not None, name


def test_whoever_reads_the_log_of_statements_sees_that_of_a_hit(store, caplog):
    store.run_or_retrieve(PARAMS)

    with caplog.at_level(logging.INFO, logger="sqlalchemy.engine"):
        assert store._table.hits.find(PARAMS) is None

    assert store._table.hits.find(PARAMS) is not None


def test_tables_that_are_translated_are_sqlalchemys_matter(store):
    store.run_or_retrieve(PARAMS)
    assert store._table.hits.find(PARAMS) is not None

    store.database.engine.update_execution_options(schema_translate_map={"elsewhere": None})

    assert store._table.hits.find(PARAMS) is None


def test_listener_to_the_loading_of_records_is_called(store):
    store.run_or_retrieve(PARAMS)
    store.run_or_retrieve(PARAMS)
    loaded = []

    def listen(record, context):
        loaded.append(record.id)

    event.listen(Straight, "load", listen)
    try:
        record = store.run_or_retrieve(PARAMS)
    finally:
        event.remove(Straight, "load", listen)

    assert loaded == [record.id]


def test_look_up_inside_a_transaction_is_part_of_it(store):
    store.run_or_retrieve(PARAMS)

    with store.database.transaction():
        store.delete(PARAMS)
        assert store._table.hits.find(PARAMS) is None
        assert store.retrieve(PARAMS) is None


def test_hit_after_the_connection_was_closed_goes_the_general_way(store):
    store.run_or_retrieve(PARAMS)
    store.database.dispose()

    assert store._table.hits.find(PARAMS) is None
    assert store.run_or_retrieve(PARAMS).count == 3
    assert store._table.hits.find(PARAMS).count == 3


def test_hit_leaves_no_snapshot_behind(store):
    """A statement that is not at its end would keep the write-ahead log from ever being emptied."""
    store.run_or_retrieve(PARAMS)
    assert store._table.hits.find(PARAMS) is not None
    store.database.write(lambda connection: connection.execute(text("UPDATE hits_straight SET count = 3")))

    with closing(sqlite3.connect(store.database.url.database)) as other:
        is_busy, in_log, emptied = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    assert (is_busy, in_log, emptied) == (0, 0, 0)


def test_hit_that_interrupts_a_hit_gets_its_own_row(store_anywhere):
    """As a finaliser or a signal's handler may, between a statement and its row."""
    store = store_anywhere
    other = {**PARAMS, "count": 4}
    for one in (PARAMS, other, PARAMS):
        store.run_or_retrieve(one)
    held, inner = store.database._held.value, []

    class Interrupted:
        def __init__(self, cursor):
            self.cursor, self.connection, self.description = cursor, cursor.connection, cursor.description

        def execute(self, *arguments):
            self.cursor.execute(*arguments)
            inner.append(store._table.hits.find(other))

        def fetchone(self):
            return self.cursor.fetchone()

    held.cursor = Interrupted(held.cursor)
    outer = store._table.hits.find(PARAMS)

    assert [inner[0].count, outer.count] == [4, 3]


def test_code_that_was_made_is_shown_to_whoever_asks(caplog):
    parameters_ = Parameters(Straight, DIALECTS["sqlite"])

    with caplog.at_level(logging.DEBUG, logger="entropic.model.compiled"):
        identify = identify_function(parameters_, DIALECTS["sqlite"], ("count",))

    assert any("v1 = params['count']" in message for message in caplog.messages)
    assert "v1 = params['count']" in getsource(identify)
