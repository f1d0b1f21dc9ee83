"""Result files: measured, moved to their place, put aside; and the marker of the folder that holds them.

What a runner writes lies in a slot of its process first (`entropic.disk.sidecars`), and leaves it by one rename,
done by whoever may commit it. Nothing outside `.entropic/` that is not ours is read, moved or deleted.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import Any, BinaryIO

from entropic.errors import CorruptFileError

__all__ = ["digest_of", "remove", "require_digest", "size_of", "sync_data", "sync_folder"]

_BLOCK = 1 << 20
_BESIDE_BYTES = 4 << 20  # of a smaller file a thread costs more than it saves

sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


def digest_of(path: Path, *, sync: bool = False) -> tuple[int, str]:
    """Return size in bytes and SHA-256 of a file, or of a folder's sorted relative names and contents.

    Parameters
    ----------
    sync : bool
        Whether to fsync what is read; a large file while it is read.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return _digest_file(file, hashlib.sha256(), sync)
    total, whole = 0, hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if not p.is_dir()):
        with part.open("rb") as file:
            size, sha256 = _digest_file(file, hashlib.sha256(), sync)
        whole.update(
            f"{part.relative_to(path).as_posix()}\0{size}\0{sha256}\n".encode("utf-8", "surrogateescape")
        )
        total += size
    if sync:
        for folder in [path, *(p for p in path.rglob("*") if p.is_dir())]:
            sync_folder(folder)
    return total, whole.hexdigest()


def require_digest(path: Path, size_bytes: int, sha256: str) -> None:
    """Raise `CorruptFileError` unless what is at *path* has this size and SHA-256."""
    found = digest_of(path)
    if found != (size_bytes, sha256):
        raise CorruptFileError(
            f"{str(path)!r} is not what its run wrote: it has {found[0]} bytes and SHA-256 {found[1]}, not "
            f"{size_bytes} and {sha256}. store.check(checksum=True, fix=True) moves it to quarantine, so that the next "
            "call runs it again"
        )


def size_of(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder."""
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts if not part.is_dir())


def _digest_file(file: BinaryIO, digest: Any, sync: bool) -> tuple[int, str]:
    syncing = _Syncing(file) if sync and os.fstat(file.fileno()).st_size > _BESIDE_BYTES else None
    size = 0
    while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
    if syncing is not None:
        syncing.wait()
    elif sync:
        os.fsync(file.fileno())
    return size, digest.hexdigest()


class _Syncing:
    """An fsync in a thread of its own, while what is in the page cache is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._error: OSError | None = None
        # Its own: who is interrupted closes the file without waiting, and another may get the number.
        self._descriptor = os.dup(file.fileno())
        self._thread: threading.Thread | None = threading.Thread(target=self._sync, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the process ends, or may have no more threads
            self._thread = None

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._error = error
        finally:
            os.close(self._descriptor)

    def wait(self) -> None:
        """Return when the file is on the disk; raise if it is not."""
        if self._thread is None:
            self._sync()
        else:
            self._thread.join()
        if self._error is not None:
            raise self._error


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file or folder; one that is gone is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
