"""Every pair of `tests.support.key_pairs` through a real Store: never a wrong record, never a needless run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from entropic import Store, errors
from tests.support import servers
from tests.support.counting import NumberedRunner
from tests.support.key_pairs import COLUMNS, DIFFERENT, PAGE, PAIRS, SAME, Pair, model_of, page

Open = Callable[[str], tuple[Store[Any], NumberedRunner]]


def opener(folder: Path, url: str) -> Open:
    """Return a function that opens, once, the store of a column."""
    opened: dict[str, tuple[Store[Any], NumberedRunner]] = {}

    def open_(column: str) -> tuple[Store[Any], NumberedRunner]:
        if column not in opened:
            model, runner = model_of(column), NumberedRunner()
            opened[column] = Store(runner, model, folder / model.__tablename__, ".txt", url), runner
        return opened[column]

    return open_


@pytest.fixture(scope="module")
def sqlite_stores(tmp_path_factory: pytest.TempPathFactory) -> Open:
    folder = tmp_path_factory.mktemp("pairs")
    return opener(folder, f"sqlite:///{folder / 'pairs.sqlite3'}")


@pytest.fixture(scope="module", params=["postgresql", pytest.param("mysql", marks=pytest.mark.slow)])
def server_stores(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Open]]:
    database = {"postgresql": servers.postgres_database, "mysql": servers.mysql_database}[request.param]
    server = {"postgresql": "postgres_server", "mysql": "mysql_server"}[request.param]
    with database(request.getfixturevalue(server)) as url:
        yield request.param, opener(tmp_path_factory.mktemp(request.param), url)


def check(pair: Pair, number: int, outcome: str, open_: Open) -> None:
    store, runner = open_(pair.column)
    left, right = pair.values()
    left, right = {"pair": number, **left}, {**right, "pair": number}
    before = runner.calls

    first = store.run_or_retrieve(left)
    if outcome not in {SAME, DIFFERENT}:
        with pytest.raises(errors.EntropicError) as caught:
            store.run_or_retrieve(right)
        assert type(caught.value).__name__ == outcome
        assert (runner.calls, store.count(pair=number)) == (before + 1, 1)
        return
    second = store.run_or_retrieve(right)

    wanted = [before + 1, before + (1 if outcome == SAME else 2)]
    assert [written(first), written(second)] == wanted
    assert (first.id == second.id) is (outcome == SAME)
    again = [store.run_or_retrieve(right), store.run_or_retrieve(left)]
    assert [record.id for record in again] == [second.id, first.id]
    assert [written(record) for record in again] == wanted[::-1]
    assert runner.calls == wanted[1]
    assert store.count(pair=number) == len(set(wanted))


def written(record: Any) -> int:
    return int(Path(record.result_file).read_text().removeprefix("run "))


@pytest.mark.parametrize("number", range(len(PAIRS)), ids=lambda number: PAIRS[number].label[:80])
def test_pair_through_a_store_is_one_run_or_two_or_refused(number, sqlite_stores):
    check(PAIRS[number], number, PAIRS[number].outcome, sqlite_stores)


@pytest.mark.parametrize("column", COLUMNS)
def test_pairs_of_a_column_on_a_server_are_what_they_are_on_sqlite(column, server_stores):
    dialect, open_ = server_stores
    for number, pair in enumerate(PAIRS):
        if pair.column == column and (number % 4 == 0 or pair.elsewhere):
            check(pair, number, pair.elsewhere.get(dialect, pair.outcome), open_)


def test_corpus_has_200_pairs_and_none_twice():
    labels = [pair.label for pair in PAIRS]

    assert len(labels) >= 200
    assert len(set(labels)) == len(labels)
    assert {pair.column for pair in PAIRS} == set(COLUMNS)


def test_page_shows_the_pairs_that_are_tested():
    text = PAGE.read_text("utf-8")

    assert page(text) == text, "the table is out of date: python -m tests.support.key_pairs"
