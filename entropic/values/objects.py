"""Objects that are their fields: dataclasses, attrs classes, pydantic models, named tuples.

An object is its fields if one that is made from them has the same state. For most dataclasses and named tuples this is
so whatever their values are, which is found out once per class; for the others an object is made, and compared.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["Shape", "class_name", "shape_of", "state_of"]

_HEAP_TYPE = 1 << 9  # of type.__flags__: a class that a class statement made
_GENERATED = "<string>"  # the file of code that dataclasses and collections generate

Fields = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """How objects of one class are taken apart and made.

    Attributes
    ----------
    names : tuple of str
        The fields from which an object is made.
    make : callable
        Makes an object of the class from its fields by name, and what else there is.
    is_simple : bool
        Whether an object whose attributes are just the fields is determined by them.
    get : callable
        Returns the fields of an object by name.
    """

    names: tuple[str, ...]
    make: Callable[[Any, Fields, Fields], Any]
    is_simple: bool
    get: Callable[[Any], dict[str, Any]]

    def has_only_fields(self, value: Any) -> bool:
        """Whether nothing but the fields can make up the state of *value*."""
        return self.is_simple and getattr(value, "__dict__", _NOTHING).keys() <= {*self.names, _ALIAS}


_NOTHING: dict[str, Any] = {}
_ALIAS = "__orig_class__"  # what was called to make an object of a generic class, Box[int]: for type checkers alone
_WITHOUT_STATE: set[Any] = {typing.Generic}  # in C since 3.12
_shapes: WeakKeyDictionary[type, Shape | None] = WeakKeyDictionary()


def class_name(class_: type) -> str:
    """Return what documents call a class; a spawned process's main module is the main module."""
    module = "__main__" if class_.__module__ == "__mp_main__" else class_.__module__
    return f"{module}.{class_.__qualname__}"


def shape_of(class_: type) -> Shape | None:
    """Return how objects of *class_* are taken apart; None if they are not known to be their fields."""
    try:
        return _shapes[class_]
    except KeyError:
        shape = _shapes[class_] = _shape(class_)
        return shape


def _shape(class_: type) -> Shape | None:
    built_in = {base for base in class_.__mro__ if not base.__flags__ & _HEAP_TYPE} - {object}
    if issubclass(class_, tuple) and hasattr(class_, "_fields"):
        return _named_tuple(class_) if built_in == {tuple} else None
    if built_in - _WITHOUT_STATE:
        return None  # its fields are not all that it holds: a dict with fields
    model = getattr(sys.modules.get("pydantic.main"), "BaseModel", None)
    if model is not None and issubclass(class_, model):
        return _pydantic(class_, model)
    if "__attrs_attrs__" in dir(class_):
        return _attrs(class_)
    return _dataclass(class_) if dataclasses.is_dataclass(class_) else None


def _dataclass(class_: Any) -> Shape:
    fields = dataclasses.fields(class_)
    names = tuple(field.name for field in fields if field.init)
    # With the InitVars; absent in a subclass of one.
    every = vars(class_).get("__dataclass_fields__", _NOTHING)
    is_simple = (
        len(names) == len(fields) == len(every)
        and _is_generated(class_.__init__)
        and class_.__new__ is object.__new__
        and not hasattr(class_, "__post_init__")
        and _has_plain_access(class_)
        and {name for name, _ in _slots(class_)} <= set(names)
        and not any(_is_computed(class_, name) for name in names)
    )
    return Shape(names, _construct, is_simple, _getter(names))


def _has_plain_access(class_: Any) -> bool:
    """Whether attributes are what was set, and nothing decides what makes up an object's state."""
    setter = class_.__setattr__
    return (
        (setter is object.__setattr__ or _is_generated(setter))
        and class_.__getattribute__ is object.__getattribute__
        and not hasattr(class_, "__getattr__")
        and type(class_).__call__ is type.__call__
        and _is_generated_or(class_, "__getstate__", object)
    )


def _is_generated_or(class_: type, name: str, base: type) -> bool:
    found = getattr(class_, name)
    return found is getattr(base, name) or getattr(found, "__module__", "") == "dataclasses"


def _is_generated(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename == _GENERATED


def _is_computed(class_: type, name: str) -> bool:
    """Whether a descriptor that is no slot stands for an attribute: a property."""
    found = inspect.getattr_static(class_, name, None)
    return hasattr(found, "__set__") and not inspect.ismemberdescriptor(found)


def _named_tuple(class_: Any) -> Shape:
    names = tuple(class_._fields)
    is_simple = (
        _is_generated(class_.__new__) and class_.__init__ is object.__init__ and _has_plain_access(class_)
    )

    def get(value: Any) -> dict[str, Any]:
        return dict(zip(names, tuple.__iter__(value), strict=True))

    # With attributes of its own, which a subclass may have, it is no longer simple: they are no fields.
    is_simple = is_simple and not class_.__dictoffset__
    return Shape(names, _construct, is_simple, get)


def _attrs(class_: Any) -> Shape:
    alias = {one.name: one.alias for one in class_.__attrs_attrs__ if one.init}
    names = tuple(alias)

    def make(class_: Any, given: Fields, extra: Fields) -> Any:
        return class_(**{alias[name]: value for name, value in given.items()})

    return Shape(names, make, False, _getter(names))


def _pydantic(class_: Any, model: Any) -> Shape:
    names = tuple(class_.model_fields)
    is_simple = (
        not class_.__private_attributes__
        and class_.model_post_init is model.model_post_init
        and class_.model_construct.__func__ is model.model_construct.__func__
        and class_.__getattribute__ is object.__getattribute__
        and not any(f.alias or f.validation_alias for f in class_.model_fields.values())
    )
    return Shape(names, _construct_model, is_simple, _getter(names))


def _construct(class_: Any, given: Fields, extra: Fields) -> Any:
    return class_(**given)


def _construct_model(class_: Any, given: Fields, extra: Fields) -> Any:
    return class_.model_construct(**given, **extra)


def _getter(names: tuple[str, ...]) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {name: getattr(value, name) for name in names}


def state_of(value: Any) -> dict[str, Any]:
    """Return all that *value* holds, by name: attributes, slots, what a tuple or a pydantic model has besides.

    What a `functools.cached_property` has kept is no state, nor is the ``Box[int]`` that was called for a ``Box``.
    """
    class_ = type(value)
    state = dict(getattr(value, "__dict__", _NOTHING))
    if isinstance(value, tuple):
        state.update(zip(class_._fields, tuple.__iter__(value), strict=False))
    for name, slot in _slots(class_):
        try:
            state[name] = slot.__get__(value, class_)
        except AttributeError:
            continue  # unset
    for part in ("__pydantic_private__", "__pydantic_extra__"):
        state.update(getattr(value, part, None) or _NOTHING)
    for name in (_ALIAS, "__pydantic_fields_set__", "__pydantic_private__", "__pydantic_extra__"):
        state.pop(name, None)
    cached = functools.cached_property
    return {n: v for n, v in state.items() if not isinstance(inspect.getattr_static(class_, n, None), cached)}


def _slots(class_: type) -> Iterator[tuple[str, Any]]:
    for base in class_.__mro__:
        if not base.__module__.startswith("pydantic.") and "__slots__" in vars(base):
            for name, found in vars(base).items():
                if inspect.ismemberdescriptor(found) and name not in {"__dict__", "__weakref__"}:
                    yield name, found
