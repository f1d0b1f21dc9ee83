"""A memoizing experiment cache on SQLAlchemy: parameters are typed columns, results are files."""

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
from entropic.functions.memoized import memoize
from entropic.model.base import Base, output, param
from entropic.sql.database import Database
from entropic.store import Store
from entropic.sweeps.grids import expand_grid
from entropic.sweeps.result import SweepResult
from entropic.values.codecs import register_codec, register_loader
from entropic.values.hashing import hash_params, register_hasher

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
