"""Other users of this machine, as whom a child process does something: real ones, so this needs root."""

import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import run_together

NEEDED = (
    *("sqlite3", "sqlalchemy.dialects.sqlite.pysqlite", "psycopg", "sqlalchemy.dialects.postgresql.psycopg"),
    *("encodings.ascii", "encodings.latin_1", "encodings.idna", "email.parser", "tomllib"),
)
GROUP = 47100  # of the lab: no such group need exist
UNINVITED = 47200


@dataclass(frozen=True)
class User:
    """Somebody with a uid, and with the groups and the umask that a login gives."""

    uid: int
    groups: tuple[int, ...] = (GROUP,)
    umask: int = 0o022

    def does(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what *function* returns in a process of this user's."""
        (result,) = run_together(_as_user, [(self, function, arguments)])
        return result


ALICE, BOB = User(47001), User(47002)


def _as_user(user: User, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    for name in NEEDED:
        importlib.import_module(name)  # now: Python itself may lie where this user cannot read
    os.setgroups(user.groups)
    os.setgid(user.groups[0] if user.groups else user.uid)
    os.setuid(user.uid)
    os.umask(user.umask)
    return function(*arguments)


@contextmanager
def place_for_all() -> Iterator[Path]:
    """Give an empty folder that every user can reach, and fail where no process can be another user's."""
    if os.geteuid() != 0:
        pytest.fail("who may do what in a shared folder is tested with real users: run this as root")
    folder = Path(tempfile.mkdtemp(prefix="entropic-users-"))  # not under tmp_path, which is root's alone
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def give(path: Path, uid: int, gid: int, mode: int | None = None) -> None:
    """Make *path* and what is in it that of a user and a group; links as such."""
    for one in [path, *([] if path.is_symlink() else path.rglob("*"))]:
        os.chown(one, uid, gid, follow_symlinks=False)
        if mode is not None and not one.is_symlink():
            one.chmod(mode | (0o111 if one.is_dir() else 0))
