"""What `delete(remove_file=True)` removes: a result in our folder, or a file that this user registered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from entropic.disk.files import remove
from entropic.disk.registered import remove_registered, unregistered
from entropic.model.base import table_key
from entropic.model.records import Found
from entropic.process.logs import get_logger
from entropic.runs.result_table import ResultTable

__all__ = ["remove_result"]

log = get_logger(__name__)


def remove_result(table: ResultTable[Any], found: Found) -> None:
    """Remove the result of a row that was deleted; one that stays is logged, with the reason."""
    name = table.reader.path(found)
    if name is None or not os.path.lexists(name):  # its value went with the row
        return
    path = Path(name)
    try:
        why: object = _remove(table, found, path)
    except OSError as error:
        why = error
    if why is not None:
        log.warning(
            "the row of %s is deleted, but its file is not, and is yours to delete: %s", found.id, why
        )


def _remove(table: ResultTable[Any], found: Found, path: Path) -> str | None:
    if (problem := table.root_problem()) is not None:
        return problem
    is_inside = path.parent == table.root
    if found.sha256 is None and not is_inside:
        return f"no file record says that {str(path)!r} is its result"
    key = (table_key(table.model), found.id)
    if not is_inside and (reason := unregistered(table.root, key, path)) is not None:
        return reason
    named = table.publisher.named
    if named.has_other(path, found.id):
        return f"{str(path)!r}, or a part of it, is the result of another row too"
    is_runs = is_inside and path.name.startswith(found.id)  # which may have results of its own in it
    if not is_runs and (reason := named.strange_root(path)) is not None:
        return reason
    if is_inside:
        remove(path)
    else:
        remove_registered(table.root, key, path)
    if os.path.lexists(path):
        return f"what is in the folder {str(path)!r} may be removed by its owner only"
    return None
