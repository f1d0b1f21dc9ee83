"""Names of files: those that a Store may use, those that it takes from others, and files' names for any name at all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

__all__ = [
    "FILE_NAME_BYTES",
    "NAME_BYTES",
    "PLAIN",
    "check_name",
    "decode_name",
    "encode_name",
    "is_name",
    "is_text",
    "plain_name",
    "require_text",
    "safe_name",
    "safe_suffix",
]

NAME_BYTES = 200
NAME_LENGTH = 255
FILE_NAME_BYTES = 255  # most file systems take no more

# Beyond ASCII everything is escaped: macOS takes composed and decomposed letters for one, or changes them.
_ESCAPED = re.compile(r'[^ -~]|[%<>:"/\\|?*]|^\.|[. ]\Z')
# Names of devices on Windows, with any suffix.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$) *(\.|\Z)", re.IGNORECASE)
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
PLAIN = re.compile(r"[^./\0][^/\0]*\Z")  # most names: those with a dot in front are looked at more closely


def is_name(name: object) -> bool:
    """Whether *name*, which may come from anybody, is one plain path component, and none of ours."""
    if not isinstance(name, str) or name in {"", ".", ".."} or name.startswith(".entropic"):
        return False
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:  # half of a pair that stands for no byte
        return False
    return size <= FILE_NAME_BYTES and "/" not in name and "\0" not in name


def plain_name(name: str) -> str:
    """Return a recorded *name* if it is one, else one that leads nowhere and shows what was recorded."""
    if PLAIN.match(name) or is_name(name):
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


def safe_suffix(suffix: str) -> str:
    """Return *suffix* if it can end the names of a Store's files: a dot and what follows, or nothing, as of folders.

    Raises
    ------
    ValueError
        If it is something else, or no file's name can end so.
    TypeError
        If it is no text.
    """
    if not isinstance(suffix, str):
        raise TypeError(f"a file suffix is a text, such as '.npy', not {suffix!r:.100}")
    if suffix and (not suffix.startswith(".") or suffix == "."):
        meant = f": write {'.' + suffix!r:.100}" if suffix != "." else ""
        raise ValueError(
            f"a file suffix is a dot and what follows it, such as '.npy', or empty, not {suffix!r:.100}{meant}"
        )
    safe_name("0" * 16, suffix)
    if any(character in suffix for character in "/\\\0") or suffix != suffix.rstrip(" "):
        raise ValueError(
            f"{suffix!r:.100} cannot end a file's name: it has a separator or NUL, or ends in a space"
        )
    return suffix


def is_text(text: str) -> bool:
    """Whether databases and files can keep *text*: it has neither a NUL nor half of a surrogate pair."""
    return _NO_TEXT.search(text) is None


def require_text(path: Path) -> None:
    """Raise ValueError unless a row can say where *path* is."""
    if not is_text(str(path)):
        raise ValueError(
            f"{str(path)!r} has bytes that are no UTF-8, so that no row can name it: rename it, or name a link to it"
        )


def check_name(name: str) -> str:
    """Return *name* if a store can keep something under it.

    Raises
    ------
    ValueError
        If it is no string, is empty, has more than 255 characters, a NUL or half of a surrogate pair, or is a path
        that leads elsewhere.
    """
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH or not is_text(name):
        raise ValueError(
            f"a name has 1 to {NAME_LENGTH} characters, no NUL and no half of a surrogate pair: {name!r:.300}"
        )
    if name.startswith("/") or {"", ".", ".."} & set(name.split("/")):
        raise ValueError(f"a name is no path that is absolute or has empty parts, '.' or '..': {name!r:.300}")
    return name


def encode_name(name: str, suffix: str = "") -> str:
    """Return the name of the file that stands for *name* on every file system; `decode_name` gives it back.

    Letters, digits and most of ASCII stay as they are; the rest is percent-encoded.

    Parameters
    ----------
    suffix : str
        Of the file, such as ``".yaml"``.

    Raises
    ------
    ValueError
        If *name* is empty, or the file's name would take more than 255 bytes.

    Notes
    -----
    Names that differ have files that differ, on file systems that tell ``A`` from ``a``.

    Examples
    --------
    >>> encode_name("run 7: β/γ", ".yaml")
    'run 7%3A %CE%B2%2F%CE%B3.yaml'
    """
    encoded = _ESCAPED.sub(lambda found: _escape(found[0]), name)
    if _DEVICE.match(encoded):
        encoded = _escape(encoded[0]) + encoded[1:]
    size = len(encoded) + len(suffix.encode())
    if not name:
        raise ValueError("a name must not be empty: a file is to be named after it")
    if size > FILE_NAME_BYTES:
        raise ValueError(
            f"the name {name:.40}… is too long: the file that is named after it would have a name of {size} bytes, "
            f"and file systems take {FILE_NAME_BYTES} (a letter that is not ASCII counts 6 or more). Shorten it"
        )
    return encoded + suffix


def decode_name(file_name: str, suffix: str = "") -> str:
    """Return the name of which `encode_name` made *file_name*.

    Raises
    ------
    ValueError
        If `encode_name` makes no such name: it is the file of somebody else.
    """
    problem = f"{file_name!r} is no name that entropic gave to a file{suffix and f' of {suffix}'}"
    if not file_name.endswith(suffix) or not file_name.isascii():
        raise ValueError(problem)
    encoded = file_name.removesuffix(suffix)
    octets = re.sub(rb"%([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), encoded.encode())
    try:
        name = octets.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise ValueError(problem) from None
    if encode_name(name, suffix) != file_name:
        raise ValueError(problem)
    return name


def _escape(character: str) -> str:
    return "".join(f"%{octet:02X}" for octet in character.encode("utf-8", "surrogatepass"))
