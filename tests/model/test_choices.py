"""Enum and Literal columns whose choices change: rows stay readable, and no member gets another one's result."""

from __future__ import annotations

import enum
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Enum
from sqlalchemy.orm import Session

from entropic import Base, Mapped, ParameterError, Store, hash_params, mapped_column, param
from entropic.model.base import Choice
from entropic.sql.columns import GoneMember


def members(*names: str) -> Any:
    """Define the class, as another release of a program does: members are numbered by their place."""
    return enum.Enum("Method", names, module=__name__, qualname="Method")


def model_of(choices: Any, *literals: str) -> Any:
    """Define a model with a column of *choices*; its types in the database are text, as memoize's are."""
    body = {
        "__module__": __name__,
        "__tablename__": "choices",
        "__annotations__": {"method": Mapped[choices], "kind": Mapped[Any]},
        "method": mapped_column(Enum(choices, native_enum=False, length=50)),
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


def open_store(folder: Path, url: Any, choices: Any, *literals: str) -> tuple[Any, Runner]:
    runner = Runner()
    return Store(runner, model_of(choices, *literals), folder / "results", ".txt", url), runner


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
