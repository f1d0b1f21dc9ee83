"""Rows that may be there already: left alone, or replaced, in one statement of the database's dialect.

Looking first and writing later would let two processes write. `chunks` keeps such statements, and the others that name
many keys, at a size that every database takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Table

__all__ = ["chunks", "insert_new", "merge", "upsert"]

T = TypeVar("T")


def insert_new(table: Table, dialect: str, values: Mapping[str, Any] | None = None) -> Any:
    """Return the INSERT that leaves alone a row that is there: one with the same primary key, or unique columns.

    Parameters
    ----------
    dialect : str
        As `Database.dialect` says it.
    values : mapping, optional
        Expressions and `bindparam` by column. Default: each column of the rows that the statement is executed with.

    Notes
    -----
    How many rows were inserted is not to be learned from ``rowcount``: drivers disagree on what it means here.
    """
    statement = _insert(table, dialect)
    if values is not None:
        statement = statement.values(values)
    if dialect in _BY_CONFLICT:
        return statement.on_conflict_do_nothing()
    # Not INSERT IGNORE, which cuts texts that are too long and puts a default where NULL is not allowed.
    name = next(iter(table.primary_key)).name
    return statement.on_duplicate_key_update({name: table.c[name]})


def upsert(table: Table, dialect: str, names: Sequence[str]) -> Any:
    """Return the INSERT of a row, which replaces *names* of one that has its primary key.

    Parameters
    ----------
    dialect : str
        As `Database.dialect` says it.
    names : sequence of str
        Columns that take the new row's values; the others of a row that is there stay.
    """
    return merge(table, dialect, lambda new: [(name, new[name]) for name in names])


def merge(table: Table, dialect: str, change: Callable[[Any], Sequence[tuple[str, Any]]]) -> Any:
    """Return the INSERT of a row, which changes one that has its primary key.

    Parameters
    ----------
    dialect : str
        As `Database.dialect` says it.
    change : callable
        Given the new row's columns, returns those of the row that is there, each with an expression of what it
        becomes. In order: MySQL sets one after the other, and what comes later sees what has been set.
    """
    statement = _insert(table, dialect)
    if dialect in _BY_CONFLICT:
        new = dict(change(statement.excluded))
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=new)
    return statement.on_duplicate_key_update(list(change(statement.inserted)))


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield *items* in lists of *size*, the last one perhaps shorter; no more of them are taken than are yielded."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


_BY_CONFLICT = frozenset({"sqlite", "postgresql"})


def _insert(table: Table, dialect: str) -> Any:
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import mysql

    return mysql.insert(table)
