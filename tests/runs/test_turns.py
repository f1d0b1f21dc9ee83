"""The wait for one key, and what a call holds: any keys that have claims and a folder."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from entropic import ClaimTimeoutError, Database
from entropic.disk.roots import Marker
from entropic.leases import held
from entropic.leases.claims import Claims
from entropic.process.patience import Patience
from entropic.runs.holding import Holding
from entropic.runs.turns import Turn
from entropic.sql.versions import ensure_schema


@dataclass
class Keys:
    claims: Claims
    root: Path
    marker: Marker


@pytest.fixture
def keys(sqlite, tmp_path):
    ensure_schema(sqlite, [])
    return Keys(Claims(sqlite, "things", lease_s=60), tmp_path, Marker("r", "d", "things"))


def test_what_is_held_is_known_until_it_is_given_back(keys):
    with Holding(keys) as holding:
        assert holding.acquire(["a", "b"]).keys() == {"a", "b"}
        holding.offer("a", "row")

        assert held.find(("r", "a")).row == "row"
        key, token = holding.pair("a")
        assert (key, held.is_known(token)) == ("a", True)
        assert keys.claims.holders(["a"])["a"].token == token
        with Holding(keys) as other:
            assert (other.take_over(["a"]), other.acquire(["a"])) == ({}, {})
    assert keys.claims.holders(["a", "b"]) == {}
    assert held.find(("r", "a")) is None
    assert not held.is_known(token)


def test_what_is_lent_and_not_begun_goes_to_who_needs_it_or_back(keys):
    with Holding(keys, name="sweep", lends=True) as outer, Holding(keys) as inner:
        outer.acquire(["a", "b"])
        for key in "ab":
            outer.offer(key, key.upper())

        assert inner.take_over(["a"]) == {"a": "A"}
        outer.give_back()

        assert keys.claims.holders(["a", "b"]).keys() == {"a"}
        assert outer.is_asked


def test_turn_comes_when_the_attempt_finds_something(keys, sqlite):
    found = iter([None, None, "it"])

    with Holding(keys) as holding:
        assert Turn(sqlite, keys, Patience(first_pause_s=0)).wait("a", holding, lambda: next(found)) == "it"
    with Holding(keys) as holding:
        assert Turn(sqlite, keys, Patience()).wait("a", holding, lambda: ()) == ()


def test_turn_that_does_not_come_is_given_up(keys, sqlite):
    keys.claims.acquire(["a"])
    impatient = Turn(sqlite, keys, Patience(limit_s=0.01, first_pause_s=0.01, say_after_s=0))

    with (
        Holding(keys) as holding,
        pytest.raises(ClaimTimeoutError, match=r"^the thing is held by process \d+ .* for longer"),
    ):
        impatient.wait("a", holding, lambda: None, name="the thing")
    with (
        sqlite.transaction(),
        Holding(keys) as holding,
        pytest.raises(
            ClaimTimeoutError, match=r"^'a' is held by process .* which a transaction does not wait for"
        ),
    ):
        Turn(Database(sqlite), keys, Patience()).wait("a", holding, lambda: None)
