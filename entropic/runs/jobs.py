"""What travels to a worker and back: a `Job`, and its `Receipt` or `Failure`; a few hundred bytes each.

A receipt is also what a sidecar's line says, so that a row can be made from the line alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entropic.disk.files import digest_of
from entropic.disk.roots import STATE
from entropic.disk.staging import Staged

__all__ = ["Failure", "Job", "Outcome", "Receipt", "WorkerDied"]

log = logging.getLogger(__name__)

_LINE: dict[str, type | tuple[type, ...]] = {
    "record_id": str,
    "attempt": str,
    "folder": str,
    "slot": str,
    "name": str,
    "size_bytes": int,
    "sha256": str,
    "stored": dict,
    "custom": dict,
    "returned": dict,
    "started_at": (int, float),
    "elapsed_s": (int, float),
    "is_folder": bool,
    "where": dict,
}


@dataclass(frozen=True, slots=True)
class Job:
    """One key to run.

    Attributes
    ----------
    name : str
        Basename that the result is to have.
    params : dict
        For the runner.
    stored : dict
        The parameters as JSON, from which the row can be made again.
    custom : dict
        JSON; explicit keywords of the call.
    replaces : str or None
        SHA-256 of the file that this run is to replace.
    look : bool
        Whether a finished run of this key that nobody has committed will do instead.
    """

    record_id: str
    name: str
    params: dict[str, Any]
    stored: dict[str, Any]
    custom: dict[str, Any] = field(default_factory=dict)
    replaces: str | None = None
    look: bool = True


@dataclass(frozen=True, slots=True)
class Receipt:
    """A finished run, staged and noted: what a sidecar's line says."""

    record_id: str
    attempt: str
    folder: str
    slot: str
    staged: Staged
    stored: dict[str, Any]
    custom: dict[str, Any]
    returned: dict[str, Any]
    replaces: str | None
    started_at: float
    elapsed_s: float
    is_folder: bool
    where: dict[str, Any]
    """owner, host, pid, worker, batch_job of the executing process."""

    def path(self, root: Path) -> Path:
        """Return where the staged file is."""
        return root / STATE / self.folder / self.slot / self.staged.name

    @property
    def final_name(self) -> str:
        """Basename that the result has in the results folder; it begins with the row's id."""
        name = self.staged.name
        if not name.startswith(self.record_id):
            name = self.record_id + Path(name).suffix
        if self.is_folder:
            # A rename cannot replace a folder, so each attempt's has a name of its own.
            name = f"{self.record_id}-{self.attempt[:8]}{name.removeprefix(self.record_id)}"
        return name

    def is_at(self, path: Path) -> bool:
        """Whether what is at *path* is this result, to the byte."""
        return path.exists() and digest_of(path) == (self.staged.size_bytes, self.staged.sha256)

    def as_line(self, database: str, table: str) -> dict[str, Any]:
        """Return the sidecar's line."""
        line = {name: getattr(self, name) for name in self.__slots__ if name != "staged"}
        return {
            "database": database,
            "table": table,
            **line,
            "name": self.staged.name,
            "size_bytes": self.staged.size_bytes,
            "sha256": self.staged.sha256,
        }

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> Receipt:
        """Return the receipt that a sidecar's line stands for; KeyError or TypeError if it is no such line."""
        for name, kind in _LINE.items():
            if not isinstance(line[name], kind):
                raise TypeError(f"{name!r} of a sidecar's line is {line[name]!r}")
        staged = Staged(line["name"], line["size_bytes"], line["sha256"])
        return cls(staged=staged, **{name: line[name] for name in cls.__slots__ if name != "staged"})


@dataclass(frozen=True)
class Failure:
    """A run that raised, or wrote no result."""

    record_id: str
    attempt: str
    stored: dict[str, Any]
    error_type: str
    message: str
    traceback: str
    started_at: float
    elapsed_s: float
    where: dict[str, Any]
    exception: BaseException | None = None
    pickled: bytes | None = None
    exit_code: int | None = None
    """What a runner called `sys.exit` with; or of the process that died with it."""

    def __getstate__(self) -> dict[str, Any]:
        # The runner's exception may not pickle: it must not take the other outcomes of a chunk with it.
        if self.exception is None:
            return self.__dict__
        return {**self.__dict__, "exception": None, "pickled": _pickle_exception(self.exception)}

    def error(self) -> BaseException:
        """Return the runner's own exception; a RuntimeError that tells of it, if it did not survive pickling."""
        if self.exception is not None:
            return self.exception
        error: BaseException | None = None
        if self.pickled is not None:
            import cloudpickle

            try:
                error = cloudpickle.loads(self.pickled)
            except Exception as reason:  # a user's __reduce__ may do anything
                log.debug("an exception did not survive pickling: %s", reason)
        if error is None:
            error = RuntimeError(f"{self.error_type}: {self.message}")
        error.add_note(
            f"Raised on {self.where.get('host')}, process {self.where.get('pid')}:\n{self.traceback}"
        )
        object.__setattr__(self, "exception", error)
        return error


Outcome = Receipt | Failure


def _pickle_exception(error: BaseException) -> bytes | None:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(error)
    except Exception as reason:  # a user's exception may hold anything
        log.debug("%r does not pickle: %s", error, reason)
        return None
    return data


class WorkerDied(Exception):
    """The process that ran a chunk is gone.

    Attributes
    ----------
    at : int or None
        The job of the chunk that it had begun last, counted from 0; None if nobody knows.
    worker : str or None
        Address of a Dask worker.
    exit_code : int or None
        Of a process of this machine's; negative for a signal.
    is_shared : bool
        Whether the chunk may never have been begun: a broken executor fails all that it was given.
    """

    def __init__(
        self,
        message: str = "",
        *,
        at: int | None = None,
        worker: str | None = None,
        exit_code: int | None = None,
        is_shared: bool = False,
    ) -> None:
        super().__init__(message)
        self.at = at
        self.worker = worker
        self.exit_code = exit_code
        self.is_shared = is_shared
