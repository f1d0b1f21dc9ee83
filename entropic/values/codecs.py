"""Values into result files, by type: how a memoized function's return value is kept.

npy for an array, typed JSON for plain values, HDF5 where arrays are nested in them, parquet for pandas, netCDF for
xarray, and what users register. There is no pickle. What no format would give back equal is a TypeError.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from entropic.values import labelled
from entropic.values.documents import PLAIN
from entropic.values.formats import save_value
from entropic.values.loaders import SHIPPED, check_suffix, register_loader

__all__ = ["Codec", "adopt", "can_save", "register_codec", "registered_codecs", "save"]

T = TypeVar("T")

# By package and class, so that nothing is imported to find out that a value is none of them.
_LABELLED: dict[tuple[str, str], tuple[str, Callable[[Any, str], None]]] = {
    ("pandas", "DataFrame"): (".parquet", labelled.save_frame),
    ("pandas", "Series"): (".series.parquet", labelled.save_series),
    ("xarray", "Dataset"): (".nc", labelled.save_xarray),
    ("xarray", "DataArray"): (".dataarray.nc", labelled.save_xarray),
}


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of one type are written and read."""

    type_: type
    suffix: str
    save: Callable[[Any, str], object]
    load: Callable[[str], Any]


_codecs: dict[type, Codec] = {}
_lock = threading.Lock()


def register_codec(
    type_: type[T], suffix: str, *, save: Callable[[T, str], object], load: Callable[[str], T]
) -> None:
    """Let memoized functions return values of *type_*, or of a subclass.

    Parameters
    ----------
    type_ : type
        Any but the plain ones, such as dict. `numpy.ndarray` may be registered: its old results stay readable.
    suffix : str
        Of the files, such as ``".mesh"``; no other type's, as it alone says how a file is read.
    save : callable
        ``save(value, path)`` writes one file or folder, at exactly this path.
    load : callable
        ``load(path)`` returns an equal value.

    Raises
    ------
    ValueError
        If the suffix is another type's or one that entropic knows, or *type_* is a plain one.
    TypeError
        If *type_* is no class, or *save* or *load* cannot be called.

    Notes
    -----
    It holds for this process, and goes with the tasks of a sweep to its workers. Register a type where it is defined.

    Examples
    --------
    >>> class Dial:
    ...     def __init__(self, position):
    ...         self.position = position
    >>> def write(dial, path):
    ...     with open(path, "w") as file:
    ...         print(dial.position, file=file)
    >>> register_codec(Dial, ".dial", save=write, load=lambda path: Dial(int(open(path).read())))
    """
    if not isinstance(type_, type):
        raise TypeError(f"register_codec needs a class, not {type_!r}")
    if type_ in PLAIN or type_ is object:
        raise ValueError(
            f"how a value of type {type_.__name__} is written is fixed: register a class of your own"
        )
    for name, function in (("save", save), ("load", load)):
        if not callable(function):
            raise TypeError(
                f"register_codec needs a function {name}= for {_full_name(type_)}, not {function!r}"
            )
    check_suffix(suffix)
    if suffix.lower() in SHIPPED:
        raise ValueError(
            f"{suffix!r} is read by entropic itself: choose another suffix for {_full_name(type_)}"
        )
    _register(Codec(type_, suffix.lower(), save, load))


def registered_codecs() -> tuple[Codec, ...]:
    """Return what was registered, for other processes."""
    return tuple(_codecs.values())


def adopt(codecs: Iterable[Codec]) -> None:
    """Register what came from another process."""
    for codec in codecs:
        if _codecs.get(codec.type_) != codec:
            _register(codec)


def can_save(type_: type) -> bool:
    """Whether values of *type_* can be written; false only if none can."""
    import numpy as np

    if _saver_of(type_) is not None or issubclass(type_, np.generic):
        return True
    return any(issubclass(known, type_) for known in (*PLAIN, np.ndarray, np.ma.MaskedArray, *_codecs))


def save(value: Any, stem: str) -> None:
    """Write *value* to a file named *stem* and the suffix that says how it is read.

    Raises
    ------
    TypeError
        If no format would give an equal value back. The text names `register_codec`.
    """
    saver = _saver_of(type(value))
    if saver is None:
        save_value(value, stem)
    else:
        suffix, function = saver
        function(value, stem + suffix)


def _saver_of(type_: type) -> tuple[str, Callable[[Any, str], object]] | None:
    """Return suffix and function for a type that was registered, or is pandas' or xarray's."""
    for parent in type_.__mro__:
        if parent in _codecs:
            return _codecs[parent].suffix, _codecs[parent].save
    # Of those exactly these: a subclass would come back as something else.
    return _LABELLED.get((type_.__module__.partition(".")[0], type_.__name__))


def _register(codec: Codec) -> None:
    global _codecs
    with _lock:
        others = {
            type_: one
            for type_, one in _codecs.items()
            if one.suffix != codec.suffix and type_ != codec.type_
        }
        for owner in _codecs.values():
            # A class of the same name is the same one, whose cell ran again.
            if owner.suffix == codec.suffix and _full_name(owner.type_) != _full_name(codec.type_):
                raise ValueError(
                    f"{codec.suffix!r} is the suffix of {_full_name(owner.type_)}: choose another for "
                    f"{_full_name(codec.type_)}"
                )
        _codecs = {**others, codec.type_: codec}  # replaced, not changed: readers take no lock
    register_loader(codec.suffix, codec.load)


def _full_name(type_: type) -> str:
    return f"{type_.__module__}.{type_.__qualname__}"
