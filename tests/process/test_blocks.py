from dataclasses import dataclass

import pytest

from entropic.process.blocks import transparent


@dataclass(frozen=True)
class Frozen(Exception):
    n: int


ended = []


@transparent
def within(name):
    try:
        yield name
    finally:
        ended.append(name)


@transparent
def translating():
    try:
        yield
    except KeyError as error:
        raise ValueError("translated") from error


@pytest.mark.parametrize("error", [ValueError("x"), Frozen(1), StopIteration("x"), GeneratorExit()])
def test_exception_leaves_as_it_is_without_a_step_of_the_block(error):
    ended.clear()

    with pytest.raises(type(error)) as raised, within("one") as name:
        raise error

    assert (name, ended) == ("one", ["one"])
    assert raised.value is error
    assert {step.name for step in raised.traceback} == {
        "test_exception_leaves_as_it_is_without_a_step_of_the_block"
    }


def test_block_that_ends_well_is_gone_through():
    ended.clear()

    with within("one") as name:
        assert (name, ended) == ("one", [])

    assert ended == ["one"]


def test_error_that_the_block_makes_of_another_is_raised():
    with pytest.raises(ValueError, match="translated"), translating():
        raise KeyError
