"""A connection that a thread keeps for look-ups, outside of the pool and its transactions."""

from __future__ import annotations

import time
import weakref
from contextlib import nullcontext
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from entropic.process.logs import get_logger
from entropic.sql.engines import BEGIN
from entropic.sql.forks import statements

__all__ = ["Held"]

log = get_logger(__name__)


class Held:
    """One such connection: a thread may keep it without using up the places of the pool."""

    def __init__(self, engine: Engine) -> None:
        options: dict[str, Any] = {BEGIN: ""}
        if engine.dialect.name != "sqlite":
            options["isolation_level"] = "AUTOCOMMIT"  # one round trip instead of three, no idle transaction
        self.connection: Any = engine.connect()
        try:
            self.connection.execution_options(**options)
            self.connection.detach()
            raw: Any = self.connection.connection.dbapi_connection
            self.raw = raw
            self.cursor = raw.cursor()  # for `entropic.sql.asking`
            self.is_asked = False
            self.seen_at = time.monotonic()  # its file, in its place
        except BaseException:
            self.connection.close()
            raise
        # Not __del__: of a cycle the collector may end the driver's connection first, unclosed, which is a warning.
        self.close = weakref.finalize(self, _close, self.connection, engine.dialect.name == "sqlite")


def _close(connection: Connection, is_sqlite: bool) -> None:
    try:
        with statements if is_sqlite else nullcontext():
            connection.close()
    except DBAPIError as error:  # the server ended it first: there is nothing left to close
        log.debug("a connection was gone before it was closed: %s", error)
