"""A value as JSON for a row, or as an HDF5 file where there are arrays in it or it is large.

What comes back is equal, and of the same type, in any process: plain values, arrays and what has a codec, in lists,
tuples, sets and dicts. Objects of classes without a codec are refused, and nothing is pickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from entropic.errors import DecodeError
from entropic.values.array_digests import content_digest
from entropic.values.codecs import as_file
from entropic.values.documents import decode, encode
from entropic.values.formats import FORMATS
from entropic.values.inline import refuse_classes, reworded
from entropic.values.untrusted import require_regular

__all__ = ["INLINE", "SUFFIX", "Payload", "load_payload", "parse_payload", "payload_of"]

INLINE = 1 << 16  # characters; a longer text is kept in a file
SUFFIX = ".value.h5"


@dataclass(frozen=True)
class Payload:
    """A value, ready to be written.

    Attributes
    ----------
    text : str
        JSON, ASCII; where there are arrays it refers to them by name.
    arrays : dict
        By name.
    """

    text: str
    document: Any = field(repr=False)
    arrays: dict[str, Any] = field(repr=False)

    @property
    def is_inline(self) -> bool:
        """Whether the text is all, and short enough for a row."""
        return not self.arrays and len(self.text) <= INLINE

    def save(self, path: str) -> None:
        """Write it to a file."""
        write: Any = FORMATS[SUFFIX].save
        write((self.document, self.arrays), path)

    def content(self) -> str:
        """Return a digest of what it holds, however that is written, and in whatever order dicts have their keys."""
        return content_digest(self.document, self.arrays)


def payload_of(value: Any) -> Payload:
    """Return *value* as it is written.

    Raises
    ------
    TypeError
        If there is something in it that does not come back equal in every process. The text says where.
    """
    try:
        document, arrays = encode(value, as_file)
        text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise TypeError("cannot store a value that contains itself, or is nested too deeply") from None
    except TypeError as error:
        raise TypeError(_with_codec(str(error))) from error
    refuse_classes(text)
    return Payload(text, document, arrays)


def _with_codec(text: str) -> str:
    said, found, way = text.partition("say how such a value is written and read, with ")
    return (
        f"{reworded(text)}; or {found}{way.partition(', and return it by itself')[0]}"
        if found
        else reworded(said)
    )


def parse_payload(text: str) -> Any:
    """Return the value of a text that is all.

    Raises
    ------
    DecodeError
        If it is nothing that this release writes.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"the text is no JSON ({error}): {text:.80}") from error
    return decode(document)


def load_payload(path: str) -> Any:
    """Return the value that `Payload.save` wrote; raise what HDF5 makes of damage.

    Raises
    ------
    DecodeError
        If it is no such file, or leads to other files.
    """
    require_regular(path)
    return FORMATS[SUFFIX].load(path)
