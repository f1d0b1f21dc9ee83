"""Files that stand or fall with a row, whatever is killed when.

A file is written under a name that nobody has used, and a row makes it visible; the file that the row had before is
removed after the commit. A note names both until then. What became of the transaction nobody needs to remember: of the
files that a note names, those are dropped that no row has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from entropic.disk.notes import Note, Notes
from entropic.disk.publish import Part, publish
from entropic.errors import ResultsDirUnavailableError
from entropic.process.logs import get_logger
from entropic.sql.database import Database

__all__ = ["Exchange", "Rows"]

log = get_logger(__name__)

T = TypeVar("T")


class Rows(Protocol):
    """The rows that have the files."""

    def folder(self, subject: str) -> Path:
        """Return where the files of a subject are; raise ValueError if it cannot be one."""

    def is_empty(self, connection: Connection) -> bool:
        """Whether no row has a file."""

    def is_ours(self, file: str) -> bool:
        """Whether a file of this name may be removed if no row has it."""

    def having(self, connection: Connection, subject: str, files: list[str]) -> set[str]:
        """Return which of *files* rows have."""

    def wait_for_others(self, connection: Connection, subject: str, files: list[str]) -> None:
        """Return when no other transaction is writing rows that can have one of *files*."""


@dataclass(frozen=True)
class Exchange:
    """Changes rows together with their files.

    Parameters
    ----------
    notes : Notes
        Of the same database.
    rows : Rows

    Notes
    -----
    Safe between threads and processes, of one host or several, as far as they have one folder and one database.
    """

    database: Database
    notes: Notes
    rows: Rows

    def require_root(self, what: str) -> None:
        """Raise `ResultsDirUnavailableError` if there are files of *what*, and they are in another folder."""
        root, name = self.notes.folder.parent, self.notes.folder.name
        if self.notes.folder.is_dir() or self.database.read(self.rows.is_empty):
            return
        raise ResultsDirUnavailableError(
            f"{str(root)!r} is not the folder of the {what} in {self.database!r}: it has no folder {name!r}. Nothing "
            f"was run or written. Mount it, or give the folder that the other {what} are in; if their files were "
            f"removed on purpose, make {name!r} in it"
        )

    def write(
        self, subject: str, target: Path, save: Callable[[Part], object], former: Iterable[str] = ()
    ) -> tuple[Part, Note]:
        """Write a file that is to get a row, and sync it.

        Parameters
        ----------
        target : Path
            In a folder that exists, in the subject's or below it.
        save : callable
            Writes the file.
        former : iterable of str
            The files that lose their row then, as far as they are known.

        Returns
        -------
        Part, Note
            What was written, and the note that names it, for `change`.
        """
        folder = self.rows.folder(subject)
        note: Note | None = None
        try:
            with publish(target) as part:
                names = [str(path.relative_to(folder)) for path in (target, part.path)]
                note = self.notes.write(subject, [*names, *former])
                save(part)
        except BaseException as error:
            if not isinstance(error, FileExistsError):  # that is another one's
                target.unlink(missing_ok=True)
            if note is not None:
                note.drop()
            raise
        return part, note

    def change(self, note: Note, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)`` in a transaction that may write; files that have no row afterwards are removed.

        Parameters
        ----------
        note : Note
            Names the files that get a row, and those that lose theirs. *work* adds those that it finds instead.
        work : callable
            Called again after a deadlock or when the connection was lost. It must not mind, whether or not the
            transaction before was committed.

        Notes
        -----
        Inside a block of `Database.transaction` it is part of that, and files are removed when that ends.
        """
        if self.database.is_in_block:
            with self.database.transaction() as block:
                block.on_commit(partial(self._settle_if_possible, note))
                block.on_rollback(partial(self._settle_if_possible, note, is_open=True))
            return self.database.write(work)
        try:
            # Durable: before the former file is removed, the row must have been synced.
            result = self.database.write(work, durable=True, repeatable=True)
        except BaseException:
            self._settle_if_possible(note, is_open=True)
            raise
        self._settle_if_possible(note)
        return result

    def recover(self) -> None:
        """Finish what processes that have ended left between a file and its row."""
        try:
            notes = list(self.notes.left())
        except OSError as error:  # a folder that may not be read, or a link in its place
            log.warning("%s is left alone: %s", self.notes.folder, error)
            return
        for note in notes:
            if gone := self._settle_if_possible(note, is_open=True):
                log.warning(
                    "of %r a process that has ended left %s, without a row: removed", note.subject, gone
                )

    def _settle_if_possible(self, note: Note, *, is_open: bool = False) -> list[str]:
        try:
            return self._settle(note, is_open)
        except (DBAPIError, OSError, ValueError) as error:
            log.warning("%s is left to whoever opens the store later: %s", note.path, error)
            return []

    def _settle(self, note: Note, is_open: bool) -> list[str]:
        """Remove the files of a note that no row has, and the note; return those that there were.

        With *is_open* nobody knows what became of its transaction: a server may still be committing it for a process
        that was killed.
        """
        folder = self.rows.folder(note.subject)
        files = [file for file in note.files if self.rows.is_ours(file)]

        def having(connection: Connection) -> set[str]:
            if is_open:
                self.rows.wait_for_others(connection, note.subject, files)
            return self.rows.having(connection, note.subject, files)

        run = partial(self.database.write, durable=True, repeatable=True) if is_open else self.database.read
        kept = run(having)
        gone = []
        for file in sorted(set(files) - kept):
            try:
                (folder / file).unlink()
                gone.append(file)
            except FileNotFoundError:
                continue
        note.drop()
        return gone
