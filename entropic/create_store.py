"""The stores that the options name: for code that says what it keeps, and leaves where to whoever runs it."""

from __future__ import annotations

from entropic.array_store import ArrayStore, LocalArrayStore
from entropic.config_store import ConfigStore, FileConfigStore, SQLConfigStore
from entropic.options import Options

__all__ = ["create_array_store", "create_config_store"]


def create_config_store(options: Options | None = None) -> ConfigStore:
    """Return the store of configs: rows in ``db_url``, or files in ``runs_base_dir/configs``.

    Parameters
    ----------
    options : Options, optional
        Default: read now, from the environment and the files.

    Raises
    ------
    ValueError
        If an option is unknown or has no such value.
    """
    options = options or Options()
    if options.type == "files":
        return FileConfigStore(options.runs_base_dir / "configs")
    return SQLConfigStore(options.db_url)


def create_array_store(options: Options | None = None) -> ArrayStore:
    """Return the store of arrays, in ``runs_base_dir``. Parameters and errors as of `create_config_store`."""
    return LocalArrayStore((options or Options()).runs_base_dir)
