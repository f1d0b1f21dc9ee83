"""How a test opens a Store, whatever its model."""

from pathlib import Path
from typing import Any, TypeVar

from entropic import Base, Database, Store

M = TypeVar("M", bound=Base)


def open_store(
    model: type[M], folder: Path, runner: Any, database: Database | str | None = None, **options: Any
) -> Store[M]:
    """Return the Store of *folder*: results in ``results``; without *database*, in ``runs.sqlite3``."""
    url = f"sqlite:///{folder / 'runs.sqlite3'}" if database is None else database
    return Store(runner, model, folder / "results", db_url=url, **{"file_suffix": ".json", **options})
