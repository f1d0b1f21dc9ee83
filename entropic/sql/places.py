"""Where a database is: what tells a copy of one from its original, whose uuid and rows are the same.

A results folder's marker says at which place the database is whose runs lie there. A SQLite file is known by its path,
also by that from the folder, so that a project may be moved or copied as a whole; on a server, what the server calls
the database is known, which is another thing where a dump was restored.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, text

from entropic.disk.roots import Place, shown_place

__all__ = ["is_same_place", "original_of", "place_of"]

_STEPS = 100_000  # of SQLite's machine: one fact takes some dozens, what somebody made to be slow any number
_NO_DATABASE = ("no such table", "not a database")

_FILE = "SELECT file FROM pragma_database_list WHERE name = 'main'"
_POSTGRESQL = (
    "SELECT CAST(oid AS text) AS database, CAST(CAST(to_regclass('entropic_meta') AS oid) AS text) AS tables, "
    "datname AS name, has_function_privilege('pg_control_system()', 'EXECUTE') AS may_ask "
    "FROM pg_database WHERE datname = current_database()"
)
_POSTGRESQL_SERVER = "SELECT CAST(system_identifier AS text) FROM pg_control_system()"


def place_of(connection: Connection, root: Path) -> Place | None:
    """Return where the database of a connection is; None of one in memory, of which there is no copy.

    Parameters
    ----------
    root : Path
        The results folder.
    """
    kind = connection.dialect.name
    if kind == "sqlite":
        file = connection.exec_driver_sql(_FILE).scalar()
        if not file:
            return None
        real = os.path.realpath(file)
        return {"kind": kind, "file": real, "beside": os.path.relpath(real, os.path.realpath(root))}
    if kind == "postgresql":
        found = dict(connection.exec_driver_sql(_POSTGRESQL).mappings().one())
        may_ask = found.pop("may_ask")  # everybody may, unless somebody took that away
        server = connection.exec_driver_sql(_POSTGRESQL_SERVER).scalar_one() if may_ask else ""
        return {"kind": kind, "server": server, **{name: part or "" for name, part in found.items()}}
    # MariaDB has no uuid of its server: there the name has to do.
    server = connection.exec_driver_sql("SHOW VARIABLES WHERE variable_name = 'server_uuid'").first()
    name = connection.exec_driver_sql("SELECT DATABASE()").scalar_one()
    return {"kind": "mysql", "server": server[1] if server else "", "name": name}


def is_same_place(here: Place, known: Place, root: Path) -> bool:
    """Whether the place that a folder's marker names is *here*; a file may have several paths."""
    if here["kind"] != "sqlite":
        return here == known
    return any(_is_same(here["file"], path) for path in _files(known, root))


def original_of(connection: Connection, here: Place, known: Place, root: Path, uuid: str) -> str | None:
    """Return which database a results folder belongs to, if it is, or may be, still where it was.

    Parameters
    ----------
    here, known : Place
        Where the database of the connection is, and where the one was that marked the folder *root*: another place.
    uuid : str
        Of both.
    """
    kind = here["kind"]
    if kind == known.get("kind") == "sqlite":
        return next((path for path in _files(known, root) if _may_hold(path, uuid)), None)
    name = shown_place(known)
    if kind != "postgresql" or kind != known.get("kind") or here["server"] != known.get("server"):
        return name  # on another server: nobody here knows whether it is there still
    if here["database"] != known.get("database"):
        asked, there = "SELECT 1 FROM pg_database WHERE CAST(oid AS text) = :there", known.get("database")
    else:
        asked, there = "SELECT 1 FROM pg_class WHERE CAST(oid AS text) = :there", known.get("tables")
    if not (there and there.isascii() and there.isdigit()):  # nobody's number
        return name
    return None if connection.execute(text(asked), {"there": there}).first() is None else name


def _files(known: Place, root: Path) -> list[str]:
    """Return the paths at which a SQLite file was: from the folder, and from the root of the file system."""
    beside = os.path.join(os.path.realpath(root), known.get("beside", ""))
    return [os.path.normpath(beside), known.get("file", "")]


def _is_same(file: str, path: str) -> bool:
    try:
        return os.path.samefile(file, path)
    except (OSError, ValueError):
        return False


def _may_hold(path: str, uuid: str) -> bool:
    """Whether a file may be the database of this uuid: it is looked at without a lock, and nothing is written."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        uri = f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.set_progress_handler(lambda: True, _STEPS)
            found = connection.execute("SELECT value FROM entropic_meta WHERE name = 'database'").fetchone()
    except (OSError, ValueError):
        return False
    except sqlite3.Error as error:
        # Without a lock what is not in the file itself yet is not seen.
        is_whole = any(said in str(error) for said in _NO_DATABASE)
        return not is_whole or os.path.exists(f"{path}-wal")
    return found is None or found[0] == uuid
