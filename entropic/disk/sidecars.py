"""A process's own folder under a results folder: slots in which runners write, and a sidecar of what is finished.

`.entropic/<process>/` belongs to one process, and nobody else ever writes there. `sidecar.jsonl` says of each finished
file what it is, so that after a crash a row can be made of it. A torn last line counts for nothing.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from entropic.disk.guarded import (
    STATE,
    entries,
    load_json,
    located,
    open_file,
    open_folder,
    opened,
    remove_at,
)
from entropic.disk.owners import Believed, process_folders

__all__ = [
    "WAITS",
    "Sidecar",
    "SidecarIndex",
    "clear_away",
    "count_lines",
    "is_blank",
    "process_folders",
    "read_sidecar",
    "read_waits",
]

SIDECAR = "sidecar.jsonl"
PROCESS = "process.json"
WAITS = "waits-"  # how the names of the notes begin of those who wait

LINES = 1000  # committed lines after which a sidecar is emptied
PROCESS_BYTES = 1 << 16
WAITS_BYTES = 1 << 20
LINE_BYTES = 1 << 25  # with parameters and custom data; the arrays of a result are in its file
MALFORMED = 1000  # lines that are none, after which the rest of a sidecar is not looked at: it is no sidecar
_BLOCK_BYTES = 1 << 20
SIDECAR_BYTES = 1 << 31  # a worker of a sweep may write millions of lines


def clear_away(folder: Path) -> None:
    """Remove a process's folder, and last of all what says whose it is: a kill in the middle leaves a known one."""
    with suppress(OSError), located(folder) as (name, above):
        remove_at(name, above, keep=PROCESS)
        remove_at(name, above)


def is_blank(folder: Path) -> bool:
    """Whether nothing is in a process's folder but perhaps the empty file that is to say whose it is."""
    try:
        with opened(folder) as descriptor:
            return all(name == PROCESS and not status.st_size for name, status in entries(descriptor))
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What one process's folder says."""

    folder: Path
    process: dict[str, Any]
    """Fields of `provenance.Process`, and ``holder``, the same of who holds the claims; empty if unreadable."""
    lines: list[dict[str, Any]]
    malformed: int
    """Lines in the middle that are no JSON, up to `MALFORMED`; a torn last line counts for nothing."""


def read_sidecar(folder: Path) -> Sidecar:
    """Read a process's folder; what cannot be read is counted, never raised."""
    try:
        with _opened(folder, PROCESS, PROCESS_BYTES) as file:
            process = load_json(file.read(PROCESS_BYTES))
    except (OSError, ValueError):
        process = {}
    try:
        with _opened(folder, SIDECAR, SIDECAR_BYTES) as file:
            lines, malformed, _ = _read_lines(file, 0)
    except FileNotFoundError:
        lines, malformed = [], 0
    except OSError:  # a link, a FIFO, somebody else's
        lines, malformed = [], 1
    return Sidecar(
        folder, process if isinstance(process, dict) else {}, [line for _, line in lines], malformed
    )


def read_waits(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the notes in a process's folder of those who wait; what cannot be read is left out."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith(WAITS)]
    except OSError:
        return
    for name in names:
        with suppress(OSError, ValueError):
            with _opened(folder, name, WAITS_BYTES) as file:
                note = load_json(file.read(WAITS_BYTES))
            if isinstance(note, dict):
                yield note


def count_lines(folder: Path) -> int:
    """Return how many lines a process's sidecar has, whatever they are; -1 if it cannot be read."""
    try:
        with _opened(folder, SIDECAR, SIDECAR_BYTES) as file:
            return sum(block.count(b"\n") for block in iter(partial(file.read, _BLOCK_BYTES), b""))
    except FileNotFoundError:
        return 0
    except OSError:
        return -1


@contextmanager
def _opened(folder: Path, name: str, limit: int) -> Iterator[BinaryIO]:
    """Open a file in a process's folder; raise OSError unless somebody wrote it who is believed."""
    with open_folder(folder.parents[1]) as root, open_folder(folder.parents[1], STATE) as state:
        believed = Believed.in_root(os.fstat(root), state)
        with (
            open_folder(folder.parents[1], STATE, folder.name) as above,
            open_file(name, folder=above, limit=limit) as file,
        ):
            if not believed.believes_file(os.fstat(file.fileno()), os.fstat(above)):
                raise PermissionError(f"{str(folder / name)!r} is of somebody who is not believed")
            yield file


def _read_lines(
    file: BinaryIO, start: int, *, at_most: int = -1
) -> tuple[list[tuple[int, dict[str, Any]]], int, int]:
    """Return a sidecar's lines from *start* on, each with where it begins; how many are malformed; where to go on."""
    lines: list[tuple[int, dict[str, Any]]] = []
    malformed, begin = 0, start
    file.seek(start)
    while len(lines) + malformed != at_most and malformed < MALFORMED and (text := file.readline(LINE_BYTES)):
        if not text.endswith(b"\n"):
            if len(text) < LINE_BYTES:
                break  # torn
            while (rest := file.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
        try:
            lines.append((begin, _checked(load_json(text))))
        except (ValueError, KeyError, TypeError):
            malformed += 1
        begin = file.tell()
    return lines, malformed, begin


def _checked(line: Any) -> dict[str, Any]:
    if not (isinstance(line["attempt"], str) and isinstance(line["record_id"], str)):
        raise TypeError("a sidecar's line does not say which attempt of what it is")
    return dict(line)


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
        end = self._ends.get(folder, 0)
        try:
            status = os.lstat(folder / SIDECAR)
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        except OSError:
            size = 0
        begins = self._begins.setdefault(folder, {})
        if size < end:  # emptied meanwhile, and begun anew
            begins.clear()
            end = 0
        lines: list[tuple[int, dict[str, Any]]] = []
        if size > end:
            with suppress(OSError), _opened(folder, SIDECAR, SIDECAR_BYTES) as file:
                lines, _, end = _read_lines(file, end)
        self._ends[folder] = end
        begins.update((line["record_id"], begin) for begin, line in lines)

    def get(self, record_id: str) -> list[dict[str, Any]]:
        """Return the newest line of a key in each sidecar that has one."""
        found = []
        for folder, begins in self._begins.copy().items():
            if (begin := begins.get(record_id)) is None:
                continue
            with suppress(OSError), _opened(folder, SIDECAR, SIDECAR_BYTES) as file:
                for _, line in _read_lines(file, begin, at_most=1)[0]:
                    if line["record_id"] == record_id:
                        found.append({**line, "folder": folder.name})
        return found
