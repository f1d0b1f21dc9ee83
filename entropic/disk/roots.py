"""Whose folder this is: the marker of a results folder, and what is put aside in it."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from entropic.disk.guarded import (
    QUARANTINE,
    STATE,
    load_json,
    located,
    make_folder,
    open_folder,
    read_file,
    rename_at,
)
from entropic.disk.publish import publish

__all__ = [
    "MARKER",
    "QUARANTINE",
    "STATE",
    "Marker",
    "Place",
    "access_problem",
    "copy_problem",
    "foreign_problem",
    "names_in",
    "quarantine",
    "read_marker",
    "root_problem",
    "shown_place",
    "write_marker",
]


MARKER = ".entropic-root.json"
_MARKER_BYTES = 1 << 16

Place = Mapping[str, str]  # of a database: what it is called there, by what kind of place it is


@dataclass(frozen=True, slots=True)
class Marker:
    """Whose results a folder holds: uuids of the folder and the database, the table, and where the database is."""

    root: str
    database: str
    table: str
    place: Place | None = field(default=None, compare=False)


_markers: dict[str, tuple[tuple[int, int, int], Marker]] = {}


def read_marker(root: Path) -> Marker | None:
    """Return the marker of a results folder, or None if there is none that can be read."""
    path = os.path.join(root, MARKER)
    try:
        status = os.lstat(path)
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = _markers.get(path)
        if known is None or known[0] != signature:  # it is looked at before every run
            known = _markers[path] = (signature, _marker(load_json(read_file(path, limit=_MARKER_BYTES))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return known[1]


def _marker(found: Any) -> Marker:
    parts = found["root"], found["database"], found["table"]
    if not all(isinstance(part, str) for part in parts):
        raise TypeError("a part of the marker is no text")
    place = found.get("place")
    if place is not None and not all(isinstance(part, str) for pair in place.items() for part in pair):
        raise TypeError("the place in the marker is no mapping of texts")
    return Marker(*parts, place)


def write_marker(root: Path, marker: Marker, *, replace: bool = False) -> None:
    """Put *marker* into the folder *root*.

    Raises
    ------
    FileExistsError
        If there is one already, unless *replace*.
    """
    with publish(root / MARKER, replace=replace) as part:
        known = {name: value for name, value in asdict(marker).items() if value is not None}
        part.path.write_text(json.dumps(known), encoding="utf-8")


def quarantine(path: Path) -> Path:
    """Move *path*, which lies under a results folder, aside; return where it is now.

    Raises
    ------
    OSError
        If `.entropic`, or the quarantine in it, is a link or no folder: nothing is moved to where that leads.
    """
    root = next((p for p in path.parents if os.path.lexists(p / MARKER) or (p / STATE).is_dir()), path.parent)
    target = root / STATE / QUARANTINE / uuid4().hex[:12]
    try:
        with (
            open_folder(root) as above,
            make_folder(STATE, above, is_shared=True) as state,
            make_folder(QUARANTINE, state, is_shared=True) as aside,
            make_folder(target.name, aside) as own,
            located(path) as (name, folder),
        ):
            rename_at(name, folder, path.name, own)
    except OSError as error:
        error.filename, error.filename2 = str(path), str(target)  # not names below some descriptor
        raise
    return target / path.name


def root_problem(root: Path, marker: Marker) -> str | None:
    """Return why results cannot be written to *root* now, or None if it is the folder that *marker* names."""
    found = read_marker(root)
    if found == marker:
        return None
    ways_out = (
        "Nothing was run or changed. If the folder is on a share that is not mounted, mount it; if it was moved, "
        "open the Store with results_dir=<where it is>; if it was removed or replaced on purpose, call "
        "store.adopt_root()"
    )
    if found is None:
        has = (
            "has a " + MARKER + " that cannot be read"
            if os.path.lexists(root / MARKER)
            else "has no " + MARKER
        )
        what = has if root.is_dir() else "is not there"
        return f"the results folder {str(root)!r} of table {marker.table!r} {what}. {ways_out}"
    if found.table != marker.table:
        return foreign_problem(root, found, marker.table)
    where = f" (that of {shown_place(found.place)!r})" if found.place else ""
    return f"the results folder {str(root)!r} belongs to another database{where} or to an earlier folder. {ways_out}"


def access_problem(root: Path) -> str | None:
    """Return why this user cannot write in a results folder that is there, and who can change that; None if it can."""
    for folder in (root, root / STATE):
        # In this order: another thread may make the folder between the two looks.
        if not folder.is_dir() or os.access(folder, os.W_OK | os.X_OK):
            continue
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return f"{str(folder)!r} is on a Read-only file system: results can be read, and nothing was run"
        status, path = folder.stat(), shlex.quote(str(folder))
        return (
            f"this user (uid {os.geteuid()}, groups {sorted({os.getegid(), *os.getgroups()})}) may not write in "
            f"{str(folder)!r}, which is of uid {status.st_uid} and group {status.st_gid}, mode "
            f"{stat.S_IMODE(status.st_mode):o}: results can be read, and nothing was run. For a group to share the "
            f"folder let its owner run: chgrp -R GROUP {path} && chmod -R g+rwX,o-w {path} && find {path} -type d "
            "-exec chmod g+s {} +"
        )
    return None


def shown_place(place: Place | None) -> str:
    """Return what people call a database by its place."""
    return "" if place is None else place.get("file") or place.get("name") or ""


def names_in(folder: str | Path) -> set[str]:
    """Return the names in a folder, none if it is not there: for many files cheaper than a look at each."""
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def copy_problem(root: Path, original: str, table: str) -> str:
    """Return why *root*, which belongs to the database *original*, cannot be used by what may be a copy of that."""
    return (
        f"the results folder {str(root)!r} of table {table!r} belongs to the database {original!r}, and this database "
        "seems to be a copy of that one: both would write the same files. What is stored can be read; nothing was run "
        "or changed. Copy the folder, open the Store with results_dir=<the copy>, and call store.adopt_root(); or, if "
        "this database is to go on in the place of the other one, call store.adopt_root() with this folder"
    )


def foreign_problem(root: Path, found: Marker | None, table: str) -> str:
    """Return why *root*, whose marker is *found*, cannot be the results folder of *table*."""
    owner = "another table" if found is None else f"table {found.table!r}"
    where = "" if found is None or found.table != table else " of another database"
    return (
        f"the results folder {str(root)!r} belongs to {owner}{where}; results of {table!r} would share its file names. "
        f"Nothing was run or changed. Give this Store a results_dir of its own, such as {str(root / table)!r}"
        + ("; or, if that database is gone for good, move the folder away" if where else "")
    )
