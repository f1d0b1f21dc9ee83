"""Annotations and columns: which column an annotation asks for."""

from __future__ import annotations

import builtins
import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from datetime import date, datetime, timedelta
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sqlalchemy import JSON, Boolean, Date, Enum
from sqlalchemy.types import TypeEngine

from entropic.sql.columns import TYPES, ByteString, FiniteJSON, exact_decimal
from entropic.values.hashing import has_hasher

__all__ = [
    "PATH_LENGTH",
    "UNREADABLE",
    "Kind",
    "Unsupported",
    "bare",
    "column_problem",
    "hints_of",
    "kind_of",
    "members_of",
    "shown",
]

UNREADABLE = (NameError, AttributeError, SyntaxError, TypeError)
"""What reading an annotation raises that is text, and names what is not there, or is none."""

ENUM_LENGTH = 255
PATH_LENGTH = 1000

_SCALARS: dict[Any, Any] = {**TYPES, bool: Boolean, date: Date}
_WRAPPERS = (Annotated, typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", Annotated))
_CONTAINERS = (list, dict, tuple, set, frozenset, Sequence, Mapping, Set, Iterable, Collection)


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
        """Whether the column holds documents."""
        return isinstance(self.type_, FiniteJSON | JSON) or self.type_ is JSON


def kind_of(annotation: Any, *, nullable: bool = False) -> Kind:
    """Return the column that *annotation* asks for; `Unsupported` if there is none."""
    if get_origin(annotation) is Annotated:
        base, *extras = get_args(annotation)
        for extra in extras:
            if isinstance(extra, TypeEngine) or (isinstance(extra, type) and issubclass(extra, TypeEngine)):
                made = exact_decimal(extra() if isinstance(extra, type) else extra)
                return Kind(made, base, nullable or _is_optional(base))
        return kind_of(base, nullable=nullable)
    inner = bare(annotation)
    if inner is not annotation:
        return kind_of(inner, nullable=nullable)
    every = members_of(annotation)
    if get_origin(annotation) is Literal and None in get_args(annotation):
        choices = tuple(choice for choice in get_args(annotation) if choice is not None)
        return kind_of(Literal[choices], nullable=True) if choices else Kind(FiniteJSON(), annotation, True)
    if every is None:
        return Kind(_type(annotation), annotation, nullable)
    members = [one for one in every if one is not type(None)]
    nullable = nullable or len(members) < len(every)
    if len(members) > 1:  # a column has one type: what each is, the document says
        return Kind(FiniteJSON(), annotation, nullable)
    return kind_of(members[0], nullable=nullable)


def column_problem(annotation: Any) -> str | None:
    """Say why ``Mapped[annotation]`` makes no column, or return None."""
    try:
        kind = kind_of(annotation)
    except Unsupported as reason:
        return str(reason)
    if isinstance(kind.annotation, type) and issubclass(kind.annotation, PurePath):
        return "whose text is what identifies it: write str for it, and give str(path)"
    return None


def shown(annotation: Any) -> str:
    """Return an annotation as it was written, about."""
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def hints_of(class_: Any) -> dict[str, Any]:
    """Return the annotations of a class's fields; `Any` where, and as far as, only type checkers see what they name."""
    try:
        return typing.get_type_hints(class_, include_extras=True)
    except UNREADABLE:
        pass  # one of them; the others are read one by one
    hints: dict[str, Any] = {}
    for base in reversed(class_.__mro__):
        for name, annotation in vars(base).get("__annotations__", {}).items():
            module = getattr(annotation, "__forward_module__", None) or base.__module__
            names = vars(sys.modules[module]) if module in sys.modules else {}
            holder = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                hints |= typing.get_type_hints(
                    holder, localns=_Names(vars(builtins) | names), include_extras=True
                )
            except UNREADABLE:
                text = getattr(annotation, "__forward_arg__", "")
                is_optional = text.partition("[")[0].endswith("NotRequired")
                hints[name] = typing.NotRequired[Any] if is_optional else Any
    return hints


class _Names(dict[str, Any]):
    """Names of which those that are not there stand for `Any`."""

    def __missing__(self, name: str) -> Any:
        return Any


def bare(annotation: Any) -> Any:
    """Return an annotation without what stands around it: the name of a NewType or alias, `Annotated`, `Required`."""
    while True:
        if get_origin(annotation) in _WRAPPERS:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):  # a NewType
            annotation = annotation.__supertype__
        elif _is_alias(annotation):
            annotation = annotation.__value__
        elif _is_alias(alias := get_origin(annotation)):
            annotation = _filled(alias, get_args(annotation))
        else:
            return annotation


def _is_alias(annotation: Any) -> bool:
    """Whether it is of a type statement, since Python 3.12, or made as one."""
    return type(annotation).__name__ == "TypeAliasType"


def _filled(alias: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what an alias with parameters stands for, such as NumPy's ``NDArray[numpy.float64]``."""
    given = dict(zip(alias.__type_params__, arguments, strict=False))
    parameters = getattr(alias.__value__, "__parameters__", ())
    return (
        alias.__value__[tuple(given.get(one, one) for one in parameters)] if parameters else alias.__value__
    )


def members_of(annotation: Any) -> tuple[Any, ...] | None:
    """Return the members of a union; None of anything else."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else None


def _is_optional(annotation: Any) -> bool:
    return type(None) in get_args(annotation)


def _type(annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        if not all(type(choice) is str for choice in choices):
            return FiniteJSON()
        return Enum(*choices, native_enum=False, length=ENUM_LENGTH, validate_strings=True)
    class_ = get_origin(annotation) or annotation
    if class_ in _SCALARS:
        return _SCALARS[class_]
    if not isinstance(class_, type):
        raise Unsupported("which says nothing about what may be stored")
    if issubclass(class_, enum.Enum):
        return Enum(class_, native_enum=False, length=ENUM_LENGTH)
    if issubclass(class_, PurePath) and not has_hasher(class_):  # which may ask for what is in the file
        return ByteString(PATH_LENGTH)
    if class_ in _CONTAINERS or issubclass(class_, tuple | dict) or _is_hashable_object(class_):
        return FiniteJSON()
    if class_.__module__ == "numpy" and hasattr(class_, "dtype"):
        raise Unsupported("whose values are given as Python's own: write int, float, bool or str for it")
    if issubclass(class_, datetime | timedelta):  # of pandas
        raise Unsupported("whose values are given as Python's own: write datetime or timedelta for it")
    raise Unsupported(
        "whose values have no column and no stable hash (entropic.register_hasher gives them one)"
    )


def _is_hashable_object(class_: type) -> bool:
    """Whether the values of a class have documents, and reach the function as they were given."""
    numpy = sys.modules.get("numpy")
    return (
        dataclasses.is_dataclass(class_)
        or hasattr(class_, "__attrs_attrs__")
        or hasattr(class_, "model_fields")
        or (numpy is not None and class_ in (numpy.ndarray, numpy.ma.MaskedArray))
        or (class_.__module__.partition(".")[0] == "pandas" and issubclass(class_, _labelled()))
        or has_hasher(class_)
    )


def _labelled() -> tuple[type, ...]:
    """Return the classes of pandas' whose objects have documents."""
    pandas = sys.modules.get("pandas")
    return () if pandas is None else (pandas.DataFrame, pandas.Series, pandas.Index)
