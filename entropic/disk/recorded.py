"""A file whose row says what it is: read as it was written, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from entropic.disk.files import digest_of
from entropic.errors import CorruptFileError

__all__ = ["read_recorded"]

T = TypeVar("T")


def read_recorded(
    path: Path, size_bytes: int, sha256: str, read: Callable[[str], T], *, what: str, verify: bool = False
) -> T:
    """Return what *read* makes of a file, if that is what was stored.

    Parameters
    ----------
    read : callable
        Of a path.
    what : str
        What could be stored again in its place, as a plural.
    verify : bool
        Whether to compare the SHA-256 first. The size always is; and the SHA-256 if the file cannot be read.

    Raises
    ------
    CorruptFileError
        If the file is not what was stored.
    FileNotFoundError
        If it is gone.
    """

    def corrupt(how: str) -> CorruptFileError:
        return CorruptFileError(
            f"{str(path)!r} is not what was stored: {how}. Restore the file, or store the {what} again"
        )

    def require_digest() -> None:
        _, found = digest_of(path)
        if found != sha256:
            raise corrupt(f"its SHA-256 is {found}, not {sha256}")

    size = os.stat(path).st_size
    if size != size_bytes:
        raise corrupt(f"it has {size} bytes, not {size_bytes}")
    if verify:
        require_digest()
    try:
        return read(str(path))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RuntimeError, LookupError):  # whatever HDF5 makes of damage
        require_digest()
        raise
