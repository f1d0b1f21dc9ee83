"""Folders that take the place of others: whoever looks finds the former one or the new one, whatever is killed when.

The new one is made in a folder of its own beside, with a note of whose it is and of the place that it is for. Then the
two change places, at once where the system can do that. Where it cannot, the former is put aside first: who comes after
a kill in between brings it back. What is to go leaves its place first, so that nobody reads half of it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from entropic.disk.files import newest_change
from entropic.disk.guarded import FOLDER, load_json, open_folder, read_file, remove_at, write_new
from entropic.disk.notes import LOST_S
from entropic.errors import ResultFileError
from entropic.process.identity import Process, this_process
from entropic.process.logs import get_logger

__all__ = ["NEW", "beside", "discard", "put", "read_unreplaced", "recover"]

log = get_logger(__name__)

T = TypeVar("T")

NEW = "new"  # what is made lies there
_FORMER = "former"
_NOTE = "note.json"
_NOTE_BYTES = 1 << 16
_OWN = re.compile(r"\.entropic-[0-9a-f]{32}\.zarr")
_TRIES, _PAUSE_S = 100, 0.02
_READS = 20
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}


@contextmanager
def beside(above: Path, place: str) -> Iterator[Path]:
    """Give a new folder in *above*, in which what is for a *place* below that is made; it goes at the end."""
    own = above / _own_name()
    try:
        own.mkdir()
        with open_folder(above, own.name) as folder:
            note = {"process": this_process().as_dict(), "place": place}
            write_new(_NOTE, json.dumps(note).encode("ascii"), folder)
        yield own
    except BaseException:
        _remove_for_good(own)
        raise
    with open_folder(above) as folder:
        _clear(own.name, folder)


def _clear(name: str, folder: int) -> None:
    remove_at(name, folder, keep=_NOTE)  # who is killed meanwhile still says that it was he
    remove_at(name, folder)


def _own_name() -> str:
    return f".entropic-{uuid4().hex}.zarr"


def _remove_for_good(own: Path) -> None:
    with open_folder(own.parent) as folder:
        for _ in range(_TRIES):
            _clear(own.name, folder)
            time.sleep(_PAUSE_S)  # zarr has threads: where one chunk fails, it still writes others
            if not os.path.lexists(own):
                return


def put(own: Path, place: str, allow: Callable[[], object]) -> None:
    """Put what was made in a folder that `beside` gave at the place that it is for.

    Parameters
    ----------
    allow : callable
        Called if something is there, just before it gives way; raises if it may not.

    Raises
    ------
    FileExistsError
        If others put something there again and again.
    """
    *way, name = place.split("/")
    with open_folder(own.parent, own.name) as source, open_folder(own.parent, *way) as target:
        for _ in range(_TRIES):
            try:
                os.rename(NEW, name, src_dir_fd=source, dst_dir_fd=target)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            else:
                return
            allow()
            with suppress(FileNotFoundError):  # it was removed meanwhile
                if _swap(source, name, target) or _replace(source, name, target):
                    return
    raise FileExistsError(errno.EEXIST, "others write it all the time", place)


def _swap(source: int, name: str, target: int) -> bool:
    """Let the new folder and the one at *name* change places, at once; return False where the system cannot."""
    call = _system_call()
    if call is None:
        return False
    number = call(source, os.fsencode(NEW), target, os.fsencode(name))
    if number and number not in _CANNOT:
        raise OSError(number, os.strerror(number), name)
    return number == 0


@cache
def _system_call() -> Callable[..., int] | None:
    """Return what exchanges two names, and returns 0 or an error's number; None if there is no such call."""
    import ctypes

    system = ctypes.CDLL(None, use_errno=True)
    call: Any = getattr(system, "renameat2", None) or getattr(system, "renameatx_np", None)
    if call is None:
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    return lambda *names: 0 if call(*names, _EXCHANGE) == 0 else ctypes.get_errno()


def _replace(source: int, name: str, target: int) -> bool:
    """Put the folder at *name* aside and the new one in its place; return False if another process was faster."""
    os.rename(name, _FORMER, src_dir_fd=target, dst_dir_fd=source)
    try:
        os.rename(NEW, name, src_dir_fd=source, dst_dir_fd=target)
    except OSError as error:
        if error.errno in _TAKEN:
            remove_at(_FORMER, source)
            return False
        os.rename(_FORMER, name, src_dir_fd=source, dst_dir_fd=target)
        raise
    return True


def discard(above: Path, place: str) -> None:
    """Remove the folder at a place below *above*: all of it is gone before any of it is removed."""
    *way, name = place.split("/")
    own = _own_name()
    with open_folder(above) as folder, open_folder(above, *way) as source:
        try:
            os.rename(name, own, src_dir_fd=source, dst_dir_fd=folder)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            remove_at(name, source)  # not even a name finds a place: whoever removes something wants one
        remove_at(own, folder)


def recover(above: Path) -> bool:
    """Finish in a folder what processes that have ended left; return whether another is just replacing something.

    What they put aside comes back unless something is in its place by now, all else of theirs is removed.
    """
    is_replacing = False
    with suppress(OSError), open_folder(above) as folder:
        for name in filter(_OWN.fullmatch, os.listdir(folder)):
            try:
                is_replacing |= _settle(name, folder, above)
            except OSError as error:
                log.debug("%s is left to others: %s", above / name, error)
    return is_replacing


def _settle(name: str, folder: int, above: Path) -> bool:
    """Finish what is in one folder of a process that has ended; return whether it has not, and replaces something."""
    status, above_it = os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {os.geteuid(), above_it.st_uid}:
        return False
    with open_folder(above, name) as own:
        writer, place = _noted(own)
        is_alive = None if writer is None else writer.is_alive()
        if is_alive or (is_alive is None and time.time() - newest_change(above / name) < LOST_S):
            return _is_there(_FORMER, own)
        if place is not None and _is_there(_FORMER, own):
            _bring_back(own, above, place)
    _clear(name, folder)
    if not _is_there(name, folder):  # who only reads may not remove it
        log.warning("%s was left by a process that has ended: removed", above / name)
    return False


def _noted(own: int) -> tuple[Process | None, str | None]:
    """Return who made a folder, and for which place; None if it has no note that is whole."""
    try:
        note = dict(load_json(read_file(_NOTE, folder=own, limit=_NOTE_BYTES)))
        writer, place = Process(**note["process"]), str(note["place"])
    except (OSError, ValueError, TypeError, LookupError):
        return None, None
    is_below = not {"", ".", ".."} & set(place.split("/")) and "\0" not in place
    return writer, place if is_below else None


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _bring_back(own: int, above: Path, place: str) -> None:
    *way, name = place.split("/")
    try:
        with open_folder(above, *way) as target:
            os.rename(_FORMER, name, src_dir_fd=own, dst_dir_fd=target)
    except OSError as error:
        # Something else is there by now, or what it was in is gone.
        if error.errno not in {*_TAKEN, errno.ENOENT, errno.ENOTDIR}:
            raise
    else:
        log.warning(
            "%s was being replaced by a process that has ended: it is what it was before", above / place
        )


def read_unreplaced(folder: Path, read: Callable[[], T]) -> T:
    """Return what *read* reads in a folder; it is called again if another folder has taken its place meanwhile.

    Raises
    ------
    ResultFileError
        If that happens again and again.
    """
    for _ in range(_READS):
        with _held(folder) as before:
            try:
                result = read()
            except Exception:
                if before == _identity(folder):
                    raise
                continue
            if before is not None and before == _identity(folder):
                return result
    raise ResultFileError(
        f"{str(folder)!r} was replaced {_READS} times while it was read: read it when whoever writes it has ended, or "
        "let that one write less often"
    )


@contextmanager
def _held(folder: Path) -> Iterator[tuple[int, int] | None]:
    """Give the identity of a folder, None if there is none; no other folder gets the same meanwhile."""
    try:
        descriptor = os.open(folder, FOLDER)
    except FileNotFoundError:
        yield None
        return
    try:
        status = os.fstat(descriptor)
        yield status.st_dev, status.st_ino
    finally:
        os.close(descriptor)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
