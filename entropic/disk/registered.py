"""Which files outside a results folder a user has registered: notes that nobody else can have written.

A record in a table names such a file, and whoever may write in the table may write any name there. So `register`
leaves a note in the results folder, a file of the user's own, and only what that names is ever removed in the user's
name: with its real path, along which no link is followed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from entropic.disk.guarded import load_json, make_folder, open_file, open_folder, remove_at
from entropic.disk.owners import is_own
from entropic.process.logs import get_logger

__all__ = ["note_registered", "remove_registered", "unregistered"]

log = get_logger(__name__)

NOTES = ".entropic-registered"
_NOTE_BYTES = 1 << 16

Key = Sequence[str]  # table and id


def note_registered(root: Path, key: Key, path: Path) -> None:
    """Leave a note that this user registered *path*; without one, as where nothing may be written, the file is safe."""
    name, said = _note(key, path)
    try:
        with open_folder(root) as above, make_folder(NOTES, above, is_shared=True) as folder:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
                file.write(json.dumps(said).encode())
    except OSError as error:
        log.debug("that %s was registered could not be noted: %s", path, error)


def remove_registered(root: Path, key: Key, path: Path) -> None:
    """Remove a file or folder that this user registered, and the note on it.

    Raises
    ------
    OSError
        If it cannot be removed.
    """
    name, said = _note(key, path)
    with open_folder(root, NOTES) as folder:
        if _says(name, folder, said):
            _, *parts = Path(said[-1]).parent.parts
            with open_folder(Path("/"), *parts) as above:
                remove_at(path.name, above)
            if not os.path.lexists(path):  # a part of a folder may be another user's
                os.unlink(name, dir_fd=folder)


def unregistered(root: Path, key: Key, path: Path) -> str | None:
    """Say why a file or folder is not this user's to remove; None if a note says that it is."""
    name, said = _note(key, path)
    with suppress(FileNotFoundError), open_folder(root, NOTES) as folder:
        if _says(name, folder, said):
            return None
    return (
        f"no note says that this user (uid {os.geteuid()}) registered {str(path)!r}, and what is outside the results "
        "folder is removed for nobody else. If it is yours, remove it"
    )


def _note(key: Key, path: Path) -> tuple[str, list[str]]:
    said = [*key, str(path.parent.resolve() / path.name)]
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return f"{os.geteuid()}-{digest[:32]}", said


def _says(name: str, folder: int, said: list[str]) -> bool:
    try:
        with open_file(name, folder=folder, limit=_NOTE_BYTES) as file:
            status = os.fstat(file.fileno())
            others = stat.S_IWGRP | stat.S_IWOTH
            if status.st_mode & others or not is_own(status.st_uid, folder):
                return False
            return bool(load_json(file.read(_NOTE_BYTES)) == said)
    except (OSError, ValueError):
        return False
