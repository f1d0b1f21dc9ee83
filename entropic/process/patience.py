"""How long and how often to wait for others: a value that is passed in, and the one back-off that is made of it."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from numbers import Real
from typing import Any

__all__ = ["LEASE_S", "Patience", "Wait", "chance", "checked_lease", "checked_timeout"]

LEASE_S = 120.0
"""How long a lease is, unless another length is asked for."""

chance = random.SystemRandom()
"""What leaves the generator of the process alone: programs seed that, and what they draw is to depend on the seed only.

Nor do programs that seed it alike wait alike, or begin at the same place.
"""


def checked_lease(lease_s: Any) -> float:
    """Return *lease_s* if it is a length of a lease, else raise ValueError."""
    if not _is_seconds(lease_s) or lease_s <= 0:
        raise ValueError(f"lease_s is a number of seconds, more than 0, not {lease_s!r:.100}")
    return float(lease_s)


def checked_timeout(wait_timeout_s: Any) -> float | None:
    """Return *wait_timeout_s* if it says how long to wait, else raise ValueError."""
    if wait_timeout_s is None:
        return None
    if not _is_seconds(wait_timeout_s) or wait_timeout_s < 0:
        raise ValueError(
            f"wait_timeout_s is a number of seconds, 0 or more, not {wait_timeout_s!r:.100}; None waits as long as it "
            "takes"
        )
    return float(wait_timeout_s)


def _is_seconds(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an int that is no float
        return False


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, and how often to look meanwhile; all in seconds.

    Attributes
    ----------
    limit_s : float or None
        When to give up; None for never.
    say_after_s : float
        When to say what is waited for: a wait that is over sooner is not worth a word.
    first_pause_s, longest_pause_s : float
        Between two looks; each pause is twice as long as the one before, and cut by chance, so that those who wait
        for one thing do not all look at once.
    look_again_s : float
        When what was looked up may have changed so far that it is worth another look.
    """

    limit_s: float | None = None
    say_after_s: float = 2.0
    first_pause_s: float = 0.02
    longest_pause_s: float = 2.0
    look_again_s: float = 1.0


class Wait:
    """One wait, which begins when it is made."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._began = time.monotonic()
        self._pause_s = patience.first_pause_s

    @property
    def waited_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def is_worth_saying(self) -> bool:
        """Whether it has become so long that somebody should be told."""
        return self.waited_s > self._patience.say_after_s

    def is_over(self) -> bool:
        """Whether to give up."""
        return self._patience.limit_s is not None and self.waited_s > self._patience.limit_s

    def pause(self) -> None:
        """Sleep until the next look."""
        time.sleep(self._pause_s * chance.uniform(0.5, 1.0))
        self._pause_s = min(2 * self._pause_s, self._patience.longest_pause_s)
