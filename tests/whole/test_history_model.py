"""The model of the history refuses what must not be, and takes what a Store leaves."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from entropic.leases import claims
from tests.support import protocol_cases as cases
from tests.support.history_model import (
    ATTEMPTED,
    CLAIMED,
    DELETED,
    GIVEN_UP,
    INSERTED,
    RECORDED,
    TAKEN_OVER,
    UPDATED,
    Event,
    HistoryError,
    read_history,
    record_history,
    replay,
)
from tests.support.processes import outcomes_of
from tests.support.protocol_cases import Place

A = {"a": 1.5}


def claimed(key, token):
    return Event(CLAIMED, key, token)


def taken_over(key, token, former):
    return Event(TAKEN_OVER, key, token, former)


def given_up(key, token):
    return Event(GIVEN_UP, key, token)


def attempted(key, attempt, state):
    return Event(ATTEMPTED, key, attempt, state)


def written(key, attempt, what=INSERTED):
    """What a commit does after it has given up its claim."""
    return [Event(what, key), Event(RECORDED, key, attempt), attempted(key, attempt, "COMPLETED")]


def committed(key, token, attempt, what=INSERTED):
    return [given_up(key, token), *written(key, attempt, what)]


RUN = [claimed("k", "t1"), *committed("k", "t1", "a1")]

GOOD = {
    "a run": RUN,
    "a run and a re-run": [*RUN, claimed("k", "t2"), *committed("k", "t2", "a2", UPDATED)],
    "a failure, then a run": [
        claimed("k", "t1"), given_up("k", "t1"), attempted("k", "a1", "FAILED"),
        claimed("k", "t2"), *committed("k", "t2", "a2"),
    ],
    "a take-over": [
        claimed("k", "t1"), taken_over("k", "t2", "t1"), attempted("k", "a1", "LOST"),
        *committed("k", "t2", "a2"),
    ],
    "a batch after a release": [
        claimed("k", "t1"), claimed("l", "t2"), claimed("m", "t3"),
        given_up("m", "t3"),
        given_up("k", "t1"), given_up("l", "t2"), Event(INSERTED, "l"), Event(INSERTED, "k"),
        Event(RECORDED, "l", "a1"), Event(RECORDED, "k", "a2"),
        attempted("l", "a1", "COMPLETED"), attempted("k", "a2", "COMPLETED"),
    ],
    "a registered file over a run": [
        *RUN, claimed("k", "t2"), given_up("k", "t2"), Event(UPDATED, "k"), Event(RECORDED, "k"),
    ],
    "a deleted row, then a run": [
        *RUN, Event(DELETED, "k"), claimed("k", "t2"), *committed("k", "t2", "a2"),
    ],
    "an interrupted run that had lost its claim": [
        claimed("k", "t1"), taken_over("k", "t2", "t1"), attempted("k", "a1", "CANCELLED"),
        *committed("k", "t2", "a2"),
    ],
}  # fmt: skip

BAD = {
    "a commit without a claim": [*written("k", "a1")],
    "a commit before its claim": [*committed("k", "t1", "a1"), claimed("k", "t1")],
    "a commit on the claim of another key": [claimed("l", "t1"), given_up("l", "t1"), *written("k", "a1")],
    "two commits on one claim": [*RUN, *written("k", "a2", UPDATED)],
    "two rows in one commit on one claim": [
        claimed("k", "t1"), given_up("k", "t1"), Event(INSERTED, "k"), Event(UPDATED, "k"),
        Event(RECORDED, "k", "a1"), attempted("k", "a1", "COMPLETED"),
    ],
    "two files in one commit": [
        claimed("k", "t1"), given_up("k", "t1"), Event(INSERTED, "k"), Event(RECORDED, "k", "a1"),
        Event(RECORDED, "k", "a2"), attempted("k", "a1", "COMPLETED"),
    ],
    "two attempts in one commit": [*RUN, attempted("k", "a2", "COMPLETED")],
    "a claim given up twice": [*RUN, given_up("k", "t1")],
    "a commit of a late owner with its old token": [
        claimed("k", "t1"), taken_over("k", "t2", "t1"), *committed("k", "t1", "a1"),
    ],
    "a commit of a late owner without a token": [
        claimed("k", "t1"), taken_over("k", "t2", "t1"), *written("k", "a1"),
    ],
    "a commit of a late owner after the winner's": [
        claimed("k", "t1"), taken_over("k", "t2", "t1"), *committed("k", "t2", "a2"),
        *written("k", "a1", UPDATED),
    ],
    "a commit of a late owner while a third one is at it": [
        *RUN, claimed("k", "t2"), *written("k", "a2", UPDATED),
    ],
    "a claim on a key that is held": [claimed("k", "t1"), claimed("k", "t2")],
    "a take-over of a key that is free": [taken_over("k", "t2", "t1")],
    "a take-over of another token": [claimed("k", "t1"), taken_over("k", "t3", "t2")],
    "a take-over that keeps the token": [claimed("k", "t1"), taken_over("k", "t1", "t1")],
    "a token that comes again": [claimed("k", "t1"), given_up("k", "t1"), claimed("l", "t1")],
    "an attempt that comes again": [*RUN, claimed("k", "t2"), *committed("k", "t2", "a1", UPDATED)],
    "a failure that is completed later": [
        claimed("k", "t1"), given_up("k", "t1"), attempted("k", "a1", "FAILED"),
        claimed("k", "t2"), *committed("k", "t2", "a1"),
    ],
    "a row without an attempt": [
        claimed("k", "t1"), given_up("k", "t1"), Event(INSERTED, "k"), Event(RECORDED, "k", "a1"),
    ],
    "a row without a file record": [
        claimed("k", "t1"), given_up("k", "t1"), Event(INSERTED, "k"), attempted("k", "a1", "COMPLETED"),
    ],
    "an attempt without a row": [
        claimed("k", "t1"), given_up("k", "t1"), attempted("k", "a1", "COMPLETED"),
    ],
    "an attempt of another file": [
        claimed("k", "t1"), given_up("k", "t1"), Event(INSERTED, "k"), Event(RECORDED, "k", "a1"),
        attempted("k", "a2", "COMPLETED"),
    ],
    "a registration without a claim": [Event(INSERTED, "k"), Event(RECORDED, "k")],
    "a row inserted twice": [*RUN, claimed("k", "t2"), *committed("k", "t2", "a2")],
    "an update of no row": [claimed("k", "t1"), *committed("k", "t1", "a1", UPDATED)],
    "a batch with a key that was not claimed": [
        claimed("k", "t1"), given_up("k", "t1"), Event(INSERTED, "k"), Event(INSERTED, "l"),
        Event(RECORDED, "k", "a1"), Event(RECORDED, "l", "a2"),
        attempted("k", "a1", "COMPLETED"), attempted("l", "a2", "COMPLETED"),
    ],
    "a commit that used up the release before it": [
        claimed("k", "t1"), claimed("l", "t2"), given_up("k", "t1"), given_up("l", "t2"), *written("k", "a1"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_history_that_may_be_is_accepted(name):
    assert replay(GOOD[name]).held == {}


@pytest.mark.parametrize("name", BAD)
def test_history_that_must_not_be_is_refused(name):
    with pytest.raises(HistoryError):
        replay(BAD[name])


def test_replay_tells_what_is_claimed_there_and_committed():
    history = replay(
        [*RUN, claimed("l", "t2"), given_up("l", "t2"), attempted("l", "a2", "FAILED"), claimed("m", "t3")]
    )

    assert history.held == {"m": "t3"}
    assert history.rows == {"k"}
    assert history.commits == {"a1": "k"}
    assert history.attempts == {"a1": "COMPLETED", "a2": "FAILED"}
    assert history.tokens == {"t1", "t2", "t3"}


# What a Store leaves


@pytest.fixture
def place(tmp_path: Path, sqlite_url: str) -> Place:
    place = Place(sqlite_url, tmp_path)
    place.store()
    record_history(database_of(place), "protocol_sims")
    return place


def database_of(place: Place) -> Path:
    return place.folder / "entropic.sqlite3"


def history_of(place: Place):
    return replay(read_history(database_of(place)))


def test_history_of_runs_re_runs_registrations_and_deletions_is_accepted(place, tmp_path):
    store = place.store()
    (tmp_path / "made.txt").write_text("elsewhere")

    store.run_or_retrieve(A)
    store.run(A)
    store.register(A, tmp_path / "made.txt", overwrite=True)
    store.register(A, tmp_path / "made.txt", note="the same file again")
    store.delete(A)
    store.run_or_retrieve(A)
    store.sweep([{"a": float(a)} for a in range(10)], progress=False)

    history = history_of(place)
    assert (history.held, len(history.rows), len(history.commits)) == ({}, 11, 13)
    assert history.rows == set(place.rows())
    assert set(history.attempts.values()) == {"COMPLETED"}


def test_history_of_a_dead_owner_whose_claim_is_taken_over_is_accepted(place):
    outcomes_of(cases.run_until, [(place, "in the runner", A)])
    before = history_of(place)

    place.store().run_or_retrieve(A)

    after = history_of(place)
    assert len(before.held) == 1
    assert before.commits == {}
    assert (after.held, len(after.commits)) == ({}, 1)
    assert len(after.tokens) == 2


def take_all_claims(place, token):
    with contextlib.closing(sqlite3.connect(database_of(place), timeout=30)) as connection, connection:
        connection.execute("UPDATE entropic_claims SET token = ?", (token,))


def test_history_of_a_commit_that_did_not_look_at_its_claim_is_refused(place, monkeypatch):
    """The model must see in a real history what it is there for."""
    store = place.store()
    fast = store.runner

    def late(params):
        take_all_claims(place, "winner")
        return fast(params)

    store.runner = late
    delete = claims.Claims.delete

    def trusting(self, connection, pairs):
        delete(self, connection, pairs)
        return len(pairs)

    monkeypatch.setattr(claims.Claims, "delete", trusting)
    store.run_or_retrieve(A)

    with pytest.raises(HistoryError, match="without its claim"):
        history_of(place)
