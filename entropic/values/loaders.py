"""Result files into values, by suffix: `record.load()` and `record.open()`.

The suffix alone says what is in a file; the longest one that is known wins. A damaged file that cannot be read is told
from a loader that fails by the digest that the run recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from entropic.disk.files import require_digest
from entropic.errors import CorruptFileError, ResultFileMissingError
from entropic.values import formats, labelled

__all__ = ["OF_VALUES", "SHIPPED", "Loader", "check_suffix", "load", "open_file", "register_loader"]

Loader = Callable[[str], Any]

OF_VALUES: dict[str, Loader] = {
    ".value.json": formats.load_value_json,
    ".value.h5": formats.load_value_hdf5,
    ".series.parquet": labelled.load_series,
    ".dataarray.nc": labelled.load_dataarray,
}
"""Suffixes that say how entropic wrote a value."""

SHIPPED: dict[str, Loader] = {
    ".csv": labelled.load_csv,
    ".h5": formats.load_hdf5,
    ".hdf5": formats.load_hdf5,
    ".json": formats.load_json,
    ".nc": labelled.load_dataset,
    ".npy": formats.load_npy,
    ".npz": formats.load_npz,
    ".parquet": labelled.load_parquet,
    ".zarr": formats.load_zarr,
    **OF_VALUES,
}

_OPENERS: dict[str, Loader] = {
    ".csv": formats.open_text,
    ".h5": formats.open_hdf5,
    ".hdf5": formats.open_hdf5,
    ".json": formats.open_text,
    ".nc": labelled.open_netcdf,
    ".npy": formats.open_numpy,
    ".npz": formats.open_numpy,
    ".parquet": labelled.open_parquet,
    ".zarr": formats.open_zarr,
}

_known = dict(SHIPPED)
_lock = threading.Lock()


def load(path: str, recorded: tuple[int, str] | None = None, *, verify: bool = False) -> Any:
    """Return what the file or folder at *path* holds.

    Parameters
    ----------
    recorded : (int, str), optional
        Size in bytes and SHA-256 of what the run wrote, where they are known.
    verify : bool
        Compare them first. Without, they are compared only if the file cannot be read.

    Raises
    ------
    ResultFileMissingError
        If there is nothing at *path*, or nothing *recorded* to verify it with.
    CorruptFileError
        If it is not what was recorded.
    ValueError
        If there is no loader for its suffix.
    ImportError
        If its loader needs a package that is not installed.
    """
    loader = _loader_of(path)
    if verify:
        if recorded is None:
            raise ResultFileMissingError(
                f"there is no digest to compare {path!r} with: no Store retrieved the record, or an earlier release or "
                "SQL wrote it"
            )
        _compare(path, recorded)
    try:
        return loader(path)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except ImportError:
        raise
    except Exception as error:  # a damaged file may make a loader, perhaps a user's, raise anything
        if recorded is not None and not verify:
            try:
                _compare(path, recorded)
            except CorruptFileError as corrupt:
                raise corrupt from error
        raise


def open_file(path: str) -> Any:
    """Open the file at *path* for reading, without reading all of it.

    Raises
    ------
    ResultFileMissingError
        If there is nothing at *path*.
    ImportError
        If that needs a package that is not installed.
    """
    opener = _OPENERS.get(_suffix_of(path, _OPENERS), formats.open_binary)
    try:
        return opener(path)
    except FileNotFoundError as error:
        raise _missing(path) from error


def register_loader(suffix: str, function: Loader) -> None:
    """Let *function* read the files of *suffix*, for ``record.load()``.

    Parameters
    ----------
    suffix : str
        Such as ``".vtk"`` or ``".ascii.gz"``; upper and lower case are one.
    function : callable
        Called with the path, a str.

    Raises
    ------
    ValueError
        If *suffix* does not begin with a dot, or says how `memoize` wrote a value.
    TypeError
        If *function* cannot be called.

    Notes
    -----
    It holds for this process. A second call for a suffix, also one that entropic knows, replaces its loader.

    Examples
    --------
    >>> register_loader(".log", lambda path: open(path).read())
    """
    check_suffix(suffix)
    if not callable(function):
        raise TypeError(f"register_loader needs a function of a path for {suffix!r}, not {function!r}")
    global _known
    with _lock:
        _known = {**_known, suffix.lower(): function}  # replaced, not changed: readers take no lock


def check_suffix(suffix: str) -> None:
    """Raise ValueError unless a loader may be registered for *suffix*."""
    if not suffix.startswith(".") or len(suffix) < 2 or "/" in suffix:
        raise ValueError(f"a suffix is a dot and what follows it, such as '.vtk', not {suffix!r}")
    if suffix.lower() in OF_VALUES:
        raise ValueError(f"{suffix!r} says how memoize wrote a value, and cannot be read in another way")


def _loader_of(path: str) -> Loader:
    suffix = _suffix_of(path, _known)
    if not suffix:
        own = Path(path).suffix
        raise ValueError(
            f"there is no loader for {Path(path).name!r}: say how such a file is read, with "
            f"entropic.register_loader({own or '.suffix'!r}, function), or open it with record.open()"
        )
    return _known[suffix]


def _suffix_of(path: str, known: Iterable[str]) -> str:
    """Return the longest of the *known* suffixes that *path* ends in; an empty one if there is none."""
    name = path.lower()
    return max((suffix for suffix in known if name.endswith(suffix)), key=len, default="")


def _compare(path: str, recorded: tuple[int, str]) -> None:
    try:
        require_digest(Path(path), *recorded)
    except FileNotFoundError as error:
        raise _missing(path) from error


def _missing(path: str) -> ResultFileMissingError:
    return ResultFileMissingError(f"the result is not there: {path!r}")
