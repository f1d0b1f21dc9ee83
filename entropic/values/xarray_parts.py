"""xarray objects taken apart into plain values and arrays, and made again: all that netCDF would change or refuse.

As `entropic.values.pandas_parts` does it for pandas, whose indexes and arrays may be parts of these.
"""

from __future__ import annotations

from typing import Any

from entropic.values.pandas_parts import require_short

__all__ = ["make_xarray", "xarray_parts"]

Parts = dict[str, Any]


def xarray_parts(value: Any) -> Parts | None:
    """Return the parts of a Dataset or DataArray by name, and its kind; None if it is neither."""
    class_ = type(value)
    if class_.__module__.partition(".")[0] != "xarray":
        return None
    if class_.__name__ == "Dataset":
        return {"kind": "Dataset", "attrs": dict(value.attrs), **_variables(value)}
    if class_.__name__ == "DataArray":
        coords = value.coords.to_dataset()
        return {"kind": "DataArray", "name": value.name, "array": _variable(value), **_variables(coords)}
    return None


def make_xarray(parts: Parts) -> Any:
    """Return the object of which `xarray_parts` made *parts*."""
    import xarray

    variables, coords = ({n: _made_variable(one) for n, one in parts[of]} for of in ("variables", "coords"))
    made = xarray.Dataset(variables, coords).drop_indexes(parts["without_index"])
    for dimension, index, attrs in parts["levels"]:
        made = made.assign_coords(xarray.Coordinates.from_pandas_multiindex(index, dimension))
        for name, one in attrs:
            made[name].attrs.update(one)
    if parts["kind"] == "Dataset":
        return made.assign_attrs(parts["attrs"])
    dims, data, attrs = _made_variable(parts["array"])
    return xarray.DataArray(data, made.coords, dims, name=parts["name"], attrs=attrs)


def _variables(dataset: Any) -> Parts:
    import pandas

    levels: list[Any] = []
    of_levels: set[Any] = set()
    for name in dataset.dims:
        index = dataset.indexes.get(name)
        if isinstance(index, pandas.MultiIndex):
            names = [name, *index.names]
            of_levels.update(names)
            levels.append([name, index, [[one, dict(dataset[one].attrs)] for one in names]])
    variables = [[name, _variable(one.variable)] for name, one in dataset.data_vars.items()]
    coords = [[n, _variable(one.variable)] for n, one in dataset.coords.items() if n not in of_levels]
    without = [name for name, _ in coords if name in dataset.dims and name not in dataset.indexes]
    return {"variables": variables, "coords": coords, "without_index": without, "levels": levels}


def _variable(one: Any) -> list[Any]:
    import numpy

    if not isinstance(one.dtype, numpy.dtype):  # an extension array of pandas', which `values` would change
        return [list(one.dims), None, one.data, dict(one.attrs)]
    if one.dtype == object:
        return [list(one.dims), list(one.shape), one.values.ravel().tolist(), dict(one.attrs)]
    return [list(one.dims), None, one.values, dict(one.attrs)]


def _made_variable(parts: list[Any]) -> tuple[Any, Any, Any]:
    import numpy

    require_short(parts)
    dims, shape, data, attrs = parts
    if shape is not None:
        cells = numpy.empty(len(data), object)
        for number, one in enumerate(data):  # one that is a list would become a row
            cells[number] = one
        data = cells.reshape(shape)
    return dims, data, attrs
