"""The SHA-256 of a file that is written from its front to its end, made behind the writing.

It is made from the page cache in a thread of its own, so that what was written is measured, not what was meant; and the
last of it while the file is synced.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from queue import SimpleQueue
from typing import Any, BinaryIO

__all__ = ["Following"]

_BLOCK = 1 << 18


class Following:
    """A context manager: follows a file that is being written.

    Parameters
    ----------
    file : file
        Unbuffered, and open for reading, too.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # Its own: who is interrupted closes the file without waiting, and another may get the number.
        self._descriptor = os.dup(file.fileno())
        self._digest = hashlib.sha256()
        self._done = 0
        self._ends: SimpleQueue[int | None] = SimpleQueue()
        self._error: OSError | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Following:
        try:
            self._thread.start()  # type: ignore[union-attr]
        except RuntimeError:  # the process ends, or may have no more threads
            self._thread = None
        return self

    def __exit__(self, *exception: Any) -> None:
        self._ends.put(None)
        if self._thread is None:
            os.close(self._descriptor)

    def follow(self, end: int) -> None:
        """Say that nothing before *end* will change any more."""
        self._ends.put(end)

    def synced(self) -> tuple[int, str]:
        """Sync the file, all of which is written; return its size in bytes and SHA-256.

        Raises
        ------
        OSError
            If it is not on the disk, or cannot be read.
        """
        descriptor = self._file.fileno()
        size = os.fstat(descriptor).st_size
        self.follow(size)
        self._ends.put(None)
        os.fsync(descriptor)
        if self._thread is None:
            self._measure()
        else:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return size, self._digest.hexdigest()

    def _run(self) -> None:
        try:
            self._measure()
        except OSError as error:
            self._error = error
        finally:
            os.close(self._descriptor)

    def _measure(self) -> None:
        block = memoryview(bytearray(_BLOCK))  # used again: new memory costs as much as the copy
        while (end := self._ends.get()) is not None:
            while self._done < end:
                part = block[: end - self._done]
                size = os.preadv(self._descriptor, [part], self._done)
                if not size:
                    raise OSError(errno.EIO, "the file became shorter while it was written")
                self._digest.update(part[:size])
                self._done += size
