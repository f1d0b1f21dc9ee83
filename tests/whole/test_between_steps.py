"""What others do, or an interrupt, between two steps of a run: a single call and a sweep, seen from outside."""

import itertools
import json
import logging
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

import entropic
from entropic import ClaimLostError, ClaimTimeoutError, ResultFileMissingError, hash_params
from entropic.disk.sidecars import read_sidecar
from entropic.disk.staging import staging_for
from entropic.leases.claims import Claims
from entropic.process.identity import this_process
from tests.support.gone import Left, claim, elsewhere, living
from tests.support.processes import open_files
from tests.support.protocol_cases import Place

pytestmark = pytest.mark.usefixtures("leases_end_at_once")

A, B = {"a": 1.5}, {"a": 2.5}
KEY = hash_params(A)
PACKAGE = Path(entropic.__file__).parent


@pytest.fixture
def store(place: Place):
    store = place.store()
    yield store
    store.database.dispose()


CALLS = {
    "call": lambda store: store.run_or_retrieve(A),
    "sweep": lambda store: store.sweep([A], progress=False)[0],
}
each_way = pytest.mark.parametrize("way", CALLS)


def claims_on(place: Place) -> list[str]:
    return [row.record_id for row in place.sql("SELECT record_id FROM entropic_claims")]


def attempts_on(place: Place, key: str) -> list[tuple[str, dict]]:
    rows = place.sql(
        "SELECT state, params FROM entropic_attempts WHERE record_id = :key ORDER BY ended_at, state", key=key
    )
    return [(row.state, json.loads(row.params)) for row in rows]


# Somebody else finishes between the look-up and the claim


def before_claim(monkeypatch, happens) -> None:
    """Let something happen once, when a claim is about to be acquired."""
    real, calls = Claims.acquire, itertools.count()

    def acquire(self, *args, **kwargs):
        if next(calls) == 0:
            happens()
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Claims, "acquire", acquire)


@each_way
def test_key_that_was_finished_between_look_up_and_claim_is_not_run_and_leaves_no_claim(
    place, store, monkeypatch, way
):
    other = place.store()
    before_claim(monkeypatch, lambda: other.run_or_retrieve(A))

    record = CALLS[way](store)

    assert record.id == KEY
    assert len(place.runner().calls) == 1
    assert claims_on(place) == []


def test_forced_run_replaces_what_was_finished_between_look_up_and_claim(place, store, monkeypatch):
    other = place.store("2")
    before_claim(monkeypatch, lambda: other.run_or_retrieve(A))

    record = store.run(A)

    assert record.custom_data["version"] == "1"
    assert Path(record.result_file).read_bytes() == place.runner("1").result(1.5)
    assert len(place.runner().calls) == 2
    assert claims_on(place) == []
    assert not store.check(checksum=True)


@each_way
def test_file_that_was_registered_between_look_up_and_claim_and_is_gone_is_no_reason_to_run(
    place, store, monkeypatch, way
):
    other, made = place.store(), place.folder / "made.txt"

    def register():
        made.write_text("made elsewhere")
        other.register(A, made)
        made.unlink()

    before_claim(monkeypatch, register)

    with pytest.raises(ResultFileMissingError, match="registered file"):
        CALLS[way](store)

    assert place.runner().calls == []
    assert claims_on(place) == []


# A finished run that nobody has committed


@each_way
def test_run_whose_commit_failed_is_committed_by_the_next_call_and_leaves_no_folder(place, store, way):
    place.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON protocol_sims BEGIN INSERT INTO refused VALUES (1); END"
    )
    with pytest.raises(DBAPIError, match="refused"):
        store.run_or_retrieve(A)
    blocked = claims_on(place)
    place.sql("DROP TRIGGER refuse")

    record = CALLS[way](store)

    own = staging_for(place.results, this_process().owner, this_process().as_dict())
    own.close()  # as when the process ends
    assert blocked == []
    assert Path(record.result_file).read_bytes() == place.runner().result(1.5)
    assert place.runner().calls == [KEY]
    assert place.state_folders() == []


@each_way
def test_finished_run_of_a_living_process_that_has_no_claim_is_taken_instead_of_a_run(place, store, way):
    Left(place, living()).finish(1.5, "another's")

    record = CALLS[way](store)

    assert record.custom_data["version"] == "another's"
    assert Path(record.result_file).read_bytes() == place.runner("another's").result(1.5)
    assert place.runner().calls == []


def test_forced_run_runs_although_a_finished_run_lies_there(place, store):
    Left(place, living()).finish(1.5, "another's")

    record = store.run(A)

    assert record.custom_data["version"] == "1"
    assert place.runner().calls == [KEY]


def test_sweep_leaves_no_file_of_its_folder_open(place, store):
    store.sweep([A, B], progress=False)

    assert not [path for path in open_files() if path.startswith(str(place.results))]


# Claims of another host, whose lease is over while we are at work


def expiring(place: Place, store):
    """Let the claim on A, which another host holds, end while B runs."""
    runner = store.runner

    def run(params):
        if params["a"] == B["a"]:
            place.sql("UPDATE entropic_claims SET expires_at = 0 WHERE record_id = :key", key=KEY)
        return runner(params)

    store.runner = run


def test_sweep_that_takes_over_from_another_host_records_the_attempt_as_lost(place, store):
    claim(place, KEY, elsewhere(), left_s=60.0)
    expiring(place, store)

    records = store.sweep([A, B], progress=False)

    assert [record.a for record in records] == [1.5, 2.5]
    assert attempts_on(place, KEY) == [("LOST", {"a": 1.5, "b": 0}), ("COMPLETED", {"a": 1.5, "b": 0})]
    assert claims_on(place) == []


def test_sweep_that_takes_over_what_another_host_had_finished_commits_that(place, store):
    process = elsewhere()
    claim(place, KEY, process, left_s=60.0)
    Left(place, process).finish(1.5, "another's")
    expiring(place, store)

    records = store.sweep([A, B], progress=False)

    assert records[0].custom_data["version"] == "another's"
    assert attempts_on(place, KEY) == [("COMPLETED", {"a": 1.5, "b": 0})]
    assert place.runner().calls == [hash_params(B)]
    assert claims_on(place) == []


def test_call_that_takes_over_from_another_host_records_the_attempt_as_lost(place, store):
    claim(place, KEY, elsewhere(), left_s=-1.0)

    store.run_or_retrieve(A)

    assert attempts_on(place, KEY) == [("LOST", {"a": 1.5, "b": 0}), ("COMPLETED", {"a": 1.5, "b": 0})]


@pytest.mark.parametrize("way", ["run", "run_or_retrieve"])
def test_call_that_takes_over_what_another_host_had_finished_commits_that(place, store, way):
    process = elsewhere()
    claim(place, KEY, process, left_s=-1.0)
    Left(place, process).finish(1.5, "another's")

    record = getattr(store, way)(A)

    is_forced = way == "run"
    assert record.custom_data["version"] == ("1" if is_forced else "another's")
    assert attempts_on(place, KEY) == [("COMPLETED", {"a": 1.5, "b": 0})] * (2 if is_forced else 1)
    assert len(place.runner().calls) == is_forced
    assert claims_on(place) == []


# A late owner


def test_late_owner_whose_staged_file_is_gone_is_told_that_its_claim_was_lost(place, store):
    """Whoever took over had dropped it."""
    runner = store.runner

    def late(params):
        returned = runner(params)
        place.sql("UPDATE entropic_claims SET token = 'of a rival'")
        event.listen(store.database.engine, "begin", dropped, once=True)
        return returned

    def dropped(connection):
        (staged,) = (place.results / ".entropic").rglob(f"{KEY}.txt")
        staged.unlink()

    store.runner = late
    with pytest.raises(ClaimLostError, match="Its result was not published"):
        store.run_or_retrieve(A)

    assert store.count() == 0
    assert not (place.results / f"{KEY}.txt").exists()


# Waiting for somebody


class Clock:
    """Passes while somebody sleeps, and does what is due."""

    def __init__(self, monkeypatch) -> None:
        self.now = time.monotonic()
        self.due: list[tuple[float, object]] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def after(self, seconds: float, happens) -> None:
        self.due.append((self.now + seconds, happens))

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for one in [one for one in self.due if one[0] <= self.now]:
            self.due.remove(one)
            one[1]()


@each_way
def test_who_waits_names_the_holder_once_and_not_before_a_moment_has_passed(
    place, store, monkeypatch, caplog, way
):
    process = living()
    claim(place, KEY, process, left_s=3600.0)
    clock = Clock(monkeypatch)
    told = []
    clock.after(1.5, lambda: told.append(len(caplog.records)))
    clock.after(15.0, lambda: place.sql("DELETE FROM entropic_claims"))

    with caplog.at_level(logging.WARNING):
        record = CALLS[way](store)

    named = [r.getMessage() for r in caplog.records if f"process {process.pid} on" in r.getMessage()]
    assert told == [0]
    assert len(named) == 1
    assert record.id == KEY


def test_who_waits_names_the_next_holder_too(place, store, monkeypatch, caplog):
    first, second = living(), elsewhere()
    claim(place, KEY, first, left_s=3600.0)
    clock = Clock(monkeypatch)

    def succeed():
        place.sql("DELETE FROM entropic_claims")
        claim(place, KEY, second, left_s=3600.0)

    clock.after(7.0, succeed)
    clock.after(15.0, lambda: place.sql("DELETE FROM entropic_claims"))

    with caplog.at_level(logging.WARNING):
        store.run_or_retrieve(A)

    named = [r.getMessage().partition("run by ")[2] for r in caplog.records]
    assert [text.split(",")[0] for text in named] == [
        f"process {first.pid} on {first.host}",
        f"process {second.pid} on elsewhere",
    ]


def test_who_gives_up_names_nobody_where_the_holder_has_just_gone(place, monkeypatch):
    impatient = place.store(wait_timeout_s=0.0)
    claim(place, KEY, living(), left_s=3600.0)
    real = Claims.acquire

    def acquire(self, *args, **kwargs):
        granted = real(self, *args, **kwargs)
        place.sql("DELETE FROM entropic_claims")
        return granted

    monkeypatch.setattr(Claims, "acquire", acquire)

    with pytest.raises(ClaimTimeoutError, match="is held by another process for longer than"):
        impatient.run_or_retrieve(A)


# An interrupt, or an error, between any two steps


class Interruption:
    """Raises *error* at the *n*-th call of a function of the wings that make a run; counts them without *n*."""

    WINGS = tuple(f"{PACKAGE / wing}/" for wing in ("runs", "leases", "disk"))

    def __init__(self, error: BaseException, n: int = 0) -> None:
        self.error, self.n, self.calls, self.has_come = error, n, 0, False

    def __enter__(self) -> "Interruption":
        sys.setprofile(self.profile)
        return self

    def __exit__(self, *_) -> None:
        sys.setprofile(None)

    def profile(self, frame, what, argument) -> None:
        if what == "call" and frame.f_code.co_filename.startswith(self.WINGS):
            self.calls += 1
            if self.calls == self.n:
                sys.setprofile(None)
                self.has_come = True
                raise self.error


@pytest.mark.parametrize("in_row", [False, True], ids=["file", "value"])
@pytest.mark.parametrize("way", ["call", "sweep"])
def test_run_that_has_finished_is_kept_whatever_interrupts_and_does_not_come_back(
    tmp_path, sqlite_url, way, in_row
):
    place = Place(sqlite_url, tmp_path, in_row)
    store = place.store()

    def ask(params):
        return store.run_or_retrieve(params) if way == "call" else store.sweep([params], progress=False)[0]

    ask({"a": 0.0})
    with Interruption(KeyboardInterrupt()) as counted:
        ask({"a": -1.0})
    again, deleted = [], 0

    for n in range(counted.calls, 0, -1):
        params = {"a": float(n)}
        with Interruption(KeyboardInterrupt(), n), suppress(KeyboardInterrupt):
            ask(params)
        if store.key(params) not in place.runner().calls:
            break  # it was not begun, and nor are those that are interrupted before
        if has_line(place, store.key(params)):
            ask(params)
            again += [n] * (place.runner().calls.count(store.key(params)) - 1)
        deleted += store.delete(params, remove_file=True)

    assert again == []
    assert deleted > 20
    store.recover()
    assert store.count() == 2
    assert not store.check(checksum=True)


def has_line(place: Place, key: str) -> bool:
    """Whether a run of a key was finished, for whoever finds what is there."""
    sidecars = [read_sidecar(folder) for folder in place.state_folders()]
    return any(line["record_id"] == key for sidecar in sidecars for line in sidecar.lines)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError("the disk is gone")], ids=["interrupt", "error"]
)
def test_whatever_comes_between_two_steps_gives_the_key_back(place, store, error, part):
    store.run({"a": 0.0})  # what is made once is made
    with Interruption(error) as counted:
        store.run({"a": -1.0})
    blocked = []

    for n in range(1 + part, counted.calls + 1, 4):
        with Interruption(error, n) as interruption, suppress(KeyboardInterrupt, OSError):
            store.run_or_retrieve({"a": float(n)})
        if interruption.has_come and claims_on(place):
            blocked.append(n)
            place.sql("DELETE FROM entropic_claims")

    assert counted.calls > 50
    assert blocked == []
    store.recover()
    assert not store.check(checksum=True)
