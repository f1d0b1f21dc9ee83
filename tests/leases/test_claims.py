"""Claims: one holder per key, whatever races, and none that outlives its owner or its lease."""

import re
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import text

from entropic import Database
from entropic.leases.claims import CHUNK, Holder
from entropic.process.identity import this_process
from entropic.sql.clock import ManualClock
from tests.support import protocol_cases as cases
from tests.support.gone import dead, elsewhere, living
from tests.support.lost_commits import lose_commit
from tests.support.processes import outcomes_of, run_together
from tests.support.protocol_cases import Watch, claims_on

BETWEEN_PROCESSES = ("sqlite-file", "postgresql", pytest.param("mysql", marks=pytest.mark.slow))


@pytest.fixture
def shared_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database that several processes can open."""
    fixture = {"sqlite-file": "sqlite_url", "postgresql": "postgres_url", "mysql": "mysql_url"}
    return request.getfixturevalue(fixture[request.param])


between_processes = pytest.mark.parametrize("shared_url", BETWEEN_PROCESSES, indirect=True)


def stored(database: Database) -> dict[tuple[str, str], str]:
    with database.reading() as connection:
        rows = connection.execute(text("SELECT table_name, record_id, token FROM entropic_claims"))
        return {(row.table_name, row.record_id): row.token for row in rows}


def watched(database: Database, keys: list[str], seconds: float = 60.0):
    """Claims of somebody who has watched the holders of *keys* for so long, by a clock of the test's."""
    watch = Watch()
    taker = claims_on(database, watch=watch)
    taker.holders(keys)
    watch.wait(seconds)
    return taker


def move_elsewhere(database: Database) -> None:
    """Make every claim that of another host."""
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE entropic_claims SET boot = 'of another host', host = 'elsewhere'"))


def meeting(folder: Path) -> Path:
    place = folder / "meeting"
    place.mkdir()
    return place


def test_acquire_of_free_keys_grants_each_and_stores_its_token(database_url):
    database = Database(database_url)

    granted = claims_on(database).acquire(["k2", "k1"])

    assert {key: grant.former for key, grant in granted.items()} == {"k1": None, "k2": None}
    assert stored(database) == {("protocol_sims", key): grant.token for key, grant in granted.items()}


def test_acquire_while_a_live_owner_is_in_its_lease_grants_nothing(database_url):
    database = Database(database_url)
    first = claims_on(database).acquire(["k"])

    second = claims_on(database).acquire(["k", "free"])

    assert list(second) == ["free"]
    assert stored(database)["protocol_sims", "k"] == first["k"].token


def test_acquire_after_the_lease_takes_over_with_another_token(database_url):
    database = Database(database_url)
    former = claims_on(database, lease_s=-1.0).acquire(["k"])["k"]

    taken = watched(database, ["k"]).acquire(["k"])["k"]

    assert taken.former.token == former.token
    assert taken.token != former.token
    assert stored(database) == {("protocol_sims", "k"): taken.token}


def test_lease_ends_when_its_seconds_are_over_on_the_clock_and_not_before(database_url):
    clock = ManualClock()
    owner = claims_on(Database(database_url), lease_s=60.0, clock=clock)
    owner.acquire(["k"])
    owner.holders(["k"])

    clock.advance(59.0)
    within_lease, left_s = owner.acquire(["k"]), owner.holders(["k"])["k"].left_s
    clock.advance(1.0)

    assert within_lease == {}
    assert left_s == pytest.approx(1.0)
    assert owner.acquire(["k"])["k"].former is not None


def test_take_over_of_a_claim_that_was_extended_meanwhile_fails(database_url):
    clock = ManualClock()
    database = Database(database_url)
    late = claims_on(database, clock=clock)
    late.acquire(["k"])
    rival = claims_on(database, clock=clock)
    rival.holders(["k"])
    clock.advance(61.0)
    seen = rival.holders(["k"])["k"]
    late.extend()

    was_taken = rival._take_over("k", seen, "a-new-token")

    assert seen.is_gone()
    assert not was_taken
    assert "a-new-token" not in stored(database).values()


def test_claim_that_was_extended_before_its_owner_died_is_taken_over(sqlite_url):
    database = Database(sqlite_url)
    claims_on(database).acquire(["k"])
    gone = dead()
    with database.engine.begin() as connection:
        change = "UPDATE entropic_claims SET owner = :owner, host = :host, boot = :boot, pid = :pid, started = :started"
        connection.execute(text(change), gone.as_dict())
    taker = claims_on(database)
    seen = taker.holders(["k"])["k"]
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE entropic_claims SET expires_at = expires_at + 60"))

    was_taken = taker._take_over("k", seen, "a-new-token")

    assert was_taken
    assert stored(database) == {("protocol_sims", "k"): "a-new-token"}


def test_release_leaves_a_claim_that_was_lost_to_its_new_owner(database_url):
    database = Database(database_url)
    late = claims_on(database, lease_s=-1.0)
    former = late.acquire(["k"])["k"]
    taken = watched(database, ["k"]).acquire(["k"])["k"]

    late.release([("k", former.token)])

    assert stored(database) == {("protocol_sims", "k"): taken.token}


def test_release_frees_the_key_at_once(database_url):
    database = Database(database_url)
    owner = claims_on(database)
    token = owner.acquire(["k"])["k"].token
    owner.release([("k", token)])

    again = owner.acquire(["k"])["k"]

    assert again.former is None
    assert again.token != token


def test_delete_counts_only_claims_whose_token_is_still_valid(database_url):
    database = Database(database_url)
    owner = claims_on(database)
    granted = owner.acquire(["k1", "k2"])
    pairs = [("k1", granted["k1"].token), ("k2", "0" * 32), ("k3", granted["k1"].token)]

    deleted = database.write(lambda connection: owner.delete(connection, pairs))

    assert deleted == 1
    assert stored(database) == {("protocol_sims", "k2"): granted["k2"].token}


def test_claims_of_two_tables_on_one_key_do_not_meet(database_url):
    database = Database(database_url)
    claims_on(database, "one").acquire(["k"])

    granted = claims_on(database, "two").acquire(["k"])

    assert list(granted) == ["k"]


def test_keys_that_differ_in_case_or_trailing_space_are_two_claims(database_url):
    database = Database(database_url)
    keys = ["k", "K", "k "]

    granted = claims_on(database).acquire(keys)

    assert set(granted) == set(keys)


def test_extend_moves_the_end_of_this_process_claims_only(database_url):
    database = Database(database_url)
    claims_on(database, lease_s=5.0).acquire(["mine", "another's"])
    with database.engine.begin() as connection:
        change = "UPDATE entropic_claims SET owner = 'another' WHERE record_id LIKE 'another%'"
        connection.execute(text(change))

    claims_on(database, lease_s=1000.0).extend()

    left = {key: holder.left_s for key, holder in claims_on(database).holders(["mine", "another's"]).items()}
    assert left["mine"] > 900
    assert left["another's"] <= 5


def test_has_live_tells_whether_a_process_holds_a_claim_in_its_lease(database_url):
    database = Database(database_url)
    owner = this_process().owner
    claims_on(database, lease_s=-1.0).acquire(["over"])
    at_first = claims_on(database).has_live([owner])
    before = watched(database, ["over"]).has_live([owner])
    claims_on(database).acquire(["k"])

    assert at_first
    assert not before
    assert claims_on(database).has_live([owner, "another"])
    assert not claims_on(database).has_live(["another"])
    assert not claims_on(database, "another_table").has_live([owner])


def test_acquire_of_more_keys_than_a_statement_takes_grants_all(database_url):
    database = Database(database_url)
    keys = [f"k{n:04}" for n in range(2 * CHUNK + 1)]
    owner = claims_on(database)

    granted = owner.acquire(keys)
    owner.release([(key, grant.token) for key, grant in granted.items()])

    assert set(granted) == set(keys)
    assert len({grant.token for grant in granted.values()}) == len(keys)
    assert stored(database) == {}


def test_tokens_are_never_used_again(sqlite_url):
    database = Database(sqlite_url)
    owner = claims_on(database, lease_s=-1.0)

    tokens = [owner.acquire(["k"])["k"].token for _ in range(20)]

    assert len(set(tokens)) == 20


@pytest.mark.parametrize("lease_s", [0.0, -1.0])
def test_claim_of_no_lease_is_watched_for_the_lease_of_who_wants_it(sqlite_url, lease_s):
    database = Database(sqlite_url)
    token = claims_on(database, lease_s=lease_s).acquire(["k"])["k"].token

    too_early = watched(database, ["k"], 19.0).acquire(["k"])

    assert re.fullmatch("[0-9a-f]{32}", token)
    assert too_early == {}
    assert list(watched(database, ["k"], 20.0).acquire(["k"])) == ["k"]


def test_lease_is_counted_by_the_clock_of_the_database(database_url, monkeypatch):
    database = Database(database_url)
    ensure = claims_on(database)
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: 0.0)

    ensure.acquire(["k"])

    holder = ensure.holders(["k"])["k"]
    assert 50 < holder.left_s <= 60
    assert abs(holder.acquired_at - real) < 30


def test_holder_says_process_host_and_time(sqlite_url):
    database = Database(sqlite_url)
    owner = claims_on(database)
    owner.acquire(["k"])

    text_of = str(owner.holders(["k"])["k"])

    assert str(this_process().pid) in text_of
    assert this_process().host in text_of
    assert "UTC" in text_of


def holder_of(process, *, is_silent):
    return Holder("k", process, "token", acquired_at=0.0, expires_at=60.0, left_s=-1.0, is_silent=is_silent)


@pytest.mark.parametrize("is_silent", [True, False])
def test_claim_of_another_host_holds_until_its_owner_is_silent(is_silent):
    holder = holder_of(elsewhere(), is_silent=is_silent)

    assert (holder.is_gone(), holder.is_abandoned()) == (is_silent, is_silent)


def test_claim_of_a_process_of_this_host_that_is_alive_is_not_abandoned_when_its_lease_is_over():
    holder = holder_of(living(), is_silent=True)

    assert (holder.is_gone(), holder.is_abandoned()) == (True, False)


def test_claim_of_a_process_of_this_host_that_has_ended_is_gone_at_once():
    holder = holder_of(dead(), is_silent=False)

    assert (holder.is_gone(), holder.is_abandoned()) == (True, True)


@between_processes
@pytest.mark.parametrize("arrives", [True, False])
def test_extension_whose_answer_is_lost_is_made(shared_url, arrives):
    database = Database(shared_url)
    claims_on(database, lease_s=5.0).acquire(["k1"])
    lose_commit(database, arrives=arrives)

    claims_on(database, lease_s=1000.0).extend()

    assert claims_on(database).holders(["k1"])["k1"].left_s > 900
    database.dispose()


@between_processes
@pytest.mark.parametrize("arrives", [True, False])
def test_release_whose_answer_is_lost_is_made_once(shared_url, arrives):
    database = Database(shared_url)
    owner = claims_on(database)
    granted = owner.acquire(["k1", "k2"])
    lose_commit(database, arrives=arrives)

    owner.release([("k1", granted["k1"].token)])

    assert stored(database) == {("protocol_sims", "k2"): granted["k2"].token}
    database.dispose()


@between_processes
@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("left_s", [None, -1.0], ids=["free", "left"])
def test_claim_whose_answer_is_lost_is_granted_once(shared_url, left_s, arrives):
    database = Database(shared_url)
    if left_s is not None:
        claims_on(database, lease_s=left_s).acquire(["k"])
    taker = watched(database, ["k"])
    lose_commit(database, arrives=arrives)

    granted = taker.acquire(["k"])

    assert stored(database) == {("protocol_sims", "k"): granted["k"].token}
    database.dispose()


@pytest.mark.parametrize(
    "shared_url",
    ["postgresql", *(pytest.param(one, marks=pytest.mark.slow) for one in ("sqlite-file", "mysql"))],
    indirect=True,
)
def test_eight_processes_that_want_the_same_keys_are_granted_each_key_once(shared_url, tmp_path):
    keys = [f"k{n}" for n in range(50)]
    claims_on(Database(shared_url))

    granted = run_together(cases.acquire_together, [(shared_url, keys, meeting(tmp_path), 8)] * 8)

    assert Counter(key for one in granted for key in one) == Counter(keys)
    assert set(stored(Database(shared_url)).values()) == {token for one in granted for token in one.values()}


@pytest.mark.parametrize(
    "shared_url",
    ["sqlite-file", *(pytest.param(one, marks=pytest.mark.slow) for one in ("postgresql", "mysql"))],
    indirect=True,
)
def test_eight_processes_that_find_expired_claims_take_over_each_once(shared_url, tmp_path):
    keys = [f"k{n}" for n in range(50)]
    claims_on(Database(shared_url), lease_s=-1.0).acquire(keys)

    granted = run_together(cases.take_over_together, [(shared_url, keys, meeting(tmp_path), 8)] * 8)

    assert Counter(key for one in granted for key in one) == Counter(keys)
    assert set(stored(Database(shared_url)).values()) == {token for one in granted for token in one.values()}


@between_processes
def test_claim_of_a_dead_owner_on_this_host_is_taken_over_at_once(shared_url):
    database = Database(shared_url)
    claims_on(database)
    (outcome,) = outcomes_of(cases.acquire_and_die, [(shared_url, ["k"], 3600.0)])

    taken = claims_on(database).acquire(["k"])

    assert outcome.exitcode == -9
    assert taken["k"].former is not None


@between_processes
def test_claim_of_an_owner_on_another_host_is_kept_until_its_lease_is_over(shared_url):
    database = Database(shared_url)
    claims_on(database)
    outcomes_of(cases.acquire_and_die, [(shared_url, ["k"])])
    move_elsewhere(database)
    clock = ManualClock(time.time())
    taker = claims_on(database, clock=clock)
    at_first = taker.acquire(["k"])
    clock.advance(50.0)
    within_lease = taker.acquire(["k"])
    clock.advance(20.0)

    after_lease = taker.acquire(["k"])

    assert at_first == within_lease == {}
    assert after_lease["k"].former is not None


def test_end_of_a_lease_counts_once_the_claim_was_watched_for_a_third_of_it(database_url):
    database, clock, watch = Database(database_url), ManualClock(), Watch()
    claims_on(database, clock=clock).acquire(["k"])
    clock.advance(600)
    taker = claims_on(database, clock=clock, watch=watch)

    granted = {}
    for second in (0, 19, 20):
        watch.now_s = 1000.0 + second
        granted[second] = list(taker.acquire(["k"]))

    assert granted == {0: [], 19: [], 20: ["k"]}


@pytest.mark.parametrize("seconds", [600, -600])
def test_clock_that_is_set_takes_nothing_from_an_owner_that_lives(database_url, seconds):
    database, clock, watch = Database(database_url), ManualClock(), Watch()
    owner, taker = claims_on(database, clock=clock), claims_on(database, clock=clock, watch=watch)
    owner.acquire(["k"])

    taken = dict(taker.acquire(["k"]))
    clock.advance(seconds)
    for _ in range(20):
        taken |= taker.acquire(["k"])
        watch.wait(10.0)
        clock.advance(10.0)
        owner.extend()

    assert taken == {}


def test_claim_that_does_not_change_for_a_lease_is_over_whatever_the_clock_says(database_url):
    database, clock, watch = Database(database_url), ManualClock(), Watch()
    claims_on(database, clock=clock).acquire(["k"])
    clock.advance(-600)
    taker = claims_on(database, clock=clock, watch=watch)
    taker.holders(["k"])

    watch.wait(59.0)
    before = taker.acquire(["k"])
    watch.wait(1.0)

    assert before == {}
    assert taker.acquire(["k"])["k"].former is not None


@pytest.mark.parametrize("left_s", [1.0, -1.0], ids=["within it", "after it"])
@pytest.mark.parametrize(("owners_s", "takers_s"), [(60.0, 1.0), (1.0, 60.0)])
def test_lease_that_counts_is_that_of_the_owner(sqlite_url, owners_s, takers_s, left_s):
    """Who waits with a shorter lease takes nothing away, and who has a longer one waits no longer."""
    database, clock, watch = Database(sqlite_url), ManualClock(), Watch()
    claims_on(database, lease_s=owners_s, clock=clock).acquire(["k"])
    clock.advance(owners_s - left_s)
    taker = claims_on(database, lease_s=takers_s, clock=clock, watch=watch)
    due_s = owners_s if left_s > 0 else owners_s / 3

    granted = []
    for waited_s in (0.0, due_s - 0.01, 0.01):
        watch.wait(waited_s)
        granted.append(list(taker.acquire(["k"])))

    assert granted == [[], [], ["k"]]


def test_claim_that_is_extended_is_watched_from_then_on(sqlite_url):
    database, watch = Database(sqlite_url), Watch()
    owner, taker = claims_on(database, lease_s=-1.0), claims_on(database, watch=watch)
    owner.acquire(["k"])
    taker.holders(["k"])
    watch.wait(19.0)
    owner.extend()
    taker.holders(["k"])
    watch.wait(19.0)

    too_early = taker.acquire(["k"])
    watch.wait(1.0)

    assert too_early == {}
    assert list(taker.acquire(["k"])) == ["k"]


def test_claims_that_were_not_looked_at_for_a_lease_are_forgotten(sqlite_url):
    database, watch = Database(sqlite_url), Watch()
    keys = [f"k{n}" for n in range(3 * CHUNK)]
    claims_on(database).acquire(keys)
    taker = claims_on(database, watch=watch)
    taker.holders(keys[:CHUNK])
    watch.wait(100.0)

    taker.holders(keys[CHUNK:])

    assert set(taker._watched) == set(keys[CHUNK:])


def test_claim_whose_pid_belongs_to_another_process_now_is_taken_over(sqlite_url):
    database = Database(sqlite_url)
    owner = claims_on(database)
    owner.acquire(["k"])
    with database.engine.begin() as connection:
        change = "UPDATE entropic_claims SET owner = 'earlier', started = '1', pid = :pid"
        connection.execute(text(change), {"pid": 1 if Path("/proc/1/stat").exists() else this_process().pid})

    taken = owner.acquire(["k"])

    assert taken["k"].former is not None


def test_commit_waits_for_a_take_over_and_then_deletes_nothing(server_url):
    database = Database(server_url)
    late = claims_on(database, lease_s=-1.0)
    token = late.acquire(["k"])["k"].token
    began, deleted = threading.Event(), []

    def commit():
        began.set()
        deleted.append(database.write(lambda connection: late.delete(connection, [("k", token)])))

    with database.engine.begin() as connection:
        connection.execute(text("UPDATE entropic_claims SET token = 'taken', expires_at = expires_at + 1000"))
        thread = threading.Thread(target=commit)
        thread.start()
        began.wait(10)
        thread.join(0.2)
        waited = thread.is_alive()
    thread.join(20)

    assert waited
    assert deleted == [0]
