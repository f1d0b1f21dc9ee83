"""check(): names each thing that is not as it should be, and mends what it says and no more."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from entropic import Database, ResultsDirUnavailableError, Store
from entropic.diagnosis import integrity
from entropic.disk import files, roots, sidecars
from entropic.process.identity import this_process
from entropic.runs.tenure import Tenure
from tests.support import protocol_cases as cases
from tests.support.processes import outcomes_of
from tests.support.protocol_cases import FINISHED, Place, claims_on

A, B, C = {"a": 1.5}, {"a": 2.5}, {"a": 3.5}


@pytest.fixture
def store(place):
    """A Store with two results."""
    made = place.store()
    made.run_or_retrieve(A)
    made.run_or_retrieve(B)
    return made


def kinds(report) -> list[str]:
    return sorted(finding.kind for finding in report)


NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Snapshot:
    """Every row of every table, as text, and every file and folder beside the database, with its digest."""

    tables: dict[str, list[str]]
    disk: dict[str, str]

    def but_for(self, *, rows: Mapping[str, str] = NOTHING, paths: tuple[str, ...] = ()) -> "Snapshot":
        """Leave out the rows of some tables that contain a text, and all that lies under some paths."""
        tables = {
            name: [row for row in kept if name not in rows or rows[name] not in row]
            for name, kept in self.tables.items()
        }
        is_left_out = [tuple(Path(path).parts) for path in paths]
        disk = {
            path: digest
            for path, digest in self.disk.items()
            if not any(Path(path).parts[: len(parts)] == parts for parts in is_left_out)
        }
        return Snapshot(tables, disk)


def snapshot(place: Place) -> Snapshot:
    """All that there is, read past the code under test."""
    database = Database(place.url)
    with database.engine.connect() as connection:
        tables = {
            name: sorted(repr(tuple(row)) for row in connection.execute(text(f"SELECT * FROM {name}")))
            for name in inspect(connection).get_table_names()
        }
    database.dispose()
    disk = {}
    for path in place.folder.rglob("*"):
        name = path.relative_to(place.folder)
        if name.parts[0].startswith("entropic.sqlite3"):
            continue
        disk[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return Snapshot(tables, disk)


def file_of(store, params) -> Path:
    return Path(store.retrieve(params).result_file)


def quarantined(place: Place) -> dict[str, bytes]:
    folder = place.results / roots.STATE / roots.QUARANTINE
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


def test_report_of_rows_when_made_in_any_order_goes_by_id(store):
    keys = [{"a": float(n)} for n in range(2, 8)]
    ids = [store.key(key) for key in keys]
    for _, key in sorted(zip(ids, keys, strict=True), reverse=True):
        Path(store.run(key).result_file).unlink()

    assert [finding.id for finding in store.check()] == sorted(ids)


# Results of each kind, damaged in each way

KINDS = ("run", "folder", "registered inside", "registered outside")
KEYS = {kind: {"a": float(n)} for n, kind in enumerate(KINDS)}


def write_file_or_folder(params: dict[str, Any]) -> None:
    path, a = Path(params["result_file"]), params["a"]
    if a != KEYS["folder"]["a"]:
        path.write_bytes(b"result of %r" % a)
        return
    (path / "deep").mkdir(parents=True)
    (path / "part").write_bytes(b"one part of %r" % a)
    (path / "deep" / "part").write_bytes(b"another part of %r" % a)


@pytest.fixture
def mixed(place) -> Store:
    """A Store with a result of each kind, and files beside them that are none of its business."""
    made = Store(write_file_or_folder, cases.Sim, place.results, ".txt", place.url)
    for kind in ("run", "folder"):
        made.run_or_retrieve(KEYS[kind])
    for kind, folder in (("registered inside", place.results), ("registered outside", place.folder)):
        (folder / f"{kind}.txt").write_bytes(b"made elsewhere")
        made.register(KEYS[kind], folder / f"{kind}.txt")
    made.run_or_retrieve({"a": 99.0})
    (place.results / "notes.md").write_text("precious")
    (place.folder / "stray.txt").write_text("precious")
    return made


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def in_part(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    """Let a file be damaged as it is, and of a folder the file that lies deepest."""

    def damaged(path: Path) -> None:
        damage(path / "deep" / "part" if path.is_dir() else path)

    return damaged


def rename_part(path: Path) -> None:
    (path / "part").rename(path / "renamed")


def add_part(path: Path) -> None:
    (path / "added").write_bytes(b"x")


def delete_part(path: Path) -> None:
    (path / "part").unlink()


SEEN_BY_SIZE = {"truncated": in_part(truncate), "longer": in_part(lengthen)}
SEEN_BY_DIGEST = {"flipped": in_part(flip)}
FOLDER_SEEN_BY_SIZE = {"part added": add_part, "part deleted": delete_part}
FOLDER_SEEN_BY_DIGEST = {"part renamed": rename_part}
DAMAGES = SEEN_BY_SIZE | SEEN_BY_DIGEST | FOLDER_SEEN_BY_SIZE | FOLDER_SEEN_BY_DIGEST
NEED_CHECKSUM = SEEN_BY_DIGEST.keys() | FOLDER_SEEN_BY_DIGEST.keys()
DAMAGED = [
    (kind, how)
    for kind in KINDS
    for how in DAMAGES
    if kind == "folder" or how in SEEN_BY_SIZE | SEEN_BY_DIGEST
]


def quarantine_apart(taken: Snapshot) -> tuple[Snapshot, dict[str, str]]:
    """Tell everything else from what lies in quarantine, by name."""
    folder = Path("results", roots.STATE, roots.QUARANTINE)
    inside = [(Path(name), digest) for name, digest in taken.disk.items() if folder in Path(name).parents]
    # Each thing there lies in a folder of a random name.
    kept = {str(Path(*path.parts[4:])): digest for path, digest in inside if len(path.parts) > 4}
    return taken.but_for(paths=(str(folder),)), kept


def below(snapshot: Snapshot, path: Path, place: Place) -> dict[str, str]:
    """What lies at or below *path*, by name."""
    parent = path.parent.relative_to(place.folder)
    return {
        str(Path(name).relative_to(parent)): digest
        for name, digest in snapshot.disk.items()
        if Path(name).parts[: len(parent.parts) + 1] == (*parent.parts, path.name)
    }


@pytest.mark.parametrize(("kind", "how"), DAMAGED)
def test_damaged_result_is_named_and_nothing_changes_without_fix(place, mixed, kind, how):
    path = file_of(mixed, KEYS[kind])
    DAMAGES[how](path)
    before = snapshot(place)

    by_size, by_digest = mixed.check(), mixed.check(checksum=True)

    (finding,) = by_digest
    assert (finding.kind, finding.id, finding.path, finding.is_fixed) == (
        "corrupt-file",
        mixed.key(KEYS[kind]),
        str(path),
        False,
    )
    assert kinds(by_size) == ([] if how in NEED_CHECKSUM else ["corrupt-file"])
    assert snapshot(place) == before


@pytest.mark.parametrize(("kind", "how"), [(kind, how) for kind, how in DAMAGED if kind in {"run", "folder"}])
def test_fix_moves_a_damaged_result_to_quarantine_and_deletes_its_row_only(place, mixed, kind, how):
    path, key = file_of(mixed, KEYS[kind]), mixed.key(KEYS[kind])
    DAMAGES[how](path)
    before = snapshot(place)

    report = mixed.check(checksum=True, fix=True)

    rest, quarantined = quarantine_apart(snapshot(place))
    assert [(one.kind, one.id, one.is_fixed) for one in report] == [("corrupt-file", key, True)]
    assert rest == before.but_for(
        rows={"protocol_sims": key, "entropic_files": key},
        paths=(str(path.relative_to(place.folder)),),
    )
    assert quarantined == below(before, path, place)
    assert not mixed.check(checksum=True)


@pytest.mark.parametrize(("kind", "how"), [(kind, how) for kind, how in DAMAGED if "registered" in kind])
def test_fix_only_reports_a_damaged_registered_file(place, mixed, kind, how):
    DAMAGES[how](file_of(mixed, KEYS[kind]))
    before = snapshot(place)

    report = mixed.check(checksum=True, fix=True)

    assert [(one.kind, one.id, one.is_fixed) for one in report] == [
        ("corrupt-file", mixed.key(KEYS[kind]), False)
    ]
    assert snapshot(place) == before


@pytest.mark.parametrize("kind", KINDS)
def test_missing_result_is_named_and_nothing_changes_without_fix(place, mixed, kind):
    path = file_of(mixed, KEYS[kind])
    delete(path)
    before = snapshot(place)

    by_size, by_digest = mixed.check(), mixed.check(checksum=True)

    (finding,) = by_size
    assert (finding.kind, finding.id, finding.path, finding.is_fixed) == (
        "missing-file",
        mixed.key(KEYS[kind]),
        str(path),
        False,
    )
    assert list(by_digest) == [finding]
    assert snapshot(place) == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "registered outside"])
def test_fix_of_a_missing_result_deletes_its_row_only(place, mixed, kind):
    key = mixed.key(KEYS[kind])
    delete(file_of(mixed, KEYS[kind]))
    before = snapshot(place)

    report = mixed.check(fix=True)

    assert [(one.kind, one.id, one.is_fixed) for one in report] == [("missing-file", key, True)]
    assert snapshot(place) == before.but_for(rows={"protocol_sims": key, "entropic_files": key})
    assert not mixed.check(checksum=True)


def test_fix_only_reports_a_missing_registered_file_outside(place, mixed):
    delete(file_of(mixed, KEYS["registered outside"]))
    before = snapshot(place)

    report = mixed.check(fix=True)

    assert [(one.kind, one.is_fixed) for one in report] == [("missing-file", False)]
    assert snapshot(place) == before


def test_stray_file_with_the_name_of_a_registered_one_elsewhere_is_reported(place, store):
    for folder in (place.folder, place.results):
        (folder / "mine.txt").write_text("precious")
    store.register(C, place.folder / "mine.txt")

    report = store.check()

    assert [(one.kind, one.path) for one in report] == [("stray-file", str(place.results / "mine.txt"))]


@pytest.mark.parametrize("kind", KINDS)
def test_row_that_was_deleted_leaves_a_record_to_remove_and_a_file_to_report(place, mixed, kind):
    key = mixed.key(KEYS[kind])
    place.sql("DELETE FROM protocol_sims WHERE id = :id", id=key)
    before = snapshot(place)
    stray_file = [] if kind == "registered outside" else [("stray-file", False)]

    found = mixed.check(checksum=True)
    unchanged = snapshot(place)
    fixed = mixed.check(checksum=True, fix=True)

    assert sorted((one.kind, one.is_fixed) for one in found) == [*stray_file, ("stray-record", False)]
    assert unchanged == before
    assert sorted((one.kind, one.is_fixed) for one in fixed) == [*stray_file, ("stray-record", True)]
    assert snapshot(place) == before.but_for(rows={"entropic_files": key})
    assert [(one.kind, one.is_fixed) for one in mixed.check(checksum=True)] == stray_file


@pytest.mark.parametrize("kind", KINDS)
def test_file_record_that_is_missing_is_completed(place, mixed, kind):
    key = mixed.key(KEYS[kind])
    whole = place.sql("SELECT name, size_bytes, sha256 FROM entropic_files WHERE record_id = :id", id=key)
    place.sql("DELETE FROM entropic_files WHERE record_id = :id", id=key)
    before = snapshot(place)

    found = mixed.check(checksum=True)
    unchanged = snapshot(place)
    fixed = mixed.check(fix=True)

    assert [(one.kind, one.id, one.is_fixed) for one in found] == [("unrecorded-file", key, False)]
    assert unchanged == before
    assert [(one.kind, one.id, one.is_fixed) for one in fixed] == [("unrecorded-file", key, True)]
    assert (
        place.sql("SELECT name, size_bytes, sha256 FROM entropic_files WHERE record_id = :id", id=key)
        == whole
    )
    assert snapshot(place).but_for(rows={"entropic_files": key}) == before
    assert not mixed.check(checksum=True)


@pytest.mark.parametrize("kind", ["run", "folder"])
def test_key_whose_damaged_result_went_to_quarantine_runs_again(mixed, kind):
    path = file_of(mixed, KEYS[kind])
    whole = files.digest_of(path)
    in_part(flip)(path)
    mixed.check(checksum=True, fix=True)

    record = mixed.run_or_retrieve(KEYS[kind])

    assert files.digest_of(Path(record.result_file)) == whole
    assert not mixed.check(checksum=True)


def test_stray_files_with_our_suffix_are_reported_and_never_touched(place, store):
    (place.results / "mine.txt").write_text("precious")
    (place.results / "notes.md").write_text("precious")
    (place.results / ".entropic-0123.txt").write_text("what a kill left of a marker")
    (place.results / "folder").mkdir()
    before = snapshot(place)

    fixed = store.check(checksum=True, fix=True)

    assert [(finding.kind, Path(finding.path).name, finding.is_fixed) for finding in fixed] == [
        ("stray-file", "mine.txt", False)
    ]
    assert snapshot(place) == before


# What a crash leaves


FOUND_AFTER = {
    "claimed": ["abandoned"],
    **{point: ["abandoned", "abandoned"] for point in ("slot taken", "in the runner", "file staged")},
    **{point: ["abandoned", "abandoned", "unfinished"] for point in FINISHED[:3]},
    "file moved": ["abandoned", "abandoned", "stray-file", "unfinished"],
    "committed": ["abandoned"],
}
"""What is named after a kill at each point: a claim, a process's folder, a run that can be committed, its file."""


@pytest.mark.parametrize("point", FOUND_AFTER)
def test_leftovers_of_a_crash_are_named_and_only_they_are_cleared(place, store, point):
    live = set(place.state_folders())
    outcomes_of(cases.run_until, [(place, point, C)])
    dead = [str(folder.relative_to(place.folder)) for folder in set(place.state_folders()) - live]
    before, key = snapshot(place), store.key(C)
    made = {"protocol_sims": key, "entropic_files": key, "entropic_attempts": key, "entropic_claims": key}

    found = store.check(checksum=True)
    unchanged = snapshot(place)
    fixed = store.check(checksum=True, fix=True)

    after, leftovers = snapshot(place), (*dead, f"results/{key}.txt")
    assert kinds(found) == FOUND_AFTER[point]
    assert {finding.id for finding in found} <= {None, key}
    assert unchanged == before
    assert not fixed, str(fixed)
    assert len(dead) == (point != "claimed")
    assert after.but_for(rows=made, paths=leftovers) == before.but_for(rows=made, paths=leftovers)
    assert not set(dead) & after.disk.keys()
    assert after.tables["entropic_claims"] == []
    assert (store.retrieve(C) is not None) == (point in FINISHED)
    assert not store.check(checksum=True)


def test_rerun_killed_between_move_and_commit_is_committed_rather_than_quarantined(place, store):
    outcomes_of(cases.run_until, [(place, "file moved", A, "2", True)])

    store.check(checksum=True, fix=True)

    assert quarantined(place) == {}
    assert store.retrieve(A).custom_data["version"] == "2"
    assert not store.check(checksum=True)


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


def test_folder_of_another_host_is_abandoned_only_after_a_lease(place):
    store = place.store(lease_s=3600.0)
    outcomes_of(cases.run_until, [(place, "in the runner", C)])
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
    outcomes_of(cases.run_until, [(place, "committed", C)])
    (folder,) = [p for p in place.state_folders() if this_process().owner not in p.name]
    (folder / sidecars.SIDECAR).write_bytes(b"no json\n" + (folder / sidecars.SIDECAR).read_bytes())
    found = store.check()

    store.check(fix=True)

    assert kinds(found) == ["malformed-sidecar"]
    assert str(folder) in {finding.path for finding in found}
    assert quarantined(place)[sidecars.SIDECAR].startswith(b"no json\n")
    assert not store.check(checksum=True)


def test_unmounted_root_is_said_and_fix_raises_and_deletes_nothing(place, store):
    place.results.rename(place.folder / "elsewhere")
    place.results.mkdir()

    report = store.check(checksum=True)
    with pytest.raises(ResultsDirUnavailableError, match="mount"):
        store.check(fix=True)

    assert kinds(report) == ["results-dir"]
    assert len(place.rows()) == 2
    assert os.listdir(place.results) == []


def test_check_of_one_table_says_nothing_of_another(place, store):
    other = cases.Store(place.runner(), cases.Other, place.folder / "others", ".txt", place.url)
    other.run_or_retrieve({"a": 1.0})
    claims_on(Database(place.url), "protocol_others", lease_s=-1.0).acquire(["k"])
    Path(other.retrieve({"a": 1.0}).result_file).unlink()

    report = store.check(checksum=True, fix=True)

    assert not report
    assert other.count() == 1


# Beside others


def meanwhile(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Do something once the rows were looked at, before anything is mended."""
    claim_free = Tenure.claim_free

    def after(tenure: Tenure, keys: Any) -> Any:
        do()
        return claim_free(tenure, keys)

    monkeypatch.setattr(Tenure, "claim_free", after)


@pytest.mark.parametrize("in_row", [False, True])
@pytest.mark.parametrize("damage", ["gone", "corrupt"])
def test_result_that_is_run_again_while_the_others_are_looked_at_stays(
    tmp_path, sqlite_url, monkeypatch, damage, in_row
):
    place = Place(sqlite_url, tmp_path, in_row)
    store, other = place.store(), place.store("2")
    key = store.run_or_retrieve(A).id
    if in_row:
        value = "NULL" if damage == "gone" else "'1'"
        place.sql(f"UPDATE {place.table} SET result_value = {value}")
    elif damage == "gone":
        file_of(store, A).unlink()
    else:
        file_of(store, A).write_text("oops")
    meanwhile(monkeypatch, lambda: other.run(A))

    report = store.check(checksum=True, fix=True)

    assert list(report) == []
    assert place.content(store.retrieve({"id": key}, verify=True)) == other.runner.result(1.5)
    assert store._table.claims.holders([key]) == {}


def test_folder_that_is_run_again_elsewhere_while_the_others_are_looked_at_stays(mixed, monkeypatch):
    key = KEYS["folder"]
    shutil.rmtree(file_of(mixed, key))
    meanwhile(monkeypatch, lambda: mixed.run(key))

    assert list(mixed.check(fix=True)) == []
    assert mixed.retrieve(key, verify=True) is not None


def test_record_of_a_key_that_is_run_while_stray_ones_are_removed_stays(place, store, monkeypatch):
    place.sql("DELETE FROM protocol_sims WHERE id = :id", id=store.key(A))
    write = Database.write
    ran = []

    def run_first(database: Database, work: Any, **options: Any) -> Any:
        if database is store.database and not ran:
            ran.append(place.store().run_or_retrieve(A))
        return write(database, work, **options)

    monkeypatch.setattr(Database, "write", run_first)
    store.check(fix=True)

    assert ran
    assert store.retrieve(A, verify=True) is not None


def test_key_that_somebody_holds_is_named_and_left_alone(place, store):
    path = file_of(store, A)
    path.unlink()
    grants = place.store()._table.claims.acquire([store.key(A)])

    (finding,) = store.check(fix=True)

    assert (finding.kind, finding.is_fixed) == ("missing-file", False)
    assert store.count() == 2
    assert [holder.token for holder in store._table.claims.holders([store.key(A)]).values()] == [
        grant.token for grant in grants.values()
    ]


def test_claim_that_is_lost_before_the_row_is_deleted_leaves_the_row(place, store, monkeypatch):
    file_of(store, A).write_text("oops")
    difference = integrity._Check._difference
    looks = []

    def lose(check: Any, row: Any, path: Path) -> Any:
        looks.extend([path.name] if row.id == store.key(A) else [])
        if len(looks) == 2:  # while it is held
            place.sql("UPDATE entropic_claims SET token = 'another'")
        return difference(check, row, path)

    monkeypatch.setattr(integrity._Check, "_difference", lose)
    (finding,) = store.check(fix=True)

    assert (finding.kind, finding.is_fixed) == ("corrupt-file", False)
    assert store.count() == 2
    assert quarantined(place) == {}


IN_THE_PLACE: Mapping[str, Callable[[Path], object]] = {
    "link that leads nowhere": lambda path: path.symlink_to("/nowhere/at/all"),
    "link to itself": lambda path: path.symlink_to(path),
    "FIFO": os.mkfifo,
}


@pytest.mark.parametrize("what", IN_THE_PLACE)
def test_row_of_what_is_no_file_stays(store, what):
    path = file_of(store, A)
    path.unlink()
    IN_THE_PLACE[what](path)

    report = store.check(checksum=True, fix=True)

    assert [(one.kind, one.is_fixed, one.path) for one in report] == [("not-a-file", False, str(path))]
    assert store.count() == 2
    assert os.path.lexists(path)


def test_row_without_a_record_whose_file_cannot_be_read_keeps_no_other_from_being_mended(place, mixed):
    folder = file_of(mixed, KEYS["folder"])
    os.mkfifo(folder / "pipe")
    gone = file_of(mixed, KEYS["run"])
    gone.unlink()
    place.sql("DELETE FROM entropic_files WHERE record_id = :id", id=mixed.key(KEYS["folder"]))

    report = mixed.check(fix=True)

    assert {(one.kind, one.is_fixed) for one in report} == {("not-a-file", False), ("missing-file", True)}
