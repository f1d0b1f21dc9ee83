"""What counts as the same config: documents are compared by what they say, not by how they are written."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["differences", "shown"]


def differences(one: Any, other: Any, ignore: Collection[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Return where two documents differ, as dotted paths, and what stands there; None where one has nothing.

    The order of keys does not matter, 1 is 1.0, and NaN is NaN.
    """
    found: dict[str, tuple[Any, Any]] = {}
    _compare("", one, other, set(ignore), found)
    return found


def _compare(path: str, one: Any, other: Any, ignore: set[str], found: dict[str, tuple[Any, Any]]) -> None:
    if path in ignore:
        return
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in [*one, *(key for key in other if key not in one)]:
            _compare(f"{path}.{key}" if path else str(key), one.get(key), other.get(key), ignore, found)
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


def shown(different: Mapping[str, tuple[Any, Any]]) -> str:
    """Return what `differences` has found as people read it."""
    shown = [f"{path} ({one!r:.60} stored, {other!r:.60} given)" for path, (one, other) in different.items()]
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")
