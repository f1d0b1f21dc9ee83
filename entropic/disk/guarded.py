"""Looks into folders in which others may write: names are names, no link is followed, what is read is bounded.

Everything under `.entropic/` is reached from the descriptor of the folder above it, so that what was looked at is what
is read, moved or removed. Nothing but regular files is opened, and never in a way that waits.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

__all__ = [
    "DEPTH",
    "FOLDER",
    "QUARANTINE",
    "STATE",
    "copy_new",
    "entries",
    "load_json",
    "located",
    "make_folder",
    "open_file",
    "open_folder",
    "open_up",
    "opened",
    "read_file",
    "remove_at",
    "rename_at",
    "unlink",
    "write_new",
]

STATE = ".entropic"
QUARANTINE = "quarantine"
_BELOW_STATE = f"{os.sep}{STATE}{os.sep}"
DEPTH = 100  # folders below a result's: each costs a descriptor while it is looked at

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def open_folder(path: str | Path, *names: str) -> Iterator[int]:
    """Give a descriptor of the folder *names* below *path*; only *path* itself may be reached by links.

    Raises
    ------
    OSError
        If one of them is not there, is a link, or is no folder.
    """
    # The first one and what it lies in at once: only of the last part of a path no link is followed.
    first = os.path.join(path, names[0]) if names else path
    descriptor = os.open(first, FOLDER if names else FOLDER & ~os.O_NOFOLLOW)
    try:
        for name in names[1:]:
            above, descriptor = descriptor, os.open(name, FOLDER, dir_fd=descriptor)
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def located(path: Path) -> Iterator[tuple[str, int | None]]:
    """Give name and folder's descriptor to reach an absolute *path*; path and None where it is in no folder of state.

    A path below ``.entropic`` is safe then: what a link there leads to is not reached.
    """
    text = str(path)
    # In the text, not in the parts: each run comes here several times, and to make a Path takes as long as to open it.
    at = text.rfind(_BELOW_STATE)
    if at < 0:
        yield text, None
        return
    *names, name = text[at + 1 :].split(os.sep)
    with open_folder(text[:at] or os.sep, *names) as descriptor:
        yield name, descriptor


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Give a descriptor of the folder at *path*, reached as `located` does; raise OSError if it is a link."""
    with located(path) as (name, above):
        descriptor = os.open(name, FOLDER, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def unlink(path: Path) -> None:
    """Delete a file, reached as `located` does."""
    with located(path) as (name, folder):
        os.unlink(name, dir_fd=folder)


def rename_at(name: str, folder: int | None, target: str | Path, above: int | None = None) -> None:
    """Rename *name* in a folder to *target*, in the folder *above* if one is given, over a file that is there.

    A folder in which its owner may not write cannot leave its place, as it names the one that it lies in: from then on
    the owner may.
    """
    try:
        os.replace(name, target, src_dir_fd=folder, dst_dir_fd=above)
    except PermissionError:
        try:
            descriptor = os.open(name, FOLDER, dir_fd=folder)
        except OSError:
            is_opened_up = False
        else:
            is_opened_up = open_up(descriptor)
            os.close(descriptor)
        if not is_opened_up:
            raise
        os.replace(name, target, src_dir_fd=folder, dst_dir_fd=above)


def open_up(folder: int) -> bool:
    """Let the owner write in a folder; return whether that is new."""
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    if mode & stat.S_IWUSR:
        return False
    try:
        os.fchmod(folder, mode | stat.S_IRWXU)
    except OSError:  # somebody else's
        return False
    return True


def copy_new(source: BinaryIO, name: str, folder: int | None) -> None:
    """Copy an open file to a new one in a folder, with its times."""
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        status = os.fstat(source.fileno())
        os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def make_folder(name: str, folder: int, *, is_shared: bool = False) -> Iterator[int]:
    """Give a descriptor of the folder *name* in another one; made if it is not there, never for the world to write.

    With *is_shared* whoever may write in the one may in the other, but for the world: a group that was invited.
    """
    is_made = True
    try:
        os.mkdir(name, 0o775, dir_fd=folder)
    except FileExistsError:
        is_made = False
    descriptor = os.open(name, FOLDER, dir_fd=folder)
    try:
        above = stat.S_IMODE(os.fstat(folder).st_mode)
        if is_made and is_shared and above & stat.S_IWGRP:
            os.fchmod(descriptor, above & ~stat.S_IWOTH)
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(
    name: str, *, folder: int | None = None, limit: int, is_link_followed: bool = False
) -> BinaryIO:
    """Open a regular file of at most *limit* bytes for reading.

    Raises
    ------
    OSError
        If it is not there, a link, larger, or something else, such as a FIFO, which is not waited for.
    """
    flags = _FILE & ~os.O_NOFOLLOW if is_link_followed else _FILE
    # Before it is opened: to open a device may do something.
    status = os.stat(name, dir_fd=folder, follow_symlinks=is_link_followed)
    _require_regular(status, name, limit)
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        _require_regular(os.fstat(descriptor), name, limit)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _require_regular(status: os.stat_result, name: str, limit: int) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "a link is not followed here", name)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", name)
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"larger than the {limit} bytes that it can have", name)


def read_file(name: str, *, folder: int | None = None, limit: int) -> bytes:
    """Return what a regular file of at most *limit* bytes holds; raise OSError as `open_file` does."""
    with open_file(name, folder=folder, limit=limit) as file:
        data = file.read(limit + 1)
    if len(data) > limit:  # it has grown
        raise OSError(errno.EFBIG, f"larger than the {limit} bytes that it can have", name)
    return data


def write_new(name: str, data: bytes, folder: int) -> None:
    """Write a file of a few bytes, over one that is there but not through a link."""
    descriptor = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o664, dir_fd=folder
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def load_json(data: bytes) -> Any:
    """Return what JSON says; raise ValueError if it is none, or nested too deeply to be ours."""
    try:
        return json.loads(data.decode())  # bytes would be tried as UTF-16 and UTF-32 too
    except RecursionError:
        raise ValueError("nested too deeply") from None


def entries(folder: int) -> list[tuple[str, os.stat_result]]:
    """Return what is in a folder, sorted by name, links as such; what goes meanwhile is left out."""
    found = []
    with os.scandir(folder) as scanned:
        for entry in scanned:
            try:
                found.append((entry.name, os.stat(entry.name, dir_fd=folder, follow_symlinks=False)))
            except FileNotFoundError:
                continue
    return sorted(found)


def remove_at(name: str, folder: int | None, *, keep: str = "") -> None:
    """Delete a file, or a folder and what is in it, but for the entry *keep*; links are not followed.

    Of a folder, what cannot be deleted, or is nested too deeply to be ours, stays. Where its owner may not write, as in
    a copy of what is kept from changes, that is no reason.

    Raises
    ------
    OSError
        If it is a file that cannot be deleted.
    """
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=folder)
            return
    except FileNotFoundError:
        return
    _remove_folder(name, folder, keep, DEPTH)


def _remove_folder(name: str, folder: int | None, keep: str, depth: int) -> None:
    try:
        below = os.open(name, FOLDER, dir_fd=folder)
    except OSError:
        return
    try:
        open_up(below)
        for entry, status in entries(below):
            if entry == keep:
                continue
            if stat.S_ISDIR(status.st_mode):
                if depth:
                    _remove_folder(entry, below, "", depth - 1)
                continue
            try:
                os.unlink(entry, dir_fd=below)
            except OSError:
                continue
    finally:
        os.close(below)
    if not keep:
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError:
            return
