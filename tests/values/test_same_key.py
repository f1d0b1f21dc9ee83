"""The property: two values have one key exactly if a function cannot tell them apart, and it gets what was given."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import JSON
from sqlalchemy.dialects import sqlite

from entropic import (
    Base,
    HashCollisionError,
    Mapped,
    ParameterError,
    Store,
    UnhashableParamError,
    mapped_column,
)
from entropic.model.parameters import Parameters
from tests.support.processes import run_together
from tests.support.sameness import accepted, is_object, same, twisted, values

EXAMPLES = 150

found = settings(
    deadline=None, max_examples=EXAMPLES, derandomize=True, suppress_health_check=list(HealthCheck)
)
stored = settings(found, max_examples=10)


class Anything(Base):
    __tablename__ = "anything"

    n: Mapped[int]
    x: Mapped[Any] = mapped_column(JSON, nullable=True)


def identity(value: Any) -> Any:
    return Parameters(Anything, sqlite.dialect()).identify({"n": 0, "x": value})


def test_keys_are_equal_exactly_if_values_are_the_same_and_enough_is_accepted():
    counts = {"all": 0, "refused": 0, "objects": 0, "same": 0, "different": 0}

    @found
    @given(st.data())
    def holds(data: Any) -> None:
        one = data.draw(values)
        other = twisted(data.draw, one) if data.draw(st.integers(0, 3)) else data.draw(accepted)
        counts["all"] += 1
        try:
            first, second = identity(one), identity(other)
        except (ParameterError, UnhashableParamError):
            counts["refused"] += 1
            return
        counts["objects"] += is_object(one)
        counts["same" if same(one, other) else "different"] += 1

        assert (first.id == second.id) is same(one, other), (one, other)
        assert same(first.for_runner()["x"], one), one

    holds()

    assert counts["objects"] >= counts["all"] / 4, counts
    assert counts["all"] / 50 <= counts["refused"] <= counts["all"] / 3, counts
    assert min(counts["same"], counts["different"]) >= counts["all"] / 10, counts


class Keeping:
    """A runner that keeps what it got."""

    def __call__(self, params: dict[str, Any]) -> None:
        Path(params["result_file"]).write_bytes(pickle.dumps(params["x"]))


def open_store(folder: Path, url: Any, runner: Any) -> Store[Any]:
    return Store(runner, Anything, folder / "results", ".pickle", url)


def refuse(params: dict[str, Any]) -> None:
    raise AssertionError(f"run again: {params!r}")


def find_all(folder: Path, url: str, pickled: bytes) -> list[str]:
    """Retrieve, in this process, what another one has run; nothing runs again."""
    store = open_store(folder, url, refuse)
    return [store.run_or_retrieve({"n": n, "x": value}).id for n, value in enumerate(pickle.loads(pickled))]


@pytest.mark.parametrize(
    "database_url",
    [
        "sqlite-memory",
        "postgresql",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("sqlite-file", "mysql")),
    ],
    indirect=True,
)
def test_function_gets_what_was_given_and_another_process_finds_it(database_url, tmp_path):
    store = open_store(tmp_path, database_url, Keeping())
    given_: list[Any] = []

    @stored
    @given(accepted)
    def keep(value: Any) -> None:
        given_.append(value)

    keep()
    records = [store.run_or_retrieve({"n": n, "x": value}) for n, value in enumerate(given_)]

    for record, value in zip(records, given_, strict=True):
        assert same(pickle.loads(Path(record.result_file).read_bytes()), value), value
    if database_url != "sqlite://":  # which no other process sees
        (ids,) = run_together(find_all, [(tmp_path, database_url, pickle.dumps(given_))])
        assert ids == [record.id for record in records]
    again = open_store(tmp_path, store.database, refuse)
    assert [again.run_or_retrieve({"n": n, "x": value}).id for n, value in enumerate(given_)] == [
        record.id for record in records
    ]


def test_refused_value_runs_nothing(sqlite_url, tmp_path):
    store = open_store(tmp_path, sqlite_url, refuse)

    for value in (float("nan"), object(), "a\0", {"a": [iter([])]}):
        with pytest.raises((ParameterError, UnhashableParamError)) as caught:
            store.run_or_retrieve({"n": 1, "x": value})
        assert str(caught.value).startswith("Anything.x")
        assert not isinstance(caught.value, HashCollisionError)
    assert store.count() == 0
