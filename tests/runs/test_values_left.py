"""Finished values that nobody has committed: lines stay after the commit, so only the database tells them apart."""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from entropic import ClaimLostError, hash_params
from entropic.runs.attempts import Work
from entropic.runs.jobs import InRow, Job, Receipt
from tests.support import protocol_cases as cases
from tests.support.gone import Left, dead, digest, living
from tests.support.processes import run_together
from tests.support.protocol_cases import MARKER, Place

A = {"a": 1.5}
KEY = hash_params(A)
CALLS = {
    "call": lambda store: store.run_or_retrieve(A),
    "sweep": lambda store: store.sweep([A], progress=False)[0],
}
each_way = pytest.mark.parametrize("way", CALLS)


@pytest.fixture
def place(tmp_path: Path, sqlite_url: str) -> Place:
    return Place(sqlite_url, tmp_path, in_row=True)


def states(place: Place) -> dict[str, str]:
    return {row.id: row.state for row in place.sql("SELECT id, state FROM entropic_attempts")}


@each_way
def test_value_that_a_living_process_finished_without_a_claim_is_taken_instead_of_a_run(place, store, way):
    Left(place, living()).finish(1.5, "another's")

    record = CALLS[way](store)

    assert record.custom_data["version"] == "another's"
    assert place.content(record) == place.runner("another's").result(1.5)
    assert place.runner().calls == []
    assert place.sql("SELECT * FROM entropic_claims") == []


@each_way
@pytest.mark.parametrize("state", ["COMPLETED", "LOST", "FAILED"])
def test_value_that_was_settled_is_not_taken_from_the_line_that_is_still_there(place, store, way, state):
    """Its row was deleted since."""
    attempt = uuid4().hex
    Left(place, living()).finish(1.5, "another's", attempt=attempt)
    place.sql(
        "INSERT INTO entropic_attempts (id, table_name, record_id, state, params, ended_at) "
        "VALUES (:id, :table_name, :key, :state, '{}', '2026-01-01 00:00:00.000000')",
        id=attempt, table_name=place.table, key=KEY, state=state,
    )  # fmt: skip

    record = CALLS[way](store)

    assert record.custom_data["version"] == "1"
    assert place.runner().calls == [KEY]


def test_forced_run_runs_although_a_finished_value_lies_there(place, store):
    Left(place, living()).finish(1.5, "another's")

    record = store.run(A)

    assert record.custom_data["version"] == "1"
    assert place.runner().calls == [KEY]


@pytest.mark.parametrize("replaces", [None, "f" * 64])
def test_finished_value_over_the_row_of_another_run_is_dropped_for_good(place, store, replaces):
    store.run(A)
    left = Left(place, dead())
    left.finish(1.5, "late", replaces=replaces)

    recovered = store.recover()

    assert recovered == 0
    assert not left.folder.exists()
    assert store.retrieve(A).custom_data["version"] == "1"
    assert sorted(states(place).values()) == ["COMPLETED", "LOST"]
    (lost,) = place.sql("SELECT message FROM entropic_attempts WHERE state = 'LOST'")
    assert place.runner("late").result(1.5).decode() in lost.message
    assert store.failures() == []


def test_value_that_was_dropped_does_not_come_back_when_the_row_is_deleted(place, store):
    """Although its line is still there, as that of a process which may live is."""
    store.run(A)
    left = Left(place, living(), holder=dead())
    left.finish(1.5, "late")
    store.recover()
    store.delete(A)

    reopened = place.store()

    assert left.sidecar.exists()
    assert (reopened.count(), reopened.recover()) == (0, 0)
    assert reopened.run_or_retrieve(A).custom_data["version"] == "1"
    assert not reopened.check(checksum=True)


def test_finished_value_over_the_row_that_it_replaces_is_committed(place, store):
    before = store.run(A)
    stored = digest(place.content(before))
    Left(place, dead()).finish(1.5, "2", replaces=stored)

    assert store.recover() == 1
    assert store.retrieve(A).custom_data["version"] == "2"
    assert not store.check(checksum=True)


def test_value_of_a_run_whose_claim_was_lost_is_recorded_and_changes_nothing(place):
    version = place.runner("late")
    store = place.store("late")

    def runner(params):
        place.sql("UPDATE entropic_claims SET expires_at = 0")
        run_together(cases.take, [(place, A)])
        return version(params)

    store.runner = runner
    with pytest.raises(ClaimLostError) as caught:
        store.run_or_retrieve(A)

    assert caught.value.record.custom_data["version"] == "1"
    assert place.content(store.retrieve(A)) == place.runner("1").result(1.5)
    lost = [row.message for row in place.sql("SELECT message FROM entropic_attempts WHERE state = 'LOST'")]
    assert any(version.result(1.5).decode() in message for message in lost)
    store.delete(A)
    assert (store.recover(), store.count()) == (0, 0)
    assert not store.check(checksum=True)


def test_sweep_runs_a_value_again_whose_row_was_refused(place, store):
    """Its line is still there, where the worker that runs it again finds it."""
    place.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON protocol_values "
        "WHEN NOT EXISTS (SELECT 1 FROM entropic_attempts WHERE state = 'FAILED') "
        "BEGIN SELECT RAISE(ABORT, 'not yet'); END"
    )

    (record,) = store.sweep([A], workers=1, retries=1, progress=False)

    assert place.content(record) == place.runner().result(1.5)
    assert place.runner().calls == [KEY, KEY]
    assert sorted(states(place).values()) == ["COMPLETED", "FAILED"]
    (failed,) = place.sql("SELECT message FROM entropic_attempts WHERE state = 'FAILED'")
    assert place.runner().result(1.5).decode() in failed.message


# In a worker, which asks no database


def in_row(params) -> InRow:
    return InRow('"result"', {"rmse": 0.5})


def job(**options) -> Job:
    return Job("k1", "k1", {"a": 1.5}, {"a": 1.5}, **options)


def test_receipt_of_a_value_says_what_its_line_does_and_leaves_no_file(root):
    (receipt,) = Work(in_row, str(root), MARKER, sweep="s")([job()])

    (sidecar,) = root.rglob("sidecar.jsonl")
    (line,) = [json.loads(text) for text in sidecar.read_text().splitlines()]
    assert (line["name"], line["value"], line["size_bytes"]) == (None, '"result"', 8)
    assert line["sha256"] == digest(b'"result"')
    assert Receipt.from_line(line) == receipt
    assert (receipt.value, receipt.returned, receipt.is_folder) == ('"result"', {"rmse": 0.5}, False)
    assert receipt.is_staged(root)
    assert [path for path in sidecar.parent.rglob("*") if path.is_file()] == [
        path for path in sidecar.parent.iterdir() if path.is_file()
    ]
    with pytest.raises(ValueError, match="is no file"):
        receipt.path(root)


def test_task_of_a_sweep_that_runs_again_takes_the_value_that_it_has_finished(root):
    work = Work(in_row, str(root), MARKER, sweep="s")
    (first,) = work([job()])

    (again,) = work([job()])
    (after_its_end,) = work([job(ended=(first.attempt,))])
    (other_sweep,) = Work(in_row, str(root), MARKER, sweep="other")([job()])

    assert again == first
    assert after_its_end.attempt != first.attempt
    assert other_sweep.attempt not in {first.attempt, after_its_end.attempt}


def test_runs_of_values_use_one_slot(root):
    work = Work(in_row, str(root), MARKER)

    slots = {receipt.slot for _ in range(3) for receipt in work([job(look=False)])}

    assert len(slots) == 1
