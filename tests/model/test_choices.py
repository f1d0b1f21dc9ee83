"""Enum and Literal columns whose choices change: rows stay readable, and no member gets another one's result."""

from __future__ import annotations

import enum
import itertools
import json
import pickle
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import Enum
from sqlalchemy.orm import Session

from entropic import Base, Mapped, ParameterError, Store, hash_params, mapped_column, memoize, param
from entropic.model.base import Choice
from entropic.sql.columns import GoneMember


def members(*names: str) -> Any:
    """Define the class, as another release of a program does: members are numbered by their place."""
    return enum.Enum("Method", names, module=__name__, qualname="Method")


def model_of(choices: Any, *literals: str, **options: Any) -> Any:
    """Define a model with a column of *choices*; its types in the database are text, as memoize's are."""
    options = options or {"native_enum": False, "length": 50}
    body = {
        "__module__": __name__,
        "__tablename__": "choices",
        "__annotations__": {"method": Mapped[choices], "kind": Mapped[Any]},
        "method": mapped_column(Enum(choices, **options)),
        "kind": param(
            Enum(*literals or ("a", "b"), native_enum=False, length=50, validate_strings=True), default="b"
        ),
    }
    return type("Choices", (Base,), body)


class Runner:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, params: dict[str, Any]) -> None:
        self.seen.append(params["method"])
        Path(params["result_file"]).write_text(params["method"].name)


def open_store(folder: Path, url: Any, choices: Any, *literals: str, **options: Any) -> tuple[Any, Runner]:
    runner = Runner()
    return Store(runner, model_of(choices, *literals, **options), folder / "results", ".txt", url), runner


def result(record: Any) -> str:
    return Path(record.result_file).read_text()


def test_members_that_move_keep_their_results_and_new_ones_run(database, tmp_path):
    old = members("EULER", "RK4")
    store, _ = open_store(tmp_path, database, old)
    for member in old:
        store.run_or_retrieve({"method": member})
    new = members("IMPLICIT", "RK4", "EULER")
    store, runner = open_store(tmp_path, database, new)

    results = {member.name: result(store.run_or_retrieve({"method": member})) for member in new}

    assert results == {"IMPLICIT": "IMPLICIT", "RK4": "RK4", "EULER": "EULER"}
    assert runner.seen == [new.IMPLICIT]


def test_rows_of_members_that_are_gone_stay_readable_and_say_what_they_were(database, tmp_path):
    old = members("EULER", "RK4")
    store, _ = open_store(tmp_path, database, old)
    store.sweep([{"method": old.EULER, "kind": "a"}, {"method": old.RK4}])
    new = members("EXPLICIT", "RK4")
    store, _ = open_store(tmp_path, database, new, "b", "c")
    gone = GoneMember(new, "EULER")

    (record,) = store.records(method="EULER")

    assert (record.method, record.kind) == (gone, "a")
    assert [record.method for record in store.records(order_by=store.records()[0].__class__.method)] == [
        gone,
        new.RK4,
    ]
    assert [record.id for record in store.records(method=gone)] == [record.id]
    assert str(gone) in store.to_frame()["method"].astype(str).tolist()
    assert not store.check(fix=True)
    assert record.method not in list(new)
    assert repr(record.method) == "<Method.EULER, which is gone>"
    with Session(store.database.engine) as session:
        record.custom_data["seen"] = True
        session.merge(record)
        session.commit()
    assert store.records(method="EULER")[0].custom_data["seen"] is True


class Crossed(enum.StrEnum):
    """Of which each member is equal to the name of another."""

    LEFT = "RIGHT"
    RIGHT = "LEFT"


@pytest.mark.parametrize(
    "options",
    [{"native_enum": False}, {"values_callable": lambda class_: [one.value for one in class_]}],
    ids=["names", "values"],
)
def test_member_that_is_equal_to_the_name_of_another_is_itself(database, tmp_path, options):
    store, _ = open_store(tmp_path, database, Crossed, **options)

    results = {one: result(store.run_or_retrieve({"method": one})) for one in Crossed}

    assert results == {one: one.name for one in Crossed}
    assert [record.method for record in store.records()] == list(Crossed)
    assert [[found.method for found in store.records(method=one)] for one in Crossed] == [
        [one] for one in Crossed
    ]
    with store.database.engine.connect() as connection:
        texts = connection.exec_driver_sql("SELECT method FROM choices ORDER BY created_at").scalars().all()
    assert texts == [one.value if "values_callable" in options else one.name for one in Crossed]


TYPES_OF_THEIR_OWN = {"name": "method"}, {"native_enum": False, "length": 50, "create_constraint": True}


@pytest.mark.parametrize("options", TYPES_OF_THEIR_OWN, ids=["native", "check"])
def test_member_that_the_type_in_the_database_lacks_is_refused_with_what_adds_it(database, tmp_path, options):
    store, _ = open_store(tmp_path, database, members("EULER", "RK4"), **options)
    store.sweep([{"method": name} for name in ("EULER", "RK4")], progress=False)
    new = members("IMPLICIT", "RK4", "EXPLICIT")
    store, runner = open_store(tmp_path, database, new, **options)
    gone = GoneMember(new, "EULER")

    assert result(store.run_or_retrieve({"method": new.RK4})) == "RK4"
    assert [record.method for record in store.records(order_by="method")] == [gone, new.RK4]
    assert [len(store.records(method=one)) for one in ("EULER", gone, new.RK4, new.IMPLICIT, "NOPE")] == [
        1,
        1,
        1,
        0,
        0,
    ]
    assert str(gone) in store.to_frame()["method"].astype(str).tolist()
    assert not store.check()
    if database.dialect == "sqlite" and "name" in options:
        return  # where a type of its own is text
    with pytest.raises(
        ParameterError, match=r"Choices\.method is 'IMPLICIT', which the column in the data"
    ) as caught:
        store.run_or_retrieve({"method": new.IMPLICIT})
    assert runner.seen == []
    if "name" in options:
        with database.engine.begin() as connection:
            connection.exec_driver_sql(re.search(r"ALTER .*(?=, then open it again)", str(caught.value))[0])
        store, _ = open_store(tmp_path, database, new, **options)
        assert result(store.run_or_retrieve({"method": new.IMPLICIT})) == "IMPLICIT"
        assert store.records(method="IMPLICIT")[0].method is new.IMPLICIT


def test_gone_member_and_gone_choice_are_written_by_nobody(sqlite_url, tmp_path):
    store, runner = open_store(tmp_path, sqlite_url, members("EULER", "RK4"), "b", "c")
    euler = members("EULER", "RK4").EULER

    with pytest.raises(ParameterError, match=r"Choices\.method is <Method\.NOPE, which is gone>: no run can"):
        store.run_or_retrieve({"method": GoneMember(type(euler), "NOPE")})
    with pytest.raises(ParameterError, match=r"Choices\.method must be one of"):
        store.run_or_retrieve({"method": "NOPE"})
    with pytest.raises(ParameterError, match=r"Choices\.kind must be one of"):
        store.run_or_retrieve({"method": euler, "kind": "a"})
    assert runner.seen == []


def test_key_of_a_member_is_its_name_and_the_published_releases_key_is_looked_up_too(sqlite_url, tmp_path):
    method = members("EULER", "RK4")
    store, _ = open_store(tmp_path, sqlite_url, method)

    identity = store._table.parameters.identify({"method": method.RK4})

    assert identity.id == hash_params({"method": "RK4"})
    assert identity.former_id == hash_params({"method": 2})


def test_finished_run_of_a_member_that_was_renamed_does_not_keep_a_store_from_opening(sqlite_url, tmp_path):
    old = members("EULER")
    store, _ = open_store(tmp_path, sqlite_url, old)
    parameters = store._table.parameters
    stored = json.loads(json.dumps(parameters.dump(parameters.identify({"method": old.EULER}).values)))

    store, _ = open_store(tmp_path, sqlite_url, members("EXPLICIT"))

    loaded = store._table.parameters.load(stored)
    assert repr(loaded["method"]) == "<Method.EULER, which is gone>"


def test_gone_member_is_equal_to_itself_only_and_pickles():
    gone = GoneMember(Choice, "EULER")

    assert gone == GoneMember(Choice, "EULER") == pickle.loads(pickle.dumps(gone))
    assert len({gone, GoneMember(Choice, "EULER"), GoneMember(Choice, "RK4")}) == 2
    assert gone != "EULER"


def test_type_of_a_choice_shows_what_alembic_can_write():
    assert repr(Choice("a", "b", name="kind")) == "Choice('a', 'b', name='kind')"


class Unit(enum.Enum):
    m = 1e-3
    M = 1e6


def test_choices_that_differ_in_case_or_accents_are_told_apart(tmp_path, database):
    def measured(unit: Unit, label: Literal["a", "A", "ä"]) -> str:
        return f"{unit.name} {label}"

    calls = list(itertools.product(Unit, ["a", "A", "ä"]))
    function = memoize(results_dir=tmp_path, db_url=database)(measured)
    for unit, label in calls:
        function(unit, label)

    for unit, label in calls:
        assert [record.load() for record in function.records(unit=unit, label=label)] == [
            f"{unit.name} {label}"
        ]
        condition = (function.model.unit == unit) & (function.model.label == label)
        assert function.store.count(condition) == 1
