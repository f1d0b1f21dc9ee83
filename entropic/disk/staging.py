"""A process's own folder under a results folder: slots in which runners write, and the sidecar of what is finished.

`.entropic/<process>/` belongs to one process, and nobody else ever writes there. What a runner has written in a slot is
measured (`staged`), noted in the sidecar, and leaves the slot by one rename (`move`), done by whoever may commit it.
Noted means that it outlives the process; what is to outlive a power cut is synced (`Staging.sync`, `sync_noted`), by
several runs together if they are short, and always before it is committed.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from entropic.disk.files import Key, sync_data, sync_folder, sync_together
from entropic.disk.guarded import (
    STATE,
    located,
    make_folder,
    open_file,
    open_folder,
    opened,
    remove_at,
    rename_at,
    write_new,
)
from entropic.disk.roots import quarantine
from entropic.disk.sidecars import LINES, PROCESS, SIDECAR, clear_away
from entropic.errors import ResultsDirUnavailableError
from entropic.process.identity import this_process

__all__ = [
    "LATEST_S",
    "Staging",
    "folder_name",
    "is_of_sweep",
    "move",
    "own_staging",
    "staging_for",
    "sync_noted",
]

LATEST_S = 1.0  # how long after the end of a run it may be on the disk at the latest
_EARLY_S = 0.05  # to begin with it before

_encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one each time

_IN_THE_WAY = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}

_NEW = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def move(source: Path, target: Path) -> None:
    """Rename *source* to *target*, replacing a file that is there; a file that has been moved already is fine."""
    try:
        _rename(source, target)
    except FileNotFoundError:
        if not target.exists():
            raise
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        quarantine(target)  # a rename cannot replace a folder, nor a folder a file
        _rename(source, target)


def _rename(source: Path, target: Path) -> None:
    with located(source) as (name, folder):
        rename_at(name, folder, target)


class Staging:
    """One process's own folder under a results folder: its slots and its sidecar.

    Parameters
    ----------
    name : str
        Of the folder; contains the uuid of the process incarnation.
    process : mapping
        Who writes here, for those who find the folder after a crash.
    made : int
        How many slots the folder of this name had before: what was left behind by runs there may write to them yet.

    Notes
    -----
    Safe to share between the threads of the process that made it; of no use in another process.
    """

    def __init__(self, root: Path, name: str, process: Mapping[str, Any], *, made: int = 0) -> None:
        self.root = root
        self.folder = root / STATE / name
        self._process = dict(process)
        self._lock = threading.Lock()
        self._waiting: deque[Path] = deque()  # given back, oldest first; full until their file is published
        self._taken: set[Path] = set()  # where runs go on
        self._retired: deque[Path] = deque()  # to be removed, once they are empty
        self._used: set[Path] = set()  # slots that a run has had
        self.made = made
        self._has_slots = False
        self._gathered: Path | None = None  # the slot of those that are synced next
        self._sidecar: int | None = None  # file descriptor
        self._lines = self._open_lines = 0
        # What is not on the disk yet
        self._has_new_names = self._has_new_lines = False
        self._unsynced: dict[str, Collection[Path]] = {}  # results, by attempt
        self._trouble: dict[str, OSError] = {}  # of what was to be synced: a disk that fails says so once
        self._syncing = threading.Lock()  # whoever waits for it finds its own done
        self._timer: threading.Timer | None = None

    def take(self) -> Path:
        """Return an empty slot, this caller's until it is given back."""
        with self._lock:
            slot = self._take()
            self._taken.add(slot)
            return slot

    def is_in_use(self) -> bool:
        """Whether a run goes on in one of the slots."""
        return bool(self._taken)

    def is_used(self, slot: Path) -> bool:
        """Whether another run has had *slot* before, and something that it left behind may write there yet."""
        return slot in self._used

    def _take(self) -> Path:
        if self._retired:
            self._remove_retired()
        if self._waiting:
            oldest = self._waiting.popleft()
            with suppress(OSError):  # quarantined, cleaned away after a sweep, or in another's hands
                with opened(oldest) as folder:
                    if not os.listdir(folder):
                        return oldest
                self._waiting.append(oldest)
        with self._opened() as own:
            self._has_slots = True  # not before there is a folder, without which `is_gone`
            while True:
                slot = self.folder / str(self.made)
                self.made += 1
                # One may be there: this process's from before the results folder was moved or copied.
                with suppress(FileExistsError):
                    # Never for the world to write, which finished runs are not taken from.
                    os.mkdir(slot.name, 0o775, dir_fd=own)
                    break
        self._has_new_names = True
        return slot

    def gather(self, slot: Path, name: str) -> Path:
        """Move what is finished in *slot* to the others that are synced next, and return the slot where it is now.

        A slot for each of them would be a folder to make, to sync and to remove. Of a name that one of them has, it
        stays where it is.
        """
        with self._lock:
            if self._gathered is None:
                self._gathered = self._take()
            with opened(slot) as source, opened(self._gathered) as target:
                try:
                    os.stat(name, dir_fd=target, follow_symlinks=False)
                except FileNotFoundError:
                    rename_at(name, source, name, target)
                else:
                    return slot
            return self._gathered

    def make(self) -> None:
        """Make the folder, if it is not there."""
        if not self.folder.is_dir():
            with self._lock, self._opened():
                pass

    def touch(self, name: str) -> None:
        """Make an empty file of this name, beside the slots."""
        with self._lock, self._opened() as own:
            os.close(os.open(name, _NEW, 0o666, dir_fd=own))

    def write(self, name: str, text: str) -> Path:
        """Put a file of this name beside the slots, whole or not at all, and return its path."""
        with self._lock, self._opened() as own:
            write_new(f".{name}", text.encode(), own)
            os.replace(f".{name}", name, src_dir_fd=own, dst_dir_fd=own)
            return self.folder / name

    def give_back(self, slot: Path) -> None:
        """Offer *slot* for use again, once it is empty."""
        with self._lock:
            self._taken.discard(slot)
            self._used.add(slot)
            self._waiting.append(slot)

    def retire(self, slot: Path, *, clear: bool = False) -> None:
        """Never use *slot* again; it goes with what is in it if *clear*, else once that was published.

        A run that raised may have left a thread or a process behind, as when it was given up after its time: what that
        writes late must not be found where another run writes.
        """
        if clear:
            with suppress(OSError), located(slot) as (name, above):
                remove_at(name, above)
        with self._lock:
            self._taken.discard(slot)
            self._used.discard(slot)
            if not clear:
                self._retired.append(slot)

    def _remove_retired(self) -> None:
        oldest = self._retired.popleft()
        try:
            with located(oldest) as (name, above):
                os.rmdir(name, dir_fd=above)
        except FileNotFoundError:
            pass
        except OSError:  # full yet
            self._retired.append(oldest)

    def append(
        self, line: Mapping[str, Any], unsynced: Collection[Path] | None = None, *, age_s: float = 0.0
    ) -> None:
        """Write one line to the sidecar, where it outlives this process; for the disk see `sync`.

        Parameters
        ----------
        unsynced : collection of Path, optional
            For a line that can share a sync: what of its result is not on the disk yet. All is there at the latest
            `LATEST_S` after its run ended. Default: whoever appends calls `sync` next.
        age_s : float
            How long ago that was.
        """
        data = _encode(line).encode() + b"\n"
        is_late = False
        with self._lock:
            if self._sidecar is None:
                with opened(self.folder) as own:
                    self._sidecar = os.open(SIDECAR, _NEW | os.O_APPEND, 0o664, dir_fd=own)
                self._has_new_names = True
            self._has_new_lines = True
            if unsynced is not None:
                self._unsynced[line["attempt"]] = unsynced
            # Before it is there: an interrupt must not leave a line that nobody counts.
            self._lines += 1
            self._open_lines += 1
            try:
                self._write_line(self._sidecar, data)
            except OSError:
                self._lines -= 1
                self._open_lines -= 1
                self._unsynced.pop(line["attempt"], None)
                raise
            if unsynced is not None:
                is_late = self._timer is None and not self._set_timer(LATEST_S - _EARLY_S - age_s)
        if is_late:
            self.sync()

    def _write_line(self, sidecar: int, data: bytes) -> None:
        written = os.write(sidecar, data)
        if written != len(data):
            # The next line must not begin in the middle of this one.
            os.ftruncate(sidecar, os.lseek(sidecar, 0, os.SEEK_END) - written)
            raise OSError(f"the sidecar in {self.folder} could not be written: the disk is full")

    def _set_timer(self, seconds: float) -> bool:
        self._timer = threading.Timer(max(0.0, seconds), self.sync)
        self._timer.daemon = True
        try:
            self._timer.start()
        except RuntimeError:  # the process ends, or may have no more threads
            self._timer = None
        return self._timer is not None

    def sync(self, attempts: Collection[str] = ()) -> dict[str, OSError]:
        """Bring all that was noted so far to the disk: results, lines, and the names of both.

        Returns
        -------
        dict
            Why the results of some of *attempts* are not there, now or since an earlier call.
        """
        with self._syncing:
            with self._lock:
                waiting = dict(self._unsynced)
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                if self._gathered is not None:
                    self._waiting.append(self._gathered)
                    self._gathered = None
            results = {(one, path): path for one, paths in waiting.items() for path in paths}
            self._trouble |= {one: error for (one, _), error in _sync_results(results).items()}
            try:
                with self._lock:
                    self._sync_lines()
            except OSError as error:
                self._trouble |= dict.fromkeys([*waiting, *attempts], error)
            with self._lock:  # last: what an interrupt came before is synced by the next call
                for one in waiting:
                    self._unsynced.pop(one, None)
            return {one: self._trouble[one] for one in attempts if one in self._trouble}

    def _sync_lines(self) -> None:
        if self._has_new_lines and self._sidecar is not None:
            sync_data(self._sidecar)
        self._has_new_lines = False
        if self._has_new_names:
            sync_folder(self.folder)
            self._has_new_names = False

    def settle(self, lines: int = 1) -> bool:
        """Note that so many lines were committed; return whether it is time to empty the sidecar."""
        with self._lock:
            self._open_lines -= lines
            return self._lines >= LINES and self._open_lines == 0

    def forget(self) -> None:
        """Empty the sidecar after a durable commit, unless a line has come that is not committed."""
        with self._lock:
            if self._sidecar is not None and self._open_lines == 0:
                os.ftruncate(self._sidecar, 0)
                self._lines = 0

    def close(self) -> None:
        """Remove the folder after a durable commit, unless something in it is not committed, or a run goes on there."""
        with self._lock:
            if self._open_lines or self._taken:
                return
            self._close_sidecar()
            for slots in (self._waiting, self._retired, self._used):
                slots.clear()
            self._unsynced.clear()
            self._gathered = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._lines = 0
            clear_away(self.folder)

    def is_gone(self) -> bool:
        """Whether the folder was cleared away, as after a sweep; what was open of it is closed then."""
        if not self._has_slots or self.folder.is_dir():
            return False
        with self._lock:
            self._close_sidecar()
        return True

    def _close_sidecar(self) -> None:
        if self._sidecar is not None:
            os.close(self._sidecar)
            self._sidecar = None

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Give a descriptor of the folder, which is made if it is not there."""
        if not self.folder.is_dir():
            self._open()
        with ExitStack() as stack:
            try:
                own = stack.enter_context(opened(self.folder))
            except OSError as error:
                if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                    raise
                raise _link_in_the_way(self.folder) from None
            yield own

    def _open(self) -> None:
        self._close_sidecar()
        try:
            with open_folder(self.root) as root, _state_folder(self.root, root) as state:
                os.fsync(root)
                with make_folder(self.folder.name, state) as own:
                    write_new(PROCESS, json.dumps(self._process).encode(), own)
                    # Of a folder that does not say whose it is nothing is cleared away.
                    with open_file(PROCESS, folder=own, limit=sys.maxsize) as file:
                        os.fsync(file.fileno())
                os.fsync(state)
        except OSError as error:
            if error.filename is not None:
                error.filename = str(self.folder)  # not the name below some descriptor
            raise


@contextmanager
def _state_folder(path: Path, root: int) -> Iterator[int]:
    """Give a descriptor of the folder of state, made if need be; raise unless a result can be renamed out of it."""
    with ExitStack() as stack:
        try:
            state = stack.enter_context(make_folder(STATE, root, is_shared=True))
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                raise
            raise _link_in_the_way(path / STATE) from None
        if os.fstat(state).st_dev != os.fstat(root).st_dev:
            raise ResultsDirUnavailableError(
                f"{str(path / STATE)!r} is on another file system than {str(path)!r}, so that a finished result cannot "
                "be renamed to its place. Nothing was run: unmount it, or give the Store a results_dir there"
            )
        yield state


def _link_in_the_way(path: Path) -> ResultsDirUnavailableError:
    return ResultsDirUnavailableError(
        f"{str(path)!r} is a link or a file, and no link is followed there, where others may write. Nothing was run: "
        "remove it, and it is made anew; or give the Store another results_dir"
    )


_staging: dict[tuple[str, str, str], Staging] = {}
_made: dict[tuple[str, str, str], int] = {}  # slots of folders that are gone, and may be made anew
# The parent's; another thread may have held a lock of theirs.
os.register_at_fork(after_in_child=_staging.clear)


def staging_for(root: Path, name: str, holder: Mapping[str, Any]) -> Staging:
    """Return this process's folder of this name under *root*; the same one each time."""
    process = this_process()
    key = (process.owner, str(root), name)
    staging = _staging.get(key)
    if staging is None:
        # Several threads of a sweep come here at once: each step is atomic, and a Staging opens nothing when made.
        for old, ended in _staging.copy().items():
            if ended.is_gone():
                _staging.pop(old, None)
                if old[2] == process.owner:  # those of sweeps have names that do not come again
                    _made[old] = ended.made
        # One folder may be reached by two paths, and a slot is taken once.
        real = (process.owner, os.path.realpath(root), name)
        about = {**process.as_dict(), "holder": dict(holder)}
        made = Staging(root, name, about, made=_made.get(real, 0))
        staging = _staging[key] = _staging.setdefault(real, made)
    return staging


def folder_name(sweep: str = "") -> str:
    """Return what this process's folder is called: that of its single runs, or of a sweep."""
    owner = this_process().owner
    return f"{owner}-{sweep}" if sweep else owner


def is_of_sweep(name: str, sweep: str) -> bool:
    """Whether a folder of this name is a sweep's, in whatever process."""
    return name.endswith(f"-{sweep}")


def own_staging(root: Path, sweep: str = "") -> Staging:
    """Return the folder in which this process puts what it commits itself."""
    return staging_for(root, folder_name(sweep), this_process().as_dict())


def _sync_results(results: Mapping[Key, Path]) -> dict[Key, OSError]:
    """Do what `sync_together` does, and bring the names in their slots to the disk too."""
    trouble = sync_together(results)
    for slot in {path.parent for path in results.values()}:
        try:
            with opened(slot) as folder:
                os.fsync(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            trouble |= {key: error for key, path in results.items() if path.parent == slot}
    return trouble


def sync_noted(root: Path, folder: str, results: Mapping[str, Path | None]) -> dict[str, OSError]:
    """Bring results that are noted in a process's folder, and those notes, to the disk, whoever wrote them.

    Parameters
    ----------
    folder : str
        Name of the process's folder under *root*.
    results : mapping
        By attempt; None for one whose note is all that there is.

    Returns
    -------
    dict
        By attempt, why a result is not there.
    """
    own = _staging.get((this_process().owner, str(root), folder))
    if own is not None:
        return own.sync(results)
    trouble = _sync_results({attempt: path for attempt, path in results.items() if path is not None})
    try:
        with opened(root / STATE / folder) as descriptor:
            with open_file(SIDECAR, folder=descriptor, limit=sys.maxsize) as sidecar:
                sync_data(sidecar.fileno())
            os.fsync(descriptor)
    except FileNotFoundError:
        pass  # it was emptied, or has gone: all that it said is settled
    except OSError as error:
        trouble |= dict.fromkeys(results, error)
    return trouble
