"""Results of a Store on disk: what counts as one, where it lies, and what happens when it or its folder is gone."""

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from sqlalchemy import text

from entropic import (
    Base,
    CorruptFileError,
    Database,
    HashCollisionError,
    Mapped,
    ResultFileError,
    ResultFileMissingError,
    ResultsDirUnavailableError,
    Store,
)
from entropic.model.records import RecordReader
from entropic.runs import publishing
from tests.support.counting import statements
from tests.support.store_cases import (
    PARAMS,
    Pendulum,
    Runner,
    attempts_of,
    claims_of,
    expected_bytes,
    results_in,
    rows_of,
    staged_in,
    warnings_of,
)
from tests.support.stores import open_store


class Spring(Base):
    __tablename__ = "spring"

    stiffness: Mapped[float]


# What counts as a result


def test_numpy_save_keeps_its_suffix_with_a_line_at_info(sqlite, tmp_path, caplog):
    def runner(params):
        np.save(params["result_file"], np.arange(3))

    with caplog.at_level(logging.INFO, "entropic"):
        record = Store(runner, Spring, tmp_path / "results", db_url=sqlite).run_or_retrieve(
            {"stiffness": 1.0}
        )

    assert record.result_file == str(tmp_path / "results" / f"{record.id}.h5.npy")
    assert np.load(record.result_file).tolist() == [0, 1, 2]
    assert any(".h5.npy" in r.getMessage() for r in caplog.records if r.levelname == "INFO")
    assert warnings_of(caplog) == []


def test_rerun_that_writes_another_suffix_leaves_one_file(sqlite, tmp_path):
    open_store(Pendulum, tmp_path, Runner(), sqlite).run(PARAMS)
    store = open_store(
        Pendulum, tmp_path, lambda params: np.save(params["result_file"], np.arange(3)), sqlite
    )

    record = store.run(PARAMS)

    assert results_in(tmp_path) == [f"{record.id}.json.npy"]
    assert store.retrieve(PARAMS).result_file == record.result_file


def test_runner_that_writes_two_files_is_an_error_that_names_and_keeps_both(sqlite, tmp_path):
    def runner(params):
        Path(params["result_file"]).write_text("one")
        Path(params["result_file"]).with_suffix(".txt").write_text("two")

    store = open_store(Pendulum, tmp_path, runner, sqlite)

    with pytest.raises(ResultFileError) as caught:
        store.run_or_retrieve(PARAMS)

    kept = sorted((tmp_path / "results" / ".entropic" / "quarantine").rglob("*.*"))
    assert sorted(path.read_text() for path in kept if path.is_file()) == ["one", "two"]
    assert all(path.name in str(caught.value) for path in kept)
    assert str(kept[0].parent) in str(caught.value)
    assert (rows_of(sqlite), claims_of(sqlite)) == ([], 0)
    assert [failure.error_type for failure in store.failures()] == ["ResultFileError"]


def test_runner_that_writes_nothing_is_an_error(database, tmp_path):
    store = open_store(Pendulum, tmp_path, lambda params: None, database)

    with pytest.raises(ResultFileMissingError, match="result_file"):
        store.run_or_retrieve(PARAMS)

    assert (rows_of(database), claims_of(database)) == ([], 0)
    assert attempts_of(database) == [("FAILED", "ResultFileMissingError")]


def test_folder_is_a_result_and_its_rerun_replaces_it(sqlite, tmp_path):
    written = iter(["first", "second"])

    def runner(params):
        folder = Path(params["result_file"])
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "part.txt").write_text(next(written))

    store = open_store(Pendulum, tmp_path, runner, sqlite)
    first = store.run_or_retrieve(PARAMS)
    before = (Path(first.result_file) / "deep" / "part.txt").read_text()

    second = store.run(PARAMS)

    assert before == "first"
    assert (Path(second.result_file) / "deep" / "part.txt").read_text() == "second"
    assert results_in(tmp_path) == [Path(second.result_file).name]
    assert Path(second.result_file).name.startswith(second.id)
    assert store.run_or_retrieve(PARAMS).result_file == second.result_file
    assert store.delete(PARAMS, remove_file=True)
    assert results_in(tmp_path) == []


# A result that is gone


def test_missing_file_is_run_again_with_a_warning(database, tmp_path, caplog):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)
    first = store.run_or_retrieve(PARAMS, campaign="may")
    Path(first.result_file).unlink()

    again = store.run_or_retrieve(PARAMS, campaign="june")

    (warning,) = [one for one in warnings_of(caplog) if "gone" in one]  # a heartbeat may speak, too
    assert first.result_file in warning
    assert len(runner.seen) == 2
    assert again.custom_data["campaign"] == "june"
    assert Path(again.result_file).read_bytes() == expected_bytes(PARAMS)
    assert [row["id"] for row in rows_of(database)] == [first.id]


# A folder that is elsewhere, or nowhere


def test_moved_results_folder_is_found_without_a_write(database, tmp_path):
    runner = Runner()
    record = open_store(Pendulum, tmp_path, runner, database).run_or_retrieve(PARAMS)
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "results", tmp_path / "moved" / "results")

    with statements(database.engine) as seen:
        found = open_store(Pendulum, tmp_path / "moved", runner, database).run_or_retrieve(PARAMS)

    assert found.result_file == str(tmp_path / "moved" / "results" / Path(record.result_file).name)
    assert Path(found.result_file).read_bytes() == expected_bytes(PARAMS)
    assert len(runner.seen) == 1
    assert {statement.split()[0] for statement in seen} <= {
        "SELECT",
        "PRAGMA",
        "BEGIN",
        "SHOW",
        "DESCRIBE",
        "EXPLAIN",
    }
    assert rows_of(database)[0]["result_file"] == record.result_file


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_results_folder_at_another_place_takes_new_runs_of_the_same_process(database, tmp_path, how):
    before = open_store(Pendulum, tmp_path, Runner(), database)
    for swings in range(3):
        before.run_or_retrieve({**PARAMS, "swings": swings})
    (tmp_path / "new").mkdir()
    (shutil.move if how == "moved" else shutil.copytree)(tmp_path / "results", tmp_path / "new" / "results")

    store = open_store(Pendulum, tmp_path / "new", Runner(), database)
    for swings in range(3, 6):
        store.run_or_retrieve({**PARAMS, "swings": swings})
    store.run({**PARAMS, "swings": 0})
    records = store.sweep([{**PARAMS, "swings": swings} for swings in range(9)], progress=False)

    assert {Path(record.result_file).parent for record in records} == {tmp_path / "new" / "results"}
    assert all(Path(record.result_file).exists() for record in records)
    assert not store.check(checksum=True)
    store.close()


def test_row_without_a_file_record_has_its_stored_path_while_something_is_there(sqlite, tmp_path):
    """Of a row that 2.3.0 wrote a copied folder may hold a namesake; where the file was moved, that is it."""
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    stored = Path(store.run_or_retrieve(PARAMS).result_file)
    sqlite.write(lambda connection: connection.execute(text("DELETE FROM entropic_files")))
    shutil.copytree(tmp_path / "results", tmp_path / "copied" / "results")

    copied = open_store(Pendulum, tmp_path / "copied", Runner(), sqlite)
    while_there = copied.retrieve(PARAMS).result_file
    stored.unlink()
    after = copied.retrieve(PARAMS).result_file

    assert while_there == str(stored)
    assert after == str(tmp_path / "copied" / "results" / stored.name)


@pytest.mark.parametrize("mountpoint_is_left", [False, True])
def test_unmounted_results_folder_raises_and_runs_nothing(sqlite, tmp_path, mountpoint_is_left):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)
    store.run_or_retrieve(PARAMS)
    (tmp_path / "results").rename(tmp_path / "away")
    if mountpoint_is_left:
        (tmp_path / "results").mkdir()
    other = {**PARAMS, "swings": 4}

    for stale in (store, open_store(Pendulum, tmp_path, runner, sqlite)):
        for call in (
            lambda s: s.run_or_retrieve(PARAMS),
            lambda s: s.run_or_retrieve(other),
            lambda s: s.run(PARAMS),
            lambda s: s.sweep([PARAMS, other]),
            lambda s: s.recover(),
        ):
            with pytest.raises(ResultsDirUnavailableError, match="adopt_root"):
                call(stale)

    assert len(runner.seen) == 1
    assert len(rows_of(sqlite)) == 1
    assert claims_of(sqlite) == 0
    assert (tmp_path / "results").exists() is mountpoint_is_left
    assert not mountpoint_is_left or list((tmp_path / "results").iterdir()) == []


def test_unmounted_results_folder_can_be_read_and_is_found_again_when_mounted(sqlite, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)
    record = store.run_or_retrieve(PARAMS)
    (tmp_path / "results").rename(tmp_path / "away")

    absent = open_store(Pendulum, tmp_path, runner, sqlite)

    assert absent.retrieve(PARAMS).result_file == record.result_file
    assert [one.id for one in absent.records()] == [record.id]
    assert absent.count() == 1
    (tmp_path / "away").rename(tmp_path / "results")
    assert absent.run_or_retrieve({**PARAMS, "swings": 4}).swings == 4


def test_adopted_folder_takes_new_runs_and_repeats_what_is_gone(sqlite, tmp_path, caplog):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)
    store.run_or_retrieve(PARAMS)
    shutil.rmtree(tmp_path / "results")

    store.adopt_root()
    record = store.run_or_retrieve(PARAMS)

    assert len(runner.seen) == 2
    assert Path(record.result_file).read_bytes() == expected_bytes(PARAMS)
    assert any("gone" in warning for warning in warnings_of(caplog))
    assert open_store(Pendulum, tmp_path, runner, sqlite).run_or_retrieve(PARAMS).id == record.id
    assert len(runner.seen) == 2


def test_second_table_on_one_results_folder_is_refused_with_both_names(sqlite, tmp_path):
    open_store(Pendulum, tmp_path, Runner(), sqlite)

    with pytest.raises(ResultsDirUnavailableError, match="pendulum") as caught:
        Store(Runner(), Spring, tmp_path / "results", db_url=sqlite)

    assert "spring" in str(caught.value)


def test_same_table_of_another_database_on_one_results_folder_is_refused(sqlite, tmp_path):
    open_store(Pendulum, tmp_path, Runner(), sqlite)

    with pytest.raises(ResultsDirUnavailableError, match="another database"):
        open_store(Pendulum, tmp_path, Runner(), "sqlite://")


def test_adopt_root_of_another_tables_folder_is_refused(sqlite, tmp_path):
    open_store(Pendulum, tmp_path, Runner(), sqlite)
    Store(Runner(), Spring, tmp_path / "springs", db_url=sqlite)
    store = Store(Runner(), Spring, tmp_path / "results", db_url=sqlite)

    with pytest.raises(ResultsDirUnavailableError, match="pendulum"):
        store.adopt_root()


def test_relative_paths_are_resolved_when_the_store_is_made(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, "entropic"):
        store = Store(Runner(), Spring)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")

    record = store.run_or_retrieve({"stiffness": 1.0})

    assert record.result_file == str(tmp_path / "results" / f"{record.id}.h5")
    assert Path(record.result_file).exists()
    assert (tmp_path / "db.sqlite3").exists()
    assert list((tmp_path / "other").iterdir()) == []
    said = [r.getMessage() for r in caplog.records if r.name == "entropic.sql.engines"]
    assert said == [f"making the database {tmp_path / 'db.sqlite3'}"]
    store.database.dispose()


def test_stores_in_memory_share_the_database_they_are_given(tmp_path):
    database = Database("sqlite://")
    pendulums = open_store(Pendulum, tmp_path, Runner(), database)
    springs = Store(Runner(), Spring, tmp_path / "springs", db_url=database)

    pendulums.run_or_retrieve(PARAMS)
    springs.run_or_retrieve({"stiffness": 1.0})

    assert open_store(Pendulum, tmp_path, Runner(), database).count() == 1
    assert (len(rows_of(database)), len(rows_of(database, "spring"))) == (1, 1)
    assert pendulums.database.engine is springs.database.engine
    database.dispose()


# A row that is not what was asked for


def test_row_edited_by_sql_raises_a_collision_with_both_values(database, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)
    store.run_or_retrieve(PARAMS)
    database.write(lambda connection: connection.execute(text("UPDATE pendulum SET length = 9.25")))

    for call in (
        store.run_or_retrieve,
        store.run,
        store.retrieve,
        store.delete,
        lambda one: store.sweep([one]),
    ):
        with pytest.raises(HashCollisionError, match="length") as caught:
            call(PARAMS)
        assert "1.5" in str(caught.value)
        assert "9.25" in str(caught.value)

    assert len(runner.seen) == 1
    assert len(rows_of(database)) == 1
    assert claims_of(database) == 0


def test_row_whose_value_its_column_would_refuse_is_a_collision(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.run_or_retrieve(PARAMS)
    sqlite.write(lambda connection: connection.execute(text("UPDATE pendulum SET swings = 'many'")))

    with pytest.raises(HashCollisionError, match="swings: asked for 3, stored 'many'"):
        store.run_or_retrieve(PARAMS)


def test_row_within_a_billionth_is_the_same_run(sqlite, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)
    store.run_or_retrieve(PARAMS)
    sqlite.write(lambda connection: connection.execute(text("UPDATE pendulum SET length = 1.5000000000001")))

    assert store.run_or_retrieve(PARAMS).length == 1.5000000000001
    assert len(runner.seen) == 1


def test_failed_attempts_leave_no_file_in_the_slots(sqlite, tmp_path):
    runner = Runner(raises=OSError("disk on fire"))
    store = open_store(Pendulum, tmp_path, runner, sqlite)
    for _ in range(3):
        with pytest.raises(OSError, match="disk on fire"):
            store.run_or_retrieve(PARAMS)

    assert staged_in(tmp_path) == []
    assert results_in(tmp_path) == []


# A verified look


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
    ],
    ids=["one flipped bit", "truncated", "empty"],
)
def test_verify_of_a_damaged_result_raises_and_changes_nothing(sqlite, tmp_path, damage):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    path = Path(store.run_or_retrieve(PARAMS).result_file)
    damage(path)
    left = path.read_bytes()

    with pytest.raises(CorruptFileError, match="is not what its run wrote"):
        store.retrieve(PARAMS, verify=True)

    assert path.read_bytes() == left
    assert len(rows_of(sqlite)) == 1
    assert store.retrieve(PARAMS) is not None


def test_verify_of_a_sound_result_returns_its_record(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    made = store.run_or_retrieve(PARAMS)

    record = store.retrieve(PARAMS, verify=True)

    assert (record.id, record.result_file) == (made.id, made.result_file)
    assert store.retrieve({**PARAMS, "swings": 4}, verify=True) is None


def test_verify_of_a_result_that_is_replaced_meanwhile_looks_at_the_new_one(database, tmp_path, monkeypatch):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)
    store.run_or_retrieve(PARAMS)
    require_intact, looks = RecordReader.require_intact, []

    def replaced_meanwhile(reader, found):
        looks.append(found)
        if len(looks) == 1:
            runner.note = b"again"
            store.run(PARAMS)
        require_intact(reader, found)

    monkeypatch.setattr(RecordReader, "require_intact", replaced_meanwhile)
    record = store.retrieve(PARAMS, verify=True)

    assert Path(record.result_file).read_bytes() == b"again" + expected_bytes(PARAMS)
    assert len(looks) == 2


def test_verify_of_a_result_whose_new_row_is_on_its_way_waits_for_it(sqlite, tmp_path, monkeypatch):
    """The file is moved first: until the row is committed it is not what the row says."""
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, sqlite)
    store.run_or_retrieve(PARAMS)
    runner.note = b"again"
    require_intact, move = RecordReader.require_intact, publishing.move
    is_moved, is_looked_at, looks = Event(), Event(), []

    def look(reader, found):
        looks.append(found)
        if len(looks) == 3:
            is_looked_at.set()
        require_intact(reader, found)

    def move_and_wait(*given):
        move(*given)
        is_moved.set()
        is_looked_at.wait(10)

    monkeypatch.setattr(RecordReader, "require_intact", look)
    monkeypatch.setattr(publishing, "move", move_and_wait)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(store.run, PARAMS)
        assert is_moved.wait(10)
        record = store.retrieve(PARAMS, verify=True)
        run.result()

    assert Path(record.result_file).read_bytes() == b"again" + expected_bytes(PARAMS)
    assert len(looks) > 3


def test_verify_of_a_damaged_part_of_a_folder_raises(sqlite, tmp_path):
    def runner(params):
        folder = Path(params["result_file"])
        folder.mkdir()
        (folder / "a").write_text("1")
        (folder / "b").write_text("2")

    store = open_store(Pendulum, tmp_path, runner, sqlite)
    folder = Path(store.run_or_retrieve(PARAMS).result_file)
    sound = store.retrieve(PARAMS, verify=True)
    (folder / "a").write_text("2")

    with pytest.raises(CorruptFileError):
        store.retrieve(PARAMS, verify=True)

    assert sound is not None


def test_verify_of_a_damaged_registered_file_raises(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    (tmp_path / "measured.dat").write_text("12")
    store.register(PARAMS, tmp_path / "measured.dat")
    (tmp_path / "measured.dat").write_text("13")

    with pytest.raises(
        CorruptFileError, match=r"yours to restore, or to register again with overwrite=True$"
    ):
        store.retrieve(PARAMS, verify=True)
    store.register(PARAMS, tmp_path / "measured.dat", overwrite=True)
    assert store.retrieve(PARAMS, verify=True) is not None


def test_verify_without_a_digest_says_how_to_get_one(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.run_or_retrieve(PARAMS)
    sqlite.write(lambda connection: connection.execute(text("DELETE FROM entropic_files")))

    with pytest.raises(ResultFileMissingError, match="no digest"):
        store.retrieve(PARAMS, verify=True)

    store.check(fix=True)
    assert store.retrieve(PARAMS, verify=True) is not None


def test_verify_where_the_folder_is_not_mounted_raises(sqlite, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    store.run_or_retrieve(PARAMS)
    shutil.rmtree(tmp_path / "results")

    with pytest.raises(
        ResultFileMissingError, match=r"is not there: .*\. Mount its folder, or bring it back$"
    ):
        store.retrieve(PARAMS, verify=True)
