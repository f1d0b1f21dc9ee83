"""One thread recovers while another asks for the same key: what recovery has claimed is this process's own."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from entropic.leases import held
from entropic.runs.publishing import Publisher
from tests.support import protocol_cases as cases
from tests.support.processes import outcomes_of
from tests.support.protocol_cases import Place
from tests.support.waiting import wait_for

A = {"a": 1.5}


@pytest.fixture(params=["file", "value"])
def place(tmp_path: Path, sqlite_url: str, request: pytest.FixtureRequest) -> Place:
    return Place(sqlite_url, tmp_path, in_row=request.param == "value")


@pytest.fixture
def store(place: Place):
    """A Store that was open before a process was killed whose run of A was finished, and not committed."""
    store = place.store()
    assert [one.exitcode for one in outcomes_of(cases.run_until, [(place, "line written", A)])] == [-9]
    yield store
    store.database.dispose()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


class Halt:
    """Lets the first call go on when it is told to."""

    def __init__(self, function) -> None:
        self.function, self.is_there, self.go = function, threading.Event(), threading.Event()

    def __call__(self, *arguments, **options):
        if not self.is_there.is_set():
            self.is_there.set()
            assert self.go.wait(60)
        return self.function(*arguments, **options)


def states(place: Place) -> list[str]:
    return [row.state for row in place.sql("SELECT state FROM entropic_attempts")]


def test_key_that_a_thread_recovers_is_waited_for_by_another(place, store, pool, monkeypatch, caplog):
    halt = Halt(Publisher.publish)
    monkeypatch.setattr(Publisher, "publish", lambda *arguments: halt(*arguments))

    recovering = pool.submit(place.store)
    assert halt.is_there.wait(60)
    asking = pool.submit(store.run_or_retrieve, A)
    wait_for(lambda: asking.done() or "waiting for" in caplog.text)
    has_waited = not asking.done()
    halt.go.set()

    assert has_waited
    assert recovering.result().count() == 1
    assert place.content(asking.result()) == place.runner().result(1.5)
    assert place.runner().calls == [asking.result().id]
    assert states(place) == ["COMPLETED"]
    assert not place.store().check(checksum=True)


@pytest.mark.parametrize("error", [None, OSError("the disk is full"), KeyboardInterrupt()], ids=str)
def test_claims_of_recovery_are_known_until_they_are_gone(place, store, monkeypatch, error):
    known = []

    def publish(self, finished, *rest):
        known.extend(held.is_known(token) for _, token in finished)
        if error is not None:
            raise error
        return real(self, finished, *rest)

    real = Publisher.publish
    before = dict(held._known)
    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish", publish)
        with suppress(OSError, KeyboardInterrupt):
            store.recover()

    assert known == [True]
    assert held._known == before
    assert place.sql("SELECT record_id FROM entropic_claims") == []
    store.recover()
    assert store.count() == 1
