"""From staged to committed: fenced, all or nothing, repeatable, and durable before a sidecar forgets."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from entropic import ClaimLostError, ClaimTimeoutError, ResultsDirUnavailableError, Store
from entropic.disk import files, roots
from entropic.disk.files import digest_of
from entropic.runs import publishing
from tests.support import protocol_cases as cases
from tests.support.counting import statements
from tests.support.executors import executor_of
from tests.support.lost_commits import lose_commit
from tests.support.processes import run_together
from tests.support.protocol_cases import Place, Sim
from tests.support.users import ALICE, GROUP, give, place_for_all

A = {"a": 1.5}
NO_ROW_TO_BLAME = (
    "CREATE TRIGGER refuse BEFORE INSERT ON protocol_sims BEGIN INSERT INTO refused VALUES (1); END"
)
EXPIRE = "UPDATE entropic_claims SET expires_at = 0, owner = 'frozen', boot = 'another host'"


@pytest.fixture(params=("sqlite_url", "postgres_url", "mysql_url"))
def any_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.getfixturevalue(request.param), tmp_path)


def late(place: Place, meanwhile) -> Store[Sim]:
    """A Store whose process is silent past its lease in the runner, while *meanwhile* happens."""
    version = place.runner("late")

    def runner(params):
        place.sql(EXPIRE)
        meanwhile()
        return version(params)

    return Store(runner, Sim, place.results, ".txt", place.url)


def contents(place: Place) -> list[str]:
    return sorted(path.read_text() for path in place.results.glob("*.txt"))


def states(place: Place) -> list[str]:
    return sorted(row.state for row in place.sql("SELECT state FROM entropic_attempts"))


def test_late_owner_publishes_nothing_and_is_told_who_won(any_place):
    store = late(any_place, lambda: run_together(cases.take, [(any_place, A)]))

    with pytest.raises(ClaimLostError, match="silent for longer than its lease") as caught:
        store.run_or_retrieve(A)

    assert caught.value.record.custom_data["version"] == "1"
    assert contents(any_place) == ["version 1 of 1.5"]
    assert store.run_or_retrieve(A).custom_data["version"] == "1"
    assert states(any_place) == ["COMPLETED", "LOST"]
    assert any_place.sql("SELECT * FROM entropic_claims") == []


def test_late_result_is_kept_in_quarantine(place):
    store = late(place, lambda: run_together(cases.take, [(place, A)]))

    with pytest.raises(ClaimLostError):
        store.run_or_retrieve(A)

    kept = [p.read_text() for p in (place.results / roots.STATE / roots.QUARANTINE).rglob("*.txt")]
    assert kept == ["version late of 1.5"]
    assert store.recover() == 0
    assert not store.check(checksum=True)


def test_late_owner_whose_result_is_gone_meanwhile_is_told_who_won(place, monkeypatch):
    lose = publishing.Publisher._lose

    def gone_first(publisher, receipt):
        receipt.path(place.results).unlink()  # as who cleared away the folder of a process that was silent
        return lose(publisher, receipt)

    monkeypatch.setattr(publishing.Publisher, "_lose", gone_first)
    store = late(place, lambda: run_together(cases.take, [(place, A)]))

    with pytest.raises(ClaimLostError) as caught:
        store.run_or_retrieve(A)

    assert caught.value.record.custom_data["version"] == "1"
    assert contents(place) == ["version 1 of 1.5"]


def test_late_owner_whose_rival_has_not_finished_publishes_nothing(any_place):
    store = late(any_place, lambda: run_together(cases.acquire_watched, [(any_place.url, [store.key(A)])]))

    with pytest.raises(ClaimLostError) as caught:
        store.run_or_retrieve(A)

    assert caught.value.record is None
    assert contents(any_place) == []
    assert store.count() == 0


def test_late_rerun_does_not_touch_the_file_of_the_winner(any_place):
    any_place.store().run(A)
    store = late(any_place, lambda: run_together(cases.rerun, [(any_place, A, "2")]))

    with pytest.raises(ClaimLostError):
        store.run(A)

    store.recover()
    assert contents(any_place) == ["version 2 of 1.5"]
    assert not store.check(checksum=True)


def test_late_register_writes_nothing_and_says_so(any_place, monkeypatch):
    (any_place.folder / "made.txt").write_text("made elsewhere")
    store = any_place.store()

    def frozen(path):
        any_place.sql(EXPIRE)
        run_together(cases.take, [(any_place, A)])
        return digest_of(path)

    monkeypatch.setattr(publishing, "digest_of", frozen)
    with pytest.raises(ClaimLostError, match="Nothing was registered"):
        store.register(A, any_place.folder / "made.txt")

    assert contents(any_place) == ["version 1 of 1.5"]
    assert Path(store.retrieve(A).result_file).name == f"{store.key(A)}.txt"
    store.recover()
    assert not store.check(checksum=True)


def test_register_that_fails_gives_the_key_back(place, monkeypatch):
    (place.folder / "made.txt").write_text("made elsewhere")
    store = place.store()

    def unreadable(path):
        raise OSError("cannot be read")

    monkeypatch.setattr(publishing, "digest_of", unreadable)
    with pytest.raises(OSError, match="cannot be read"):
        store.register(A, place.folder / "made.txt")

    assert place.sql("SELECT * FROM entropic_claims") == []


def test_register_while_the_results_folder_is_gone_registers_nothing(place):
    """A run that was finished under its key could not be taken in first."""
    (place.folder / "made.txt").write_text("made elsewhere")
    store = place.store()
    place.results.rename(place.folder / "away")

    with pytest.raises(ResultsDirUnavailableError):
        store.register(A, place.folder / "made.txt")

    assert place.rows() == {}
    assert not place.results.exists()


def test_late_equal_result_is_reported_as_nothing(place):
    def same(params):
        place.sql(EXPIRE)
        run_together(cases.take, [(place, A)])
        return place.runner()(params)

    store = Store(same, Sim, place.results, ".txt", place.url)
    with pytest.raises(ClaimLostError):
        store.run_or_retrieve(A)

    assert store.recover() == 0
    assert not store.check(checksum=True)


def test_key_that_is_held_for_too_long_times_out_and_names_the_holder(place):
    store = place.store(wait_timeout_s=0.1)
    cases.acquire(place.url, [store.key(A)])

    with pytest.raises(ClaimTimeoutError, match=f"process {os.getpid()} on"):
        store.run_or_retrieve(A)

    assert place.runner().calls == []


def test_claim_is_deleted_before_anything_is_written(place):
    store = place.store()
    with statements(store.database.engine) as seen:
        store.run_or_retrieve(A)

    words = [
        (sql.split()[0], table)
        for sql in seen
        for table in cases.TABLES
        if f" {table}" in sql.split("WHERE")[0]
    ]
    begin = max(
        n for n, (word, _) in enumerate(words) if word == "DELETE" and words[n][1] == "entropic_claims"
    )
    writes = [one for one in words[begin:] if one[0] in {"INSERT", "UPDATE", "DELETE"}]
    assert writes[0] == ("DELETE", "entropic_claims")
    assert {table for word, table in writes if word == "INSERT"} == {
        "protocol_sims",
        "entropic_files",
        "entropic_attempts",
    }


def test_commit_that_fails_loses_nothing_and_the_next_call_does_not_run_again(place):
    store = place.store()
    place.sql(NO_ROW_TO_BLAME)
    with pytest.raises(DBAPIError, match="refused"):
        store.run_or_retrieve(A)
    rows = place.rows()
    place.sql("DROP TRIGGER refuse")

    record = store.run_or_retrieve(A)

    assert rows == {}
    assert Path(record.result_file).read_text() == "version 1 of 1.5"
    assert len(place.runner().calls) == 1
    assert not store.check(checksum=True)


def test_commit_that_fails_is_made_by_the_next_process(place):
    store = place.store()
    place.sql(NO_ROW_TO_BLAME)
    with pytest.raises(DBAPIError, match="refused"):
        store.run_or_retrieve(A)
    place.sql("DROP TRIGGER refuse")

    (answer,) = run_together(cases.call, [(place, A)])

    assert answer == "version 1 of 1.5"
    assert len(place.runner().calls) == 1


def test_rerun_whose_row_is_refused_leaves_the_good_file(place):
    place.store().run_or_retrieve(A)
    place.sql(
        "CREATE TRIGGER refuse BEFORE UPDATE ON protocol_sims BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )
    with pytest.raises(DBAPIError, match="refused"):
        place.store("2").run(A)

    assert contents(place) == ["version 1 of 1.5"]


def linked(place: Place) -> Path:
    """Run A, and move its result elsewhere, with a link in its place."""
    path = Path(place.store().run_or_retrieve(A).result_file)
    path.rename(place.folder / "on another disk.txt")
    path.symlink_to(place.folder / "on another disk.txt")
    return path


def test_link_whose_rerun_is_refused_on_commit_is_a_link_again(place):
    path = linked(place)

    def refused(params):
        dialect: Any = store.database.engine.dialect
        real = dialect.do_commit

        def do_commit(connection):
            dialect.do_commit = real
            raise dialect.loaded_dbapi.IntegrityError("too late")

        dialect.do_commit = do_commit
        return place.runner("2")(params)

    store = Store(refused, Sim, place.results, ".txt", place.url)
    with pytest.raises(IntegrityError, match="too late"):
        store.run(A)

    assert path.is_symlink()
    assert path.read_text() == "version 1 of 1.5"
    assert place.sql("SELECT * FROM entropic_claims") == []


def test_link_that_cannot_be_kept_is_replaced_all_the_same(place, monkeypatch):
    path = linked(place)

    def link(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    place.store("2").run(A)

    assert contents(place) == ["version 2 of 1.5"]
    assert not path.is_symlink()
    assert (place.folder / "on another disk.txt").read_text() == "version 1 of 1.5"


def test_rerun_replaces_row_file_and_file_record(place):
    place.store().run_or_retrieve(A)
    store = place.store("2")

    record = store.run(A)

    (file,) = place.sql("SELECT * FROM entropic_files")
    assert contents(place) == ["version 2 of 1.5"]
    assert (file.size_bytes, file.sha256) == files.digest_of(Path(record.result_file))
    assert place.sql("SELECT count(*) FROM entropic_attempts")[0][0] == 2


def test_rerun_under_another_name_removes_its_own_former_file_only(place):
    store = place.store()
    for a in (1.5, 2.5, 3.5):
        store.run({"a": a})

    place.store("2", file_suffix=".dat").run({"a": 2.5})

    assert contents(place) == ["version 1 of 1.5", "version 1 of 3.5"]
    assert [path.read_text() for path in place.results.glob("*.dat")] == ["version 2 of 2.5"]
    assert not store.check(checksum=True)


def test_rerun_that_fails_leaves_the_good_result(place):
    place.store().run_or_retrieve(A)

    def failing(params):
        Path(params["result_file"]).write_text("half")
        raise ValueError("no")

    store = Store(failing, Sim, place.results, ".txt", place.url)
    with pytest.raises(ValueError, match="no"):
        store.run(A)

    assert Path(store.retrieve(A).result_file).read_text() == "version 1 of 1.5"
    assert [failure.error_type for failure in store.failures()] == ["ValueError"]
    assert not store.check(checksum=True)


def write_folder(version):
    def runner(params):
        folder = Path(params["result_file"])
        folder.mkdir()
        (folder / "part").write_text(version)

    return runner


def test_folder_is_published_whole_and_its_successor_under_another_name(place):
    first = Store(write_folder("1"), Sim, place.results, "", place.url).run_or_retrieve(A)
    store = Store(write_folder("2"), Sim, place.results, "", place.url)

    second = store.run(A)

    assert (Path(second.result_file) / "part").read_text() == "2"
    assert Path(second.result_file).name.startswith(store.key(A))
    assert second.result_file != first.result_file
    assert not Path(first.result_file).exists()
    assert not store.check(checksum=True)


def write_read_only(params: dict[str, Any]) -> None:
    """Copy a folder that is kept from changes, modes and all, in whole or in part."""
    folder = Path(params["result_file"])
    inner = folder if params["a"] < 2 else folder / "inner"
    inner.mkdir(parents=True)
    (inner / "part").write_text("x")
    for path in (inner / "part", inner):
        path.chmod(0o555 if path.is_dir() else 0o444)


def run_read_only(folder: Path) -> dict[str, Any]:
    store = Store(write_read_only, Sim, folder / "results", "", f"sqlite:///{folder / 'runs.sqlite3'}")
    store.run_or_retrieve({"a": 1.0})
    store.sweep([{"a": 1.5}, {"a": 2.0}, {"a": 3.0}], progress=False)
    store.run({"a": 1.0})
    store.run({"a": 2.0})
    store.delete({"a": 3.0}, remove_file=True)
    found = {"kept": sorted(one.a for one in store.records()), "problems": str(store.check(checksum=True))}
    store.close()
    return found


def test_folder_that_may_not_be_written_is_published_replaced_and_removed():
    with place_for_all() as folder:  # root may do anything
        give(folder, ALICE.uid, GROUP, 0o755)

        found = ALICE.does(run_read_only, folder)

        there = [path for path in (folder / "results").iterdir() if not path.name.startswith(".")]
        modes = {path.stat().st_mode & 0o777 for one in there for path in one.rglob("part")}
    assert found == {"kept": [1.0, 1.5, 2.0], "problems": "no findings"}
    assert len(there) == 3
    assert modes == {0o444}


def test_file_that_succeeds_a_folder_takes_its_place(place):
    Store(write_folder("1"), Sim, place.results, "", place.url).run_or_retrieve(A)
    store = place.store("2")

    record = store.run(A)

    assert Path(record.result_file).read_text() == "version 2 of 1.5"
    assert [p.name for p in place.results.iterdir() if not p.name.startswith(".")] == [
        Path(record.result_file).name
    ]


def test_reader_never_sees_a_missing_or_half_written_file_during_reruns(place):
    store = place.store()
    store.run_or_retrieve(A)
    seen, stop = set(), threading.Event()

    def read():
        reader = place.store()
        while not stop.is_set():
            seen.add(Path(reader.run_or_retrieve(A).result_file).read_text())

    thread = threading.Thread(target=read)
    thread.start()
    for version in range(2, 12):
        place.store(str(version)).run(A)
    stop.set()
    thread.join()

    assert seen <= {f"version {version} of 1.5" for version in range(1, 12)}
    assert len(place.runner().calls) == 11


# A server that goes while COMMIT is on its way


@pytest.fixture(params=["postgres_url", pytest.param("mysql_url", marks=pytest.mark.slow)])
def server_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.getfixturevalue(request.param), tmp_path)


def armed(place: Place, runner: Any, *, arrives: bool, suffix: str = ".txt") -> Store[Sim]:
    """A Store the answer to whose first commit after a run is lost."""
    calls = []

    def arming(params):
        if not calls:
            lose_commit(store.database, arrives=arrives)
        calls.append(params)
        return runner(params)

    store = Store(arming, Sim, place.results, suffix, place.url)
    return store


@pytest.mark.parametrize("arrives", [True, False])
def test_commit_whose_answer_is_lost_is_made_once(server_place, arrives):
    store = armed(server_place, server_place.runner(), arrives=arrives)

    record = store.run_or_retrieve(A)

    assert Path(record.result_file).read_text() == "version 1 of 1.5"
    assert states(server_place) == ["COMPLETED"]
    assert server_place.sql("SELECT * FROM entropic_claims") == []
    assert len(server_place.runner().calls) == 1
    assert not store.check(checksum=True)
    store.database.dispose()


@pytest.mark.parametrize("arrives", [True, False])
def test_commits_of_a_sweep_whose_answer_is_lost_are_made_once(server_place, arrives):
    store = armed(server_place, server_place.runner(), arrives=arrives)

    with executor_of("threads") as executor:
        result = store.sweep([{"a": float(n)} for n in range(20)], executor=executor, progress=False)

    assert [record.a for record in result] == [float(n) for n in range(20)]
    assert states(server_place) == ["COMPLETED"] * 20
    assert server_place.sql("SELECT * FROM entropic_claims") == []
    assert not store.check(checksum=True)
    store.database.dispose()


@pytest.mark.parametrize("arrives", [True, False])
def test_rerun_whose_answer_is_lost_leaves_nothing_of_the_folder_it_replaces(server_place, arrives):
    Store(write_folder("1"), Sim, server_place.results, "", server_place.url).run_or_retrieve(A)
    store = armed(server_place, write_folder("2"), arrives=arrives, suffix="")

    record = store.run(A)

    assert (Path(record.result_file) / "part").read_text() == "2"
    assert [p.name for p in server_place.results.iterdir() if not p.name.startswith(".")] == [
        Path(record.result_file).name
    ]
    assert not store.check(checksum=True)
    store.database.dispose()


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize(("error", "state"), [(ValueError, "FAILED"), (KeyboardInterrupt, "CANCELLED")])
def test_run_that_ends_early_is_recorded_once_if_the_answer_is_lost(server_place, arrives, error, state):
    def failing(params):
        raise error("no")

    store = armed(server_place, failing, arrives=arrives)

    with pytest.raises(error, match="no"):
        store.run_or_retrieve(A)

    assert states(server_place) == [state]
    assert server_place.sql("SELECT * FROM entropic_claims") == []
    store.database.dispose()


@pytest.mark.parametrize("arrives", [True, False])
def test_delete_whose_answer_is_lost_tells_that_there_was_a_row(server_place, arrives):
    store = server_place.store()
    store.run_or_retrieve(A)
    lose_commit(store.database, arrives=arrives)

    deleted = store.delete(A)

    assert deleted
    assert server_place.rows() == {}
    store.database.dispose()


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("write", ["annotate", "patch_registered"])
def test_notes_whose_writing_gets_no_answer_are_written(any_place, arrives, write):
    store = any_place.store()
    record = store.run_or_retrieve(A)
    lose_commit(store.database, arrives=arrives)

    getattr(store._table.publisher, write)(record.id, {"note": "seen"})

    assert store.retrieve(A).custom_data["note"] == "seen"
    store.database.dispose()


@pytest.mark.parametrize("arrives", [True, False])
def test_file_whose_registration_gets_no_answer_is_registered(server_place, tmp_path, arrives):
    path = tmp_path / "made elsewhere"
    path.write_text("made elsewhere")
    store = server_place.store()
    store.run_or_retrieve(A)
    token = store._table.claims.acquire([store.key(A)])[store.key(A)].token
    lose_commit(store.database, arrives=arrives)

    store._table.publisher.register(store._table.parameters.identify(A), path, str(path), {}, token)

    assert Path(store.retrieve(A).result_file).read_text() == "made elsewhere"
    store.database.dispose()
