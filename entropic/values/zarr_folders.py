"""What zarr has in a folder, as its metadata say: an array, or a group with others below.

The folders themselves are asked. What zarr has noted of them in their container, by `zarr.consolidate_metadata`, is of
some earlier day.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from entropic.disk.exclusive import put_new
from entropic.disk.files import require_folder
from entropic.disk.guarded import load_json, read_file

__all__ = ["METADATA", "arrays_below", "is_array", "is_group", "may_be_array", "require_groups"]

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


def may_be_array(folder: Path) -> bool:
    """Whether a folder is an array, or has metadata that say nothing, and no array below."""
    return is_array(folder) or (os.path.lexists(folder / METADATA) and not is_group(folder))


def arrays_below(folder: Path, is_one: Callable[[Path], bool] = is_array) -> Iterator[str]:
    """Yield the paths of the arrays below a folder that is none."""
    for above, folders, _ in os.walk(folder):
        folders.sort()
        found = [name for name in folders if is_one(Path(above, name))]
        yield from (Path(above, name).relative_to(folder).as_posix() for name in found)
        folders[:] = [name for name in folders if name not in found]


def _kind_of(folder: Path) -> str | None:
    try:
        said: Any = load_json(read_file(str(folder / METADATA), limit=_LIMIT))
        kind = said.get("node_type") if isinstance(said, dict) else None
        return kind if kind in _FORMER.values() else None
    except (OSError, ValueError):
        return next((kind for name, kind in _FORMER.items() if (folder / name).is_file()), None)


def require_groups(zarr: Any, folders: Sequence[Path], spare: Path) -> int:
    """Make groups of folders that are none; return in which format of zarr's.

    Parameters
    ----------
    folders : sequence of Path
        A container, and folders in it, each in the one before.
    spare : Path
        Where there is nothing, and nobody else puts anything.

    Notes
    -----
    Any number of threads and processes may make the same groups. Of zarr's own calls all but one would fail then, and
    older releases write metadata in place, where others find half of them: so they come whole.
    """
    container = folders[0]
    if _is_described(container):
        group = zarr.open_group(container, mode="r", use_consolidated=False)
    else:
        group = zarr.create_group(spare)
    version: int = group.metadata.zarr_format
    for folder in folders:
        require_folder(folder, below=container)
        if _is_described(folder):
            continue
        if not _is_described(spare):  # nor is it any more where there are no links
            zarr.create_group(spare, zarr_format=version)
        for file in list(spare.iterdir()):
            with suppress(FileExistsError):
                put_new(file, folder / file.name)
    return version


def _is_described(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in (METADATA, *_FORMER))
