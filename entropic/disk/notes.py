"""Files that stand or fall with a row: a note names them until it is known which of them the row has.

A file gets a name that nobody has used, and a row makes it visible. Between the two, and between the row and the
removal of the file that it had before, a process may be killed. So a note is written first; whoever finds it after the
process has ended asks the row, and drops the other files that the note names.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from entropic.disk.files import sync_data
from entropic.disk.guarded import entries, load_json, open_folder, read_file
from entropic.disk.owners import is_own
from entropic.process.identity import Process, this_process
from entropic.process.logs import get_logger

__all__ = ["Note", "Notes"]

log = get_logger(__name__)

LIMIT = 1 << 26  # bytes of a note
LOST_S = 7 * 24 * 3600.0  # after which a process of which nothing is known has surely ended


@dataclass
class Note:
    """A note, and what it says.

    Attributes
    ----------
    subject : str
        Whose files they are.
    files : list of str
        Names: each is the row's, or garbage once the process that wrote the note has ended.
    """

    path: Path
    subject: str
    files: list[str] = field(default_factory=list)

    def add(self, file: str) -> None:
        """Name one more file, and return when that is on the disk."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(descriptor, _line(file))
            sync_data(descriptor)
        finally:
            os.close(descriptor)
        self.files.append(file)

    def drop(self) -> None:
        """Remove the note: the files that it names are in order."""
        self.path.unlink(missing_ok=True)


class Notes:
    """The notes in a folder.

    Parameters
    ----------
    folder : Path
        Made with the first note.
    database : str
        uuid of the database that has the rows.

    Notes
    -----
    Safe between threads and processes: each note is a file of its own.
    """

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self._database = database

    def write(self, subject: str, files: Iterable[str]) -> Note:
        """Write a note, and return it when it is on the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        note = Note(self.folder / f"{uuid4().hex}.note", subject, list(files))
        head = {"database": self._database, "subject": subject, "process": this_process().as_dict()}
        with note.path.open("xb") as file:
            file.write(_line(head) + b"".join(map(_line, note.files)))
            file.flush()
            sync_data(file.fileno())
        return note

    def left(self) -> Iterator[Note]:
        """Yield the notes on rows of this database whose processes have ended; what is no note is left alone."""
        try:
            with open_folder(self.folder.parent, self.folder.name) as folder:
                found = [
                    (name, status.st_mtime)
                    for name, status in entries(folder)
                    if _is_believed(status, folder) and name.endswith(".note")
                ]
                notes = [note for name, since in found if (note := self._read(name, folder, since))]
        except FileNotFoundError:
            return
        yield from notes

    def _read(self, name: str, folder: int, since: float) -> Note | None:
        path = self.folder / name
        try:
            # What follows the last line break was cut off by the end of its process.
            lines = [
                load_json(line) for line in read_file(name, folder=folder, limit=LIMIT).split(b"\n")[:-1]
            ]
            if not lines:
                return None
            head: dict[str, Any] = dict(lines[0])
            if head["database"] != self._database:
                return None
            writer, subject = Process(**head["process"]), str(head["subject"])
        except FileNotFoundError:  # its process has removed it meanwhile
            return None
        except (OSError, ValueError, TypeError, LookupError) as error:
            log.warning("%s is no note of entropic's, and was left alone: %s", path, error)
            return None
        is_alive = writer.is_alive()
        if is_alive or (is_alive is None and time.time() - since < LOST_S):
            return None
        return Note(path, subject, [file for file in lines[1:] if isinstance(file, str)])


def _is_believed(file: os.stat_result, folder: int) -> bool:
    """Whether a note can be by this user, or by the owner of the folder."""
    above = os.fstat(folder)
    if not stat.S_ISREG(file.st_mode) or file.st_mode & stat.S_IWOTH:
        return False
    is_owners = file.st_uid == above.st_uid and not above.st_mode & stat.S_IWOTH
    return is_owners or is_own(file.st_uid, folder)


def _line(content: Any) -> bytes:
    return json.dumps(content).encode("ascii") + b"\n"
