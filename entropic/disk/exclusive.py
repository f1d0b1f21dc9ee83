"""A whole file under a name that nobody has: of several who ask at once, one gets it.

By a hard link, which fails where the name is taken, on NFS too. Where there are none, as on exFAT and many file systems
in user space, the name is taken by an empty file first, which the whole one replaces: whoever reads sees nothing, an
empty file or all of it, and who is killed in between leaves an empty one.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["put_new"]

_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def put_new(source: Path, target: Path) -> None:
    """Give the file *source* the name *target* on the same file system; it may keep its own besides.

    Raises
    ------
    FileExistsError
        If that is taken. Nothing is changed.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        os.replace(source, target)
