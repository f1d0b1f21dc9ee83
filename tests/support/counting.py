"""Counting instead of timing: SQL statements of an engine, calls of a runner in any process."""

import functools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """Collect the SQL that goes through SQLAlchemy's cursors of *engine* inside the block."""
    seen: list[str] = []

    def record(connection, cursor, statement, parameters, context, executemany):
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", record)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", record)


_opened: list[list[str]] = []  # one for each block that looks


def _audit(name: str, arguments: tuple[Any, ...]) -> None:
    if _opened and name in {"open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove"}:
        for seen in _opened:
            seen.append(f"{name} {arguments[0]}")


@functools.cache
def _look() -> None:
    sys.addaudithook(_audit)  # stays for the life of the process


@contextmanager
def opened() -> Iterator[list[str]]:
    """Collect the files and folders that are opened, listed, made, moved or removed inside the block."""
    _look()
    seen: list[str] = []
    _opened.append(seen)
    try:
        yield seen
    finally:
        _opened[:] = [one for one in _opened if one is not seen]


def append_line(path: Path, line: str) -> None:
    """Append *line* to *path* in one write, so that lines of several processes never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class CountingRunner:
    """A runner that leaves a line in *log* for each call, in whatever process the call happened.

    It writes the parameters it was given as the result, so that a test can tell whose result a file is.
    """

    log: Path

    def __call__(self, params: dict[str, Any]) -> None:
        append_line(self.log, json.dumps({"id": params["id"], "process": os.getpid()}))
        Path(params["result_file"]).write_bytes(result_bytes(params))

    @property
    def calls(self) -> list[str]:
        """The ids that were computed, one for each call, in the order in which the calls began."""
        return [line["id"] for line in self._lines()]

    @property
    def processes(self) -> set[int]:
        """The processes that computed anything."""
        return {line["process"] for line in self._lines()}

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def result_bytes(params: dict[str, Any]) -> bytes:
    """Return what `CountingRunner` writes for *params*, whatever ``id`` and ``result_file`` were injected."""
    own = {name: value for name, value in params.items() if name not in {"id", "result_file"}}
    return json.dumps(own, sort_keys=True, default=str).encode()


class NumberedRunner:
    """A runner of this process that counts its calls and writes which one it was; keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def __call__(self, params: dict[str, Any]) -> None:
        self.seen.append(dict(params))
        Path(params["result_file"]).write_text(f"run {self.calls}")

    @property
    def calls(self) -> int:
        return len(self.seen)
