"""A memoizing experiment cache on SQLAlchemy: parameters are typed columns, results are files.

Importing it loads what a model is declared with, and little else. What opens a database, runs functions or reads
results is loaded, all of it, when its name is first asked for.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Mapped, mapped_column

from entropic.errors import (
    AlreadyExistsError,
    BestNotFoundError,
    ClaimLostError,
    ClaimTimeoutError,
    ClusterError,
    ConfigNotFoundError,
    CorruptFileError,
    DecodeError,
    DependencyCycleError,
    DuplicateNameError,
    DuplicateStoreError,
    EntropicError,
    HashCollisionError,
    InUseError,
    InvalidContainerError,
    NotFoundError,
    ParameterError,
    ResultFileError,
    ResultFileMissingError,
    ResultsDirUnavailableError,
    SchemaError,
    TransactionError,
    UnhashableParamError,
    WeightsNotFoundError,
)
from entropic.model.base import Base, output, param
from entropic.sweeps.grids import expand_grid
from entropic.values.hashing import hash_params, register_hasher

if TYPE_CHECKING:
    from entropic.functions.memoized import memoize
    from entropic.sql.database import Database
    from entropic.store import Store
    from entropic.sweeps.result import SweepResult
    from entropic.values.codecs import register_codec, register_loader

__all__ = [
    "AlreadyExistsError",
    "Base",
    "BestNotFoundError",
    "ClaimLostError",
    "ClaimTimeoutError",
    "ClusterError",
    "ConfigNotFoundError",
    "CorruptFileError",
    "Database",
    "DecodeError",
    "DependencyCycleError",
    "DuplicateNameError",
    "DuplicateStoreError",
    "EntropicError",
    "HashCollisionError",
    "InUseError",
    "InvalidContainerError",
    "Mapped",
    "NotFoundError",
    "ParameterError",
    "ResultFileError",
    "ResultFileMissingError",
    "ResultsDirUnavailableError",
    "SchemaError",
    "Store",
    "SweepResult",
    "TransactionError",
    "UnhashableParamError",
    "WeightsNotFoundError",
    "expand_grid",
    "hash_params",
    "mapped_column",
    "memoize",
    "output",
    "param",
    "register_codec",
    "register_hasher",
    "register_loader",
]

if not TYPE_CHECKING:  # to a checker, a module with __getattr__ would have every name
    _WHERE = {
        "Database": "entropic.sql.database",
        "Store": "entropic.store",
        "SweepResult": "entropic.sweeps.result",
        "memoize": "entropic.functions.memoized",
        "register_codec": "entropic.values.codecs",
        "register_loader": "entropic.values.codecs",
    }

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__]
            )
        value = globals()[name] = getattr(import_module(_WHERE[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
