"""The peers, where they are installed, and how a case calls a function with one parameter set after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import data

Cached = Callable[..., object]


def memoizers(folder: Path, stack: ExitStack, function: Cached) -> dict[str, Cached]:
    """Return *function* as each peer memoizes it, in a folder of its own, until *stack* ends."""
    found: dict[str, Cached] = {}
    try:
        import joblib
    except ImportError:
        pass
    else:
        found["joblib.Memory"] = joblib.Memory(folder / "joblib", verbose=0).cache(function)
    try:
        import diskcache
    except ImportError:
        pass
    else:
        cache = stack.enter_context(diskcache.Cache(str(folder / "diskcache")))
        found["diskcache.memoize"] = cache.memoize()(function)
    return found


def warm(cached: Cached, sets: Sequence[dict[str, Any]]) -> Callable[[], object]:
    """Call *cached* with each of *sets*, and return a call that is a hit."""
    for one in sets:
        cached(**one)
    return in_turn(lambda one: cached(**one), sets)


def in_turn(call: Callable[[dict[str, Any]], object], sets: Sequence[dict[str, Any]]) -> Callable[[], object]:
    """Return a call of *call* with the next of *sets*, which are shuffled."""
    order: Iterator[dict[str, Any]] = data.shuffled(sets)
    return partial(_call_next, call, order)


def _call_next(call: Callable[[dict[str, Any]], object], order: Iterator[dict[str, Any]]) -> object:
    return call(next(order))
