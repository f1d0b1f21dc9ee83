"""Functions made for one model: straight code from given parameters to key and typed values, and from row to record.

They do what `Parameters.identify`, `Parameters.differences` and `RecordReader.record` do, which stay the truth: a test
holds the two side by side. The work of a loop over the columns is done once, when the code is made: which names are
given, which have defaults, in which order they stand in the key, what each kind of column needs. What is short is
written out, which takes six tenths of the time of closures; all else is in `entropic.model.shortcuts`.

The code can be seen: logged at DEBUG when it is made, and in tracebacks and debuggers as any other.
"""

from __future__ import annotations

import itertools
import linecache
import logging
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from json.encoder import encode_basestring_ascii
from typing import Any

from sqlalchemy import Dialect, Integer, inspect
from sqlalchemy.orm.instrumentation import ClassManager

from entropic.model.base import RECORDED, RESERVED
from entropic.model.coercion import is_float, kind_of
from entropic.model.parameters import Param, Parameters
from entropic.model.shortcuts import Way, reader_of, way_of
from entropic.model.tracked import TrackedDict
from entropic.process.logs import get_logger
from entropic.sql.widths import byte_limit, int_range, is_single_precision
from entropic.values.hashing import canonical, digest

__all__ = [
    "Identify",
    "MakeRecord",
    "can_make_records",
    "identify_function",
    "record_function",
    "same_function",
]

log = get_logger(__name__)

_numbers = itertools.count(1)

Identify = Callable[[dict[str, Any]], tuple[str, tuple[Any, ...]]]
"""Takes parameters; returns their key and every typed value in the order of the model, or raises."""

MakeRecord = Callable[[Sequence[Any], tuple[Any, ...], str | None], Any]
"""Takes a row, the typed values that it must have, and the path of its result; returns the record, or None."""


# From parameters to the key


def identify_function(parameters: Parameters, dialect: Dialect, names: tuple[Any, ...]) -> Identify | None:
    """Return what identifies parameters that are given by these names; None where the general way must do it."""
    params, defaults = parameters.params, parameters.defaults
    known = params.keys() | parameters.ignored | (set(RESERVED) - {"id"})
    if not all(type(name) is str and name in known for name in names):
        return None
    if any(name not in names and name not in defaults for name in params):
        return None
    scope: dict[str, Any] = {"sha256": sha256, "text": encode_basestring_ascii}
    lines = ["def identify(params):"]
    if any(params[name].contents is not None for name in params.keys() & set(names)):
        lines.append("    shared = []")
    parts: dict[str, str] = {}
    for i, (name, p) in enumerate(params.items()):
        if name not in names:
            scope[f"v{i}"] = p.default
            continue
        lines.append(f"    v{i} = params[{name!r}]")
        made, is_default = _typed(i, p, parameters, dialect, scope, lines)
        label = f",{encode_basestring_ascii(name)}:".replace("{", "{{").replace("}", "}}")
        parts[name] = f"{label}{{{made}}}"
        if name in defaults:
            lines.append(f"    p{i} = '' if {is_default} else f{parts[name]!r}")
            parts[name] = f"{{p{i}}}"
    values = "".join(f"v{i}, " for i in range(len(params)))
    if parts:
        lines.append(f"    key = f{''.join(parts[name] for name in sorted(parts))!r}")
        lines.append("    key = sha256(('{' + key[1:] + '}').encode()).hexdigest()[:16]")
    else:
        scope["key"] = digest({})
    lines.append(f"    return key, ({values})")
    function: Identify = _made("identify", lines, scope, parameters.model)
    return function


def _typed(
    i: int, p: Param, parameters: Parameters, dialect: Dialect, scope: dict[str, Any], lines: list[str]
) -> tuple[str, str]:
    """Write the lines that type value *i*; return expressions of its text, and of whether it is at its default."""
    way = way_of(parameters, p)
    scope[f"typed{i}"] = way.typed
    scope[f"default{i}"] = canonical(p.default_form) if p.name in parameters.defaults else None
    usual = _usual(i, p, dialect)
    if usual is None:
        shared = ", shared" if p.contents is not None else ""
        lines.append(f"    v{i}, t{i} = typed{i}(v{i}{shared})")
    else:
        condition, steps = usual
        lines.append(f"    if {condition}:")
        lines.extend(f"        {step}" for step in steps)
        lines += ["    else:", f"        v{i}, t{i} = typed{i}(v{i})"]
    return f"t{i}", f"t{i} == default{i}"


def _usual(i: int, p: Param, dialect: Dialect) -> tuple[str, list[str]] | None:
    """Return, of the kinds that most parameters are, when value *i* is a usual one, and what makes its text then."""
    kind: Any = p.column.type
    v, t = f"v{i}", f"t{i}"
    if not p.is_plain or (p.capacity is not None and p.capacity.is_narrow):
        return None
    if is_float(p.column):
        if is_single_precision(kind, dialect):
            return None
        # What the key has is the number rounded to 12 decimals, unless these are too few for it; -0.0 is 0.0.
        is_usual = f"type({v}) is float and abs((r{i} := round({v}, 12)) - {v}) <= 1e-9 * abs({v})"
        return is_usual, [f"{t} = repr(r{i})", f"if not {v}: {v}, {t} = 0.0, '0.0'"]
    if isinstance(kind, Integer):
        low, high = int_range(kind, dialect)
        return f"type({v}) is int and {low} <= {v} <= {high}", [f"{t} = repr({v})"]
    if kind_of(p.column) == "bool":
        return f"type({v}) is bool", [f"{t} = 'true' if {v} else 'false'"]
    limits = [n for n in (getattr(kind, "length", None), byte_limit(kind, dialect)) if n is not None]
    most = f" and len({v}) <= {min(limits)}" if limits else ""
    return f"type({v}) is str and {v}.isascii() and '\\0' not in {v}{most}", [f"{t} = text({v})"]


# From a row to the record


def can_make_records(model: type[Any]) -> bool:
    """Whether records of a model can be made without a session: only ``custom_data`` is watched."""
    mapper: Any = inspect(model)
    manager = mapper.class_manager
    return (
        type(manager) is ClassManager
        and mapper.inherits is None
        and mapper.polymorphic_on is None
        and len(manager.dispatch.load) == 1
    )


def same_function(ways: Sequence[Way]) -> Callable[[tuple[Any, ...], tuple[Any, ...]], bool] | None:
    """Return what compares typed values with others; None if they are the same where the tuples are equal."""
    checks = [(i, way.is_same) for i, way in enumerate(ways) if way.is_same is not None]
    if not checks:
        return None

    def is_same(wanted: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
        for i, (one, other) in enumerate(zip(wanted, others, strict=True)):
            check = ways[i].is_same
            if not (one == other if check is None else check(one, other)):
                return False
        return True

    return is_same


def record_function(
    parameters: Parameters, attributes: Mapping[str, Any], dialect: Dialect, type_codes: Sequence[Any]
) -> MakeRecord:
    """Return what makes the record of a row.

    Parameters
    ----------
    attributes : mapping
        The column of each attribute, in the order of a row; the name, digest and size of its file follow.
    type_codes : sequence
        What the driver says of the row's columns.
    """
    mapper: Any = inspect(parameters.model)
    manager = mapper.class_manager
    scope: dict[str, Any] = {
        "Model": parameters.model,
        "new": parameters.model.__new__,
        "State": manager._state_constructor,
        "manager": manager,
        "identity": mapper._identity_class,
        "Tracked": TrackedDict,
    }
    place = {name: i for i, name in enumerate(attributes)}
    lines = [
        "def make(row, wanted, path):",
        f"    {''.join(f'x{i}, ' for i in range(len(attributes)))}_, sha256, size_bytes = row",
    ]
    ways = {name: way_of(parameters, p) for name, p in parameters.params.items()}
    # What identifies the row first: of one that is another nothing else is read.
    for name, column in sorted(attributes.items(), key=lambda one: one[0] not in ways):
        i = place[name]
        if (read := reader_of(column, dialect, type_codes[i])) is not None:
            scope[f"read{i}"] = read
            lines.append(f"    x{i} = read{i}(x{i})")
    lines.extend(_comparison(ways, place, scope))
    custom = f"x{place['custom_data']}"
    values = ", ".join(
        f"{name!r}: {'path' if name == 'result_file' else f'x{place[name]}'}" for name in place
    )
    lines += [
        f"    if type({custom}) is not dict:",
        "        return None",
        "    record = new(Model)",
        "    state = State(record, manager)",
        f"    state.key = identity, (x{place['id']},), None",
        f"    {custom} = Tracked({custom})",
        f"    {custom}._state = state",
        f"    record.__dict__ = {{'_sa_instance_state': state, {values}, "
        f"{RECORDED!r}: (path, size_bytes, sha256)}}",
        "    return record",
    ]
    function: MakeRecord = _made("make", lines, scope, parameters.model)
    return function


def _comparison(ways: dict[str, Way], place: dict[str, int], scope: dict[str, Any]) -> list[str]:
    """Write the lines that return None if a row is not what was wanted."""
    if not ways:
        return []
    if all(way.is_same is None for way in ways.values()):
        return [f"    if ({''.join(f'x{place[name]}, ' for name in ways)}) != wanted:", "        return None"]
    terms = []
    for n, (name, way) in enumerate(ways.items()):
        i = place[name]
        scope[f"is_same{i}"] = way.is_same
        terms.append(f"x{i} == w{n}" if way.is_same is None else f"is_same{i}(w{n}, x{i})")
    return [
        f"    {''.join(f'w{n}, ' for n in range(len(ways)))} = wanted",
        f"    if not ({' and '.join(terms)}):",
        "        return None",
    ]


def _made(name: str, lines: list[str], scope: dict[str, Any], model: type[Any]) -> Any:
    """Return the function that *lines* are, and show them to whoever asks."""
    source = "\n".join(lines) + "\n"
    file_name = f"<entropic: {name} of {model.__qualname__}, {next(_numbers)}>"
    linecache.cache[file_name] = (len(source), None, source.splitlines(keepends=True), file_name)
    if log.isEnabledFor(logging.DEBUG):
        for line in lines:
            log.debug("%s: %s", model.__qualname__, line)
    exec(compile(source, file_name, "exec"), scope)  # of names that are quoted, and nothing that is given
    return scope[name]
