"""What travels to a worker and back: a `Job`, and its `Receipt` or `Failure`; a few hundred bytes each.

A receipt is also what a sidecar's line says, so that a row can be made from the line alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from entropic.disk.files import is_digest
from entropic.disk.names import is_name, safe_name
from entropic.disk.roots import STATE
from entropic.disk.staged import Staged
from entropic.process.raised import note_on, pickled, traceback_of, unpickled
from entropic.values.documents import MARKER
from entropic.values.row_texts import digest_of_text

__all__ = ["Failure", "InRow", "Interrupted", "Job", "NotBegun", "Outcome", "Receipt", "WorkerDied"]

_LATEST_S = 253_402_300_799.0  # the end of the year 9999, which is as far as a datetime goes
_DEPTH = 256  # of parameters and custom data in JSON: what goes through them would recurse too deeply
# Columns of an attempt, and their lengths.
_WHERE = {"owner": 32, "host": 255, "worker": 255, "batch_job": 255}
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


def _is_spelled(value: Any) -> bool:
    """Whether each value is a document that says what it is of."""
    parts = value.values() if isinstance(value, dict) and _is_document(value) else (None,)
    return all(isinstance(one, dict) and isinstance(one.get(MARKER), str) for one in parts)


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
    "name": lambda value: value is None or is_name(value),
    "value": lambda value: value is None or (isinstance(value, str) and value.isascii()),
    "size_bytes": lambda value: type(value) is int and 0 <= value < 1 << 63,
    "sha256": lambda value: isinstance(value, str) and _is_digest(value),
    "stored": _is_document,
    "custom": _is_document,
    "returned": _is_document,
    "spelled": _is_spelled,
    "replaces": lambda value: value is None or (isinstance(value, str) and _is_digest(value)),
    "started_at": _is_seconds,
    "elapsed_s": _is_seconds,
    "is_folder": lambda value: isinstance(value, bool),
    "where": _is_where,
}


@dataclass(frozen=True, slots=True)
class InRow:
    """What a runner of the library's returns that has written no file: the row is to have the value itself."""

    text: str
    """As `entropic.values.row_texts` spells it."""
    returned: dict[str, Any]
    """What else there is for the row, as a mapping that a runner returns."""


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
    ended : tuple of str
        Attempts of this key that came to an end in this sweep already: not to be taken for such.
    """

    record_id: str
    name: str
    params: dict[str, Any]
    stored: dict[str, Any]
    custom: dict[str, Any] = field(default_factory=dict)
    replaces: str | None = None
    look: bool = True
    ended: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """A finished run, staged and noted: what a sidecar's line says.

    Attributes
    ----------
    staged : Staged
        The file in its slot; of a value that is to stand in the row its size and digest, and an empty name.
    returned : dict
        What the runner returned besides, as JSON.
    spelled : dict
        Of it the scalars that JSON has no word for, as documents: an output column may have one for them.
    value : str or None
        That value, as `entropic.values.row_texts` spells it.
    where : dict
        owner, host, pid, worker, batch_job of the executing process.
    """

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
    value: str | None = None
    spelled: dict[str, Any] = field(default_factory=dict)
    is_synced: bool = field(default=False, compare=False)
    """Whether result and line are known to be on the disk; not before they are is anything committed."""

    def path(self, root: Path) -> Path:
        """Return where the staged file is; of a value there is none."""
        if self.value is not None:
            raise ValueError(f"the result of {self.record_id} is no file")
        return root.joinpath(STATE, self.folder, self.slot, self.staged.name)

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

    def is_staged(self, root: Path) -> bool:
        """Whether the result can be committed: its file lies in its slot, to the byte; a value is in the receipt."""
        return self.value is not None or self.is_at(self.path(root))

    def placed(self, root: Path) -> str | None:
        """Return the name under which this result, to the byte, lies in the results folder; None if it does not."""
        return next((name for name in (self.final_name, self.other_name) if self.is_at(root / name)), None)

    def is_at(self, path: Path) -> bool:
        """Whether what is at *path* is this result, to the byte."""
        return is_digest(path, (self.staged.size_bytes, self.staged.sha256))

    def as_line(self, database: str, table: str) -> dict[str, Any]:
        """Return the sidecar's line."""
        line = dict(zip(_IN_LINES, _in_lines(self), strict=True))
        return {
            "database": database,
            "table": table,
            **line,
            "name": self.staged.name or None,
            "size_bytes": self.staged.size_bytes,
            "sha256": self.staged.sha256,
        }

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> Receipt:
        """Return the receipt that a sidecar's line stands for; KeyError or TypeError if it is no such line."""
        line = {"value": None, "spelled": {}, **line}  # which lines of before do not have
        for name, is_sound in _LINE.items():
            if not is_sound(line[name]):
                raise TypeError(f"{name!r} of a sidecar's line is {line[name]!r:.200}")
        name, value, digest = line["name"], line["value"], (line["size_bytes"], line["sha256"])
        if (name is None) is (value is None) or (value is not None and digest_of_text(value) != digest):
            raise TypeError(f"a sidecar's line has the file {name!r:.200} and the value {value!r:.200}")
        if line["started_at"] + line["elapsed_s"] > _LATEST_S:
            raise TypeError(f"'elapsed_s' of a sidecar's line is {line['elapsed_s']!r}")
        staged = Staged(name or "", line["size_bytes"], line["sha256"])
        return cls(staged=staged, **{name: line[name] for name in _IN_LINES})

    def as_failure(self, error: BaseException, message: str) -> Failure:
        """Return as what a finished run is recorded whose result cannot be kept because of *error*."""
        return Failure(
            record_id=self.record_id,
            attempt=self.attempt,
            stored=self.stored,
            error_type=type(error).__qualname__,
            message=message,
            traceback=traceback_of(error),
            started_at=self.started_at,
            elapsed_s=self.elapsed_s,
            where=self.where,
            exception=error,
        )


_IN_LINES = [name for name in Receipt.__slots__ if name not in {"staged", "is_synced"}]
_in_lines = attrgetter(*_IN_LINES)


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
        return {**self.__dict__, "exception": None, "pickled": pickled(self.exception)}

    def error(self) -> BaseException:
        """Return the runner's own exception; a RuntimeError that tells of it, if it did not survive pickling."""
        if self.exception is not None:
            return self.exception
        error = unpickled(self.pickled) or RuntimeError(f"{self.error_type}: {self.message}")
        note_on(
            error, f"Raised on {self.where.get('host')}, process {self.where.get('pid')}:\n{self.traceback}"
        )
        object.__setattr__(self, "exception", error)
        return error


@dataclass(frozen=True, slots=True)
class NotBegun:
    """A job that was not run: its key was taken by whoever needed it sooner, or given back for others to run."""

    record_id: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A run that was ended by what is no error of its own."""

    job: Job
    started_at: float
    where: dict[str, Any]
    """As `Receipt` has it."""

    @property
    def record_id(self) -> str:
        """Of the job."""
        return self.job.record_id


Outcome = Receipt | Failure


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
