"""The short ways of each kind of column: from a given value to the typed one and its text in the key, and from a row.

`Parameters` and SQLAlchemy's types say what a value becomes; they are asked here, too, for every value that is not of
the one class that nearly all are. For that class the answer is known beforehand, and stands here in a few lines. A
kind without a short way has the general one, value by value. What cannot be told here at all is `Unusual`: the whole
look-up then goes the general way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import partial
from json.encoder import encode_basestring_ascii as to_text
from marshal import dumps
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Column, Date, Dialect, Interval, Uuid

from entropic.model.base import TYPED_CONTENTS
from entropic.model.parameters import Param, Parameters
from entropic.sql.columns import (
    Choice,
    ExactDecimal,
    FiniteJSON,
    LongBytes,
    MicroTime,
    UTCDateTime,
    texts_of,
)
from entropic.sql.limits import FEWEST_LEVELS, json_levels
from entropic.values.documents import MARKER
from entropic.values.hashing import canonical, hasher_of, rounded_apart
from entropic.values.parameter_documents import DEPTH, DIGITS_BITS, Documents, alike

__all__ = ["Reader", "Typed", "Unusual", "Way", "reader_of", "way_of"]

Typed = Callable[..., tuple[Any, str]]
Reader = Callable[[Any], Any]

_NUL = "\0"
_WITHOUT_REFERENCES = 2  # version of marshal's: of later ones the bytes depend on who else has a value
_LONGEST = timedelta(days=300_000)  # every database has as long a time, and SQLite's ends with the year 9999


class Unusual(Exception):
    """The general way must decide."""


class Way(NamedTuple):
    """How the values of one parameter go.

    Attributes
    ----------
    typed : callable
        Takes a value as it was given; returns it as the column holds it, and its canonical JSON in the key. Of a JSON
        parameter it takes, too, a list that all JSON parameters of a call share.
    is_same : callable or None
        Takes a typed value and that of a row; says whether they are one run's. It may say no where the general way
        would say yes. None where they are if they are equal.
    """

    typed: Typed
    is_same: Callable[[Any, Any], bool] | None


def way_of(parameters: Parameters, p: Param) -> Way:
    """Return how the values of a parameter go."""
    general = _general(p)
    if p.contents is not None:
        return Way(_document(parameters, p), _is_same_document)
    if p.is_plain:
        return Way(general, None)
    kind: Any = p.column.type
    is_as_declared = p.capacity is None or not p.capacity.is_narrow
    make = _SHORT.get(type(kind)) if is_as_declared else None
    if type(kind) is Choice:
        choices = _choices(p) if is_as_declared else {}
        if choices:
            return Way(_choice(choices, general), None)
    elif make is not None and getattr(kind, "as_uuid", True):
        return Way(make(p), None)
    return Way(general, partial(parameters.is_equal, p))


def _general(p: Param) -> Typed:
    def typed(value: Any) -> tuple[Any, str]:
        made = p.cast(value)
        return made, canonical(p.form(made))

    return typed


def _else(p: Param, class_: type[Any]) -> Typed:
    """Return the general way of values that the column has as instances of one class."""

    def typed(value: Any) -> tuple[Any, str]:
        made = p.cast(value)
        if made is not None and type(made) is not class_:  # a subclass may have a text of its own
            raise Unusual
        return made, canonical(p.form(made))

    return typed


# Kinds whose text is their str, unless somebody registered a hasher


def _moment(p: Param) -> Typed:
    general = _else(p, datetime)

    def typed(value: Any) -> tuple[Any, str]:
        if type(value) is not datetime or value.fold or hasher_of(datetime) is not None:
            return general(value)
        zone = value.tzinfo
        if zone is not UTC:
            value = value.replace(tzinfo=UTC) if zone is None else value.astimezone(UTC)
        return value, f'"{value}"'

    return typed


def _as_text(class_: type[Any]) -> Callable[[Param], Typed]:
    """Return how values of one class go of which each is its own typed value."""

    def short(p: Param) -> Typed:
        general = _else(p, class_)

        def typed(value: Any) -> tuple[Any, str]:
            if type(value) is not class_ or hasher_of(class_) is not None:
                return general(value)
            return value, f'"{value}"'

        return typed

    return short


def _clock(p: Param) -> Typed:
    general = _else(p, time)

    def typed(value: Any) -> tuple[Any, str]:
        is_usual = type(value) is time and value.tzinfo is None and not value.fold
        if not is_usual or hasher_of(time) is not None:
            return general(value)
        return value, f'"{value}"'

    return typed


def _duration(p: Param) -> Typed:
    general = _else(p, timedelta)

    def typed(value: Any) -> tuple[Any, str]:
        is_usual = type(value) is timedelta and -_LONGEST <= value <= _LONGEST
        if not is_usual or hasher_of(timedelta) is not None:
            return general(value)
        return value, f'"{value}"'

    return typed


def _decimal(p: Param) -> Typed:
    general = _else(p, Decimal)
    kind: Any = p.column.type
    unit, context = Decimal(1).scaleb(-kind.scale), Context(prec=kind.precision)

    def typed(value: Any) -> tuple[Any, str]:
        if type(value) is not Decimal or not value or hasher_of(Decimal) is not None:
            return general(value)
        made = value.quantize(unit, ROUND_HALF_EVEN, context)
        return (made, f'"{made}"') if made == value else general(value)

    return typed


def _octets(p: Param) -> Typed:
    general = _else(p, bytes)

    def typed(value: Any) -> tuple[Any, str]:
        if type(value) is not bytes or hasher_of(bytes) is not None:
            return general(value)
        return value, to_text(repr(value))

    return typed


_SHORT: dict[type[Any], Callable[[Param], Typed]] = {
    UTCDateTime: _moment,
    Date: _as_text(date),
    MicroTime: _clock,
    Interval: _duration,
    ExactDecimal: _decimal,
    Uuid: _as_text(UUID),
    LongBytes: _octets,
}


# Choices


def _choices(p: Param) -> dict[Any, tuple[Any, str]]:
    """Return, by name, each choice that is its own typed value, with its text."""
    kind: Any = p.column.type
    class_ = kind.enum.enum_class
    if class_ is None:
        texts = {text: (text, canonical(p.form(text))) for text in kind.enum.enums}
        return {text: made for text, made in texts.items() if p.cast(text) == text}
    if class_.__eq__ not in (object.__eq__, int.__eq__, str.__eq__):
        return {}  # of its own members it may call two equal
    members = [member for name, member in class_.__members__.items() if member._name_ == name]
    return {
        member._name_: (member, canonical(p.form(member))) for member in members if p.cast(member) is member
    }


def _choice(choices: Mapping[Any, tuple[Any, str]], general: Typed) -> Typed:
    class_ = type(next(iter(choices.values()))[0])

    def typed(value: Any) -> tuple[Any, str]:
        if type(value) is class_:
            known = choices.get(value if class_ is str else value._name_)
            if known is not None and (known[0] is value or class_ is str):
                return known
        return general(value)

    return typed


# Documents


def _document(parameters: Parameters, p: Param) -> Callable[[Any, list[Documents]], tuple[Any, str]]:
    """Return how JSON parameters go: what is plain JSON is its own document, and only its floats are rounded.

    The second argument is what all JSON parameters of a call share, empty at first: two classes of one name are refused
    also where they are in two parameters.
    """
    contents: Any = p.contents
    is_whole, says_nothing = p.capacity is None, _says_nothing(p, parameters.dialect)
    # Which server it is may not be known yet: what one of them has no room for the general way decides.
    begin = 0 if json_levels(parameters.dialect) is None else DEPTH - (FEWEST_LEVELS - 1)

    def typed(value: Any, shared: list[Documents]) -> tuple[Any, str]:
        if is_whole and value is not None:
            made = value if says_nothing and type(value) is dict else contents(value)
            try:
                return made, _key_text(made, begin)
            except (Unusual, TypeError):  # keys that are no text cannot be sorted
                pass
        if not shared:
            shared.append(Documents())
        document = parameters.document(p, value, shared[0])
        return document.stored, canonical(document.key)

    return typed


def _says_nothing(p: Param, dialect: Dialect) -> bool:
    """Whether what is annotated leaves every dict with plain keys as it is."""
    annotated = getattr(p.column.info.get(TYPED_CONTENTS), "args", ())
    # MySQL's texts have limits.
    return annotated == (dict[str, Any],) and dialect.name not in {"mysql", "mariadb"}


def _key_text(value: Any, depth: int) -> str:
    """Return a document that is plain JSON as it stands in the key; `Unusual` if it is not plain."""
    kind = type(value)
    if kind is dict:
        if depth >= DEPTH or MARKER in value:
            raise Unusual
        parts = []
        for key in sorted(value):
            if type(key) is not str:
                raise Unusual
            item = value[key]
            kind = type(item)
            # What most items are, without a call.
            if kind is float:
                text = _number(item)
            elif kind is str:
                text = to_text(item if item.isascii() and "\0" not in item else _text(item))
            elif kind is bool:
                text = "true" if item else "false"
            else:
                text = _key_text(item, depth + 1)
            parts.append(f"{to_text(key if key.isascii() and _NUL not in key else _text(key))}:{text}")
        return f"{{{','.join(parts)}}}"
    if kind is float:
        return _number(value)
    if kind is int:
        if value.bit_length() > DIGITS_BITS:
            raise Unusual
        return repr(value)
    if kind is str:
        return to_text(value if value.isascii() and "\0" not in value else _text(value))
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is not list or depth >= DEPTH:
        raise Unusual
    return f"[{','.join([_key_text(item, depth + 1) for item in value])}]"


def _number(value: float) -> str:
    form = round(value, 12)
    if abs(form - value) <= 1e-9 * abs(value):
        return repr(form)
    if value - value != 0.0:
        raise Unusual
    return repr(rounded_apart(value))


def _text(value: str) -> str:
    if "\0" in value:
        raise Unusual
    value.encode()  # which raises of half a character
    return value


def _is_same_document(wanted: Any, stored: Any) -> bool:
    if wanted is None or stored is None:
        return wanted is stored
    # The first one tells types and the order of keys as well, all of it in C.
    return dumps(wanted, _WITHOUT_REFERENCES) == dumps(stored, _WITHOUT_REFERENCES) or alike(wanted, stored)


# From a row


def reader_of(column: Column[Any], dialect: Dialect, type_code: Any) -> Reader | None:
    """Return what makes of a driver's value what SQLAlchemy would; None where that is the value.

    Parameters
    ----------
    type_code : object
        The driver's, of this column of a result.
    """
    kind: Any = column.type
    general: Reader | None = kind.dialect_impl(dialect).result_processor(dialect, type_code)
    if general is None:
        return None
    if type(kind) is Choice:
        return _read_choice(kind, general)
    if dialect.driver != "pysqlite":
        return general
    if type(kind) is UTCDateTime:
        return _read_moment(general)
    if type(kind) is FiniteJSON and getattr(dialect, "_json_deserializer", None) is None:
        return _read_document(general)
    if type(kind) is ExactDecimal:
        return _read_decimal(kind, general)
    return general


def _read_choice(kind: Any, general: Reader) -> Reader:
    by_text = {text: general(text) for text in texts_of(kind.enum).values()}

    def read(value: Any) -> Any:
        known = by_text.get(value) if type(value) is str else None
        return general(value) if known is None else known

    return read


def _read_moment(general: Reader) -> Reader:
    from_text = datetime.fromisoformat

    def read(value: Any) -> Any:
        try:
            return from_text(value + "+00:00")
        except (TypeError, ValueError):  # NULL, or a zone of its own
            return general(value)

    return read


def _read_document(general: Reader) -> Reader:
    decoder: Any = json.JSONDecoder()
    scan = decoder.scan_once  # that part of loads() which is written in C

    def read(value: Any) -> Any:
        if type(value) is str:
            try:
                document, end = scan(value, 0)
            except (StopIteration, ValueError):
                return general(value)
            if end == len(value):
                return document
        return general(value)

    return read


def _read_decimal(kind: ExactDecimal, general: Reader) -> Reader:
    unit, context = Decimal(1).scaleb(-kind.scale), Context(prec=kind.precision)

    def read(value: Any) -> Any:
        return Decimal(value).quantize(unit, context=context) if type(value) is str else general(value)

    return read
