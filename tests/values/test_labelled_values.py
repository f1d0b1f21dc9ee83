"""What pandas and xarray hold comes back equal, types and dtypes included; what cannot is refused, and says where."""

import datetime as dt
import enum
import warnings
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from entropic import memoize
from entropic.values.codecs import load, save

BERLIN = ZoneInfo("Europe/Berlin")
days = pd.date_range


class Scheme(enum.Enum):
    EULER = 1


def objects(*values):
    return pd.Series(values, dtype=object)


COLUMNS = {
    "int of any size": objects(2**70, 1, None),
    "mixed": objects(1, "a", None, 2.5, True),
    "sets": objects({1, 2}),
    "tuples and lists": objects((1, 2), [3], [[4]]),
    "dicts": objects({"a": 1}, {"b": 2}),
    "arrays of many shapes": objects(np.eye(2), np.arange(3)),
    "decimals": objects(Decimal("1.50"), Decimal("2.123456")),
    "dates and times": objects(dt.date(2024, 1, 1), dt.time(1, 2), None),
    "datetimes": objects(dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, tzinfo=BERLIN)),
    "NumPy's scalars": objects(np.float32(1.5), np.int8(2)),
    "ints among objects": objects(1, 2),
    "what is missing": objects("a", np.nan, None, pd.NA, pd.NaT),
    "texts among objects": objects("a", "b"),
    "half a character": objects("\ud800"),
    "bytes": objects(b"a\xff"),
    "timestamps": objects(pd.Timestamp("2024", tz="UTC"), pd.Timedelta("1s"), pd.Period("2024-01")),
    "members": objects(Scheme.EULER),
    "frames": objects(pd.DataFrame({"y": [1]}), pd.Interval(0, 1)),
    "complex": np.array([1 + 2j], "c8"),
    "float16": np.array([1.5], "f2"),
    "uint64": np.array([2**64 - 1], "u8"),
    "other byte order": np.array([1.5], ">f8"),
    "signs and none": np.array([-0.0, np.nan, np.inf]),
    "seconds": np.array(["2024-01-01", "NaT"], "M8[s]"),
    "milliseconds": np.array(["2024-01-01"], "M8[ms]"),
    "durations": np.array([1, 2], "m8[s]"),
    "zone": days("2024", periods=2, tz="Europe/Berlin"),
    "zone in seconds": days("2024", periods=2, tz="Europe/Berlin", unit="s"),
    "offset": days("2024", periods=2, tz=dt.timezone(dt.timedelta(hours=3))),
    "ordered categories": pd.Categorical(["a", "b", None], categories=["b", "a", "z"], ordered=True),
    "int categories": pd.Categorical([3, 1], ordered=True),
    "small int categories": pd.Categorical(np.array([1, 2], "i1")),
    "bool categories": pd.Categorical([True, False]),
    "time categories": pd.Categorical(days("2024", periods=3)),
    "zoned categories": pd.Categorical(days("2024", periods=3, tz="Europe/Berlin")),
    "duration categories": pd.Categorical(pd.to_timedelta([1, 2], unit="s")),
    "interval categories": pd.cut([1, 2, 3], 2),
    "period categories": pd.Categorical(pd.period_range("2024", periods=2, freq="M")),
    "mixed categories": pd.Categorical(["a", 1]),
    "object categories": pd.Categorical(objects("a", "b")),
    "tuple categories": pd.Categorical([(1, 2), (3, 4)]),
    "no categories": pd.Categorical([]),
    "unused categories": pd.Categorical([None], categories=["a"]),
    "periods": pd.period_range("2024", periods=2, freq="M"),
    "intervals": pd.arrays.IntervalArray.from_breaks([0.0, 1, 2], closed="both"),
    "Int8": pd.array([1, None], dtype="Int8"),
    "Float32": pd.array([1.5, None], dtype="Float32"),
    "boolean": pd.array([True, None], dtype="boolean"),
    "string": pd.array(["a", None], dtype="string"),
    "string[python]": pd.array(["ß\0", None], dtype="string[python]"),
    "string[pyarrow]": pd.array(["a", None], dtype="string[pyarrow]"),
    "arrow": pd.array([1, None], dtype="int64[pyarrow]"),
    "sparse": pd.arrays.SparseArray([0, 0, 1]),
    "sparse floats": pd.arrays.SparseArray([np.nan, 1.5]),
    "empty": np.zeros(0, "i4"),
    "empty objects": objects(),
    "only None": objects(None, None),
}

INDEXES = {
    "int of any size": pd.Index([2**70, 1], dtype=object),
    "dates": pd.Index([dt.date(2024, 1, 1), None], dtype=object),
    "mixed": pd.Index([1, "a"]),
    "tuples": pd.Index([("a", 1), ("b",)], tupleize_cols=False),
    "texts among objects": pd.Index(["a", "b"], dtype=object),
    "categories": pd.CategoricalIndex([2, 1], ordered=True, name="c"),
    "bools": pd.Index([True, False]),
    "range": pd.RangeIndex(4, 8, 2, name="r"),
    "int32": pd.Index([2, 1], dtype="i4"),
    "Int64": pd.Index([2, 1], dtype="Int64"),
    "floats": pd.Index([0.5, np.nan]),
    "twice": pd.Index([3, 3]),
    "name that is no text": pd.Index([5, 6], name=("a", 1)),
    "periods": pd.period_range("2024", periods=2, freq="Q"),
    "intervals": pd.IntervalIndex.from_breaks([0, 1, 2]),
    "durations": pd.timedelta_range("1s", periods=2, freq="s"),
    "days": days("2024", periods=2, freq="D"),
    "irregular": pd.DatetimeIndex(["2024-01-01", "2024-01-05"]),
    "months of a zone": days("2024", periods=2, freq="MS", tz="Europe/Berlin"),
    "Tuesdays": days("2024", periods=2, freq="W-TUE"),
    "month and day": days("2024", periods=2, freq=pd.DateOffset(months=1, days=1)),
    "levels": pd.MultiIndex.from_product([["a"], [1, 2]], names=["k", None]),
    "levels with times": pd.MultiIndex.from_product([["a"], days("2024", periods=2)]),
    "levels with categories": pd.MultiIndex.from_arrays([pd.Categorical([3, 2], ordered=True), [1, 2]]),
    "levels with seconds": pd.MultiIndex.from_arrays([np.array([1, 2], "M8[s]"), [1, 2]]),
    "levels of one name": pd.MultiIndex.from_arrays([[1, 2], [3, 4]], names=["k", "k"]),
    "levels with gaps": pd.MultiIndex.from_arrays([[np.nan, 1], ["a", None]]),
    "levels that are not used": pd.MultiIndex.from_product([["a", "b", "c"], [1]])[:2],
}


def told(frame, **attrs):
    frame.attrs.update(attrs)
    return frame


SHAPES = {
    "nothing": pd.DataFrame(),
    "rows alone": pd.DataFrame(index=[1, 2]),
    "columns alone": pd.DataFrame(columns=["a"], index=pd.Index([], name="k", dtype="int64")),
    "columns of one name": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "columns that look alike": pd.DataFrame([[1, 2]], columns=["1", 1]),
    "unnamed columns": pd.DataFrame(np.eye(2)),
    "attributes": told(pd.DataFrame({"x": [1]}), unit="m", at=(1, 2), scale=np.float64(1.5)),
    "flags": pd.DataFrame({"x": [1]}).set_flags(allows_duplicate_labels=False),
    "index named as a column": pd.DataFrame({"a": [1]}, index=pd.Index([5], name="a")),
    "description": pd.DataFrame({"x": [1, 2, 3], "s": list("abc")}).describe(include="all"),
    "groups": pd.DataFrame({"g": [1, 1, 2], "x": [1, 2, 3]}).groupby("g").agg(["mean", "std"]),
    "transposed": pd.DataFrame({"x": [1, 2], "y": ["a", "b"]}).T,
}

SERIES = {
    "int of any size": pd.Series([2**70], name="x"),
    "name that is no text": pd.Series([1], name=3),
    "intervals": pd.Series([1, 2, 3]).value_counts(bins=2),
    "sums": pd.Series(range(4), index=days("2024", periods=4)).resample("2D").sum(),
    "attributes": told(pd.Series([1.5]), unit="m"),
    "empty": pd.Series([], dtype=float),
}

OTHERS = {
    "index": pd.Index([1, 2], name="k"),
    "levels": INDEXES["levels with times"],
    "timestamp": pd.Timestamp("2024-01-01", tz="Europe/Berlin"),
    "timestamp in seconds": pd.Timestamp("2024-01-01").as_unit("s"),
    "duration": pd.Timedelta("1s"),
    "none": [pd.NaT, pd.NA],
    "interval": pd.Interval(0, 1.5, closed="both"),
    "period": pd.Period("2024-01"),
    "categorical": pd.Categorical(["a"]),
    "array": pd.array([1, None]),
}


def round_trip(folder, value):
    save(value, str(folder / "value"))
    (path,) = folder.glob("value.*")
    return load(str(path))


def shown(cell):
    """What a cell is, all the way down as far as its text tells."""
    return type(cell), repr(cell)


def shown_index(index):
    levels = index.levels if isinstance(index, pd.MultiIndex) else [index]
    cells = [list(map(shown, level)) for level in levels]
    freqs = [getattr(level, "freq", None) for level in levels]
    return (
        type(index),
        list(index.names),
        cells,
        [level.dtype for level in levels],
        freqs,
        index.tolist().__repr__(),
    )


def shown_array(series):
    dtype = series.dtype
    categories = getattr(dtype, "categories", None)
    cells = series.tolist() if dtype.kind != "O" else list(series)
    return dtype, repr(dtype), [] if categories is None else shown_index(categories), list(map(shown, cells))


def shown_whole(value):
    if isinstance(value, pd.Series):
        return shown(value.name), shown_array(value), shown_index(value.index), value.attrs
    if isinstance(value, pd.DataFrame):
        columns = [shown_array(value.iloc[:, place]) for place in range(value.shape[1])]
        flags = value.flags.allows_duplicate_labels
        return columns, shown_index(value.columns), shown_index(value.index), repr(value.attrs), flags
    return shown_index(value) if isinstance(value, pd.Index) else shown(value)


CASES = (
    {f"column of {name}": pd.DataFrame({"c": column}) for name, column in COLUMNS.items()}
    | {f"index of {n}": pd.DataFrame({"x": [1, 2]}, index=index) for n, index in INDEXES.items()}
    | {f"columns of {n}": pd.DataFrame([[1, 2]], columns=index) for n, index in INDEXES.items()}
    | SHAPES
    | {f"series, {name}": series for name, series in SERIES.items()}
    | {f"by itself, {name}": value for name, value in OTHERS.items()}
)


@pytest.mark.parametrize("value", CASES.values(), ids=CASES)
def test_value_of_pandas_comes_back_equal_types_included(tmp_path, value):
    back = round_trip(tmp_path, value)

    assert type(back) is type(value)
    assert shown_whole(back) == shown_whole(value)


def variable(values, **attrs):
    return xr.Dataset({"v": ("x", values, attrs)})


def attributed(**attrs):
    return xr.Dataset({"v": ("x", [1.0, 2.0])}, coords={"x": [0, 1]}, attrs=attrs)


DATASETS = {
    "bool": attributed(ok=True, numpy=np.True_),
    "None": attributed(note=None),
    "numbers": attributed(n=1, x=1.5, big=2**70, z=1j, small=np.float32(1)),
    "texts": attributed(a="ü", b="", c=["a"], d=["a", "b"]),
    "lists": attributed(a=[1, 2], b=[1], c=[], d=(1, 2), e={"a": 1}),
    "arrays": attributed(a=np.arange(3), b=np.array([1]), c=np.array(1)),
    "times and paths": attributed(at=dt.datetime(2024, 1, 1, tzinfo=BERLIN), path=Path("a")),
    "names that are no text": xr.Dataset({1: ("x", [1.0])}, attrs={1: 2}),
    "attributes of a variable": variable([1, 2], ok=True, units="m"),
    "attributes that netCDF uses": variable([1, 2], units="days since 2000-01-01", scale_factor=2.0),
    "complex": variable([1 + 2j]),
    "bools": variable([True, False]),
    "objects": variable(np.array(["a", None, 2**70], object)),
    "texts among objects": variable(np.array(["a", "b"], object)),
    "bytes": variable([b"a"]),
    "float16": variable(np.array([1], "f2")),
    "other byte order": variable(np.array([1.0], ">f8")),
    "durations": variable(np.array([1, 2], "m8[ns]")),
    "no times": variable(np.array(["2024", "NaT"], "M8[ns]")),
    "nothing": xr.Dataset(),
    "scalar": xr.Dataset({"a": 1.5}, coords={"z": True}),
    "slash": xr.Dataset({"a/b": ("x", [1.0])}),
    "no index": attributed().drop_indexes("x"),
    "levels": xr.Dataset({"v": ("x", [1, 2])}).assign_coords(
        xr.Coordinates.from_pandas_multiindex(
            pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["k", "l"]), "x"
        )
    ),
    "array": xr.DataArray([1.0], dims="x", attrs={"ok": True}),
    "array of complex": xr.DataArray([1j], dims="x", coords={"x": ["a"]}, name=3),
    "array with levels": xr.DataArray([[1, 2], [3, 4]], dims=("a", "b")).stack(x=["a", "b"]),
}


def shown_attrs(attrs):
    return {key: shown(value) for key, value in attrs.items()}


@pytest.mark.parametrize("value", DATASETS.values(), ids=DATASETS)
def test_value_of_xarray_comes_back_identical_types_included(tmp_path, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # xarray's, of what netCDF would make of it
        back = round_trip(tmp_path, value)

    xr.testing.assert_identical(back, value)
    assert shown_attrs(back.attrs) == shown_attrs(value.attrs)
    assert {name: one.dtype for name, one in back.coords.items()} == {
        n: o.dtype for n, o in value.coords.items()
    }
    assert set(back.indexes) == set(value.indexes)
    for name in getattr(value, "data_vars", ()):
        assert (back[name].dtype, shown_attrs(back[name].attrs)) == (
            value[name].dtype,
            shown_attrs(value[name].attrs),
        )


def test_attributes_are_in_the_netcdf_file_for_other_programs(tmp_path):
    save(attributed(ok=True, n=3, note=None, unit="m"), str(tmp_path / "value"))

    with xr.open_dataset(tmp_path / "value.nc", engine="h5netcdf") as opened:
        assert (opened.attrs["ok"], opened.attrs["n"], opened.attrs["note"], opened.attrs["unit"]) == (
            1,
            3,
            "None",
            "m",
        )


def test_dataset_keeps_its_file_format_where_only_attributes_are_in_the_way(tmp_path):
    save(attributed(ok=True), str(tmp_path / "value"))

    assert [path.name for path in tmp_path.iterdir()] == ["value.nc"]


def test_cell_that_no_format_holds_is_named_and_the_others_are_kept(tmp_path):
    @memoize(results_dir=tmp_path, db_url="sqlite://")
    def function(n: int) -> pd.DataFrame:
        return pd.DataFrame({"x": objects(2**70, len), "y": [0.5, 1.5]})

    with pytest.raises(
        TypeError, match=r"at \[data\]\[x\]\[objects\]\[1\]: it is a builtin_function"
    ) as caught:
        function(1)

    back = load(str(caught.value).partition("is not lost: '")[2].partition("'")[0])
    assert (back["x"][0], back["x"][1], back["y"].tolist()) == (2**70, repr(len), [0.5, 1.5])


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame(
            index=days("2024", periods=2, freq=pd.offsets.CustomBusinessDay(holidays=["2024-01-02"]))
        ),
        pd.DataFrame({"f": objects(len)}),
        xr.Dataset(attrs={"f": len}),
    ],
    ids=["holidays", "functions", "function in attributes"],
)
def test_value_with_something_that_no_format_holds_is_refused(tmp_path, value):
    with pytest.raises(TypeError, match=r"cannot store the returned value at \[.*register_codec"):
        save(value, str(tmp_path / "value"))
