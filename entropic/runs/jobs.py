"""What travels to a worker and back: a `Job`, and its `Receipt` or `Failure`; a few hundred bytes each.

A receipt is also what a sidecar's line says, so that a row can be made from the line alone.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entropic.disk.files import digest_of
from entropic.disk.names import is_name, safe_name
from entropic.disk.roots import STATE
from entropic.disk.staging import Staged
from entropic.errors import ResultFileError
from entropic.process.logs import get_logger

__all__ = ["Failure", "Job", "NotBegun", "Outcome", "Receipt", "WorkerDied"]

log = get_logger(__name__)

_LATEST_S = 253_402_300_799.0  # the end of the year 9999, which is as far as a datetime goes
_DEPTH = 256  # of parameters and custom data in JSON: what goes through them would recurse too deeply
_WHERE = {
    "owner": 32,
    "host": 255,
    "worker": 255,
    "batch_job": 255,
}  # columns of an attempt, and their lengths
_PID = "pid"

_is_digest = re.compile(r"[0-9a-f]{64}\Z").match
_is_attempt = re.compile(r"[0-9a-f]{32}\Z").match


def _is_key(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode()) and safe_name(value) == value
    except ValueError:  # also one that is no Unicode, which no database takes
        return False


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST_S


def _is_document(value: Any) -> bool:
    """Whether a JSON object can be gone through: of text, and not too deep."""
    level: list[Any] = [value] if isinstance(value, dict) else []
    for _ in range(_DEPTH if level else 0):
        values = [one for part in level for one in (part.values() if isinstance(part, dict) else part)]
        level = [one for one in values if isinstance(one, dict | list)]
        if not level:
            return True
    return False


def _is_where(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {*_WHERE, _PID}:
        return False
    pid = value.get(_PID)
    texts = [(value.get(name), length) for name, length in _WHERE.items()]
    return (pid is None or (type(pid) is int and 0 <= pid < 1 << 31)) and all(
        text is None or (isinstance(text, str) and len(text) <= length and "\0" not in text)
        for text, length in texts
    )


_LINE: dict[str, Callable[[Any], Any]] = {
    "record_id": _is_key,
    "attempt": lambda value: isinstance(value, str) and _is_attempt(value),
    "folder": is_name,
    "slot": is_name,
    "name": is_name,
    "size_bytes": lambda value: type(value) is int and 0 <= value < 1 << 63,
    "sha256": lambda value: isinstance(value, str) and _is_digest(value),
    "stored": _is_document,
    "custom": _is_document,
    "returned": _is_document,
    "replaces": lambda value: value is None or (isinstance(value, str) and _is_digest(value)),
    "started_at": _is_seconds,
    "elapsed_s": _is_seconds,
    "is_folder": lambda value: isinstance(value, bool),
    "where": _is_where,
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
        # A rename cannot replace a folder, so each attempt's has a name of its own.
        return self._own(name) if self.is_folder else name

    @property
    def other_name(self) -> str:
        """Basename that nobody else's file has: for a result whose `final_name` is that of a stranger."""
        return self.final_name if self.is_folder else self._own(self.final_name)

    def _own(self, name: str) -> str:
        return f"{self.record_id}-{self.attempt[:8]}{name.removeprefix(self.record_id)}"

    def placed(self, root: Path) -> str | None:
        """Return the name under which this result, to the byte, lies in the results folder; None if it does not."""
        return next((name for name in (self.final_name, self.other_name) if self.is_at(root / name)), None)

    def is_at(self, path: Path) -> bool:
        """Whether what is at *path* is this result, to the byte."""
        try:
            return digest_of(path) == (self.staged.size_bytes, self.staged.sha256)
        except (
            FileNotFoundError,
            NotADirectoryError,
            ResultFileError,
        ):  # nothing that a run can have written
            return False
        except OSError as error:
            if (
                error.errno != errno.ELOOP
            ):  # a disk that fails does not make a finished run one that never was
                raise
            return False

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
        for name, is_sound in _LINE.items():
            if not is_sound(line[name]):
                raise TypeError(f"{name!r} of a sidecar's line is {line[name]!r:.200}")
        if line["started_at"] + line["elapsed_s"] > _LATEST_S:
            raise TypeError(f"'elapsed_s' of a sidecar's line is {line['elapsed_s']!r}")
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
    is_deep: bool = False
    """Whether it ended in a RecursionError, and had asked for other runs: once those are there it may succeed."""

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


@dataclass(frozen=True, slots=True)
class NotBegun:
    """A job that was not run: its key was taken by whoever needed it sooner, or given back for others to run."""

    record_id: str


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
