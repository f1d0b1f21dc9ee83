"""A function of which a call does nothing yet is told from one that runs."""

import functools

import pytest

from entropic.process.callables import returns_later


async def coroutine():
    pass


def generator():
    yield


async def both():
    yield


class Called:
    async def __call__(self):
        pass


@pytest.mark.parametrize(
    "function", [coroutine, generator, both, Called(), functools.partial(coroutine)], ids=range(5)
)
def test_what_is_still_to_be_run_when_it_is_returned(function):
    assert returns_later(function)


@pytest.mark.parametrize("function", [len, list, lambda: coroutine(), functools.partial(print)], ids=range(4))
def test_what_runs_when_it_is_called(function):
    assert not returns_later(function)
