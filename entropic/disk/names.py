"""Names of files: those that a Store may use, and those that it takes from others."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

__all__ = ["NAME_BYTES", "is_name", "plain_name", "safe_name"]
NAME_BYTES = 200
_LONGEST_BYTES = 255  # of one path component, on every file system that is in use

_PLAIN = re.compile(r"[^./\0][^/\0]*\Z")  # most names: those with a dot in front are looked at more closely


def is_name(name: object) -> bool:
    """Whether *name*, which may come from anybody, is one plain path component, and none of ours."""
    if not isinstance(name, str) or name in {"", ".", ".."} or name.startswith(".entropic"):
        return False
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:  # half of a pair that stands for no byte
        return False
    return size <= _LONGEST_BYTES and "/" not in name and "\0" not in name


def plain_name(name: str) -> str:
    """Return a recorded *name* if it is one, else one that leads nowhere and shows what was recorded."""
    if _PLAIN.match(name) or is_name(name):
        return name
    return "%2E" + quote(name.encode("utf-8", "surrogatepass"), safe="")[:NAME_BYTES]


def safe_name(name: str, suffix: str = "") -> str:
    """Return *name* if it can be a file's name, as an explicit id and a table's name must.

    Raises
    ------
    ValueError
        If it is empty, ``.`` or ``..``, begins with ``.entropic``, has a separator or NUL, ends in a space, or takes
        more than 200 bytes with *suffix*.
    """
    size = len(f"{name}{suffix}".encode("utf-8", "surrogatepass"))
    if (
        name in {"", ".", ".."}
        or any(character in name for character in "/\\\0")
        or name.startswith(".entropic")
        or name != name.rstrip(" ")
        or size > NAME_BYTES
    ):
        raise ValueError(
            f"{name!r} cannot be a file's name: it must be one plain path component, not empty, without a separator "
            f"or NUL, not ending in a space, of at most {NAME_BYTES} bytes with its suffix"
        )
    return name
