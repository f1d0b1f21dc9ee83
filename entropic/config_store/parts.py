"""What a run is made of, by its config and by its document, of which the classes may be unknown here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from entropic.configs import Config

__all__ = ["PARTS", "ignored_inside", "inside", "part_name", "start_of"]

PARTS = ("architecture", "task", "trainer", "datasplit")  # of a run, by which its names can be filtered


def part_name(document: Any, part: str) -> str | None:
    """Return the name of a run's part, by the run's document; None if it has none."""
    found = document.get(f"{part}_config") if isinstance(document, Mapping) else None
    return found.get("name") if isinstance(found, Mapping) else None


def start_of(document: Any) -> str | None:
    """Return the name of the run that a run starts from, by its document; None if there is none."""
    found = document.get("start_config") if isinstance(document, Mapping) else None
    return found.get("run") if isinstance(found, Mapping) else None


def inside(path: str, value: Any) -> Iterator[tuple[str, Config]]:
    """Yield the configs inside a value, the innermost first, with the path to each."""
    inner: list[tuple[str, Any]] = []
    if hasattr(type(value), "model_fields"):  # of pydantic, be it no config
        inner = [(f".{name}", getattr(value, name, None)) for name in type(value).model_fields]
    elif isinstance(value, Mapping):
        inner = [(f".{key}", one) for key, one in value.items()]
    elif isinstance(value, list | tuple):
        inner = [(f"[{number}]", one) for number, one in enumerate(value)]
    elif isinstance(value, set | frozenset):
        inner = [("[]", one) for one in value]  # without a number
    for step, one in inner:
        place = f"{path}{step}".removeprefix(".")
        yield from inside(place, one)
        if isinstance(one, Config):
            yield place, one


def ignored_inside(path: str, ignored: Collection[str]) -> frozenset[str]:
    """Return which paths of a part are ignored, where *path* leads to it; ``""`` for all of it."""
    if any(f"{path}.".startswith((f"{one}.", f"{one}[")) for one in ignored):
        return frozenset({""})
    return frozenset(one.removeprefix(f"{path}.") for one in ignored if one.startswith(f"{path}."))
