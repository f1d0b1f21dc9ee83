"""pandas and xarray objects, by their own writers: parquet and netCDF.

These formats do not keep everything. So what was written is read again at once, and refused if it is not the same:
better a value that cannot be stored than one that comes back changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from entropic.extras import need

__all__ = [
    "load_csv",
    "load_dataarray",
    "load_dataset",
    "load_parquet",
    "load_series",
    "open_netcdf",
    "open_parquet",
    "save_frame",
    "save_series",
    "save_xarray",
]

_UNNAMED = "__unnamed__"  # a Series without a name, as the column of a frame
_UNITS = "entropic_time_units"  # attribute of a netCDF file: pairs of a variable, or null for the array, and its dtype


def load_csv(path: str) -> Any:
    """Return a `pandas.DataFrame`."""
    return need("pandas", "frames", "reading CSV").read_csv(path)


def load_parquet(path: str) -> Any:
    """Return a `pandas.DataFrame`."""
    need("pyarrow", "frames", "reading parquet")
    return need("pandas", "frames", "reading parquet").read_parquet(path, engine="pyarrow")


def open_parquet(path: str) -> Any:
    """Return a `pyarrow.parquet.ParquetFile`."""
    return need("pyarrow.parquet", "frames", "reading parquet").ParquetFile(path)


def save_frame(frame: Any, path: str) -> None:
    """Write a `pandas.DataFrame`; a TypeError if parquet would change it."""
    testing = need("pandas", "frames", "writing parquet").testing
    need("pyarrow", "frames", "writing parquet")
    with _refused_if_changed("pandas.DataFrame", "parquet"):
        frame.to_parquet(path, engine="pyarrow")
        back = load_parquet(path)
        testing.assert_frame_equal(back, frame, check_exact=True, check_freq=False)
        _require_same("attrs", back.attrs, frame.attrs)
        for place, label in enumerate(frame.columns):
            _require_same_objects(repr(label), back.iloc[:, place], frame.iloc[:, place])
        _require_same_objects("the index", back.index, frame.index)


def save_series(series: Any, path: str) -> None:
    """Write a `pandas.Series` as a frame of one column; a TypeError if parquet would change it."""
    testing = need("pandas", "frames", "writing parquet").testing
    need("pyarrow", "frames", "writing parquet")
    with _refused_if_changed("pandas.Series", "parquet"):
        series.to_frame(_UNNAMED if series.name is None else series.name).to_parquet(path, engine="pyarrow")
        back = load_series(path)
        testing.assert_series_equal(back, series, check_exact=True, check_freq=False)
        _require_same("attrs", back.attrs, series.attrs)
        _require_same_objects("the values", back, series)
        _require_same_objects("the index", back.index, series.index)


def load_series(path: str) -> Any:
    """Return the `pandas.Series` that `save_series` wrote."""
    series = load_parquet(path).iloc[:, 0]
    return series.rename(None) if series.name == _UNNAMED else series


def save_xarray(value: Any, path: str) -> None:
    """Write a `xarray.Dataset` or `xarray.DataArray`; a TypeError if netCDF would change it."""
    testing = _xarray("writing netCDF").testing
    kind = type(value).__name__
    with _refused_if_changed(f"xarray.{kind}", "netCDF"):
        value.to_netcdf(path, engine="h5netcdf")
        _note_units(path, value)
        back = load_dataset(path) if kind == "Dataset" else load_dataarray(path)
        testing.assert_identical(back, value)
        _require_same("dtypes", _dtypes(back), _dtypes(value))


def load_dataset(path: str) -> Any:
    """Return a `xarray.Dataset`."""
    return _in_units(_xarray("reading netCDF").load_dataset(path, engine=_engine(path)), path)


def load_dataarray(path: str) -> Any:
    """Return the `xarray.DataArray` that `save_xarray` wrote."""
    return _in_units(_xarray("reading netCDF").load_dataarray(path, engine=_engine(path)), path)


def open_netcdf(path: str) -> Any:
    """Return a `xarray.Dataset` whose arrays are read when they are used."""
    return _xarray("reading netCDF").open_dataset(path, engine=_engine(path))


def _xarray(purpose: str) -> Any:
    need("h5netcdf", "xarray", purpose)
    return need("xarray", "xarray", purpose)


def _engine(path: str) -> str | None:
    import h5py

    return "h5netcdf" if h5py.is_hdf5(path) else None  # of the classic formats xarray knows who reads them


def _note_units(path: str, value: Any) -> None:
    """Note in the file in which units times are: netCDF has them, but xarray reads nanoseconds whatever they were."""
    units = {name: str(dtype) for name, dtype in _dtypes(value).items() if dtype.kind == "M"}
    if units:
        import h5py

        with h5py.File(path, "a") as file:
            file.attrs[_UNITS] = json.dumps(list(units.items()))


def _in_units(value: Any, path: str) -> Any:
    value.attrs.pop(_UNITS, None)
    if _engine(path) is None:
        return value
    import h5py

    with h5py.File(path, "r") as file:
        units = json.loads(file.attrs.get(_UNITS, "[]"))
    for name, dtype in units:
        if name is None:
            value = value.astype(dtype)
        elif name in value.coords:
            value = value.assign_coords({name: value[name].astype(dtype)})
        else:
            value = value.assign({name: value[name].astype(dtype)})
    return value


def _dtypes(value: Any) -> dict[Any, Any]:
    whole = {None: value.dtype} if hasattr(value, "dtype") else {}
    parts = {**value.coords, **getattr(value, "data_vars", {})}
    return {**whole, **{name: part.dtype for name, part in parts.items()}}


def _require_same(what: str, back: Any, before: Any) -> None:
    if back != before:
        raise TypeError(f"the {what} would be {back!r}, not {before!r}")


def _require_same_objects(what: str, back: Any, before: Any) -> None:
    """Compare the types of objects: to some releases of pandas a tuple and an array of the same numbers are equal."""
    if before.dtype == object:
        for number, (one, other) in enumerate(zip(back, before, strict=True)):
            if type(one) is not type(other):
                raise TypeError(
                    f"number {number} of {what} would be a {type(one).__name__}, not a {type(other).__name__}"
                )


@contextmanager
def _refused_if_changed(what: str, how: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, OSError, MemoryError):
        raise
    except Exception as error:  # of the libraries that write, each has errors of its own
        reason = " ".join(str(error).split())
        raise TypeError(
            f"cannot store this {what}: as {how} it would not come back as it is ({reason:.300}). Return something "
            f"that {how} keeps, or say how it is written and read, with entropic.register_codec({what}, suffix, "
            "save=..., load=...)"
        ) from error
