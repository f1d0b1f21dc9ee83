"""A database's clock that is set by ten minutes while one Store runs a key and another waits for it."""

import time

import pytest

from entropic import ClaimTimeoutError
from tests.support import heartbeat_cases as cases
from tests.support.heartbeat_cases import child
from tests.support.protocol_cases import Place
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

LEASE_S = 3.0
KEY = {"a": 0.0}


@pytest.fixture(params=["sqlite_url", "postgres_url", "mysql_url"])
def place(request, tmp_path):
    return Place(request.getfixturevalue(request.param), tmp_path)


def set_clock(place, seconds):
    """What was written before a clock was set forward is so much older after it.

    And let only the lease say whether the owner lives, as between hosts.
    """
    place.sql(
        "UPDATE entropic_claims SET boot = 'of another host', acquired_at = acquired_at - :s, "
        "expires_at = expires_at - :s",
        s=seconds,
    )


each_way = pytest.mark.parametrize("seconds", [600, -600], ids=["forward", "back"])


@each_way
@pytest.mark.parametrize("waiters_s", [LEASE_S, LEASE_S / 10], ids=["same lease", "shorter lease"])
def test_clock_that_is_set_takes_no_key_from_a_live_run(place, seconds, waiters_s):
    with child(cases.obtain, place, "1", LEASE_S, 0.0) as owner:
        wait_for((place.folder / "begun").exists)
        set_clock(place, seconds)
        with pytest.raises(ClaimTimeoutError):
            place.store("2", lease_s=waiters_s, wait_timeout_s=2 * LEASE_S).run_or_retrieve(KEY)
        (place.folder / "go").touch()
        got = owner.result()

    assert got == ("obtained", "1")
    assert len(place.runner().calls) == 1


@each_way
def test_clock_that_is_set_keeps_no_key_of_a_silent_owner(place, seconds):
    with child(cases.obtain, place, "1", LEASE_S, 0.0) as owner:
        wait_for((place.folder / "begun").exists)
        owner.stop_group()
        set_clock(place, seconds)
        begun = time.monotonic()

        record = place.store("2", lease_s=LEASE_S, wait_timeout_s=60.0).run_or_retrieve(KEY)

    assert record.custom_data["version"] == "2"
    assert time.monotonic() - begun >= (LEASE_S / 3 if seconds > 0 else LEASE_S)
    assert len(place.runner().calls) == 2
