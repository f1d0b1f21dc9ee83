"""What is in a datastore, as values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from entropic.values.parameter_documents import NOTHING_ELSE, rebuild

__all__ = ["ComponentState", "DataItem", "data_item", "key_column", "state_columns"]


@dataclass(frozen=True)
class ComponentState:
    """A component that a store knows.

    Attributes
    ----------
    full_type, version : str
    parameters : dict
        Values that need a class or an array of the user's to be made again are described instead.
    parameters_url : str or None
        From where they were read, as far as the component knew.
    key : str
        What the key generator made.
    """

    full_type: str
    version: str
    parameters: Any
    parameters_url: str | None
    key: str


@dataclass(frozen=True)
class DataItem(ComponentState):
    """Data that a store has.

    Attributes
    ----------
    attribute : str
        The name under which the component has them.
    codec : str
        ``"json"`` in the database, or ``"hdf5"`` in a file.
    path : Path or None
        Of that file.
    size_bytes, sha256 : int, str
    created_at, updated_at : datetime
        When there were first data under this name, and when these were stored.
    """

    attribute: str
    codec: str
    path: Path | None
    size_bytes: int
    sha256: str
    created_at: datetime
    updated_at: datetime


def key_column(text: str) -> str:
    """Return a key as its column has it: what no character set lacks."""
    return json.dumps(text)[1:-1]


def _key_of(column: str) -> str:
    return str(json.loads(f'"{column}"'))


def state_columns(row: Any) -> dict[str, Any]:
    """Return the fields of a state's row."""
    document = json.loads(row.parameters)
    try:
        parameters = rebuild(document, NOTHING_ELSE)
    except (LookupError, ValueError, TypeError):
        parameters = document
    return {
        "full_type": row.full_type,
        "version": row.version,
        "parameters": parameters,
        "parameters_url": None if row.parameters_url is None else _key_of(row.parameters_url),
        "key": _key_of(row.key),
    }


def data_item(row: Any, root: Path) -> DataItem:
    """Return what a row of data, joined with its state, says."""
    return DataItem(
        **state_columns(row),
        attribute=row.attribute,
        codec=row.codec,
        path=None if row.file_name is None else root / row.file_name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
