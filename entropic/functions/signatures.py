"""A function's signature as a table, and the way from a call to parameters and back.

Each parameter is a typed column, and its default is the key default, so that a call by position, by keyword or with
arguments left out is one run. What cannot be kept apart by its parameters alone is refused: methods, which depend on
their object, and closures, which depend on where they were made.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import os
import sys
import types
import typing
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NoReturn

from entropic.display.hints import did_you_mean
from entropic.errors import ParameterError
from entropic.model.annotations import (
    UNREADABLE,
    Kind,
    Unsupported,
    bare,
    hints_of,
    kind_of,
    members_of,
    shown,
)
from entropic.model.base import (
    HIDING,
    JSON_DEFAULT,
    TYPED_CONTENTS,
    Base,
    CallBase,
    ModelOptions,
    output,
    param,
    reserved_of,
)
from entropic.model.contents import contents_of
from entropic.sql.limits import free_name
from entropic.values.closures import UNDEFINED, closure_of, varying_in
from entropic.values.hashing import NoForm, has_hasher
from entropic.values.objects import shape_of
from entropic.values.parameter_documents import Documents

__all__ = [
    "COLUMN_BYTES",
    "TAKEN",
    "Arguments",
    "classes_in",
    "derive_model",
    "error_of",
    "kind_of_output",
    "kinds_of",
    "require_function",
    "returned",
    "returned_classes",
    "table_name_of",
]

NAME_BYTES = 40  # of a function's name in its table's; with the digest, SQL's identifiers end at 63 or 64
COLUMN_BYTES = 60

TAKEN = frozenset({*reserved_of(CallBase), *HIDING})
"""Names that no column of a function's can have: every record has something of these names."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_FOREIGN = frozenset({*sys.stdlib_module_names, "numpy", "pandas", "pydantic", "xarray"} - {"__main__"})


class Arguments:
    """How calls of one function become parameters, and parameters a call.

    Parameters
    ----------
    kinds : mapping
        What the parameters are; those that it leaves out reach the function, and identify nothing.

    Attributes
    ----------
    names : tuple of str
        Of the parameters that identify a call.
    """

    def __init__(self, function: Callable[..., Any], kinds: Mapping[str, Kind]) -> None:
        # Without annotations: this goes to workers.
        parameters = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values()]
        self.signature = inspect.Signature(parameters)
        self.names = tuple(kinds)
        self._name = function.__name__
        self._order = tuple(self.signature.parameters)
        self._positional = tuple(p.name for p in parameters if p.kind in _POSITIONAL)
        self._by_keyword = frozenset(p.name for p in parameters if p.kind != p.POSITIONAL_ONLY)
        self._positional_only = frozenset(self._positional) - self._by_keyword
        self._required = frozenset(p.name for p in parameters if p.default is p.empty)
        self._paths = {name: path for name, kind in kinds.items() if (path := _path_class(kind)) is not None}

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a call.

        Raises
        ------
        TypeError
            As Python does, if the arguments do not fit the signature.
        """
        params = dict(zip(self._positional, args, strict=False))
        count = len(params) + len(kwargs)
        params.update(kwargs)
        # What Signature.bind() does, for a tenth of its time.
        is_fitting = (
            len(args) <= len(self._positional)
            and len(params) == count
            and self._by_keyword.issuperset(kwargs)
            and self._required.issubset(params)
        )
        if not is_fitting:
            self._refuse(args, kwargs)
        return self._with_paths(params) if self._paths else params

    def _with_paths(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return parameters with the text of a path as the path has it: `./a` is `a`."""
        texts = {
            name: self._path_text(name, path, params[name])
            for name, path in self._paths.items()
            if name in params
        }
        return {**params, **texts}

    def _path_text(self, name: str, path: type[PurePath], value: Any) -> Any:
        if has_hasher(path):
            raise ParameterError(
                f"{self._name}.{name} is kept by the text of its paths, and since {self._name} was memoized "
                f"register_hasher was told what else identifies a {path.__name__}: tell it before"
            )
        return _text_of_path(path, value)

    def _refuse(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoReturn:
        """Raise what Python would, in its words, and say what may have been meant."""
        unknown = next((name for name in kwargs if name not in self.signature.parameters), None)
        hint = "" if unknown is None else did_you_mean(unknown, self.signature.parameters)
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{self._name}() {error}{hint or '.'} It is {self._name}{self.signature}"
            ) from None
        raise RuntimeError("unreachable")

    def bind_named(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a call whose arguments are all given by name; unknown names are left in.

        Raises
        ------
        ParameterError
            If an argument is missing.
        """
        if missing := [
            name for name in self.signature.parameters if name in self._required.difference(named)
        ]:
            was, has = ("was", "has") if len(missing) == 1 else ("were", "have")
            unknown = next((name for name in named if name not in self.signature.parameters), None)
            meant = (
                "" if unknown is None else f" {unknown!r} was{did_you_mean(unknown, missing) or ' given.'}"
            )
            raise ParameterError(
                f"{self._name} needs {', '.join(map(repr, missing))}, which {was} not given and {has} no default."
                f"{meant} It has: {', '.join(self.signature.parameters)}."
            )
        return self._with_paths(dict(named))

    def call(self, function: Callable[..., Any], params: Mapping[str, Any]) -> Any:
        """Call *function* with what a runner gets."""
        arguments = {name: params[name] for name in self._order if name in params}
        for name, path in self._paths.items():
            if arguments[name] is not None:
                arguments[name] = path(arguments[name])  # the column holds its text
        # By position as far as that goes, as inspect.BoundArguments has it, for a fifth of its time.
        by_position = []
        for name in self._positional:
            if name in arguments:
                by_position.append(arguments.pop(name))
            elif self._positional_only.isdisjoint(arguments):
                break
            else:  # what comes after it can be given by position only
                by_position.append(inspect.signature(function).parameters[name].default)
        return function(*by_position, **arguments)


def _path_class(kind: Kind) -> type[PurePath] | None:
    class_ = kind.annotation
    is_path = isinstance(class_, type) and issubclass(class_, PurePath)
    return class_ if is_path and not kind.is_json else None


def _text_of_path(class_: type[PurePath], value: Any) -> Any:
    """Return a text, be it of a subclass or an Enum's value, as a path has it; anything else as it is."""
    text = value.value if isinstance(value, enum.Enum) else value
    return str(class_(str.__str__(text))) if isinstance(text, str) else value


def require_function(function: Any) -> None:
    """Raise TypeError unless the parameters of *function* alone can say what it returns."""
    if inspect.ismethod(function):
        raise error_of(
            function, "it is a method, whose object is not in the key: memoize a function of its attributes"
        )
    if hasattr(function, "adopt_code"):
        raise error_of(function, f"it is memoized already: {function!r}")
    if not inspect.isfunction(function):
        is_place = isinstance(function, str | os.PathLike)
        hint = f". Options are given by name, as in @memoize(results_dir={function!r})" if is_place else ""
        raise TypeError(
            f"memoize takes a function defined with def, not {function!r}: the results are kept under its module and "
            f"name, and its annotations make the columns{hint}"
        )
    if function.__name__ == "<lambda>":
        raise error_of(function, "a lambda has no name, under which its results could be kept: use def")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise error_of(
            function, "what it returns is still to be run, and cannot be stored: return the result itself"
        )
    if inspect.isasyncgenfunction(function):
        raise error_of(
            function, "it is an asynchronous generator, which cannot be stored: return the result itself"
        )
    scope = function.__qualname__.rpartition(".")[0]
    first = next(iter(inspect.signature(function).parameters), None)
    if scope and not scope.endswith("<locals>") and first in {"self", "cls"}:
        raise error_of(
            function, "it is a method, whose object is not in the key: memoize a function of its attributes"
        )
    if _is_unnamed_wrapper(function):
        raise error_of(
            function,
            "a decorator made it, which hides the name and the signature of the function: put "
            "@functools.wraps(function) on what the decorator returns",
        )
    if (varying := varying_in(function)) is not None:
        (name, *inner), value = varying
        way = f", by which it depends on {'.'.join(inner)!r}" if inner else ""
        kind = "" if value is UNDEFINED else f", of type {type(value).__name__}"
        maker = scope.partition(".<locals>")[0]
        raise error_of(
            function,
            f"it is a closure over {name!r}{way}{kind}: another call of {maker}() may make a function of the same name "
            "that returns something else. Make it a parameter; or, if it is always the same, define it outside",
        )


def _is_unnamed_wrapper(function: Callable[..., Any]) -> bool:
    """Whether a decorator made *function* without saying of which: it takes anything, and has another to call."""
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    takes_all = kinds == {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return (
        takes_all
        and not hasattr(function, "__wrapped__")
        and any(map(callable, closure_of(function).values()))
    )


def kinds_of(function: Callable[..., Any], ignore: Iterable[str] = ()) -> dict[str, Kind]:
    """Return what each parameter of *function* is, but for those to *ignore*.

    Raises
    ------
    TypeError
        If a parameter has no annotation, one that makes no column, or a name that cannot be a column's; if there is a
        ``*args`` or ``**kwargs``; or if *ignore* names what is no parameter, or has no default. The text names all.
    """
    parameters = inspect.signature(function).parameters
    ignored = set(ignore)
    problems = [
        f"ignore= names {name!r}, which is no parameter" for name in sorted(ignored - parameters.keys())
    ]
    kinds = {}
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            problems.append(f"{parameter} takes any number of arguments: name each, with its type")
        elif name not in ignored:
            try:
                kinds[name] = _kind_of(function, parameter)
            except Unsupported as problem:
                problems.append(str(problem))
        elif parameter.default is parameter.empty:
            problems.append(f"{name!r} is ignored, so it needs a default, for calls that do not give it")
    if problems:
        raise error_of(function, "\n  ".join(["", *problems]) if len(problems) > 1 else problems[0])
    return kinds


def derive_model(
    function: Callable[..., Any], kinds: Mapping[str, Kind], *, table: str, outputs: Mapping[str, Kind]
) -> type[Base]:
    """Return the model of a function's calls.

    Raises
    ------
    SchemaError
        If another function, or a model, has the table.
    """
    parameters = inspect.signature(function).parameters
    namespace: dict[str, Any] = {
        "__module__": function.__module__ or "__main__",  # of what exec made there may be none
        "__qualname__": f"{function.__qualname__}.model",
        "__doc__": f"Calls of `{function.__qualname__}`.",
        "__tablename__": table,
        "__entropic__": ModelOptions(
            function.__name__, frozenset(parameters.keys() - kinds), is_derived=True
        ),
    }
    taken = set(reserved_of(CallBase))
    for name, kind in kinds.items():
        default = parameters[name].default
        has_default = default is not inspect.Parameter.empty
        options: dict[str, Any] = {"default": _stored(kind, default)} if has_default else {}
        if kind.is_json:
            options["info"] = {TYPED_CONTENTS: functools.partial(contents_of, kind.annotation)}
            options["info"] |= {JSON_DEFAULT: default} if has_default else {}
        nullable = kind.nullable or default is None
        namespace[name] = param(free_name(name, taken), kind.type_, nullable=nullable, **options)
    for name, kind in outputs.items():
        namespace[name] = output(free_name(name, taken), kind.type_)
    # With the digest: a module may define two functions of one name, of which the second is not the first anew.
    name = f"{function.__name__}_{_digest(function)}"
    return types.new_class(name, (CallBase,), exec_body=lambda body: body.update(namespace))


def table_name_of(function: Callable[..., Any]) -> str:
    """Return the table of a function: its name, and a digest of its module and qualified name."""
    start = function.__name__.encode()[:NAME_BYTES].decode(errors="ignore")
    return f"{start}_{_digest(function)}"


def _digest(function: Callable[..., Any]) -> str:
    full_name = f"{_module_of(function)}.{function.__qualname__}"
    return hashlib.sha256(full_name.encode()).hexdigest()[:8]


def _module_of(function: Callable[..., Any]) -> str:
    """Return the module of a function; of a script the name under which it could be imported."""
    name = function.__module__ or "__main__"
    if name not in {"__main__", "__mp_main__"}:
        return name
    main = sys.modules.get(name)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in {"__main__", "__mp_main__"}:  # python -m package.module
        return str(spec.name)
    file = getattr(main, "__file__", None)
    code = getattr(inspect.unwrap(function), "__code__", None)
    # Two scripts of one folder may have a function of one name; what a notebook defines has no file.
    if file is not None and code is not None and os.path.abspath(file) == os.path.abspath(code.co_filename):
        return Path(file).stem
    return "__main__"


# From annotations to columns


def _kind_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Kind:
    """Return what a parameter is; `Unsupported` if it makes no column."""
    name = parameter.name
    _require_column_name(name)
    if parameter.annotation is parameter.empty:
        raise Unsupported(f"the parameter {name!r} has no annotation: say what it is, as in {name}: float")
    if parameter.default is not parameter.empty and callable(parameter.default):
        raise Unsupported(
            f"the default of {name!r} is {parameter.default!r:.80}, a {type(parameter.default).__name__}, which is no "
            f"value: pass its name; or, if it changes no result, leave it out of the key, with ignore=[{name!r}]"
        )
    try:
        annotation = _evaluated(function, name, parameter.annotation)
    except UNREADABLE as error:
        is_name = isinstance(error, NameError)
        way = ". Import what it names also when it runs, not for type checkers alone" if is_name else ""
        raise Unsupported(
            f"the annotation of {name!r}, {parameter.annotation!r}, cannot be evaluated: {error}{way}"
        ) from None
    try:
        return kind_of(annotation)
    except Unsupported as reason:
        raise Unsupported(
            f"the parameter {name!r} is annotated as {shown(annotation)}, {reason}: use a type such as int, float, "
            "str, bool, datetime, an Enum, a Literal, list, dict, numpy.ndarray or a dataclass, or Annotated[..., a "
            f"SQLAlchemy type]; or, if it changes no result, leave it out of the key, with ignore=[{name!r}]"
        ) from None


def kind_of_output(name: str, annotation: Any, parameters: Collection[str]) -> Kind:
    """Return what an output is; `Unsupported` if it has another's name, or makes no column."""
    if name in parameters:
        raise Unsupported(
            f"the output {name!r} is a parameter: call one of them otherwise, such as {name + '_out'!r}"
        )
    _require_column_name(name)
    try:
        return kind_of(annotation)
    except Unsupported as reason:
        raise Unsupported(
            f"the output {name!r} is said to be {shown(annotation)}, {reason}: say float, int, str, bool or datetime"
        ) from None


def _evaluated(function: Callable[..., Any], name: str, annotation: Any) -> Any:
    """Return an annotation that may be, or hold, text."""
    # One by one: what only type checkers see, such as a return type, must not keep the others from being read.
    holder = types.SimpleNamespace(__annotations__={name: annotation})
    inner: Any = inspect.unwrap(function)  # whose annotations a decorator has copied
    namespace = {**getattr(inner, "__globals__", {}), **closure_of(inner)}
    return typing.get_type_hints(holder, globalns=namespace, include_extras=True)[name]


def _require_column_name(name: str) -> None:
    if name in reserved_of(CallBase):
        raise Unsupported(f"{name!r} is a column that every record has: call it {name + '_'!r}")
    if name in HIDING:
        raise Unsupported(f"{name!r} would hide what every record has by this name: call it {name + '_'!r}")
    if name.startswith(("__", "_sa_", "_entropic_")) or len(name.encode()) > COLUMN_BYTES:
        raise Unsupported(f"{name!r} cannot be the name of a column: use another one")


def _stored(kind: Kind, default: Any) -> Any:
    if not kind.is_json:
        if isinstance(default, PurePath):
            return str(default)
        return default if (path := _path_class(kind)) is None else _text_of_path(path, default)
    try:
        return Documents().of(default).stored
    except NoForm:
        return default  # which is refused, with its reason, where the columns' defaults are typed


def error_of(function: Callable[..., Any], what: str) -> TypeError:
    """Return the error of a function that cannot be memoized."""
    return TypeError(f"cannot memoize {function.__qualname__}: {what}")


def classes_in(annotations: Iterable[Any]) -> dict[type, bool]:
    """Return the classes in annotations: those of unions and containers, of fields, and their subclasses.

    Returns
    -------
    dict
        For each class whether it is in an annotation itself, and not of a field or a subclass.
    """
    found: dict[type, bool] = {}
    seen: list[Any] = []
    waiting = [(one, True) for one in annotations]
    while waiting:
        annotation, is_direct = waiting.pop()
        annotation = bare(annotation)
        class_ = _class_in(annotation)
        if annotation in seen or typing.get_origin(annotation) is typing.Literal:
            continue
        seen.append(annotation)
        if class_ is None or members_of(annotation) is not None or _holds_values(class_):
            waiting += [(one, is_direct) for one in typing.get_args(annotation) if one is not ...]
        if class_ is None or members_of(annotation) is not None:
            continue
        is_fields = typing.is_typeddict(class_)
        if not is_fields:
            found[class_] = found.get(class_, False) or is_direct
        if is_fields or shape_of(class_) is not None:
            waiting += [(one, is_direct and is_fields) for one in hints_of(class_).values()]
    for class_ in list(found):
        for subclass in _subclasses_of(class_):
            found.setdefault(subclass, False)
    return found


def returned_classes(function: Callable[..., Any]) -> dict[type, bool]:
    """Return the classes in the return annotation, as `classes_in` does."""
    return classes_in([returned(function)])


def _subclasses_of(class_: type) -> Iterator[type]:
    """Return the subclasses that there are of somebody's own class: what is said to be one may be any of them."""
    if class_.__module__.partition(".")[0] not in _FOREIGN:
        subclasses: list[type] = class_.__subclasses__()
        for one in subclasses:
            yield one
            yield from _subclasses_of(one)


def _holds_values(class_: type) -> bool:
    """Whether what stands in the brackets of a class is what its objects hold, as in ``list[Fit]``.

    That of an array says what its elements are, that of a type or a callable what they return.
    """
    is_abstract = class_.__module__ == "collections.abc" and class_.__name__ != "Callable"
    return (
        is_abstract
        or issubclass(class_, list | tuple | dict | set | frozenset | deque)
        or typing.is_typeddict(class_)
        or shape_of(class_) is not None
    )


def returned(function: Callable[..., Any]) -> Any:
    """Return the return annotation, `object` if there is none; None if only type checkers see what it names."""
    try:
        return bare(_evaluated(function, "return", function.__annotations__.get("return", object)))
    except UNREADABLE:  # only type checkers see it
        return None


def _class_in(annotation: Any) -> type | None:
    class_ = typing.get_origin(annotation) or annotation
    return class_ if isinstance(class_, type) and class_ is not Any else None  # which is a class since 3.11
