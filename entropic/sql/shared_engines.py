"""The engines of this process: one for each database, shared by all who work on it.

A token stands for an engine, in a pickle, too: that of a URL is a digest of it, so whoever unpickles it in this process
finds the same engine.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from uuid import uuid4

from sqlalchemy import URL, Engine
from sqlalchemy.exc import ArgumentError

from entropic.process.forked_locks import ForkedLock
from entropic.sql.engines import is_memory, make_engine, prepare
from entropic.sql.forks import keep_for_ever
from entropic.sql.urls import scrub_error

__all__ = ["adopt_engine", "engine_of", "forget_parents", "is_made_here", "token_of"]

_engines: dict[str, Engine] = {}
_lock = ForkedLock()
_ours: weakref.WeakSet[Engine] = weakref.WeakSet()  # engines made here; the others are the user's


def token_of(url: URL) -> str:
    """Return the token of a URL's engine; each time another one of a database in memory, which is another one too."""
    if is_memory(url):
        return uuid4().hex
    return hashlib.sha256(url.render_as_string(hide_password=False).encode()).hexdigest()


def adopt_engine(engine: Engine, rest: Callable[[], None]) -> str:
    """Return the token of an engine of the user's; *rest* is as for `make_engine`."""
    prepare(engine, rest)
    with _lock.held():  # all that are given the same engine are in one block
        known = [token for token, one in _engines.items() if one is engine]
        token = known[0] if known else uuid4().hex
        _engines[token] = engine
    return token


def engine_of(token: str, url: URL, rest: Callable[[], None]) -> Engine:
    """Return the engine that a token stands for, made of the URL if there is none yet."""
    with _lock.held():
        if token not in _engines:
            made = _engines[token] = _made(url, rest)
            _ours.add(made)
        return _engines[token]


def _made(url: URL, rest: Callable[[], None]) -> Engine:
    try:
        return make_engine(url, rest)
    except (ArgumentError, ValueError, TypeError) as error:  # of an option in the query, which it repeats
        scrub_error(error, url)
        raise


def is_made_here(engine: Engine) -> bool:
    """Whether an engine was made here of a URL, and not given by the user."""
    return engine in _ours


def forget_parents() -> None:
    """In a forked child: leave the parent's connections alone."""
    for engine in _engines.values():
        if not is_memory(engine.url):
            keep_for_ever(engine.pool)
            engine.dispose(close=False)
