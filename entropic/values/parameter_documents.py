"""The document of a JSON parameter: what is hashed, stored, compared, and made the function's value again.

Plain JSON is its own document. Everything else is an object with the key `MARKER`, which says what kind of value it
is, so that no two values that a function can tell apart have one document. Classes and arrays cannot be made from a
document alone: they come from the value that was given, never from a name that a database holds.
"""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

from entropic.values.arrays import array_kind, copy_of, form_of, single_form
from entropic.values.closures import varying_in_class
from entropic.values.documents import MARKER
from entropic.values.hashing import NoForm, canonical, hasher_of, rounded_apart
from entropic.values.kinds import CODECS, decode_zone, encode_zone
from entropic.values.objects import Shape, class_name, shape_of, state_of

__all__ = [
    "DEPTH",
    "DIGITS_BITS",
    "NOTHING_ELSE",
    "BadValue",
    "Document",
    "Documents",
    "Sources",
    "alike",
    "as_former",
    "key_form",
    "rebuild",
]

DEPTH = 200
DIGITS_BITS = 2000  # above, Python may refuse to write an int as decimal digits
_PLAIN = frozenset({str, int, bool, type(None)})
_ABSENT: Any = object()


class BadValue(NoForm):
    """A value of a kind that has documents, which itself has none: NaN, half a character."""


class Sources:
    """What documents alone do not hold: classes by name, and the arrays and objects that were given."""

    def __init__(self) -> None:
        self.classes: dict[str, Any] = {}
        self.originals: dict[str, Any] = {}


NOTHING_ELSE = Sources()  # of plain JSON


class Document(NamedTuple):
    """What a JSON parameter is.

    Attributes
    ----------
    stored : object
        JSON; floats are exact.
    key : object
        JSON, as the key has it: floats by `rounded_apart`.
    is_plain : bool
        Whether the value was plain JSON, which is its own document.
    former : bool or None
        Whether the published release 2.3 would have given another key to a value that it could store; None if it could
        not have stored it.
    """

    stored: Any
    key: Any
    is_plain: bool
    former: bool | None


class Documents:
    """Makes the documents of one call's parameters, and collects their `sources`.

    Parameters
    ----------
    takes_any_float : bool
        Whether NaN and infinities have documents.

    Notes
    -----
    Two classes of one name in one call are refused: a document could not tell them apart.
    """

    def __init__(self, *, is_cell: bool = False, takes_any_float: bool = False) -> None:
        self.sources = Sources()
        self._is_cell = is_cell  # in a frame, NaN and pandas' own scalars have their place
        self._takes_any_float = is_cell or takes_any_float
        self._start()

    def _start(self) -> None:
        self._is_plain = self._is_former = True
        self._is_rounded = self._is_rounded_apart = False

    def of(self, value: Any) -> Document:
        """Return the document of *value*; `NoForm` if it has none, whose `steps` lead to what is wrong in it."""
        self._start()
        try:
            stored = self._of(value, 0)
        except RecursionError:
            raise NoForm(_TOO_DEEP) from None
        key = key_form(stored) if self._is_rounded else stored
        differs = not self._is_plain or self._is_rounded_apart
        return Document(stored, key, self._is_plain, differs if self._is_former else None)

    def _of(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return value if value.isascii() and "\0" not in value else self._text(value)
        if kind is float:
            return self._float(value)
        if kind is int:
            return value if value.bit_length() <= DIGITS_BITS else self._marked("int", hex(value))
        if kind in _PLAIN:
            return value
        if depth >= DEPTH:
            raise NoForm(_TOO_DEEP)
        if kind is dict:
            return self._dict(value, depth + 1)
        if kind is list:
            return self._items(value, depth + 1)
        self._is_plain = False
        if kind is tuple:
            return _marked("tuple", self._items(value, depth + 1))
        return self._other(value, kind, depth + 1)

    def _marked(self, kind: str, content: Any) -> dict[str, Any]:
        self._is_plain = False
        return _marked(kind, content)

    def _text(self, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadValue(f"is no valid Unicode: {value!a:.80}; pass bytes") from None
        if "\0" in value:
            raise BadValue(f"holds a NUL character, which databases do not keep: {value!r:.80}; pass bytes")
        return value

    def _float(self, value: float) -> Any:
        if value - value != 0.0:
            if self._takes_any_float:
                return _marked("float", repr(value))
            name = "NaN, which is equal to nothing" if value != value else f"{value}"
            raise BadValue(f"is {name}, which JSON cannot hold; use None, a string, or a numpy.array")
        decimal = round(value, 12)
        if decimal != value:
            self._is_rounded = True
            if not self._is_rounded_apart and rounded_apart(value) != decimal:
                self._is_rounded_apart = True
        return value

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        document: dict[str, Any] = {}
        if MARKER in value:
            return self._pairs("dict", value, depth)
        key: Any = None
        try:
            for key, item in value.items():
                if type(key) is not str:
                    return self._pairs("dict", value, depth)
                if not key.isascii() or "\0" in key:
                    self._text(key)
                document[key] = self._of(item, depth)
        except NoForm as refused:
            if type(key) is str:
                refused.steps.append(f"[{key!r}]")
            raise
        return document

    def _pairs(self, kind: str, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        self._is_plain = self._is_former = False
        pairs = []
        for key, item in value.items():
            try:
                pairs.append([self._of(key, depth), self._of(item, depth)])
            except NoForm as refused:
                refused.steps.append(f"[{key!r}]")
                raise
        return _marked(kind, pairs if kind == "ordered dict" else sorted(pairs, key=_order))

    def _items(self, values: Any, depth: int) -> list[Any]:
        document: list[Any] = []
        try:
            for item in values:
                document.append(self._of(item, depth))
        except NoForm as refused:
            refused.steps.append(f"[{len(document)}]")
            raise
        return document

    def _other(self, value: Any, kind: type, depth: int) -> Any:
        numpy_scalar = getattr(sys.modules.get("numpy"), "generic", ())
        hasher = hasher_of(kind)
        if hasher is not None:
            self._is_former = False
            return self._keep("hashed", [self._class(kind), self._of(hasher(value), depth)], value)
        if isinstance(value, numpy_scalar) and kind is value.dtype.type:
            item = self._of(_python_scalar(value, is_cell=self._is_cell), depth)
            return self._keep("cell", [value.dtype.str, item, None], value) if self._is_cell else item
        self._is_former = False
        if isinstance(value, Enum):
            return self._member(value, kind)
        if kind in _SCALARS:
            name, content = _SCALARS[kind]
            return _marked(name, self._of(content(value), depth))
        if kind is set or kind is frozenset:
            return _marked(kind.__name__, sorted(self._items(value, depth), key=_order))
        if kind is OrderedDict:
            return self._pairs("ordered dict", value, depth)
        if (array := array_kind(value)) is not None:
            return self._array(value, array, depth)
        if self._is_cell and kind.__module__.partition(".")[0] == "pandas":
            form = single_form(value, lambda part: self._of(part, depth))
            if form is not None:
                return self._keep("cell", [class_name(kind), form, getattr(value, "unit", None)], value)
        shape = shape_of(kind)
        if shape is not None:
            return self._object(value, kind, shape, depth)
        raise _refused(value)

    def _class(self, kind: type) -> str:
        name = class_name(kind)
        if self.sources.classes.setdefault(name, kind) is not kind:
            raise NoForm(
                f"is of a class {name}, and so is something else in this call, but the two classes are not the same: "
                "give one of them another name, or make the older object anew"
            )
        return name

    def _own_class(self, kind: type) -> str:
        """Return the name of a class of whose objects the class is a part: it must be all that they are told by."""
        name = self._class(kind)
        if (varying := varying_in_class(kind)) is not None:
            raise NoForm(
                f"is of the class {name}, which was made in a function and hangs there on {'.'.join(varying)!r}: "
                "another call may make one of this name that does something else. Make that a field, or define the "
                f"class outside of functions, or {_advice(kind)}"
            )
        return name

    def _keep(self, kind: str, content: Any, value: Any) -> dict[str, Any]:
        document = _marked(kind, content)
        self.sources.originals[canonical(document)] = value
        return document

    def _member(self, value: Enum, kind: Any) -> dict[str, Any]:
        if not isinstance(value, Flag):
            return _marked("enum", [self._own_class(kind), value.name])
        members = [member for member in kind if member in value]
        if reduce(or_, members, kind(0)) != value:
            raise BadValue(
                f"is {value!r}, which has bits without a name: give {kind.__qualname__} members for them"
            )
        return _marked("flag", [self._own_class(kind), sorted(str(member.name) for member in members)])

    def _array(self, value: Any, kind: str, depth: int) -> dict[str, Any]:
        if kind == "objects":
            return _marked("objects", [list(value.shape), self._items(value.reshape(-1), depth)])
        cells = Documents(is_cell=True)
        cells.sources = self.sources
        return self._keep(kind, form_of(value, kind, lambda cell: cells._of(cell, depth)), value)

    def _object(self, value: Any, kind: type, shape: Shape, depth: int) -> dict[str, Any]:
        try:
            given = shape.get(value)
        except AttributeError as error:
            raise NoForm(f"is a {class_name(kind)} without all of its fields: {error}") from None
        fields = {}
        for name, item in given.items():
            try:
                fields[name] = self._of(item, depth)
            except NoForm as refused:
                refused.steps.append(f".{name}")
                raise
        content = {"class": self._own_class(kind), "fields": fields}
        extra = getattr(value, "__pydantic_extra__", None)
        if extra:
            content["extra"] = self._dict(extra, depth)
        if extra or not shape.has_only_fields(value):
            self._require_determined(value, content, shape, depth)
        return _marked("object", content)

    def _require_determined(self, value: Any, content: dict[str, Any], shape: Shape, depth: int) -> None:
        """Raise `NoForm` unless an object that is made from the fields has the state of *value*."""
        kind = type(value)
        try:
            made = rebuild(_marked("object", content), self.sources)
        except Exception as error:  # the user's constructor may do anything
            raise NoForm(
                f"is a {class_name(kind)}, of which none can be made from its fields ({', '.join(content['fields'])}): "
                f"{type(error).__name__}: {error}. {_advice(kind)}"
            ) from error
        state, other = state_of(value), state_of(made)
        is_attrs = hasattr(kind, "__attrs_attrs__")
        for name in [*state, *(name for name in other if name not in state)]:
            one, two = state.get(name, _ABSENT), other.get(name, _ABSENT)
            if two is _ABSENT and is_attrs:  # where attrs keeps a cached property
                two = getattr(made, name, _ABSENT)
            if not self._is_same(one, two, depth):
                raise NoForm(
                    f"is a {class_name(kind)}: {kind.__qualname__}.{name} is not determined by the fields "
                    f"({', '.join(shape.names)}), so it would not be in the key. Make it a field, or {_advice(kind)}"
                )

    def _is_same(self, one: Any, other: Any, depth: int) -> bool:
        if one is other:
            return True
        try:
            texts = [canonical(key_form(Documents(is_cell=True)._of(value, depth))) for value in (one, other)]
        except NoForm:
            return False
        return texts[0] == texts[1]


_TOO_DEEP = f"contains itself, or is nested more than {DEPTH} levels deep: pass a flatter value"


def _marked(kind: str, content: Any) -> dict[str, Any]:
    return {MARKER: kind, "value": content}


def _order(document: Any) -> str:
    """Return the text by which the elements of a set are sorted; 1.0 and 1, which some databases take for one, are."""
    return canonical(_integral(document))


def _integral(document: Any) -> Any:
    kind = type(document)
    if kind is float:
        return int(document) if document.is_integer() else document
    if kind is list:
        return [_integral(item) for item in document]
    if kind is dict:
        return {key: _integral(item) for key, item in document.items()}
    return document


def _python_scalar(value: Any, *, is_cell: bool) -> Any:
    """Return the Python value of a NumPy scalar: that is what the function gets, but of a cell in a frame."""
    item = value.item()
    is_time = value.dtype.kind in "mM" and not is_cell
    if value.dtype.kind == "V" or isinstance(item, type(value)) or (is_time and isinstance(item, int | None)):
        raise NoForm(
            f"is {value!r}, which has no equal among Python's scalars: pass numpy.array(...) of it, or convert it"
        )
    return item


def _advice(kind: type) -> str:
    return f"say what identifies it with entropic.register_hasher({kind.__qualname__}, function)."


def _refused(value: Any) -> NoForm:
    kind = type(value)
    way = next(
        (way for classes, way in _WAYS if isinstance(value, classes)), "pass plain values that say the same"
    )
    if kind.__module__.partition(".")[0] == "pandas":
        way = "pass the Python value, such as value.to_pydatetime(), or a Series"
    elif kind.__module__ != "builtins":
        way += f", or {_advice(kind)}"
    return NoForm(f"is a {class_name(kind)}, which has no stable form: {way}")


_WAYS: list[tuple[Any, str]] = [
    (str, "pass str(value)"),
    (bool | int | float, "pass the plain number"),
    (dict, "pass dict(value)"),
    ((list, tuple, set, frozenset), "pass a plain list, tuple or set"),
    (datetime, "pass a plain datetime"),
    (tzinfo, "pass the name of the zone"),
]


# Kinds


def _zone(value: Any) -> Any:
    if value.tzinfo is None:
        return None
    zone = encode_zone(value.tzinfo)
    if zone is None:
        raise NoForm(
            f"is in the zone {value.tzinfo!r}, which has no name to find it by: use zoneinfo or datetime.timezone"
        )
    if isinstance(zone, timedelta | tuple):
        return [zone] if isinstance(zone, timedelta) else list(zone)
    return zone


def _finite(value: Decimal) -> str:
    if not value.is_finite():
        raise BadValue(f"is {value!r}, which is no number; use None or a string")
    return str(value)


def _parts(value: complex) -> list[float]:
    return [value.real, value.imag]


_OWN: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "datetime": (
        datetime,
        lambda value: [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value)],
        lambda c: datetime.fromisoformat(c[0]).replace(fold=c[1], tzinfo=decode_zone(c[2])),
    ),
    "time": (
        time,
        lambda value: [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value)],
        lambda c: time.fromisoformat(c[0]).replace(fold=c[1], tzinfo=decode_zone(c[2])),
    ),
    "decimal": (Decimal, _finite, Decimal),
    "slice": (slice, lambda value: [value.start, value.stop, value.step], lambda parts: slice(*parts)),
    "ellipsis": (type(Ellipsis), lambda value: None, lambda content: Ellipsis),
}
_KINDS = {**CODECS, **_OWN}
_SCALARS = {kind: (name, content) for name, (kind, content, _) in _KINDS.items()}
_MAKERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "ordered dict": OrderedDict,
    **{name: make for name, (_, _, make) in _KINDS.items()},
}


# Back again


def rebuild(document: Any, sources: Sources) -> Any:
    """Return a value of which *document* is the document; nothing of it is the caller's.

    Raises
    ------
    BadValue
        If an array or object that was given holds something else by now.
    """
    kind = type(document)
    if kind is list:
        return [rebuild(item, sources) for item in document]
    if kind is not dict:
        return document
    name = document.get(MARKER)
    if name is None:
        return {key: rebuild(item, sources) for key, item in document.items()}
    content = document["value"]
    if name in _MAKERS:
        return _MAKERS[name](rebuild(content, sources))
    if name in {"enum", "flag"}:
        class_ = sources.classes[content[0]]
        return (
            class_[content[1]] if name == "enum" else reduce(or_, (class_[n] for n in content[1]), class_(0))
        )
    if name == "object":
        fields = {key: rebuild(item, sources) for key, item in content["fields"].items()}
        shape: Any = shape_of(sources.classes[content["class"]])
        return shape.make(
            sources.classes[content["class"]], fields, rebuild(content.get("extra", {}), sources)
        )
    if name == "objects":
        return _array_of_objects(content, sources)
    return _copy(document, name, sources)


def _array_of_objects(content: Any, sources: Sources) -> Any:
    shape, items = content
    array = sys.modules["numpy"].empty(len(items), object)
    for place, item in enumerate(items):
        array[place] = rebuild(item, sources)
    return array.reshape(shape)


def _copy(document: dict[str, Any], kind: str, sources: Sources) -> Any:
    original = sources.originals[canonical(document)]
    if kind == "cell":
        return original  # immutable
    made = _deep_copy(original) if kind == "hashed" else copy_of(original, kind, _clone)
    if Documents()._of(made, 0) != document:
        raise BadValue(
            f"is a {class_name(type(original))} that was changed since it was given: pass a copy of it"
        )
    return made


def _deep_copy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception as error:  # of the user's class, or of what it holds: a lock, a connection
        kind = type(value)
        raise BadValue(
            f"is a {class_name(kind)}, of which the function would be given a copy, and none can be made: "
            f"{type(error).__name__}: {error}. Give {kind.__qualname__} a __deepcopy__, or pass what it is made of"
        ) from error


def _clone(cell: Any) -> Any:
    documents = Documents(is_cell=True)
    return rebuild(documents._of(cell, 0), documents.sources)


# In the key, in a row


def key_form(document: Any) -> Any:
    """Return *document* as the key has it."""
    kind = type(document)
    if kind is float:
        return rounded_apart(document)
    if kind is list:
        return [key_form(item) for item in document]
    if kind is not dict:
        return document
    form = {key: key_form(item) for key, item in document.items()}
    if form.get(MARKER) in {"set", "frozenset", "dict"}:
        form["value"] = sorted(form["value"], key=_order)  # rounding may have changed their order
    return form


def alike(one: Any, other: Any) -> bool:
    """Whether two documents are one to the key, numbers by value: a database may not keep 1.0 from 1."""
    return _alike(one, other) or _alike(key_form(one), key_form(other))


def _alike(one: Any, other: Any) -> bool:
    kind = type(one)
    if kind is dict:
        return (
            type(other) is dict
            and len(one) == len(other)
            and all(key in other and _alike(item, other[key]) for key, item in one.items())
        )
    if kind is list:
        return type(other) is list and len(one) == len(other) and all(map(_alike, one, other))
    if kind is int or kind is float:
        return (type(other) is int or type(other) is float) and _is_one_number(one, other)
    return type(other) is kind and bool(one == other)


def _is_one_number(one: float, other: float) -> bool:
    if one == other:
        return True
    if type(one) is type(other):
        return False
    try:  # JSONB writes 1e+300 as digits, which make an int that is not exactly the double
        return float(one) == float(other)
    except OverflowError:
        return False


def as_former(document: Any) -> Any:
    """Return *document* as the published release stored it: with lists for tuples."""
    kind = type(document)
    if kind is list:
        return [as_former(item) for item in document]
    if kind is not dict:
        return document
    if document.get(MARKER) == "tuple":
        return as_former(document["value"])
    return {key: as_former(item) for key, item in document.items()}
