"""What a function returns, as columns: which ones its annotation makes, and what a value puts into them.

A number, text, truth value or time is one column, ``value``; an object or a mapping whose annotation names such fields
has one for each. ``outputs=`` says instead which columns there are. A column is a copy to query and order by: the
result itself is in the row or in its file.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from datetime import date, datetime, time
from typing import Any, NamedTuple

from entropic.functions.signatures import COLUMN_BYTES, TAKEN, error_of, kind_of_output, returned
from entropic.model.annotations import Kind, Unsupported, bare, hints_of, kind_of, members_of
from entropic.model.outputs import REMARK
from entropic.values.objects import shape_of

__all__ = ["VALUE", "Column", "columns_of", "outputs_in"]

VALUE = "value"
"""Name of the column of a function that returns one scalar."""

PREFIX = "result_"
TEXT_LENGTH = 255  # characters of a text; what is longer is in the result alone, not in its column

_SCALARS = (bool, int, float, str, datetime, date, time)
_ABSENT: Any = object()


class Column(NamedTuple):
    """Where in a returned value what a column holds is."""

    name: str
    field: str | None
    """None for the value itself."""
    is_asked: bool = False
    """Whether ``outputs=`` names it: what it lacks is worth a word then."""


def columns_of(
    function: Callable[..., Any], parameters: Collection[str], outputs: Mapping[str, Any] | None
) -> dict[Column, Kind]:
    """Return the columns of what *function* returns.

    Parameters
    ----------
    outputs : mapping or None
        By column, its type, where it is a field of the same name; or the field, of which the annotation says the type.
        None for all that the annotation has.

    Raises
    ------
    TypeError
        If an output has a parameter's name, one that cannot be a column's, or a type that makes no column; or if it
        names a field that the annotation does not have.
    """
    fields = _fields(returned(function))
    columns: dict[Column, Kind] = {}
    if outputs is None:
        names = {*parameters, *TAKEN, *filter(None, fields)}
        for field, kind in fields.items():
            name = _free_name(field or VALUE, {*parameters, *TAKEN}, names)
            if name.isidentifier() and not name.startswith("__") and len(name.encode()) <= COLUMN_BYTES:
                columns[Column(name, field)] = kind
        return columns
    for name, said in outputs.items():
        try:
            if not isinstance(said, str):
                columns[Column(name, name, is_asked=True)] = kind_of_output(name, said, parameters)
                continue
            field = None if said == VALUE and None in fields else said
            kind_of_output(name, float, parameters)  # which refuses the name
            columns[Column(name, field, is_asked=True)] = fields[field]
        except Unsupported as problem:
            raise error_of(function, str(problem)) from None
        except KeyError:
            has = ", ".join(repr(field or VALUE) for field in fields) or "none that makes a column"
            is_type = said in [one.__name__ for one in _SCALARS]  # whose name was written, and not the type
            meant = f"{name!r}: {said}" if is_type else f"{said!r}: float"
            raise error_of(
                function,
                f"the output {name!r} is to be the field {said!r} of what it returns, and its annotation has {has}: "
                f"say the type, as in outputs={{{meant}}}",
            ) from None
    return columns


def _fields(annotation: Any) -> dict[str | None, Kind]:
    """Return what makes a column in an annotation, by field; of a scalar under None."""
    if (kind := _scalar(annotation)) is not None:
        return {None: kind}
    members = [one for one in members_of(annotation) or () if one is not type(None)]
    if len(members) == 1:
        return _fields(bare(members[0]))
    class_ = typing.get_origin(annotation) or annotation
    if not isinstance(class_, type):
        return {}
    if typing.is_typeddict(class_):
        names: Iterable[str] = class_.__annotations__
    elif (shape := shape_of(class_)) is not None:
        names = shape.names
    else:
        return {}
    hints = hints_of(class_)
    kinds = {name: _scalar(hints.get(name)) for name in names if name in hints}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _scalar(annotation: Any) -> Kind | None:
    """Return the column of a number, text, truth value or time, perhaps None; None of anything else."""
    annotation = bare(annotation)
    members = members_of(annotation)
    if members is not None:
        (first, *others) = [one for one in members if one is not type(None)]
        return None if others else _scalar(first)
    if typing.get_origin(annotation) is typing.Literal:
        kinds = {type(choice) for choice in typing.get_args(annotation) if choice is not None}
        annotation = kinds.pop() if len(kinds) == 1 else None
    elif isinstance(annotation, type) and annotation.__module__ == "numpy":
        annotation = _python_class(annotation)
    return kind_of(annotation) if annotation in _SCALARS else None


def _python_class(class_: Any) -> Any:
    """Return the class of Python's whose columns hold NumPy's scalars of a class."""
    import numpy as np

    kinds = {np.bool_: bool, np.integer: int, np.floating: float, np.str_: str}
    return next((own for kind, own in kinds.items() if issubclass(class_, kind)), None)


def _free_name(field: str, taken: Container[str], others: Container[str]) -> str:
    """Return the name of the column of a field: with a prefix where a parameter or a record has the name already."""
    name = field
    while name in taken or name.startswith("_") or (name != field and name in others):
        name = PREFIX + name
    return name


def outputs_in(value: Any, columns: Iterable[Column]) -> dict[str, Any]:
    """Return what a value has for each of *columns*; a finished run is not lost for one that it does not."""
    found: dict[str, Any] = {}
    missing = []
    for name, field, is_asked in columns:
        item = value if field is None else _item(value, field)
        if item is _ABSENT:
            missing += [name] if is_asked else []
        elif is_asked or not (item is None or (isinstance(item, str) and len(item) > TEXT_LENGTH)):
            found[name] = item
    if missing:
        found[REMARK] = f"the returned {type(value).__name__} has no {', '.join(missing)}: NULL in the row"
    return found


def _item(value: Any, field: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(field, _ABSENT)
    return getattr(value, field, _ABSENT) if shape_of(type(value)) is not None else _ABSENT
