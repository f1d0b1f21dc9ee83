"""A database's URL for people."""

from __future__ import annotations

from sqlalchemy import URL

__all__ = ["shown"]


def shown(url: URL) -> str:
    """Return the URL as text, without any password: an error or a warning may be read by anybody."""
    url = url.difference_update_query(["password", "passwd"])
    return url._replace(password=None).render_as_string()
