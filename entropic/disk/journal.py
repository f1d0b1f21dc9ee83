"""Changes to a file that are made as a whole, though they lie all over it: those of HDF5, when something is appended.

What is written is collected in memory, by pages, and goes first into a journal beside the file: complete, synced, and
then linked to its name, which is the moment from which it counts. Then the pages are written to the file, and the
journal is removed. Whoever finds one finishes that, or reads as if it were finished. The file has a uuid of its state,
which each change replaces before anything else, and a journal says from which state to which it leads: one that does
not fit is nobody's business. A reader that finds the state changed reads again.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from entropic.disk.exclusive import put_new
from entropic.disk.files import sync_data, sync_folder
from entropic.disk.guarded import open_file
from entropic.errors import ClaimLostError, CorruptFileError
from entropic.process.logs import get_logger

__all__ = ["HEADER_BYTES", "JournaledFile", "header", "opened", "read_whole", "recover"]

log = get_logger(__name__)

PAGE = 4096
HEADER_BYTES = 512  # what HDF5 leaves to us at the begin of a file
LIMIT = 1 << 40  # bytes of a file
TRIES = 200  # of a reader whose file changes all the time
_STATE_AT, _STATE_BYTES = 480, 32
_MAGIC = b"entropic file with a journal, HDF5 from byte 512\n"
_JOURNAL = struct.Struct(">32s32sQQ")  # state before and after, size of the file, number of pages
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


def header() -> bytes:
    """Return what a new file begins with."""
    return _MAGIC.ljust(_STATE_AT, b"\0") + _new_state()


def _new_state() -> bytes:
    return uuid4().hex.encode()


@dataclass
class _Journal:
    before: bytes
    after: bytes
    size: int
    pages: dict[int, bytes] = field(default_factory=dict)

    def packed(self) -> bytes:
        numbers = b"".join(struct.pack(">Q", number) for number in self.pages)
        data = _JOURNAL.pack(self.before, self.after, self.size, len(self.pages)) + numbers
        data += b"".join(self.pages.values())
        return data + hashlib.sha256(data).digest()

    @classmethod
    def of(cls, data: bytes) -> _Journal | None:
        """Return the journal that *data* is, or None."""
        data, digest = data[:-32], data[-32:]
        if len(data) < _JOURNAL.size or hashlib.sha256(data).digest() != digest:
            return None
        before, after, size, count = _JOURNAL.unpack_from(data)
        at = _JOURNAL.size + 8 * count
        if len(data) != at + PAGE * count:
            return None
        numbers = struct.unpack_from(f">{count}Q", data, _JOURNAL.size)
        pages = {number: data[at + PAGE * n : at + PAGE * (n + 1)] for n, number in enumerate(numbers)}
        return cls(before, after, size, pages)

    def fits(self, state: bytes) -> bool:
        return state in {self.before, self.after}

    def apply(self, descriptor: int) -> None:
        """Write what it says to a file; what it says twice is no harm."""
        # The state first: a reader that saw any of the rest sees that it has changed.
        os.pwrite(descriptor, self.after, _STATE_AT)
        for number, page in self.pages.items():
            _write_at(descriptor, page[: self.size - number * PAGE], number * PAGE)
        os.ftruncate(descriptor, self.size)
        sync_data(descriptor)


def _write_at(descriptor: int, data: bytes, at: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, at)
        data, at = data[count:], at + count


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.journal")


def _read_journal(path: Path) -> _Journal | None:
    try:
        with open_file(str(_beside(path)), limit=LIMIT) as file:
            data = file.read()
    except FileNotFoundError:
        return None
    if not data:
        return None  # it has its name, and does not count yet
    journal = _Journal.of(data)
    if journal is None:
        raise CorruptFileError(
            f"{str(_beside(path))!r} is damaged, and with it perhaps {str(path)!r}: restore both from a backup, or "
            "remove the journal if the file can be read"
        )
    return journal


def _state(descriptor: int, path: Path) -> bytes:
    found = os.pread(descriptor, HEADER_BYTES, 0)
    if not found.startswith(_MAGIC) or len(found) < HEADER_BYTES:
        raise CorruptFileError(f"{str(path)!r} is no file of entropic's, or is damaged: move it away")
    return found[_STATE_AT:]


def recover(path: Path) -> None:
    """Finish what another writer began, who has ended; for who has the right to write *path*."""
    journal, descriptor = _read_journal(path), None
    if journal is not None:
        with suppress(FileNotFoundError):
            descriptor = os.open(path, _WRITE)
    if journal is not None and descriptor is not None:
        try:
            if journal.fits(_state(descriptor, path)):
                log.warning("finishing what another process was writing to %s", path)
                journal.apply(descriptor)
        finally:
            os.close(descriptor)
    _beside(path).unlink(missing_ok=True)


def read_whole(path: Path) -> bytes | None:
    """Return what the file had when a change was last finished; None if there is no file.

    Raises
    ------
    CorruptFileError
        If it, or its journal, is damaged.
    TimeoutError
        If it changes all the time.
    """
    for _ in range(TRIES):
        try:
            with open_file(str(path), limit=LIMIT) as file:
                descriptor = file.fileno()
                state = _state(descriptor, path)
                journal = _read_journal(path)
                is_on_its_way = journal is not None and journal.fits(state)
                data = bytearray(file.seek(0, os.SEEK_END))
                file.seek(0)
                data = data[: file.readinto(data)]  # type: ignore[attr-defined]
                if journal is not None and is_on_its_way:
                    _overlay(data, journal)
                    is_same = journal.fits(_state(descriptor, path))
                else:
                    is_same = _state(descriptor, path) == state
        except FileNotFoundError:
            return None
        if is_same:
            return bytes(data)
    raise TimeoutError(f"{str(path)!r} changed each time it was read: try again when less is written to it")


def _overlay(data: bytearray, journal: _Journal) -> None:
    data.extend(bytes(max(0, journal.size - len(data))))
    for number, page in journal.pages.items():
        data[number * PAGE : number * PAGE + PAGE] = page
    del data[journal.size :]


class JournaledFile(io.RawIOBase):
    """A file that is changed in memory, until `commit`; what `h5py.File` can be given.

    Parameters
    ----------
    path : Path
        Made with `header` in front. Who opens it has the right to write it, and has called `recover`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._descriptor = os.open(path, _WRITE)
        self._pages: dict[int, bytearray] = {}
        # Beyond *kept* the disk has nothing that counts.
        self._size = self._kept = os.fstat(self._descriptor).st_size
        self._at = 0
        self._before = _state(self._descriptor, path)

    def close(self) -> None:
        """Forget what was not committed."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place in the file."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Let the file end at *size*, or here."""
        self._size = self._at if size is None else size
        if self._size < self._kept:
            self._kept = self._size
        for number in [one for one in self._pages if (one + 1) * PAGE > self._size]:
            kept = self._pages.pop(number)[: max(0, self._size - number * PAGE)]
            if kept:
                self._pages[number] = kept.ljust(PAGE, b"\0")
        return self._size

    def readinto(self, buffer: Any) -> int:
        """Read what there is into *buffer*."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        for number, start, stop, at in _parts(self._at, count):
            page = self._pages.get(number)
            found = page[start:stop] if page is not None else self._on_disk(number, start, stop)
            view[at : at + stop - start] = found
        self._at += count
        return count

    def write(self, data: Any) -> int:
        """Write *data*, in memory."""
        view = memoryview(data).cast("B")
        for number, start, stop, at in _parts(self._at, len(view)):
            self._page(number)[start:stop] = view[at : at + stop - start]
        self._at += len(view)
        if len(view):
            self._size = max(self._size, self._at)
        return len(view)

    def _page(self, number: int) -> bytearray:
        if number not in self._pages:
            self._pages[number] = bytearray(self._on_disk(number, 0, PAGE))
        return self._pages[number]

    def _on_disk(self, number: int, start: int, stop: int) -> bytes:
        at = number * PAGE + start
        count = max(0, min(stop - start, self._kept - at))
        return os.pread(self._descriptor, count, at).ljust(stop - start, b"\0")

    def commit(self) -> None:
        """Write everything to the disk: when this returns, and not before it begins to count, it is there.

        Raises
        ------
        OSError
            If there is no room for the journal. Nothing has changed.
        """
        on_disk = os.fstat(self._descriptor).st_size
        if not self._pages and self._size == on_disk:
            return
        after = _new_state()
        self._page(0)[_STATE_AT : _STATE_AT + _STATE_BYTES] = after
        for number in range(self._kept // PAGE, -(-min(self._size, on_disk) // PAGE)):
            self._page(number)  # what was cut off and is there again is empty
        pages = {
            number: bytes(page) for number, page in sorted(self._pages.items()) if number * PAGE < self._size
        }
        journal = _Journal(self._before, after, self._size, pages)
        self._publish(journal.packed())
        try:
            journal.apply(self._descriptor)
        except OSError as error:  # a full disk: no failure, since the journal counts already
            log.warning(
                "%s could not be written: %s. All of it is in %s, and whoever writes next carries it over",
                self._path, error, _beside(self._path),
            )  # fmt: skip
            return
        _beside(self._path).unlink(missing_ok=True)
        self._before, self._pages, self._kept = after, {}, self._size

    def _publish(self, data: bytes) -> None:
        own = self._path.with_name(f".entropic-{uuid4().hex}.journal")
        try:
            descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o664)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            put_new(own, _beside(self._path))
            is_changed = _state(self._descriptor, self._path) != self._before
            if is_changed:
                _beside(self._path).unlink(missing_ok=True)
        except FileExistsError:
            is_changed = True
        finally:
            own.unlink(missing_ok=True)
        if is_changed:  # who has lost the right to write finds that out here at the latest
            raise ClaimLostError(
                f"{str(self._path)!r} was changed by another process meanwhile, and nothing was written: store it again"
            )
        sync_folder(self._path.parent)


def _parts(at: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield where *count* bytes from *at* lie: page, begin and end in it, and place among the bytes."""
    done = 0
    while done < count:
        number, start = divmod(at + done, PAGE)
        stop = min(PAGE, start + count - done)
        yield number, start, stop, done
        done += stop - start


@contextmanager
def opened(path: Path) -> Iterator[JournaledFile]:
    """Give a file to change, and forget at the end what was not committed."""
    file = JournaledFile(path)
    try:
        yield file
    finally:
        file.close()
