"""check(): names each thing that is not as it should be, and mends what it says and no more."""

import os
import time
from pathlib import Path

import pytest

from entropic import Database, ResultsDirUnavailableError, files, sidecars
from entropic.provenance import this_process
from tests import protocol_cases as cases
from tests.processes import outcomes_of
from tests.protocol_cases import Place, claims_on

A, B = {"a": 1.5}, {"a": 2.5}


@pytest.fixture
def place(tmp_path: Path, sqlite_url: str) -> Place:
    return Place(sqlite_url, tmp_path)


@pytest.fixture
def store(place):
    """A Store with two results."""
    made = place.store()
    made.run_or_retrieve(A)
    made.run_or_retrieve(B)
    return made


def kinds(report) -> list[str]:
    return sorted(finding.kind for finding in report)


def snapshot(place: Place) -> tuple:
    """All that a check may not change: rows, file records, and every file with its bytes."""
    here = this_process().owner
    on_disk = {
        str(path.relative_to(place.results)): path.read_bytes()
        for path in place.results.rglob("*")
        if path.is_file() and here not in str(path)
    }
    rows = place.sql("SELECT * FROM protocol_sims ORDER BY id")
    return rows, place.sql("SELECT * FROM entropic_files ORDER BY record_id"), on_disk


def file_of(store, params) -> Path:
    return Path(store.retrieve(params).result_file)


def quarantined(place: Place) -> dict[str, bytes]:
    folder = place.results / files.STATE / files.QUARANTINE
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_clean_store_has_an_empty_falsy_report(store):
    report = store.check(checksum=True)

    assert not report
    assert len(report) == 0
    assert list(report) == []


def test_report_is_a_table_of_all_findings(place, store):
    path = file_of(store, A)
    path.unlink()
    (place.results / "mine.txt").touch()

    lines = str(store.check()).splitlines()

    assert [line.split()[0] for line in lines] == ["missing-file", "stray-file"]
    assert str(path) in lines[0]


@pytest.mark.parametrize(
    ("damage", "needs_checksum"),
    [
        (lambda data: data[:-1], False),
        (lambda data: data + b"x", False),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], True),
    ],
    ids=["truncated", "longer", "flipped"],
)
def test_damaged_file_is_named_and_nothing_changes_without_fix(place, store, damage, needs_checksum):
    path = file_of(store, A)
    path.write_bytes(damage(path.read_bytes()))
    before = snapshot(place)

    by_size, by_digest = store.check(), store.check(checksum=True)

    assert kinds(by_size) == ([] if needs_checksum else ["corrupt-file"])
    (finding,) = by_digest
    assert (finding.kind, finding.id, finding.path, finding.is_fixed) == (
        "corrupt-file",
        store.key(A),
        str(path),
        False,
    )
    assert snapshot(place) == before


def test_fix_of_a_damaged_file_keeps_it_in_quarantine_and_the_next_call_runs(place, store):
    path = file_of(store, A)
    path.write_bytes(b"damaged")

    report = store.check(checksum=True, fix=True)

    assert [(finding.kind, finding.is_fixed) for finding in report] == [("corrupt-file", True)]
    assert quarantined(place) == {path.name: b"damaged"}
    assert place.rows().keys() == {store.key(B)}
    assert not store.check(checksum=True)
    assert store.run_or_retrieve(A).a == 1.5
    assert place.runner().calls.count(store.key(A)) == 2


def test_fix_of_a_missing_file_deletes_its_row_only(place, store):
    file_of(store, A).unlink()
    found = store.check()
    kept = place.rows()

    fixed = store.check(fix=True)

    assert [(finding.kind, finding.is_fixed) for finding in found] == [("missing-file", False)]
    assert len(kept) == 2
    assert [(finding.kind, finding.id, finding.is_fixed) for finding in fixed] == [
        ("missing-file", store.key(A), True)
    ]
    assert place.rows().keys() == {store.key(B)}
    assert not store.check(checksum=True)


def test_row_that_was_deleted_leaves_a_stray_record_and_a_stray_file(place, store):
    path = file_of(store, A)
    place.sql("DELETE FROM protocol_sims WHERE id = :id", id=store.key(A))
    found = store.check()

    fixed = store.check(fix=True)

    assert kinds(found) == ["stray-file", "stray-record"]
    assert {(finding.kind, finding.is_fixed) for finding in fixed} == {
        ("stray-file", False),
        ("stray-record", True),
    }
    assert kinds(store.check()) == ["stray-file"]
    assert path.exists()
    assert [row.record_id for row in place.sql("SELECT record_id FROM entropic_files")] == [store.key(B)]


def test_stray_files_with_our_suffix_are_reported_and_never_touched(place, store):
    (place.results / "mine.txt").write_text("precious")
    (place.results / "notes.md").write_text("precious")
    (place.results / "folder").mkdir()

    fixed = store.check(checksum=True, fix=True)

    assert [(finding.kind, Path(finding.path).name, finding.is_fixed) for finding in fixed] == [
        ("stray-file", "mine.txt", False)
    ]
    assert (place.results / "mine.txt").read_text() == "precious"
    assert (place.results / "notes.md").read_text() == "precious"
    assert (place.results / "folder").is_dir()


def test_missing_file_record_is_completed(place, store):
    place.sql("DELETE FROM entropic_files WHERE record_id = :id", id=store.key(A))
    found = store.check(checksum=True)

    fixed = store.check(fix=True)

    assert kinds(found) == ["unrecorded-file"]
    assert [finding.is_fixed for finding in fixed] == [True]
    assert not store.check(checksum=True)
    (row,) = place.sql("SELECT * FROM entropic_files WHERE record_id = :id", id=store.key(A))
    assert (row.name, row.sha256) == (file_of(store, A).name, files.digest_of(file_of(store, A))[1])


def test_finished_run_that_was_not_committed_is_named_and_fix_commits_it(place, store):
    outcomes_of(cases.run_until, [(place, "line written", {"a": 3.5})])
    found = store.check()

    store.check(fix=True)

    assert "unfinished" in kinds(found)
    assert {finding.id for finding in found if finding.kind == "unfinished"} == {store.key({"a": 3.5})}
    assert store.count() == 3
    assert not store.check(checksum=True)
    assert len(place.runner().calls) == 3


def test_rerun_killed_between_move_and_commit_is_committed_rather_than_quarantined(place, store):
    outcomes_of(cases.run_until, [(place, "file moved", A, "2", True)])

    store.check(checksum=True, fix=True)

    assert quarantined(place) == {}
    assert store.retrieve(A).custom_data["version"] == "2"
    assert not store.check(checksum=True)


def test_attempt_folder_and_claim_of_a_dead_owner_are_named_and_reaped(place, store):
    outcomes_of(cases.run_until, [(place, "in the runner", {"a": 3.5})])
    found = store.check()

    store.check(fix=True)

    assert kinds(found) == ["abandoned", "abandoned"]
    assert {finding.id for finding in found} == {None, store.key({"a": 3.5})}
    assert not store.check()
    assert [this_process().owner in folder.name for folder in place.state_folders()] == [True]
    assert place.sql("SELECT * FROM entropic_claims") == []


def test_claim_and_folder_of_a_live_owner_are_left_alone(place, store):
    claims_on(store.database).acquire(["busy"])
    claims_on(store.database, lease_s=-1.0).acquire(["slow"])

    report = store.check(fix=True)

    assert not report
    assert {row.record_id for row in place.sql("SELECT record_id FROM entropic_claims")} == {"busy", "slow"}
    assert len(place.state_folders()) == 1


def make_foreign(place: Place, folder: Path, age_s: float) -> None:
    """Make *folder* that of a process on another host, silent for *age_s*."""
    process = (folder / sidecars.PROCESS).read_text().replace(this_process().boot.split()[0], "another-boot")
    (folder / sidecars.PROCESS).write_text(process)
    then = time.time() - age_s
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))


def test_folder_of_another_host_is_abandoned_only_after_a_lease(place, store):
    outcomes_of(cases.run_until, [(place, "in the runner", {"a": 3.5})])
    (folder,) = [p for p in place.state_folders() if this_process().owner not in p.name]
    place.sql("DELETE FROM entropic_claims")
    make_foreign(place, folder, age_s=1800)
    within = store.check(fix=True)
    was_kept = folder.exists()
    make_foreign(place, folder, age_s=7200)

    after = store.check()
    store.check(fix=True)

    assert not within
    assert was_kept
    assert kinds(after) == ["abandoned"]
    assert not folder.exists()


def test_malformed_sidecar_is_named_and_moved_to_quarantine(place, store):
    outcomes_of(cases.run_until, [(place, "committed", {"a": 3.5})])
    (folder,) = [p for p in place.state_folders() if this_process().owner not in p.name]
    (folder / sidecars.SIDECAR).write_bytes(b"no json\n" + (folder / sidecars.SIDECAR).read_bytes())
    found = store.check()

    store.check(fix=True)

    assert kinds(found) == ["malformed-sidecar"]
    assert str(folder) in {finding.path for finding in found}
    assert quarantined(place)[sidecars.SIDECAR].startswith(b"no json\n")
    assert not store.check(checksum=True)


@pytest.mark.parametrize(("damage", "inside"), [("gone", False), ("changed", False), ("changed", True)])
def test_registered_file_is_only_reported(place, store, tmp_path, damage, inside):
    path = (place.results if inside else tmp_path) / "registered.txt"
    path.write_text("made elsewhere")
    store.register({"a": 9.5}, path)
    if damage == "gone":
        path.unlink()
    else:
        path.write_text("changed")
    before = snapshot(place)

    report = store.check(checksum=True, fix=True)

    assert [(finding.kind, finding.is_fixed) for finding in report] == [
        ("missing-file" if damage == "gone" else "corrupt-file", False)
    ]
    assert snapshot(place) == before


def test_unmounted_root_is_said_and_fix_raises_and_deletes_nothing(place, store):
    place.results.rename(place.folder / "elsewhere")
    place.results.mkdir()

    report = store.check(checksum=True)
    with pytest.raises(ResultsDirUnavailableError, match="mount"):
        store.check(fix=True)

    assert kinds(report) == ["results-dir"]
    assert len(place.rows()) == 2
    assert os.listdir(place.results) == []


def test_truncated_part_of_a_folder_is_seen_by_its_size(place):
    def runner(params):
        Path(params["result_file"]).mkdir()
        (Path(params["result_file"]) / "part").write_text("whole")

    store = cases.Store(runner, cases.Sim, place.results, "", place.url)
    record = store.run_or_retrieve(A)
    (Path(record.result_file) / "part").write_text("who")

    report = store.check()

    assert kinds(report) == ["corrupt-file"]


def test_check_of_one_table_says_nothing_of_another(place, store):
    other = cases.Store(place.runner(), cases.Other, place.folder / "others", ".txt", place.url)
    other.run_or_retrieve({"a": 1.0})
    claims_on(Database(place.url), "protocol_others", lease_s=-1.0).acquire(["k"])
    Path(other.retrieve({"a": 1.0}).result_file).unlink()

    report = store.check(checksum=True, fix=True)

    assert not report
    assert other.count() == 1
