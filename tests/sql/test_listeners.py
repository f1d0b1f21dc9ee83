"""Whoever listens to an engine's statements is seen, whenever they begin and end."""

import logging

import pytest
from sqlalchemy import create_engine, event

from entropic.sql.listeners import is_unheard, unheard

EVENTS = ("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute")


def hear(*_):
    """Listen."""


@pytest.fixture
def engine():
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


@pytest.mark.parametrize("name", EVENTS)
def test_listener_is_seen_while_it_is_there(engine, name):
    asked = unheard(engine)

    assert asked()
    for _ in range(2):
        event.listen(engine, name, hear)
        assert (asked(), is_unheard(engine)) == (False, False)
        event.remove(engine, name, hear)
        assert (asked(), is_unheard(engine)) == (True, True)


@pytest.mark.parametrize("name", EVENTS)
def test_second_listener_is_seen_though_the_first_had_gone_before_anybody_asked(engine, name):
    event.listen(engine, name, hear)
    event.remove(engine, name, hear)
    asked = unheard(engine)

    assert asked()
    event.listen(engine, name, hear)
    assert not asked()


@pytest.mark.parametrize("name", EVENTS)
def test_listener_that_was_there_before_is_seen_until_it_goes(engine, name):
    event.listen(engine, name, hear)
    asked = unheard(engine)

    assert not asked()
    event.remove(engine, name, hear)
    assert asked()


def test_listener_to_all_engines_is_seen():
    engine = create_engine("sqlite://")
    asked = unheard(engine)
    event.listen(type(engine), "before_cursor_execute", hear)
    try:
        assert (asked(), is_unheard(engine)) == (False, False)
    finally:
        event.remove(type(engine), "before_cursor_execute", hear)
    assert (asked(), is_unheard(engine)) == (True, True)
    engine.dispose()


def test_echo_and_log_are_seen(engine):
    asked = unheard(engine)
    log = logging.getLogger("sqlalchemy.engine")
    former = log.level

    log.setLevel(logging.INFO)
    try:
        assert not asked()
    finally:
        log.setLevel(former)
    assert asked()
    engine.echo = True
    assert not asked()
