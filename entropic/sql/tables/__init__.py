"""The library's own tables, one idea a file; no queries.

Importing this package puts the run cache's on `LibraryBase.metadata`; each store imports its own. `every_table` has all
of them, which is what the migrations describe.
"""

from importlib import import_module

from sqlalchemy import MetaData

from entropic.sql.columns import LibraryBase
from entropic.sql.tables.attempts import AttemptRow
from entropic.sql.tables.claims import ClaimRow
from entropic.sql.tables.files import FileRow
from entropic.sql.tables.meta import MetaRow
from entropic.sql.tables.registered import TableRow

__all__ = ["NAMES", "AttemptRow", "ClaimRow", "FileRow", "MetaRow", "TableRow", "every_table"]

NAMES = (
    "entropic_attempts",
    "entropic_best_weights",
    "entropic_claims",
    "entropic_component_inputs",
    "entropic_component_parameters",
    "entropic_component_states",
    "entropic_component_types",
    "entropic_config_parts",
    "entropic_configs",
    "entropic_data_files",
    "entropic_data_items",
    "entropic_execution_events",
    "entropic_execution_keys",
    "entropic_execution_stores",
    "entropic_files",
    "entropic_meta",
    "entropic_metrics",
    "entropic_stats_labels",
    "entropic_stats_runs",
    "entropic_tables",
    "entropic_training_stats",
    "entropic_validation_scores",
    "entropic_validations",
    "entropic_weights",
)
"""The names of all tables; a test compares them with `every_table`."""

# Modules of this package that are imported with their stores.
STORES = ("components", "configs", "execution", "stats", "weights")


def every_table() -> MetaData:
    """Return the metadata with the tables of all stores on it."""
    for name in STORES:
        import_module(f"{__name__}.{name}")
    return LibraryBase.metadata
