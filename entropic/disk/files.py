"""Result files: measured, moved to their place, put aside; and the marker of the folder that holds them.

What a runner writes lies in a slot of its process first (`entropic.disk.sidecars`), and leaves it by one rename,
done by whoever may commit it. Nothing outside `.entropic/` that is not ours is read, moved or deleted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from entropic.errors import CorruptFileError, ResultFileError, ResultFileMissingError

__all__ = [
    "MARKER",
    "QUARANTINE",
    "STATE",
    "Marker",
    "Staged",
    "digest_of",
    "move",
    "quarantine",
    "read_marker",
    "remove",
    "require_digest",
    "size_of",
    "stage",
    "sync_folder",
    "write_marker",
]

log = logging.getLogger(__name__)

MARKER = ".entropic-root.json"
STATE = ".entropic"
QUARANTINE = "quarantine"

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Marker:
    """Whose results a folder holds: uuids of the folder and the database, and the table."""

    root: str
    database: str
    table: str


_markers: dict[str, tuple[tuple[int, int, int], Marker]] = {}


def read_marker(root: Path) -> Marker | None:
    """Return the marker of a results folder, or None if there is none that can be read."""
    path = os.path.join(root, MARKER)
    try:
        status = os.stat(path)
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = _markers.get(path)
        if known is None or known[0] != signature:  # it is looked at before every run
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            known = _markers[path] = (signature, Marker(found["root"], found["database"], found["table"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known[1]


def write_marker(root: Path, marker: Marker, *, replace: bool = False) -> None:
    """Put *marker* into the folder *root*.

    Raises
    ------
    FileExistsError
        If there is one already, unless *replace*.
    """
    staged = root / f"{MARKER}.{uuid4().hex}"
    with staged.open("x", encoding="utf-8") as file:
        json.dump(asdict(marker), file)
        file.flush()
        os.fsync(file.fileno())
    try:
        # link, not rename: it fails if the name is taken, and a reader never sees half a marker.
        (os.replace if replace else os.link)(staged, root / MARKER)
    finally:
        staged.unlink(missing_ok=True)
    sync_folder(root)


@dataclass(frozen=True, slots=True)
class Staged:
    """A finished file or folder in its slot."""

    name: str
    size_bytes: int
    sha256: str


def stage(slot: Path, wanted: str) -> Staged:
    """Make sure that the one thing in *slot* is complete and on the disk, and measure it.

    Parameters
    ----------
    wanted : str
        The basename that the runner was told to write; one without a suffix may be given any.

    Raises
    ------
    ResultFileMissingError
        If there is nothing.
    ResultFileError
        If there are two things; both are kept in quarantine.
    """
    names = sorted(os.listdir(slot))
    if not names:
        raise ResultFileMissingError(
            f"the runner wrote no file: it must write to params['result_file'], here {str(slot / wanted)!r}"
        )
    if len(names) > 1:
        kept = quarantine(slot)
        raise ResultFileError(
            f"the runner wrote {len(names)} files ({', '.join(names)}), but one file or folder is one result: write "
            f"them into a folder at params['result_file']. They are kept in {str(kept)!r}"
        )
    (name,) = names
    is_wanted = name == wanted or (not Path(wanted).suffix and name.startswith(f"{wanted}."))
    if not is_wanted:
        log.info("the runner was to write %s and wrote %s, which is taken as the result", wanted, name)
    # Its name in the slot needs no sync of its own: file systems that journal (ext4, XFS, btrfs) keep the name of a
    # new file that was synced, and at the latest with the sync of the sidecar, which follows.
    size, sha256 = digest_of(slot / name, sync=True)
    return Staged(name, size, sha256)


def digest_of(path: Path, *, sync: bool = False) -> tuple[int, str]:
    """Return size in bytes and SHA-256 of a file, or of a folder's sorted relative names and contents.

    Parameters
    ----------
    sync : bool
        Whether to fsync what is read.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return _digest_file(file, hashlib.sha256(), sync)
    total, whole = 0, hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if not p.is_dir()):
        with part.open("rb") as file:
            size, sha256 = _digest_file(file, hashlib.sha256(), sync)
        whole.update(
            f"{part.relative_to(path).as_posix()}\0{size}\0{sha256}\n".encode("utf-8", "surrogateescape")
        )
        total += size
    if sync:
        for folder in [path, *(p for p in path.rglob("*") if p.is_dir())]:
            sync_folder(folder)
    return total, whole.hexdigest()


def require_digest(path: Path, size_bytes: int, sha256: str) -> None:
    """Raise `CorruptFileError` unless what is at *path* has this size and SHA-256."""
    found = digest_of(path)
    if found != (size_bytes, sha256):
        raise CorruptFileError(
            f"{str(path)!r} is not what its run wrote: it has {found[0]} bytes and SHA-256 {found[1]}, not "
            f"{size_bytes} and {sha256}. store.check(checksum=True, fix=True) moves it to quarantine, so that the next "
            "call runs it again"
        )


def size_of(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder."""
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts if not part.is_dir())


def _digest_file(file: BinaryIO, digest: Any, sync: bool) -> tuple[int, str]:
    size = 0
    while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
    if sync:
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Rename *source* to *target*, replacing a file that is there; a file that has been moved already is fine."""
    try:
        os.replace(source, target)
    except FileNotFoundError:
        if not target.exists():
            raise
    except OSError:
        if not source.is_dir() and not target.is_dir():
            raise
        quarantine(target)  # a rename cannot replace a folder, nor a folder a file
        os.replace(source, target)


def remove(path: Path) -> None:
    """Delete a file or folder; one that is gone is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def quarantine(path: Path) -> Path:
    """Move *path*, which lies under a results folder, aside; return where it is now."""
    root = next((p for p in path.parents if (p / MARKER).exists() or (p / STATE).is_dir()), path.parent)
    target = root / STATE / QUARANTINE / uuid4().hex[:12] / path.name
    target.parent.mkdir(parents=True)
    os.replace(path, target)
    return target
