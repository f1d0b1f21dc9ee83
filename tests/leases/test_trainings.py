"""A run that is trained is one trainer's: whoever else comes, and whatever becomes of that one."""

import os
import signal
import time

import pytest
from sqlalchemy import text

from entropic import ClaimLostError, ClaimTimeoutError, Database
from entropic.errors import TransactionError
from entropic.leases import held
from entropic.leases.trainings import claim_training
from entropic.sql.versions import ensure_schema
from tests.support.processes import run_together

NAME = "mouse/1"


def claims(database):
    with database.reading() as connection:
        return connection.execute(text("SELECT record_id FROM entropic_claims")).scalars().all()


def test_run_that_is_trained_is_refused_to_another_trainer_until_it_ends(database):
    with claim_training(database, NAME) as claim:
        claim.require()
        with pytest.raises(
            ClaimTimeoutError, match=rf"'mouse/1' is being trained by process {os.getpid()} on "
        ):
            claim_training(database, NAME).__enter__()
        with claim_training(database, "another"):
            assert sorted(claims(database)) == ["another", NAME]

    assert claims(database) == []
    with claim_training(database, NAME):
        pass


def test_claim_of_a_training_that_raised_is_given_back(sqlite):
    before = set(held._known)
    with pytest.raises(ZeroDivisionError), claim_training(sqlite, NAME):
        1 / 0  # noqa: B018
    assert claims(sqlite) == []
    assert set(held._known) == before


def test_claim_that_cannot_be_given_back_hides_no_error_and_keeps_nothing_from_this_process(sqlite, caplog):
    stuck = "CREATE TRIGGER stuck BEFORE DELETE ON entropic_claims BEGIN SELECT RAISE(ABORT, 'stuck'); END"
    ensure_schema(sqlite, [])
    sqlite.write(lambda connection: connection.exec_driver_sql(stuck))
    with pytest.raises(ZeroDivisionError), claim_training(sqlite, NAME):
        1 / 0  # noqa: B018
    sqlite.write(lambda connection: connection.exec_driver_sql("DROP TRIGGER stuck"))

    assert "could not be released" in caplog.text
    assert claims(sqlite) == [NAME]
    with claim_training(sqlite, NAME):
        pass
    assert claims(sqlite) == []


def test_forked_child_that_leaves_the_block_gives_nothing_back(sqlite_url):
    database = Database(sqlite_url)
    block = claim_training(database, NAME)
    claim = block.__enter__()
    child = os.fork()
    if child == 0:
        try:
            block.__exit__(None, None, None)
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    claim.require()
    assert claims(database) == [NAME]
    block.__exit__(None, None, None)
    assert claims(database) == []


def test_name_of_any_length_can_be_claimed(sqlite):
    with claim_training(sqlite, "x" * 255):
        with pytest.raises(ClaimTimeoutError):
            claim_training(sqlite, "x" * 255).__enter__()
        with claim_training(sqlite, "x" * 254):
            pass


@pytest.mark.parametrize("name", ["", "../other", "/abs", "nul\0", "\ud800" * 250])
def test_name_that_is_none_is_refused(sqlite, name):
    with pytest.raises(ValueError, match="a name"):
        claim_training(sqlite, name).__enter__()


def test_claim_inside_a_transaction_is_refused(sqlite):
    with (
        sqlite.transaction(),
        pytest.raises(TransactionError, match="claim 'mouse/1' first, then open the block"),
    ):
        claim_training(sqlite, NAME).__enter__()


def test_trainer_that_was_silent_commits_nothing_more(database):
    with claim_training(database, NAME) as claim:
        database.write(lambda c: c.execute(text("UPDATE entropic_claims SET token = 'of another'")))

        def checkpoint():
            with database.transaction():
                database.write(lambda c: c.execute(text("DELETE FROM entropic_meta")))
                claim.require()

        with pytest.raises(ClaimLostError, match="'mouse/1' was taken over by another process"):
            checkpoint()
        with database.reading() as connection:
            assert connection.scalar(text("SELECT count(*) FROM entropic_meta")) == 3
    assert claims(database) == [NAME]  # the other one's


def _train_and_die(url):
    with claim_training(Database(url), NAME):
        os.kill(os.getpid(), signal.SIGKILL)


def _take_over(url):
    with claim_training(Database(url), NAME, wait_timeout_s=20) as claim:
        claim.require()
    return True


@pytest.mark.parametrize(
    "database_url",
    [
        "sqlite-file",
        pytest.param("postgresql", marks=pytest.mark.slow),
        pytest.param("mysql", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_run_of_a_killed_trainer_is_taken_over_at_once(database_url):
    with pytest.raises(AssertionError, match="exit code -9"):
        run_together(_train_and_die, [(database_url,)])
    begun = time.monotonic()
    assert run_together(_take_over, [(database_url,)]) == [True]
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lease_s": 0}, "lease_s is a number of seconds, more than 0, not 0"),
        ({"wait_timeout_s": -1}, "wait_timeout_s is a number of seconds, 0 or more, not -1"),
    ],
)
def test_claim_for_a_number_of_seconds_that_is_none_is_refused(database, options, words):
    with pytest.raises(ValueError, match=words), claim_training(database, "run", **options):
        pass


def test_claim_that_is_waited_for_as_long_as_it_takes_is_had(database):
    with claim_training(database, "run", wait_timeout_s=None) as claim:
        claim.require()
