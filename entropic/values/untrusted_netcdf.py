"""netCDF files in HDF5 that anybody may have put there: what xarray would read of them is bounded before it does so.

When it opens a file it reads all attributes, the values of dimensions, which are in variables of their names, and texts
of which some stand for what is missing.
"""

from __future__ import annotations

from typing import Any

from entropic.values.untrusted import Budget
from entropic.values.untrusted_attributes import attribute_text, require_small_attributes
from entropic.values.untrusted_hdf5 import take_dataset

__all__ = ["require_small_netcdf"]

_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"
_DECODED = ("_FillValue", "missing_value", "scale_factor", "add_offset", "units")  # to 8 bytes a value


def require_small_netcdf(file: Any, path: str, stored: int, *, is_whole: bool) -> None:
    """Raise `DecodeError` if what xarray reads of an open file, at once or on opening it, is more than it can hold."""
    import h5py

    budget = Budget(path, stored)
    require_small_attributes(file, budget)
    for name in file:
        node = file.get(name)
        # A dimension without values of its own is a dataset too, which nobody reads.
        if not isinstance(node, h5py.Dataset) or (attribute_text(node, "NAME", budget) or "").startswith(
            _NO_VARIABLE
        ):
            continue
        is_decoded = any(key in node.attrs for key in _DECODED)
        is_read = is_whole or _is_dimension(name, node, budget) or (is_decoded and node.dtype.hasobject)
        if is_read:
            take_dataset(node, budget, max(node.dtype.itemsize, 8 if is_decoded else 0))


def _is_dimension(name: str, node: Any, budget: Budget) -> bool:
    return attribute_text(node, "CLASS", budget) == "DIMENSION_SCALE" or name.startswith("phony_dim_")
