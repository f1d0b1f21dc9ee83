"""Which records are asked for: what `records`, `count` and `to_frame` are given, as SQL for one table.

Two things are not left to chance. A keyword of `records` that the model has a parameter for is that parameter. And a
condition on a class of the same table that was defined before or after the Store's own, as when a notebook's cell
runs twice, is one on the Store's: SQL would else join the table with itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Column, ColumnElement, Table, false, inspect
from sqlalchemy.sql import ClauseElement, visitors

from entropic.display.hints import did_you_mean
from entropic.errors import ParameterError
from entropic.model.parameters import NO_ROW, Parameters

__all__ = ["NOT_GIVEN", "Selection", "selection"]


class _NotGiven:
    def __repr__(self) -> str:
        return "None"  # what it comes to


NOT_GIVEN: Any = _NotGiven()


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions on rows, their order, and how many at most."""

    where: list[ColumnElement[bool]]
    order_by: list[Any]
    limit: int | None


def selection(
    parameters: Parameters,
    where: Sequence[ColumnElement[bool]],
    equals: Mapping[str, Any],
    *,
    order_by: Any = NOT_GIVEN,
    limit: int | None = NOT_GIVEN,
) -> Selection:
    """Return what is asked for; without an order the rows come as they were made.

    Raises
    ------
    ParameterError
        If the model has no such column, or a value does not fit it.
    """
    model, equals = parameters.model, dict(equals)
    columns = {attribute.key: attribute.columns[0] for attribute in inspect(model).column_attrs}
    if "limit" in columns and limit is not NOT_GIVEN:
        equals["limit"], limit = limit, None
    if "order_by" in columns and order_by is not NOT_GIVEN and not _is_sql(order_by):
        equals["order_by"], order_by = order_by, None
    for condition in where:
        if not _is_sql(condition):
            raise ParameterError(
                f"{condition!r} is no condition: one is an expression of a column, as in records(Model.n > 3), or "
                "given by name, as in records(n=3)"
            )
    if not (limit is None or limit is NOT_GIVEN or (type(limit) is int and limit >= 0)):
        raise ParameterError(f"limit= is how many records at most, an int of at least 0, not {limit!r}")
    conditions = [_of_table(model.__table__, condition) for condition in where]
    conditions += [
        false() if value is NO_ROW else getattr(model, name) == value
        for name, value in parameters.typed_filters(equals).items()
    ]
    if order_by is None or order_by is NOT_GIVEN:
        order_by = [model.created_at, model.id]
    elif not isinstance(order_by, list | tuple):
        order_by = [order_by]
    order = [
        _of_table(model.__table__, _ordering(one, columns, model.__entropic__.title or model.__name__))
        for one in order_by
    ]
    return Selection(conditions, order, None if limit is NOT_GIVEN else limit)


def _is_sql(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_sql, value))
    return isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")


def _ordering(one: Any, columns: Mapping[str, Any], model_name: str) -> Any:
    if not isinstance(one, str):
        return one
    if one not in columns:
        hint = did_you_mean(one, columns) or "."
        raise ParameterError(
            f"{model_name} has no column {one!r} to order by{hint} It has: {', '.join(columns)}."
        )
    return columns[one]


def _of_table(table: Any, element: Any) -> Any:
    """Return *element* with the columns of *table* in place of those of its other definitions."""

    def own(part: Any, **_: Any) -> Any:
        other = getattr(part, "table", None)
        if not isinstance(part, Column) or not isinstance(other, Table) or other.fullname != table.fullname:
            return None
        for column in table.columns:
            if column.name == part.name:
                return column
        raise ParameterError(
            f"the condition is on the column {part.name!r}, which the table {table.name!r} of this Store's class does "
            "not have: the class was defined again since. Make the Store anew, of the class as it is now"
        )

    if hasattr(element, "__clause_element__"):
        element = element.__clause_element__()
    if not isinstance(element, ClauseElement):
        return element  # SQLAlchemy says what is wrong with it
    return cast("Any", visitors.replacement_traverse)(element, {}, own)
