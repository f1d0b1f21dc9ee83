"""When a database is in the way: which errors pass, which blame the row, and the wait for a server away or full.

A deadlock, a lock that timed out and a connection that was lost are worth another try. A connection that cannot be made
is waited for where it is made, so that it does not matter who asked for it.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from sqlalchemy import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from entropic.process.logs import get_logger
from entropic.process.patience import Patience, Wait
from entropic.sql.urls import scrub, scrub_error, shown

__all__ = [
    "Connector",
    "bytes_of",
    "connected",
    "is_locked",
    "is_lost",
    "is_refused",
    "is_transient",
    "without_waiting",
]

log = get_logger(__name__)

AWAY = Patience(limit_s=60.0, say_after_s=1.0, first_pause_s=0.05)  # with a server that cannot be reached
FULL = replace(AWAY, limit_s=600.0)  # with one that has no place left: it works, and others will be done
TRANSIENT_MYSQL = {1205, 1213}  # lock wait timeout, deadlock
TRANSIENT_SQLSTATES = {"40001", "40P01", "55P03"}  # serialisation failure, deadlock, lock not available
LOST_MYSQL = {1053, 1927, 2006, 2013}  # shutdown, killed, gone away, lost
LOST_SQLSTATES = {"57P01", "57P02"}  # shutdown, crash; and class 08
AWAY_MYSQL = {1053, 2002, 2003, 2006, 2013}
FULL_MYSQL = {1040, 1203, 1226}  # too many connections: of all, of this user
FULL_SQLSTATE = "53300"
FULL_TEXTS = ("too many clients", "connection slots are reserved", "too many connections")
# The queue before a local socket is full: a server listens there, and does not keep up with who comes.
QUEUED_TEXTS = (os.strerror(errno.EAGAIN), f"({errno.EAGAIN})")
# NULL, duplicate, foreign key, CHECK, a trigger of the user's; a row, a packet, a text that is too long; a value that
# is out of range, of another type, or not in the character set.
REFUSED_MYSQL = {1048, 1062, 1452, 3819, 4025, 1644} | {1118, 1153, 1162, 1301, 1406}
REFUSED_MYSQL |= {1264, 1265, 1292, 1366, 1690, 1977, 3140, 3988}
# A view's CHECK, a row that is too long, a trigger of the user's; and the classes 22 and 23.
REFUSED_SQLSTATES = {"44000", "54000", "P0001"}
_is_waited_for: ContextVar[bool] = ContextVar("entropic_servers_are_waited_for", default=True)
_ESCAPED = "\0\n\r\x1a\"'\\"  # what takes two bytes in a statement of MySQL's


@contextmanager
def without_waiting() -> Iterator[None]:
    """Wait in this block for no server: for what need not be done, as when a process ends."""
    token = _is_waited_for.set(False)
    try:
        yield
    finally:
        _is_waited_for.reset(token)


class Connector:
    """Makes the connections of an engine to a server, and waits while the server is away or has no place left.

    Parameters
    ----------
    rest : callable
        Lets go of the connections that this process does not use just now.
    """

    def __init__(self, url: URL, rest: Callable[[], None]) -> None:
        self._url = url
        self._rest = rest
        self._gave_up_at = -math.inf

    def __call__(self, dialect: Any, record: Any, arguments: Any, keywords: Any) -> Any:
        """Connect: SQLAlchemy's ``do_connect`` event."""
        away, full, has_said = Wait(AWAY), Wait(FULL), False
        while True:
            try:
                return connected(self._url, dialect, record, arguments, keywords)
            except dialect.loaded_dbapi.OperationalError as error:
                is_full = _is_full(error)
                wait = full if is_full else away
                # A wrong URL is not an outage; but no place is left only where the URL is right.
                if not _is_waited_for.get() or not (
                    is_full or (dialect.server_version_info is not None and _is_away(error))
                ):
                    raise
                # What cleans up after a wait that was in vain does not wait in its turn.
                if wait.is_over() or time.monotonic() - self._gave_up_at < (AWAY.limit_s or 0.0):
                    self._gave_up_at = time.monotonic()
                    raise
                if not has_said and wait.is_worth_saying():
                    has_said = True
                    log.warning(
                        "the database %s %s: waiting for it, for %g s at most (%s)",
                        shown(self._url),
                        "has no place left" if is_full else "cannot be reached",
                        (FULL if is_full else AWAY).limit_s,
                        scrub(str(error).partition("\n")[0], self._url),
                    )
                if is_full:
                    # Or all may wait for a second place, and keep the first: for looking, or idle in the pool.
                    self._rest()
            # Every try costs a full server a process: hundreds who ask often keep it from those who have a place.
            wait.pause()


def connected(url: URL, dialect: Any, record: Any, arguments: Any, keywords: Any) -> Any:
    """Connect, once: SQLAlchemy's ``do_connect`` event, but for the URL that an error may repeat."""
    try:
        return dialect.connect(*arguments, **keywords)
    except Exception as error:  # what a driver says of an option
        scrub_error(error, url)
        raise


def is_transient(error: DBAPIError) -> bool:
    """Whether another try may succeed: a deadlock, a serialisation failure, a lock that timed out."""
    return is_locked(error) or _code(error.orig) in TRANSIENT_SQLSTATES | TRANSIENT_MYSQL


def is_locked(error: DBAPIError) -> bool:
    """Whether a SQLite file was locked for longer than its time-out."""
    text = str(error.orig)
    return "database is locked" in text or "database table is locked" in text


def is_lost(error: DBAPIError) -> bool:
    """Whether a connection was lost that there had been."""
    code = _code(error.orig)
    is_psql = isinstance(code, str) and (code in LOST_SQLSTATES or code.startswith("08"))
    return error.connection_invalidated or is_psql or code in LOST_MYSQL


def is_refused(error: BaseException) -> bool:
    """Whether a row is to blame for an error: a constraint, a length, a character that the database cannot spell.

    A server may say so with any class of error, and a driver before the server is asked.
    """
    if isinstance(error, IntegrityError | DataError):
        return True
    if isinstance(error, DBAPIError):
        code = _code(error.orig)
        is_psql = isinstance(code, str) and (code in REFUSED_SQLSTATES or code[:2] in {"22", "23"})
        return is_psql or code in REFUSED_MYSQL
    if isinstance(error, StatementError):  # a type would not write the value
        return isinstance(error.orig, ValueError | OverflowError)
    return isinstance(error, UnicodeEncodeError | OverflowError)


def bytes_of(parameters: Any) -> int:
    """Return about how many bytes the largest row of a statement's parameters takes in the statement."""
    if isinstance(parameters, Mapping):
        return sum(map(bytes_of, parameters.values()))
    if isinstance(parameters, list | tuple):
        is_many = any(isinstance(one, Mapping | list | tuple) for one in parameters)
        return max(map(bytes_of, parameters)) if is_many else sum(map(bytes_of, parameters))
    if isinstance(parameters, str):
        return len(parameters.encode(errors="replace")) + sum(map(parameters.count, _ESCAPED))
    return len(parameters) if isinstance(parameters, bytes) else len(repr(parameters))


def _is_away(error: Any) -> bool:
    """Whether a connection could not be made because of the server."""
    code = _code(error)
    # To libpq a connection that cannot be made has a text, perhaps translated, and no code.
    return code is None or isinstance(code, str) or code in AWAY_MYSQL


def _is_full(error: Any) -> bool:
    code, said = _code(error), str(error)
    if code is None or code in AWAY_MYSQL:
        # The client's own library says it, without a code or with one that says less.
        return any(text in said for text in QUEUED_TEXTS + (FULL_TEXTS if code is None else ()))
    return code == FULL_SQLSTATE or code in FULL_MYSQL


def _code(original: Any) -> str | int | None:
    """Return what the driver has for a code: PostgreSQL's SQLSTATE, MySQL's number."""
    arguments: Sequence[Any] = getattr(original, "args", ())
    # First: drivers of MySQL's have come to give a SQLSTATE besides, which says less.
    if arguments and isinstance(arguments[0], int):
        return arguments[0]
    state: str | None = getattr(original, "sqlstate", None)
    return state
