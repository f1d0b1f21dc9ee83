"""What counts as the same config.

Documents are compared by what they say, not by how they are written. What a document gives back is compared with the
config that it was made of, classes included: a document that lost something is not written.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from entropic.configs import KINDS, Config, full_name, restore
from entropic.errors import DecodeError

__all__ = ["differences", "require_readable", "shown"]


class _Nothing:
    """What stands where there is nothing: None is a value."""

    def __repr__(self) -> str:
        return "nothing"


_NOTHING = _Nothing()


def differences(one: Any, other: Any, ignore: Collection[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Return where two documents differ, as dotted paths, and what stands there.

    The order of keys does not matter, 1 is 1.0, and NaN is NaN; None is not the same as nothing.
    """
    found: dict[str, tuple[Any, Any]] = {}
    _compare("", one, other, set(ignore), found)
    return found


def _compare(path: str, one: Any, other: Any, ignore: set[str], found: dict[str, tuple[Any, Any]]) -> None:
    if path in ignore:
        return
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in [*one, *(key for key in other if key not in one)]:
            left, right = one.get(key, _NOTHING), other.get(key, _NOTHING)
            _compare(f"{path}.{key}" if path else str(key), left, right, ignore, found)
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            _compare(f"{path}[{number}]", left, right, ignore, found)
    elif not _is_same(one, other):
        found[path] = (one, other)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    return bool(one == other)


def shown(different: Mapping[str, tuple[Any, Any]], one: str = "stored", other: str = "given") -> str:
    """Return what `differences` has found as people read it; *one* and *other* say which is which."""
    return _first(
        [f"{path} ({left!r:.60} {one}, {right!r:.60} {other})" for path, (left, right) in different.items()]
    )


def _first(places: list[str]) -> str:
    return ", ".join(places[:10]) + (f" and {len(places) - 10} more" if len(places) > 10 else "")


def require_readable(config: Config, document: Mapping[str, Any]) -> None:
    """Raise DecodeError unless *document* gives *config* back."""
    try:
        back = restore(KINDS[config.kind], document)
    except DecodeError as error:
        raise DecodeError(f"{error}. Nothing was stored") from error
    if lost := list(_lost("", config, back)):
        places = [f"{path or 'it'} ({one!r:.60} would be {other!r:.60})" for path, one, other in lost]
        raise DecodeError(
            f"the {config.kind} config {config.name!r} would come back as another one: {_first(places)}. Nothing was "
            "stored: what a field holds comes back as what the field is declared with, so declare just that, as the "
            "subclass, or as a tuple"
        )


def _lost(path: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield where two values differ. Private attributes are no part of a config."""
    is_of_one_class = full_name(type(one)) == full_name(type(other))  # a notebook may have defined it again
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        yield from _lost_of_mapping(path, one, other)
    elif not is_of_one_class:
        if not _is_equal(one, other):
            yield path, one, other
    elif isinstance(one, list | tuple | deque) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _lost(f"{path}[{number}]", left, right)
    elif isinstance(one, Enum):
        yield from _lost(path, one.value, other.value)
    elif hasattr(one, "tolist"):  # arrays
        yield from _lost(path, one.tolist(), other.tolist())
    elif (parts := _parts(one)) is not None:
        yield from _lost_of_mapping(path, parts, _parts(other) or {})
    elif not (_is_equal_set(one, other) if isinstance(one, Set) else _is_equal(one, other)):
        yield path, one, other


def _lost_of_mapping(
    path: str, one: Mapping[Any, Any], other: Mapping[Any, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for key in [*one, *(key for key in other if key not in one)]:
        yield from _lost(
            f"{path}.{key}" if path else str(key), one.get(key, _NOTHING), other.get(key, _NOTHING)
        )


def _parts(value: Any) -> dict[str, Any] | None:
    """Return what an object is made of, if it is no more than that."""
    class_ = type(value)
    if hasattr(class_, "model_fields"):
        # Of pydantic; some fields may be missing if it was made without validation.
        extra = getattr(value, "__pydantic_extra__", None) or {}
        return {name: vars(value).get(name, _NOTHING) for name in class_.model_fields} | extra
    if is_dataclass(value):
        return {field.name: getattr(value, field.name, _NOTHING) for field in fields(value) if field.compare}
    by_identity: Any = object.__eq__
    if class_.__eq__ is by_identity and hasattr(value, "__dict__"):
        return dict(vars(value))
    return None


def _is_equal(one: Any, other: Any) -> bool:
    try:
        return _is_same(one, other)
    except Exception:  # a user's class may compare as it likes
        return False


def _is_equal_set(one: Any, other: Any) -> bool:
    if one == other:
        return True
    pairs = zip(sorted(one, key=repr), sorted(other, key=repr), strict=False)  # a NaN is in no other set
    return len(one) == len(other) and all(_is_equal(left, right) for left, right in pairs)
