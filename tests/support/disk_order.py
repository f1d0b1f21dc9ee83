"""What reaches the disk, and in which order: the recorder behind the tests of what a power cut leaves."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

COMMITTED, DURABLY = "committed", "committed durably"

_CALLS = {  # of os, and which argument says the path
    "fsync": ("synced", 0),
    "fdatasync": ("synced", 0),
    "ftruncate": ("emptied", 0),
    "unlink": ("removed", 0),
    "rmdir": ("removed", 0),
    "mkdir": ("made", 0),
    "replace": ("renamed", 1),
    "link": ("renamed", 1),
}


class DiskOrder(list[tuple[str, str]]):
    """What was done to which path; of a rename the new one, of a commit the database."""

    def until(self, what: str, path: Any) -> "DiskOrder":
        """What came before this was done first."""
        return DiskOrder(self[: self.index((what, str(path)))])

    def last(self, *whats: str) -> str:
        """Which of these was done last."""
        return next(what for what, _ in reversed(self) if what in whats)

    def assert_safe(self, root: Any, database: Any) -> None:
        """Everything that was published is on the disk: its name in the results folder *root*, and its commit."""
        published = [
            n for n, (what, path) in enumerate(self) if what == "renamed" and Path(path).parent == root
        ]
        commits = [
            n for n, (what, path) in enumerate(self) if what in (COMMITTED, DURABLY) and path == database
        ]
        assert published, "nothing was published"
        assert ("synced", str(root)) in self[published[-1] :], "the name of a result is not on the disk"
        assert self[commits[-1]][0] == DURABLY, "a commit is not on the disk"
        assert commits[-1] > published[-1]


@contextmanager
def disk_order() -> Iterator[DiskOrder]:
    """Record inside the block what this process syncs, empties, removes and renames, and its commits to SQLite."""
    order = DiskOrder()

    def commit(connection: Any) -> None:
        level = connection.connection.dbapi_connection.execute("PRAGMA synchronous").fetchone()[0]
        order.append((DURABLY if level == 2 else COMMITTED, str(connection.engine.url.database)))

    event.listen(Engine, "commit", commit)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, (what, place) in _CALLS.items():
                _record(patch, order, name, what, place)
            yield order
    finally:
        event.remove(Engine, "commit", commit)


def _record(patch: pytest.MonkeyPatch, order: DiskOrder, name: str, what: str, place: int) -> None:
    real = getattr(os, name)

    def recorded(*args: Any, **kwargs: Any) -> Any:
        path = _path(args[place], kwargs.get("dir_fd"))
        result = real(*args, **kwargs)
        order.append((what, path))
        return result

    patch.setattr(os, name, recorded)
    ours = [module for key, module in sys.modules.items() if key.partition(".")[0] == "entropic"]
    for module in ours:  # one may have taken the function out of os when it was imported
        for key, value in list(vars(module).items()):
            if value is real:
                patch.setattr(module, key, recorded)


def _path(path: Any, folder: int | None) -> str:
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    return os.path.join("" if folder is None else os.readlink(f"/proc/self/fd/{folder}"), path)
