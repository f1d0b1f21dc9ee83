"""Which folder holds a table's results, and which database's it is: the folder's marker and the registry agree.

A copy of a database says the same of itself as its original, and would write over its files. So the marker says where
the database is, too. One that was moved marks its folder anew, with another uuid: had the other one only been out of
sight, it finds the folder to be another's, and at no time do both write there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import DBAPIError

from entropic.disk.files import make_folders
from entropic.disk.roots import (
    Marker,
    copy_problem,
    foreign_problem,
    read_marker,
    shown_place,
    write_marker,
)
from entropic.errors import ResultsDirUnavailableError
from entropic.process.logs import get_logger
from entropic.sql.database import Database
from entropic.sql.places import is_same_place, original_of, place_of
from entropic.sql.schema_lock import schema_lock
from entropic.sql.tables import TableRow
from entropic.sql.versions import database_uuid

__all__ = ["adopt_root", "mark", "registered", "registered_marker", "tell_copy"]

log = get_logger(__name__)

_tables: Any = TableRow.__table__


def registered(connection: Connection, table: str) -> Any:
    """Return what the database remembers of a table, or None."""
    return connection.execute(select(_tables).where(_tables.c.table_name == table)).first()


def registered_marker(database: Database, table: str) -> Marker | None:
    """Return what the marker of a table's results folder must say by now; None if the table has none."""
    with database.reading() as connection:
        row = registered(connection, table)
    return None if row is None or row.root is None else Marker(row.root, database_uuid(database), table)


def mark(connection: Connection, root: Path, database: str, table: str) -> Marker:
    """Mark a folder as that of a table which has none yet, and return what its marker says.

    Raises
    ------
    ResultsDirUnavailableError
        If the folder is another table's.
    """
    make_folders(root)
    marker = Marker(uuid4().hex, database, table, place_of(connection, root))
    try:
        write_marker(root, marker)
    except FileExistsError:
        found = read_marker(root)
        if found is None or (found.database, found.table) != (database, table):
            raise ResultsDirUnavailableError(foreign_problem(root, found, table)) from None
        if found.place is None or marker.place is None or is_same_place(marker.place, found.place, root):
            return found  # left by a process that ended before it could commit
        if (original := original_of(connection, marker.place, found.place, root, database)) is not None:
            raise ResultsDirUnavailableError(copy_problem(root, original, table)) from None
        write_marker(root, marker, replace=True)
    return marker


def tell_copy(database: Database, marker: Marker, root: Path) -> tuple[Marker, str | None]:
    """Tell a copy of a database, whose folder is its original's, from one that was moved, whose is marked anew.

    Parameters
    ----------
    marker : Marker
        What the folder's must say by the registry.

    Returns
    -------
    Marker
        What it must say from now on.
    str or None
        Why the folder is another database's, although all that the two say of themselves is the same.
    """
    found = read_marker(root)
    if found != marker:
        return marker, None  # another's anyhow, or not there
    with database.reading() as connection:
        here = place_of(connection, root)
        if here is None or found.place == here:
            return marker, None
        if found.place is not None:
            if is_same_place(here, found.place, root):
                return marker, None
            original = original_of(connection, here, found.place, root, marker.database)
            if original is not None:
                return marker, copy_problem(root, original, marker.table)
    try:
        return _follow(database, found, root), None
    except (OSError, DBAPIError) as error:
        log.debug("%s could not be marked anew, which is left to who may: %s", root, error)
        return marker, None


def _follow(database: Database, former: Marker, root: Path) -> Marker:
    """Mark a folder anew whose database was moved, or of which nobody knew where it was."""
    with schema_lock(database) as connection:
        here = place_of(connection, root)
        if read_marker(root) != former:  # another process was first
            row = registered(connection, former.table)
            return Marker(row.root, former.database, former.table)
        marker = Marker(
            former.root if former.place is None else uuid4().hex, former.database, former.table, here
        )
        _write(connection, marker, root)
    if former.place is not None:
        where = shown_place(here)
        log.info("the database of the results folder %s was moved, and is now %s", root, where)
    return marker


def adopt_root(database: Database, table: str, root: Path) -> Marker:
    """Make *root* the results folder of *table*, whatever folder was before.

    Raises
    ------
    ResultsDirUnavailableError
        If the folder is another table's.
    """
    found = read_marker(root)
    if found is not None and found.table != table:
        raise ResultsDirUnavailableError(foreign_problem(root, found, table))
    with schema_lock(database) as connection:
        make_folders(root)
        place = place_of(connection, root)
        marker = Marker(uuid4().hex, database_uuid(database, connection), table, place)
        _write(connection, marker, root)
    log.warning("%s is the results folder of table %s from now on", root, table)
    return marker


def _write(connection: Connection, marker: Marker, root: Path) -> None:
    # The row first: who may not write it must not have taken the folder from those who may.
    connection.execute(
        update(_tables)
        .where(_tables.c.table_name == marker.table)
        .values(root=marker.root, results_dir=str(root))
    )
    write_marker(root, marker, replace=True)
