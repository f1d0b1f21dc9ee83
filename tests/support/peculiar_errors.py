"""Exceptions that take no attributes or notes, or cannot be shown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Frozen(Exception):
    n: int


class Noted(Exception):
    __notes__ = "of the class"


class Speechless(Exception):
    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__
