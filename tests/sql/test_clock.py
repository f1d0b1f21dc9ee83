"""The database's clock, whatever the zone of the session; and the one that tests move."""

import time

from sqlalchemy import event, select

from entropic import Database
from entropic.sql.clock import ManualClock, database_now


def test_clock_does_not_depend_on_the_time_zone_of_the_session(server_url):
    database = Database(server_url)

    @event.listens_for(database.engine, "connect")
    def _(connection, record):
        zone = "SET time_zone = '+05:00'" if database.dialect == "mysql" else "SET TIME ZONE 'Asia/Tokyo'"
        with connection.cursor() as cursor:
            cursor.execute(zone)
        connection.commit()

    with database.reading() as connection:
        now = connection.scalar(database_now().select())

    assert abs(now - time.time()) < 30


def test_clock_moves_within_a_transaction(database_url):
    database = Database(database_url)

    def work(connection):
        first = connection.scalar(database_now().select())
        time.sleep(0.02)
        return connection.scalar(database_now().select()) - first

    assert database.write(work) > 0


def test_statement_made_before_the_clock_was_moved_sees_the_time_at_which_it_runs(database_url):
    database, clock = Database(database_url), ManualClock(100.0)
    statement = select(clock() + 5.0, clock())

    before = database.read(lambda connection: tuple(connection.execute(statement).one()))
    clock.advance(0.25)

    assert before == (105.0, 100.0)
    assert database.read(lambda connection: tuple(connection.execute(statement).one())) == (105.25, 100.25)
