"""A process's own folder under a results folder: slots in which runners write, and a sidecar of what is finished.

`.entropic/<process>/` belongs to one process, and nobody else ever writes there. `sidecar.jsonl` says of each finished
file what it is, so that after a crash a row can be made of it. A torn last line counts for nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropic.disk.files import remove
from entropic.disk.roots import QUARANTINE, STATE

__all__ = ["Sidecar", "SidecarIndex", "clear_away", "process_folders", "read_sidecar"]

SIDECAR = "sidecar.jsonl"
PROCESS = "process.json"

LINES = 1000  # committed lines after which a sidecar is emptied


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
