"""Whose file is it? A run replaces its own row's only, and nothing touches what another row names."""

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.exc import ArgumentError

from entropic import AlreadyExistsError, Base, Database, Mapped, ResultFileError, Store
from entropic.disk.files import digest_of
from tests.support.store_cases import PARAMS, Pendulum, Runner, results_in, rows_of, warnings_of
from tests.support.stores import open_store

OTHER = {"length": 9.5, "swings": 9}


@pytest.fixture
def store(sqlite, tmp_path):
    return open_store(Pendulum, tmp_path, Runner(), sqlite)


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def named(record):
    return Path(record.result_file).name


def execute(database, statement, **values):
    from sqlalchemy import text

    database.write(lambda connection: connection.execute(text(statement), values))


def test_run_with_the_id_of_a_strangers_file_gets_a_name_of_its_own(store, results):
    (results / "notes.json").write_text("my notes")

    record = store.run_or_retrieve({"id": "notes", **PARAMS})
    again = store.run_or_retrieve({"id": "notes", **PARAMS})

    assert (results / "notes.json").read_text() == "my notes"
    assert named(record).startswith("notes-")
    assert record.result_file == again.result_file
    assert not [finding for finding in store.check(checksum=True) if finding.kind != "stray-file"]


def test_strangers_file_that_equals_the_result_stays_the_strangers(store, results):
    first = store.run_or_retrieve(PARAMS)
    (results / "notes.json").write_bytes(Path(first.result_file).read_bytes())

    record = store.run_or_retrieve({"id": "notes", **PARAMS})
    store.delete({"id": "notes", **PARAMS}, remove_file=True)

    assert named(record).startswith("notes-")
    assert (results / "notes.json").read_bytes() == Path(first.result_file).read_bytes()


def test_run_with_the_id_of_a_registered_file_leaves_that_alone(store, results):
    (results / "old.json").write_text("the only copy")
    store.register(OTHER, results / "old.json")

    record = store.run_or_retrieve({"id": "old", **PARAMS})

    assert Path(store.retrieve(OTHER, verify=True).result_file).read_text() == "the only copy"
    assert named(record).startswith("old-")


def test_run_again_replaces_its_own_file_and_not_one_that_was_registered_for_it(store, results):
    first = store.run_or_retrieve(PARAMS)
    again = store.run(PARAMS)
    (results / f"{store.key(OTHER)}.json").write_text("registered")
    store.register(OTHER, results / f"{store.key(OTHER)}.json")

    other = store.run(OTHER)

    assert again.result_file == first.result_file
    assert (results / f"{store.key(OTHER)}.json").read_text() == "registered"
    assert named(other) != f"{store.key(OTHER)}.json"


def test_run_that_was_killed_after_its_move_to_a_name_of_its_own_is_recovered(store, results, monkeypatch):
    from entropic.runs import publishing

    (results / "notes.json").write_text("my notes")

    def moved(source, target):
        os.replace(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(publishing, "move", moved)
        with pytest.raises(KeyboardInterrupt):
            store.run_or_retrieve({"id": "notes", **PARAMS})

    record = store.run_or_retrieve({"id": "notes", **PARAMS})

    assert len(store.runner.seen) == 1
    assert Path(store.retrieve({"id": "notes"}, verify=True).result_file) == Path(record.result_file)
    assert (results / "notes.json").read_text() == "my notes"


@pytest.mark.parametrize("way", ["plain", "by a link to the folder"])
def test_file_of_a_run_cannot_be_registered_for_another_row(store, results, tmp_path, way):
    record = store.run_or_retrieve(PARAMS)
    (tmp_path / "link").symlink_to(results)
    path = results / named(record) if way == "plain" else tmp_path / "link" / named(record)

    with pytest.raises(AlreadyExistsError, match=f"what the run '{record.id}' wrote"):
        store.register(OTHER, path)

    assert store.retrieve(OTHER) is None


class ClosesAnother:
    """A runner in whose middle another Store of the table, perhaps another thread's, runs and is closed."""

    def __init__(self, open_another, in_thread):
        self.open_another, self.in_thread = open_another, in_thread

    def __call__(self, params):
        path = Path(params["result_file"])
        path.write_text("half")
        if params["swings"] != OTHER["swings"]:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(self.close_another).result() if self.in_thread else self.close_another()
        with path.open("a") as file:
            file.write(" and half")

    def close_another(self):
        another = self.open_another()
        another.run_or_retrieve(OTHER)
        another.close()


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("way", ["call", "sweep"])
def test_store_that_is_closed_takes_no_folder_from_a_run_of_another(tmp_path, in_thread, way):
    def open_another():
        return open_store(Pendulum, tmp_path, runner)

    runner = ClosesAnother(open_another, in_thread)
    store = open_another()
    store.run_or_retrieve({**PARAMS, "swings": 8})

    record = store.run_or_retrieve(PARAMS) if way == "call" else store.sweep([PARAMS], progress=False)[0]
    store.close()

    assert Path(record.result_file).read_text() == "half and half"
    assert list((tmp_path / "results" / ".entropic").iterdir()) == []


def test_file_in_a_slot_cannot_be_registered(store, results):
    store.run_or_retrieve(PARAMS)
    path = next((results / ".entropic").glob("*/process.json"))

    with pytest.raises(AlreadyExistsError, match="folder of state"):
        store.register(OTHER, path)


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_delete_leaves_a_file_that_another_row_has_too(store, results, tmp_path, caplog, place):
    path = (results if place == "inside" else tmp_path) / "shared.json"
    path.write_text("shared")
    for params in (PARAMS, OTHER):
        store.register(params, path)

    store.delete(PARAMS, remove_file=True)
    kept = path.read_text()
    store.delete(OTHER, remove_file=True)

    assert kept == "shared"
    assert any("another row" in text for text in warnings_of(caplog))
    assert not path.exists()


def test_delete_of_a_row_that_no_record_vouches_for_leaves_files_outside(store, tmp_path, caplog):
    record = store.run_or_retrieve(PARAMS)
    precious = tmp_path / "thesis.tex"
    precious.write_text("years")
    execute(store.database, "DELETE FROM entropic_files")
    execute(store.database, "UPDATE pendulum SET result_file = :path", path=str(precious))

    assert store.delete(hash=record.id, remove_file=True)

    assert precious.read_text() == "years"
    assert any("no file record" in text for text in warnings_of(caplog))


NAMES = ("../thesis.tex", "../../thesis.tex", "..", ".", "", "sub/../../thesis.tex", ".entropic-root.json")


@pytest.mark.parametrize("name", NAMES)
def test_name_of_a_file_record_leads_nowhere_else(store, results, tmp_path, name):
    (tmp_path / "thesis.tex").write_text("years")
    record = store.run_or_retrieve(PARAMS)
    execute(store.database, "UPDATE entropic_files SET name = :name", name=name)

    shown = Path(store.retrieve({"id": record.id}).result_file) if store.retrieve(PARAMS) else None
    again = store.run_or_retrieve(PARAMS)
    execute(store.database, "UPDATE entropic_files SET name = :name", name=name)
    store.check(checksum=True, fix=True)
    store.run_or_retrieve(PARAMS)
    execute(store.database, "UPDATE entropic_files SET name = :name", name=name)
    store.delete(PARAMS, remove_file=True)

    assert shown is None
    assert Path(again.result_file).parent == results
    assert (tmp_path / "thesis.tex").read_text() == "years"
    assert (results / ".entropic-root.json").exists()


def test_path_that_a_run_is_recorded_to_have_written_elsewhere_is_not_moved(store, tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    store.run_or_retrieve(PARAMS)
    execute(store.database, "UPDATE entropic_files SET name = :name", name=str(tmp_path / "thesis.tex"))

    report = store.check(checksum=True, fix=True)

    assert (tmp_path / "thesis.tex").read_text() == "years"
    assert next((finding.kind, finding.is_fixed) for finding in report) == ("corrupt-file", False)


# What register wrote


@pytest.fixture
def precious(tmp_path):
    """A file outside the results folder."""
    path = tmp_path / "elsewhere" / "thesis.json"
    path.parent.mkdir()
    path.write_text("years")
    return path


def note_in(results):
    (note,) = (results / ".entropic-registered").iterdir()
    return note


def test_file_elsewhere_that_was_registered_is_removed_when_that_is_said(store, results, precious):
    store.register(PARAMS, precious)

    store.delete(PARAMS, remove_file=True)

    assert not precious.exists()
    assert list((results / ".entropic-registered").iterdir()) == []


def test_file_elsewhere_that_only_a_record_names_is_left(store, precious, caplog):
    record = store.run_or_retrieve(PARAMS)
    size, sha256 = digest_of(precious)
    execute(
        store.database,
        "UPDATE entropic_files SET name = :name, size_bytes = :size, sha256 = :sha256, attempt = NULL",
        name=str(precious), size=size, sha256=sha256,
    )  # fmt: skip

    assert store.retrieve(PARAMS, verify=True).id == record.id
    assert store.delete(PARAMS, remove_file=True)

    assert precious.read_text() == "years"
    assert any("no note says that this user" in text for text in warnings_of(caplog))


def of_another_user(note):
    os.chown(note, 47001, 47001)


def for_a_group_to_write(note):
    note.chmod(0o660)


def by_a_link(note):
    note.rename(note.with_name("moved"))
    note.symlink_to("moved")


def with_another_path(note):
    said = json.loads(note.read_text())
    note.write_text(json.dumps([*said[:-1], "/elsewhere"]))


def that_is_deep(note):
    note.write_text("[" * 30_000)


def that_is_a_fifo(note):
    note.unlink()
    os.mkfifo(note)


def of_another_row(note):
    note.unlink()


NOTES = (of_another_user, for_a_group_to_write, by_a_link, with_another_path, that_is_deep, that_is_a_fifo)


@pytest.mark.parametrize("change", [*NOTES, of_another_row], ids=lambda change: change.__name__)
def test_file_elsewhere_stays_where_the_note_is_not_this_users(store, results, precious, change):
    store.register(PARAMS, precious)
    change(note_in(results))

    store.delete(PARAMS, remove_file=True)

    assert precious.read_text() == "years"


def test_file_elsewhere_stays_where_its_folder_is_a_link_to_another_by_now(store, tmp_path, precious):
    store.register(PARAMS, precious)
    precious.parent.rename(tmp_path / "home")
    precious.parent.symlink_to(tmp_path / "home")

    store.delete(PARAMS, remove_file=True)

    assert precious.read_text() == "years"


def test_folder_elsewhere_that_was_registered_is_removed_without_what_it_links_to(store, tmp_path, precious):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part").write_text("x")
    store.register(PARAMS, tmp_path / "data")
    (tmp_path / "data" / "link").symlink_to(precious.parent)

    store.delete(PARAMS, remove_file=True)

    assert not (tmp_path / "data").exists()
    assert precious.read_text() == "years"


def test_file_registered_where_nothing_can_be_noted_is_a_record_and_stays(store, results, precious):
    (results / ".entropic-registered").symlink_to(precious.parent)
    store.register(PARAMS, precious)

    store.delete(PARAMS, remove_file=True)

    assert os.listdir(precious.parent) == ["thesis.json"]


# What a result is


def writes(make):
    def run(params):
        make(Path(params["result_file"]))

    return run


def a_link(path):
    scratch = path.parents[4] / "scratch"
    scratch.write_text("result")
    path.symlink_to(scratch)


def a_link_in_a_folder(path):
    path.mkdir()
    a_link(path.parent / "aside")
    os.rename(path.parent / "aside", path / "part")


def a_link_to_a_folder(path):
    path.symlink_to(path.parents[2])


def a_link_that_dangles(path):
    path.symlink_to(path.parent / "nothing")


def a_socket(path):
    folder = os.getcwd()
    os.chdir(path.parent)  # the path of a socket may have 107 characters at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(folder)


def a_fifo_in_a_folder(path):
    path.mkdir()
    os.mkfifo(path / "part")


@pytest.mark.parametrize("make", [a_link, a_link_in_a_folder], ids=lambda make: make.__name__)
def test_link_to_a_file_becomes_a_copy(sqlite, tmp_path, make):
    store = open_store(Pendulum, tmp_path, writes(make), sqlite)

    record = store.run_or_retrieve(PARAMS)
    (tmp_path / "scratch").unlink()

    path = Path(record.result_file)
    assert (path / "part" if path.is_dir() else path).read_text() == "result"
    assert store.retrieve(PARAMS, verify=True) is not None


@pytest.mark.parametrize(
    "make",
    [a_link_to_a_folder, a_link_that_dangles, a_socket, os.mkfifo, a_fifo_in_a_folder],
    ids=lambda make: make.__name__,
)
def test_what_is_no_file_fails_the_run_at_once(sqlite, tmp_path, make):
    store = open_store(Pendulum, tmp_path, writes(make), sqlite)

    with pytest.raises(ResultFileError, match="file"):
        store.run_or_retrieve(PARAMS)

    assert rows_of(sqlite) == []
    assert results_in(tmp_path) == []
    assert store.failures()


@pytest.mark.parametrize("make", [a_link_that_dangles, os.mkfifo], ids=lambda make: make.__name__)
def test_what_took_the_place_of_a_result_is_no_hit_and_check_goes_on(store, results, make):
    record, other = store.run_or_retrieve(PARAMS), store.run_or_retrieve(OTHER)
    path = Path(record.result_file)
    path.unlink()
    make(path)
    Path(other.result_file).write_text("damaged")

    report = store.check(checksum=True)
    again = store.run_or_retrieve(PARAMS)

    assert {finding.kind for finding in report} >= {"not-a-file", "corrupt-file"}
    assert len(store.runner.seen) == 3
    assert store.retrieve(PARAMS, verify=True).result_file == again.result_file


# What another table of the same database has, and what lies in folders


class Bells(Base):
    __tablename__ = "bells"

    length: Mapped[float]


@pytest.fixture
def bells(sqlite, tmp_path):
    """A Store of another table of the same database, with a results folder of its own."""
    return Store(Runner(), Bells, tmp_path / "bells", ".json", sqlite)


@pytest.mark.parametrize("way", ["plain", "by a link to the folder", "by a link to the file"])
def test_file_of_a_run_of_another_table_cannot_be_registered(store, bells, results, tmp_path, way):
    record = store.run_or_retrieve(PARAMS)
    (tmp_path / "link").symlink_to(results)
    (tmp_path / "file").symlink_to(record.result_file)
    paths = {"plain": results / named(record), "by a link to the folder": tmp_path / "link" / named(record)}
    path = paths.get(way, tmp_path / "file")

    with pytest.raises(AlreadyExistsError, match=f"the run '{record.id}' of table 'pendulum' wrote"):
        bells.register({"length": 1.0}, path)

    assert bells.retrieve({"length": 1.0}) is None


def test_part_of_a_folder_that_a_run_wrote_cannot_be_registered(store, bells, tmp_path):
    def write_many(params):
        Path(params["result_file"]).mkdir()
        (Path(params["result_file"]) / "mean.json").write_text("1")

    folders = open_store(Pendulum, tmp_path, write_many, store.database)
    record = folders.run_or_retrieve(PARAMS)

    for one, params in ((folders, OTHER), (bells, {"length": 1.0})):
        with pytest.raises(AlreadyExistsError, match=rf"the run '{record.id}'.* wrote"):
            one.register(params, Path(record.result_file) / "mean.json")


def test_file_in_a_slot_of_another_table_cannot_be_registered(store, bells, results):
    store.run_or_retrieve(PARAMS)
    path = next((results / ".entropic").glob("*/process.json"))

    with pytest.raises(AlreadyExistsError, match="folder of state"):
        bells.register({"length": 1.0}, path)


@pytest.mark.parametrize("place", ["itself", "above"])
def test_folder_that_has_the_results_in_it_cannot_be_registered(store, results, tmp_path, place):
    store.run_or_retrieve(PARAMS)

    with pytest.raises(ResultFileError, match=r"the results folder .* lies in it"):
        store.register(OTHER, results if place == "itself" else tmp_path)

    assert store.retrieve(OTHER) is None


def test_delete_leaves_a_file_that_another_table_has_too(store, bells, tmp_path, caplog):
    path = tmp_path / "shared.json"
    path.write_text("shared")
    store.register(PARAMS, path)
    bells.register({"length": 1.0}, path)

    store.delete(PARAMS, remove_file=True)
    kept = path.read_text()
    bells.delete({"length": 1.0}, remove_file=True)

    assert kept == "shared"
    assert any("another row" in text for text in warnings_of(caplog))
    assert not path.exists()


@pytest.mark.parametrize("deleted", ["folder", "file"])
def test_delete_leaves_what_another_row_has_a_part_of(store, bells, tmp_path, deleted):
    folder = tmp_path / "data_1%"
    folder.mkdir()
    (folder / "part.json").write_text("part")
    of = {"folder": folder, "file": folder / "part.json"}
    store.register(PARAMS, of[deleted])
    bells.register({"length": 1.0}, of["file" if deleted == "folder" else "folder"])

    store.delete(PARAMS, remove_file=True)

    assert (folder / "part.json").read_text() == "part"
    assert bells.retrieve({"length": 1.0}, verify=True) is not None


def test_delete_removes_a_file_beside_one_whose_name_only_begins_alike(store, bells, tmp_path):
    paths = [tmp_path / name for name in ("data", "data_2")]
    for path in paths:
        path.mkdir()
        (path / "part.json").write_text("part")
    store.register(PARAMS, paths[0])
    bells.register({"length": 1.0}, paths[1] / "part.json")

    store.delete(PARAMS, remove_file=True)

    assert [path.exists() for path in paths] == [False, True]


def test_delete_leaves_a_file_in_the_results_folder_of_another_database(store, tmp_path, caplog):
    other = Store(Runner(), Bells, tmp_path / "bells", ".json", f"sqlite:///{tmp_path / 'other.sqlite3'}")
    path = Path(other.run_or_retrieve({"length": 1.0}).result_file)
    store.register(PARAMS, path)

    store.delete(PARAMS, remove_file=True)

    assert other.retrieve({"length": 1.0}, verify=True) is not None
    assert any("results folder" in text for text in warnings_of(caplog))


def test_delete_leaves_a_folder_in_which_results_lie_by_now(store, tmp_path, caplog):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    store.register(PARAMS, tmp_path / "data")
    other = Store(Runner(), Bells, tmp_path / "data" / "deep" / "bells", ".json", store.database)
    other.run_or_retrieve({"length": 1.0})

    store.delete(PARAMS, remove_file=True)

    assert other.retrieve({"length": 1.0}, verify=True) is not None
    assert any("results folder" in text for text in warnings_of(caplog))


def test_path_that_is_no_text_is_refused_before_anything_is_made(store, tmp_path, monkeypatch):
    strange = os.fsdecode(b"caf\xe9")
    before = set(os.listdir(tmp_path))
    with pytest.raises(ValueError, match="no UTF-8"):
        Store(Runner(), Bells, tmp_path / strange, ".json", store.database)
    with pytest.raises(ArgumentError, match="must be UTF-8"):
        Database(f"sqlite:///{tmp_path / strange}.sqlite3")
    assert set(os.listdir(tmp_path)) == before

    (tmp_path / strange).mkdir()
    (tmp_path / strange / "mine.json").write_text("mine")
    with pytest.raises(ValueError, match="no UTF-8"):
        store.register(PARAMS, tmp_path / strange / "mine.json")
    assert store.retrieve(PARAMS) is None
    monkeypatch.chdir(tmp_path / strange)
    with pytest.raises(ArgumentError, match="must be UTF-8"):
        Database("sqlite:///db.sqlite3")
