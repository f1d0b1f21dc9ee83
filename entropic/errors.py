"""Every error that entropic raises on purpose.

Each is an `EntropicError` and also the builtin that a stranger would catch; each prints as a sentence and survives
pickling, since it may have travelled from a worker. Facts that a program may need are attributes.

    EntropicError
    ├── ParameterError (ValueError)
    ├── UnhashableParamError (TypeError)
    ├── HashCollisionError (ValueError)
    ├── NotFoundError (LookupError)
    │   ├── ConfigNotFoundError (KeyError, ValueError, FileNotFoundError)
    │   └── WeightsNotFoundError (FileNotFoundError)
    │       └── BestNotFoundError
    ├── AlreadyExistsError (ValueError)
    │   └── DuplicateNameError
    │       └── DuplicateStoreError
    ├── InUseError (ValueError)
    ├── InvalidContainerError (ValueError, AssertionError)
    ├── DecodeError (ValueError)
    ├── ResultFileError (OSError)
    │   ├── ResultFileMissingError (FileNotFoundError)
    │   ├── ResultsDirUnavailableError
    │   └── CorruptFileError
    ├── ClaimLostError (RuntimeError)
    ├── ClaimTimeoutError (TimeoutError)
    ├── ClusterError (RuntimeError)
    ├── DependencyCycleError (RuntimeError)
    ├── SchemaError (RuntimeError)
    └── TransactionError (RuntimeError)
"""

from __future__ import annotations

from typing import Any

from entropic.printable import printable

__all__ = [
    "AlreadyExistsError",
    "BestNotFoundError",
    "ClaimLostError",
    "ClaimTimeoutError",
    "ClusterError",
    "ConfigNotFoundError",
    "CorruptFileError",
    "DecodeError",
    "DependencyCycleError",
    "DuplicateNameError",
    "DuplicateStoreError",
    "EntropicError",
    "HashCollisionError",
    "InUseError",
    "InvalidContainerError",
    "NotFoundError",
    "ParameterError",
    "ResultFileError",
    "ResultFileMissingError",
    "ResultsDirUnavailableError",
    "SchemaError",
    "TransactionError",
    "UnhashableParamError",
    "WeightsNotFoundError",
]


def _restore(cls: type[EntropicError], args: tuple[Any, ...], state: dict[str, Any]) -> EntropicError:
    # OSError brings its own layout, which another builtin's __new__ refuses to make.
    make = OSError.__new__ if issubclass(cls, OSError) else Exception.__new__
    error = make(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class EntropicError(Exception):
    """Base of all errors of entropic."""

    def __str__(self) -> str:
        # Before the builtin's own: `str(KeyError("x"))` is a repr, `str(OSError(...))` starts with an errno.
        return printable(str(self.args[0])) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        # Not through __init__: subclasses take facts and build the message, and args hold only the message.
        return _restore, (type(self), self.args, dict(self.__dict__))

    @property
    def message(self) -> str:
        """The sentence that `str()` gives."""
        return str(self)


class ParameterError(EntropicError, ValueError):
    """A parameter is unknown, missing or of the wrong type."""


class UnhashableParamError(EntropicError, TypeError):
    """A value has no stable hash."""


class HashCollisionError(EntropicError, ValueError):
    """Two different parameter sets share a key."""


class NotFoundError(EntropicError, LookupError):
    """Something that was asked for by name is not there."""


class ConfigNotFoundError(NotFoundError, KeyError, ValueError, FileNotFoundError):
    """A config of this name is not stored."""


class WeightsNotFoundError(NotFoundError, FileNotFoundError):
    """Weights of this run and iteration are not stored."""


class BestNotFoundError(WeightsNotFoundError):
    """Nobody has said which weights are the best on this data set by this criterion."""


class AlreadyExistsError(EntropicError, ValueError):
    """Something else is stored under this name or key."""


class DuplicateNameError(AlreadyExistsError):
    """A config of this name, with other content, is stored."""


class DuplicateStoreError(DuplicateNameError):
    """An execution store of this name was created before."""


class InUseError(EntropicError, ValueError):
    """What was to be deleted is still referred to."""


class InvalidContainerError(EntropicError, ValueError, AssertionError):
    """A path is not a container of the store, or lies outside it."""


class DecodeError(EntropicError, ValueError):
    """A stored document is of an unknown type, or nothing that entropic writes."""


class ResultFileError(EntropicError, OSError):
    """A result file is not as it should be."""


class ResultFileMissingError(ResultFileError, FileNotFoundError):
    """The runner wrote nothing, or a file to register is absent."""


class ResultsDirUnavailableError(ResultFileError):
    """The results folder is absent or belongs to another table or database."""


class CorruptFileError(ResultFileError):
    """A result file differs from what was committed."""


class ClaimLostError(EntropicError, RuntimeError):
    """Another process took the key over while this one was silent; nothing was published.

    Attributes
    ----------
    record : object or None
        The record that the other process committed, if it has.
    """

    record: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        state = {key: value for key, value in self.__dict__.items() if key != "record"}
        return _restore, (type(self), self.args, state)  # a record of a notebook's model does not pickle


class ClaimTimeoutError(EntropicError, TimeoutError):
    """Another process held the key for longer than `wait_timeout_s`."""


class ClusterError(EntropicError, RuntimeError):
    """The cluster or process pool failed, or a run killed its worker twice."""


class DependencyCycleError(EntropicError, RuntimeError):
    """Runs need each other's results, so that none of them can end first."""


class SchemaError(EntropicError, RuntimeError):
    """The database's tables are not those that this code or model needs."""


class TransactionError(EntropicError, RuntimeError):
    """Something cannot be done inside a transaction, or the database has dropped it."""
