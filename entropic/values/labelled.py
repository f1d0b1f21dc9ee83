"""pandas and xarray objects, by their own writers: parquet and netCDF.

These formats do not keep everything. So what was written is read again at once, and refused if it is not the same, in
which case it is kept as a document of its parts, if that can be. Little things are noted in the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any

from entropic.disk.guarded import load_json
from entropic.errors import DecodeError
from entropic.extras import need
from entropic.values.classic_netcdf import require_small_classic
from entropic.values.documents import decode, encode, require_same
from entropic.values.untrusted import CountedText
from entropic.values.untrusted_hdf5 import require_inside
from entropic.values.untrusted_netcdf import require_small_netcdf
from entropic.values.untrusted_parquet import require_small_parquet

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

_BLOCK = 1 << 18  # bytes: what is read between two looks at how large a table becomes
_UNNAMED = "__unnamed__"  # a Series without a name, as the column of a frame
_NOTES = b"entropic"  # key of a parquet file's metadata
# Of a netCDF file: pairs of a variable, or null for the whole, and its attributes.
_ATTRS = "entropic_attributes"
_NUMBERS = frozenset({"bool", "float16", "float32", "float64"}) | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
_UNITS = "entropic_time_units"  # attribute of a netCDF file: pairs of a variable, or null for the array, and its dtype


def load_csv(path: str) -> Any:
    """Return a `pandas.DataFrame`."""
    pandas = need("pandas", "frames", "reading CSV")
    with CountedText(path) as raw:
        return pandas.read_csv(BufferedReader(raw, _BLOCK))


def load_parquet(path: str) -> Any:
    """Return a `pandas.DataFrame`."""
    pandas = need("pandas", "frames", "reading parquet")
    with need("pyarrow.parquet", "frames", "reading parquet").ParquetFile(path) as described:
        require_small_parquet(described, path, os.path.getsize(path))
        schema = described.schema_arrow
    frame = pandas.read_parquet(path, engine="pyarrow")
    notes = load_json((schema.metadata or {}).get(_NOTES, b"{}"))
    for place, dtype in notes.get("columns", {}).items():
        if isinstance(dtype, dict):
            if dtype["dtype"] not in _NUMBERS:
                raise DecodeError(
                    f"the notes in {path!r} have categories of type {dtype['dtype']!r}, not of numbers"
                )
            categories = pandas.Index(dtype["categories"], dtype=dtype["dtype"])
            dtype = pandas.CategoricalDtype(categories, ordered=dtype["ordered"])
        else:
            _require_times(dtype, path)
        frame.isetitem(int(place), frame.iloc[:, int(place)].astype(dtype))
    if "index" in notes:
        _require_times(notes["index"], path)
        frame.index = frame.index.astype(notes["index"])
    if "freq" in notes:
        frame.index.freq = notes["freq"]
    if "range of columns" in notes:
        start, stop, step = notes["range of columns"]
        frame.columns = pandas.RangeIndex(start, stop, step, name=frame.columns.name)
    return frame


def _write_parquet(frame: Any, path: str) -> None:
    """Write a frame, and note in the file what parquet or pandas would forget."""
    frame.to_parquet(path, engine="pyarrow")
    columns = {place: _dtype_note(frame.iloc[:, place].dtype) for place in range(frame.shape[1])}
    notes: dict[str, Any] = {"columns": {place: note for place, note in columns.items() if note is not None}}
    if isinstance(index := _dtype_note(frame.index.dtype), str):
        notes["index"] = index
    if frame.index.dtype.kind in "mM" and frame.index.freqstr is not None:
        notes["freq"] = frame.index.freqstr
    if hasattr(frame.columns, "start"):
        notes["range of columns"] = [frame.columns.start, frame.columns.stop, frame.columns.step]
    if len(notes) > 1 or notes["columns"]:
        parquet = need("pyarrow.parquet", "frames", "writing parquet")
        table = parquet.read_table(path)
        metadata = {**(table.schema.metadata or {}), _NOTES: json.dumps(notes).encode()}
        parquet.write_table(table.replace_schema_metadata(metadata), path)


def _dtype_note(dtype: Any) -> Any:
    """Return what to say of a dtype that parquet does not give back: times in seconds, categories that are numbers."""
    if dtype.kind in "mM":
        return str(dtype) if "[s" in str(dtype) else None
    categories = getattr(dtype, "categories", None)
    if categories is None or categories.dtype.kind not in "biuf":
        return None
    return {"categories": categories.tolist(), "dtype": str(categories.dtype), "ordered": dtype.ordered}


def open_parquet(path: str) -> Any:
    """Return a `pyarrow.parquet.ParquetFile`."""
    return need("pyarrow.parquet", "frames", "reading parquet").ParquetFile(path)


def save_frame(frame: Any, path: str) -> None:
    """Write a `pandas.DataFrame`; a TypeError if parquet would change it."""
    need("pandas", "frames", "writing parquet")
    need("pyarrow", "frames", "writing parquet")
    with _refused_if_changed("pandas.DataFrame", "parquet"):
        _write_parquet(frame, path)
        back = load_parquet(path)
        if list(back.dtypes) != list(frame.dtypes):  # soon seen, where the texts of a long frame are not
            raise TypeError("the dtypes would be others")
        require_same(back, frame)


def save_series(series: Any, path: str) -> None:
    """Write a `pandas.Series` as a frame of one column; a TypeError if parquet would change it."""
    need("pandas", "frames", "writing parquet")
    need("pyarrow", "frames", "writing parquet")
    with _refused_if_changed("pandas.Series", "parquet"):
        _write_parquet(series.to_frame(_UNNAMED if series.name is None else series.name), path)
        require_same(load_series(path), series)


def load_series(path: str) -> Any:
    """Return the `pandas.Series` that `save_series` wrote."""
    series = load_parquet(path).iloc[:, 0]
    return series.rename(None) if series.name == _UNNAMED else series


def save_xarray(value: Any, path: str) -> None:
    """Write a `xarray.Dataset` or `xarray.DataArray`; a TypeError if netCDF would change it."""
    _xarray("writing netCDF")
    kind = type(value).__name__
    with _refused_if_changed(f"xarray.{kind}", "netCDF"):
        _with_written_attrs(value).to_netcdf(path, engine="h5netcdf")
        _note_units(path, value)
        require_same(load_dataset(path) if kind == "Dataset" else load_dataarray(path), value)


def _with_written_attrs(value: Any) -> Any:
    """Return a copy of *value* with attributes that netCDF has; what they are is noted, where it has no such ones."""
    copied = value.copy(deep=False)
    notes = []
    for name, part in _parts_with_attrs(copied):
        if any(not _is_netcdf_attr(attr) for attr in part.attrs.values()):
            document, arrays = encode(dict(part.attrs))
            if arrays:
                raise TypeError(f"the attributes of {name!r} hold arrays")
            notes.append([name, document])
            part.attrs = {key: _as_netcdf_attr(attr) for key, attr in part.attrs.items()}
    if notes:
        copied.attrs = {**copied.attrs, _ATTRS: json.dumps(notes, allow_nan=False)}
    return copied


def _parts_with_attrs(value: Any) -> Iterator[tuple[Any, Any]]:
    parts = {**value.coords, **getattr(value, "data_vars", {})}
    yield from ((name, part.variable) for name, part in parts.items())
    yield None, value


def _is_netcdf_attr(attr: Any) -> bool:
    """Whether an attribute comes back as it is: a text, a scalar of NumPy's that HDF5 has, or some of them."""
    if type(attr) is str:
        return bool(attr)
    dtype: Any = getattr(attr, "dtype", None)
    is_array = type(attr).__name__ == "ndarray" and attr.ndim == 1 and attr.size > 1
    is_scalar = dtype is not None and type(attr) is dtype.type
    return bool(is_scalar or is_array) and dtype.kind in "iuf" and dtype.isnative and dtype.itemsize <= 8


def _as_netcdf_attr(attr: Any) -> Any:
    """Return an attribute as other programs are to see it."""
    if isinstance(attr, bool):
        return int(attr)
    is_whole = isinstance(attr, int) and abs(attr) < 2**63
    return attr if is_whole or isinstance(attr, float) or _is_netcdf_attr(attr) else str(attr)


def load_dataset(path: str) -> Any:
    """Return a `xarray.Dataset`."""
    return _in_units(_xarray("reading netCDF").load_dataset(path, engine=_engine(path, is_whole=True)), path)


def load_dataarray(path: str) -> Any:
    """Return the `xarray.DataArray` that `save_xarray` wrote."""
    return _in_units(
        _xarray("reading netCDF").load_dataarray(path, engine=_engine(path, is_whole=True)), path
    )


def open_netcdf(path: str) -> Any:
    """Return a `xarray.Dataset` whose arrays are read when they are used."""
    return _xarray("reading netCDF").open_dataset(path, engine=_engine(path, is_whole=False))


def _xarray(purpose: str) -> Any:
    need("h5netcdf", "xarray", purpose)
    return need("xarray", "xarray", purpose)


def _engine(path: str, *, is_whole: bool) -> str | None:
    import h5py

    if not h5py.is_hdf5(path):
        require_small_classic(path)
        return None  # of the classic formats xarray knows who reads them
    with h5py.File(path, "r") as file:
        require_inside(file, path)
        require_small_netcdf(file, path, os.path.getsize(path), is_whole=is_whole)
    return "h5netcdf"


def _note_units(path: str, value: Any) -> None:
    """Note in the file in which units times are: netCDF has them, but xarray reads nanoseconds whatever they were."""
    units = {name: str(dtype) for name, dtype in _dtypes(value).items() if dtype.kind == "M"}
    if units:
        import h5py

        with h5py.File(path, "a") as file:
            file.attrs[_UNITS] = json.dumps(list(units.items()))


def _in_units(value: Any, path: str) -> Any:
    value.attrs.pop(_UNITS, None)
    notes = load_json(value.attrs.pop(_ATTRS, "[]").encode())
    for name, document in notes:
        attrs = decode(document, _no_arrays)
        if name is None:
            value.attrs = attrs
        else:
            value[name].attrs = attrs
    import h5py

    if not h5py.is_hdf5(path):
        return value
    with h5py.File(path, "r") as file:
        units = load_json(file.attrs.get(_UNITS, "[]").encode())
    for name, dtype in units:
        _require_times(dtype, path)
        if name is None:
            value = value.astype(dtype)
        elif name in value.coords:
            value = value.assign_coords({name: value[name].astype(dtype)})
        else:
            value = value.assign({name: value[name].astype(dtype)})
    return value


def _no_arrays(name: str) -> Any:
    raise DecodeError(f"the attributes refer to the array {name!r}, but they have none")


def _require_times(dtype: Any, path: str) -> None:
    """Raise `DecodeError` unless a dtype that a file notes is of times: what else it names may be of any width."""
    if not isinstance(dtype, str) or not dtype.lstrip("<>").startswith(
        ("datetime64[", "timedelta64[", "M8[")
    ):
        raise DecodeError(f"{path!r} notes values of type {dtype!r:.80}, not of times, and is not read")


def _dtypes(value: Any) -> dict[Any, Any]:
    whole = {None: value.dtype} if hasattr(value, "dtype") else {}
    parts = {**value.coords, **getattr(value, "data_vars", {})}
    return {**whole, **{name: part.dtype for name, part in parts.items()}}


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
