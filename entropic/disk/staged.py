"""What a runner has left in its slot: the one thing that is its result, complete, measured, and its own.

A run may leave a thread or a process behind that writes when it has long ended, and another run may have its slot then.
So what is found in a slot that was used before counts only as far as its name tells that it is of this run.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from entropic.disk.files import digest_at
from entropic.disk.guarded import DEPTH, FOLDER, copy_new, open_file, open_up, opened, remove_at
from entropic.disk.owners import is_own
from entropic.disk.roots import quarantine
from entropic.errors import ResultFileError, ResultFileMissingError
from entropic.process.logs import get_logger

__all__ = ["Staged", "is_named_by", "stage"]

log = get_logger(__name__)

_begins_with_key = re.compile(r"[0-9a-f]{16}(?![0-9a-f])").match

# Descriptors of links: what was looked at cannot be another a moment later.
_HAS_PATHS = hasattr(os, "O_PATH")


@dataclass(frozen=True, slots=True)
class Staged:
    """A finished file or folder in its slot."""

    name: str
    size_bytes: int
    sha256: str


def stage(slot: Path, wanted: str, *, sync: bool = True, key: str = "") -> Staged:
    """Make sure that the one thing in *slot* is complete, and measure it.

    Parameters
    ----------
    wanted : str
        The basename that the runner was told to write; one without a suffix may be given any.
    sync : bool
        Whether to bring it to the disk.
    key : str
        Of the run, where another one has had the slot before. What begins with another key is removed then.

    Raises
    ------
    ResultFileMissingError
        If there is nothing.
    ResultFileError
        If there are two things, or one that does not begin with *key*; they are kept in quarantine. If it is no file
        or folder of files, such as a FIFO or a link that leads to no file.

    Notes
    -----
    In place of a link to a file, hard or symbolic, there is a copy afterwards: a result is its own.
    """
    try:
        with opened(slot) as folder:
            names = sorted(os.listdir(folder))
            if key:
                names = _without_late(names, key, folder, slot)
            if len(names) == 1:
                _copy_links(names[0], folder, slot)
                # Its name in the slot needs no sync of its own: file systems that journal (ext4, XFS, btrfs) keep the
                # name of a new file that was synced, and at the latest with the sync of the sidecar, which follows.
                size, sha256 = digest_at(names[0], folder, slot / names[0], sync=sync)
    except FileNotFoundError:
        if slot.is_dir():
            raise
        names = []  # the runner has removed the folder that it was given, with all that was there
    if not names:
        raise ResultFileMissingError(
            f"the runner wrote no file: it must write to params['result_file'], here {str(slot / wanted)!r}"
        )
    if len(names) > 1:
        kept = quarantine(slot)
        raise ResultFileError(
            f"the runner wrote {len(names)} files ({', '.join(names)}), but one file or folder is one result: write "
            f"them into a folder at params['result_file']. They are kept in {str(kept)!r}"
        )
    (name,) = names
    is_wanted = name == wanted or (not Path(wanted).suffix and name.startswith(f"{wanted}."))
    if not is_wanted:
        log.info("the runner was to write %s and wrote %s, which is taken as the result", wanted, name)
    return Staged(name, size, sha256)


def _without_late(names: list[str], key: str, folder: int, slot: Path) -> list[str]:
    """Return what of *names* may be the result of *key*, in a slot that another run has had before."""
    late = [name for name in names if _begins_with_key(name) and not is_named_by(name, key)]
    for name in late:
        with suppress(OSError):
            remove_at(name, folder)
    if late:
        log.warning(
            "%s was written after its run had ended, by what that had left behind, and is removed",
            ", ".join(late),
        )
    left = [name for name in names if name not in late]
    if len(left) == 1 and not is_named_by(left[0], key):
        kept = quarantine(slot)
        raise ResultFileError(
            f"the runner wrote {left[0]!r}, or a run that was here before did, and has left a thread or a process "
            "behind: nothing tells which. Write to params['result_file'], or to a name that begins like it. It is kept "
            f"in {str(kept)!r}; the next call runs where no run was before"
        )
    return left


def is_named_by(name: str, key: str) -> bool:
    """Whether a file of this name is surely that of the run of *key*."""
    return name.startswith(key) and not name[len(key) : len(key) + 1].isalnum()


def _copy_links(name: str, folder: int, above: Path, depth: int = 0) -> None:
    """Put a copy in the place of each link to a file that this user made: another's may lead to what is private.

    A file that has another name too is as little the result's own: who writes to that one would change the result.
    """
    path = above / name
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        with _linked(name, folder, path) as source:
            _put_copy(source, name, folder)
    elif stat.S_ISREG(mode) and status.st_nlink > 1:
        with open_file(name, folder=folder, limit=sys.maxsize) as source:
            _put_copy(source, name, folder)
    elif stat.S_ISDIR(mode) and depth <= DEPTH:
        descriptor = os.open(name, FOLDER, dir_fd=folder)
        try:
            for entry in os.listdir(descriptor):
                _copy_links(entry, descriptor, path, depth + 1)
        finally:
            os.close(descriptor)


def _put_copy(source: BinaryIO, name: str, folder: int) -> None:
    open_up(folder)
    copy = f".copy-{uuid4().hex}"
    copy_new(source, copy, folder)
    os.replace(copy, name, src_dir_fd=folder, dst_dir_fd=folder)


@contextmanager
def _linked(name: str, folder: int, path: Path) -> Iterator[BinaryIO]:
    """Open what a link leads to, as it was when it was looked at."""
    link = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder) if _HAS_PATHS else None
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False) if link is None else os.fstat(link)
        leads_to = os.readlink(name, dir_fd=folder) if link is None else os.readlink("", dir_fd=link)
    finally:
        if link is not None:
            os.close(link)
    if not is_own(status.st_uid, folder):
        raise ResultFileError(
            f"{str(path)!r} is a link that uid {status.st_uid} made, not this user (uid {os.geteuid()}), and is not "
            "followed: nobody else may write where a run writes"
        )
    try:
        file = open_file(leads_to, folder=folder, limit=sys.maxsize, is_link_followed=True)
    except OSError as error:
        raise ResultFileError(
            f"{str(path)!r} is a link to {leads_to!r}, which is no file that can be read ({error.strerror}): a result "
            "is a file or a folder of files of its own. Copy what it links to"
        ) from error
    with file:
        yield file
