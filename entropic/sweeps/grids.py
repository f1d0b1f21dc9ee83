"""Grids of parameters, and the other shapes in which the parameter sets of a sweep are given."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from entropic.display.text import short
from entropic.errors import ParameterError

__all__ = ["ParameterSets", "expand_grid", "parameter_sets"]

ParameterSets = Iterable[Any] | Mapping[str, Iterable[Any]]
"""Dicts of parameters, a dict of lists, a frame, or the values of a single parameter."""

_TAKES = "a sweep takes dicts of parameters, [{'n': 1}, {'n': 2}], a grid of lists, {'n': [1, 2]}, or a frame"


def expand_grid(grid: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the values in *grid*, the last name varying fastest.

    Parameters
    ----------
    grid
        For each parameter the values that it takes: any iterable, a NumPy array for instance.

    Raises
    ------
    ParameterError
        If the values of a parameter are one value: a string, a dict, a frame, or not iterable. One goes into a list.

    Examples
    --------
    >>> expand_grid({"n": [1, 2], "solver": ["euler"]})
    [{'n': 1, 'solver': 'euler'}, {'n': 2, 'solver': 'euler'}]
    """
    if not isinstance(grid, Mapping):
        raise ParameterError(f"a grid maps each parameter to a list of values, but got {grid!r}")
    columns = [_values(name, values) for name, values in grid.items()]
    return [dict(zip(grid, combination, strict=True)) for combination in itertools.product(*columns)]


def _values(name: str, values: Iterable[Any]) -> list[Any]:
    if not _is_one(values):
        try:
            return list(values)
        except TypeError:
            pass
    shown = short(values)
    raise ParameterError(f"grid[{name!r}] is {shown}, not a list of values: wrap it in a list, [{shown}]")


def _is_one(values: Any) -> bool:
    """Whether *values* are one value, though they can be gone through: a dict or a frame gives only its names."""
    return isinstance(values, str | bytes | Mapping) or hasattr(values, "columns")


def parameter_sets(params: ParameterSets, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the parameter sets of a sweep.

    Parameters
    ----------
    params
        Dicts of parameters; a dict of lists, which is a grid; or a frame of pandas or polars, taken row by row.
    names : sequence of str
        All parameters that there are: if that is one, values that are no dicts are values of it.

    Raises
    ------
    ParameterError
        If it is something else.
    """
    if hasattr(params, "to_dicts"):  # of polars
        params = params.to_dicts()
    elif hasattr(params, "to_dict") and hasattr(params, "columns"):  # of pandas
        params = params.to_dict("records")
    elif isinstance(params, Mapping):
        if not any(isinstance(one, Iterable) and not _is_one(one) for one in params.values()):
            raise ParameterError(
                f"{params!r:.300} is one parameter set: {_TAKES}; for one run, call the function"
            )
        params = expand_grid(params)
    if isinstance(params, str | bytes) or not isinstance(params, Iterable):
        raise ParameterError(f"{params!r:.300} is no parameter sets: {_TAKES}")
    return _each(params, names[0] if len(names) == 1 else None)


def _each(params: Iterable[Any], single: str | None) -> Iterator[Mapping[str, Any]]:
    is_drawn = isinstance(params, Iterator)
    for number, one in enumerate(params):
        if isinstance(one, dict):
            # A generator may yield one dict again and again, and change it meanwhile.
            yield dict(one) if is_drawn else one
        elif hasattr(one, "keys"):
            yield dict(one)
        elif single is not None:
            yield {single: one}
        else:
            raise ParameterError(
                f"parameter set {number} is {one!r:.300}, which does not say whose value it is: {_TAKES}"
            )
