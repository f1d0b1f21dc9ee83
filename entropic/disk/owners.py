"""Whose finished runs are believed: our own user's, the folder's owner's, and those of a group that was invited.

Whoever may write in a results folder may leave a process's folder there, with lines that say what was computed. It is
taken if its owner is the user that a file made there now belongs to, or the owner of the results folder; or if results
folder, `.entropic` and the process's folder are of one group and may be written by it, and by nobody else. Where the
world may write, only one's own are taken.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from entropic.disk.guarded import FOLDER, QUARANTINE, STATE, entries, open_folder

__all__ = ["Believed", "Stranger", "is_own", "process_folders", "strangers"]

_made_by: dict[tuple[int, int, int], int] = {}  # by device, inode and our uid: whose a new file is


@dataclass(frozen=True, slots=True)
class Stranger:
    """An entry of `.entropic` that is not believed, or not followed."""

    path: Path
    uid: int
    is_link: bool

    def __str__(self) -> str:
        if self.is_link:
            return f"{str(self.path)!r}, of uid {self.uid}, is a link or no folder, and was left alone: remove it"
        root = self.path.parents[1]
        return (
            f"what uid {self.uid} left in {str(self.path)!r} is not believed and was left alone: a finished run is "
            f"taken only of this user (uid {os.geteuid()}), of the owner of {str(root)!r}, or of a group that may "
            "write there. Let that user open a Store on the folder; or invite the group, with chgrp -R GROUP and "
            "chmod -R g+w,o-w on the folder, chmod g+s on each folder in it, and umask 002 where runs are made; or "
            "remove what is left"
        )


@dataclass
class Believed:
    """Who is believed in one results folder.

    Attributes
    ----------
    state : int
        Descriptor of `.entropic`, as long as this is asked.
    owner : int or None
        uid of the results folder's owner; None where the world may write.
    group : int or None
        gid of the group that was invited, if one was.
    """

    state: int
    owner: int | None
    group: int | None
    _own: set[int] = field(default_factory=lambda: {os.geteuid()})

    @classmethod
    def in_root(cls, root: os.stat_result, state: int) -> Believed:
        """Look at who may write in a results folder, and in its `.entropic`."""
        state_status = os.fstat(state)
        is_open = (root.st_mode | state_status.st_mode) & stat.S_IWOTH
        may = root.st_mode & state_status.st_mode & stat.S_IWGRP
        is_group = may and root.st_gid == state_status.st_gid and not is_open
        return cls(state, None if is_open else root.st_uid, root.st_gid if is_group else None)

    def believes(self, folder: os.stat_result) -> bool:
        """Whether a process's folder is taken."""
        if folder.st_mode & stat.S_IWOTH:
            return self._is_own(folder.st_uid)
        return self._is_own(folder.st_uid) or folder.st_uid == self.owner or self._is_invited(folder)

    def believes_file(self, file: os.stat_result, folder: os.stat_result) -> bool:
        """Whether a file in a folder that is taken can be by those who are believed there."""
        if folder.st_mode & stat.S_IWOTH or file.st_mode & stat.S_IWOTH:
            return self._is_own(file.st_uid)
        return self._is_own(file.st_uid) or file.st_uid == self.owner or self._is_invited(folder)

    def _is_invited(self, folder: os.stat_result) -> bool:
        is_group = self.group is not None and folder.st_gid == self.group
        return is_group and bool(folder.st_mode & stat.S_IWGRP)

    def _is_own(self, uid: int) -> bool:
        if uid not in self._own and is_own(uid, self.state):
            self._own.add(uid)
        return uid in self._own


def is_own(uid: int, folder: int) -> bool:
    """Whether a file in a folder that is of *uid* can be by this user: a server may give it to another than us."""
    return uid == os.geteuid() or uid == _uid_of_new_file(folder)


def _uid_of_new_file(folder: int) -> int:
    status = os.fstat(folder)
    key = (status.st_dev, status.st_ino, os.geteuid())
    if key not in _made_by:
        name = f"whose-{uuid4().hex}"
        try:
            made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        except OSError:  # nothing can be made there, so nothing is ours either
            return os.geteuid()
        try:
            _made_by[key] = os.fstat(made).st_uid
        finally:
            os.close(made)
            os.unlink(name, dir_fd=folder)
    return _made_by[key]


def process_folders(root: Path) -> Iterator[Path]:
    """Yield the folders under *root* of all processes that are believed."""
    yield from (one for one in _found(root) if isinstance(one, Path))


def strangers(root: Path) -> list[Stranger]:
    """Return the folders under *root* of processes that are not believed, and links in their places."""
    return [one for one in _found(root) if isinstance(one, Stranger)]


def _found(root: Path) -> list[Path | Stranger]:
    """Return each process's folder, or who it is of that is not believed."""
    try:
        with open_folder(root) as above:
            root_status = os.fstat(above)
            try:
                descriptor = os.open(STATE, FOLDER, dir_fd=above)
            except FileNotFoundError:
                return []
            except OSError:  # a link, or no folder
                status = os.stat(STATE, dir_fd=above, follow_symlinks=False)
                return [Stranger(root / STATE, status.st_uid, is_link=True)]
            try:
                return _judged(root, Believed.in_root(root_status, descriptor))
            finally:
                os.close(descriptor)
    except FileNotFoundError:
        return []


def _judged(root: Path, believed: Believed) -> list[Path | Stranger]:
    found: list[Path | Stranger] = []
    for name, status in entries(believed.state):
        if name == QUARANTINE:
            continue
        path = root / STATE / name
        if stat.S_ISLNK(status.st_mode):
            found.append(Stranger(path, status.st_uid, is_link=True))
        elif stat.S_ISDIR(status.st_mode):
            is_believed = believed.believes(status)
            found.append(path if is_believed else Stranger(path, status.st_uid, is_link=False))
    return found
