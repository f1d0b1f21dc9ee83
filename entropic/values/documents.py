"""Plain values as typed JSON: what comes back is equal, and of the same type.

JSON has no tuples, no NaN, no complex numbers and no NumPy scalars, so those are written as an object with the one
marker key `__entropic__`, its kind, and its content; everything JSON has is written as it is. Arrays are put aside and
referred to by name: whoever writes the file stores them in a form of their own. There is no pickle: reading a document
runs nothing. Objects that are their fields, and members of an Enum, are written by the name of their class; it is found
among the classes that this process has named or returned (`know`), and never imported by a name that a file holds.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, Flag
from functools import reduce
from operator import or_
from typing import Any

from entropic.display.text import DIGITS_BITS, printed
from entropic.errors import DecodeError
from entropic.values.kinds import (
    CODECS,
    decode_fields,
    decode_masked,
    decode_numpy,
    decode_scalar,
    from_text,
    has_description,
    is_plain_dtype,
    of_type,
    parts_as,
    without_padding,
)
from entropic.values.objects import class_name, shape_of, state_of
from entropic.values.pandas_parts import make_pandas, pandas_parts
from entropic.values.refusals import refusal
from entropic.values.xarray_parts import make_xarray, xarray_parts

__all__ = [
    "MARKER",
    "PLAIN",
    "Encoder",
    "decode",
    "encode",
    "is_plain_array",
    "know",
    "read_files_with",
    "require_same",
    "scalar_document",
    "tagged",
]

MARKER = "__entropic__"

# Two halves of a surrogate pair beside each other, which JSON would give back as one character.
_PAIR = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")
_UNNAMED = "#"  # of an array whose place in the value makes no good name

_classes: dict[str, type] = {}


def know(classes: Iterable[type]) -> None:
    """Let documents hold objects of these classes; a class of the same name takes the place of the former."""
    for class_ in classes:
        _classes[class_name(class_)] = class_


def _class_of(name: Any) -> Any:
    if name not in _classes:
        raise DecodeError(
            f"the value holds a {name}, a class that this process has not named: say that the function returns it, as "
            f"in def function(...) -> {str(name).rpartition('.')[2]}, and call it again; nothing is lost"
        )
    return _classes[name]


def _no_arrays(name: str) -> Any:
    """Refuse the array of a document that can have none."""
    raise DecodeError(f"the document refers to the array {name!r}, but JSON has none")


def encode(value: Any, files: Callable[[Any], Any] = lambda value: None) -> tuple[Any, dict[str, Any]]:
    """Return *value* as JSON can hold it, and the arrays in it by the names that the document calls them.

    Parameters
    ----------
    files : callable
        Returns suffix and bytes, as an array, of a value that is written as a file of its own, else None.

    Raises
    ------
    TypeError
        If there is something in it that is neither plain nor an array. The text says where, and names
        `entropic.register_codec`.
    """
    encoder = Encoder(files)
    try:
        return encoder.encode(value), encoder.arrays
    except RecursionError:
        raise TypeError("cannot store a value that contains itself, or is nested too deeply") from None


def scalar_document(value: Any) -> Any:
    """Return the document of a scalar that JSON has no word for, or of a member of an Enum; None of anything else."""
    if isinstance(value, _numpy("generic")):
        value = value.item()
    if type(value) not in _ENCODERS and not isinstance(value, Enum):
        return None
    try:
        return encode(value)[0]
    except TypeError:
        return None


def decode(document: Any, arrays: Callable[[str], Any] = _no_arrays) -> Any:
    """Return the value of which `encode` made *document*.

    Parameters
    ----------
    arrays : callable
        Returns the array of a name. Default: there are none.

    Raises
    ------
    DecodeError
        If `encode` of this release writes no such document: a type that it does not know, content that does not fit
        its type, or an object that has the marker key among others.
    """
    try:
        return _decode(document, arrays)
    except RecursionError:
        raise DecodeError("the document is nested too deeply") from None


def _decode(document: Any, arrays: Callable[[str], Any]) -> Any:
    if type(document) is list:
        return [_decode(item, arrays) for item in document]
    if type(document) is not dict:
        return document
    if MARKER not in document:
        return {key: _decode(item, arrays) for key, item in document.items()}
    name = document[MARKER]
    if type(name) is not str or document.keys() != {MARKER, "value"}:
        # Not given back as it stands: a later release may mean something by it.
        raise DecodeError(
            f"the document has an object with the key {MARKER!r}, which marks what entropic wrote, but it is nothing "
            f"that entropic writes: its keys are {', '.join(map(repr, document))}"
        )
    if name != "array" and name not in _DECODERS:
        raise DecodeError(
            f"the document has a value of type {name!r}, which this release of entropic does not know"
        )
    content = document["value"] if name == "array" else _decode(document["value"], arrays)
    try:
        return arrays(of_type(content, str)) if name == "array" else _DECODERS[name](content)
    except DecodeError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise DecodeError(
            f"the document has a value of type {name!r} whose content does not fit ({error!s:.200})"
        ) from error


def read_files_with(function: Callable[[str, bytes], Any]) -> None:
    """Let *function* make the value of a file within a document, of its suffix and bytes."""

    def read(content: Any) -> Any:
        suffix, octets = parts_as(content, (str,), (_numpy("ndarray"),))
        return function(suffix, octets.tobytes())

    _DECODERS["file"] = read


def is_plain_array(value: Any) -> bool:
    """Whether *value* is an array that npy holds without pickle: exactly `numpy.ndarray`, of one of NumPy's dtypes."""
    return type(value) is _numpy("ndarray") and is_plain_dtype(value.dtype)


def _numpy(name: str) -> Any:
    return getattr(sys.modules.get("numpy"), name, ())  # no value is an array where NumPy is not loaded


class Encoder:
    """Makes the document of one value.

    Parameters
    ----------
    files : callable
        As for `encode`.
    is_inside : bool
        Whether the value is a part of one that is compared as a whole.
    is_compared : bool
        Whether the document is compared, and nothing made of it again: objects are their state.

    Attributes
    ----------
    arrays : dict
        Those in the value, by the names that the document calls them.
    left_out : list of str
        The places of what the document does not hold: none, but for a subclass.
    """

    def __init__(
        self, files: Callable[[Any], Any], *, is_inside: bool = False, is_compared: bool = False
    ) -> None:
        self._files = files
        self._is_inside = is_inside
        self._is_compared = is_compared
        self._path: list[str] = []  # keys and indices that lead to the value at hand
        self.arrays: dict[str, Any] = {}
        self.left_out: list[str] = []

    def encode(self, value: Any) -> Any:
        """Return the document; TypeError if there is something in it that it cannot hold."""
        kind = type(value)
        if kind is str:
            return value if _has_no_pair(value) else tagged("text", _PAIR.split(value))
        if kind is bool or value is None:
            return value
        if kind is int:
            return value if value.bit_length() <= DIGITS_BITS else tagged("int", hex(value))
        if kind is float:
            return value if math.isfinite(value) else tagged("float", repr(value))
        if kind is dict:
            return self._mapping(value)
        if kind is list:
            return self._items(value)
        if kind is tuple:
            return tagged("tuple", self._items(value))
        if kind is set or kind is frozenset:
            return tagged(kind.__name__, sorted(self._items(value), key=json.dumps))
        if kind in _ENCODERS and (content := _ENCODERS[kind](value)) is not None:
            return tagged(_NAMES[kind], self.encode(content))
        if isinstance(value, _numpy("generic")) and kind is value.dtype.type:
            return self._scalar(value)
        if is_plain_array(value):
            return self._array(value)
        if kind is getattr(_numpy("ma"), "MaskedArray", None):
            return tagged("masked", self._masked(value))
        if (file := self._files(value)) is not None:
            return tagged("file", [file[0], self._array(file[1])])
        if kind is _numpy("ndarray") and value.dtype.names and not has_description(value.dtype):
            return tagged("fields", self._fields(value))
        if (labelled := _parts_of(value)) is not None:
            return self._labelled(value, *labelled)
        if isinstance(value, Enum):
            return self._member(value, kind)
        if kind is OrderedDict or kind is Counter:
            return tagged(_DICTS[kind], self._pairs(value))
        if kind is defaultdict and value.default_factory in _FACTORIES.values():
            name = next(name for name, made in _FACTORIES.items() if made is value.default_factory)
            return tagged("default dict", [name, self._pairs(value)])
        if kind is deque:
            return tagged("deque", [self._items(value), value.maxlen])
        if shape_of(kind) is not None:
            return self._object(value, kind)
        raise self._refuse(value)

    def _member(self, value: Enum, kind: Any) -> Any:
        names = (
            [str(member.name) for member in kind if member in value]
            if isinstance(value, Flag)
            else [value.name]
        )
        if _member_of([class_name(kind), names], kind) != value:
            raise self._refuse(value)
        know([kind])
        return tagged("member", [class_name(kind), names])

    def _object(self, value: Any, kind: type) -> Any:
        if self._is_compared:  # its own parts are not made again: with each level that would double
            return tagged("object", [class_name(kind), self._mapping(state_of(value))])
        shape: Any = shape_of(kind)
        try:
            given = shape.get(value)
            extra = dict(getattr(value, "__pydantic_extra__", None) or {})
            made = value if shape.has_only_fields(value) and not extra else shape.make(kind, given, extra)
        except Exception as error:  # the user's constructor may do anything
            raise self._refuse(value) from error
        if made is not value and not _is_same(state_of(made), state_of(value)):
            raise self._refuse(value)
        know([kind])
        fields = {name: self._at(name, item) for name, item in given.items()}
        return tagged("object", [class_name(kind), fields, self._mapping(extra)])

    def _labelled(self, value: Any, name: str, parts: dict[str, Any]) -> Any:
        if not self._is_inside:  # once for all that is in it
            encoder = type(self)(self._files, is_inside=True)
            encoder._path = list(self._path)
            try:
                document = encoder.encode(parts)
            except RecursionError as error:
                raise self._refuse(value) from error
            try:
                made = _DECODERS[name](decode(document, encoder.arrays.__getitem__))
                if not encoder.left_out:
                    require_same(made, value)
            except Exception as error:  # of pandas and xarray, whose releases differ in what they can
                raise self._refuse(value) from error
        was_inside, self._is_inside = self._is_inside, True
        try:
            return tagged(name, self.encode(parts))
        finally:
            self._is_inside = was_inside

    def _at(self, step: str, value: Any) -> Any:
        self._path.append(step)
        encoded = self.encode(value)
        self._path.pop()
        return encoded

    def _items(self, values: Any) -> list[Any]:
        return [self._at(str(number), value) for number, value in enumerate(values)]

    def _mapping(self, values: Mapping[Any, Any]) -> Any:
        if MARKER not in values and all(type(key) is str and _has_no_pair(key) for key in values):
            return {key: self._at(key, value) for key, value in values.items()}
        return tagged("dict", self._pairs(values))

    def _pairs(self, values: Mapping[Any, Any]) -> Any:
        return [[self._at(_UNNAMED, key), self._at(_UNNAMED, value)] for key, value in values.items()]

    def _scalar(self, value: Any) -> Any:
        dtype = value.dtype
        if not is_plain_dtype(dtype):
            raise self._refuse(value)
        if dtype.kind == "V" or dtype.char in "gG":  # structured, or wider than Python's own
            return tagged("scalar", self._array(_numpy("asarray")(value)))
        content = int(value.view("i8")) if dtype.kind in "mM" else value.item()
        # Of two integers of one size, one has only its letter as a name of its own.
        name = dtype.str if _numpy("dtype")(dtype.str).type is type(value) else dtype.char
        return tagged("numpy", [name, self.encode(content)])

    def _array(self, array: Any) -> Any:
        name = "/".join(self._path)
        if not all(map(_is_good_name, self._path)) or not name or name in self.arrays:
            name = f"{_UNNAMED}{len(self.arrays)}"
        self.arrays[name] = without_padding(array)
        return tagged("array", name)

    def _fields(self, value: Any) -> Any:
        """Return the elements as octets, what the fields are, and where each begins."""
        numpy: Any = sys.modules["numpy"]
        fields = value.dtype.fields
        parts = numpy.dtype([(name, fields[name][0]) for name in value.dtype.names])
        if not is_plain_dtype(parts) or any(len(field) > 2 for field in fields.values()):
            raise self._refuse(value)
        # In this order: NumPy copies field by field, and leaves in between what the memory had.
        octets = without_padding(numpy.array(value, order="C")).view(f"V{value.dtype.itemsize}")
        offsets = [fields[name][1] for name in value.dtype.names]
        return [self._at("elements", octets), self._at("fields", numpy.empty(0, parts)), offsets]

    def _masked(self, value: Any) -> Any:
        numpy: Any = sys.modules["numpy"]
        mask, fill = numpy.ma.getmaskarray(value), numpy.asarray(value.fill_value)
        if not is_plain_array(value.data):
            raise self._refuse(value)
        no_mask = value.mask is numpy.ma.nomask
        parts = [("data", value.data), ("mask", None if no_mask else mask), ("fill", fill)]
        if no_mask or value.hardmask:
            parts.append(("hard", bool(value.hardmask)))
        return [self._at(step, part) for step, part in parts]

    def _refuse(self, value: Any) -> TypeError:
        return refusal(value, self._path, is_fixed=type(value) in PLAIN)


def _is_good_name(step: str) -> bool:
    """Whether a key can be part of the name of an HDF5 dataset, and looks like one."""
    return step.isprintable() and step not in {"", ".", ".."} and "/" not in step and _UNNAMED not in step


def _has_no_pair(text: str) -> bool:
    return text.isascii() or _PAIR.search(text) is None


def tagged(name: str, content: Any) -> dict[str, Any]:
    """Return the object that marks content as that of a type."""
    return {MARKER: name, "value": content}


def _parts_of(value: Any) -> tuple[str, dict[str, Any]] | None:
    """Return what a document calls an object of pandas or xarray, and its parts; None if it is none."""
    for name, take_apart in (("pandas", pandas_parts), ("xarray", xarray_parts)):
        if (parts := take_apart(value)) is not None:
            return name, parts
    return None


def require_same(back: Any, before: Any) -> None:
    """Raise TypeError unless two values would be written alike, types included."""
    found, expected = (Encoder(lambda value: None, is_inside=True, is_compared=True) for _ in "ab")
    is_alike = found.encode(back) == expected.encode(before)
    if not is_alike or not all(
        _are_equal(array, expected.arrays[name]) for name, array in found.arrays.items()
    ):
        raise TypeError(f"it would be {printed(back):.100}, not {printed(before):.100}")


def _are_equal(one: Any, other: Any) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def _is_same(one: Any, other: Any) -> bool:
    """Whether two states would be written alike."""
    try:
        require_same(one, other)
    except TypeError:
        return False
    return True


def _member_of(content: Any, class_: Any = None) -> Any:
    name, members = parts_as(content, (str,), (list,))
    class_ = _class_of(name) if class_ is None else class_
    if gone := [member for member in members if member not in class_.__members__]:
        raise DecodeError(
            f"the value holds the member {gone[0]} of {name}, and the class has {', '.join(class_.__members__)} now: "
            "run the function again"
        )
    if issubclass(class_, Flag):
        return reduce(or_, (class_[member] for member in members), class_(0))
    return class_[members[0]]


def _make_object(content: Any) -> Any:
    name, fields, extra = parts_as(content, (str,), (dict,), (dict,))
    class_ = _class_of(name)
    shape = shape_of(class_)
    if shape is None or fields.keys() != set(shape.names):
        raise DecodeError(
            f"the value holds a {name} with the fields {', '.join(fields)}, and the class has "
            f"{', '.join(shape.names) if shape else 'none'} now: run the function again"
        )
    return shape.make(class_, fields, extra)


def _decode_default_dict(content: Any) -> Any:
    name, pairs = parts_as(content, (str, type(None)), (list,))
    return defaultdict(_FACTORIES[name], _decode_pairs(pairs))


def _decode_set(content: Any) -> set[Any]:
    items = set(of_type(content, list))
    if len(items) != len(content):
        raise ValueError("there is an item twice")
    return items


def _decode_pairs(content: Any) -> dict[Any, Any]:
    pairs = {key: value for key, value in (of_type(pair, list) for pair in of_type(content, list))}
    if len(pairs) != len(content):
        raise ValueError("there is a key twice")
    return pairs


_NAMES = {kind: name for name, (kind, _, _) in CODECS.items()}
_ENCODERS = {kind: to_document for kind, to_document, _ in CODECS.values()}
_FACTORIES: dict[Any, Any] = {None: None} | {
    f.__name__: f for f in (int, float, str, bool, list, dict, set, tuple)
}
_DICTS: dict[Any, str] = {OrderedDict: "ordered dict", Counter: "counter"}
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "left out": lambda content: parts_as(content, (str,), (str,))[1],
    "pandas": lambda content: make_pandas(of_type(content, dict)),
    "xarray": lambda content: make_xarray(of_type(content, dict)),
    "member": _member_of,
    "object": _make_object,
    "default dict": _decode_default_dict,
    "ordered dict": lambda content: OrderedDict(_decode_pairs(content)),
    "counter": lambda content: Counter(_decode_pairs(content)),
    "deque": lambda content: deque(*parts_as(content, (list,), (int, type(None)))),
    "int": from_text(lambda text: int(text, 16)),
    "float": from_text(float),
    "text": lambda content: "".join(of_type(piece, str) for piece in of_type(content, list)),
    "tuple": lambda content: tuple(of_type(content, list)),
    "set": _decode_set,
    "frozenset": lambda content: frozenset(_decode_set(content)),
    "dict": _decode_pairs,
    "numpy": decode_numpy,
    "scalar": decode_scalar,
    "fields": decode_fields,
    "masked": decode_masked,
    **{name: from_document for name, (_, _, from_document) in CODECS.items()},
}

PLAIN = (
    *(type(None), bool, int, float, str, list, dict, tuple, set, frozenset),
    *(OrderedDict, Counter, defaultdict, deque, *_ENCODERS),
)
"""Types whose values a document holds, as far as what is in them does; and NumPy's arrays and scalars."""
