"""The file that a connection of SQLite's is to: still the one of that name, and readable on a mount that is only read.

SQLite goes on with a file that was removed or replaced, which has no name any more: what is written there is lost with
the last process that has it open. And it reads a file in WAL mode only where it can make others beside it, unless it is
told that the file never changes (https://sqlite.org/wal.html#readonly).
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL
from sqlalchemy.exc import DisconnectionError

__all__ = ["SQLiteFile"]

_Identity = tuple[int, int, int | None]  # device, inode and, of an archive, when it was changed


class SQLiteFile:
    """The file of one engine; nothing is known of one in memory, or of a URI's.

    Attributes
    ----------
    path : str or None
        Absolute, but for an engine of a user's.
    """

    def __init__(self, url: URL, *, is_memory: bool) -> None:
        path = str(url.database)
        self.path = None if is_memory or path.startswith("file:") else os.path.abspath(path)
        self._was_there = False

    def begin_anew(self) -> None:
        """Let the next connection make a file where there is none any more."""
        self._was_there = False

    def prepare(self, dialect: Any, arguments: Any, keywords: Any) -> None:
        """Change what a connection is made with: SQLAlchemy's ``do_connect`` event.

        Raises
        ------
        sqlite3.OperationalError
            If the file has been there, and is not now: an empty one in its place would hide that.
        """
        if self.path is None:
            return
        if self._was_there and not os.path.exists(self.path):
            raise dialect.loaded_dbapi.OperationalError(
                f"the database {self.path!r} was removed while this process used it. Nothing was written. Bring it "
                "back; to begin anew, open the Store again, or whatever it was that used it"
            )
        if self._is_archive(self.path):
            arguments[:] = [f"file:{quote(self.path)}?immutable=1", *arguments[1:]]
            keywords["uri"] = True

    def identity(self) -> _Identity | None:
        """Return what tells the file that is there now; None where none is, or nobody knows its name."""
        if self.path is None:
            return None
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        self._was_there = True
        return status.st_dev, status.st_ino, status.st_mtime_ns if self._is_archive(self.path) else None

    def require(self, identity: _Identity | None) -> None:
        """Raise SQLAlchemy's `DisconnectionError` if another file is there than when that connection was made."""
        if self.identity() != identity:
            raise DisconnectionError(f"the database {self.path!r} was removed or replaced")

    def trouble(self) -> str | None:
        """Return why the file can be read by nobody who has not the right to write beside it; None if it can."""
        if self.path is None or not os.path.exists(self.path) or os.path.exists(f"{self.path}-shm"):
            return None
        folder = os.path.dirname(self.path)
        if os.access(folder, os.W_OK) and os.access(self.path, os.W_OK):
            return None
        return (
            f"nobody has the database {self.path!r} open, and SQLite then reads it only for a user who may write it "
            f"and make files in {folder!r}, which this one may not. Let one who may have it open meanwhile, give "
            "this user the right, or read a copy"
        )

    @staticmethod
    def _is_archive(path: str) -> bool:
        """Whether a file is on a mount that is only read, and nobody who may write has it open."""
        try:
            if not os.statvfs(path).f_flag & os.ST_RDONLY:
                return False
            has_log = os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal") > 0
        except OSError:
            return False
        return not has_log and not os.path.exists(f"{path}-shm")
