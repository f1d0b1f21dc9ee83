"""Whose table it is: where the source of a memoized function was, and what it was.

Two scripts with one file name that define one function name would share a table, and each would get the other's
results. A function is known by its file or by its body: who has neither is another function. Moving a project changes
the file, mending a bug the body, and two clones of one project differ in the file alone.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import OperationalError, ProgrammingError

from entropic.errors import SchemaError
from entropic.process.logs import get_logger
from entropic.sql.database import Database
from entropic.sql.tables import MetaRow
from entropic.sql.upsert import insert_new

__all__ = ["Source", "remember_source", "require_source", "source_of"]

log = get_logger(__name__)

_meta: Any = MetaRow.__table__
_VALUE_BYTES = 255  # of a fact


@dataclass(frozen=True, slots=True)
class Source:
    """Where a function's source is, and a digest of it."""

    file: str
    code: str


def source_of(function: Callable[..., Any], code: str | None) -> Source | None:
    """Return the source of *function*, whose digest is *code*; None if it is in no file that is known.

    That of a cell is the notebook, where the front end says which it is: Jupyter's server and VS Code do.
    """
    plain = inspect.unwrap(function)
    try:
        file = inspect.getsourcefile(plain)
    except TypeError:
        return None
    if file is not None and ("ipykernel_" in file or file.startswith("<ipython-input")):
        file = _notebook(getattr(plain, "__globals__", {}))
    if code is None or file is None or not os.path.isfile(file):
        return None
    return Source(os.path.realpath(file), code)


def _notebook(names: Mapping[str, Any]) -> str | None:
    """Return the file of the notebook that runs; None where nobody says, and of a console, which has none."""
    file = names.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    return file if isinstance(file, str) and file.endswith(".ipynb") else None


def require_source(database: Database, table: str, source: Source, name: str) -> None:
    """Raise if the table is known to be that of another function.

    Raises
    ------
    SchemaError
        If neither the file nor the body is one that the table's function ever had. Nothing is changed.
    """
    known = _known(database, table)
    if known and known.keys().isdisjoint(_facts(table, source)):
        files = [value for key, value in known.items() if key.startswith(f"{_prefix(table)}file:")]
        raise SchemaError(
            f"the table {table!r} holds the results of a function {name!r} of another file, {min(files)!r}, with "
            f"another body than the one in {source.file!r}. Nothing was read or run. If they are two functions, give "
            "this one a table of its own, @memoize(table=...); if it is the same one, moved and changed, call "
            f"{name}.adopt_code() once"
        )


def remember_source(database: Database, table: str, source: Source) -> None:
    """Remember *source* as one that the table's function had; nothing is written if it is known."""
    known = _known(database, table)
    rows = [
        {"name": name, "value": value} for name, value in _facts(table, source).items() if name not in known
    ]
    if rows:
        statement = insert_new(_meta, database.dialect)
        # Who may only read has run nothing, and need not be remembered.
        with suppress(ProgrammingError, OperationalError):
            database.write(lambda connection: connection.execute(statement, rows), repeatable=True)


def _prefix(table: str) -> str:
    return f"source:{_digest(table)}:"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _facts(table: str, source: Source) -> dict[str, str]:
    file = source.file.encode("utf-8", "backslashreplace")[-_VALUE_BYTES:].decode(errors="ignore")
    return {
        f"{_prefix(table)}file:{_digest(source.file)}": file,
        f"{_prefix(table)}code:{source.code[:16]}": source.code,
    }


def _known(database: Database, table: str) -> dict[str, str]:
    prefix = _prefix(table)
    # A range, which the primary key's index finds.
    statement = select(_meta.c.name, _meta.c.value).where(
        _meta.c.name > prefix, _meta.c.name < f"{prefix[:-1]};"
    )
    try:
        rows = database.read(lambda connection: connection.execute(statement).all())
    except (ProgrammingError, OperationalError) as error:  # a new database has no such table
        log.debug("nothing is known of where the source of %s was: %s", table, error.orig)
        return {}
    return {row.name: row.value for row in rows}
