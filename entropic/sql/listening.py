"""Waiting until somebody has written: at once where the database tells those who listen, else at the next look.

PostgreSQL sends what NOTIFY says when the transaction is committed. Whoever listens still looks now and then: a pooler
between the two may let no such word through.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, func

__all__ = ["Alarm", "notice"]

LISTENING_S = 10.0  # between two looks, at most
LONGEST_S = 86_400.0  # poll() counts milliseconds, in 32 bits


def notice(connection: Connection, channel: str) -> tuple[Any, ...]:
    """Return what a statement is to return besides, to tell those who listen to *channel*; nothing elsewhere."""
    return (func.pg_notify(channel, ""),) if connection.dialect.name == "postgresql" else ()


class Alarm:
    """Lets one thread wait until another one rings, or the database does.

    Parameters
    ----------
    channel : str
        What `notice` was given.
    """

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._ear, self._mouth = socket.socketpair()  # a socket that is closed is no other file's number
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self._raw: Any = None
        self._line: int | None = None

    def listen(self, connection: Connection) -> None:
        """Listen on the connection on which the waiting thread looks; before it looks."""
        raw: Any = connection.connection.dbapi_connection
        if raw is self._raw or connection.dialect.driver != "psycopg":
            return
        connection.exec_driver_sql(f"LISTEN {self._channel}")
        # What comes with the answer to a look says of what that look did not see yet: it is out of the line by then.
        raw.add_notify_handler(self._heard)
        self._hang_up()
        # A number of our own: when another thread closes the connection, its number may be another file's at once.
        self._line = os.dup(raw.fileno())
        self._raw = raw

    def ring(self) -> None:
        """End the wait, or the next one."""
        with suppress(OSError):  # it rings already, or nobody waits any more
            self._mouth.send(b"\0")

    def wait(self, timeout_s: float) -> None:
        """Wait until somebody rings, *timeout_s* at most, and longer where the database tells.

        Does not wait on if the connection that is listened on is closed: the next look has another one.
        """
        poll = select.poll()
        poll.register(self._ear, select.POLLIN)
        if self._line is not None:
            if self._raw.closed:
                self._hang_up()
                return
            poll.register(self._line, select.POLLIN)
            timeout_s = timeout_s and max(timeout_s, LISTENING_S)
        poll.poll(min(timeout_s, LONGEST_S) * 1000)
        with suppress(BlockingIOError):
            while self._ear.recv(4096):
                pass

    def _heard(self, notify: object) -> None:
        self.ring()

    def _hang_up(self) -> None:
        line, self._line, self._raw = self._line, None, None
        if line is not None:
            os.close(line)

    def close(self) -> None:
        """Free what it takes."""
        self._hang_up()
        self._ear.close()
        self._mouth.close()
