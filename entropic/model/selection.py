"""Which records are asked for: what `records`, `count` and `to_frame` are given, as SQL for one table.

Two things are not left to chance. A keyword of `records` that the model has a parameter for is that parameter. And a
condition on a class of the same table that was defined before or after the Store's own, as when a notebook's cell
runs twice, is one on the Store's: SQL would else join the table with itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import (
    JSON,
    BinaryExpression,
    BindParameter,
    Column,
    ColumnElement,
    Table,
    bindparam,
    false,
    inspect,
)
from sqlalchemy.sql import ClauseElement, operators, visitors

from entropic.display.hints import did_you_mean
from entropic.errors import ParameterError
from entropic.model.parameters import NO_ROW, Parameters
from entropic.sql.columns import FiniteJSON

__all__ = ["NOT_GIVEN", "Selection", "selection"]


_AMONG = frozenset({operators.in_op, operators.not_in_op})
_COMPARISONS = _AMONG | {
    *(operators.eq, operators.ne, operators.lt, operators.le, operators.gt, operators.ge),
    *(operators.is_, operators.is_not, operators.is_distinct_from, operators.is_not_distinct_from),
}


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
    where: Sequence[Any],
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
        if isinstance(condition, list | tuple) and _is_sql(condition):
            shown = ", ".join(str(one) for one in condition)
            raise ParameterError(
                f"{shown:.200} are in a list: conditions are given one by one, as in records(*conditions)"
            )
        if not _is_sql(condition):
            raise ParameterError(
                f"{condition!r} is no condition: one is an expression of a column, as in records(Model.n > 3), or "
                "given by name, as in records(n=3)"
            )
    if not (limit is None or limit is NOT_GIVEN or (type(limit) is int and limit >= 0)):
        raise ParameterError(f"limit= is how many records at most, an int of at least 0, not {limit!r}")
    conditions = [_of_table(model.__table__, condition) for condition in where]
    for condition in conditions:
        _require_comparable(parameters, condition, columns)
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
        if one.startswith("-") and one[1:] in columns:
            hint = f": the other way round is Model.{one[1:]}.desc()."
        raise ParameterError(
            f"{model_name} has no column {one!r} to order by{hint} It has: {', '.join(columns)}."
        )
    return columns[one]


def _require_comparable(parameters: Parameters, condition: Any, columns: Mapping[str, Any]) -> None:
    """Raise ParameterError if a column is compared with what no row can be found by, as if that were given by name."""
    names = {column: name for name, column in columns.items()}
    for part in visitors.iterate(condition):
        if not isinstance(part, BinaryExpression) or part.operator not in _COMPARISONS:
            continue
        for one, other in ((part.left, part.right), (part.right, part.left)):
            value = getattr(other, "value", None)
            name = names.get(one) if isinstance(one, Column) else None
            if name is None or not isinstance(other, BindParameter) or value is None:
                continue
            values = value if part.operator in _AMONG and isinstance(value, list | tuple) else [value]
            for item in values:
                if isinstance(one.type, JSON | FiniteJSON) or (is_array := bool(getattr(item, "ndim", 0))):
                    parameters.typed_filters({name: item})
                    if is_array:
                        raise ParameterError(f"{name} is compared with one value, not with {item!r:.80}")


def _of_table(table: Any, element: Any) -> Any:
    """Return *element* with the columns of *table* in place of those of its other definitions, and plain numbers."""

    def own(part: Any, **_: Any) -> Any:
        if isinstance(part, BindParameter):
            return _plain_bound(part)
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


def _plain_bound(part: BindParameter[Any]) -> BindParameter[Any] | None:
    """Return a value in a condition with Python's own numbers in place of NumPy's, which SQLite takes for bytes."""
    is_several = isinstance(part.value, list | tuple)
    values: list[Any] = list(part.value) if is_several else [part.value]  # type: ignore[arg-type]
    if not any(map(_is_number, values)):
        return None
    plain = [one.item() if _is_number(one) else one for one in values]
    value = plain if is_several else plain[0]
    return bindparam(None, value, type_=part.type, unique=True, expanding=part.expanding)


def _is_number(value: Any) -> bool:
    return getattr(value, "ndim", None) == 0 and hasattr(value, "item")
