"""A value as one text: typed JSON with the arrays in it, for a column of a database or a message.

What comes back is equal, and of the same type, in any process. So there are no objects of a user's classes, which
another process may not know, and no pickle.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from io import BytesIO
from typing import Any

from entropic.errors import DecodeError
from entropic.values.array_digests import content_digest
from entropic.values.documents import MARKER, decode, encode

__all__ = ["from_text", "is_alike", "refuse_classes", "reworded", "to_text"]

# json.dumps would make one each time.
_write = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_scan: Callable[[str, int], tuple[Any, int]] = vars(json.JSONDecoder())["scan_once"]

_LARGE = 1e18

ARRAYS = "arrays"  # marks the document beside its arrays; `encode` writes no such kind
_KINDS = (
    ("object", "an object of a class: store a dict of its fields"),
    ("member", "a member of an Enum: store its name or value"),
)


def to_text(value: Any) -> str:
    """Return *value* as ASCII text.

    Raises
    ------
    TypeError
        If there is something in it that does not come back equal in every process. The text says where.
    """
    if _is_plain(value, 3):
        return _write(value)
    try:
        document, arrays = encode(value)
        if arrays:
            document = {MARKER: ARRAYS, "value": [document, {name: _packed(a) for name, a in arrays.items()}]}
        # ASCII: what a database's character set lacks, and halves of surrogate pairs, come back all the same.
        text = _write(document)
    except RecursionError:
        raise TypeError("cannot store a value that contains itself, or is nested too deeply") from None
    except TypeError as error:
        raise TypeError(reworded(str(error))) from error
    _require_known(text, document)
    return text


def _is_plain(value: Any, depth: int) -> bool:
    """Whether `encode` would leave a value as it is, for a fraction of its time; False where that is not seen at once.

    Parameters
    ----------
    depth : int
        How many containers in each other are looked into.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is float or kind is int:
        return bool(-_LARGE < value < _LARGE)  # no NaN is
    if not depth:
        return False
    if kind is list:
        return all(_is_plain(one, depth - 1) for one in value)
    if kind is not dict or MARKER in value:
        return False
    return all(type(key) is str and _is_plain(one, depth - 1) for key, one in value.items())


def from_text(text: str) -> Any:
    """Return the value of which `to_text` made *text*.

    Raises
    ------
    DecodeError
        If it is nothing that this release writes.
    """
    if MARKER not in text:  # as most: then there is nothing in it that is not what JSON has
        try:
            value, end = _scan(text, 0)
            if end == len(text):
                return value
        except (ValueError, RecursionError, StopIteration):
            pass
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"the text is no JSON ({error}): {text:.80}") from error
    if type(document) is not dict or document.get(MARKER) != ARRAYS:
        return decode(document)
    try:
        document, arrays = document["value"]
        return decode(document, lambda name: _unpacked(arrays[name]))
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"the text has arrays that do not fit ({error}): {text:.80}") from error


def is_alike(one: Any, other: Any) -> bool:
    """Whether two values are equal, or hold the same, as arrays and NaN do."""
    try:
        if one is other or bool(one == other):
            return True
    except Exception:
        pass
    try:
        return bool(_content_of(one) == _content_of(other))
    except (TypeError, RecursionError):
        return False


def _content_of(value: Any) -> Any:
    document, arrays = encode(value)
    return content_digest(document, arrays) if arrays else json.dumps(document, sort_keys=True)


def _packed(array: Any) -> str:
    from numpy.lib.format import write_array

    octets = BytesIO()
    try:
        write_array(octets, array, version=(1, 0), allow_pickle=False)
    except ValueError:  # its fields take more than 64 kB to describe, or have names that are not Latin
        octets = BytesIO()
        write_array(octets, array, version=(3, 0), allow_pickle=False)
    return b64encode(octets.getbuffer()).decode()


def _unpacked(text: str) -> Any:
    from numpy.lib.format import read_array

    return read_array(BytesIO(b64decode(text, validate=True)), allow_pickle=False)


def reworded(text: str) -> str:
    """Say of a value what `encode` says of one that a function has returned."""
    said, _, way = text.replace("the returned value", "the value").partition(" To keep it, ")
    if not way:
        return said.replace("Return ", "Store ")
    return f"{said} Store plain values and NumPy arrays instead, in lists, tuples, sets and dicts"


def refuse_classes(text: str) -> None:
    """Raise TypeError if a document names classes of a user's, which another process may not know.

    Parameters
    ----------
    text : str
        The document as JSON without spaces.
    """
    # In a string of the user's the quotes would be escaped, and a dict with such a key is written as pairs.
    for kind, what in _KINDS:
        if f'"{MARKER}":"{kind}"' in text:
            raise TypeError(
                f"cannot store the value: it holds {what}; another process may not know the class"
            )


def _require_known(text: str, document: Any) -> None:
    refuse_classes(text)
    if f'"{MARKER}":"dict"' in text and (key := _odd_key(document)) is not None:
        raise TypeError(f"cannot store the value: the keys of a dict must be text, and one is {key!s:.200}")


def _odd_key(document: Any) -> Any:
    """Return a key, as it is written, of some dict in *document* that is no text."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            if item.get(MARKER) == "dict":
                for key, _ in item["value"]:
                    if type(key) is not str:
                        return json.dumps(key)
            waiting += item.values()
        elif type(item) is list:
            waiting += item
    return None
