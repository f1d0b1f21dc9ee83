"""Where a memoized function's results are kept, if the decorator does not say it.

The options of the project do, read once, at the decoration. A project that gets a file of options later must not lose
sight of its results: a table that is where it would be without the options, and not where they say, is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sqlalchemy import inspect

from entropic.errors import SchemaError
from entropic.process.patience import LEASE_S
from entropic.process.settings import find_settings
from entropic.sql.database import Database, DatabaseLike
from entropic.sql.urls import shown

__all__ = ["Places", "located"]

DB_URL = "sqlite:///db.sqlite3"
RESULTS_DIR = "./results"


class Places(NamedTuple):
    """What a decoration says, or the options.

    Attributes
    ----------
    without_options : Path or None
        The database that would be used if there were no options; None if it is the same.
    """

    db_url: DatabaseLike
    results_dir: Path
    lease_s: float
    wait_timeout_s: float | None
    without_options: Path | None

    def refuse_elsewhere(self, database: Database, table: str, name: str) -> None:
        """Raise `SchemaError` if *table* is not in *database*, but where it would be without options.

        Raises
        ------
        SchemaError
            Nothing was run.
        """
        path = self.without_options
        if path is None or not path.is_file() or database.url.database == str(path) or _has(database, table):
            return
        other = Database(f"sqlite:///{path}")
        if _has(other, table):
            raise SchemaError(
                f"the options of this project keep results in {shown(database.url)}, which has none of {name!r}; but "
                f"there are some in {shown(other.url)}, where they were kept without options. Nothing was run. To go "
                f"on with those, say @memoize(db_url={shown(other.url)!r}, results_dir=...), or name that database in "
                f"the options; to begin anew, move {path.name!r} away"
            )


def located(
    db_url: DatabaseLike | None,
    results_dir: str | Path | None,
    lease_s: float | None,
    wait_timeout_s: float | None,
) -> Places:
    """Return what is given, and for the rest what the options say.

    Raises
    ------
    ValueError
        If a file of options has one that there is not.
    """
    is_told = db_url is not None and results_dir is not None and lease_s is not None
    if is_told or not find_settings():
        folder = Path(RESULTS_DIR if results_dir is None else results_dir).expanduser().absolute()
        return Places(
            DB_URL if db_url is None else db_url,
            folder,
            LEASE_S if lease_s is None else lease_s,
            wait_timeout_s,
            None,
        )
    from entropic.options import Options  # with pydantic, which a process without options does not import

    options = Options()
    return Places(
        options.db_url if db_url is None else db_url,
        options.results_dir if results_dir is None else Path(results_dir).expanduser().absolute(),
        options.lease_s if lease_s is None else lease_s,
        options.wait_timeout_s if wait_timeout_s is None else wait_timeout_s,
        Path("db.sqlite3").absolute() if db_url is None else None,
    )


def _has(database: Database, table: str) -> bool:
    with database.reading() as connection:
        return inspect(connection).has_table(table)
