"""Nested state dicts in one HDF5 file: each array is a dataset that is read by itself, the rest is a document.

The document is typed JSON, as `entropic.values.documents` has it, with the names of the datasets where the arrays were;
keys that are no strings, lists, tuples and None come back as they were. A tensor of torch's is told by what it can do,
and torch is never imported: what was a tensor comes back as one where torch is loaded already, else as NumPy's array.
Types that NumPy does not have, such as bfloat16, are kept bit by bit. There is no pickle.
"""

from __future__ import annotations

import importlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from io import BytesIO
from operator import getitem
from typing import Any

from entropic.errors import DecodeError
from entropic.values import documents
from entropic.values.array_files import NATIVE, ArraysFile, save_arrays
from entropic.values.documents import MARKER, is_plain_array
from entropic.values.kinds import CODECS
from entropic.values.untrusted import files_within, require_small_npy

__all__ = ["EncodedStates", "StatesFile", "StoredArray", "encode_states", "save_states"]

_NAME_LENGTH = 1000  # of a dataset
_WIDE = frozenset("gG")  # long doubles, which other machines have otherwise
# Types of torch's and of ml_dtypes', and the integer in which NumPy keeps their bits.
_BITS = {
    "bfloat16": "uint16",
    **dict.fromkeys(["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"], "uint8"),
}
_SCALARS = frozenset([type(None), bool, int, float, str, *(kind for kind, _, _ in CODECS.values())])
_SIGNED = {"uint16": "int16", "uint8": "uint8"}  # of the same size, in every release of torch
_NPY = "npy"
_KINDS = [["numpy", _NPY], *([library, dtype] for library in ("numpy", "torch") for dtype in ("", *_BITS))]


@dataclass
class EncodedStates:
    """State dicts, ready to be written.

    Attributes
    ----------
    document : dict
        JSON.
    arrays : dict
        What the datasets hold, by name.
    """

    document: dict[str, Any]
    arrays: dict[str, Any] = field(default_factory=dict)


def encode_states(states: Mapping[str, Any]) -> EncodedStates:
    """Return *states*, by name, as `save_states` writes them; arrays are not copied if they are contiguous.

    Raises
    ------
    TypeError
        If there is something that is neither an array, nor a scalar, nor a dict, list or tuple of such. The text says
        where.
    """
    encoder = _Encoder()
    try:
        found = {name: encoder.encode(state, (name,)) for name, state in states.items()}
    except RecursionError:
        raise TypeError("a state dict contains itself, or is nested too deeply to be stored") from None
    encoder.result.document.update(states=found, metadata=encoder.metadata, kinds=encoder.kinds)
    return encoder.result


class _Encoder:
    def __init__(self) -> None:
        self.result = EncodedStates({})
        self.kinds: dict[str, list[str]] = {}  # of arrays that HDF5 does not describe by itself
        self.metadata: list[Any] = []  # path and content

    def encode(self, value: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if type(value) is list or type(value) is tuple:
            items = [self.encode(item, (*path, number)) for number, item in enumerate(value)]
            return items if type(value) is list else _tagged("tuple", items)
        if isinstance(value, StoredArray):
            value = value.load()
        if _is_tensor(value):
            return self._array(*_taken(value, path), path)
        if isinstance(value, _numpy().ndarray):
            return self._array(*_described(value, path), path)
        return _scalar(value, path)

    def _mapping(self, value: Mapping[Any, Any], path: tuple[Any, ...]) -> Any:
        is_ordered = isinstance(value, OrderedDict)
        if is_ordered and hasattr(value, "_metadata"):  # torch keeps the versions of modules there
            steps = [_scalar(step, path) for step in path]
            self.metadata.append([steps, self.encode(value._metadata, (*path, "_metadata"))])
        if not is_ordered and MARKER not in value and all(type(key) is str for key in value):
            return {key: self.encode(item, (*path, key)) for key, item in value.items()}
        pairs = [[_scalar(key, path), self.encode(item, (*path, key))] for key, item in value.items()]
        return _tagged("ordered dict" if is_ordered else "dict", pairs)

    def _array(self, array: Any, kind: list[str] | None, path: tuple[Any, ...]) -> Any:
        arrays = self.result.arrays
        name = f"{path[0]}/{'.'.join(map(str, path[1:])) or '.value'}"
        if name in arrays or not _is_good_name(name):
            name = f"{path[0]}/#{len(arrays)}"
        arrays[name] = array
        if kind is not None:
            self.kinds[name] = kind
        return _tagged("array", name)


def _tagged(name: str, content: Any) -> dict[str, Any]:
    return {MARKER: name, "value": content}


def _scalar(value: Any, path: tuple[Any, ...]) -> Any:
    if type(value) is tuple:  # a key
        return _tagged("tuple", [_scalar(item, path) for item in value])
    # No object of a class: who reads the weights may not have it.
    if type(value) not in _SCALARS and not isinstance(value, _numpy().generic):
        raise _refusal(value, path)
    try:
        document, arrays = documents.encode(value)
    except TypeError as error:
        raise _refusal(value, path) from error
    if arrays:  # of a scalar that no JSON holds
        raise _refusal(value, path)
    return document


def _refusal(value: Any, path: tuple[Any, ...], reason: str = "") -> TypeError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    place = "".join([path[0], *(f"[{step}]" for step in path[1:])])
    return TypeError(
        f"{place} cannot be stored: it is a {kind}{reason and f' ({reason})'}. Weights are arrays, tensors, scalars, "
        "None, texts and bytes, in dicts, lists and tuples: make it one of them, or leave it out. Nothing was stored"
    )


def _is_good_name(name: str) -> bool:
    _, _, last = name.partition("/")
    is_path = "/" in last or last in {".", ".."} or "#" in last
    return last.isprintable() and not is_path and len(last) <= _NAME_LENGTH


def _numpy() -> Any:
    import numpy

    return numpy


def _is_tensor(value: Any) -> bool:
    return not isinstance(value, type) and all(
        callable(getattr(value, name, None)) for name in ("detach", "cpu", "numpy")
    )


def _taken(tensor: Any, path: tuple[Any, ...]) -> tuple[Any, list[str]]:
    """Return the values of a tensor of torch's as NumPy has them, and what it was."""
    dtype = str(getattr(tensor, "dtype", "")).removeprefix("torch.")
    try:
        for step in ("detach", "cpu", "resolve_conj", "resolve_neg"):
            tensor = getattr(tensor, step, lambda same=tensor: same)()
        if dtype not in _BITS:
            values = _numpy().asarray(tensor.numpy(), order="C")
            return _described(values, path)[0], ["torch", ""]
        bits = _BITS[dtype]
        values = tensor.contiguous().view(getattr(sys.modules["torch"], _SIGNED[bits])).numpy()
        return values.view(bits), ["torch", dtype]
    except (TypeError, RuntimeError, LookupError) as error:
        raise _refusal(tensor, path, f"{dtype}: {error!s:.200}") from error


def _described(array: Any, path: tuple[Any, ...]) -> tuple[Any, list[str] | None]:
    """Return what a dataset holds of an array, and what it was if the dataset does not tell."""
    numpy = _numpy()
    dtype = array.dtype
    if isinstance(array, numpy.ma.MaskedArray):
        raise _refusal(array, path, "its mask would be lost")
    if type(array) not in {numpy.ndarray, numpy.memmap}:
        raise _refusal(array, path, "a subclass may carry more than its elements: give numpy.asarray of it")
    values = numpy.asarray(array, order="C")
    if dtype.type.__module__.startswith("ml_dtypes") and dtype.name in _BITS:
        return values.view(_BITS[dtype.name]), ["numpy", dtype.name]
    if not is_plain_array(values):
        raise _refusal(array, path, f"of the type {dtype}")
    if dtype.kind in NATIVE and dtype.char not in _WIDE:
        return values, None
    octets = BytesIO()  # texts, times and structures
    numpy.lib.format.write_array(octets, values, version=(3, 0), allow_pickle=False)
    return numpy.frombuffer(octets.getbuffer(), "u1"), ["numpy", _NPY]


def save_states(encoded: EncodedStates, path: str) -> tuple[int, str]:
    """Write a new file, sync it, and return its size in bytes and its SHA-256."""
    return save_arrays(path, encoded.arrays, encoded.document)


class StatesFile:
    """A file of `save_states`, open for reading.

    Raises
    ------
    DecodeError
        If it is another file, or leads to other files.
    OSError
        If it is no HDF5, or damaged.

    Notes
    -----
    What is open stays readable when the file is removed. Safe to share between threads.
    """

    def __init__(self, path: str) -> None:
        self._file = ArraysFile(path)
        document = self._file.document
        if [type(document.get(part)) for part in ("states", "metadata", "kinds")] != [dict, list, dict]:
            self._file.close()
            raise DecodeError(f"{path!r} holds no weights that entropic wrote")

    def read(self) -> dict[str, Any]:
        """Return all states, by name.

        Raises
        ------
        DecodeError
            If they are nothing that `save_states` writes.
        ImportError
            If there is a type that NumPy does not have, and neither torch is loaded nor ml_dtypes is installed.
        """
        read = self._file.reader()
        return self._decoded(lambda name: self._restored(name, read(name)))

    def listed(self) -> dict[str, Any]:
        """Return all states with a `StoredArray` in the place of each array: nothing of them is read."""
        read = self._file.reader()
        return self._decoded(
            lambda name: (
                self._restored(name, read(name)) if self._kind(name)[1] == _NPY else StoredArray(self, name)
            )
        )

    def _decoded(self, array: Callable[[str], Any]) -> dict[str, Any]:
        with files_within(self._file.path, self._file.size):
            return self._of_document(self._file.document, array)

    def _of_document(self, document: dict[str, Any], array: Callable[[str], Any]) -> dict[str, Any]:
        states = {name: documents.decode(state, array) for name, state in document["states"].items()}
        for found in document["metadata"]:
            try:
                steps, metadata = documents.decode(found, array)
                holder: Any = reduce(getitem, steps, states)
                holder._metadata = metadata
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise DecodeError(f"{self._file.path!r} has metadata that fits nothing: {error}") from error
        return states

    def load(self, name: str) -> Any:
        """Return one array."""
        return self._restored(name, self._file.load(name))

    def part(self, name: str, key: Any) -> Any:
        """Return a part of one array."""
        return self._restored(name, self._file.part(name, key))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return self._file.place(name).shape

    def dtype(self, name: str) -> str:
        """Return the name of an array's type."""
        return self._kind(name)[1] or str(self._file.place(name).dtype)

    def _kind(self, name: str) -> tuple[str, str]:
        """Return whose an array was, and its type where a dataset does not tell."""
        kind = self._file.document["kinds"].get(name, ["numpy", ""])
        if kind not in _KINDS:
            raise DecodeError(
                f"{name!r} in {self._file.path!r} is of a kind that entropic does not know: {kind!r:.100}"
            )
        library, dtype = kind
        return library, dtype

    def _restored(self, name: str, values: Any) -> Any:
        library, dtype = self._kind(name)
        if dtype == _NPY:
            try:
                require_small_npy(stream := BytesIO(values.tobytes()), self._file.path, values.nbytes)
                return _numpy().lib.format.read_array(stream, allow_pickle=False)
            except ValueError as error:
                raise DecodeError(f"{name!r} in {self._file.path!r} cannot be read: {error}") from error
        if dtype and values.dtype != _BITS[dtype]:
            raise DecodeError(f"{name!r} in {self._file.path!r} is not of {dtype}: it has {values.dtype}")
        return _restored(values, library, dtype, name)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class StoredArray:
    """An array in a file, which is read when it is asked for.

    Attributes
    ----------
    name : str
        Of its dataset.

    Notes
    -----
    ``array[...]`` reads a part, `load` all of it, and `numpy.asarray` too.
    """

    def __init__(self, file: StatesFile, name: str) -> None:
        self._file = file
        self.name = name
        self.shape = file.shape(name)
        """Its shape."""
        self.dtype = file.dtype(name)
        """Name of its type, as NumPy or torch has it."""

    def load(self) -> Any:
        """Return the array, or the tensor if it was one and torch is loaded."""
        return self._file.load(self.name)

    def __getitem__(self, key: Any) -> Any:
        return self._file.part(self.name, key)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return _numpy().asarray(self.load(), dtype=dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<StoredArray {self.name!r}: {self.dtype}, shape {self.shape}>"


def _restored(values: Any, library: str, dtype: str, name: str) -> Any:
    torch = sys.modules.get("torch")
    if library == "torch" and torch is not None:
        return _tensor(values, dtype, torch)
    if not dtype:
        return values
    try:
        types = importlib.import_module("ml_dtypes")
    except ImportError as error:
        if torch is not None:
            return _tensor(values, dtype, torch)
        raise ImportError(
            f"{name!r} is of the type {dtype}, which NumPy does not have: import torch before the weights are read, or "
            "pip install ml_dtypes"
        ) from error
    return values.view(getattr(types, dtype))


def _tensor(values: Any, dtype: str, torch: Any) -> Any:
    if not dtype:
        return torch.from_numpy(values)
    return torch.from_numpy(values.view(_SIGNED[_BITS[dtype]])).view(getattr(torch, dtype))
