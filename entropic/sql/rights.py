"""Which rights a role lacks that has to write: asked when a Store opens, not found out after a run."""

from __future__ import annotations

from sqlalchemy import Table, func, literal, select

from entropic.sql.database import Database
from entropic.sql.tables import AttemptRow, ClaimRow, FileRow
from entropic.sql.urls import shown

__all__ = ["missing_rights"]

_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")


def missing_rights(database: Database, table: Table) -> str | None:
    """Return what this role may not do that a run needs, and what would give it; None if nothing is missing.

    Only PostgreSQL can be asked beforehand; elsewhere this is always None.
    """
    if database.dialect != "postgresql":
        return None
    needed = {
        table: _ALL,
        ClaimRow.__table__: _ALL,
        FileRow.__table__: ("SELECT", "INSERT", "DELETE"),
        AttemptRow.__table__: ("SELECT", "INSERT"),
    }
    quoted = database.engine.dialect.identifier_preparer.format_table
    asked = [(quoted(one), right) for one, rights in needed.items() for right in rights]
    columns = [func.has_table_privilege(literal(name), literal(right)) for name, right in asked]
    with database.reading() as connection:
        role, *may = connection.execute(select(func.current_user(), *columns)).one()
    lacks = [one for one, is_given in zip(asked, may, strict=True) if not is_given]
    if not lacks:
        return None
    names = list(dict.fromkeys(name for name, _ in lacks))
    rights = list(dict.fromkeys(right for _, right in lacks))
    what, where = ", ".join(rights), ", ".join(names)
    return (
        f"the role {role!r} may not write in the database {shown(database.url)}: it lacks {what} on {where}. Records "
        f'can be read; nothing was run. Let the owner of the tables run: GRANT {what} ON {where} TO "{role}"; or make '
        "the role a member of the group that owns them"
    )
