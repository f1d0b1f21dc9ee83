"""URLs of databases, and what of them is shown: where the database is, and none of what may be a secret.

A password may stand in its place, in the query, or, with a character that was not escaped, in the middle of the host.
So only what is known to be harmless is shown. What a driver says of a URL goes through `scrub`.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from entropic.display.hints import did_you_mean

__all__ = ["DRIVERS", "parse_url", "scrub", "scrub_error", "shown"]

HIDDEN = "***"
DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
_HARMLESS = {
    "mode": r"ro|rw|rwc|memory",
    "cache": r"shared|private",
    "uri": r"true|false",
    "charset": r"[a-z0-9]{1,10}",
    "host": r"/[\w./-]*",  # the folder of a socket
    "unix_socket": r"/[\w./-]*",
    "port": r"[0-9]{1,5}",
}
_HOST = re.compile(r"[\w.:-]*\Z")
_PATH = re.compile(r"[\w./~ -]+\.(?:sqlite3?|db3?)\Z")  # a file of a database, and surely no password
_LEAST = 3  # characters of a secret that is looked for in others' words; fewer are in every sentence


def parse_url(given: Any) -> URL:
    """Return the URL of a database; the error of one that is none shows a plain path, and nothing that may be secret.

    Raises
    ------
    sqlalchemy.exc.ArgumentError
        If it is no URL, or one of a database that entropic does not work on. The text has what to write instead.
    """
    if not isinstance(given, str | URL):
        path = f", such as {'sqlite:///' + os.fspath(given)!r}" if isinstance(given, os.PathLike) else ""
        raise ArgumentError(f"a database is named by its URL{path}, not by a {type(given).__name__}")
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        is_path = isinstance(given, str) and _PATH.match(given)
        raise ArgumentError(
            f"could not parse {repr(given) if is_path else 'db_url (not shown, a password may be in it)'} as the URL "
            f"of a database: for a SQLite file write {'sqlite:///' + (str(given) if is_path else 'file.sqlite3')!r}, "
            "else postgresql://user:password@host/name or mysql://user:password@host/name, in a name or password "
            "with %40 for @, %3A for : and %2F for /"
        ) from None
    backend = url.get_backend_name()
    if backend != "sqlite" and backend not in DRIVERS:
        hint = did_you_mean(backend, ["sqlite", *DRIVERS])
        raise ArgumentError(
            f"entropic works on SQLite, PostgreSQL, MySQL and MariaDB, not on {backend}{hint}"
        )
    if backend == "sqlite" and url.host:
        file = "/".join(part for part in (url.host, url.database) if part)
        file = file if url.username is None and _PATH.match(file) else "file.sqlite3"
        raise ArgumentError(
            f"a SQLite file has three slashes, {'sqlite:///' + file!r}, or four if its path is absolute"
        )
    return url


def shown(url: URL) -> str:
    """Return the URL for people: what may be a secret is ``***``."""
    user = "" if url.username is None and url.password is None else f"{HIDDEN}@"
    host = url.host or ""
    place = (host if _HOST.match(host) else HIDDEN) + (f":{url.port}" if url.port else "")
    database = url.database or ""
    if not _is_path(url):
        name = re.split(r"[?;=]", database, maxsplit=1)
        database = name[0] + (HIDDEN if len(name) > 1 else "")
    query = "&".join(f"{key}={_shown(key, value)}" for key, value in url.query.items())
    text = f"{url.drivername}://{user}{place}" + (f"/{database}" if url.database is not None else "")
    return text + (f"?{query}" if query else "")


def _is_path(url: URL) -> bool:
    """Whether a URL names a file by its path alone, whatever characters that has."""
    return url.get_backend_name() == "sqlite" and not str(url.database or "").startswith("file:")


def _shown(key: str, value: str | tuple[str, ...]) -> str:
    is_harmless = key in _HARMLESS and isinstance(value, str) and re.fullmatch(_HARMLESS[key], value)
    return str(value) if is_harmless else HIDDEN


def scrub(text: str, url: URL) -> str:
    """Return what a driver said with ``***`` for each secret of the URL, and for the user's name as a word."""
    harmless = shown(url)
    for secret in sorted(_secrets(url), key=len, reverse=True):
        if len(secret) >= _LEAST and secret not in harmless:
            for form in {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}:
                text = text.replace(form, HIDDEN)
    user = url.username or ""
    if len(user) >= _LEAST and user not in harmless:
        text = re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", HIDDEN, text)
    return text


def scrub_error(error: BaseException, url: URL) -> None:
    """Take the secrets of the URL out of an error, and out of those that it came from."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        waiting += [one.__cause__, one.__context__]
        one.args = tuple(scrub(part, url) if isinstance(part, str) else part for part in one.args)


def _secrets(url: URL) -> set[str]:
    found = {str(url.password or "")}
    for key, value in url.query.items():
        values = [value] if isinstance(value, str) else list(value)
        found.update(one for one in values if _shown(key, one) == HIDDEN)
    if not _HOST.match(url.host or ""):
        found.update(str(url.host).split("@"))
    if not _is_path(url):
        found.update(re.split(r"[?;=&\s]", url.database or "")[1:])
    return found - {"", url.database or ""}
