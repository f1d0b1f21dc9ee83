from fractions import Fraction

import numpy as np
import pytest

from entropic.process import patience
from entropic.process.patience import Patience, Wait, checked_lease, checked_timeout


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience, "time", made)
    return made


def test_pauses_grow_to_the_longest_and_are_cut_by_chance(clock):
    wait = Wait(Patience(first_pause_s=0.1, longest_pause_s=1.0))

    for _ in range(8):
        wait.pause()

    longest = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0]
    assert all(most / 2 <= slept <= most for slept, most in zip(clock.slept, longest, strict=True))
    assert len(set(clock.slept)) > 4


def test_wait_is_worth_a_word_and_over_when_its_patience_says_so(clock):
    wait = Wait(Patience(limit_s=5.0, say_after_s=2.0))
    seen = []

    for seconds in (0.0, 2.0, 1.0, 2.0, 1.0):
        clock.now += seconds
        seen.append((wait.waited_s, wait.is_worth_saying(), wait.is_over()))

    assert seen == [
        (0.0, False, False),
        (2.0, False, False),
        (3.0, True, False),
        (5.0, True, False),
        (6.0, True, True),
    ]


def test_wait_without_a_limit_is_never_over(clock):
    wait = Wait(Patience())

    clock.now += 1e9

    assert not wait.is_over()


NO_SECONDS = [-1, -1e-9, float("nan"), float("inf"), True, False, "3", b"3", [3], 1j, 10**400]


@pytest.mark.parametrize("value", [0, 0.0, None, *NO_SECONDS])
def test_lease_that_is_none_is_refused_by_its_value(value):
    with pytest.raises(ValueError, match=r"^lease_s is a number of seconds, more than 0, not ") as caught:
        checked_lease(value)

    assert repr(value)[:50] in str(caught.value)


@pytest.mark.parametrize("value", NO_SECONDS)
def test_timeout_that_is_none_is_refused_by_its_value(value):
    with pytest.raises(
        ValueError, match=r"^wait_timeout_s is a number of seconds, 0 or more, not "
    ) as caught:
        checked_timeout(value)

    assert repr(value)[:50] in str(caught.value)


@pytest.mark.parametrize("value", [1, 0.25, np.float32(0.5), np.int64(3), Fraction(1, 2)])
def test_number_of_seconds_of_any_type_is_taken(value):
    assert checked_lease(value) == checked_timeout(value) == float(value)
    assert type(checked_lease(value)) is float


def test_timeout_may_be_nothing_or_none():
    assert (checked_timeout(0), checked_timeout(None)) == (0.0, None)
