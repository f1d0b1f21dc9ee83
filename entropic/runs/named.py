"""Whose a file is besides: what file records of any table name, and in whose results folder it lies.

A run's file is replaced and removed with its row, whatever table that is in; so none is another row's result. A file
that was registered may be that of several rows, also as a part of a folder, and goes only when nobody else has it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import and_, false, or_, select

from entropic.disk.roots import MARKER, STATE, Marker, read_marker
from entropic.sql.database import Database
from entropic.sql.tables import FileRow

__all__ = ["Named"]

_files: Any = FileRow.__table__


@dataclass(frozen=True, slots=True)
class Named:
    """Looks for who else names a path.

    Attributes
    ----------
    root : Path
        The results folder of *table*.
    """

    database: Database
    table: str
    root: Path

    def writer(self, path: Path, key: str) -> Any:
        """Return the file record of the run that wrote what is at *path*, or what that is in; None of *key* itself."""
        of_runs = _files.c.attempt.is_not(None) & ~self._is_own(key)
        parts = self._parts(_real(path)) | self._parts(path.resolve())  # it may be a link to a result
        rows = self._records(or_(false(), *(_is_part(*part) for part in parts)) & of_runs)
        return next((row for row in rows if (row.table_name, row.name) in parts), None)

    def has_other(self, path: Path, key: str) -> bool:
        """Whether another row than *key* has what is at *path*, something that it is in, or something in it."""
        real = _real(path)
        wholes: set[str] = set()
        beginnings: tuple[str, ...] = ()
        if path.parent == self.root and path.name.startswith(key):
            # What a run of this key wrote, which nobody may register: there is no need to look at every record.
            parts = {(self.table, name) for name in (path.name, str(path), str(real))}
        else:
            parts = self._parts(real)
            wholes.update(map(str, (path, *path.parents, real, *real.parents)))
            beginnings = (f"{path}{os.sep}", f"{real}{os.sep}")
        named = or_(
            _files.c.name.in_(wholes),
            *(_is_part(*part) for part in parts),
            *(_files.c.name.startswith(one, autoescape=True) for one in beginnings),
        )
        return any(
            row.name in wholes or row.name.startswith(beginnings) or (row.table_name, row.name) in parts
            for row in self._records(named & ~self._is_own(key))
        )

    def is_in_state(self, path: Path) -> bool:
        """Whether *path* lies in the folder of state of some results folder."""
        return any(
            real.is_relative_to(folder / STATE)
            for real in (_real(path), path.resolve())
            for folder in (*_marked(real), self.root.resolve())
        )

    def strange_root(self, path: Path) -> str | None:
        """Say which results folder *path* has to do with, whose rows nobody here knows; None if there is none."""
        own = read_marker(self.root)
        for folder, marker in _marked(_real(path)).items():
            if own is None or marker.database != own.database:
                return f"{str(path)!r} lies in the results folder {str(folder)!r} of another database"
        below = next((above for above, _, names in os.walk(path) if MARKER in names), None)
        return None if below is None else f"in {str(path)!r} lies the results folder {below!r}"

    def _parts(self, real: Path) -> set[tuple[str, str]]:
        """Return table and name of the results of this database that *real* may be, or be a part of."""
        own = read_marker(self.root)
        tables = {
            folder: marker.table
            for folder, marker in _marked(real).items()
            if own is not None and marker.database == own.database
        }
        if real.is_relative_to(self.root.resolve()):
            tables[self.root.resolve()] = self.table
        return {
            (table, real.relative_to(folder).parts[0]) for folder, table in tables.items() if folder != real
        }

    def _is_own(self, key: str) -> Any:
        return and_(_files.c.table_name == self.table, _files.c.record_id == key)

    def _records(self, where: Any) -> list[Any]:
        # A server may compare names without regard to case: whoever asks compares them once more.
        asked = select(_files.c.table_name, _files.c.record_id, _files.c.name).where(where)
        return self.database.read(lambda connection: list(connection.execute(asked)))


def _is_part(table: str, name: str) -> Any:
    return and_(_files.c.table_name == table, _files.c.name == name)


def _real(path: Path) -> Path:
    return path.parent.resolve() / path.name


def _marked(real: Path) -> dict[Path, Marker]:
    """Return the results folders above, with their markers. What is no marker, as anybody may write, makes none."""
    markers = {folder: read_marker(folder) for folder in real.parents}
    return {folder: marker for folder, marker in markers.items() if marker is not None}
