"""The URLs of databases: what people write, and what may be shown of them."""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from entropic.display.hints import did_you_mean

__all__ = ["DRIVERS", "parse_url", "shown"]

DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}


def shown(url: URL) -> str:
    """Return the URL as text, without any password: an error or a warning may be read by anybody."""
    url = url.difference_update_query(["password", "passwd"])
    return url._replace(password=None).render_as_string()


def parse_url(given: Any) -> URL:
    """Return the URL of a database.

    Raises
    ------
    sqlalchemy.exc.ArgumentError
        If it is no URL, or one of a database that entropic does not work on. The text has what to write instead.
    """
    if not isinstance(given, str | URL):
        path = f", such as {'sqlite:///' + os.fspath(given)!r}" if isinstance(given, os.PathLike) else ""
        raise ArgumentError(f"a database is named by its URL{path}, not by {given!r}")
    try:
        url = make_url(given)
    except ArgumentError:
        is_file = isinstance(given, str) and not set(":?@") & set(given)  # nothing in it can be a password
        text = repr(given) if is_file else "what was given"
        file = str(given) if is_file and given else "file.sqlite3"
        raise ArgumentError(
            f"Could not parse SQLAlchemy URL from {text}: for a SQLite file it is {'sqlite:///' + file!r}, else "
            "postgresql://user@host/name or mysql://user@host/name"
        ) from None
    backend = url.get_backend_name()
    if backend != "sqlite" and backend not in DRIVERS:
        hint = did_you_mean(backend, ["sqlite", *DRIVERS])
        raise ArgumentError(
            f"entropic works on SQLite, PostgreSQL, MySQL and MariaDB, not on {backend}{hint}"
        )
    if backend == "sqlite" and url.host:
        file = "/".join(part for part in (url.host, url.database) if part)
        raise ArgumentError(
            f"a SQLite file has three slashes, {'sqlite:///' + file!r}, or four if its path is absolute"
        )
    return url
