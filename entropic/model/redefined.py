"""Models that are defined again, as by a notebook's cell that runs twice: the new class takes the place of the former.

Two different classes with one table are an error that names both.
"""

from __future__ import annotations

import gc
from typing import Any

from entropic.errors import SchemaError

__all__ = ["replace_former"]


def replace_former(cls: type[Any]) -> None:
    """Make room for *cls* where a class of this identity was mapped before, or say whose table it would take."""
    table_name = cls.__dict__.get("__tablename__")
    former = [mapper.class_ for mapper in _mappers(cls) if mapper.class_.__name__ == cls.__name__]
    for other in former:
        if other.__module__ == cls.__module__:
            # Not public, but the only way to forget one class; without it a cell that runs twice warns.
            cls.registry._dispose_cls(other)
    if not isinstance(table_name, str) or table_name not in cls.metadata.tables:
        return
    owner = _owner(cls, table_name)
    if owner is not None and _name(owner) != _name(cls):
        gc.collect()  # a class is part of a cycle: one that nobody holds any more may still be listed
        owner = _owner(cls, table_name)
    if owner is not None and _name(owner) != _name(cls):
        raise SchemaError(
            f"{_name(cls)} and {_name(owner)} both have the table {table_name!r}. "
            "Give one of them another __tablename__."
        )
    cls.metadata.remove(cls.metadata.tables[table_name])


def _owner(cls: type[Any], table_name: str) -> type[Any] | None:
    table = cls.metadata.tables[table_name]
    return next((mapper.class_ for mapper in _mappers(cls) if mapper.local_table is table), None)


def _mappers(cls: type[Any]) -> list[Any]:
    # Not `registry.mappers`: it raises for every later class once the definition of one has failed.
    return [manager.mapper for manager in list(cls.registry._managers) if manager.is_mapped]


def _name(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
