"""After a kill at each step of a run: nothing half-written, nothing lost, nothing run again, no key blocked."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from entropic import AlreadyExistsError
from entropic.disk import roots, sidecars
from entropic.disk.sidecars import count_lines, process_folders, read_sidecar
from entropic.disk.staging import staging_for
from entropic.process.identity import this_process
from entropic.runs.recovery import leftovers, unfinished
from tests.support import gone
from tests.support import protocol_cases as cases
from tests.support.processes import outcomes_of, run_together
from tests.support.protocol_cases import FAIL_POINTS, FINISHED, OF_FILES, Other, Place, warned
from tests.support.scripts import run_text

POINTS = ("claimed", "slot taken", "in the runner", "file staged", *FINISHED)
A = {"a": 1.5}


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["file", "value"])
def place(tmp_path: Path, sqlite_url: str, request: pytest.FixtureRequest) -> Place:
    """Where results are files, and where they are values in their rows: both are kept, and lost, alike."""
    return Place(sqlite_url, tmp_path, request.param)


@pytest.fixture
def file_place(tmp_path: Path, sqlite_url: str) -> Place:
    return Place(sqlite_url, tmp_path)


@pytest.fixture
def value_place(tmp_path: Path, sqlite_url: str) -> Place:
    return Place(sqlite_url, tmp_path, in_row=True)


@pytest.fixture(
    params=[
        ("postgres_url", False),
        pytest.param(("postgres_url", True), marks=pytest.mark.slow),
        pytest.param(("mysql_url", False), marks=pytest.mark.slow),
        pytest.param(("mysql_url", True), marks=pytest.mark.slow),
    ],
    ids=["postgresql", "postgresql-value", "mysql", "mysql-value"],
)
def server_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    fixture, in_row = request.param
    return Place(request.getfixturevalue(fixture), tmp_path, in_row)


def require_point(place: Place, point: str) -> None:
    """Skip the points of a run to which only files come."""
    if place.in_row and point in OF_FILES:
        pytest.skip("a value in its row is no file")


def assert_complete(place: Place, runner: cases.VersionedRunner) -> None:
    """Each row has its whole file, read past the code under test."""
    for row in place.sql(f"SELECT * FROM {place.table}"):
        assert place.content(row) == runner.result(row.a)


def assert_killed(outcomes) -> None:
    assert [outcome.exitcode for outcome in outcomes] == [-9] * len(outcomes), outcomes


def assert_first_run_survives(place: Place, point: str) -> None:
    require_point(place, point)
    place.store()
    assert_killed(outcomes_of(cases.run_until, [(place, point, A)]))
    expected_rows = 1 if point in FINISHED else 0
    runs_before = 0 if point in {"claimed", "slot taken"} else 1

    store = place.store()

    assert store.count() == expected_rows
    assert_complete(place, place.runner())
    store.recover()
    assert not store.check(checksum=True), str(store.check(checksum=True))
    assert place.state_folders() == []
    record = store.run_or_retrieve(A)
    assert place.content(record) == place.runner().result(1.5)
    assert len(place.runner().calls) == runs_before + (point not in FINISHED)
    assert place.sql("SELECT * FROM entropic_claims") == []


@pytest.mark.parametrize("point", POINTS)
def test_run_that_is_killed_is_finished_or_run_again_never_both(place, point):
    assert_first_run_survives(place, point)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("in the runner", marks=pytest.mark.slow),
        "line written",
        pytest.param("claim deleted", marks=pytest.mark.slow),
        "file moved",
    ],
)
def test_run_that_is_killed_on_a_server_is_finished_or_run_again_never_both(server_place, point):
    assert_first_run_survives(server_place, point)


@pytest.mark.parametrize("point", ["line written", "all written"])
def test_run_of_a_value_that_is_killed_is_finished_or_run_again_never_both(value_place, point):
    assert_first_run_survives(value_place, point)


def assert_rerun_survives(place: Place, point: str) -> None:
    require_point(place, point)
    place.store().run_or_retrieve(A)
    assert_killed(outcomes_of(cases.run_until, [(place, point, A, "2", True)]))
    version = "2" if point in FINISHED else "1"

    store = place.store("2")

    assert store.count() == 1
    assert_complete(place, place.runner(version))
    store.recover()
    assert not store.check(checksum=True), str(store.check(checksum=True))
    calls = len(place.runner().calls)
    assert store.run_or_retrieve(A).custom_data["version"] == version
    assert len(place.runner().calls) == calls
    assert store.run(A).custom_data["version"] == "2"


@pytest.mark.parametrize("point", POINTS)
def test_rerun_that_is_killed_leaves_the_old_result_or_the_new_one(place, point):
    assert_rerun_survives(place, point)


def test_rerun_of_a_value_that_is_killed_leaves_the_old_result_or_the_new_one(value_place):
    assert_rerun_survives(value_place, "claim deleted")


@pytest.mark.parametrize("point", [pytest.param("in the runner", marks=pytest.mark.slow), "file moved"])
def test_rerun_that_is_killed_on_a_server_leaves_the_old_result_or_the_new_one(server_place, point):
    assert_rerun_survives(server_place, point)


@pytest.mark.parametrize("point", POINTS)
def test_store_that_is_open_already_gets_the_key_of_a_killed_process(place, point):
    require_point(place, point)
    store = place.store()
    assert_killed(outcomes_of(cases.run_until, [(place, point, A)]))
    calls = len(place.runner().calls)

    record = store.run_or_retrieve(A)

    assert place.content(record) == place.runner().result(1.5)
    assert len(place.runner().calls) == calls + (point not in FINISHED)
    assert place.sql("SELECT * FROM entropic_claims") == []


@pytest.mark.parametrize("point", ["claim deleted", "file moved", "all written", "committed"])
def test_recovery_that_is_killed_is_finished_by_the_next(place, point):
    require_point(place, point)
    place.store()
    assert_killed(outcomes_of(cases.run_until, [(place, "line written", A)]))
    assert_killed(outcomes_of(cases.open_until, [(place, point)]))

    store = place.store()

    assert store.count() == 1
    assert_complete(place, place.runner())
    store.recover()
    assert not store.check(checksum=True)
    assert len(place.runner().calls) == 1


@pytest.mark.parametrize(
    ("point", "nth"),
    [("slot taken", 4), ("file staged", 3), ("line written", 4), ("claim deleted", 1), ("file moved", 2)],
)
def test_sweep_that_is_killed_runs_only_what_had_not_finished(place, point, nth):
    require_point(place, point)
    grid = [{"a": float(n)} for n in range(6)]
    place.store()
    assert_killed(outcomes_of(cases.sweep_until, [(place, grid, point, nth)]))
    begun = place.runner().calls
    unfinished = 1 if point == "file staged" else 0

    store = place.store()
    result = store.sweep(grid, progress=False)

    assert [record.a for record in result] == [one["a"] for one in grid]
    assert len(place.runner().calls) == len(grid) + unfinished
    assert len(begun) > unfinished
    assert_complete(place, place.runner())
    assert not store.check(checksum=True)
    assert place.state_folders() == []


def test_folder_of_a_sweep_with_more_lines_than_were_committed_is_read_and_stays(place):
    store = place.store()
    table = store._table
    assert_killed(
        outcomes_of(cases.sweep_until, [(place, [{"a": float(n)} for n in range(6)], "line written", 4)])
    )
    (folder,) = [one for one in process_folders(table.root) if "-" in one.name]
    missing, lines = len(unfinished(table, read_sidecar(folder))), count_lines(folder)

    leftovers(table, folder.name.partition("-")[2], {folder.name: lines - missing})

    assert (missing > 0, folder.is_dir()) == (True, True)
    assert store.recover() == missing
    assert not store.check(checksum=True)


def test_folder_of_a_sweep_in_which_a_thread_goes_on_stays(place):
    table = place.store()._table
    own = staging_for(table.root, f"{this_process().owner}-sweep", {})
    slot = own.take()

    leftovers(table, "sweep", {})
    is_there = slot.is_dir()
    own.give_back(slot)
    leftovers(table, "sweep", {})

    assert (is_there, own.folder.exists()) == (True, False)


def attempts_of(place: Place) -> list[tuple]:
    rows = place.sql("SELECT record_id, state, params, host, pid FROM entropic_attempts ORDER BY started_at")
    return [(row.record_id, row.state, json.loads(row.params), row.host, row.pid) for row in rows]


@pytest.mark.parametrize("reopened", [False, True])
def test_attempt_of_a_killed_process_is_recorded_as_lost(place, reopened):
    store = place.store()
    assert_killed(outcomes_of(cases.run_until, [(place, "in the runner", A)]))
    (claim,) = place.sql("SELECT * FROM entropic_claims")

    (place.store() if reopened else store).run_or_retrieve(A)

    lost, completed = attempts_of(place)
    params = {} if reopened else {"a": 1.5, "b": 0}  # opening knows the claim only
    assert lost == (store.key(A), "LOST", params, claim.host, claim.pid)
    assert completed[1] == "COMPLETED"
    assert store.failures() == []


def test_sweep_that_takes_over_records_what_was_lost(place):
    store = place.store()
    assert_killed(outcomes_of(cases.run_until, [(place, "in the runner", A)]))

    store.sweep([A, {"a": 2.5}], progress=False)

    states = [state for key, state, *_ in attempts_of(place) if key == store.key(A)]
    assert states == ["LOST", "COMPLETED"]


@pytest.mark.parametrize("point", FINISHED)
def test_attempt_that_finished_is_not_lost_with_its_process(place, point):
    require_point(place, point)
    store = place.store()
    assert_killed(outcomes_of(cases.run_until, [(place, point, A)]))

    store.run_or_retrieve(A)

    assert [state for _, state, *_ in attempts_of(place)] == ["COMPLETED"]


def test_four_that_clear_up_at_once_record_a_lost_attempt_once(place):
    place.store()
    assert_killed(outcomes_of(cases.run_until, [(place, "in the runner", A)]))

    run_together(cases.open_and_count, [(place,)] * 4)

    assert [state for _, state, *_ in attempts_of(place)] == ["LOST"]
    assert place.sql("SELECT * FROM entropic_claims") == []


def test_key_whose_dead_owner_left_the_finished_run_of_another_key_is_not_blocked(place):
    store = place.store()
    held, other = store.key({"a": 2.0}), store.key(A)
    assert_killed(outcomes_of(cases.run_holding, [(place, held, A)]))

    store.run_or_retrieve({"a": 2.0})

    assert place.runner().calls == [other, held]
    assert place.rows().keys() == {other, held}


def test_rerun_that_waited_for_another_and_is_killed_replaces_the_row_that_it_found(place):
    store = place.store("2")
    begun = place.folder / "begun"
    slow, fast = outcomes_of(cases.slow_and_rerun, [(place, A, begun, "1"), (place, A, begun, "2")])

    store.recover()

    assert (slow.exitcode, fast.exitcode) == (0, -9)
    assert store.retrieve(A).custom_data["version"] == "2"
    assert_complete(place, place.runner("2"))


@pytest.mark.parametrize("is_forced", [False, True])
def test_killed_run_that_was_to_bring_back_a_lost_result_does(place, is_forced):
    store = place.store()
    record = store.run_or_retrieve(A)
    if place.in_row:
        damage = "'\"damaged\"'" if is_forced else "NULL"
        place.sql(f"UPDATE {place.table} SET result_value = {damage}")
    elif is_forced:
        Path(record.result_file).write_bytes(b"damaged")
    else:
        Path(record.result_file).unlink()
    assert_killed(outcomes_of(cases.run_until, [(place, "line written", A, "1", is_forced)]))

    recovered = store.recover()

    assert recovered == 1
    assert_complete(place, place.runner())
    assert not store.check(checksum=True)
    assert len(place.runner().calls) == 2


def test_killed_rerun_is_recovered_before_a_later_one_and_never_after_it(place):
    store = place.store("1")
    store.run(A)
    assert_killed(outcomes_of(cases.run_until, [(place, "line written", A, "2", True)]))
    for version in ("3", "1"):
        store.runner = place.runner(version)
        store.run(A)

    store.recover()

    assert store.retrieve(A).custom_data["version"] == "1"
    assert_complete(place, place.runner("1"))


def test_killed_run_that_a_later_one_replaced_is_not_taken_when_that_is_deleted(place):
    store = place.store("2")
    assert_killed(outcomes_of(cases.run_until, [(place, "line written", A, "1", True)]))
    store.run(A)
    store.delete(A, remove_file=True)

    record = store.run_or_retrieve(A)

    assert record.custom_data["version"] == "2"
    assert len(place.runner().calls) == 3


def test_register_never_replaces_what_a_killed_process_had_finished(place):
    store = place.store()
    mine = place.folder / "mine.txt"
    mine.write_text("made elsewhere")
    assert_killed(outcomes_of(cases.run_until, [(place, "line written", A)]))

    with pytest.raises(AlreadyExistsError):
        store.register(A, mine)

    assert_complete(place, place.runner())
    assert place.sql("SELECT * FROM entropic_claims") == []
    assert store.register(A, mine, overwrite=True).result_file == str(mine)


def test_deterministic_rerun_over_a_finished_line_leaves_nothing_behind(place):
    store = place.store()
    assert_killed(outcomes_of(cases.run_until, [(place, "line written", A)]))
    store.run(A)

    store.recover()

    assert not store.check(checksum=True), str(store.check(checksum=True))
    assert store.count() == 1
    assert place.state_folders() == [] or all(this_process().owner in p.name for p in place.state_folders())


def test_finished_rerun_with_equal_bytes_and_other_values_is_committed(place):
    place.store().run(A)
    script = (
        "import sys; from pathlib import Path; from tests.support import protocol_cases as cases\n"
        "place = cases.Place(sys.argv[1], Path(sys.argv[2]), bool(sys.argv[3])); cases.arm('line written')\n"
        "place.store().run({'a': 1.5}, note='again')"
    )
    killed = run_text(script, place.folder, place.url, place.folder, "1" if place.in_row else "")

    store = place.store()

    assert killed.returncode == -9
    assert store.retrieve(A).custom_data["note"] == "again"
    assert not store.check(checksum=True)
    assert place.state_folders() == [] or all(this_process().owner in p.name for p in place.state_folders())


def test_folder_that_is_cleared_away_is_known_to_the_last(place, monkeypatch):
    folder = killed_with_line(place)
    (folder / "another").write_text("x")
    real = sidecars.remove_at

    def remove_at(name, above, **options):
        if options:  # the other is the last step, before which it is killed
            real(name, above, **options)

    monkeypatch.setattr(sidecars, "remove_at", remove_at)

    sidecars.clear_away(folder)

    assert [path.name for path in folder.iterdir()] == [sidecars.PROCESS]


@pytest.mark.parametrize("remove_file", [False, True])
def test_deleted_row_is_not_brought_back_while_the_sidecar_has_its_line(place, remove_file):
    store = place.store()
    store.run_or_retrieve(A)
    (folder,) = place.state_folders()
    lines = sidecars.read_sidecar(folder).lines
    store.delete(A, remove_file)

    recovered = store.recover()

    assert [line["record_id"] for line in lines] == [store.key(A)]
    assert recovered == 0
    assert store.retrieve(A) is None
    assert place.store().count() == 0


@pytest.mark.parametrize("remove_file", [False, True])
def test_deleted_row_of_a_killed_process_is_not_brought_back(place, remove_file):
    place.store()
    assert_killed(outcomes_of(cases.run_until, [(place, "committed", A)]))
    with_line = place.state_folders()
    # Not by opening a Store, which would recover: the row is deleted while the dead process's line is there.
    (row,) = place.sql(f"SELECT id, result_file FROM {place.table}")
    place.sql(f"DELETE FROM {place.table}")
    place.sql("DELETE FROM entropic_files")
    if remove_file and not place.in_row:
        Path(row.result_file).unlink()

    store = place.store()

    assert len(with_line) == 1
    assert store.count() == 0
    assert place.state_folders() == []


def test_deleted_row_of_another_live_process_is_not_brought_back(place):
    store = place.store()
    script = (
        "import sys; from pathlib import Path; from tests.support.protocol_cases import Place\n"
        "store = Place(sys.argv[1], Path(sys.argv[2]), bool(sys.argv[3])).store(); store.run_or_retrieve({'a': 1.5})\n"
        "print('done', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, place.url, str(place.folder), "1" if place.in_row else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        child.stdout.readline()
        with_line = len(place.state_folders())
        deleted = store.delete(A)
        recovered = store.recover()
        again = place.store().count()
        child.communicate()

    assert (with_line, deleted, recovered, again) == (1, True, 0, 0)
    assert place.store().count() == 0


def test_two_openers_publish_a_finished_run_once(place):
    place.store()
    for a in (1.0, 2.0, 3.0):
        assert_killed(outcomes_of(cases.run_until, [(place, "line written", {"a": a})]))

    counts = run_together(cases.open_and_count, [(place,)] * 4)

    store = place.store()
    assert max(counts) <= 3
    assert store.count() == 3
    assert place.sql("SELECT count(*) FROM entropic_attempts")[0][0] == 3
    assert not store.check(checksum=True)
    assert len(place.runner().calls) == 3


def killed_with_line(place: Place) -> Path:
    """The folder of a process that was killed with one finished run in its sidecar."""
    place.store()
    assert_killed(outcomes_of(cases.run_until, [(place, "line written", A)]))
    (folder,) = place.state_folders()
    return folder


def rewrite(folder: Path, change) -> None:
    sidecar = folder / sidecars.SIDECAR
    lines = [json.loads(line) for line in sidecar.read_text().splitlines()]
    sidecar.write_text("".join(json.dumps(change(line)) + "\n" for line in lines))


@pytest.mark.parametrize("foreign", [{"database": "another"}, {"table": "another"}])
def test_lines_of_another_database_or_table_are_left_alone(place, foreign):
    folder = killed_with_line(place)
    rewrite(folder, lambda line: {**line, **foreign})
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))

    store = place.store()

    assert store.count() == 0
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before


def test_malformed_middle_line_is_kept_in_quarantine_and_reported(place, caplog):
    folder = killed_with_line(place)
    sidecar = folder / sidecars.SIDECAR
    sidecar.write_bytes(b"no json\n" + sidecar.read_bytes())

    with caplog.at_level(logging.WARNING), warned(caplog, "cannot be read"):
        store = place.store()

    quarantined = list((place.results / roots.STATE / roots.QUARANTINE).rglob(sidecars.SIDECAR))
    assert store.count() == 1
    assert not folder.exists()
    assert [path.read_bytes().splitlines()[0] for path in quarantined] == [b"no json"]


def test_torn_last_line_counts_for_nothing(place):
    folder = killed_with_line(place)
    sidecar = folder / sidecars.SIDECAR
    sidecar.write_bytes(sidecar.read_bytes() + sidecar.read_bytes()[:40])

    store = place.store()

    assert store.count() == 1
    assert not (place.results / roots.STATE / roots.QUARANTINE).exists()
    assert not store.check(checksum=True)


@pytest.mark.parametrize(
    "change",
    [
        {"stored": {}},
        {"stored": {"a": "no number"}},
        {"stored": None},
        {"returned": None},
        {"started_at": "yesterday"},
        {"sha256": None},
        {"where": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_line_that_cannot_be_made_a_row_neither_stops_the_store_nor_is_deleted(place, change):
    folder = killed_with_line(place)
    rewrite(folder, lambda line: {**line, **change})

    store = place.store()

    assert store.count() == 0
    kept = [path.read_bytes() for path in (place.results / roots.STATE).rglob("*.*")]
    assert (
        any(json.dumps(place.runner().result(1.5).decode()).encode() in text for text in kept) is place.in_row
    )
    assert (place.runner().result(1.5) in kept) is not place.in_row
    assert store.run_or_retrieve(A).a == 1.5


@pytest.mark.parametrize(
    "change",
    [
        {"value": '"another"'},
        {"value": None},
        {"name": "0123456789abcdef.txt"},
        {"value": 1.5},
        {"size_bytes": 1},
        {"value": '"\u00e9"', "size_bytes": 4},
    ],
    ids=str,
)
def test_line_whose_value_was_damaged_is_not_published(value_place, change):
    place = value_place
    folder = killed_with_line(place)
    rewrite(folder, lambda line: {**line, **change})

    store = place.store()

    assert store.count() == 0
    assert place.content(store.run_or_retrieve(A)) == place.runner().result(1.5)
    assert len(place.runner().calls) == 2


def test_line_whose_file_was_damaged_is_not_published(file_place):
    place = file_place
    folder = killed_with_line(place)
    (staged,) = folder.rglob("*.txt")
    staged.write_bytes(b"damaged")

    store = place.store()
    record = store.run_or_retrieve(A)

    assert place.content(record) == place.runner().result(1.5)
    assert len(place.runner().calls) == 2


def test_finished_run_of_a_dead_process_is_dropped_if_the_row_has_a_later_result(place):
    folder = killed_with_line(place)
    aside = folder.rename(place.folder / "aside")  # so that nothing settles its line before the later run
    store = place.store("2")
    store.run(A)
    aside.rename(folder)

    reopened = place.store("2")

    assert reopened.retrieve(A).custom_data["version"] == "2"
    assert_complete(place, place.runner("2"))
    assert not folder.exists()
    assert not reopened.check(checksum=True)


def test_other_table_in_its_own_folder_is_recovered_by_its_own_store(place):
    folder = killed_with_line(place)

    other = cases.Store(place.runner(), Other, place.folder / "others", db_url=place.url)

    assert other.count() == 0
    assert folder.exists()
    assert place.store().count() == 1


def test_own_folder_is_removed_when_a_process_ends_normally(place):
    script = (
        "import sys; from pathlib import Path; from tests.support.protocol_cases import Place\n"
        "def main():\n"
        "    store = Place(sys.argv[1], Path(sys.argv[2]), bool(sys.argv[3])).store()\n"
        "    store.run_or_retrieve({'a': 1.5})\n"
        "    assert len(Place(sys.argv[1], Path(sys.argv[2])).state_folders()) == 1\n"
        "main()"
    )
    run_text(script, place.folder, place.url, place.folder, "1" if place.in_row else "").check_returncode()

    assert place.state_folders() == []
    assert place.rows().keys() == {place.store().key(A)}


def test_fail_points_are_in_the_order_of_a_run():
    assert [point for point in FAIL_POINTS if point in FINISHED] == list(FINISHED)


def test_keys_that_are_freed_of_a_process_that_is_gone_are_logged(place, caplog):
    store, gone_process = place.store(), gone.dead()
    keys = sorted(store.key({"a": float(n)}) for n in range(3))
    for key in keys:
        gone.claim(place, key, gone_process, left_s=100)

    with caplog.at_level(logging.INFO, logger="entropic"):
        assert store.recover() == 0
        assert store.recover() == 0

    assert place.sql("SELECT * FROM entropic_claims") == []
    (said,) = [one for one in caplog.records if one.getMessage().startswith("freed ")]
    assert said.levelno == logging.INFO
    assert said.getMessage().startswith(f"freed {keys[0]}, which process {gone.NO_PID} on ")
    assert said.getMessage().endswith("had begun and not finished, and 2 more")
