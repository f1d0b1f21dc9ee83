"""URLs of databases, and what of them is shown: where the database is, and none of what may be a secret.

A password may stand in its place, in the query, or, with a character that was not escaped, in the middle of the host.
So only what is known to be harmless is shown. What a driver says of a URL goes through `scrub`.
"""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

__all__ = ["parse_url", "scrub", "shown"]

HIDDEN = "***"
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
_LEAST = 3  # characters of a secret that is looked for in others' words; fewer are in every sentence


def parse_url(url: URL | str) -> URL:
    """Return a URL; the error of one that is none says nothing of what it holds.

    Raises
    ------
    sqlalchemy.exc.ArgumentError
        If it is no URL.
    """
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise ArgumentError(
            "db_url is no URL of a database, such as 'sqlite:///db.sqlite3' or 'postgresql://user:password@host/name'; "
            "in a user's name or a password write @ as %40, : as %3A and / as %2F. It is not shown, as there may be a "
            "password in it"
        ) from None


def shown(url: URL) -> str:
    """Return the URL for people: what may be a secret is ``***``."""
    user = "" if url.username is None and url.password is None else f"{HIDDEN}@"
    host = url.host or ""
    place = (host if _HOST.match(host) else HIDDEN) + (f":{url.port}" if url.port else "")
    name = re.split(r"[?;=]", url.database or "", maxsplit=1)
    database = name[0] + (HIDDEN if len(name) > 1 else "")
    query = "&".join(f"{key}={_shown(key, value)}" for key, value in url.query.items())
    text = f"{url.drivername}://{user}{place}" + (f"/{database}" if url.database is not None else "")
    return text + (f"?{query}" if query else "")


def _shown(key: str, value: str | tuple[str, ...]) -> str:
    is_harmless = key in _HARMLESS and isinstance(value, str) and re.fullmatch(_HARMLESS[key], value)
    return str(value) if is_harmless else HIDDEN


def scrub(text: str, url: URL) -> str:
    """Return what a driver said with ``***`` for each secret of the URL."""
    harmless = shown(url)
    for secret in sorted(_secrets(url), key=len, reverse=True):
        if len(secret) >= _LEAST and secret not in harmless:
            for form in {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}:
                text = text.replace(form, HIDDEN)
    return text


def _secrets(url: URL) -> set[str]:
    found = {str(url.password or ""), url.username or ""}
    for key, value in url.query.items():
        values = [value] if isinstance(value, str) else list(value)
        found.update(one for one in values if _shown(key, one) == HIDDEN)
    if not _HOST.match(url.host or ""):
        found.update(str(url.host).split("@"))
    found.update(re.split(r"[?;=&\s]", url.database or "")[1:])
    return found - {"", url.database or ""}
