"""Two tables, two folders, two paths: each works, is kept apart, or is refused with a text that says what to do."""

import subprocess
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from entropic import Base, Database, Mapped, ResultsDirUnavailableError, SchemaError, Store
from entropic.sql.versions import ensure_schema

MODELS: list[type[Base]] = []


def model(name, table, **arguments):
    """Make a model of one parameter; two may be of tables that only a schema or a letter's case tells apart."""
    namespace = {"__tablename__": table, "__module__": __name__, "__annotations__": {"n": Mapped[int]}}
    if arguments:
        namespace["__table_args__"] = arguments
    made = type(name, (Base,), namespace)
    MODELS.append(made)
    return made


def open_store(model, folder, url, word="result"):
    return Store(lambda params: write(params, word), model, folder, ".txt", url)


def write(params, word):
    Path(params["result_file"]).write_text(f"{word} of {params['n']}")


def read(store, n=1):
    return Path(store.retrieve({"n": n}, verify=True).result_file).read_text()


Alices = model("Alices", "walks", schema="alice")
Bobs = model("Bobs", "walks", schema="bob")


@pytest.fixture
def two_schemas(postgres_url):
    database = Database(postgres_url)
    for name in ("alice", "bob"):
        database.write(lambda connection, name=name: connection.execute(text(f"CREATE SCHEMA {name}")))
    yield database
    database.dispose()


def test_tables_of_one_name_in_two_schemas_are_kept_apart(two_schemas, tmp_path):
    alice = open_store(Alices, tmp_path / "alice", two_schemas, "ALICE")
    bob = open_store(Bobs, tmp_path / "bob", two_schemas, "BOB")

    for store in (alice, bob):
        store.run_or_retrieve({"n": 1})

    assert (read(alice), read(bob)) == ("ALICE of 1", "BOB of 1")
    assert not alice.check(checksum=True, fix=True)
    assert not bob.check(checksum=True, fix=True)
    assert [len(store.records()) for store in (alice, bob)] == [1, 1]
    alice.delete({"n": 1}, remove_file=True)
    assert read(bob) == "BOB of 1"


def test_folder_of_a_table_in_another_schema_is_refused(two_schemas, tmp_path):
    open_store(Alices, tmp_path, two_schemas)

    with pytest.raises(ResultsDirUnavailableError, match=r"alice\.walks.*results_dir of its own"):
        open_store(Bobs, tmp_path, two_schemas)


Plain = model("Plain", "rambles")


@pytest.mark.parametrize("is_made", [True, False])
def test_table_that_would_share_the_records_of_one_in_another_schema_is_refused(
    two_schemas, postgres_url, tmp_path, is_made
):
    """The library's tables are where all see them, and the search path begins with a schema of each user's."""
    ensure_schema(two_schemas, [])
    search = "&options=-csearch_path%3D{},public"
    alice, bob = (Database(postgres_url + search.format(name)) for name in ("alice", "bob"))
    open_store(Plain, tmp_path / "alice", alice).run_or_retrieve({"n": 1})
    if is_made:
        two_schemas.write(lambda c: c.execute(text("CREATE TABLE bob.rambles AS TABLE alice.rambles")))

    with pytest.raises(
        SchemaError, match=r"rambles of the schema 'bob' and that of 'alice'.*'schema': 'bob'"
    ):
        open_store(Plain, tmp_path / "bob", bob)

    assert open_store(Plain, tmp_path / "alice", alice).count() == 1
    for database in (alice, bob):
        database.dispose()


def test_schema_of_each_with_all_its_tables_is_kept_apart(two_schemas, postgres_url, tmp_path):
    search = "&options=-csearch_path%3D{}"
    alice, bob = (Database(postgres_url + search.format(name)) for name in ("alice", "bob"))
    stores = [open_store(Plain, tmp_path / str(n), one, str(n)) for n, one in enumerate([alice, bob])]

    for store in stores:
        store.run_or_retrieve({"n": 1})

    assert [read(store) for store in stores] == ["0 of 1", "1 of 1"]
    for database in (alice, bob):
        database.dispose()


Lower, Upper = model("Lower", "strolls"), model("Upper", "Strolls")


def test_table_that_the_database_takes_for_another_one_is_refused(sqlite, tmp_path):
    open_store(Lower, tmp_path / "lower", sqlite).run_or_retrieve({"n": 1})

    with pytest.raises(SchemaError, match="'strolls' of another model"):
        open_store(Upper, tmp_path / "upper", sqlite)


def test_tables_that_differ_in_case_are_kept_apart_where_the_database_does(postgres_url, tmp_path):
    database = Database(postgres_url)
    stores = [open_store(one, tmp_path / one.__name__, database, one.__name__) for one in (Lower, Upper)]

    for store in stores:
        store.run_or_retrieve({"n": 1})

    assert [read(store) for store in stores] == ["Lower of 1", "Upper of 1"]
    database.dispose()


@pytest.mark.parametrize("name", ["entropic_files", "Entropic_Files", "ENTROPIC_ALEMBIC_VERSION"])
def test_table_named_like_one_of_ours_is_refused(sqlite, tmp_path, name):
    like_ours = model(f"Like{name}", name)
    try:
        with pytest.raises(SchemaError, match=r"one of entropic's own.*__tablename__"):
            open_store(like_ours, tmp_path, sqlite)
    finally:
        like_ours.metadata.remove(like_ours.__table__)  # other tests look which tables are models'


Steps, Stairs = model("Steps", "steps"), model("Stairs", "stairs")


def test_folder_that_is_another_tables_is_refused(sqlite, tmp_path):
    open_store(Steps, tmp_path, sqlite)

    with pytest.raises(ResultsDirUnavailableError, match=r"'steps'.*results_dir of its own, such as"):
        open_store(Stairs, tmp_path, sqlite)


def test_one_folder_by_two_paths_in_one_process_works(sqlite, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    stores = [open_store(Steps, tmp_path / name, sqlite) for name in ("real", "link")]

    for n in range(6):
        stores[n % 2].run_or_retrieve({"n": n})
    threads = [
        threading.Thread(target=store.run_or_retrieve, args=({"n": n},))
        for n, store in enumerate(stores, start=10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [read(stores[0], n) for n in (*range(6), 10, 11)] == [
        f"result of {n}" for n in (*range(6), 10, 11)
    ]
    assert Path(stores[1].retrieve({"n": 0}).result_file).parent == tmp_path / "link"
    assert not stores[1].check(checksum=True, fix=True)


def test_results_folder_on_two_file_systems_is_refused_before_anything_runs(sqlite, tmp_path):
    state = tmp_path / "results" / ".entropic"
    store = open_store(Steps, tmp_path / "results", sqlite)
    state.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", state], check=True)
    try:
        with pytest.raises(ResultsDirUnavailableError, match=r"another file system.*unmount it"):
            store.run_or_retrieve({"n": 1})
    finally:
        subprocess.run(["umount", "--lazy", state], check=True)

    assert store.run_or_retrieve({"n": 1})


@pytest.mark.parametrize("query", ["uri=true", "mode=rwc&uri=true"])
def test_file_url_works_and_its_heartbeat_too(tmp_path, query, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    store = open_store(Steps, tmp_path / "results", f"sqlite:///file:runs.sqlite3?{query}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    store.run_or_retrieve({"n": 1})

    assert read(store) == "result of 1"
    assert (tmp_path / "runs.sqlite3").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    store.database.dispose()
