"""A small value as the text that stands in its row, instead of in a file: typed JSON in one spelling.

The spelling is the one that `json` gives without spaces and in ASCII, so the same value has the same text, size and
SHA-256 wherever it is written, and no database's character set or JSON type has a part in it. A text that was damaged
is told from one that cannot be read by the digest that the run recorded, as a file is.
"""

from __future__ import annotations

import hashlib
import json
from io import StringIO
from typing import Any

from entropic.errors import CorruptFileError, DecodeError, ResultFileMissingError
from entropic.values.documents import decode

__all__ = ["INLINE_BYTES", "digest_of_text", "load_text", "open_text", "require_text", "text_of"]

# json.dumps would make one each time.
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

INLINE_BYTES = 2000
"""Of typed JSON: what takes more is a file, unless `memoize` was told otherwise."""


def text_of(document: Any, at_most: int) -> str | None:
    """Return the text of a typed *document*, None if it takes more than *at_most* bytes."""
    if at_most <= 0:
        return None
    text = _encode(document)
    return text if len(text) <= at_most else None


def digest_of_text(text: str) -> tuple[int, str]:
    """Return size in bytes and SHA-256."""
    octets = text.encode("utf-8", "surrogatepass")
    return len(octets), hashlib.sha256(octets).hexdigest()


def load_text(
    text: str, recorded: tuple[int, str] | None = None, *, record_id: str, verify: bool = False
) -> Any:
    """Return the value that a text in the row *record_id* stands for.

    Parameters
    ----------
    recorded : (int, str), optional
        Size in bytes and SHA-256 of what the run returned, where they are known.
    verify : bool
        Compare them first. Without, they are compared only if the text cannot be read.

    Raises
    ------
    ResultFileMissingError
        If there is nothing *recorded* to verify it with.
    CorruptFileError
        If it is not what was recorded.
    DecodeError
        If `entropic.values.documents` writes no such text.
    """
    if verify:
        if recorded is None:
            raise ResultFileMissingError(
                f"there is no digest to compare the value of {record_id!r} with: no Store retrieved the record, or SQL "
                "wrote it"
            )
        require_text(text, *recorded, record_id=record_id)
    try:
        return decode(json.loads(text))
    except (ValueError, RecursionError) as error:
        if recorded is not None and not verify:
            require_text(text, *recorded, record_id=record_id)
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"the value of {record_id!r} is no typed JSON ({error}): {text[:80]!r}") from error


def open_text(text: str) -> Any:
    """Return a text file in memory."""
    return StringIO(text)


def require_text(text: str, size_bytes: int, sha256: str, *, record_id: str) -> None:
    """Raise `CorruptFileError` unless a text in the row *record_id* has this size and SHA-256."""
    found = digest_of_text(text)
    if found != (size_bytes, sha256):
        raise CorruptFileError(
            f"the value in the row {record_id!r} is not what its run returned: it has {found[0]} bytes and SHA-256 "
            f"{found[1]}, not {size_bytes} and {sha256}. store.check(fix=True) deletes the row, so that the next call "
            "runs it again"
        )
