"""Result files: measured, moved to their place, put aside; and the marker of the folder that holds them.

What a runner writes lies in a slot of its process first (`entropic.disk.sidecars`), and leaves it by one rename,
done by whoever may commit it. Nothing outside `.entropic/` that is not ours is read, moved or deleted.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import threading
from collections.abc import Hashable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from entropic.disk.guarded import DEPTH, FOLDER, entries, located, open_file, remove_at
from entropic.errors import CorruptFileError, ResultFileError

__all__ = [
    "Key",
    "digest_at",
    "digest_of",
    "is_digest",
    "make_folders",
    "may_replace",
    "newest_change",
    "remove",
    "require_digest",
    "require_folder",
    "size_of",
    "sync_data",
    "sync_folder",
    "sync_together",
]

Key = TypeVar("Key", bound=Hashable)

_BLOCK = 1 << 20
_BESIDE_BYTES = 2 << 20  # at 1 MB a thread costs a tenth more than it saves, at 2 MB it saves as much
_TOGETHER = 128  # files that are open at a time, while they are synced

sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


def digest_of(path: Path, *, sync: bool = False) -> tuple[int, str]:
    """Return size in bytes and SHA-256 of a file, or of a folder's sorted relative names and contents.

    Parameters
    ----------
    sync : bool
        Whether to fsync what is read; a large file while it is read.

    Raises
    ------
    ResultFileError
        If it is something else, such as a FIFO, or a folder that holds such a thing.
    """
    with located(path) as (name, folder):
        try:
            return digest_at(name, folder, path, sync=sync)
        except OSError as error:
            if error.filename == path.name:
                error.filename = str(path)  # not the name below some descriptor
            raise


def digest_at(name: str, folder: int | None, path: Path, *, sync: bool = False) -> tuple[int, str]:
    """Return what `digest_of` does of *name* in a folder that is open; *path* is for people."""
    is_link_followed = folder is None  # a user may have put a link in the place of a large result
    if not _is_folder(name, folder, is_link_followed):
        with _opened(path, name, folder, is_link_followed) as file:
            return _digest_file(file, hashlib.sha256(), sync)
    total, whole = 0, hashlib.sha256()
    for parts, above, last in _files_below(name, folder, is_link_followed, sync):
        with _opened(path, last, above, is_link_followed) as file:
            size, sha256 = _digest_file(file, hashlib.sha256(), sync)
        whole.update(f"{'/'.join(parts)}\0{size}\0{sha256}\n".encode("utf-8", "surrogateescape"))
        total += size
    return total, whole.hexdigest()


def _is_folder(name: str, folder: int | None, is_link_followed: bool) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=is_link_followed).st_mode)


def _opened(path: Path, name: str, folder: int | None, is_link_followed: bool) -> BinaryIO:
    try:
        return open_file(name, folder=folder, limit=sys.maxsize, is_link_followed=is_link_followed)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ELOOP}:
            raise
        raise ResultFileError(
            f"{str(path)!r} is no file or folder of files, as a result must be ({Path(name).name!r}: {error.strerror})"
        ) from error


def _files_below(
    name: str, folder: int | None, is_link_followed: bool, sync: bool = False, parts: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], int, str]]:
    """Yield what is in a folder and in those below it, sorted: relative name in parts, and how to reach it."""
    if len(parts) > DEPTH:
        raise ResultFileError(
            f"a result's folders are nested more than {DEPTH} deep: {'/'.join(parts[:5])!r}…"
        )
    flags = FOLDER & ~os.O_NOFOLLOW if is_link_followed and not parts else FOLDER
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        for entry, status in entries(descriptor):
            if stat.S_ISDIR(status.st_mode):
                yield from _files_below(entry, descriptor, is_link_followed, sync, (*parts, entry))
            elif not (is_link_followed and _is_link_to_folder(entry, descriptor, status)):
                yield (*parts, entry), descriptor, entry
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_link_to_folder(name: str, folder: int, status: os.stat_result) -> bool:
    if not stat.S_ISLNK(status.st_mode):
        return False
    try:
        return _is_folder(name, folder, is_link_followed=True)
    except OSError:  # it dangles, which whoever opens it says
        return False


def is_digest(path: Path, digest: tuple[int, str]) -> bool:
    """Whether what is at *path* has this size and SHA-256."""
    try:
        return digest_of(path) == digest
    except (FileNotFoundError, NotADirectoryError, ResultFileError):  # nothing that a run can have written
        return False
    except OSError as error:
        if error.errno != errno.ELOOP:  # a disk that fails does not make a finished run one that never was
            raise
        return False


def require_digest(path: Path, size_bytes: int, sha256: str) -> None:
    """Raise `CorruptFileError` unless what is at *path* has this size and SHA-256."""
    found = digest_of(path)
    if found != (size_bytes, sha256):
        raise CorruptFileError(
            f"{str(path)!r} is not what its run wrote: it has {found[0]} bytes and SHA-256 {found[1]}, not "
            f"{size_bytes} and {sha256}. store.check(checksum=True, fix=True) moves it to quarantine, so that the next "
            "call runs it again; but a file that was registered is yours to restore, or to register again with "
            "overwrite=True"
        )


def size_of(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder; raise ResultFileError as `digest_of` does."""
    with located(path) as (name, folder):
        status = os.stat(name, dir_fd=folder, follow_symlinks=folder is None)
        if not stat.S_ISDIR(status.st_mode):
            if not stat.S_ISREG(status.st_mode):
                raise ResultFileError(f"{str(path)!r} is not a file or a folder of files: a result must be")
            return status.st_size
        below = _files_below(name, folder, folder is None)
        return sum(os.stat(last, dir_fd=above).st_size for _, above, last in below)


def newest_change(path: Path) -> float:
    """Return when a folder of state, or anything in it that can be looked at, was last changed; links as such."""
    with located(path) as (name, folder):
        newest = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
        return max([newest, *_changes_below(name, folder, DEPTH)])


def _changes_below(name: str, folder: int | None, depth: int) -> Iterator[float]:
    descriptor = os.open(name, FOLDER, dir_fd=folder)
    try:
        for entry, status in entries(descriptor):
            yield status.st_mtime
            if stat.S_ISDIR(status.st_mode) and depth:
                yield from _changes_below(entry, descriptor, depth - 1)
    finally:
        os.close(descriptor)


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


def sync_together(results: Mapping[Key, Path]) -> dict[Key, OSError]:
    """Bring results, each a file or a folder of files, to the disk; return by their keys the trouble that there was.

    One that is not there is no trouble: whoever moved it has synced it.
    """
    trouble: dict[Key, OSError] = {}
    keys = list(results)
    for start in range(0, len(keys), _TOGETHER):
        descriptors: dict[Key, int] = {}
        try:
            # An fsync of a small file waits for its blocks and for the file system's journal: all files are on their
            # way before the first is waited for, or each of them costs as much as one alone.
            for key in keys[start : start + _TOGETHER]:
                try:
                    descriptor = _on_its_way(results[key])
                except FileNotFoundError:
                    continue
                except OSError as error:
                    trouble[key] = error
                else:
                    if descriptor is not None:
                        descriptors[key] = descriptor
            for key, descriptor in descriptors.items():
                try:
                    os.fsync(descriptor)
                except OSError as error:
                    trouble[key] = error
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)
    return trouble


def _on_its_way(path: Path) -> int | None:
    """Open a file and have it written out, which is not waited for; None for a folder, which is synced at once."""
    with located(path) as (name, folder):
        if _is_folder(name, folder, is_link_followed=False):
            for _, above, last in _files_below(name, folder, is_link_followed=False, sync=True):
                with _opened(path, last, above, is_link_followed=False) as file:
                    os.fsync(file.fileno())
            return None
        with _opened(path, name, folder, is_link_followed=False) as file:
            descriptor = os.dup(file.fileno())
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # pages that are not written are not dropped by this, but begin to be written
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return descriptor


def make_folders(path: Path) -> None:
    """Make a folder, and those above it that are not there, so that their names survive a power cut."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(new):
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_folder(folder: Path, *, below: Path) -> None:
    """Make a folder, and those above it, where they are not there; what is made survives a power cut.

    Raises
    ------
    NotADirectoryError
        If a file is in the place of one of them, or a link in the place of one below *below*.
    """
    for one in reversed((folder, *folder.parents)):
        if one != below and one.is_relative_to(below) and one.is_symlink():
            raise NotADirectoryError(
                f"{str(one)!r} is a link, which may lead anywhere, where a folder is wanted: nothing was written. "
                "Put a folder there"
            )
        if one.is_dir():
            continue
        try:
            one.mkdir(exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(
                f"{str(one)!r} is a file, where a folder is wanted: give another path, or move it away"
            ) from None
        sync_folder(one.parent)


def may_replace(path: str) -> bool:
    """Whether this user may rename another file to *path*: in a sticky folder, as /tmp is, only owners may."""
    above = os.stat(os.path.dirname(path))
    if not above.st_mode & stat.S_ISVTX or os.geteuid() in {0, above.st_uid}:
        return True
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except FileNotFoundError:
        return True


def remove(path: Path) -> None:
    """Delete a file or folder, or a link and not what it points to; one that is gone is fine."""
    with suppress(FileNotFoundError), located(path) as (name, folder):
        remove_at(name, folder)
