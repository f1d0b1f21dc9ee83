"""A copy of a database beside its original: it reads, and leaves the original's files alone; one that moved goes on."""

import json
import logging
import pickle
import shutil
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text

from entropic import Database, ResultsDirUnavailableError
from tests.support.processes import outcomes_of
from tests.support.protocol_cases import Place, run_until
from tests.support.store_cases import PARAMS, Pendulum, Runner
from tests.support.stores import open_store

OTHER = {"length": 9.5, "swings": 9}


def opened(folder, url, note=b"", **options):
    runner = Runner()
    runner.note = note
    return open_store(Pendulum, folder, runner, url, **options)


def sqlite_copies(tmp_path):
    """Return URLs of a database with a row, and of a copy of it."""
    url = f"sqlite:///{tmp_path / 'one.sqlite3'}"
    make_row(tmp_path, url)
    shutil.copy(tmp_path / "one.sqlite3", tmp_path / "two.sqlite3")
    return url, f"sqlite:///{tmp_path / 'two.sqlite3'}"


def make_row(folder, url):
    store = opened(folder, url, b"one")
    store.run_or_retrieve(PARAMS)
    store.close()


@pytest.fixture
def copies(tmp_path):
    return sqlite_copies(tmp_path)


def content(store, params=PARAMS):
    return Path(store.retrieve(params, verify=True).result_file).read_bytes()


def run(store):
    store.run(PARAMS)


def run_new(store):
    store.run_or_retrieve(OTHER)


def sweep(store):
    store.sweep([PARAMS, OTHER], progress=False)


def register(store):
    store.register(PARAMS, Path(__file__), overwrite=True)


def recover(store):
    store.recover()


def fix(store):
    store.check(fix=True)


WRITERS = (run, run_new, sweep, register, recover, fix)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_copy_beside_its_original_reads_and_is_refused_before_it_writes(tmp_path, copies, write, caplog):
    one, two = opened(tmp_path, copies[0], b"one"), opened(tmp_path, copies[1], b"two")
    files = sorted((tmp_path / "results").iterdir())

    with pytest.raises(ResultsDirUnavailableError, match=r"one\.sqlite3.*copy.*adopt_root\(\)"):
        write(two)

    assert sum("seems to be a copy" in record.getMessage() for record in caplog.records) == 1
    assert sorted((tmp_path / "results").iterdir()) == files
    assert content(one) == content(two)
    assert content(two).startswith(b"one")
    assert two.runner.seen == []
    assert [finding.kind for finding in two.check()] == ["results-dir"]
    one.run_or_retrieve(OTHER)


def test_copy_that_deletes_a_row_leaves_the_file_to_its_original(tmp_path, copies, caplog):
    one, two = opened(tmp_path, copies[0]), opened(tmp_path, copies[1])
    precious = tmp_path / "registered.json"
    precious.write_text("{}")
    one.register(OTHER, precious)
    two.database.dispose()
    one.close()
    shutil.copy(tmp_path / "one.sqlite3", tmp_path / "two.sqlite3")
    two = opened(tmp_path, copies[1])

    deleted = [two.delete(params, remove_file=True) for params in (PARAMS, OTHER)]

    assert deleted == [True, True]
    assert content(one).startswith(b"one")
    assert precious.exists()
    assert sum("its file is not" in record.getMessage() for record in caplog.records) == 2


def test_copy_that_was_pickled_is_still_one(tmp_path, copies):
    two = opened(tmp_path, copies[1])

    again = pickle.loads(pickle.dumps(two._table))

    with pytest.raises(ResultsDirUnavailableError, match="copy"):
        again.require_root()


def test_copy_does_not_take_what_its_original_has_not_committed_yet(tmp_path):
    place = Place(f"sqlite:///{tmp_path / 'one.sqlite3'}", tmp_path)
    place.store().close()
    outcomes_of(run_until, [(place, "line written", {"a": 1.5})])
    shutil.copy(tmp_path / "one.sqlite3", tmp_path / "two.sqlite3")

    two = Place(f"sqlite:///{tmp_path / 'two.sqlite3'}", tmp_path).store()

    assert two.count() == 0
    assert place.store().count() == 1


def test_database_that_was_moved_goes_on_and_says_so(tmp_path, copies, caplog):
    (tmp_path / "one.sqlite3").rename(tmp_path / "three.sqlite3")

    with caplog.at_level(logging.INFO, "entropic"):
        store = opened(tmp_path, f"sqlite:///{tmp_path / 'three.sqlite3'}", b"new")
    store.run(PARAMS)
    said = [r.getMessage() for r in caplog.records if "was moved" in r.getMessage()]
    caplog.clear()
    with caplog.at_level(logging.INFO, "entropic"):
        opened(tmp_path, f"sqlite:///{tmp_path / 'three.sqlite3'}")

    assert content(store).startswith(b"new")
    assert len(said) == 1
    assert "three.sqlite3" in said[0]
    assert not [r for r in caplog.records if "was moved" in r.getMessage()]
    with pytest.raises(ResultsDirUnavailableError, match=r"three\.sqlite3"):
        run(opened(tmp_path, copies[1]))


def test_database_that_is_there_again_does_not_write_beside_the_one_that_took_its_place(tmp_path, copies):
    """As one of which a copy was opened where the original could not be seen."""
    (tmp_path / "one.sqlite3").rename(tmp_path / "hidden")
    two = opened(tmp_path, copies[1], b"two")
    (tmp_path / "hidden").rename(tmp_path / "one.sqlite3")

    one = opened(tmp_path, copies[0], b"one")

    with pytest.raises(ResultsDirUnavailableError, match=r"two\.sqlite3"):
        run(one)
    run(two)
    assert content(two).startswith(b"two")


def test_store_that_is_open_while_its_database_is_found_by_another_path_goes_on(tmp_path, copies):
    """As on two hosts that mount one share in two places."""
    one = opened(tmp_path, copies[0])
    marker = tmp_path / "results" / ".entropic-root.json"
    said = json.loads(marker.read_text())
    said["place"] |= {"file": "/mnt/elsewhere/one.sqlite3", "beside": "../elsewhere.sqlite3"}
    marker.write_text(json.dumps(said))
    opened(tmp_path, copies[0]).run(PARAMS)

    one.run(PARAMS)

    assert json.loads(marker.read_text())["root"] != said["root"]


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_project_that_is_moved_or_copied_as_a_whole_goes_on(tmp_path, how):
    folder = tmp_path / "project"
    folder.mkdir()
    make_row(folder, f"sqlite:///{folder / 'one.sqlite3'}")
    (shutil.move if how == "moved" else shutil.copytree)(folder, tmp_path / "other")

    store = opened(tmp_path / "other", f"sqlite:///{tmp_path / 'other' / 'one.sqlite3'}", b"new")
    store.run(PARAMS)

    assert content(store).startswith(b"new")
    if how == "copied":
        assert content(opened(folder, f"sqlite:///{folder / 'one.sqlite3'}")).startswith(b"one")


def test_copied_project_whose_results_are_a_link_to_the_same_folder_is_refused(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "results").symlink_to(tmp_path / "scratch")
    make_row(tmp_path / "project", f"sqlite:///{tmp_path / 'project' / 'one.sqlite3'}")
    shutil.copytree(tmp_path / "project", tmp_path / "other", symlinks=True)

    with pytest.raises(ResultsDirUnavailableError, match="copy"):
        run(opened(tmp_path / "other", f"sqlite:///{tmp_path / 'other' / 'one.sqlite3'}"))


def test_both_ways_out_of_the_text_work(tmp_path, copies):
    shutil.copytree(tmp_path / "results", tmp_path / "theirs" / "results")
    two = opened(tmp_path / "theirs", copies[1], b"two")
    with pytest.raises(ResultsDirUnavailableError, match="Copy the folder"):
        run(two)
    two.adopt_root()
    run(two)
    one = opened(tmp_path, copies[0])
    kept = content(one)
    here = opened(tmp_path, copies[1], b"two")
    here.adopt_root()
    run(here)

    assert content(two).startswith(b"two")
    assert kept.startswith(b"one")
    with pytest.raises(ResultsDirUnavailableError, match=r"another database \(that of '.*two\.sqlite3'\)"):
        run(one)


def test_links_to_one_file_are_no_copies(tmp_path, copies):
    (tmp_path / "link.sqlite3").symlink_to(tmp_path / "one.sqlite3")

    opened(tmp_path, f"sqlite:///{tmp_path / 'link.sqlite3'}").run(PARAMS)


def test_copy_that_was_made_before_the_table_was_there_is_refused_the_folder(tmp_path):
    Database(url := f"sqlite:///{tmp_path / 'one.sqlite3'}").dispose()
    Place(url, tmp_path / "first").store().close()
    shutil.copy(tmp_path / "one.sqlite3", tmp_path / "two.sqlite3")
    opened(tmp_path, url).run(PARAMS)

    with pytest.raises(ResultsDirUnavailableError, match=r"belongs to the database '.*one\.sqlite3'"):
        opened(tmp_path, f"sqlite:///{tmp_path / 'two.sqlite3'}")


# What may be at the place that a marker names, which anybody may have written


def nothing(path):
    pass


def another_database(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE entropic_meta (name, value)")
        connection.execute("INSERT INTO entropic_meta VALUES ('database', 'another')")
    connection.close()


def no_database(path):
    path.write_text("thesis")


def an_empty_file(path):
    path.touch()


def a_fifo(path):
    import os

    os.mkfifo(path)


def a_folder(path):
    path.mkdir()


def a_link_in_a_circle(path):
    path.symlink_to(path)


def one_that_never_answers(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE VIEW entropic_meta AS WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n) "
            "SELECT 'no' AS name, value FROM n"
        )
    connection.close()


GONE = (nothing, another_database, no_database, an_empty_file, a_fifo, a_folder, a_link_in_a_circle)


@pytest.mark.parametrize("make", [*GONE, one_that_never_answers], ids=lambda make: make.__name__)
def test_what_stands_in_the_place_of_a_moved_database_is_told_apart_and_left_alone(tmp_path, copies, make):
    (tmp_path / "one.sqlite3").rename(tmp_path / "three.sqlite3")
    make(tmp_path / "one.sqlite3")
    before = sorted(path.name for path in tmp_path.iterdir())

    store = opened(tmp_path, f"sqlite:///{tmp_path / 'three.sqlite3'}")

    if make is one_that_never_answers:
        with pytest.raises(ResultsDirUnavailableError, match="copy"):
            run(store)
    else:
        run(store)
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# Servers


@contextmanager
def postgres_copy(url):
    server = make_url(url)
    other = f"entropic_{uuid4().hex}"
    with Database(server.set(database="postgres")).engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(f"CREATE DATABASE {other} TEMPLATE {server.database}"))
        try:
            yield server.set(database=other).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP DATABASE {other} WITH (FORCE)"))


@contextmanager
def mysql_copy(url):
    server = make_url(url)
    other = f"entropic_{uuid4().hex}"
    with Database(server).engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(f"CREATE DATABASE {other}"))
        try:
            for (table,) in connection.execute(text("SHOW TABLES")).all():
                connection.execute(text(f"CREATE TABLE {other}.{table} LIKE {server.database}.{table}"))
                connection.execute(
                    text(f"INSERT INTO {other}.{table} SELECT * FROM {server.database}.{table}")
                )
            yield server.set(database=other).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP DATABASE {other}"))


COPIES = {"postgresql": postgres_copy, "mysql": mysql_copy}


def test_dump_that_was_restored_in_another_database_is_a_copy(tmp_path, server_url):
    make_row(tmp_path, server_url)
    Database(server_url).dispose()
    with COPIES[make_url(server_url).get_backend_name()](server_url) as copied:
        two = opened(tmp_path, copied, b"two")
        try:
            with pytest.raises(ResultsDirUnavailableError, match=make_url(server_url).database):
                run(two)
            one = opened(tmp_path, server_url)
            kept = content(one), content(two)
            two.adopt_root()
            run(two)
            with pytest.raises(ResultsDirUnavailableError, match=make_url(copied).database):
                run(one)
        finally:
            two.close()

    assert kept[0] == kept[1]


def test_postgresql_database_that_was_restored_in_the_place_of_its_original_goes_on(tmp_path, postgres_url):
    make_row(tmp_path, postgres_url)
    Database(postgres_url).dispose()
    marker = tmp_path / "results" / ".entropic-root.json"
    said = json.loads(marker.read_text())
    said["place"]["database"] = "4294967290"  # of no database of this server
    marker.write_text(json.dumps(said))

    store = opened(tmp_path, postgres_url, b"new")
    run(store)

    assert content(store).startswith(b"new")
    assert json.loads(marker.read_text())["place"]["database"] != "4294967290"


@pytest.mark.parametrize("number", ["", "x", "\0", "\ud800", "٣", "9" * 50])
def test_number_of_a_postgresql_database_that_is_none_lets_the_store_open(tmp_path, postgres_url, number):
    make_row(tmp_path, postgres_url)
    marker = tmp_path / "results" / ".entropic-root.json"
    said = json.loads(marker.read_text())
    said["place"]["database"] = number
    marker.write_text(json.dumps(said))

    assert content(opened(tmp_path, postgres_url)).startswith(b"one")


def test_postgresql_database_of_another_server_may_be_a_copy(tmp_path, postgres_url):
    make_row(tmp_path, postgres_url)
    marker = tmp_path / "results" / ".entropic-root.json"
    said = json.loads(marker.read_text())
    said["place"] |= {"server": "17", "name": "lab"}
    marker.write_text(json.dumps(said))

    with pytest.raises(ResultsDirUnavailableError, match="belongs to the database 'lab'"):
        run(opened(tmp_path, postgres_url))
