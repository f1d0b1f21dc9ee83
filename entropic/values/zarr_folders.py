"""What zarr has in a folder, as its metadata say: an array, or a group with others below."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entropic.disk.guarded import load_json, read_file

__all__ = ["METADATA", "arrays_below", "is_array", "is_group"]

METADATA = "zarr.json"
_LIMIT = 1 << 26  # bytes of metadata
_FORMER = {".zarray": "array", ".zgroup": "group"}  # of zarr's format 2


def is_array(folder: Path) -> bool:
    """Whether there is an array in a folder."""
    return _kind_of(folder) == "array"


def is_group(folder: Path) -> bool:
    """Whether a folder is a group, or no array and has arrays below; damaged metadata say nothing."""
    kind = _kind_of(folder)
    return kind == "group" or (kind is None and next(arrays_below(folder), None) is not None)


def arrays_below(folder: Path) -> Iterator[str]:
    """Yield the paths of the arrays below a folder that is none."""
    for above, folders, _ in os.walk(folder):
        folders.sort()
        found = [name for name in folders if is_array(Path(above, name))]
        yield from (Path(above, name).relative_to(folder).as_posix() for name in found)
        folders[:] = [name for name in folders if name not in found]


def _kind_of(folder: Path) -> str | None:
    try:
        said: Any = load_json(read_file(str(folder / METADATA), limit=_LIMIT))
        kind = said.get("node_type") if isinstance(said, dict) else None
        return kind if kind in _FORMER.values() else None
    except (OSError, ValueError):
        return next((kind for name, kind in _FORMER.items() if (folder / name).is_file()), None)
