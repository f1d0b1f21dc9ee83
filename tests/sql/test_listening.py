"""Who waits is woken by another thread, at once; what PostgreSQL tells is tested with the subscriptions."""

import os
import select
import socket
import threading
import time

import pytest
from sqlalchemy import create_engine
from sqlalchemy import select as select_of

from entropic import Database
from entropic.sql.listening import Alarm, notice
from tests.support.processes import open_files

LONG_S = 60.0


def woken_after(alarm, timeout_s=LONG_S):
    begun = time.monotonic()
    alarm.wait(timeout_s)
    return time.monotonic() - begun


@pytest.fixture
def alarm():
    """An alarm, closed afterwards."""
    made = Alarm("entropic_test")
    yield made
    made.close()


def test_who_waits_is_woken_once_for_all_rings_before(alarm):
    for _ in range(10_000):  # more than the socket holds
        alarm.ring()

    assert woken_after(alarm) < LONG_S / 2
    assert woken_after(alarm, 0.05) >= 0.04


def test_who_waits_already_is_woken_by_another_thread(alarm):
    thread = threading.Thread(target=alarm.ring)
    thread.start()

    assert woken_after(alarm) < LONG_S / 2
    thread.join()


def test_ring_of_a_closed_alarm_does_nothing_and_leaves_nothing_open():
    before = open_files()
    alarm = Alarm("entropic_test")
    alarm.close()

    alarm.ring()

    assert open_files() == before


def test_commit_of_another_connection_wakes_who_listens_on_postgresql(postgres_url, alarm):
    database = Database(create_engine(postgres_url))
    heard = Database(postgres_url)
    heard.look(alarm.listen)
    heard.look(alarm.listen)  # listens already

    assert woken_after(alarm, 0.0) < LONG_S
    with database.engine.begin() as connection:
        connection.execute(select_of(*notice(connection, "entropic_test")))
    assert woken_after(alarm, 5.0) < 5

    for one in (database, heard):
        one.dispose()


def test_word_that_comes_with_the_answer_to_another_statement_is_heard(postgres_url, alarm):
    """As one of a change that is committed while who listens looks, and does not see it yet."""
    database = Database(create_engine(postgres_url))
    heard = Database(postgres_url)
    heard.look(alarm.listen)

    def commit():
        with database.engine.begin() as connection:
            connection.execute(select_of(*notice(connection, "entropic_test")))

    thread = threading.Timer(0.1, commit)
    thread.start()
    heard.look(lambda connection: connection.exec_driver_sql("SELECT pg_sleep(0.5)").all())
    thread.join()

    assert woken_after(alarm, 5.0) < 5
    for one in (database, heard):
        one.dispose()


def test_nobody_is_told_elsewhere(sqlite, alarm):
    sqlite.look(alarm.listen)

    assert sqlite.look(lambda connection: notice(connection, "entropic_test")) == ()
    assert woken_after(alarm, 0.01) < LONG_S


def test_connection_that_was_closed_before_the_wait_is_not_waited_for_once(postgres_url, alarm):
    heard = Database(postgres_url)
    heard.look(alarm.listen)
    heard.dispose()

    assert woken_after(alarm) < LONG_S / 2  # whoever looks now has another connection
    assert woken_after(alarm, 0.05) >= 0.04  # and if there is none, it is not asked without a pause


def test_connection_that_another_thread_closes_ends_the_wait_whoever_has_its_number_then(postgres_url, alarm):
    heard = Database(postgres_url)
    raw = heard.look(lambda connection: alarm.listen(connection) or connection.connection.dbapi_connection)
    number = raw.fileno()
    taken, kept = socket.socketpair()

    def close():
        raw.pgconn.finish()
        os.dup2(taken.fileno(), number)  # nothing ever comes on this one

    with pytest.MonkeyPatch.context() as patch:
        polled = select.poll

        def late():  # between the moment at which it looks whether the connection is closed, and the wait
            close()
            return polled()

        patch.setattr("entropic.sql.listening.select.poll", late)
        patch.setattr(type(raw), "closed", False)
        assert woken_after(alarm) < LONG_S / 2

    os.close(number)
    for one in (taken, kept):
        one.close()
    heard.dispose()
