"""What a function or class that a function makes has of that one: what another call of the maker could make otherwise.

The results of a function are kept under its name, which is the same whatever the maker was called with; and the class
of an object is known by its name. So nothing that they reach may hang on that: of a function its closure and those of
its decorators, and, of what is defined beside it, also defaults, attributes and classes. A value does not say where it
is from; the code of the maker does.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import inspect
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from itertools import starmap
from types import CodeType
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["UNDEFINED", "closure_of", "varying_in", "varying_in_class"]

UNDEFINED: Any = object()
"""Stands for what is closed over and has no value yet."""

Trail = tuple[tuple[str, ...], Any]
"""Names that lead to a value, and the value."""
Codes = list[CodeType]

_LOCAL = ".<locals>."
_GENERATED = ("<string>", "<attrs generated")  # files of code that dataclasses and attrs generate
_CLASS_MAKERS = frozenset({*sys.stdlib_module_names, "attr", "attrs", "pydantic"})
_GIVEN = frozenset(  # to classes: abstract ones, named tuples, protocols, pydantic models
    {
        "_abc_impl",
        *("_asdict", "_field_defaults", "_fields", "_make", "_replace"),
        *("_is_protocol", "_is_runtime_protocol"),
        *("model_computed_fields", "model_config", "model_fields"),
    }
)
_CACHE = type(functools.cache(len))


def closure_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what *function* closes over; `UNDEFINED` for what has no value yet."""
    found: dict[str, Any] = {}
    if not inspect.isfunction(function):
        return found  # what a decorator was given may be no function of Python's
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            found[name] = UNDEFINED
    return found


def varying_in(function: Callable[..., Any]) -> Trail | None:
    """Return something of *function* that another call of its maker could make otherwise; None if there is nothing.

    What a decorator closes over is nothing of the kind where the function is made only once: it was given there, as
    the body was.
    """
    chain = _chain(function)
    inner = next(one for one in reversed(chain) if inspect.isfunction(one))
    search = _Search(function.__name__, set(map(id, chain)))
    found = list(search.of_closure(inner))
    if _LOCAL in inner.__code__.co_qualname:
        for one in chain:  # the defaults of the inner one are parameters, in the key or ignored
            found += _attributes_of(one) if one is inner else search.of_wrapper(one)
    return found[0] if found else None


def varying_in_class(class_: type) -> tuple[str, ...] | None:
    """Return the names that lead to something in a class that another call of its maker could make otherwise.

    Fields are nothing of the kind, nor are members of an Enum: the one have values, and the others names.
    """
    if _LOCAL not in class_.__qualname__:
        return None
    if class_ not in _varying:
        search = _Search(class_.__name__, set(map(id, class_.__mro__)))
        found = itertools.chain.from_iterable(map(search.of_object, class_.__mro__))
        _varying[class_] = next((names for names, _ in found), None)
    return _varying[class_]


_varying: WeakKeyDictionary[type, tuple[str, ...] | None] = WeakKeyDictionary()


class _Search:
    """Looks through what a function reaches.

    Parameters
    ----------
    name : str
        Of the function: where it calls itself, that has no value yet.
    seen : set of int
        The `id` of what was looked through, or is just now.
    """

    def __init__(self, name: str, seen: set[int]) -> None:
        self.name = name
        self.seen = seen

    def of_closure(self, function: Callable[..., Any]) -> Iterator[Trail]:
        """Look through what *function* closes over."""
        closure = closure_of(function)
        makers = _makers(function) if closure else []
        for name, value in closure.items():
            is_itself = value is UNDEFINED and name == self.name
            if id(value) in self.seen or is_itself or _is_special(name):
                continue
            at = next((at for at, code in enumerate(makers) if name in code.co_cellvars), len(makers))
            yield from self._of_value(name, value, makers[at:])

    def of_object(self, class_: type) -> Iterator[Trail]:
        """Look through what objects of a class have of it."""
        if _LOCAL not in class_.__qualname__:
            return
        within, looked_at = f"{class_.__qualname__}.", set[str]()
        for value in vars(class_).values():
            for function in _functions_of(value):
                if function.__code__.co_qualname.startswith(within):  # and was not generated
                    looked_at.update(function.__code__.co_freevars)
                    yield from self.of_closure(function)
        codes = _codes(class_.__qualname__, _names_of(class_))
        if codes and any(starmap(partial(_is_constant, class_), vars(class_).items())):
            read = _read(codes[0], codes[1:])
            yield from (((name,), UNDEFINED) for name in read if name not in looked_at)

    def of_wrapper(self, one: Any) -> Iterator[Trail]:
        """Look through a function that is no parameter's, or what a decorator made of one."""
        if inspect.isfunction(one):
            yield from self.of_closure(one)
            yield from self._of_defaults(one)
        elif _is_memoized(one):
            return  # where it keeps what it returns changes nothing
        elif not isinstance(one, _CACHE):
            yield (type(one).__name__,), one
        yield from _attributes_of(one)

    def _of_defaults(self, function: Any) -> Iterator[Trail]:
        defaults = function.__defaults__ or ()
        # Literals are one constant of the maker's code; a tuple with anything else is made when that runs.
        literals = [const for code in _makers(function)[:1] for const in code.co_consts]
        if defaults and not any(defaults is const for const in literals):
            count = function.__code__.co_argcount
            names = function.__code__.co_varnames[count - len(defaults) : count]
            yield from self._unseen(zip(names, defaults, strict=True))
        yield from self._unseen((function.__kwdefaults__ or {}).items())

    def _unseen(self, values: Iterable[tuple[str, Any]]) -> Iterator[Trail]:
        yield from (((name,), value) for name, value in values if id(value) not in self.seen)

    def _of_value(self, name: str, value: Any, makers: Codes) -> Iterator[Trail]:
        """Look through what the first of *makers* has as *name*; the others are around it."""
        if not makers or name in _arguments_of(makers[0]):
            yield (name,), value
            return
        code = _defined(name, makers[0])
        chain = _chain(value)
        if _imports(makers[0], name):
            return
        if inspect.isclass(value) and code is not None and code.co_qualname == value.__qualname__:
            self.seen.add(id(value))
            inside = self.of_class(value, [code, *makers])
        elif inspect.isfunction(chain[-1]) and chain[-1].__code__ is code:
            self.seen.update(map(id, chain))
            inside = itertools.chain.from_iterable(map(self.of_wrapper, chain))
        else:
            yield (name,), value
            return
        yield from (((name, *trail), found) for trail, found in inside)

    def of_class(self, class_: Any, makers: Codes) -> Iterator[Trail]:
        """Look through a class, whose body is the first of *makers*."""
        body, maker, *_ = makers
        stored = {one.argval for one in dis.get_instructions(maker) if one.opname == "STORE_ATTR"}
        looked_at: set[str] = set()
        for name, value in vars(class_).items():
            if name in stored or not (name in body.co_names or _is_usual(name, value)):
                yield (name,), value
            elif inspect.isclass(value) and value.__qualname__ == f"{class_.__qualname__}.{name}":
                looked_at.update(nested.co_freevars if (nested := _defined(name, body)) else ())
                yield from self._of_value(name, value, makers)
            for function in _functions_of(value):
                if function.__code__ in body.co_consts:
                    looked_at.update(function.__code__.co_freevars)
                    yield from self.of_closure(function)
        yield from (((name,), UNDEFINED) for name in _read(body, makers[1:]) if name not in looked_at)
        for base in class_.__bases__:
            if _LOCAL in base.__qualname__:
                if id(base) not in self.seen:
                    yield from self._of_value(base.__name__, base, makers[1:])
            elif base.__module__ not in {"builtins", "typing"} and base.__name__ not in maker.co_names:
                yield (base.__name__,), base


def _chain(value: Any) -> list[Any]:
    """Return *value* and what it wraps, outermost first."""
    chain = [value]
    while callable(chain[-1]) and not inspect.isclass(chain[-1]):
        wrapped = getattr(chain[-1], "__wrapped__", None)
        if wrapped is None or any(wrapped is one for one in chain):
            break
        chain.append(wrapped)
    return chain


def _attributes_of(one: Any) -> list[Trail]:
    own = {"cache_parameters"} if isinstance(one, _CACHE) else set()
    return [((name,), value) for name, value in vars(one).items() if not (_is_special(name) or name in own)]


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _is_memoized(value: Any) -> bool:
    return hasattr(type(value), "adopt_code")


def _functions_of(value: Any) -> Iterator[Any]:
    """Return the functions in an attribute of a class: a method, those of a property, of a decorated one the inner."""
    parts = ("__func__", "fget", "fset", "fdel", "func")
    for part in (value, *(getattr(value, part, None) for part in parts)):
        inner = _chain(part)[-1]
        if inspect.isfunction(inner):
            yield inner


def _is_usual(name: str, value: Any) -> bool:
    """Whether an attribute that its body does not write is one that Python, or what makes the class, gives it."""
    is_field = inspect.ismemberdescriptor(value) or type(value).__name__ == "_tuplegetter"
    if not (is_field or (name.startswith("_") and name.endswith("_")) or name in _GIVEN):
        return False
    return all(
        function.__code__.co_filename.startswith(_GENERATED)
        or function.__globals__.get("__name__", "").partition(".")[0] in _CLASS_MAKERS
        for function in _functions_of(value)
    )


def _is_constant(class_: type, name: str, value: Any) -> bool:
    """Whether an attribute of a class is a value that all its objects have, and no field."""
    fields = {one.name for one in dataclasses.fields(class_)} if dataclasses.is_dataclass(class_) else set()
    is_method = hasattr(type(value), "__get__") or name in fields or issubclass(class_, Enum)
    return not (is_method or _is_usual(name, value))


def _read(body: CodeType, makers: Codes) -> Iterator[str]:
    """Return what the body of a class reads of its *makers*, but for modules and the like: what it made is left."""
    for name in body.co_freevars:
        maker = next((code for code in makers if name in code.co_cellvars), None)
        if not (_is_special(name) or (maker is not None and _is_fixed(maker, name))):
            yield name


def _is_fixed(maker: CodeType, name: str) -> bool:
    return name not in _arguments_of(maker) and (_imports(maker, name) or _defined(name, maker) is not None)


def _imports(maker: CodeType, name: str) -> bool:
    """Whether what *maker* calls *name* is what it imports as that, and nothing else."""
    before = ""
    stored_after = []
    for one in dis.get_instructions(maker):
        if one.opname == "STORE_DEREF" and one.argval == name:
            stored_after.append(before)
        before = one.opname
    return stored_after in (["IMPORT_NAME"], ["IMPORT_FROM"])


def _arguments_of(code: CodeType) -> tuple[str, ...]:
    flags = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + flags]


def _defined(name: str, maker: CodeType) -> CodeType | None:
    """Return the code of the function or class that *maker* defines as *name*, if there is one only."""
    codes = [one for one in maker.co_consts if isinstance(one, CodeType)]
    named = [one for one in codes if one.co_name == name]
    found = named or [one for one in codes if one.co_name == "<lambda>"]
    return found[0] if len(found) == 1 else None


def _makers(function: Any) -> Codes:
    """Return the codes around that of *function*, innermost first; none if they are not found."""
    wanted = function.__code__
    if _LOCAL not in wanted.co_qualname:
        return []
    return _codes(wanted.co_qualname, function.__globals__, wanted)[1:]


def _codes(qualified_name: str, names: Mapping[str, Any], wanted: CodeType | None = None) -> Codes:
    """Return the code of this name, if that is the *wanted* one, and those around it; none if it is not found."""

    def around(code: CodeType) -> Codes:
        for one in code.co_consts:
            if isinstance(one, CodeType):
                if one is wanted or (wanted is None and one.co_qualname == qualified_name):
                    return [one, code]
                if found := around(one):
                    return [*found, code]
        return []

    return next(filter(None, map(around, _roots(qualified_name, names))), [])


def _names_of(class_: type) -> Mapping[str, Any]:
    return vars(sys.modules[class_.__module__]) if class_.__module__ in sys.modules else {}


def _roots(qualified_name: str, names: Mapping[str, Any]) -> Iterator[CodeType]:
    """Return codes in which that of this name may be: of its module's function or method, and of all that run."""
    first, *inner = qualified_name.partition(_LOCAL)[0].split(".")
    found = names.get(first)
    for name in inner:
        found = inspect.getattr_static(found, name, None)
    yield from (one.__code__ for one in _functions_of(found))
    frame = inspect.currentframe()
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back
