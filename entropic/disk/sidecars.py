"""A process's own folder under a results folder: slots in which runners write, and a sidecar of what is finished.

`.entropic/<process>/` belongs to one process, and nobody else ever writes there. `sidecar.jsonl` says of each finished
file what it is, so that after a crash a row can be made of it. A torn last line counts for nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropic.disk.files import QUARANTINE, STATE, remove, sync_folder

__all__ = ["Sidecar", "SidecarIndex", "Staging", "clear_away", "process_folders", "read_sidecar"]

SIDECAR = "sidecar.jsonl"
PROCESS = "process.json"

LINES = 1000  # committed lines after which a sidecar is emptied

_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


def clear_away(folder: Path) -> None:
    """Remove a process's folder, and last of all what says whose it is: a kill in the middle leaves a known one."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != PROCESS:
                remove(path)
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What one process's folder says."""

    folder: Path
    process: dict[str, Any]
    """Fields of `provenance.Process`, and ``holder``, the same of who holds the claims; empty if unreadable."""
    lines: list[dict[str, Any]]
    malformed: int
    """Lines in the middle that are no JSON; a torn last line counts for nothing."""


def read_sidecar(folder: Path) -> Sidecar:
    """Read a process's folder; what cannot be read is counted, never raised."""
    try:
        process = json.loads((folder / PROCESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        process = {}
    lines, malformed, _ = _read_lines(folder / SIDECAR, 0)
    return Sidecar(
        folder, process if isinstance(process, dict) else {}, [line for _, line in lines], malformed
    )


def _read_lines(path: Path, start: int) -> tuple[list[tuple[int, dict[str, Any]]], int, int]:
    """Return a sidecar's lines from *start* on, each with where it begins; how many are malformed; where to go on."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            whole, newline, _ = file.read().rpartition(b"\n")
    except OSError:
        return [], 0, start
    lines: list[tuple[int, dict[str, Any]]] = []
    malformed, begin = 0, start
    for text in whole.split(b"\n") if newline else []:
        try:
            line = json.loads(text)
            lines.append(
                (begin, {**line, "attempt": str(line["attempt"]), "record_id": str(line["record_id"])})
            )
        except (ValueError, KeyError, TypeError):
            malformed += 1
        begin += len(text) + 1
    return lines, malformed, begin


class SidecarIndex:
    """Where in which sidecar under a results folder the line of a key stands; reads only what is new."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ends: dict[Path, int] = {}
        self._begins: dict[Path, dict[str, int]] = {}  # places, not lines: a worker may see a million
        self._lock = threading.Lock()

    def refresh(self, skip: str = "") -> None:
        """Read what was appended since the last time, but for the folder named *skip*."""
        with self._lock:
            folders = [folder for folder in process_folders(self._root) if folder.name != skip]
            for gone in self._ends.keys() - set(folders):
                del self._ends[gone], self._begins[gone]
            for folder in folders:
                self._read(folder)

    def _read(self, folder: Path) -> None:
        path, end = folder / SIDECAR, self._ends.get(folder, 0)
        try:
            size = path.stat().st_size
        except OSError:
            size = 0
        begins = self._begins.setdefault(folder, {})
        if size < end:  # emptied meanwhile, and begun anew
            begins.clear()
            end = 0
        lines: list[tuple[int, dict[str, Any]]] = []
        if size > end:
            lines, _, end = _read_lines(path, end)
        self._ends[folder] = end
        begins.update((line["record_id"], begin) for begin, line in lines)

    def get(self, record_id: str) -> dict[str, Any] | None:
        """Return the newest line of a key."""
        for folder, begins in list(self._begins.items()):
            if (begin := begins.get(record_id)) is not None:
                for _, line in _read_lines(folder / SIDECAR, begin)[0][:1]:
                    if line["record_id"] == record_id:
                        return {**line, "folder": folder.name}
        return None


def process_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of all processes that have one under *root*."""
    try:
        with os.scandir(root / STATE) as entries:
            names = [entry.name for entry in entries if entry.name != QUARANTINE and entry.is_dir()]
    except FileNotFoundError:
        return
    for name in sorted(names):
        yield root / STATE / name


class Staging:
    """One process's own folder under a results folder: its slots and its sidecar.

    Parameters
    ----------
    name : str
        Of the folder; contains the uuid of the process incarnation.
    process : mapping
        Who writes here, for those who find the folder after a crash.

    Notes
    -----
    Safe to share between the threads of the process that made it; of no use in another process.
    """

    def __init__(self, root: Path, name: str, process: Mapping[str, Any]) -> None:
        self.root = root
        self.folder = root / STATE / name
        self._process = dict(process)
        self._lock = threading.Lock()
        self._waiting: deque[Path] = deque()  # given back, oldest first; full until their file is published
        self._made = 0
        self._sidecar: int | None = None  # file descriptor
        self._lines = self._open_lines = 0
        self._has_new_names = False  # not on the disk yet

    def take(self) -> Path:
        """Return an empty slot, this caller's until it is given back."""
        with self._lock:
            if self._waiting:
                oldest = self._waiting.popleft()
                try:
                    if not os.listdir(oldest):
                        return oldest
                    self._waiting.append(oldest)
                except FileNotFoundError:
                    pass  # quarantined, or cleaned away after a sweep
            if not self.folder.is_dir():
                self._open()
            slot = self.folder / str(self._made)
            self._made += 1
            slot.mkdir()
            self._has_new_names = True
            return slot

    def give_back(self, slot: Path, *, clear: bool = False) -> None:
        """Offer *slot* for use again, once it is empty; with *clear*, empty it now."""
        if clear:
            for name in os.listdir(slot) if slot.is_dir() else []:
                remove(slot / name)
        with self._lock:
            self._waiting.append(slot)

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line to the sidecar and to the disk."""
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._sidecar is None:
                self._sidecar = os.open(self.folder / SIDECAR, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                self._has_new_names = True
            end = os.lseek(self._sidecar, 0, os.SEEK_END)
            if os.write(self._sidecar, data) != len(data):
                os.ftruncate(self._sidecar, end)  # the next line must not begin in the middle of this one
                raise OSError(f"the sidecar in {self.folder} could not be written: the disk is full")
            _sync_data(self._sidecar)
            if self._has_new_names:
                sync_folder(self.folder)
                self._has_new_names = False
            self._lines += 1
            self._open_lines += 1

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
        """Remove the folder after a durable commit, unless something in it is not committed."""
        with self._lock:
            if self._open_lines:
                return
            self._close_sidecar()
            self._waiting.clear()
            self._lines = 0
            clear_away(self.folder)

    def is_gone(self) -> bool:
        """Whether the folder was cleared away, as after a sweep; what was open of it is closed then."""
        if not self._made or self.folder.is_dir():
            return False
        with self._lock:
            self._close_sidecar()
        return True

    def _close_sidecar(self) -> None:
        if self._sidecar is not None:
            os.close(self._sidecar)
            self._sidecar = None

    def _open(self) -> None:
        self._close_sidecar()
        self.folder.parent.mkdir(exist_ok=True)
        sync_folder(self.root)
        self.folder.mkdir(exist_ok=True)
        (self.folder / PROCESS).write_text(json.dumps(self._process), encoding="utf-8")
        sync_folder(self.folder.parent)
