"""Configs in a database: what the tables promise besides what every store of configs does."""

import math

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from entropic import DuplicateNameError, InUseError
from entropic.config_store import SQLConfigStore
from entropic.configs import RunConfig, StartConfig
from tests.support.config_cases import ONE_OF_EACH, OTHER, Distances, Gunpowder, run
from tests.support.counting import statements
from tests.support.processes import run_together


@pytest.fixture
def store(sqlite):
    return SQLConfigStore(sqlite)


def rows(store, sql):
    with store.database.reading() as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


def test_run_and_its_parts_lie_in_rows_that_point_to_each_other(store):
    store.store_run_config(run(), store_parts=False)
    store.store_task_config(ONE_OF_EACH["task"])
    assert rows(store, "SELECT role, name, part_id FROM entropic_config_parts ORDER BY role") == [
        ("architecture", "a1", None),
        ("datasplit", "s1", None),
        ("task", "t1", 2),
        ("trainer", "g1", None),
    ]
    store.store_run_config(run("second"))

    parts = rows(
        store,
        "SELECT run.name, part.kind, part.name, part.type FROM entropic_config_parts "
        "JOIN entropic_configs run ON run.id = run_id JOIN entropic_configs part ON part.id = part_id "
        "ORDER BY run.name, role",
    )
    assert parts == [
        (name, *part)
        for name in ("r1", "second")
        for part in (
            ("architecture", "a1", "UNet"),
            ("datasplit", "s1", "TrainValidate"),
            ("task", "t1", "Distances"),
            ("trainer", "g1", "Gunpowder"),
        )
    ]


def test_database_itself_keeps_a_part_of_a_stored_run(store):
    store.store_run_config(run())

    with pytest.raises(IntegrityError):
        store.database.write(lambda c: c.execute(text("DELETE FROM entropic_configs WHERE kind = 'task'")))

    store.delete_run_config("r1")
    assert rows(store, "SELECT count(*) FROM entropic_config_parts") == [(0,)]
    store.delete_task_config("t1")


def test_part_that_a_run_takes_meanwhile_is_not_deleted(store, monkeypatch):
    store.store_task_config(ONE_OF_EACH["task"])
    refuse = store._refuse_in_use

    def late(kind, name, what):
        monkeypatch.undo()
        refuse(kind, name, what)
        store.store_run_config(run())

    monkeypatch.setattr(store, "_refuse_in_use", late)
    with pytest.raises(InUseError, match="is part of the runs 'r1'"):
        store.delete_task_config("t1")
    assert store.retrieve_task_config("t1") == ONE_OF_EACH["task"]


def test_names_come_in_the_order_in_which_they_were_stored(store):
    for name in ("c", "a", "b"):
        store.store_run_config(RunConfig(name=name, task_config=Distances(name="t")))
    store.store_run_config(RunConfig(name="a", num_iterations=5), if_exists="replace")

    assert store.retrieve_run_config_names() == ["c", "a", "b"]
    assert store.retrieve_run_config_names(task_names=["t"]) == ["c", "b"]


def test_filter_may_have_more_names_than_a_statement_takes(store):
    store.store_run_config(run())
    many = [f"n{number}" for number in range(70_000)]
    assert store.retrieve_run_config_names(task_names=[*many, "t1"]) == ["r1"]


def test_document_is_json_that_every_reader_takes(store):
    store.store_trainer_config(Gunpowder(name="g", rate=math.nan))

    assert rows(
        store, "SELECT json_valid(document), json_extract(document, '$.__type__') FROM entropic_configs"
    ) == [(1, "Gunpowder")]
    assert math.isnan(store.retrieve_trainer_config("g").rate)


def test_run_in_a_block_is_stored_with_the_rest_of_it_or_not_at_all(store):
    def give_up():
        with store.database.transaction():
            store.store_run_config(run())
            assert store.retrieve_run_config("r1") == run()
            with pytest.raises(DuplicateNameError):
                store.store_task_config(OTHER["task"])
            store.store_run_config(run("second"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert store.retrieve_run_config_names() == []
    assert store.retrieve_task_config_names() == []

    with store.database.transaction():
        store.store_run_config(run())
        store.store_run_config(run("second"))
    assert store.retrieve_run_config_names() == ["r1", "second"]


def test_what_is_stored_already_is_looked_up_and_nothing_is_written(store):
    store.store_run_config(run())
    with statements(store.database.engine) as executed:
        store.store_run_config(run())
    assert [one.split()[0] for one in executed] == ["SELECT"] * 5


def test_runs_that_start_from_another_are_found_by_one_statement(store):
    for name in ("r1", "r2", "r3"):
        start = StartConfig(run="r1", criterion="f1") if name == "r3" else None
        store.store_run_config(RunConfig(name=name, start_config=start))

    with statements(store.database.engine) as executed:
        assert store.runs_that_start_from("r1") == ["r3"]
    assert len(executed) == 1


def _store_all(url, number):
    store = SQLConfigStore(url)
    for name in range(20):
        store.store_run_config(run(f"r{name}"))
        try:
            store.store_trainer_config(Gunpowder(name=f"own{name}", rate=number))
        except DuplicateNameError:
            continue
    store.database.dispose()


@pytest.mark.slow
@pytest.mark.parametrize(
    "database_url",
    ["sqlite-file", "postgresql", "mysql"],
    indirect=True,
)
def test_processes_that_store_the_same_configs_at_once_all_succeed(database_url):
    store = SQLConfigStore(database_url)
    run_together(_store_all, [(database_url, number) for number in range(4)])

    assert sorted(store.retrieve_run_config_names()) == sorted(f"r{name}" for name in range(20))
    assert store.retrieve_task_config_names() == ["t1"]
    assert len(store.retrieve_trainer_config_names()) == 21
    assert store.retrieve_run_config("r7") == run("r7")
