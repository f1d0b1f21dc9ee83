"""What a process is told that `multiprocessing` starts: plain values, of the moment and the thread that start it."""

import multiprocessing
import threading
from contextvars import ContextVar
from types import SimpleNamespace

import pytest

from entropic.process import started
from tests.support.processes import forkserver

place = ContextVar("place", default="outside")


@pytest.fixture(autouse=True)
def telling(monkeypatch):
    """This process tells its children where they are started, and was told nothing itself."""
    config = dict(started._config())
    config.pop("entropic", None)
    monkeypatch.setattr(started, "_told", None)
    monkeypatch.setattr(started, "_inherited", None)
    monkeypatch.setattr(multiprocessing.process.current_process(), "_config", config)
    started.tell(lambda: (place.get(), threading.current_thread().name))


def send_told(sender):
    sender.send(started.told())


def told_in(context):
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_told, args=(sender,))
    token = place.set("inside")
    try:
        process.start()
    finally:
        place.reset(token)
    assert receiver.poll(30)
    process.join(30)
    return receiver.recv()


def test_process_is_told_by_the_thread_that_starts_it():
    found = []
    thread = threading.Thread(target=lambda: found.append(told_in(forkserver())), name="starts it")
    thread.start()
    thread.join()

    assert found == [("inside", "starts it")]


@pytest.mark.slow
def test_spawned_process_is_told_too():
    assert told_in(multiprocessing.get_context("spawn")) == ("inside", "MainThread")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("given", [None, ("what its parent was told",)])
def test_fork_is_told_nothing(given):
    if given is not None:
        started._config()["entropic"] = given

    assert told_in(multiprocessing.get_context("fork")) == ()


def test_process_that_was_not_started_so_was_told_nothing():
    assert started.told() == ()


def test_what_a_process_was_told_it_knows_when_it_tells_others(monkeypatch):
    monkeypatch.setattr(started, "_told", None)
    started._config()["entropic"] = ("mine",)

    started.tell(lambda: ("theirs",))
    started.tell(lambda: ("others'",))

    assert started.told() == ("mine",)
    assert started._config()["entropic"].__reduce__() == (tuple, (("theirs",),))


def test_process_without_a_configuration_is_told_nothing(monkeypatch):
    monkeypatch.setattr(started.process, "current_process", SimpleNamespace)

    assert started.told() == ()
    started.tell(tuple)
