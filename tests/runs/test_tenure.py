"""The claims of one call or sweep: what is taken in, what is lost, and that everything is given back."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from entropic import ClaimTimeoutError
from entropic.leases import held
from entropic.leases.claims import Claims
from entropic.model.records import RecordReader
from entropic.process.patience import Patience
from entropic.runs import tenure as module
from entropic.runs.attempts import Work
from entropic.runs.endings import Endings
from entropic.runs.tenure import Tenure
from tests.support.protocol_cases import claims_on

pytestmark = pytest.mark.usefixtures("leases_end_at_once")

A, B = {"a": 1.5}, {"a": 2.5}


@pytest.fixture
def store(place):
    return place.store()


def wanted(store, *params):
    identities = [store._table.parameters.identify(one) for one in params]
    return {identity.id: identity for identity in identities}


def claimed_keys(place):
    return sorted(row.record_id for row in place.sql("SELECT record_id FROM entropic_claims"))


def states(place):
    return sorted(row.state for row in place.sql("SELECT state FROM entropic_attempts"))


def outcome_of(store, key, identity=None):
    """Run the job of a key, which is that of A by default, as a worker does; return what comes of it."""
    table = store._table
    work = Work(store.runner, str(table.root), table.marker)
    (outcome,) = work([table.job(identity or wanted(store, A)[key], key, None)])
    return outcome


def failing(params):
    raise ValueError(params["a"])


def test_claim_sorts_keys_into_granted_done_and_held_by_others(place, store):
    store.run_or_retrieve(A)
    keys = wanted(store, A, B, {"a": 3.5}, {"a": 4.5})
    done, free, held, gone = keys
    claims_on(store.database).acquire([held])
    record = store.run_or_retrieve({"a": 4.5})
    Path(record.result_file).unlink()

    with Tenure(store._table) as tenure:
        claimed = tenure.claim(keys)

        assert list(claimed.granted) == [free, gone]
        assert claimed.granted[free] is None
        assert claimed.granted[gone].id == gone
        assert list(claimed.done) == [done]
        assert claimed_keys(place) == sorted([free, held, gone])
    assert claimed_keys(place) == [held]


def test_key_that_another_keeper_here_has_not_begun_is_taken_where_that_is_asked_for(store):
    """A sweep begins with what nobody has, and helps others at its end."""
    keys = wanted(store, A, B)
    with Tenure(store._table, lends=True) as first, Tenure(store._table, lends=True) as second:
        first.claim(keys)

        assert second.claim(keys, takes=False).granted == {}
        assert list(second.claim(keys, takes=True).granted) == list(keys)
        assert first.claim(keys, takes=False).granted == {}


def test_forced_claim_is_granted_with_the_row_that_there_is(store):
    store.run_or_retrieve(A)
    (key,) = wanted(store, A)

    with Tenure(store._table) as tenure:
        claimed = tenure.claim(wanted(store, A), is_forced=True)

    assert claimed.done == {}
    assert claimed.granted[key].row["a"] == 1.5


def test_claim_of_an_owner_that_is_gone_is_taken_over_and_its_loss_recorded(place, store):
    (key,) = wanted(store, A)
    claims_on(store.database, lease_s=-1.0).acquire([key])

    with Tenure(store._table) as tenure:
        claimed = tenure.claim(wanted(store, A))

    assert claimed.granted == {key: None}
    (attempt,) = place.sql("SELECT state, params FROM entropic_attempts")
    assert attempt.state == "LOST"
    assert '"a": 1.5' in attempt.params


def test_keys_are_granted_in_the_order_in_which_they_are_wanted(store):
    keys = wanted(store, *({"a": float(n)} for n in range(20)))

    with Tenure(store._table) as tenure:
        claimed = tenure.claim(keys)

    assert list(claimed.granted) == list(keys)


STEPS = {
    "claimed": (Claims, "acquire"),
    "taken in": (module, "recover"),
    "loss recorded": (Endings, "lose"),
    "looked up": (RecordReader, "find_many"),
    "looked at": (RecordReader, "present"),
}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("step", STEPS)
def test_whatever_comes_between_two_steps_gives_the_key_back(place, store, monkeypatch, step, error):
    claims_on(store.database, lease_s=-1.0).acquire(list(wanted(store, A)))
    owner, name = STEPS[step]
    original = getattr(owner, name)

    def interrupted(*given, **options):
        original(*given, **options)
        raise error

    def claim():
        with Tenure(store._table) as tenure:
            tenure.claim(wanted(store, A))

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(error):
            claim()

    assert claimed_keys(place) == []


@pytest.mark.parametrize("end", ["publish", "fail", "cancel"])
def test_end_of_a_run_uses_the_claim_up(place, store, end):
    (key,) = wanted(store, A)

    with Tenure(store._table) as tenure:
        tenure.claim(wanted(store, A))
        if end == "publish":
            assert tenure.publish([outcome_of(store, key)]) == (set(), [])
        elif end == "fail":
            store.runner = failing
            tenure.fail([outcome_of(store, key)])
        else:
            job = store._table.job(wanted(store, A)[key], key, None)
            tenure.cancel(job, datetime.now(UTC))

        assert claimed_keys(place) == []
        assert held.find((store._table.marker.root, key)) is None
    assert states(place) == [{"publish": "COMPLETED", "fail": "FAILED", "cancel": "CANCELLED"}[end]]


def test_key_whose_backend_was_lost_can_be_begun_again(store):
    (key,) = keys = wanted(store, A)
    mark = (store._table.marker.root, key)

    with Tenure(store._table, name="sweep", lends=True) as tenure:
        tenure.claim(keys)
        begun = [held.begin(mark, "sweep"), held.begin(mark, "sweep")]
        tenure.reset([key])
        begun.append(held.begin(mark, "sweep"))

    assert begun == [True, False, True]


def test_claim_that_was_lost_publishes_nothing_and_is_the_new_owners(place, store):
    (key,) = wanted(store, A)

    with Tenure(store._table) as tenure:
        tenure.claim(wanted(store, A))
        receipt = outcome_of(store, key)
        place.sql("UPDATE entropic_claims SET token = 'another', owner = 'another'")

        assert tenure.publish([receipt]).lost == {key}
    assert place.rows() == {}
    assert claimed_keys(place) == [key]


def test_claim_that_was_lost_keeps_no_other_run_of_its_batch_from_its_row(place, store):
    lost, other = keys = wanted(store, A, B)

    with Tenure(store._table) as tenure:
        tenure.claim(keys)
        receipts = [outcome_of(store, key, keys[key]) for key in keys]
        place.sql(
            "UPDATE entropic_claims SET token = 'another', owner = 'another' WHERE record_id = :key", key=lost
        )

        published = tenure.publish(receipts)

    assert published == ({lost}, [])
    assert list(place.rows()) == [other]
    assert claimed_keys(place) == [lost]


def test_claim_takes_what_is_not_begun_in_this_process_and_commits_what_has_ended(place, store):
    ended, free = keys = wanted(store, A, B)
    mark = (store._table.marker.root, ended)

    with Tenure(store._table, name="sweep", lends=True) as outer, Tenure(store._table) as inner:
        outer.claim(keys)
        held.begin(mark, "sweep")
        held.end(mark, "sweep", outcome_of(store, ended, keys[ended]))

        claimed = inner.claim(keys)

        assert list(claimed.done) == [ended]
        assert list(claimed.granted) == [free]
        assert claimed_keys(place) == [free]
    assert claimed_keys(place) == []


def test_claim_that_is_taken_while_another_thread_gives_the_key_back_stays_known(place, store, monkeypatch):
    real = Claims.release
    tokens = []

    def release(self, pairs):
        real(self, pairs)
        if not tokens:  # the thread that runs the sweep hears of what was withdrawn, and comes back to it
            tokens.append("")
            tenure.claim(wanted(store, A))
            tokens[:] = [held.find((store._table.marker.root, store.key(A))).token]

    with Tenure(store._table, name="sweep", lends=True) as tenure:
        tenure.claim(wanted(store, A))
        with monkeypatch.context() as patch:
            patch.setattr(Claims, "release", release)
            tenure.give_back()

        assert held.is_known(tokens[0])
        assert holder(store).token == tokens[0]
    assert claimed_keys(place) == []


@pytest.mark.parametrize("lends", [True, False])
def test_key_of_another_keeper_can_be_had_before_its_run_and_after_it(store, lends):
    (key,) = keys = wanted(store, A)
    mark = (store._table.marker.root, key)

    with Tenure(store._table, name="sweep", lends=lends) as outer, Tenure(store._table) as inner:
        can = [inner.can_have(key)]
        outer.claim(keys)
        can.append(inner.can_have(key))
        held.begin(mark, "sweep")
        can.append(inner.can_have(key))
        held.end(mark, "sweep", outcome_of(store, key))
        can += [inner.can_have(key), outer.can_have(key)]

    assert can == [False, lends, False, lends, False]


def test_what_was_ended_for_others_is_not_ended_again(place, store):
    done, failed = keys = wanted(store, A, B)

    with Tenure(store._table, name="sweep", lends=True) as tenure:
        tenure.claim(keys)
        receipt = outcome_of(store, done, keys[done])
        store.runner = failing
        failure = outcome_of(store, failed, keys[failed])
        for key, outcome in ((done, receipt), (failed, failure)):
            held.begin((store._table.marker.root, key), "sweep")
            held.end((store._table.marker.root, key), "sweep", outcome)
        tenure.give_back()

        assert claimed_keys(place) == []
        assert tenure.publish([receipt]) == (set(), [])
        tenure.fail([failure])

    assert states(place) == ["COMPLETED", "FAILED"]


def test_run_that_could_not_be_committed_is_taken_in_by_the_next_claim(place, store, monkeypatch):
    (key,) = wanted(store, A)
    publisher = type(store._table.publisher)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(publisher, "publish", full)
        with pytest.raises(OSError, match="No space left"):
            store.run_or_retrieve(A)
    assert claimed_keys(place) == []

    with Tenure(store._table) as tenure:
        claimed = tenure.claim(wanted(store, A))

    assert list(claimed.done) == [key]
    assert len(place.runner().calls) == 1
    assert claimed_keys(place) == []


def test_claims_that_cannot_be_given_back_do_not_hide_what_happened(store, monkeypatch, caplog):
    def unreachable(*_):
        raise OperationalError("DELETE ...", {}, OSError("the server is away"))

    def claim():
        with Tenure(store._table) as tenure:
            tenure.claim(wanted(store, A))
            monkeypatch.setattr(Claims, "release", unreachable)
            raise ValueError("what happened")

    with pytest.raises(ValueError, match="what happened"):
        claim()

    said = "1 claims could not be released; they end with their lease: the server is away"
    assert [(record.message, record.exc_info) for record in caplog.records] == [(said, None)]


def test_claim_that_is_given_back_too_deep_goes_with_that_of_an_outer_run(place, store, monkeypatch, caplog):
    def too_deep(*_):
        raise RecursionError

    def inner():
        with Tenure(store._table) as tenure:
            tenure.claim(wanted(store, A))
            monkeypatch.setattr(Claims, "release", too_deep)
            raise ValueError("what happened")

    with Tenure(store._table) as outer:
        outer.claim(wanted(store, B))
        with pytest.raises(ValueError, match="what happened"):
            inner()
        monkeypatch.undo()
        assert sorted(claimed_keys(place)) == sorted([store.key(A), store.key(B)])

    assert claimed_keys(place) == []
    assert "could not be released" not in caplog.text


def test_waiting_call_names_the_holder_once_then_gives_up(place, caplog):
    store = place.store()
    store._patience = Patience(limit_s=0.2, say_after_s=0.0, first_pause_s=0.01, longest_pause_s=0.01)
    claims_on(store.database).acquire([store.key(A)])

    with pytest.raises(ClaimTimeoutError, match=r"for longer than wait_timeout_s=0\.2\. Nothing") as caught:
        store.run_or_retrieve(A)

    assert f"is held by {holder(store)} for" in str(caught.value)
    assert [r.getMessage() for r in caplog.records if "waiting for" in r.getMessage()] == [
        f"waiting for {store.key(A)}, which is run by {holder(store)}"
    ]


def holder(store):
    (found,) = store._table.claims.holders([store.key(A)]).values()
    return found
