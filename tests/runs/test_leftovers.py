"""What recovery makes of the lines, files and claims that processes have left, told apart case by case."""

import json
import logging
import os
from pathlib import Path

import pytest

from entropic import hash_params
from entropic.disk.sidecars import Sidecar, read_sidecar
from entropic.process.identity import this_process
from entropic.runs.abandoned import clear_abandoned, is_abandoned, is_nameless
from tests.support.gone import Left, claim, dead, digest, elsewhere, living
from tests.support.protocol_cases import Place, Sim

pytestmark = pytest.mark.usefixtures("leases_end_at_once")

A = {"a": 1.5}
KEY = hash_params(A)


def result(place: Place, version: str) -> bytes:
    return place.runner(version).result(1.5)


def version_of(store) -> str:
    """The version in the row, which has to be that of its file."""
    record = store.retrieve(A)
    version = record.custom_data["version"]
    assert Path(record.result_file).read_text() == f"version {version} of 1.5"
    return version


def states(place: Place) -> list[tuple[str, str]]:
    rows = place.sql("SELECT record_id, state FROM entropic_attempts ORDER BY ended_at, state")
    return [tuple(row) for row in rows]


def kept(place: Place) -> list[Path]:
    """What lies in quarantine, by name."""
    return [path for path in (place.results / ".entropic" / "quarantine").rglob("*") if path.is_file()]


def assert_clean(place: Place, store) -> None:
    assert not store.check(checksum=True), str(store.check(checksum=True))
    assert place.sql("SELECT * FROM entropic_claims") == []


# Lines that are committed, and lines that are dropped


def test_finished_run_is_committed_with_what_its_line_says(place, store):
    left = Left(place)
    left.finish(1.5, "1", custom={"note": "mine"})

    recovered = store.recover()

    record = store.retrieve(A)
    assert recovered == 1
    assert (record.a, record.b, record.custom_data["note"]) == (1.5, 0, "mine")
    assert version_of(store) == "1"
    assert not left.folder.exists()
    assert states(place) == [(KEY, "COMPLETED")]
    assert_clean(place, store)


@pytest.mark.parametrize("replaces", [None, digest(b"of some other result")])
def test_finished_run_over_the_row_of_another_run_is_dropped(place, store, replaces):
    """Its process lost the claim, wrote its line and was killed; who had taken over committed meanwhile."""
    store.runner = place.runner("2")
    store.run(A)
    left = Left(place)
    left.finish(1.5, "1", replaces=replaces)

    recovered = store.recover()

    assert recovered == 0
    assert version_of(store) == "2"
    assert not left.folder.exists()
    assert states(place) == [(KEY, "COMPLETED")]
    assert_clean(place, store)


def test_finished_rerun_over_the_row_that_it_replaces_is_committed(place, store):
    store.run(A)
    left = Left(place)
    left.finish(1.5, "2", replaces=digest(result(place, "1")))

    recovered = store.recover()

    assert recovered == 1
    assert version_of(store) == "2"
    assert_clean(place, store)


def test_finished_run_over_a_row_without_a_digest_is_dropped(place, store):
    """The published release, or SQL, wrote the row: nothing says that the run was to replace it."""
    store.run(A)
    place.sql("DELETE FROM entropic_files")
    Left(place).finish(1.5, "2")

    recovered = store.recover()

    assert recovered == 0
    assert version_of(store) == "1"


def test_run_and_its_rerun_in_one_sidecar_are_both_committed_and_the_rerun_wins(place, store, caplog):
    left = Left(place)
    left.finish(1.5, "1")
    left.finish(1.5, "2", replaces=digest(result(place, "1")))

    with caplog.at_level(logging.WARNING):
        recovered = store.recover()

    assert recovered == 2
    assert version_of(store) == "2"
    assert states(place) == [(KEY, "COMPLETED")] * 2
    assert f"recovered {KEY}, which process {left.process.pid} had finished" in caplog.text
    assert_clean(place, store)


def test_recovery_of_several_keys_names_one_and_counts_the_others(place, store, caplog):
    left = Left(place)
    for a in (1.5, 2.5, 3.5):
        left.finish(a, "1")

    with caplog.at_level(logging.WARNING):
        recovered = store.recover()

    assert recovered == 3
    first = min(hash_params({"a": a}) for a in (1.5, 2.5, 3.5))
    assert f"recovered {first} and 2 more, which process {left.process.pid} had finished" in caplog.text


def test_recovery_counts_what_it_commits_from_all_folders(place, store):
    """A sweep looks its hits up again if there was anything."""
    for ns in ([1.5], [2.5, 3.5], []):
        left = Left(place)
        for a in ns:
            left.finish(a, "1")

    recovered = store.recover()

    assert recovered == 3


def test_sweep_returns_the_result_of_a_finished_rerun_and_not_that_which_it_replaces(place, store):
    store.run(A)
    Left(place).finish(1.5, "2", replaces=digest(result(place, "1")))

    found, other = store.sweep([A, {"a": 2.5}], progress=False)

    assert (found.custom_data["version"], other.custom_data["version"]) == ("2", "1")
    assert version_of(store) == "2"


def test_rerun_with_equal_bytes_in_its_slot_is_committed(place, store):
    store.run(A, note="first")
    Left(place).finish(1.5, "1", replaces=digest(result(place, "1")), custom={"note": "again"})

    recovered = store.recover()

    assert recovered == 1
    assert store.retrieve(A).custom_data["note"] == "again"
    assert_clean(place, store)


def test_rerun_with_equal_bytes_that_had_moved_its_file_is_dropped(place, store):
    """Without a file of its own nothing tells it from a run that was dropped before this row was written."""
    store.run(A, note="first")
    left = Left(place)
    staged = left.finish(1.5, "1", replaces=digest(result(place, "1")), custom={"note": "again"})
    os.replace(staged, place.results / staged.name)

    recovered = store.recover()

    assert recovered == 0
    assert store.retrieve(A).custom_data["note"] == "first"
    assert not left.folder.exists()
    assert_clean(place, store)


def test_first_run_that_had_moved_its_file_is_committed(place, store):
    left = Left(place)
    staged = left.finish(1.5, "1")
    os.replace(staged, place.results / staged.name)

    recovered = store.recover()

    assert recovered == 1
    assert version_of(store) == "1"
    assert not left.folder.exists()
    assert_clean(place, store)


def test_run_that_was_to_bring_back_a_lost_file_of_equal_bytes_is_committed(place, store):
    record = store.run(A)
    Path(record.result_file).unlink()
    Left(place).finish(1.5, "1", replaces=digest(b"what the caller had seen before"))

    recovered = store.recover()

    assert recovered == 1
    assert version_of(store) == "1"
    assert_clean(place, store)


def test_finished_run_whose_file_is_gone_everywhere_is_dropped(place, store):
    left = Left(place)
    left.finish(1.5, "1").unlink()

    recovered = store.recover()

    assert recovered == 0
    assert not left.folder.exists()
    assert store.retrieve(A) is None


# Lines that cannot be read


def test_folder_with_an_unreadable_line_before_a_good_one_is_kept(place, store, caplog):
    left = Left(place)
    left.finish(2.5, "1", where=None)
    left.finish(1.5, "1")

    with caplog.at_level(logging.WARNING):
        recovered = store.recover()

    assert recovered == 1
    assert version_of(store) == "1"
    assert [path.read_bytes() for path in kept(place) if path.suffix == ".txt"] == [
        place.runner("1").result(2.5)
    ]
    assert "1 lines of a sidecar cannot be read" in caplog.text


def test_folder_with_a_line_that_lacks_a_parameter_before_a_good_one_is_kept(place, store):
    """The model has got a parameter without a default since: the run is one of an earlier model."""
    left = Left(place)
    left.finish(2.5, "1", stored={"b": 0})
    left.finish(1.5, "1")

    store.recover()

    assert version_of(store) == "1"
    assert [path.read_bytes() for path in kept(place) if path.suffix == ".txt"] == [
        place.runner("1").result(2.5)
    ]


def test_unreadable_lines_of_each_kind_are_counted_together(place, store, caplog):
    left = Left(place)
    left.write("no json")
    left.finish(2.5, "1", where=None)
    left.finish(3.5, "1", stored={"a": "no number"})
    left.finish(4.5, "1", stored={"b": 0})
    left.finish(5.5, "1", stored={"b": 0})
    left.finish(1.5, "1")

    with caplog.at_level(logging.WARNING):
        store.recover()

    assert "5 lines of a sidecar cannot be read" in caplog.text
    assert version_of(store) == "1"


# Whose folder it is


def test_line_of_another_table_keeps_the_folder_and_the_own_line_is_committed(place, store):
    left = Left(place)
    staged = left.finish(2.5, "1", table="another")
    left.finish(1.5, "1")

    recovered = store.recover()

    assert recovered == 1
    assert version_of(store) == "1"
    assert staged.read_bytes() == place.runner("1").result(2.5)
    assert store.retrieve({"a": 2.5}) is None


@pytest.mark.parametrize("holder", [None, dead()], ids=["its own", "dead"])
def test_finished_run_of_a_living_process_is_left_to_it_while_its_holder_lives(place, store, holder):
    left = Left(place, living(), holder)
    staged = left.finish(1.5, "1")

    recovered = store.recover()

    assert recovered == (0 if holder is None else 1)
    assert staged.exists() == (holder is None)
    assert left.folder.exists()  # somebody may write there


def test_run_of_a_dead_worker_is_committed_though_its_holder_lives(place, store):
    left = Left(place, dead(), living())
    left.finish(1.5, "1")

    recovered = store.recover()

    assert recovered == 1
    assert not left.folder.exists()


def test_finished_run_whose_key_somebody_alive_holds_is_left_alone(place, store):
    left = Left(place)
    staged = left.finish(1.5, "1")
    claim(place, KEY, living(), left_s=60.0)

    recovered = store.recover()

    assert recovered == 0
    assert staged.exists()
    assert store.retrieve(A) is None


def test_claims_taken_for_lines_that_are_dropped_are_given_back(place, store):
    store.run(A)
    Left(place).finish(1.5, "2")

    store.recover()

    assert place.sql("SELECT * FROM entropic_claims") == []


def test_claim_of_a_dropped_line_is_given_back_although_a_rerun_was_claimed_after_it(place, store):
    store.run({"a": 2.5})
    left = Left(place)
    left.finish(2.5, "2")
    left.finish(1.5, "1")
    left.finish(1.5, "2", replaces=digest(result(place, "1")))

    recovered = store.recover()

    assert recovered == 2
    assert version_of(store) == "2"
    assert_clean(place, store)


def age(folder: Path, seconds: float) -> None:
    """Let everything in *folder* be so much older."""
    for path in [folder, *folder.rglob("*")]:
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def test_folder_of_a_silent_process_of_another_host_goes_after_a_lease(place, store):
    left = Left(place, elsewhere())
    (left.folder / "0").mkdir()
    before = store.recover(), left.folder.exists()
    age(left.folder, 10_000)

    store.recover()

    assert before == (0, True)
    assert not left.folder.exists()


@pytest.mark.parametrize("who", ["writer", "holder"])
def test_folder_of_a_silent_process_of_another_host_stays_while_a_claim_of_its_lives(place, store, who):
    """A run of an hour may write at its end only."""
    left = Left(place, elsewhere(), elsewhere())
    age(left.folder, 10_000)
    process = left.process if who == "writer" else left.holder
    claim(place, KEY, process, left_s=60.0)

    store.recover()

    assert left.folder.exists()


def test_folder_of_a_silent_process_of_another_host_goes_though_its_claim_is_over(place, store):
    left = Left(place, elsewhere())
    age(left.folder, 10_000)
    claim(place, KEY, left.process, left_s=-1.0)

    store.recover()

    assert not left.folder.exists()


def test_folder_in_which_something_was_written_lately_stays(place, store):
    left = Left(place, elsewhere())
    (left.folder / "0").mkdir()
    age(left.folder, 10_000)
    (left.folder / "0" / "part").write_text("x")
    age(left.folder / "0" / "part", 0)

    store.recover()

    assert left.folder.exists()


def test_folder_that_cannot_be_looked_at_is_nobodys_to_clear_away(place, store):
    left = Left(place, elsewhere())
    sidecar = read_sidecar(left.folder)
    left.folder.rename(place.folder / "aside")  # as a network file system loses sight of one

    assert not is_abandoned(store._table, sidecar)


def test_folder_that_does_not_say_whose_it_is_is_left_alone_however_long_it_was_silent(place, store):
    left = Left(place)
    (left.folder / "process.json").write_text("no json")
    age(left.folder, 10_000)

    store.recover()

    assert left.folder.exists()
    assert [finding.kind for finding in store.check(fix=True)] == ["nameless"]
    assert left.folder.exists()


@pytest.mark.parametrize("has_file", [True, False])
def test_folder_with_nothing_in_it_is_of_a_kill_and_goes_after_a_lease(place, store, has_file):
    """It came between making the folder and saying whose it is, or between removing what said so and the folder."""
    blank = place.results / ".entropic" / "0123456789abcdef"
    blank.mkdir(parents=True)
    if has_file:
        (blank / "process.json").touch()

    store.recover()
    fresh = blank.exists(), list(store.check(fix=True))
    age(blank, 10_000)
    store.recover()

    assert fresh == (True, [])
    assert not blank.exists()


@pytest.mark.parametrize("whose", [dead, living, elsewhere])
@pytest.mark.parametrize("line", [None, "no json\n", "torn"])
def test_folders_of_notes_alone_go_with_their_processes(place, store, whose, line):
    """As of processes that compute data of components, which stage nothing."""
    left = Left(place, whose())
    (left.folder / "waits-k").touch()
    if line is not None:
        left.sidecar.write_text(line)
    else:
        left.finish(1.5, "1")

    clear_abandoned(store._table)
    stays = left.folder.exists()
    if stays:
        left.sidecar.write_text("")
        clear_abandoned(store._table)

    assert stays is not (line == "torn" and whose is dead)  # which says nothing
    assert left.folder.exists() is (whose is not dead)


@pytest.mark.parametrize("field", ["owner", "host", "boot", "started"])
@pytest.mark.parametrize("value", [None, 5, ["a"]], ids=repr)
def test_folder_whose_process_has_a_field_that_is_no_text_is_nobodys(place, field, value):
    left = Left(place, dead())

    sidecar = Sidecar(left.folder, {**left.process.as_dict(), field: value}, [], 0)

    assert is_nameless(sidecar)
    assert not is_nameless(Sidecar(left.folder, left.process.as_dict(), [], 0))


@pytest.mark.parametrize("is_finished", [False, True])
def test_folders_of_the_workers_of_a_sweep_go_with_it_and_what_they_had_finished_is_committed(
    place, store, is_finished
):
    runner, left = store.runner, []

    def run(params):
        folder = Path(params["result_file"]).parents[1]
        if not left:  # a worker, which is alive, has taken part in this sweep
            left.append(Left(place, living(), this_process(), sweep=folder.name.partition("-")[2]))
            if is_finished:
                left[0].finish(1.5, "a worker's")
        return runner(params)

    store.runner = run
    store.sweep([{"a": 5.0}, {"a": 6.0}], progress=False)

    assert left[0].folder.exists() == is_finished  # it may write there yet
    assert [record.a for record in store.records(order_by=Sim.a)] == (
        [1.5, 5.0, 6.0] if is_finished else [5.0, 6.0]
    )
    assert_clean(place, store)


# Claims that nobody gives back


def test_claim_of_a_dead_process_is_given_up_and_its_attempt_is_lost(place, store):
    claim(place, KEY, dead(), left_s=60.0)

    store.recover()

    assert states(place) == [(KEY, "LOST")]
    assert place.sql("SELECT * FROM entropic_claims") == []


@pytest.mark.parametrize(("left_s", "remains"), [(60.0, True), (-0.5, False)])
def test_claim_of_another_host_is_given_up_when_its_lease_is_over(place, store, left_s, remains):
    claim(place, KEY, elsewhere(), left_s=left_s)

    store.recover()

    assert len(place.sql("SELECT * FROM entropic_claims")) == remains
    assert states(place) == ([] if remains else [(KEY, "LOST")])


def test_claim_of_a_living_process_of_this_host_stays_though_its_lease_is_over(place, store):
    """It may have been frozen; who wants the key takes it over."""
    claim(place, KEY, living(), left_s=-1.0)

    store.recover()

    assert len(place.sql("SELECT * FROM entropic_claims")) == 1


def test_attempt_that_is_recovered_is_that_of_who_ran_it(place, store):
    left = Left(place)
    left.finish(1.5, "1")

    store.recover()

    (attempt,) = place.sql("SELECT * FROM entropic_attempts")
    assert json.loads(attempt.params) == {"a": 1.5, "b": 0}
    assert (attempt.owner, attempt.host, attempt.pid) == (
        left.process.owner,
        left.process.host,
        left.process.pid,
    )
