"""What is left of a returned value that no format holds: a document of what can be written, and text of the others.

It is for people, who would lose what was computed: nothing says that it comes back as it was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Set
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any

from entropic.display.text import printed
from entropic.values.documents import Encoder, is_plain_array, tagged
from entropic.values.kinds import CODECS
from entropic.values.objects import class_name, state_of
from entropic.values.refusals import place_of

__all__ = ["encode_rest"]

_LEVELS = (50, 12, 3)  # of a value that is nested too deeply: the first that the stack has room for
_NESTED = "what contains itself, or is nested too deeply"
_SINGLE = frozenset({type(None), bool, int, float, str, *(kind for kind, _, _ in CODECS.values())})


def encode_rest(value: Any, files: Callable[[Any], Any]) -> tuple[Any, dict[str, Any], list[str]]:
    """Return what `encode` would of the parts of *value* that can be written, and what was in the way of the others.

    Of a value that contains itself, or is nested too deeply, each container is written once: what is deeper than some
    levels goes on beside the value, and what was written before is named by its place.
    """
    try:
        encoder = _RestEncoder(files)
        return encoder.encode(value), encoder.arrays, encoder.left_out
    except RecursionError:
        pass
    for levels in _LEVELS[:-1]:
        try:
            return _levelled(value, files, levels)
        except RecursionError:
            continue  # this was called from deep down
    return _levelled(value, files, _LEVELS[-1])


def _levelled(value: Any, files: Callable[[Any], Any], levels: int) -> tuple[Any, dict[str, Any], list[str]]:
    """Return what `encode_rest` does, of containers within so many levels, and of what is below beside them."""
    encoder = _RestEncoder(files, levels=levels)
    first = encoder.encode(value)
    below: list[Any] = []
    for part in encoder.below:  # which grows meanwhile
        below.append(encoder.encode_below(part, len(below)))
    return {"value": first, "below": below}, encoder.arrays, encoder.left_out


class _RestEncoder(Encoder):
    """Writes what no document holds as text, and the parts of it as far as they go.

    Parameters
    ----------
    levels : int
        To which containers are written, each once; 0 for any.

    Attributes
    ----------
    below : list
        Containers that are too deep where they stand.
    """

    def __init__(self, files: Callable[[Any], Any], *, is_inside: bool = False, levels: int = 0) -> None:
        super().__init__(files, is_inside=is_inside)
        self._levels = levels
        self._places: dict[int, tuple[Any, str]] = {}  # with the value, whose id is another's once it is gone
        self._begun: set[int] = set()
        self.below: list[Any] = []

    def encode(self, value: Any) -> Any:
        if self._levels and (elsewhere := self._elsewhere(value)) is not None:
            if _NESTED not in self.left_out:
                self.left_out.append(_NESTED)
            return tagged("left out", [_NESTED, f"see {elsewhere}"])
        return self._encode_or_rest(value)

    def encode_below(self, value: Any, number: int) -> Any:
        """Return the document of a container that was too deep where it stood."""
        self._path = ["below", str(number)]
        return self._encode_or_rest(value)

    def _encode_or_rest(self, value: Any) -> Any:
        path = list(self._path)
        try:
            return super().encode(value)
        except TypeError as error:
            self._path = path
            self.left_out.append(place_of(path) or f"the {type(value).__qualname__}")
            return self._rest(value, error)

    def _elsewhere(self, value: Any) -> str | None:
        """Return where else a container is to be written, or was; None of one that is to be written here."""
        if not _is_container(value):
            return None
        if id(value) in self._places:
            return self._places[id(value)][1]
        is_deep = len(self._path) >= self._levels
        place = place_of(["below", str(len(self.below))] if is_deep else ["value", *self._path])
        self._places[id(value)] = value, place
        if not is_deep:
            return None
        self.below.append(value)
        return place

    def _rest(self, value: Any, error: Exception) -> Any:
        """Return what is left of a value that no document holds: its parts as far as they go, and its text."""
        text = _as_text(value)
        if id(value) in self._begun or (parts := _parts_left(value)) is None:
            return tagged("left out", [str(error), text])
        self._begun.add(id(value))  # it may contain itself
        try:
            return self.encode({"class": class_name(type(value)), "text": text, "parts": parts})
        finally:
            self._begun.discard(id(value))


def _is_container(value: Any) -> bool:
    """Whether a value may hold others, itself among them."""
    scalar: Any = getattr(sys.modules.get("numpy"), "generic", ())
    return type(value) not in _SINGLE and not isinstance(value, (Enum, scalar)) and not is_plain_array(value)


def _parts_left(value: Any) -> Any:
    """Return what makes up a value of a type that has no format, for what of it has one; None if that is not known."""
    array: Any = getattr(sys.modules.get("numpy"), "ndarray", ())
    if isinstance(value, array):
        return value.tolist()
    try:
        if isinstance(value, Mapping):
            return dict(value.items())
        if isinstance(value, list | tuple | Set):
            return list(value)
        is_code = isinstance(value, type | ModuleType | FunctionType)
        return None if is_code else state_of(value) or None
    except Exception:  # of a type of the user's, which may do anything
        return None


def _as_text(value: Any) -> str:
    """Return a value that no format holds as text: a frame whole, others as they print."""
    try:
        if hasattr(value, "to_csv"):
            return str(value.to_csv())
        # Of xarray, whose repr is short, all.
        return printed(value.to_dict() if hasattr(value, "to_dict") else value)
    except Exception:  # a class of the user's may do anything
        return printed(value)
