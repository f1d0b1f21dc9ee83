"""A memoizing experiment cache on SQLAlchemy: parameters are typed columns, results are files."""

from entropic.codecs import register_codec
from entropic.database import Database
from entropic.errors import (
    AlreadyExistsError,
    ClaimLostError,
    ClaimTimeoutError,
    ClusterError,
    ConfigNotFoundError,
    CorruptFileError,
    DecodeError,
    DuplicateNameError,
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
    UnhashableParamError,
    WeightsNotFoundError,
)
from entropic.hashing import hash_params, register_hasher
from entropic.loaders import register_loader
from entropic.memo import memoize
from entropic.schema import Base, Mapped, mapped_column, output, param
from entropic.store import Store
from entropic.sweep import expand_grid
from entropic.sweep_result import SweepResult

__all__ = [
    "AlreadyExistsError",
    "Base",
    "ClaimLostError",
    "ClaimTimeoutError",
    "ClusterError",
    "ConfigNotFoundError",
    "CorruptFileError",
    "Database",
    "DecodeError",
    "DuplicateNameError",
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
