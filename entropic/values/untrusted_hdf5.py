"""HDF5 files that anybody may have put there, netCDF among them: nothing outside is read, and no claim is believed.

Looked at is what describes the data, before they are read. What a text takes is known only when it is read: many may
be one in the file, or all be a fill value. So texts are read in blocks, none of which is larger than all may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from entropic.errors import DecodeError
from entropic.values.untrusted import Budget
from entropic.values.untrusted_heaps import largest_row

__all__ = [
    "content_bytes",
    "hdf5_children",
    "hdf5_objects",
    "largest_content",
    "read_hdf5",
    "read_in_blocks",
    "require_hard_links",
    "require_inside",
    "take_dataset",
]

_NAME_BYTES = 1 << 10  # what a name takes in memory, with the dict or array that it is of
_OBJECT_BYTES = 64  # what an object of Python's takes besides what is in it
_BLOCK = 1 << 16  # elements that are read at once, if each may take so much
_NOT_PACKING = frozenset({2, 3, 5, 6})  # numbers of filters: shuffle, fletcher32, nbit and scaleoffset
_REFERENCE_BYTES = 16  # of a text or row, where it is referred to in another


def require_inside(file: Any, path: str) -> None:
    """Raise `DecodeError` if something in an open HDF5 file is in another file, or links to one."""
    import h5py

    for group, name, where, kind in _links(file):
        if kind == h5py.h5l.TYPE_EXTERNAL:
            raise _leads_out(where, path, "a link to another file")
        if kind == h5py.h5l.TYPE_HARD and h5py.h5o.get_info(group, name).type == h5py.h5o.TYPE_DATASET:
            _require_stored_here(h5py.h5d.open(group, name), where, path)


def _links(file: Any) -> Iterator[tuple[Any, bytes, bytes, Any]]:
    """Yield all links in an open HDF5 file, as group, name, path and kind; each group once."""
    import h5py

    # Not `visit`, which goes down in C until its stack is full.
    waiting = [(file.id, b"")]
    seen = {_address(h5py.h5o.get_info(file.id))}
    while waiting:
        group, above = waiting.pop()
        names: list[tuple[bytes, Any]] = []
        group.links.iterate(lambda name, info, names=names: names.append((name, info.type)), info=True)
        for name, kind in names:
            yield group, name, above + name, kind
            if kind != h5py.h5l.TYPE_HARD:
                continue
            info = h5py.h5o.get_info(group, name)
            if info.type == h5py.h5o.TYPE_GROUP and _address(info) not in seen:
                seen.add(_address(info))
                waiting.append((h5py.h5g.open(group, name), above + name + b"/"))


def hdf5_objects(file: Any) -> Iterator[Any]:
    """Yield the identifiers of all objects in an open HDF5 file, of one by each of its names."""
    import h5py

    yield file.id
    for group, name, _, kind in _links(file):
        if kind == h5py.h5l.TYPE_HARD:
            yield h5py.h5o.open(group, name)


def _require_stored_here(dataset: Any, name: bytes, path: str) -> None:
    import h5py

    made = dataset.get_create_plist()
    if made.get_layout() == h5py.h5d.VIRTUAL:
        raise _leads_out(name, path, "put together from other files")
    if made.get_external_count():
        raise _leads_out(name, path, "kept in another file")


def _leads_out(name: bytes, path: str, what: str) -> DecodeError:
    return DecodeError(
        f"{name.decode('utf-8', 'replace')!r} in {path!r} is {what}, which is not read: a result is one file. Copy "
        "what it holds into the file"
    )


def require_hard_links(file: Any, path: str) -> None:
    """Raise `DecodeError` if there is a link in an open HDF5 file that leads by a name, in whichever file."""
    import h5py

    for _, _, where, kind in _links(file):
        if kind != h5py.h5l.TYPE_HARD:
            raise DecodeError(
                f"{where.decode('utf-8', 'replace')!r} in {path!r} is a link, which is not followed"
            )


def hdf5_children(
    group: Any, above: tuple[Any, ...], budget: Budget
) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Yield name, node and where we are then of all in a group; raise `DecodeError` where a link leads back up."""
    import h5py

    here = (*above, _address(h5py.h5o.get_info(group.id)))
    for name in group:
        budget.take(_NAME_BYTES, name)  # groups with two names each double at every step down
        child = group[name]
        if _address(h5py.h5o.get_info(child.id)) in here:
            raise DecodeError(
                f"{name!r} in {budget.path!r} leads back to a group that it is in: read it by record.open()"
            )
        yield name, child, here


def _address(info: Any) -> Any:
    return info.fileno, info.addr


def read_hdf5(node: Any, budget: Budget) -> Any:
    """Return what a dataset holds, texts as text; raise `DecodeError` if that is more than its file can hold."""
    import h5py
    import numpy as np

    dtype = node.dtype
    is_text = h5py.check_string_dtype(dtype) is not None
    take_dataset(node, budget, max(dtype.itemsize, _OBJECT_BYTES if is_text or dtype.hasobject else 0))
    reader = node.asstr() if is_text else node
    if not dtype.hasobject or not node.size:
        return reader[()]
    whole = None
    for place, block in read_in_blocks(node, reader, budget):
        if not node.shape:
            return block
        whole = np.empty(node.shape, block.dtype) if whole is None else whole
        whole[place] = block
    return whole


def read_in_blocks(node: Any, reader: Any, budget: Budget) -> Iterator[tuple[tuple[slice, ...], Any]]:
    """Yield what is in a dataset of texts or rows, part by part, and where; take what it has."""
    largest = max(1, largest_content(node.dtype, budget.stored))
    if _is_of_rows_of_texts(node.dtype) and (found := largest_row(node.file, _OBJECT_BYTES)) is not None:
        largest = max(1, found)
    budget.require(largest, node.name)
    for place in _blocks(node.shape, max(1, min(_BLOCK, budget.left // largest))):
        block = reader[place]
        budget.take(content_bytes(block), node.name)
        yield place, block


def _is_of_rows_of_texts(dtype: Any) -> bool:
    import h5py

    of_row = h5py.check_vlen_dtype(dtype)
    # Of a text it is a type of Python's, and of a row of texts NumPy's.
    return hasattr(of_row, "hasobject") and h5py.check_vlen_dtype(of_row) in {str, bytes}


def largest_content(dtype: Any, stored: int) -> int:
    """Return how many bytes the objects in a value of a type can take, if their file has so many.

    A text or a row is stored as it is, so that none is larger than the file; but all in a row may be one.
    """
    import h5py

    if dtype.subdtype is not None:
        return int(math.prod(dtype.shape)) * largest_content(dtype.base, stored)
    if dtype.names:
        return sum(largest_content(dtype[name], stored) for name in dtype.names)
    if not dtype.hasobject or h5py.check_ref_dtype(dtype) is not None:  # a reference is of a fixed size
        return 0
    of_row = h5py.check_vlen_dtype(dtype)  # of a text a type of Python's
    if not getattr(of_row, "hasobject", False):
        return stored
    return stored // _REFERENCE_BYTES * (_OBJECT_BYTES + largest_content(of_row, stored))


def take_dataset(node: Any, budget: Budget, width: int) -> None:
    """Take what a dataset claims, at so many bytes a value; there may be thousands of datasets."""
    size = node.size
    if size is None:
        return
    import h5py

    made = node.id.get_create_plist()
    packing = [
        number for number in range(made.get_nfilters()) if made.get_filter(number)[0] not in _NOT_PACKING
    ]
    if len(packing) > 1:
        raise DecodeError(
            f"{node.name!r} in {budget.path!r} is packed more than once, so that it may unpack to any size, and is not "
            "read as a whole: read what you need of it by record.open()"
        )
    largest = width * max(size, math.prod(made.get_chunk()) if made.get_layout() == h5py.h5d.CHUNKED else 0)
    budget.require(largest, node.name.lstrip("/") if largest > budget.left else "")
    budget.take(width * size, "")


def _blocks(shape: tuple[int, ...], size: int) -> Iterator[tuple[slice, ...]]:
    """Yield slices that make up an array of *shape*, each of at most *size* elements."""
    if not shape:
        yield ()
        return
    below = math.prod(shape[1:])
    if below <= size:
        step = max(1, size // below)
        for start in range(0, shape[0], step):
            yield slice(start, start + step), *(slice(None) for _ in shape[1:])
        return
    for start in range(shape[0]):
        for rest in _blocks(shape[1:], size):
            yield slice(start, start + 1), *rest


def content_bytes(values: Any) -> int:
    """Return how many bytes the objects in an array, or one object, take."""
    dtype = getattr(values, "dtype", None)
    if dtype is None:
        return len(values) if isinstance(values, str | bytes) else 0
    if dtype.names:
        return sum(content_bytes(values[name]) for name in dtype.names if dtype[name].hasobject)
    if not dtype.hasobject:
        return int(values.nbytes)
    objects = values.ravel().tolist()
    if objects and isinstance(objects[0], str | bytes):  # then all are
        return sum(map(len, objects))
    return sum(map(content_bytes, objects))
