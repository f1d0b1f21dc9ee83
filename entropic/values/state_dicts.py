"""Nested state dicts in one HDF5 file: each array is a dataset that is read by itself, the rest is a document.

The document is typed JSON, as `entropic.values.documents` has it, with the names of the datasets where the arrays were;
keys that are no strings, lists, tuples and None come back as they were. A tensor of torch's is told by what it can do,
and torch is never imported: what was a tensor comes back as one where torch is loaded already, else as NumPy's array.
Types that NumPy does not have, such as bfloat16, are kept bit by bit. There is no pickle.
"""

from __future__ import annotations

import errno
import importlib
import json
import math
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from io import BytesIO
from operator import getitem
from typing import Any

from entropic.disk.following import Following
from entropic.errors import DecodeError
from entropic.values import documents
from entropic.values.documents import MARKER, is_plain_array
from entropic.values.untrusted import Budget, require_regular
from entropic.values.untrusted_hdf5 import require_hard_links

__all__ = ["EncodedStates", "StatesFile", "StoredArray", "encode_states", "save_states"]

_DOCUMENT = "__document__"
_NAME_LENGTH = 1000  # of a dataset
_NATIVE = frozenset("biufc")  # kinds of types that HDF5 has
_WIDE = frozenset("gG")  # long doubles, which other machines have otherwise
# Types of torch's and of ml_dtypes', and the integer in which NumPy keeps their bits.
_BITS = {
    "bfloat16": "uint16",
    **dict.fromkeys(["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"], "uint8"),
}
_SCALARS = frozenset([type(None), bool, int, float, str, *(kind for kind, _, _ in documents.CODECS.values())])
_SIGNED = {"uint16": "int16", "uint8": "uint8"}  # of the same size, in every release of torch
_NPY = "npy"


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
    values = numpy.asarray(array, order="C")
    if dtype.name in _BITS and dtype.type.__module__.startswith("ml_dtypes"):
        return values.view(_BITS[dtype.name]), ["numpy", dtype.name]
    if not is_plain_array(values):
        raise _refusal(array, path, f"of the type {dtype}")
    if dtype.kind in _NATIVE and dtype.char not in _WIDE:
        return values, None
    octets = BytesIO()  # texts, times and structures
    numpy.lib.format.write_array(octets, values, version=(3, 0), allow_pickle=False)
    return numpy.frombuffer(octets.getbuffer(), "u1"), ["numpy", _NPY]


def save_states(encoded: EncodedStates, path: str) -> tuple[int, str]:
    """Write a new file, sync it, and return its size in bytes and its SHA-256.

    HDF5 lays the file out, and the arrays are written where their datasets are, in the order of the file: so the digest
    can be made behind the writing, and is ready soon after the sync.
    """
    numpy = _numpy()
    document = json.dumps(encoded.document, allow_nan=False).encode("ascii")
    arrays = {_DOCUMENT: numpy.frombuffer(document, "u1"), **encoded.arrays}
    places = _laid_out(arrays, path)
    with open(path, "r+b", buffering=0) as file, Following(file) as following:
        for offset, name in places:
            following.follow(offset)
            _write_at(file.fileno(), arrays[name].reshape(-1).view("u1"), offset)
        return following.synced()


def _laid_out(arrays: Mapping[str, Any], path: str) -> list[tuple[int, str]]:
    """Write an HDF5 file whose datasets have no values yet; return where each has its place, by ascending offset."""
    import h5py

    # Of one block each: what is in chunks or compressed is written more slowly than the disk is.
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_layout(h5py.h5d.CONTIGUOUS)
    made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    made.set_obj_track_times(False)
    linked = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    linked.set_create_intermediate_group(True)
    linked.set_char_encoding(h5py.h5t.CSET_UTF8)
    kinds: dict[Any, Any] = {}
    places = []
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            kind = kinds.get(array.dtype)
            if kind is None:
                kind = kinds[array.dtype] = h5py.h5t.py_create(array.dtype, logical=True)
            space = h5py.h5s.create_simple(array.shape)
            node = h5py.h5d.create(file.id, name.encode(), kind, space, made, linked)
            if array.size:
                places.append((node.get_offset(), name))
    return sorted(places)


def _write_at(descriptor: int, octets: Any, offset: int) -> None:
    while octets.size:  # one call writes 2 GB at most
        count = os.pwrite(descriptor, octets.data, offset)
        octets, offset = octets[count:], offset + count


def _read_at(descriptor: int, octets: Any, offset: int) -> None:
    while octets.size:
        count = os.preadv(descriptor, [octets.data], offset)
        if not count:
            raise OSError(errno.EIO, "the file ends within an array")
        octets, offset = octets[count:], offset + count


class StatesFile:
    """A file of `save_states`, open for reading.

    Raises
    ------
    DecodeError
        If it is another file: it leads to other files, or has no document.
    OSError
        If it is no HDF5, or damaged.

    Notes
    -----
    What is open stays readable when the file is removed. Safe to share between threads.
    """

    def __init__(self, path: str) -> None:
        import h5py

        require_regular(path)
        self._open = h5py.h5d.open
        self._path = path
        self._file = h5py.File(path, "r")
        try:
            require_hard_links(self._file, path)
            self._size = os.path.getsize(path)
            self._document = self._parsed()
        except BaseException:
            self._file.close()
            raise

    def _parsed(self) -> dict[str, Any]:
        try:
            document = json.loads(self._values(_DOCUMENT).tobytes())
            are_ours = [type(document[part]) for part in ("states", "metadata", "kinds")] == [
                dict,
                list,
                dict,
            ]
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise DecodeError(
                f"{self._path!r} holds no weights that entropic wrote: {error!s:.200}"
            ) from error
        if not are_ours:
            raise DecodeError(f"{self._path!r} holds no weights that entropic wrote")
        return dict(document)

    def read(self) -> dict[str, Any]:
        """Return all states, by name.

        Raises
        ------
        DecodeError
            If they are nothing that `save_states` writes.
        ImportError
            If there is a type that NumPy does not have, and neither torch is loaded nor ml_dtypes is installed.
        """
        budget = Budget(self._path, self._size, ratio=1)  # a document may name one array many times
        return self._decoded(lambda name: self.restored(name, self._values(name, budget)))

    def listed(self) -> dict[str, Any]:
        """Return all states with a `StoredArray` in the place of each array: nothing of them is read."""
        return self._decoded(lambda name: self.load(name) if self._is_npy(name) else StoredArray(self, name))

    def _decoded(self, array: Callable[[str], Any]) -> dict[str, Any]:
        states = {name: documents.decode(state, array) for name, state in self._document["states"].items()}
        for found in self._document["metadata"]:
            try:
                steps, metadata = documents.decode(found, array)
                holder: Any = reduce(getitem, steps, states)
                holder._metadata = metadata
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise DecodeError(f"{self._path!r} has metadata that fits nothing: {error}") from error
        return states

    def load(self, name: str) -> Any:
        """Return one array."""
        return self.restored(name, self._values(name))

    def restored(self, name: str, values: Any) -> Any:
        """Return what a dataset's *values*, all of them or a part, stand for."""
        kind = self._document["kinds"].get(name)
        if kind is None:
            return values
        try:
            library, dtype = kind
            if dtype == _NPY:
                return _numpy().lib.format.read_array(BytesIO(values.tobytes()), allow_pickle=False)
            is_known = not dtype or values.dtype == _BITS[dtype]
        except (ValueError, TypeError, LookupError) as error:
            raise DecodeError(f"{name!r} in {self._path!r} cannot be read: {error}") from error
        if not is_known:
            raise DecodeError(f"{name!r} in {self._path!r} is not of {dtype}: it has {values.dtype}")
        return _restored(values, library, dtype, name)

    def node(self, name: str) -> tuple[Any, tuple[int, ...], Any]:
        """Return the dataset of a name, its shape, and its type as NumPy has it.

        Raises
        ------
        ValueError
            If the file was closed.
        DecodeError
            If there is none, or one that is no array as `save_states` writes them: in one block of this file.
        """
        if not self._file:
            raise ValueError(f"the file {self._path!r} was closed before {name!r} was read from it")
        try:
            node = self._open(self._file.id, name.encode())
            dtype = node.dtype
            shape = node.shape if dtype.kind in _NATIVE else None
        except (KeyError, ValueError, TypeError) as error:
            raise DecodeError(f"{self._path!r} has no array {name!r}: {error}") from error
        size = math.prod(shape or ()) * dtype.itemsize
        if shape is None or node.get_storage_size() != size or (size and node.get_offset() is None):
            raise DecodeError(  # in chunks, in another file, or never written
                f"{name!r} in {self._path!r} is no array of weights"
            )
        return node, shape, _numpy().dtype(dtype.str)  # h5py's own looks another

    def _values(self, name: str, budget: Budget | None = None) -> Any:
        node, shape, dtype = self.node(name)
        budget = budget or Budget(self._path, self._size, ratio=1)
        budget.take(math.prod(shape) * dtype.itemsize, name)
        values = _numpy().empty(shape, dtype)
        if values.size:
            # Not by HDF5, which takes longer to say the same.
            _read_at(self._file.id.get_vfd_handle(), values.reshape(-1).view("u1"), node.get_offset())
        return values

    def dtype_of(self, name: str) -> str:
        """Return the name of an array's type."""
        kind = self._document["kinds"].get(name)
        return str(kind[1]) if kind and kind[1] else str(self.node(name)[2])

    def _is_npy(self, name: str) -> bool:
        kind = self._document["kinds"].get(name)
        return isinstance(kind, list) and kind[-1:] == [_NPY]

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

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self._file.node(self.name)[1]

    @property
    def dtype(self) -> str:
        """Name of its type, as NumPy or torch has it."""
        return self._file.dtype_of(self.name)

    def load(self) -> Any:
        """Return the array, or the tensor if it was one and torch is loaded."""
        return self._file.load(self.name)

    def __getitem__(self, key: Any) -> Any:
        import h5py

        values = _numpy().asarray(h5py.Dataset(self._file.node(self.name)[0])[key])
        return self._file.restored(self.name, values.astype(values.dtype.str, copy=False))

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
