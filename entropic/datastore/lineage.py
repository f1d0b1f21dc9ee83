"""What depends on what: all that lies above or below some components, in one statement of the database's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from entropic.sql.tables.components import ComponentInputRow
from entropic.sql.upsert import chunks

__all__ = ["ancestor_ids", "descendant_ids"]

CHUNK = 500  # keys in a statement
STEPS = 4294967295  # of a recursion: where servers limit them, they leave out the rest without an error

_inputs: Any = ComponentInputRow.__table__


def ancestor_ids(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Return the numbers of all components that these depend on."""
    return _reached(connection, ids, _inputs.c.state_id, _inputs.c.input_state_id)


def descendant_ids(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Return the numbers of all components that depend on these."""
    return _reached(connection, ids, _inputs.c.input_state_id, _inputs.c.state_id)


def _reached(connection: Connection, ids: Sequence[int], start: Any, end: Any) -> set[int]:
    dialect: Any = connection.dialect
    if dialect.name in {"mysql", "mariadb"}:
        variable = "max_recursive_iterations" if dialect.is_mariadb else "cte_max_recursion_depth"
        connection.exec_driver_sql(f"SET SESSION {variable} = {STEPS}")
    found: set[int] = set()
    for some in chunks(ids, CHUNK):
        reached = select(end.label("id")).where(start.in_(some)).cte("reached", recursive=True)
        # UNION, not UNION ALL: what is reached over two ways goes on once.
        reached = reached.union(select(end).join_from(reached, _inputs, start == reached.c.id))
        found.update(connection.scalars(select(reached.c.id)))
    return found
