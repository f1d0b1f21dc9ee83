"""What a runner returned, as output columns hold it.

It travels as JSON, which is what ``custom_data`` has of it; scalars that JSON has no word for travel as documents, too.
A column takes the value itself where it can, else what JSON has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, time
from typing import Any

from sqlalchemy import Column

from entropic.errors import UnhashableParamError
from entropic.model.coercion import Caster, is_float, kind_of
from entropic.model.refused import Refused
from entropic.values.documents import MARKER, decode

__all__ = ["no_json", "returned_output", "typed_output"]

Output = tuple[Column[Any], Caster]

_TIMES: dict[str, Any] = {"datetime": datetime, "date": date, "time": time}


def returned_output(
    output: Output, name: str, returned: Mapping[str, Any], spelled: Mapping[str, Any]
) -> Any:
    """Return what an output column holds of a name that a runner returned: as JSON, as a document, or as both.

    Raises
    ------
    Refused, ValueError, UnhashableParamError
        If it can hold neither.
    """
    if name not in spelled:
        return typed_output(output, returned[name])
    refused: Exception = Refused(no_json(spelled[name]))
    if kind_of(output[0]) != "json":
        try:
            return typed_output(output, decode(spelled[name]))
        except (Refused, ValueError, UnhashableParamError) as reason:
            refused = reason
    with suppress(KeyError, Refused, ValueError, UnhashableParamError):
        return typed_output(output, returned[name])
    raise refused


def typed_output(output: Output, value: Any) -> Any:
    """Return a value as an output column holds it; NaN is NULL, and so is an infinity where there is none."""
    column, cast = output
    if isinstance(value, float) and not math.isfinite(value):
        if value != value or not is_float(column):
            return None
        try:
            return cast(value)
        except Refused:
            return None
    if isinstance(value, str) and (kind := kind_of(column)) in _TIMES:
        value = _TIMES[kind].fromisoformat(value)  # as it travelled
    return cast(value)


def no_json(document: Any) -> str:
    """Say of what is in no JSON why it is left out."""
    return f"is a {document[MARKER]}, which JSON cannot hold"
