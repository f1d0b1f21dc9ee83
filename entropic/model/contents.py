"""What an annotation says of the values inside a JSON parameter: `list[float]`, `dict[str, Path]`, `tuple[date, ...]`.

An item is taken, refused and converted as a parameter of its type is, by the caster of the column that such a
parameter would have. An annotation is compiled once, for one dialect; where it says nothing, values stay as they are.
"""

from __future__ import annotations

import typing
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import PurePath
from typing import Any, Literal, NotRequired, Required, get_args, get_origin

from sqlalchemy import Column, Dialect

from entropic.display.text import described, written
from entropic.model.annotations import PATH_LENGTH, Unsupported, bare, hints_of, kind_of, members_of
from entropic.model.coercion import Caster, caster, plain_scalar
from entropic.model.refused import Refused
from entropic.sql.columns import ByteString
from entropic.values.hashing import has_hasher

__all__ = ["contents_of"]

_SEQUENCES = (Sequence, Iterable, Collection)
_EXACT: dict[Any, tuple[type, ...]] = {  # classes of which a parameter that is annotated so is made
    list: (list, tuple),
    tuple: (tuple, list),
    set: (set, frozenset),
    frozenset: (frozenset, set),
}


def contents_of(annotation: Any, dialect: Dialect) -> Caster:
    """Return the function that brings a value of *annotation* to what the function is to get; it raises `Refused`."""
    given, annotation = annotation, bare(annotation)
    members = members_of(annotation)
    if members is not None:
        return partial(_union, [(one, contents_of(one, dialect)) for one in members])
    origin, inner = get_origin(annotation) or annotation, get_args(annotation)
    if origin is Literal:
        return partial(_choice, inner)
    if typing.is_typeddict(origin):
        return _typed_dict(origin, dialect)
    if not isinstance(origin, type):
        return _as_it_is
    if issubclass(origin, tuple) and hasattr(origin, "_fields"):
        return _named_tuple(origin, dialect)
    if origin is tuple and inner and inner[-1] is not ...:
        return partial(_fixed_tuple, [] if inner == ((),) else [contents_of(one, dialect) for one in inner])
    if origin in _EXACT or origin in _SEQUENCES or origin is Set:
        item = contents_of(inner[0], dialect) if inner else _as_it_is
        return partial(_items, origin, item)
    if origin is dict or origin is Mapping:
        key, value = (contents_of(one, dialect) for one in inner or (Any, Any))
        return partial(_mapping, key, value)
    return _leaf(origin, given, dialect)


def _as_it_is(value: Any) -> Any:
    return value


def _leaf(class_: type, annotation: Any, dialect: Dialect) -> Caster:
    if class_ is type(None):
        return _none
    try:
        kind = kind_of(annotation)
    except Unsupported:
        return partial(_instance, class_) if class_ in _OTHERS else _as_it_is
    if issubclass(class_, PurePath):
        text = caster(Column("item", ByteString(PATH_LENGTH), nullable=True), dialect)
        return partial(_path, class_, partial(_cast, text, class_))
    if kind.is_json:
        return _as_it_is
    return partial(_cast, caster(Column("item", kind.type_, nullable=True), dialect), _as_it_is)


def _path(class_: type, make: Caster, value: Any) -> Any:
    """Return a path as it is if somebody said what identifies it, else one of its text."""
    return value if isinstance(value, class_) and has_hasher(type(value)) else make(value)


def _cast(cast: Caster, make: Caster, value: Any) -> Any:
    if value is None:
        raise Refused("is None, which its annotation does not say that it may be")
    return make(cast(value))


_OTHERS: tuple[type, ...] = (complex, range, slice, bytearray)


def _none(value: Any) -> None:
    if value is not None:
        raise Refused(f"must be None, not {described(value)}")


def _instance(class_: type, value: Any) -> Any:
    if type(value) is not class_:
        raise Refused(f"must be a {class_.__name__}, not {described(value)}")
    return value


def _choice(choices: tuple[Any, ...], value: Any) -> Any:
    value = plain_scalar(value)
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    raise Refused(f"must be one of {', '.join(map(repr, choices))}, not {described(value)}")


def _items(class_: Any, item: Caster, value: Any) -> Any:
    kind = type(value)
    taken = _EXACT.get(class_, (set, frozenset) if class_ is Set else (list, tuple))
    if kind not in taken:
        if isinstance(value, Iterator):
            raise Refused(
                f"is an iterator, which can be read once only: pass list(...), not {described(value)}"
            )
        raise Refused(f"must be a {class_.__name__.lower()}, not {described(value)}")
    made = class_ if class_ in _EXACT else kind
    if item is _as_it_is:
        return value if kind is made else made(value)
    return made(_each(item, value))


def _each(item: Caster, values: Any) -> list[Any]:
    converted: list[Any] = []
    try:
        for value in values:
            converted.append(item(value))
    except Refused as refused:
        refused.steps.append(f"[{len(converted)}]")
        raise
    return converted


def _fixed_tuple(items: list[Caster], value: Any) -> tuple[Any, ...]:
    if type(value) not in (tuple, list):
        raise Refused(f"must be a tuple, not {described(value)}")
    if len(value) != len(items):
        raise Refused(f"must have {len(items)} items, not {len(value)}: {described(value)}")
    numbers = iter(items)
    return tuple(_each(lambda one: next(numbers)(one), value))


def _named_tuple(class_: Any, dialect: Dialect) -> Caster:
    hints = hints_of(class_)
    fixed = partial(_fixed_tuple, [contents_of(hints.get(name, Any), dialect) for name in class_._fields])

    def cast(value: Any) -> Any:
        if isinstance(value, tuple) and type(value) not in (tuple, class_):
            raise Refused(f"must be a {class_.__name__}, not {described(value)}")
        if type(value) is not class_:
            return class_(*fixed(value))
        made = class_(*fixed(tuple(value)))
        # What a subclass has besides its fields: the document says whether they determine it.
        getattr(made, "__dict__", {}).update(getattr(value, "__dict__", {}))
        return made

    return cast


def _mapping(key: Caster, value: Caster, given: Any) -> Any:
    if not isinstance(given, dict):
        raise Refused(f"must be a dict, not {described(given)}")
    if (key is _as_it_is and value is _as_it_is) or type(given) not in (dict, OrderedDict):
        return given
    return type(given)(_pairs(key, value, given))


def _pairs(key: Caster, value: Caster, given: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    taken = set()
    for name, item in given.items():
        try:
            made = key(name)
            result = value(item)
        except Refused as refused:
            refused.steps.append(f"[{written(name)}]")
            raise
        if made in taken:
            raise Refused(f"has two keys that become {made!r}")
        taken.add(made)
        yield made, result


def _typed_dict(class_: Any, dialect: Dialect) -> Caster:
    hints = hints_of(class_)
    items = {name: contents_of(hint, dialect) for name, hint in hints.items()}
    # Of annotations that are text, the class itself knows only whether it is total.
    origins = {name: get_origin(hint) for name, hint in hints.items()}
    needed = {name for name in class_.__required_keys__ if origins.get(name) is not NotRequired}
    needed |= {name for name, origin in origins.items() if origin is Required}

    def cast(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise Refused(f"must be a dict, not {described(value)}")
        if unknown := [name for name in value if name not in items]:
            raise Refused(f"has {unknown[0]!r}, which {class_.__name__} has not; it has: {', '.join(items)}")
        if missing := [name for name in items if name in needed and name not in value]:
            raise Refused(f"needs {', '.join(map(repr, missing))}, as {class_.__name__} says")
        return {name: _at(name, items[name], item) for name, item in value.items()}

    return cast


def _at(name: str, cast: Caster, value: Any) -> Any:
    try:
        return cast(value)
    except Refused as refused:
        refused.steps.append(f"[{name!r}]")
        raise


def _union(members: list[tuple[Any, Caster]], value: Any) -> Any:
    value = plain_scalar(value)  # which is of one of them exactly
    made: list[Any] = []
    exact: list[Any] = []
    reasons: list[Refused] = []
    for annotation, cast in members:
        class_ = get_origin(bare(annotation)) or bare(annotation)
        if (
            cast is _as_it_is
            and isinstance(class_, type)
            and class_ is not Any
            and not _may_be_of(class_, value)
        ):
            continue
        try:
            result = cast(value)
        except Refused as reason:
            if annotation is not type(None):
                reasons.append(reason)
            continue
        (exact if _is_exactly(result, value) else made).append(result)
    if exact:
        return exact[0]
    if len(made) == 1:
        return made[0]
    if not made and len(reasons) == 1 == len(members) - 1:
        raise reasons[0]  # of X | None, what X says
    names = ", ".join(
        str(one).removeprefix("typing.") if get_args(one) else getattr(one, "__name__", None) or str(one)
        for one, _ in members
    )
    if not made:
        raise Refused(f"must be one of {names}, not {described(value)}")
    raise Refused(f"may become more than one of {names}: pass one of them exactly, not {described(value)}")


def _may_be_of(class_: type, value: Any) -> bool:
    try:
        return isinstance(value, class_)
    except TypeError:  # a protocol that nobody can ask when the program runs
        return True


def _is_exactly(one: Any, other: Any) -> bool:
    """Whether a conversion changed nothing."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_exactly, one, other))
    if isinstance(one, dict):
        return _is_exactly(list(one.items()), list(other.items()))
    return kind.__module__.partition(".")[0] in _COMPARABLE and bool(one == other)


_COMPARABLE = frozenset({"builtins", "datetime", "decimal", "fractions", "uuid", "pathlib"})
