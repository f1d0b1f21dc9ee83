"""Annotations and columns: which column an annotation asks for, and what its values are to the function again.

A JSON column holds a normal form: lists for tuples, digests for arrays. `as_annotated` makes tuples and paths
again; arrays, sets and objects reach the function as they were given (`entropic.model.parameters`). What would
reach it as something else, such as a datetime in a list, `changed_by_json` finds.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import date
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sqlalchemy import JSON, Boolean, Date, Enum
from sqlalchemy.types import TypeEngine

from entropic.sql.columns import TYPES, ByteString, FiniteJSON
from entropic.values.hashing import has_hasher

__all__ = ["Kind", "Unsupported", "as_annotated", "changed_by_json", "is_rebuilt", "kind_of"]

ENUM_LENGTH = 255
PATH_LENGTH = 1000

_SCALARS: dict[Any, Any] = {**TYPES, bool: Boolean, date: Date}
_PLAIN = frozenset({type(None), bool, int, float, str})
_CONTAINERS = (list, dict, tuple, set, frozenset, Sequence, Mapping, Set, Iterable)


class Unsupported(Exception):
    """An annotation that asks for no column; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """What an annotation makes of a parameter."""

    type_: Any
    """SQLAlchemy's, a class or an instance."""
    annotation: Any
    nullable: bool = False

    @property
    def is_json(self) -> bool:
        """Whether the column holds a normal form."""
        return isinstance(self.type_, FiniteJSON | JSON) or self.type_ is JSON


def kind_of(annotation: Any, *, nullable: bool = False) -> Kind:
    """Return the column that *annotation* asks for; `Unsupported` if there is none."""
    if get_origin(annotation) is Annotated:
        base, *extras = get_args(annotation)
        for extra in extras:
            if isinstance(extra, TypeEngine) or (isinstance(extra, type) and issubclass(extra, TypeEngine)):
                return Kind(
                    extra() if isinstance(extra, type) else extra, base, nullable or _is_optional(base)
                )
        return kind_of(base, nullable=nullable)
    if hasattr(annotation, "__supertype__"):  # a NewType
        return kind_of(annotation.__supertype__, nullable=nullable)
    if type(annotation).__name__ == "TypeAliasType":  # of a type statement, since 3.12
        return kind_of(annotation.__value__, nullable=nullable)
    if get_origin(annotation) in (Union, types.UnionType):
        members = [one for one in get_args(annotation) if one is not type(None)]
        if len(members) > 1:
            raise Unsupported("which may be one of several types, of which a column has one")
        return kind_of(members[0], nullable=nullable or len(get_args(annotation)) > 1)
    return Kind(_type(annotation), annotation, nullable)


def _is_optional(annotation: Any) -> bool:
    return type(None) in get_args(annotation)


def _type(annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        if not all(type(choice) is str for choice in choices):
            raise Unsupported("whose values are not all strings")
        return Enum(*choices, native_enum=False, length=ENUM_LENGTH, validate_strings=True)
    class_ = get_origin(annotation) or annotation
    if class_ in _SCALARS:
        return _SCALARS[class_]
    if not isinstance(class_, type):
        raise Unsupported("which says nothing about what may be stored")
    if issubclass(class_, enum.Enum):
        return Enum(class_, native_enum=False, length=ENUM_LENGTH)
    if issubclass(class_, PurePath):
        return ByteString(PATH_LENGTH)
    if class_ in _CONTAINERS or issubclass(class_, tuple | dict) or _is_hashable_object(class_):
        return FiniteJSON()
    raise Unsupported(
        "whose values have no column and no stable hash (entropic.register_hasher gives them one)"
    )


def _is_hashable_object(class_: type) -> bool:
    """Whether the values of a class have a normal form, and reach the function as they were given."""
    numpy = sys.modules.get("numpy")
    return (
        dataclasses.is_dataclass(class_)
        or hasattr(class_, "__attrs_attrs__")
        or hasattr(class_, "model_fields")
        or (numpy is not None and class_ in (numpy.ndarray, numpy.ma.MaskedArray))
        or class_.__module__.partition(".")[0] == "pandas"
        or has_hasher(class_)
    )


def is_rebuilt(annotation: Any) -> bool:
    """Whether a value of *annotation* is something else as its column holds it: a path, or something with tuples."""
    class_ = get_origin(annotation) or annotation
    if isinstance(class_, type) and issubclass(class_, tuple | PurePath):
        return True
    return class_ is not Literal and any(map(is_rebuilt, get_args(annotation)))


def as_annotated(annotation: Any, value: Any) -> Any:
    """Return what a column holds as the function wants it."""
    class_, inner = get_origin(annotation) or annotation, get_args(annotation)
    if class_ is Annotated:
        return as_annotated(inner[0], value)
    if class_ in (Union, types.UnionType):
        members = [one for one in inner if one is not type(None)]
        return as_annotated(members[0], value) if len(members) == 1 else value
    if not isinstance(class_, type) or value is None:
        return value
    if issubclass(class_, PurePath):
        return class_(value)
    if issubclass(class_, tuple) and isinstance(value, list):
        return _tuple(class_, inner, value)
    if class_ in (list, Sequence, Iterable) and inner and isinstance(value, list):
        return [as_annotated(inner[0], item) for item in value]
    if class_ in (dict, Mapping) and inner and isinstance(value, dict):
        return {key: as_annotated(inner[1], item) for key, item in value.items()}
    return value


def _tuple(class_: type[tuple[Any, ...]], inner: tuple[Any, ...], value: list[Any]) -> tuple[Any, ...]:
    if hasattr(class_, "_fields"):  # a NamedTuple
        hints = typing.get_type_hints(class_)
        fields = class_._fields
        return class_(
            *(as_annotated(hints.get(name), item) for name, item in zip(fields, value, strict=True))
        )
    if len(inner) == 2 and inner[1] is ...:
        inner = inner[:1] * len(value)
    if len(inner) != len(value):
        return tuple(value)
    return tuple(as_annotated(one, item) for one, item in zip(inner, value, strict=True))


def changed_by_json(value: Any, place: str) -> str | None:
    """Say what in *value* a JSON column would give to the runner as something else; None if nothing."""
    kind = type(value)
    if kind in _PLAIN:
        return None
    if isinstance(value, list | tuple) or kind is dict:
        if kind is dict and (strange := [key for key in value if type(key) is not str]):
            return f"{place} has the key {strange[0]!r}"
        for step, item in value.items() if kind is dict else enumerate(value):
            if type(item) not in _PLAIN and (found := changed_by_json(item, f"{place}[{step!r}]")):
                return found
        return None
    numpy = sys.modules.get("numpy")
    is_number = numpy is not None and isinstance(value, numpy.integer | numpy.floating | numpy.bool_)
    if is_number or isinstance(value, set | frozenset) or _is_hashable_object(kind):
        return None
    return f"{place} is of type {kind.__qualname__}"
