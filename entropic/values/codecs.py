"""Values into result files by type, and back by suffix: what `memoize` keeps, `record.load()` and `record.open()`.

Written is npy for an array, typed JSON for plain values, HDF5 where arrays are nested in them, parquet for pandas,
netCDF for xarray, and what users register. There is no pickle. What no format would give back equal is a TypeError.
Read is by the suffix alone; the longest one that is known wins. A damaged file that cannot be read is told from a
loader that fails by the digest that the run recorded.
"""

from __future__ import annotations

import inspect
import os
import stat
from abc import ABC
from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from entropic.disk.files import remove, require_digest
from entropic.errors import CorruptFileError, DecodeError, ResultFileMissingError
from entropic.process.forked_locks import ForkedLock
from entropic.values.documents import PLAIN, encode, is_plain_array, read_files_with
from entropic.values.formats import FORMATS, Format, open_binary
from entropic.values.objects import shape_of
from entropic.values.pandas_parts import is_labelled
from entropic.values.rest import encode_rest
from entropic.values.row_texts import text_of
from entropic.values.untrusted import require_regular, take_file_within

__all__ = [
    "adopt",
    "as_file",
    "can_save",
    "load",
    "open_file",
    "register_codec",
    "register_loader",
    "registered_codecs",
    "save",
    "save_rest",
]

T = TypeVar("T")
Loader = Callable[[str], Any]

_known: dict[str, Format] = dict(FORMATS)  # replaced, not changed: readers take no lock
_lock = ForkedLock()


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
        If *type_* is no class, *suffix* no text, or *save* or *load* cannot be called.

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
    _check_suffix(suffix)
    if suffix.lower() in FORMATS:
        raise ValueError(
            f"{suffix!r} is read by entropic itself: choose another suffix for {_full_name(type_)}"
        )
    _register(Format(suffix.lower(), load, types=(type_,), save=save))


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
        If *suffix* is no text, or *function* cannot be called.

    Notes
    -----
    It holds for this process. A second call for a suffix, also one that entropic knows, replaces its loader.

    Examples
    --------
    >>> register_loader(".log", lambda path: open(path).read())
    """
    _check_suffix(suffix)
    if not callable(function):
        raise TypeError(f"register_loader needs a function of a path for {suffix!r}, not {function!r}")
    global _known
    suffix = suffix.lower()
    with _lock.held():
        _known = {**_known, suffix: replace(_known.get(suffix, Format(suffix, function)), reader=function)}


def registered_codecs() -> tuple[Format, ...]:
    """Return what was given to `register_codec`, for other processes."""
    return tuple(
        replace(one, reader=None) for one in _known.values() if one.suffix not in FORMATS and one.types
    )


def adopt(formats: Iterable[Format]) -> None:
    """Register what came from another process."""
    here = registered_codecs()
    for one in formats:
        if one not in here:
            _register(one)


def can_save(type_: type) -> bool:
    """Whether values of *type_* can be written; false only if none can, as far as its subclasses are known."""
    import numpy as np

    if _is_abstract(type_):
        return True  # what its values are, it does not say
    if _format_of(type_) is not None or issubclass(type_, np.generic | Enum) or shape_of(type_) is not None:
        return True
    if is_labelled(type_):
        return True
    own = [kind for one in registered_codecs() for kind in one.types if isinstance(kind, type)]
    is_base = any(issubclass(known, type_) for known in (*PLAIN, np.ndarray, np.ma.MaskedArray, *own))
    return is_base or (not issubclass(type_, type) and any(map(can_save, type_.__subclasses__())))


def _is_abstract(type_: type) -> bool:
    """Whether a class is a protocol or an abstract base of somebody's; of which many cannot be asked for subclasses."""
    is_declared = ABC in type_.__bases__ or inspect.isabstract(type_)
    return getattr(type_, "_is_protocol", False) or (is_declared and type_.__module__ != "collections.abc")


def save(value: Any, stem: str, *, inline_bytes: int = 0) -> str | None:
    """Write *value* to a file named *stem* and the suffix that says how it is read, or return it as a text.

    Parameters
    ----------
    inline_bytes : int
        A value that would be typed JSON, and takes no more than this, is returned instead of written.

    Returns
    -------
    str or None
        What `entropic.values.row_texts` reads; None if there is a file.

    Raises
    ------
    TypeError
        If no format would give an equal value back. The text names `register_codec`.
    """
    found = FORMATS[".npy"] if is_plain_array(value) else None
    found = _format_of(type(value)) or found
    if found is not None and found.save is not None:
        try:
            found.save(value, stem + found.suffix)
        except TypeError:
            if found.suffix not in FORMATS:
                raise  # of a user's
            remove(Path(stem + found.suffix))
        else:
            return None
    content = encode(value, lambda inner: None if inner is value else as_file(inner))
    if not content[1] and (text := text_of(content[0], inline_bytes)) is not None:
        return text
    found = FORMATS[".value.h5" if content[1] else ".value.json"]
    write: Any = found.save
    write(content, stem + found.suffix)
    return None


def save_rest(value: Any, stem: str) -> tuple[Path, list[str]]:
    """Write what can be written of a value that `save` refused, the rest as text; return the file, and what is text."""
    document, arrays, left_out = encode_rest(value, _as_file_or_none)
    found = FORMATS[".value.h5" if arrays else ".value.json"]
    write: Any = found.save
    path = stem + found.suffix
    write((document, arrays), path)
    return Path(path), left_out


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
        If it is not what was recorded, or was changed between that and the end of the reading.
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
        before = _state(path)
        _compare(path, recorded)
    try:
        require_regular(path)
        value = loader(path)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except ImportError:
        raise
    except RecursionError as error:
        raise _nested(path) from error
    except Exception as error:  # a damaged file may make a loader, perhaps a user's, raise anything
        if recorded is not None and not verify:
            try:
                _compare(path, recorded)
            except CorruptFileError as corrupt:
                raise corrupt from error
        raise
    if verify and _state(path) != before:
        raise CorruptFileError(
            f"{path!r} was changed or replaced while it was read, perhaps by another run: ask for the record again"
        )
    return value


def open_file(path: str) -> Any:
    """Open the file at *path* for reading, without reading all of it.

    Raises
    ------
    ResultFileMissingError
        If there is nothing at *path*.
    IsADirectoryError
        If it is a folder, of no format that is one.
    ImportError
        If that needs a package that is not installed.
    """
    suffix = _suffix_of(path, FORMATS)
    try:
        require_regular(path)
        return FORMATS[suffix].open(path) if suffix else open_binary(path)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except IsADirectoryError as error:
        raise IsADirectoryError(_described_folder(Path(path), Path(path).suffix)) from error
    except RecursionError as error:
        raise _nested(path) from error


def as_file(value: Any) -> tuple[str, Any] | None:
    """Return suffix and bytes of a value within another one that has a format of its own."""
    found = _format_of(type(value))
    if found is None or found.save is None or isinstance(value, PLAIN):
        return None
    import numpy as np

    with TemporaryDirectory(prefix="entropic-") as folder:
        path = Path(folder, f"value{found.suffix}")
        try:
            found.save(value, str(path))
        except TypeError:
            if found.suffix not in FORMATS:
                raise
            return None  # which is taken apart
        if not path.is_file():
            return None  # a folder: such a value is returned by itself
        return found.suffix, np.frombuffer(path.read_bytes(), "u1")


def _as_file_or_none(value: Any) -> tuple[str, Any] | None:
    try:
        return as_file(value)
    except OSError:
        raise
    except Exception:  # of a user's codec, or for want of a package: what is left of the value is kept
        return None


def _from_file(suffix: str, content: bytes) -> Any:
    take_file_within(len(content), suffix)
    with TemporaryDirectory(prefix="entropic-") as folder:
        path = Path(folder, f"value{suffix}")
        path.write_bytes(content)
        return _loader_of(str(path))(str(path))


read_files_with(_from_file)


def _format_of(type_: type) -> Format | None:
    """Return how values of a type that was registered, or is pandas' or xarray's, are written."""
    known = _known.values()
    for parent in type_.__mro__:
        for one in known:
            if parent in one.types:
                return one
    # Of those exactly these: a subclass would come back as something else.
    name = f"{type_.__module__.partition('.')[0]}.{type_.__name__}"
    return next((one for one in known if name in one.types), None)


def _register(codec: Format) -> None:
    global _known
    (type_,) = codec.types
    with _lock.held():
        former = _known.get(codec.suffix)
        # A class of the same name is the same one, whose cell ran again.
        for owner in former.types if former else ():
            if _full_name(owner) != _full_name(type_):
                raise ValueError(
                    f"{codec.suffix!r} is the suffix of {_full_name(owner)}: choose another for {_full_name(type_)}"
                )
        # What the type was written in before is still read.
        others = {
            suffix: replace(one, types=(), save=None) if type_ in one.types else one
            for suffix, one in _known.items()
        }
        _known = {**others, codec.suffix: codec}


def _check_suffix(suffix: str) -> None:
    """Raise ValueError, or TypeError, unless a loader may be registered for *suffix*."""
    if not isinstance(suffix, str):
        raise TypeError(f"a suffix is a text, such as '.vtk', not {suffix!r:.200}")
    if not suffix.startswith(".") or len(suffix) < 2 or "/" in suffix:
        raise ValueError(f"a suffix is a dot and what follows it, such as '.vtk', not {suffix!r}")
    if suffix.lower() in FORMATS and FORMATS[suffix.lower()].is_of_values:
        raise ValueError(f"{suffix!r} says how memoize wrote a value, and cannot be read in another way")


def _full_name(type_: Any) -> str:
    return f"{type_.__module__}.{type_.__qualname__}"


def _loader_of(path: str) -> Loader:
    suffix = _suffix_of(path, _known)
    if not suffix:
        own = Path(path).suffix
        if Path(path).is_dir():
            raise ValueError(_described_folder(Path(path), own))
        raise ValueError(
            f"there is no loader for {Path(path).name!r}: say how such a file is read, with "
            f"entropic.register_loader({own or '.suffix'!r}, function), or open it with record.open()"
        )
    return _known[suffix].reader or _known[suffix].load


def _described_folder(path: Path, suffix: str) -> str:
    names = sorted(one.name for one in path.iterdir())
    inside = ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    way = f"say how it is read, with entropic.register_loader({suffix!r}, function), or " if suffix else ""
    return (
        f"the result {path.name!r} is a folder with {inside or 'nothing in it'}: {way}read what is in it, as in "
        f"Path(record.result_file, {names[0] if names else 'name'!r})"
    )


def _suffix_of(path: str, known: Container[str]) -> str:
    """Return the longest of the *known* suffixes that *path* ends in; an empty one if there is none."""
    name = os.path.basename(path).lower()
    at = name.find(".")
    while at >= 0:
        if name[at:] in known:
            return name[at:]
        at = name.find(".", at + 1)
    return ""


def _state(path: str) -> tuple[int, ...]:
    """Return what tells the file or folder at *path* from another, and a file from what it was before a change."""
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise _missing(path) from error
    is_folder = stat.S_ISDIR(status.st_mode)  # in which a loader may leave something
    changes = () if is_folder else (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return status.st_dev, status.st_ino, *changes


def _compare(path: str, recorded: tuple[int, str]) -> None:
    try:
        require_digest(Path(path), *recorded)
    except FileNotFoundError as error:
        raise _missing(path) from error


def _nested(path: str) -> DecodeError:
    return DecodeError(f"what {path!r} holds is nested too deeply to be read")


def _missing(path: str) -> ResultFileMissingError:
    return ResultFileMissingError(
        f"the result is not there: {path!r}. Bring it back; or, unless it was registered, the next call runs it again"
    )
