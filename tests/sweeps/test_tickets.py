"""Tickets of chunks: one has the chunk, and what has none does nothing."""

import pytest

from entropic.disk.roots import STATE, Marker
from entropic.process.identity import this_process
from entropic.runs.attempts import Work
from entropic.runs.jobs import Job, NotBegun
from entropic.sweeps.backends.tickets import TicketedWork
from entropic.sweeps.chunks import as_noting, as_ticketed
from tests.support.processes import run_together

JOBS = [Job(key, f"{key}.txt", {}, {}) for key in ("a", "b")]


def unrun(params):
    raise AssertionError("it was begun")


@pytest.fixture
def tickets(tmp_path):
    work = Work(unrun, str(tmp_path), Marker("r", "d", "t"), "sweep", holder=this_process().as_dict())
    return TicketedWork(work)


def take(tickets, names):
    return [name for name in names if tickets.take(name)]


def test_ticket_is_taken_by_one_of_many(tickets):
    names = [f"ticket-{n}" for n in range(40)]
    assert all(tickets.issue(name) for name in names)

    taken = run_together(take, [(tickets, names)] * 3)

    assert sorted(name for one in taken for name in one) == sorted(names)


def test_chunk_without_its_ticket_begins_nothing(tickets):
    tickets.issue("one")
    tickets.take("one")

    assert tickets.for_task("one")(JOBS) == [NotBegun("a"), NotBegun("b")]
    assert tickets.for_task("of a sweep that is over")(JOBS) == [NotBegun("a"), NotBegun("b")]


def test_ticket_that_cannot_be_made_is_none(tickets, tmp_path, caplog):
    (tmp_path / STATE).write_text("a file where the folder was to be")

    assert not tickets.issue("one")
    assert "cannot be withdrawn" in caplog.text


def test_work_says_what_it_is(tickets):
    assert as_ticketed(tickets) is tickets
    assert as_noting(tickets) is tickets
    assert tickets.death("one") is None
    assert as_ticketed(tickets.work) is None
