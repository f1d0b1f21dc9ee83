"""pandas objects taken apart into plain values and arrays, and made again: all that parquet would change or refuse.

A part may be a pandas object itself: a frame has indexes and arrays of columns, a categorical an index of categories.
What is in the parts is all that makes up a value, types and dtypes included, so two values are the same if their parts
are. What is not known here, such as an array of another package's, has no parts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

__all__ = ["is_labelled", "is_named_freq", "make_pandas", "pandas_parts", "require_short"]

Parts = dict[str, Any]

_LENGTH_ALONE = frozenset({"RangeIndex", "SparseArray"})
_LONG = 1 << 24


def pandas_parts(value: Any) -> Parts | None:
    """Return the parts of a pandas object by name, and its kind; None if it is none of those known."""
    class_ = type(value)
    if is_labelled(class_):
        take_apart, _ = _KINDS[class_.__name__]
        return {"kind": class_.__name__, **take_apart(value)}
    return _named_freq_parts(value) if class_.__module__.startswith("pandas._libs.tslibs.offsets") else None


def is_labelled(class_: type) -> bool:
    """Whether objects of a class of pandas' are known by their parts."""
    return class_.__module__.partition(".")[0] == "pandas" and class_.__name__ in _KINDS


def make_pandas(parts: Parts) -> Any:
    """Return the object of which `pandas_parts` made *parts*."""
    rest = dict(parts)
    kind = rest.pop("kind")
    if kind not in {"DataFrame", "Series"}:  # whose parts are as long as each other
        require_short(rest)
    _, make = _KINDS[kind]
    return make(**rest)


def require_short(parts: Any) -> None:
    """Raise ValueError if one of *parts* takes no memory for its length, and would where something is made of it."""
    items = parts.values() if isinstance(parts, dict) else parts if isinstance(parts, list) else ()
    for item in items:
        if type(item).__name__ in _LENGTH_ALONE and len(item) > _LONG:
            raise ValueError(f"there is a {type(item).__name__} of {len(item)} values within another value")
        if isinstance(item, list):
            require_short(item)


def _pandas() -> Any:
    import pandas

    return pandas


# Frames


def _frame_parts(frame: Any) -> Parts:
    labels = [str(label) for label in frame.columns]
    if len(set(labels)) < len(labels):
        labels = [str(place) for place in range(len(labels))]
    data = {label: frame.iloc[:, place].array for place, label in enumerate(labels)}
    return {"columns": frame.columns, "index": frame.index, "data": data} | _rest_of(frame)


def _frame(columns: Any, index: Any, data: Any, attrs: Any, unique: bool) -> Any:
    pandas = _pandas()
    series = {place: _in_series(one, index) for place, one in enumerate(data.values())}
    made = pandas.DataFrame(series, index=index)
    made.columns = columns
    return _with_rest(made, attrs, unique)


def _series_parts(series: Any) -> Parts:
    return {"name": series.name, "index": series.index, "data": series.array} | _rest_of(series)


def _series(name: Any, index: Any, data: Any, attrs: Any, unique: bool) -> Any:
    return _with_rest(_in_series(data, index, name), attrs, unique)


def _in_series(data: Any, index: Any, name: Any = None) -> Any:
    if not isinstance(data, _pandas().api.extensions.ExtensionArray):  # of one value pandas would make many
        raise TypeError(f"its values are a {type(data).__name__}, not an array")
    return _pandas().Series(data, index, dtype=_dtype_to_keep(data), name=name)


def _dtype_to_keep(data: Any) -> Any:
    """Return the dtype to ask for: of objects pandas would find a better one."""
    is_numpy = type(data).__name__ == "NumpyExtensionArray"
    return object if is_numpy and data.to_numpy().dtype == object else None


def _rest_of(value: Any) -> Parts:
    return {"attrs": dict(value.attrs), "unique": not value.flags.allows_duplicate_labels}


def _with_rest(made: Any, attrs: Any, unique: bool) -> Any:
    made.attrs.update(attrs)
    made.flags.allows_duplicate_labels = not unique
    return made


# Indexes


def _index_parts(index: Any) -> Parts:
    return {"name": index.name, "data": index.array}


def _index(name: Any, data: Any) -> Any:
    return _pandas().Index(data, name=name, dtype=_dtype_to_keep(data), tupleize_cols=False)


def _range_parts(index: Any) -> Parts:
    return {"name": index.name, "range": [index.start, index.stop, index.step]}


def _range(name: Any, range: Any) -> Any:
    return _pandas().RangeIndex(*range, name=name)


def _levels_parts(index: Any) -> Parts:
    import numpy

    codes = [numpy.asarray(codes) for codes in index.codes]
    return {"names": list(index.names), "levels": list(index.levels), "codes": codes}


def _levels(names: Any, levels: Any, codes: Any) -> Any:
    return _pandas().MultiIndex(levels, codes, names=names)


def _regular_parts(index: Any) -> Parts:
    return {"name": index.name, "data": index.array, "freq": index.freq}


def _times_index(name: Any, data: Any, freq: Any) -> Any:
    return _pandas().DatetimeIndex(data, name=name, freq=freq)


def _durations_index(name: Any, data: Any, freq: Any) -> Any:
    return _pandas().TimedeltaIndex(data, name=name, freq=freq)


# Arrays


def _numpy_parts(array: Any) -> Parts:
    values = array.to_numpy()
    if values.dtype != object:
        return {"values": values}
    if {type(one) for one in values} <= {str, type(None)}:
        return {"texts": _joined(values)}  # a hundred times faster than one by one
    return {"objects": list(values)}


def _numpy(values: Any = None, objects: Any = None, texts: Any = None) -> Any:
    import numpy

    if texts is not None:
        objects = _split(*texts)
    if values is None:
        values = numpy.empty(len(objects), object)
        for number, one in enumerate(objects):  # one that is a list would become a row
            values[number] = one
    return _pandas().arrays.NumpyExtensionArray(values)


def _times_parts(array: Any) -> Parts:
    return {"values": array.asi8.view(f"M8[{array.unit}]"), "zone": _zone_note(array.tz)}


def _times(values: Any, zone: Any) -> Any:
    index = _pandas().DatetimeIndex(values)
    return (index if zone is None else index.tz_localize("UTC").tz_convert(_zone(zone))).array


def _durations_parts(array: Any) -> Parts:
    return {"values": array.asi8.view(f"m8[{array.unit}]")}


def _durations(values: Any) -> Any:
    return _pandas().TimedeltaIndex(values).array


def _periods_parts(array: Any) -> Parts:
    return {"values": array.asi8, "dtype": str(array.dtype)}


def _periods(values: Any, dtype: str) -> Any:
    pandas = _pandas()
    return pandas.arrays.PeriodArray(values, dtype=pandas.PeriodDtype.construct_from_string(dtype))


def _intervals_parts(array: Any) -> Parts:
    return {"left": array.left, "right": array.right, "closed": array.closed}


def _intervals(left: Any, right: Any, closed: Any) -> Any:
    return _pandas().arrays.IntervalArray.from_arrays(left, right, closed=closed)


def _categorical_parts(array: Any) -> Parts:
    import numpy

    return {
        "codes": numpy.asarray(array.codes),
        "categories": array.categories,
        "ordered": bool(array.ordered),
    }


def _categorical(codes: Any, categories: Any, ordered: bool) -> Any:
    pandas = _pandas()
    return pandas.Categorical.from_codes(codes, dtype=pandas.CategoricalDtype(categories, ordered))


def _masked_parts(array: Any) -> Parts:
    dtype = array.dtype.numpy_dtype
    return {"values": array.to_numpy(dtype=dtype, na_value=dtype.type(0)), "mask": array.isna()}


def _masked(name: str) -> Callable[..., Any]:
    return lambda values, mask: getattr(_pandas().arrays, name)(values, mask)


def _texts_parts(array: Any) -> Parts:
    storage = getattr(array.dtype, "storage", "python")
    is_nan = array.dtype.na_value is not _pandas().NA
    return {"storage": storage, "is_nan": is_nan, "texts": _joined(array.to_numpy(dtype=object))}


def _texts(storage: str, is_nan: bool, texts: Any) -> Any:
    pandas = _pandas()
    options = {"na_value": float("nan")} if is_nan else {}
    return pandas.array(_split(*texts), dtype=pandas.StringDtype(storage, **options))


def _joined(texts: Any) -> list[Any]:
    """Return the lengths of texts in bytes, -1 for what is none, and all the bytes."""
    import numpy

    octets = [one.encode("utf-8", "surrogatepass") if isinstance(one, str) else None for one in texts]
    lengths = numpy.array([-1 if one is None else len(one) for one in octets], "i8")
    return [lengths, numpy.frombuffer(b"".join(one for one in octets if one is not None), "u1")]


def _split(lengths: Any, octets: Any) -> list[str | None]:
    joined, texts, start = octets.tobytes(), [], 0
    for length in lengths.tolist():
        end = start + max(length, 0)
        texts.append(None if length < 0 else joined[start:end].decode("utf-8", "surrogatepass"))
        start = end
    return texts


def _sparse_parts(array: Any) -> Parts:
    import numpy

    places = numpy.asarray(array.sp_index.to_int_index().indices)
    fill = array.fill_value
    return {
        "values": numpy.asarray(array.sp_values),
        "places": places,
        "length": len(array),
        "fill": fill.item() if isinstance(fill, numpy.generic) else fill,
        "kind_of_index": array.kind,
    }


def _sparse(values: Any, places: Any, length: int, fill: Any, kind_of_index: str) -> Any:
    pandas = _pandas()
    if len(values) != len(places):
        raise ValueError(f"there are {len(values)} values for {len(places)} places")
    # Never the whole array: its length is only a number in the document.
    class_, dtype = pandas.arrays.SparseArray, pandas.SparseDtype(values.dtype, fill)
    if hasattr(class_, "from_indices"):
        return class_.from_indices(
            values, places, length, fill_value=dtype.fill_value, kind=kind_of_index, dtype=values.dtype
        )
    index = type(class_([0]).sp_index.to_int_index())(length, places.astype("i4"))
    index = index.to_block_index() if kind_of_index == "block" else index
    return class_(values, sparse_index=index, fill_value=fill, dtype=dtype)


def _arrow_parts(array: Any) -> Parts:
    import numpy
    import pyarrow

    table = pyarrow.table({"values": array.__arrow_array__()})
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return {"stream": numpy.frombuffer(sink.getvalue(), "u1")}


def _arrow(stream: Any) -> Any:
    import pyarrow

    with pyarrow.ipc.open_stream(stream.tobytes()) as opened:
        return _pandas().arrays.ArrowExtensionArray(opened.read_all()["values"])


# Single values


def _time_parts(value: Any) -> Parts:
    return {"value": value.asm8, "zone": _zone_note(value.tzinfo)}


def _time(value: Any, zone: Any) -> Any:
    made = _pandas().Timestamp(value)
    return made if zone is None else made.tz_localize("UTC").tz_convert(_zone(zone))


def _interval_parts(value: Any) -> Parts:
    return {"left": value.left, "right": value.right, "closed": value.closed}


def _period_parts(value: Any) -> Parts:
    return {"ordinal": value.ordinal, "freq": value.freqstr}


# Zones and frequencies


def _zone_note(zone: Any) -> Any:
    """Return how a zone is noted; the zone itself, which no document holds, if nothing would give it again."""
    if zone is None:
        return None
    if str(zone) in {"UTC", "UTC+00:00"}:
        return "UTC"  # all of them are one
    if type(zone) is timezone:
        return zone.utcoffset(None)
    if type(zone) is ZoneInfo and zone.key:
        return zone.key
    return ["pytz", zone.zone] if type(zone).__module__.startswith("pytz.") and zone.zone else zone


def _zone(note: Any) -> Any:
    if isinstance(note, timedelta):
        return timezone(note)
    if isinstance(note, list):
        import pytz

        return pytz.timezone(note[1])
    return note if note == "UTC" else ZoneInfo(note)


def _named_freq_parts(freq: Any) -> Parts | None:
    return {"kind": "freq", "text": freq.freqstr} if is_named_freq(freq) else None


def is_named_freq(freq: Any) -> bool:
    """Whether the text of a frequency is all of it."""
    try:
        return bool(_named_freq(freq.freqstr) == freq)
    except ValueError:
        return False


def _freq_parts(freq: Any) -> Parts:
    return {"count": freq.n, "normalize": freq.normalize, "units": dict(freq.kwds)}


def _freq(count: int, normalize: bool, units: Any) -> Any:
    return _pandas().DateOffset(count, normalize, **units)


def _named_freq(text: str) -> Any:
    from pandas.tseries.frequencies import to_offset

    return to_offset(text)


# By the names of their classes, which are in other modules in other releases.
_KINDS: dict[str, tuple[Callable[[Any], Parts], Callable[..., Any]]] = {
    "DataFrame": (_frame_parts, _frame),
    "Series": (_series_parts, _series),
    "Index": (_index_parts, _index),
    "RangeIndex": (_range_parts, _range),
    "MultiIndex": (_levels_parts, _levels),
    "DatetimeIndex": (_regular_parts, _times_index),
    "TimedeltaIndex": (_regular_parts, _durations_index),
    "CategoricalIndex": (_index_parts, _index),
    "IntervalIndex": (_index_parts, _index),
    "PeriodIndex": (_index_parts, _index),
    "NumpyExtensionArray": (_numpy_parts, _numpy),
    "DatetimeArray": (_times_parts, _times),
    "TimedeltaArray": (_durations_parts, _durations),
    "PeriodArray": (_periods_parts, _periods),
    "IntervalArray": (_intervals_parts, _intervals),
    "Categorical": (_categorical_parts, _categorical),
    "IntegerArray": (_masked_parts, _masked("IntegerArray")),
    "FloatingArray": (_masked_parts, _masked("FloatingArray")),
    "BooleanArray": (_masked_parts, _masked("BooleanArray")),
    "StringArray": (_texts_parts, _texts),
    "ArrowStringArray": (_texts_parts, _texts),
    "SparseArray": (_sparse_parts, _sparse),
    "ArrowExtensionArray": (_arrow_parts, _arrow),
    "Timestamp": (_time_parts, _time),
    "Timedelta": (lambda value: {"value": value.asm8}, lambda value: _pandas().Timedelta(value)),
    "Interval": (_interval_parts, lambda **parts: _pandas().Interval(**parts)),
    "Period": (_period_parts, lambda **parts: _pandas().Period(**parts)),
    "NaTType": (lambda value: {}, lambda: _pandas().NaT),
    "NAType": (lambda value: {}, lambda: _pandas().NA),
    "DateOffset": (_freq_parts, _freq),
    "freq": (lambda value: {"text": value.freqstr}, _named_freq),
}
