"""Notes on a run, as a user gives them by keyword: they are ``custom_data``, and none of the row's columns.

A parameter that is given so would be no part of the key and never reach the runner, and its default would run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from entropic.errors import ParameterError
from entropic.model.base import RESERVED
from entropic.model.parameters import Parameters
from entropic.values.plain import checked_custom

__all__ = ["checked_changes", "refuse_parameters"]


def refuse_parameters(parameters: Parameters, notes: Iterable[str]) -> None:
    """Raise `ParameterError` if one of the *notes* with a run has the name of a parameter."""
    for name in notes:
        if name in parameters.params:
            raise ParameterError(
                f"{name!r} is a parameter of {_title(parameters)}, and a keyword is a note on the run: give it with "
                f"the other parameters, as in {{..., {name!r}: ...}}"
            )


def checked_changes(parameters: Parameters, notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes of a record's notes as databases hold them.

    Raises
    ------
    ParameterError
        If JSON cannot hold a value, or a name is that of a column.
    """
    columns = {*parameters.names, *parameters.outputs.names, *RESERVED}
    for name in notes:
        if name in columns:
            raise ParameterError(
                f"{name!r} is a column of {_title(parameters)}, and no note on it: give the note another name; an "
                "output is set by register(..., outputs) or a run"
            )
    return checked_custom(notes)


def _title(parameters: Parameters) -> str:
    return parameters.model.__entropic__.title or parameters.model.__name__
