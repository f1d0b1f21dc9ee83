"""Every claim that this process holds, by whom, and what has become of it; no SQL.

A claim is known from before it is taken until it is gone, so what the database says is ours and nobody here knows of
was left by a clean-up that failed: it is taken over at once. And whoever needs a key that this process holds already
finds here whether it can have it: one that was not begun it takes, one that has ended is committed for it, and for
one that is being run it waits, unless that run waits for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Protocol

__all__ = [
    "Hold",
    "Keeper",
    "Mark",
    "begin",
    "circle",
    "end",
    "end_waits",
    "enter",
    "find",
    "forget",
    "is_known",
    "know",
    "leave",
    "of_parent",
    "offer",
    "reset",
    "take",
    "wait_for",
    "withdraw",
]

Mark = tuple[str, str]
"""A key among those of all tables: the uuid of its results folder's marker, and the key."""


class Keeper(Protocol):
    """Who holds claims, and gives them back when it ends.

    Attributes
    ----------
    name : str
        Of a sweep; empty for others.
    is_open : bool
        False from the moment when it begins to give back what it holds.
    lends : bool
        Whether what it holds is begun in this process, so that it can be taken as long as it is not.
    is_serial : bool
        Whether one thread holds the claims and runs all that is begun.
    is_asked : bool
        Whether a run of this process has needed a key while this one held it.
    """

    name: str
    is_open: bool
    lends: bool
    is_serial: bool
    is_asked: bool

    def settle(self, key: str) -> None:
        """Commit or record what has come of a key, if it has ended."""

    def hand_over(self, key: str) -> None:
        """Forget a key, which is another's now."""

    def give_back(self) -> None:
        """Commit or record what has ended, and give back what was not begun."""


class Hold:
    """A key that this process holds.

    Attributes
    ----------
    row : object
        The row that there was under the claim.
    is_begun : bool
        Whether the runner has been called.
    outcome : object
        What came of the run; None before.
    """

    __slots__ = ("is_begun", "keeper", "outcome", "row", "token")

    def __init__(self, keeper: Keeper, token: str, row: Any) -> None:
        self.keeper = keeper
        self.token = token
        self.row = row
        self.is_begun = False
        self.outcome: Any = None


_lock = threading.Lock()
_known: dict[str, Keeper | None] = {}  # by token
_holds: dict[Mark, Hold] = {}
_of_parent: dict[Mark, Hold] = {}
_inner: dict[Mark, list[Mark]] = {}  # the runs that a run has begun and waits for
_waits: dict[Mark, Collection[Mark]] = {}  # the keys of others that a run waits for


# Which tokens are known


def know(tokens: Iterable[str], keeper: Keeper | None = None) -> None:
    """Note tokens before they are granted; those without a keeper are known until they are forgotten."""
    _known.update(dict.fromkeys(tokens, keeper))


def forget(tokens: Iterable[str]) -> None:
    """Forget tokens that are no claims any more."""
    for token in tokens:
        _known.pop(token, None)


def is_known(token: str) -> bool:
    """Whether somebody in this process will give back the claim of this token."""
    if token not in _known:
        return False
    keeper = _known[token]
    return keeper is None or keeper.is_open


# What becomes of a key


def offer(mark: Mark, keeper: Keeper, token: str, row: Any) -> None:
    """Note a claim that was granted, and that is begun next or can be taken until then."""
    with _lock:
        _holds[mark] = Hold(keeper, token, row)


def find(mark: Mark) -> Hold | None:
    """Return who holds a key here."""
    return _holds.get(mark)


def of_parent(mark: Mark) -> Hold | None:
    """Return who held a key in the process that this one was forked from, at that moment; not to be changed."""
    return _of_parent.get(mark)


def begin(mark: Mark, name: str) -> bool:
    """Begin the run of a key for the keeper of this name; False if it is not that one's any more, or was begun."""
    with _lock:
        hold = _holds.get(mark)
        if hold is None or hold.keeper.name != name:
            return False
        if not hold.keeper.lends:  # nobody could have taken it, and it may come twice where workers die
            return True
        if hold.is_begun:
            return False
        hold.is_begun = True
        return True


def end(mark: Mark, name: str, outcome: Any) -> None:
    """Note what came of a run, until its keeper hears of it."""
    with _lock:
        hold = _holds.get(mark)
        if hold is not None and hold.keeper.name == name and hold.keeper.lends:
            hold.outcome = outcome


def take(mark: Mark, keeper: Keeper) -> Hold | None:
    """Make a key that another keeper has not begun *keeper*'s, with its token; None if that cannot be."""
    with _lock:
        hold = _holds.get(mark)
        if hold is None or hold.is_begun or not hold.keeper.lends or hold.keeper is keeper:
            return None
        hold.keeper.hand_over(mark[1])
        taken = _holds[mark] = Hold(keeper, hold.token, hold.row)
        _known[hold.token] = keeper
        return taken


def reset(mark: Mark, keeper: Keeper) -> None:
    """Take back that a run was begun: where it was, it goes on no more."""
    with _lock:
        hold = _holds.get(mark)
        if hold is not None and hold.keeper is keeper:
            hold.is_begun, hold.outcome = False, None


def withdraw(marks: Iterable[Mark], keeper: Keeper, *, only_free: bool = False) -> list[str]:
    """Let nobody begin or take these of a keeper's any more; return the keys.

    Parameters
    ----------
    only_free : bool
        Leave out what was begun.
    """
    keys = []
    with _lock:
        for mark in marks:
            hold = _holds.get(mark)
            if hold is not None and hold.keeper is keeper and not (only_free and hold.is_begun):
                del _holds[mark]
                keys.append(mark[1])
    return keys


# Who waits for whom


def enter(outer: Mark, inner: Mark) -> None:
    """Note that a run goes on inside another, which waits for it."""
    with _lock:
        _inner.setdefault(outer, []).append(inner)


def leave(outer: Mark, inner: Mark) -> None:
    """Take back `enter`."""
    with _lock:
        inside = _inner.get(outer, [])
        if inner in inside:
            inside.remove(inner)
        if not inside:
            _inner.pop(outer, None)


def wait_for(run: Mark, marks: Collection[Mark]) -> None:
    """Note for which keys of others a run waits, instead of those of before."""
    with _lock:
        if marks:
            _waits[run] = marks
        else:
            _waits.pop(run, None)


def end_waits(run: Mark) -> None:
    """Note that a run has ended, whoever waits in what was its context."""
    if run in _waits:
        wait_for(run, ())


def circle(start: Mark, ends: Collection[Mark]) -> list[Mark]:
    """Return the way from a key over what its run waits for to one of *ends*; empty if there is none."""
    with _lock:
        seen, ways = {start}, [[start]]
        for way in ways:
            for mark in _next(way[-1]):
                if mark in ends:
                    return [*way, mark]
                if mark not in seen:
                    seen.add(mark)
                    ways.append([*way, mark])
    return []


def _next(mark: Mark) -> Iterator[Mark]:
    yield from _inner.get(mark, ())
    yield from _waits.get(mark, ())


def _forget_parent() -> None:
    global _lock, _holds, _of_parent
    _lock = threading.Lock()
    _of_parent, _holds = _holds, {}
    for table in (_known, _inner, _waits):
        table.clear()


os.register_at_fork(after_in_child=_forget_parent)
