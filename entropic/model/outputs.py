"""What a runner returned, as output columns hold it.

It travels as JSON, which is what ``custom_data`` has of it; scalars that JSON has no word for travel as documents, too.
A column takes the value itself where it can, else what JSON has.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from types import MappingProxyType
from typing import Any

from sqlalchemy import Column, Dialect

from entropic.errors import ParameterError, UnhashableParamError
from entropic.model.coercion import Caster, caster, is_float, kind_of
from entropic.model.refused import Refused
from entropic.process.logs import get_logger
from entropic.values.documents import MARKER, decode, know
from entropic.values.plain import non_finite

__all__ = ["REMARK", "Outputs"]

log = get_logger(__name__)

REMARK = "__remark__"  # key of what a runner returns: a sentence for the log, which a sweep says once

_Output = tuple[Column[Any], Caster]

_REFUSALS = (Refused, ValueError, UnhashableParamError)
_TIMES: dict[str, Any] = {"datetime": datetime, "date": date, "time": time}


class Outputs:
    """The output columns of one model, on one dialect.

    Parameters
    ----------
    model : str
        Its name, for people.
    columns : mapping
        By attribute.
    others : collection of str
        Names of columns that are no outputs.
    """

    def __init__(
        self, model: str, columns: Mapping[str, Column[Any]], dialect: Dialect, others: Collection[str]
    ) -> None:
        self.names = list(columns)
        self._model = model
        self._columns = {name: (column, caster(column, dialect)) for name, column in columns.items()}
        self._others = others
        know(one for column in columns.values() if (one := getattr(column.type, "enum_class", None)))

    def nulls(self) -> dict[str, Any]:
        """Return every output as NULL: what a row has that a re-run fills no more."""
        return dict.fromkeys(self.names)

    def split_returned(
        self,
        returned: Mapping[str, Any],
        told: set[str] | None = None,
        spelled: Mapping[str, Any] = MappingProxyType({}),
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Part what a runner returned into outputs, typed, and the rest, for ``custom_data``.

        NaN is NULL, and so is an infinity where the database has none. What a column or JSON cannot hold is left out
        with a WARNING that names it: a finished run is not lost for a metric.

        Parameters
        ----------
        told : set of str, optional
            The names that were warned of already, as in a sweep, where once is enough; the new ones are added.
        spelled : mapping
            The documents of scalars that JSON has no word for.
        """
        outputs: dict[str, Any] = {}
        rest: dict[str, Any] = {}

        def tell(name: str, reason: str) -> None:
            log.log(logging.DEBUG if told and name in told else logging.WARNING, "%s", reason)
            if told is not None:
                told.add(name)

        for name in {**returned, **spelled}:
            value = returned.get(name)
            if name == REMARK:
                tell(name, str(value))
            elif name in self._columns:
                try:
                    outputs[name] = _returned(self._columns[name], name, returned, spelled)
                except _REFUSALS as reason:
                    tell(name, f"{self._model}.{name}, returned by the runner, is left out: it {reason}")
            elif name in self._others:
                tell(name, f"{name!r}, returned by the runner, is left out: it is no output of {self._model}")
            elif name not in returned:
                tell(name, f"{name!r}, returned by the runner, is left out: it {_no_json(spelled[name])}")
            elif (path := non_finite(value)) is not None:
                tell(name, f"{name!r}, returned by the runner, is left out: {path} is NaN or infinite")
            else:
                rest[name] = value
        return outputs, rest

    def split_given(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Part values that a user gives into outputs, typed, and the rest.

        Raises
        ------
        ParameterError
            If a column cannot hold its value.
        """
        outputs = {}
        for name in values.keys() & self._columns.keys():
            try:
                outputs[name] = _typed(self._columns[name], values[name])
            except _REFUSALS as reason:
                raise ParameterError(f"{self._model}.{name} {reason}") from None
        return outputs, {name: value for name, value in values.items() if name not in outputs}


def _returned(output: _Output, name: str, returned: Mapping[str, Any], spelled: Mapping[str, Any]) -> Any:
    """Return what an output column holds of a name that a runner returned: as JSON, as a document, or as both.

    Raises
    ------
    Refused, ValueError, UnhashableParamError
        If it can hold neither.
    """
    if name not in spelled:
        return _typed(output, returned[name])
    refused: Exception = Refused(_no_json(spelled[name]))
    if kind_of(output[0]) != "json":
        try:
            return _typed(output, decode(spelled[name]))
        except _REFUSALS as reason:
            refused = reason
    with suppress(KeyError, *_REFUSALS):
        return _typed(output, returned[name])
    raise refused


def _typed(output: _Output, value: Any) -> Any:
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


def _no_json(document: Any) -> str:
    """Say of what is in no JSON why it is left out."""
    return f"is a {document[MARKER]}, which JSON cannot hold"
