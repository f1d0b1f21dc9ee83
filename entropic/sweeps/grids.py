"""Grids of parameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from entropic.errors import ParameterError

__all__ = ["expand_grid"]


def expand_grid(grid: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the values in *grid*, the last name varying fastest.

    Parameters
    ----------
    grid
        For each parameter the values that it takes: any iterable, a NumPy array for instance.

    Raises
    ------
    ParameterError
        If the values of a parameter are a string or not iterable: a single value goes into a list.

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
    if not isinstance(values, str | bytes):
        try:
            return list(values)
        except TypeError:
            pass
    raise ParameterError(
        f"grid[{name!r}] is {values!r}, not a list of values: wrap it in a list, [{values!r}]"
    )
