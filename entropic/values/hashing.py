"""The hash of a set of parameters: the same in every process, on every machine, in every release.

A value is brought into a *normal form* (what JSON can hold), the form is written as canonical JSON, and the first 16
hex digits of that text's SHA-256 are the key. What JSON cannot hold becomes its text where that text identifies it, or
a *tagged form*: a dict with one marker key such as `__ndarray__`. A normal form is its own normal form.

A value that has no stable form is an `UnhashableParamError`, never a guess: a guess never hits again, or hits wrongly.
NumPy, pandas, pydantic and attrs are recognised by what is loaded already; nothing is imported for them.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any, TypeVar
from uuid import UUID

from entropic.errors import UnhashableParamError
from entropic.process.forked_locks import ForkedLock

__all__ = [
    "NoForm",
    "adopt_hashers",
    "array_form",
    "canonical",
    "digest",
    "exact",
    "has_hasher",
    "hash_params",
    "hasher_of",
    "hashers_of",
    "normalise",
    "register_hasher",
    "rounded",
    "rounded_apart",
]

T = TypeVar("T")
Number = Callable[[float], float]

_RESERVED = frozenset({"result_file", "created_at", "custom_data"})
_PLAIN = frozenset({int, str, bool, type(None)})
_JSON_TYPES = _PLAIN | {float, dict, list, tuple}
_TEXTUAL = (
    PurePath,
    datetime.date,  # and with it datetime
    datetime.time,
    datetime.timedelta,
    Decimal,
    Fraction,
    UUID,
    complex,
)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_ARRAY_KINDS = frozenset("biufcmMSUV")
_KEY_ADVICE = (
    "Use other keys, or put the mapping into a class of its own and give that to entropic.register_hasher."
)
_DEFAULT_STR: Any = object.__str__
# Normal forms are trees, so the encoder need not look for cycles.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False).encode

_hashers: dict[type, Callable[[Any], Any]] = {}
_hashers_lock = ForkedLock()


class NoForm(Exception):
    """A value without a stable form; the containers around it add the way to it, innermost first."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.steps: list[str] = []


def rounded(number: float) -> float:
    """Round to 12 decimals: the rule of `hash_params`."""
    return round(number, 12)


def rounded_apart(number: float) -> float:
    """Round to 12 decimals, or to 12 significant digits where decimals would move *number* by over 1e-9 of itself.

    So `1e-13`, `2e-13` and 0 stay three numbers, and ordinary ones have the form that `rounded` gives.
    """
    decimal = round(number, 12)
    if abs(decimal - number) <= 1e-9 * abs(number):
        return decimal
    significant = float(f"{number:.11e}")
    decimal = round(significant, 12)
    # The significant digits can end up on the other side of the limit; the form of a form must be itself.
    return decimal if abs(decimal - significant) <= 1e-9 * abs(significant) else significant


def exact(number: float) -> float:
    """Leave *number* as it is."""
    return number


def hash_params(params: Mapping[str, Any]) -> str:
    """Return the key of *params*: 16 hex digits, the same in every process.

    Parameters
    ----------
    params : mapping
        Names to values; the order does not count. The reserved names `result_file`, `created_at` and `custom_data`
        are left out of the key.

    Raises
    ------
    UnhashableParamError
        If a value has no stable form: a function, an object with the default repr, a container or array of unknown
        type. The text says where it is and how to give it one.

    Examples
    --------
    >>> hash_params({"n": 100, "dt": 0.1})
    'e4ded0fc6efdb871'
    >>> hash_params({"dt": 0.1, "n": 100, "result_file": "a.h5"})
    'e4ded0fc6efdb871'
    """
    if type(params) is not dict or not _RESERVED.isdisjoint(params):
        params = {key: value for key, value in _items(params) if key not in _RESERVED}
    return digest(normalise(params))


def _items(params: Any) -> Any:
    if isinstance(params, Mapping):
        return params.items()
    message = f"params is a {_type_name(type(params))}: pass a mapping of names to values, such as a dict."
    raise UnhashableParamError(message)


def register_hasher(type_: type[T], function: Callable[[T], Any]) -> None:
    """Let *function* say what identifies a value of *type_* or of a subclass.

    Parameters
    ----------
    type_ : type
        Any but what JSON holds by itself. The hasher of the nearest class in a value's MRO is used, before every rule
        of the library; a second call for the same type replaces the first.
    function : callable
        Takes the value, returns what stands for it (plain values, arrays, whatever has a form). That is normalised and
        hashed as it is, without the type's name.

    Raises
    ------
    ValueError
        If *type_* is str, int, float, bool, NoneType, dict, list or tuple: their form is fixed.
    TypeError
        If *type_* is not a class or *function* cannot be called.

    Notes
    -----
    Safe to call from several threads. It holds for this process: processes that hash must each call it. Call it before
    functions and models with such parameters are defined.

    Examples
    --------
    >>> class Mesh:
    ...     def __init__(self, cells):
    ...         self.cells = cells
    >>> register_hasher(Mesh, lambda mesh: {"cells": mesh.cells})
    >>> hash_params({"mesh": Mesh(3)}) == hash_params({"mesh": {"cells": 3}})
    True
    """
    global _hashers
    if not isinstance(type_, type):
        raise TypeError(f"register_hasher needs a class, not {type_!r}.")
    if not callable(function):
        raise TypeError(f"register_hasher needs a function for {_type_name(type_)}, not {function!r}.")
    if type_ in _JSON_TYPES:
        message = f"The form of {type_.__name__} is fixed: keys in existing tables depend on it. Register a subclass."
        raise ValueError(message)
    with _hashers_lock.held():
        _hashers = {**_hashers, type_: function}  # replaced, not changed: readers take no lock


def has_hasher(type_: type) -> bool:
    """Whether `register_hasher` was told what identifies a value of *type_*."""
    return hasher_of(type_) is not None


def hasher_of(type_: type) -> Callable[[Any], Any] | None:
    """Return what `register_hasher` was given for *type_* or the nearest of its bases."""
    if not _hashers:
        return None
    return next((_hashers[class_] for class_ in type_.__mro__ if class_ in _hashers), None)


def hashers_of(types: Iterable[type]) -> dict[type, Callable[[Any], Any]]:
    """Return what `register_hasher` was given for *types* and their bases, for another process."""
    return {class_: _hashers[class_] for type_ in types for class_ in type_.__mro__ if class_ in _hashers}


def adopt_hashers(hashers: Mapping[type, Callable[[Any], Any]]) -> None:
    """Register what came from another process, but for types that have a hasher here."""
    for type_, function in hashers.items():
        if type_ not in _hashers:
            register_hasher(type_, function)


def normalise(value: Any, number: Number = rounded, *, name: str = "params") -> Any:
    """Bring *value* into its normal form.

    Parameters
    ----------
    value : object
        Anything that has a form; it is not changed.
    number : callable, optional
        Applied to each float outside arrays, pandas columns and dict keys: `rounded`, `rounded_apart` or `exact`.
    name : str, optional
        What the text of an error calls *value*.

    Raises
    ------
    UnhashableParamError
        If *value*, or something in it, has no stable form, or if it contains itself.
    """
    try:
        return _normal(value, number)
    except NoForm as refused:
        message = f"{name}{''.join(reversed(refused.steps))} {refused}"
    except RecursionError:
        message = (
            f"{name} contains itself or is nested too deeply to be hashed. Pass a flatter value, or "
            f"say what identifies the outermost type with entropic.register_hasher(type, function)."
        )
    raise UnhashableParamError(message)


def canonical(normal_form: Any) -> str:
    """Return the JSON text of a normal form: compact, ASCII, keys sorted.

    Raises
    ------
    UnhashableParamError
        If it is nested too deeply or holds an integer too long to be written out.
    """
    try:
        return _encode(normal_form)
    except RecursionError:
        message = "The parameters are nested too deeply to be hashed: pass a flatter value."
    except ValueError:
        message = "The parameters hold an integer of more digits than Python writes: pass it as text, such as hex(n)."
    raise UnhashableParamError(message)


def digest(normal_form: Any) -> str:
    """Return the key of a normal form: the first 16 hex digits of the SHA-256 of its JSON text."""
    return hashlib.sha256(canonical(normal_form).encode()).hexdigest()[:16]


def _normal(value: Any, number: Number) -> Any:
    kind = type(value)
    if kind is float:
        return number(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return _mapping(value, number)
    if kind is list or kind is tuple:
        return _sequence(value, number)
    return _other(value, number)


def _mapping(value: dict[Any, Any], number: Number) -> dict[Any, Any]:
    form: dict[Any, Any] = {}
    key: Any = None
    try:
        for key, item in value.items():
            if type(key) is not str:
                return _with_plain_keys(value, number)
            # The first branch is _normal's, without the call: most parameters are scalars.
            form[key] = item if type(item) in _PLAIN else _normal(item, number)
    except NoForm as refused:
        if type(key) is str:
            refused.steps.append(f"[{key!r}]")
        raise
    return form


def _with_plain_keys(value: dict[Any, Any], number: Number) -> dict[Any, Any]:
    keys = [_key(key) for key in value]
    # Numbers stay numbers, since JSON then sorts them as such. Text and NaN do not sort among them.
    if any(type(key) is str or key != key for key in keys):
        keys = [key if type(key) is str else _encode(key) for key in keys]
    form: dict[Any, Any] = {}
    for key, (given, item) in zip(keys, value.items(), strict=True):
        if key in form:
            message = (
                f"has two keys that are the same as text, one of them {given!r}: a hash could not tell them apart. "
                f"{_KEY_ADVICE}"
            )
            raise NoForm(message)
        with _at(f"[{given!r}]"):
            form[key] = _normal(item, number)
    return form


def _key(key: Any) -> str | int | float:
    if isinstance(key, _loaded("numpy", "generic")) and key.dtype.kind in "biuf":
        key = key.item()
    if isinstance(key, str | int | float):
        return key if type(key) is bool else _builtin(key)
    message = (
        f"has the key {key!r}, a {_type_name(type(key))}: keys are strings, numbers or bools. {_KEY_ADVICE}"
    )
    raise NoForm(message)


def _sequence(value: Any, number: Number) -> list[Any]:
    form: list[Any] = []
    try:
        for item in value:
            form.append(_normal(item, number))
    except NoForm as refused:
        refused.steps.append(f"[{len(form)}]")
        raise
    return form


def _other(value: Any, number: Number) -> Any:
    hasher = hasher_of(type(value))
    if hasher is not None:
        return _normal(hasher(value), number)
    if isinstance(value, Enum):
        with _at(".value"):
            return _normal(value.value, number)
    if isinstance(value, str | int | float):
        return _normal(_builtin(value), number)
    if isinstance(value, _loaded("numpy", "generic")):
        return _numpy_scalar(value, number)
    if isinstance(value, _loaded("numpy", "ndarray")):
        return _numpy_array(value)
    if type(value).__module__.partition(".")[0] == "pandas":
        form = _pandas(value, number)
        if form is not None:
            return form
    if isinstance(value, bytes):
        return bytes.__repr__(value)  # the text that str() gives, without its BytesWarning
    if isinstance(value, _TEXTUAL):
        return str(value)
    fields = _field_names(value)
    if fields is not None:
        return _object(value, fields, number)
    if isinstance(value, set | frozenset):
        with _at("{...}"):
            return {"__set__": sorted((_normal(item, number) for item in value), key=canonical)}
    if isinstance(value, dict):
        return _mapping(value, number)
    if isinstance(value, list | tuple):
        return _sequence(value, number)
    return _text(value)


def _builtin(value: str | int | float) -> str | int | float:
    # Through the base class: a subclass may have its own idea of str(), int() or float().
    if isinstance(value, str):
        return str.__str__(value)
    return int.__int__(value) if isinstance(value, int) else float.__float__(value)


def _field_names(value: Any) -> list[str] | None:
    class_ = type(value)
    if isinstance(value, _loaded("pydantic.main", "BaseModel")):
        return list(class_.model_fields)
    marker = "__dataclass_fields__" if dataclasses.is_dataclass(value) else "__attrs_attrs__"
    if not hasattr(class_, marker):
        return None
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else class_.__attrs_attrs__
    names = [field.name for field in fields]
    if marker not in vars(class_):
        # A subclass without the decorator: what it added is no field, and would not count.
        added = sorted(set(getattr(value, "__dict__", ())) - set(names))
        if added:
            raise _refuse(value, f"whose attribute {added[0]!r} is not a field, so it would not count")
    return names


def _object(value: Any, fields: list[str], number: Number) -> dict[str, Any]:
    form: dict[str, Any] = {}
    for name in fields:
        if hasattr(value, name):  # a field without default that nothing set is absent
            with _at(f".{name}"):
                form[name] = _normal(getattr(value, name), number)
    tagged = {"__object__": _type_name(type(value)), "fields": form}
    if isinstance(value, _loaded("pydantic.main", "BaseModel")) and value.model_extra:
        tagged["extra"] = _mapping(value.model_extra, number)
    return tagged


def _text(value: Any) -> str:
    class_ = type(value)
    if class_.__str__ is _DEFAULT_STR:
        raise _refuse(value, "whose str() does not say what it holds")
    if any(hasattr(class_, name) for name in ("__len__", "__iter__", "__array__")):
        raise _refuse(value, "a container or array whose str() may leave elements out")
    if class_.__module__.startswith("numpy.random"):
        raise _refuse(value, "whose str() does not show its state; pass the seed instead")
    text = str(value)
    if _ADDRESS.search(text):
        raise _refuse(value, "whose str() shows a memory address")
    return text


def _numpy_scalar(value: Any, number: Number) -> Any:
    kind = value.dtype.kind
    if kind == "V" or value.dtype.char in "gG":
        advice = "use a dict or an array" if kind == "V" else "convert it to float64 or complex128"
        raise _refuse(value, f"which has no equal among Python's scalars; {advice}")
    item = value.item()
    # Beyond microseconds or a datetime's range NumPy gives a bare count, and None for NaT: 5 ns is not the number 5.
    if kind in "mM" and not isinstance(item, datetime.date | datetime.timedelta):
        return {f"__{value.dtype.name}__": int(value.view("i8"))}
    if isinstance(item, _loaded("numpy", "generic")):
        raise _refuse(value, "which has no equal among Python's scalars")
    return _normal(item, number)


def _numpy_array(value: Any) -> dict[str, Any]:
    if type(value) is _loaded("numpy", "ndarray"):
        return array_form(value)
    if type(value) is not _loaded("numpy.ma", "MaskedArray"):
        reason = (
            "a subclass of ndarray, which may carry more than its elements; if not, pass numpy.asarray(value)"
        )
        raise _refuse(value, reason)
    numpy = sys.modules["numpy"]
    parts = value.data, numpy.ma.getmaskarray(value), numpy.asarray(value.fill_value)
    return {"__masked__": [array_form(numpy.asarray(part)) for part in parts]}


def array_form(value: Any) -> dict[str, Any]:
    """Return the tagged form of a `numpy.ndarray` whose elements are no objects."""
    dtype, shape = value.dtype, list(value.shape)
    if dtype.names is not None:  # field by field, since the padding between fields holds anything
        return {"__structured__": [[name, array_form(value[name])] for name in dtype.names], "shape": shape}
    if dtype.char in "gG":
        raise _refuse(value, f"of dtype {dtype}, whose bytes differ between machines; convert it to float64")
    # Foreign dtypes (bfloat16 and its like) share one dtype.str, so the digest could not tell them apart.
    if dtype.kind not in _ARRAY_KINDS or dtype.type.__module__ != "numpy":
        raise _refuse(
            value, f"of dtype {dtype}, whose bytes are not its elements; use another dtype or a list"
        )
    flat = sys.modules["numpy"].ascontiguousarray(value).reshape(-1)
    octets = flat.view("u1") if flat.nbytes else b""
    return {"__ndarray__": hashlib.sha256(octets).hexdigest(), "dtype": dtype.str, "shape": shape}


def _pandas(value: Any, number: Number) -> dict[str, Any] | None:
    pandas = sys.modules["pandas"]
    if value is pandas.NA or value is pandas.NaT:
        return {"__missing__": str(value)}
    if isinstance(value, pandas.Period):  # 00:00 may be an hour or a minute
        return {"__period__": str(value), "freq": value.freqstr}
    if isinstance(value, pandas.Interval):
        return {"__interval__": _sequence([value.left, value.right, value.closed], number)}
    if isinstance(value, pandas.Index):
        return _index(value, number)
    if isinstance(value, pandas.Series):
        form = {"__series__": _column(value), "name": _normal(value.name, number)}
    elif isinstance(value, pandas.DataFrame):
        columns = []
        for place, label in enumerate(value.columns):
            with _at(f"[{label!r}]"):
                columns.append(_column(value.iloc[:, place]))
        form = {"__dataframe__": columns, "columns": _index(value.columns, number)}
    else:
        return None
    with _at(".index"):
        form["index"] = _index(value.index, number)
    if value.attrs:
        with _at(".attrs"):
            form["attrs"] = _normal(value.attrs, number)
    return form


def _index(value: Any, number: Number) -> dict[str, Any]:
    names = _sequence(value.names, number)
    if not isinstance(value, sys.modules["pandas"].MultiIndex):
        return {"__index__": _column(value), "names": names}
    return {"__index__": [_column(value.get_level_values(i)) for i in range(value.nlevels)], "names": names}


def _column(values: Any) -> dict[str, Any]:
    dtype = values.dtype
    if isinstance(dtype, sys.modules["pandas"].CategoricalDtype):
        categories = _index(dtype.categories, exact)
        return {
            "__categories__": categories,
            "ordered": bool(dtype.ordered),
            "codes": array_form(values.array.codes),
        }
    if isinstance(dtype, _loaded("numpy", "dtype")) and dtype.kind != "O":
        return array_form(values.to_numpy())
    # A digest, not the elements: a form in which floats stand unrounded would not be its own normal form.
    text = canonical(_sequence(values, exact))
    return {"__column__": hashlib.sha256(text.encode()).hexdigest(), "dtype": str(dtype)}


def _loaded(module: str, name: str) -> Any:
    # No value is of a class whose module is not loaded (or not yet to the end, in another thread).
    return getattr(sys.modules.get(module), name, ())


@contextmanager
def _at(step: str) -> Iterator[None]:
    try:
        yield
    except NoForm as refused:
        refused.steps.append(step)
        raise


def _refuse(value: Any, reason: str) -> NoForm:
    class_ = type(value)
    message = (
        f"is a {_type_name(class_)}, {reason}: it has no stable hash. Pass plain values that say the same, or tell "
        f"what identifies it with entropic.register_hasher({class_.__qualname__}, function)."
    )
    return NoForm(message)


def _type_name(class_: type) -> str:
    return f"{class_.__module__}.{class_.__qualname__}"
