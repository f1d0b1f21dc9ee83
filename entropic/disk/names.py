"""Names of files: those that a Store may use."""

from __future__ import annotations

__all__ = ["NAME_BYTES", "safe_name"]
NAME_BYTES = 200


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
