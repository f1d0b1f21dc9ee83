"""The peers, where they are installed, and how a case calls a function with one parameter set after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, select

from benchmarks import data
from entropic import Database

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
    try:
        from cachier import cachier
    except ImportError:
        pass
    else:
        found["cachier, a file for each"] = cachier(cache_dir=str(folder / "cachier"), separate_files=True)(
            function
        )
    return found


def signac_jobs(folder: Path, sets: Sequence[dict[str, Any]]) -> Callable[[], object] | None:
    """Return a look-up of one of *sets* among signac's jobs, or None where it is not installed."""
    try:
        import signac
    except ImportError:
        return None
    logging.getLogger("signac").setLevel(logging.WARNING)
    project = signac.init_project(str(folder / "signac"))
    for one in sets:
        job = project.open_job(one)
        job.init()
        Path(job.fn("result.bin")).write_bytes(data.RESULT)

    def look_up(one: dict[str, Any]) -> bool:
        return bool(project.open_job(one).isfile("result.bin"))

    return in_turn(look_up, sets)


def sqlalchemy_look_up(database: Database, sets: Sequence[dict[str, Any]]) -> Callable[[], object]:
    """Return what one would write with SQLAlchemy Core: hash, and a SELECT on a connection of the pool."""
    table: Any = data.Run.__table__
    statement = select(table).where(table.c.id == bindparam("key"))

    def look_up(one: dict[str, Any]) -> Any:
        with database.engine.connect() as connection:
            return connection.execute(statement, {"key": data.raw_key(one)}).first()

    return in_turn(look_up, sets)


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
