"""A file under its final name: whole and on the disk, or not at all.

It is written under a name of its own in the same folder, measured and synced, and then renamed. What is killed in
between leaves that file behind, which begins with ``.entropic-`` and which nobody reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from entropic.disk.exclusive import put_new
from entropic.disk.files import digest_of, sync_folder
from entropic.errors import ResultFileMissingError

__all__ = ["Part", "publish"]


@dataclass(slots=True)
class Part:
    """A file that is being written.

    Attributes
    ----------
    path : Path
        Where to write it; of the target's suffix. Absolute if the target is.
    size_bytes, sha256 : int, str
        Of what was written, once it is published. Who has synced and measured it while it was written sets them.
    """

    path: Path
    size_bytes: int = 0
    sha256: str = ""


@contextmanager
def publish(target: Path, *, replace: bool = False) -> Iterator[Part]:
    """Give a path to write a file to; put it at *target* when the block ends, and nothing if an exception leaves it.

    Parameters
    ----------
    target : Path
        In a folder that exists.
    replace : bool
        Whether a file that is there gives way.

    Raises
    ------
    FileExistsError
        If there is one, unless *replace*. It is left alone.
    ResultFileMissingError
        If nothing was written.

    Notes
    -----
    Safe between threads and processes: of several that publish one name without *replace*, one does. A reader sees
    what was there before or all of the new file; on a file system without hard links, perhaps an empty one in between.
    When the block is left the file and its name survive a power cut.
    """
    part = Part(target.with_name(f".entropic-{uuid4().hex}{target.suffix}"))
    try:
        yield part
        try:
            if not part.sha256:
                part.size_bytes, part.sha256 = digest_of(part.path, sync=True)
        except FileNotFoundError as error:
            raise ResultFileMissingError(
                f"nothing was written for {str(target)!r}: it must go to {str(part.path)!r}"
            ) from error
        (os.replace if replace else put_new)(part.path, target)
    finally:
        part.path.unlink(missing_ok=True)
    sync_folder(target.parent)
