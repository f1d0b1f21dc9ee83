"""HDF5 files that anybody may have put there, netCDF among them: nothing outside is read, and no claim is believed.

Looked at is what describes the data, before they are read: shapes, types and filters, and how long each text is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from entropic.errors import DecodeError
from entropic.values.untrusted import Budget
from entropic.values.untrusted_lengths import take_contents

__all__ = [
    "hdf5_children",
    "hdf5_objects",
    "read_hdf5",
    "require_hard_links",
    "require_inside",
    "take_dataset",
]

_NAME_BYTES = 1 << 10  # what a name takes in memory, with the dict or array that it is of
_OBJECT_BYTES = 64  # what an object of Python's takes besides what is in it
_NOT_PACKING = frozenset({2, 3, 5, 6})  # numbers of filters: shuffle, fletcher32, nbit and scaleoffset


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

    is_text = h5py.check_string_dtype(node.dtype) is not None
    width = _OBJECT_BYTES if is_text or node.dtype.hasobject else 0
    take_dataset(node, budget, max(node.dtype.itemsize, width))
    return (node.asstr() if is_text else node)[()]


def take_dataset(node: Any, budget: Budget, width: int) -> None:
    """Take what a dataset claims, at so many bytes a value, and the texts in it; there may be thousands of datasets."""
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
    if size and node.dtype.hasobject:
        take_contents(node.id, budget, node.name.lstrip("/"))
