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

__all__ = ["hdf5_children", "read_hdf5", "require_hard_links", "require_inside", "require_small_netcdf"]

_NAME_BYTES = 1 << 10  # what a name takes in memory, with the dict or array that it is of
_OBJECT_BYTES = 64  # what an object of Python's takes besides what is in it
_BLOCK = 1 << 16  # elements that are read at once, if each may take so much
_NOT_PACKING = frozenset({2, 3, 5, 6})  # numbers of filters: shuffle, fletcher32, nbit and scaleoffset
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"
_DECODED = ("_FillValue", "missing_value", "scale_factor", "add_offset", "units")  # to 8 bytes a value


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
    _take(node, budget, max(dtype.itemsize, _OBJECT_BYTES if is_text or dtype.hasobject else 0))
    reader = node.asstr() if is_text else node
    if not dtype.hasobject or not node.size:
        return reader[()]
    whole = None
    for place in _blocks(node.shape, _block_size(budget)):
        block = reader[place]
        budget.take(_content_bytes(block), node.name)
        if not node.shape:
            return block
        whole = np.empty(node.shape, block.dtype) if whole is None else whole
        whole[place] = block
    return whole


def require_small_netcdf(file: Any, path: str, stored: int, *, is_whole: bool) -> None:
    """Raise `DecodeError` if what xarray reads of an open file, at once or when it opens it, is more than it can hold.

    When it opens a file it reads the values of dimensions, which are in variables of their names.
    """
    import h5py

    budget = Budget(path, stored)
    for name in file:
        node = file.get(name)
        # A dimension without values of its own is a dataset too, which nobody reads.
        if not isinstance(node, h5py.Dataset) or _text(node.attrs.get("NAME")).startswith(_NO_VARIABLE):
            continue
        if not is_whole and not _is_dimension(name, node):
            continue
        _take(node, budget, max(node.dtype.itemsize, 8 if any(key in node.attrs for key in _DECODED) else 0))
        if node.dtype.hasobject and node.size:
            for place in _blocks(node.shape, _block_size(budget)):
                budget.take(_content_bytes(node[place]), name)


def _is_dimension(name: str, node: Any) -> bool:
    return _text(node.attrs.get("CLASS")) == b"DIMENSION_SCALE" or name.startswith("phony_dim_")


def _text(attribute: Any) -> bytes:
    if isinstance(attribute, str):
        return attribute.encode("utf-8", "surrogateescape")
    return attribute if isinstance(attribute, bytes) else b""


def _take(node: Any, budget: Budget, width: int) -> None:
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


def _block_size(budget: Budget) -> int:
    # A text is stored as it is, so that none is larger than the file.
    return max(1, min(_BLOCK, budget.left // max(budget.stored, 1)))


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


def _content_bytes(values: Any) -> int:
    """Return how many bytes the objects in an array, or one object, take."""
    dtype = getattr(values, "dtype", None)
    if dtype is None:
        return len(values) if isinstance(values, str | bytes) else 0
    if dtype.names:
        return sum(_content_bytes(values[name]) for name in dtype.names if dtype[name].hasobject)
    if not dtype.hasobject:
        return int(values.nbytes)
    objects = values.ravel().tolist()
    if objects and isinstance(objects[0], str | bytes):  # then all are
        return sum(map(len, objects))
    return sum(map(_content_bytes, objects))
