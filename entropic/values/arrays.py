"""Arrays and frames in the document of a parameter: what identifies them, and copies that hold what they hold.

What identifies an array is its dtype, shape and a digest of its elements. Where elements are objects, each is told by
a document of its own, so that the text of a number is not the number.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from typing import Any

from entropic.values.hashing import NoForm, array_form, canonical
from entropic.values.pandas_parts import is_named_freq

__all__ = ["array_kind", "copy_of", "form_of", "make_masked", "masked_parts", "single_form"]

Cell = Callable[[Any], Any]

_TOLD_BY_TEXT = frozenset({"Timestamp", "Timedelta", "Period", "NaTType", "NAType"})


def _loaded(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, None)


def array_kind(value: Any) -> str | None:
    """Name what kind of array or frame *value* is; None for anything else, subclasses of them included."""
    class_ = type(value)
    if class_ is _loaded("numpy", "ndarray"):
        return "objects" if value.dtype.kind == "O" else "array"
    if class_ is _loaded("numpy.ma", "MaskedArray"):
        return "masked"
    if class_.__module__.partition(".")[0] != "pandas":
        return None
    if class_ is _loaded("pandas", "DataFrame"):
        return "frame"
    if class_ is _loaded("pandas", "Series"):
        return "series"
    return "index" if isinstance(value, _loaded("pandas", "Index")) else None


def form_of(value: Any, kind: str, cell: Cell) -> Any:
    """Return what identifies an array or frame, as JSON; *cell* makes the document of an element that is an object.

    Raises
    ------
    UnhashableParamError
        If there is a dtype whose bytes are not its elements.
    """
    if kind == "array":
        return _array(value)
    if kind == "masked":
        return _masked(value)
    if kind == "index":
        form = _index(value, cell)
        shape, dtype = [len(value)], str(value.dtype)
    elif kind == "series":
        form = [_column(value, cell), cell(value.name), _index(value.index, cell), cell(dict(value.attrs))]
        shape, dtype = [len(value)], str(value.dtype)
    else:
        columns = [_column(value.iloc[:, place], cell) for place in range(value.shape[1])]
        form = [columns, _index(value.columns, cell), _index(value.index, cell), cell(dict(value.attrs))]
        shape, dtype = list(value.shape), ", ".join(map(str, value.dtypes))
    if kind != "index" and not value.flags.allows_duplicate_labels:
        form.append("unique labels")
    text = canonical(form)
    return {"digest": hashlib.sha256(text.encode()).hexdigest(), "shape": shape, "dtype": dtype}


def _array(value: Any) -> dict[str, Any]:
    form = array_form(value)
    if "__ndarray__" in form:
        return {"digest": form["__ndarray__"], "dtype": form["dtype"], "shape": form["shape"]}
    digest = hashlib.sha256(canonical(form).encode()).hexdigest()  # field by field
    return {"digest": digest, "dtype": str(value.dtype), "shape": form["shape"]}


def _masked(value: Any) -> dict[str, Any]:
    numpy = sys.modules["numpy"]
    if value.baseclass is not numpy.ndarray or vars(value).keys() - _OF_MASKED or value._optinfo:
        raise NoForm(
            "is a masked array with attributes of its own, or one of a subclass of numpy.ndarray: pass the attributes "
            "by themselves, and numpy.ma.array(numpy.asarray(value), mask=value.mask)"
        )
    no_mask = value.mask is numpy.ma.nomask  # which a function can tell from a mask of nothing
    parts = {"data": value.data, "fill": value.fill_value} | ({} if no_mask else {"mask": value.mask})
    form: dict[str, Any] = {name: _array(numpy.asarray(part)) for name, part in parts.items()}
    return {**form, "hard": True} if value.hardmask else form


def masked_parts(value: Any) -> tuple[Any, Any, Any, bool] | None:
    """Return what `make_masked` makes a masked array of; None of anything else, subclasses included.

    Its mask is None where it has none, which a function can tell from a mask of nothing.
    """
    class_ = _loaded("numpy.ma", "MaskedArray")
    if class_ is None or type(value) is not class_ or vars(value).keys() - _OF_MASKED or value._optinfo:
        return None
    mask = None if value.mask is _loaded("numpy.ma", "nomask") else value.mask
    return value.data, mask, value.fill_value, bool(value.hardmask)


def make_masked(data: Any, mask: Any, fill_value: Any, is_hard: bool) -> Any:
    """Return the masked array of these parts."""
    from numpy import ma

    return ma.MaskedArray(
        data, mask=ma.nomask if mask is None else mask, fill_value=fill_value, hard_mask=is_hard
    )


_OF_MASKED = {
    "_mask",
    "_fill_value",
    "_hardmask",
    "_sharedmask",
    "_isfield",
    "_baseclass",
    "_optinfo",
    "_basedict",
}


def _column(values: Any, cell: Cell) -> Any:
    dtype = values.dtype
    if isinstance(dtype, _loaded("pandas", "CategoricalDtype")):
        return [_index(dtype.categories, cell), bool(dtype.ordered), _array(values.array.codes)]
    if isinstance(dtype, _loaded("numpy", "dtype")) and dtype.kind != "O":
        return _array(values.to_numpy())
    return [repr(dtype), [cell(item) for item in values]]


def _index(value: Any, cell: Cell) -> Any:
    levels = [value]
    is_of_tuples = False  # of one level, and else of the form of that level
    if isinstance(value, _loaded("pandas", "MultiIndex")):
        levels = [value.get_level_values(number) for number in range(value.nlevels)]
        is_of_tuples = value.nlevels == 1
    is_of_times = value.dtype.kind in "mM"  # of periods the dtype tells it
    freq = getattr(value, "freqstr", None)
    freq = _freq_form(value.freq, cell) if is_of_times and freq is not None else freq
    form = [[_column(level, cell) for level in levels], [cell(name) for name in value.names], freq]
    return [*form, "tuples"] if is_of_tuples else form


def single_form(value: Any, cell: Cell) -> Any:
    """Return what identifies a single value of pandas' in a cell, as JSON; None of anything else.

    Arrays of pandas' own are no single values: their text leaves elements out.
    """
    kind = type(value).__name__
    if kind in _TOLD_BY_TEXT:
        return repr(value)
    if kind == "Interval":
        ends = value.left, value.right
        # The text of other ends leaves out what they are: float32, a time in which zone.
        return repr(value) if {*map(type, ends)} <= {int, float} else [*map(cell, ends), value.closed]
    return _freq_form(value, cell) if hasattr(value, "is_on_offset") else None


def _freq_form(freq: Any, cell: Cell) -> Any:
    """Return the text of a frequency, and what else it is made of where that says less: holidays, hours of a day."""
    if is_named_freq(freq):
        return freq.freqstr
    parts = dict(freq.kwds)
    calendar = parts.pop("calendar", None)
    if calendar is not None:
        parts["calendar"] = [calendar.holidays, calendar.weekmask]
    return [freq.freqstr, freq.n, bool(freq.normalize), cell(parts)]


def copy_of(value: Any, kind: str, clone: Cell) -> Any:
    """Return a copy that shares nothing with *value*; *clone* copies an element that is an object."""
    if kind in {"array", "masked", "index"}:
        return value.copy()
    copy = value.copy(deep=True)
    if kind == "series":
        if _has_objects(copy.dtype):
            flags = value.flags.allows_duplicate_labels
            copy = _loaded("pandas", "Series")(_cloned(value, clone), index=copy.index, name=value.name)
            copy = copy.set_flags(allows_duplicate_labels=flags)
    else:
        for place, dtype in enumerate(copy.dtypes):
            if _has_objects(dtype):
                copy.isetitem(place, _cloned(value.iloc[:, place], clone))
    copy.attrs = clone(dict(value.attrs))
    return copy


def _has_objects(dtype: Any) -> bool:
    return isinstance(dtype, _loaded("numpy", "dtype")) and dtype.kind == "O"


def _cloned(values: Any, clone: Cell) -> Any:
    cells = sys.modules["numpy"].empty(len(values), object)
    for place, item in enumerate(values):
        cells[place] = clone(item)
    return _loaded("pandas", "Series")(cells, index=values.index, dtype=object)
