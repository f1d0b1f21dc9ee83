"""The file that a result is to replace, kept beside its successor until the commit.

A constraint that the database looks at last, on COMMIT, may refuse the row when the file has been replaced already.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from entropic.disk.guarded import copy_new, located, open_file
from entropic.runs.jobs import Receipt

__all__ = ["former_of", "keep_former"]


def former_of(receipt: Receipt, root: Path) -> Path:
    """Return where the file that a result replaces is kept until the commit."""
    return receipt.path(root).with_name(f".former-{receipt.attempt}")


def keep_former(receipt: Receipt, root: Path, name: str) -> None:
    """Keep the file *name* in the results folder, which a result is about to replace."""
    if not os.path.lexists(receipt.path(root)):
        return  # it was replaced by an earlier try
    path = root / name
    with suppress(FileNotFoundError, FileExistsError), located(former_of(receipt, root)) as (kept, slot):
        try:
            os.link(path, kept, dst_dir_fd=slot, follow_symlinks=False)
        except OSError as error:
            if path.is_symlink() or isinstance(error, FileNotFoundError | FileExistsError):
                return
            try:  # a file system without hard links, or another user's file
                with open_file(str(path), limit=sys.maxsize) as source:
                    copy_new(source, kept, slot)
            except PermissionError:  # which nobody else may read: so nobody misses it for a moment
                os.replace(path, kept, dst_dir_fd=slot)
