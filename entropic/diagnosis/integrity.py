"""Do the rows, the file records and the folder say the same? Both ways, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import and_, delete, insert, select

from entropic.disk.files import digest_of, size_of
from entropic.disk.owners import strangers
from entropic.disk.roots import STATE, quarantine
from entropic.disk.sidecars import process_folders, read_sidecar
from entropic.errors import ResultFileError
from entropic.model.records import CHUNK, Found
from entropic.printable import one_line
from entropic.process.logs import get_logger
from entropic.runs.abandoned import is_abandoned, is_nameless
from entropic.runs.attempts import UNREAD
from entropic.runs.recovery import recover, unfinished, unreadable
from entropic.runs.result_table import ResultTable
from entropic.runs.tenure import Tenure
from entropic.sql.tables import FileRow
from entropic.sql.upsert import chunks
from entropic.values.row_texts import digest_of_text

__all__ = ["Finding", "Report", "check_table"]

log = get_logger(__name__)

_files: Any = FileRow.__table__

_AT_ONCE = 50  # keys that are held while what is wrong with them is mended


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes
    ----------
    kind : str
        ``"missing-file"``, ``"corrupt-file"``, ``"missing-value"``, ``"corrupt-value"``, ``"stray-file"``,
        ``"unfinished"``, ``"abandoned"``, ``"malformed-sidecar"``, ``"nameless"``, ``"not-believed"``,
        ``"unrecorded-file"``, ``"stray-record"``, ``"not-a-file"`` or ``"results-dir"``.
    is_fixed : bool
        Whether it was mended.
    """

    kind: str
    id: str | None
    path: str | None
    sentence: str
    is_fixed: bool = False


@dataclass(frozen=True)
class Report:
    """What `Store.check` found: iterable, falsy when clean, a table as text."""

    findings: list[Finding] = field(default_factory=list)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __str__(self) -> str:
        if not self.findings:
            return "no findings"
        width = max(len(finding.kind) for finding in self.findings)
        return "\n".join(
            f"{finding.kind:<{width}}  {'fixed' if finding.is_fixed else '':<5}  {one_line(finding.sentence)}"
            for finding in self.findings
        )


def check_table(table: ResultTable[Any], suffix: str, *, checksum: bool, fix: bool) -> Report:
    """Compare rows, file records and folders both ways.

    Raises
    ------
    ResultsDirUnavailableError
        If something is to be fixed and the results folder is not the table's: all its rows would be deleted.
    """
    if fix:
        table.require_root()
        with suppress(OSError):  # which is among the findings
            recover(table)  # a re-run that was killed between move and commit looks like a corrupt file
    elif not table.has_root():
        sentence = f"{str(table.root)!r} is absent or another table's: its files were not looked at"
        return Report([Finding("results-dir", None, str(table.root), sentence)])
    check = _Check(table, suffix, checksum=checksum, fix=fix)
    return Report(
        [*check.rows(), *check.stray_records(), *check.stray_files(), *check.processes(), *check.claims()]
    )


class _Problem(NamedTuple):
    """What is wrong with a row."""

    finding: Finding
    mend: Callable[[str], bool] | None = None
    """Mends it, given the token of the claim on its key, and says whether it could; None where nothing can."""


class _Check:
    def __init__(self, table: ResultTable[Any], suffix: str, *, checksum: bool, fix: bool) -> None:
        self._table = table
        self._suffix = suffix
        self._checksum = checksum
        self._fix = fix
        self._rows: Any = table.model.__table__
        self._known: set[str] = set()

    def rows(self) -> Iterator[Finding]:
        with self._table.database.reading() as connection:
            found = list(self._table.reader.select((), [self._rows.c.id], None, connection))
        problems = ((row.id, self._problem(row)) for row in found)
        for part in chunks(((key, problem) for key, problem in problems if problem is not None), _AT_ONCE):
            yield from self._mended(dict(part)) if self._fix else (problem.finding for _, problem in part)

    def _mended(self, problems: Mapping[str, _Problem]) -> Iterator[Finding]:
        """Mend what can be, and is still so once its key is held: somebody may have run it since it was looked at."""
        wanted = [key for key, problem in problems.items() if problem.mend is not None]
        now: dict[str, Finding | None] = {key: problem.finding for key, problem in problems.items()}
        if wanted:
            with self._table.heartbeat.beating(is_run_here=False), Tenure(self._table) as tenure:
                for key, row in tenure.claim_free(wanted).items():
                    problem = None if row is None else self._problem(row, is_held=True)
                    now[key] = None if problem is None else problem.finding
                    if problem is not None and problem.mend is not None:
                        _, token = tenure.pair(key)
                        now[key] = replace(problem.finding, is_fixed=problem.mend(token))
        return (finding for finding in now.values() if finding is not None)

    def _problem(self, row: Found, *, is_held: bool = False) -> _Problem | None:
        path = self._table.reader.path(row)
        if path is None:
            return self._problem_of_value(row)
        # A registered file elsewhere may have the name of a stray one.
        if Path(path).parent == self._table.root:
            self._known.add(Path(path).name)
        try:
            if not self._table.reader.is_present(row):
                return self._absent(row, path)
            if row.sha256 is None:
                return self._unrecorded(row, path, digest_of(Path(path)) if is_held else None)
            sentence = self._difference(row, Path(path))
        except ResultFileError as error:  # it holds a FIFO, a link that dangles or the like
            return _Problem(Finding("not-a-file", row.id, path, str(error)))
        except OSError as error:  # one that cannot be read does not keep the others from being looked at
            return _Problem(Finding("corrupt-file", row.id, path, f"{path} cannot be read: {error}"))
        return None if sentence is None else self._corrupt(row, path, sentence)

    def _problem_of_value(self, row: Found) -> _Problem | None:
        """Look at a row that names no file; its value, which has been read already, is compared in any case."""
        if row.value is None:
            sentence = f"the row {row.id} has neither a file nor a value"
            return _Problem(Finding("missing-value", row.id, None, sentence), partial(self._delete_row, row))
        found = digest_of_text(row.value)
        if row.sha256 is None:
            return self._unrecorded(row, None, found)
        if found == (row.size_bytes, row.sha256):
            return None
        recorded = f"{row.size_bytes} and {row.sha256}"
        sentence = f"the value of {row.id} has {found[0]} bytes and SHA-256 {found[1]}, not {recorded}"

        def mend(token: str) -> bool:
            log.warning("the row of %s is deleted, whose value was damaged: %.2000r", row.id, row.value)
            return self._delete_row(row, token)

        return _Problem(Finding("corrupt-value", row.id, None, sentence), mend)

    def _is_ours(self, row: Found) -> bool:
        """Whether a run of ours made the file: one that was registered may be the only copy."""
        attempt = select(_files.c.attempt).where(
            _files.c.table_name == self._rows.fullname, _files.c.record_id == row.id
        )
        with self._table.database.reading() as connection:
            return connection.scalar(attempt) is not None

    def _absent(self, row: Found, path: str) -> _Problem:
        if os.path.lexists(path):
            sentence = (
                f"in the place of the result of {row.id} is no file, or a link that leads nowhere: {path}"
            )
            return _Problem(Finding("not-a-file", row.id, path, sentence))
        is_registered = self._table.reader.is_registered(row)
        what = "the registered file" if is_registered else "the result"
        finding = Finding("missing-file", row.id, path, f"{what} of {row.id} is not there: {path}")
        return _Problem(finding, None if is_registered else partial(self._delete_row, row))

    def _difference(self, row: Found, path: Path) -> str | None:
        if not self._checksum:
            size = size_of(path)
            return None if size == row.size_bytes else f"{path} has {size} bytes, not {row.size_bytes}"
        size, sha256 = digest_of(path)
        if (size, sha256) == (row.size_bytes, row.sha256):
            return None
        return f"{path} has {size} bytes and SHA-256 {sha256}, not {row.size_bytes} and {row.sha256}"

    def _corrupt(self, row: Found, path: str, sentence: str) -> _Problem:
        is_inside = Path(path).parent == self._table.root  # whatever a record names, nothing else is moved

        def mend(token: str) -> bool:
            if not self._is_ours(row) or self._table.publisher.named.has_other(Path(path), row.id):
                return False
            return self._delete_row(row, token, partial(self._put_aside, Path(path)))

        return _Problem(Finding("corrupt-file", row.id, path, sentence), mend if is_inside else None)

    def _put_aside(self, path: Path) -> bool:
        """Move to quarantine; return whether that could be done."""
        try:
            kept = quarantine(path)
        except OSError as error:  # somebody has put a link there, or it may not be written
            log.warning("%r cannot be put in quarantine, and is left alone: %s", str(path), error)
            return False
        log.warning("%r is in quarantine: %r", str(path), str(kept))
        return True

    def _unrecorded(self, row: Found, path: str | None, digest: tuple[int, str] | None) -> _Problem:
        """Of a row that 2.3 or SQL wrote: complete its file record."""
        inside = path is not None and Path(path).parent == self._table.root

        def mend(token: str) -> bool:
            if digest is None:
                return False
            values = {
                "table_name": self._rows.fullname,
                "record_id": row.id,
                "name": Path(path).name if path is not None and inside else path,
                "size_bytes": digest[0],
                "sha256": digest[1],
            }
            self._table.database.write(lambda connection: connection.execute(insert(_files), values))
            return True

        sentence = f"the row {row.id} has no file record, as one that an earlier release or SQL wrote"
        return _Problem(Finding("unrecorded-file", row.id, path, sentence), mend)

    def stray_records(self) -> Iterator[Finding]:
        has_row = select(self._rows.c.id).where(self._rows.c.id == _files.c.record_id).exists()
        is_stray = and_(_files.c.table_name == self._rows.fullname, ~has_row)
        with self._table.database.reading() as connection:
            strays = connection.execute(select(_files.c.record_id, _files.c.name).where(is_stray)).all()
        if self._fix and strays:  # those that are no stray ones any more stay: their keys were run meanwhile
            self._table.database.write(lambda connection: connection.execute(delete(_files).where(is_stray)))
        for stray in strays:
            sentence = f"there is a file record of {stray.record_id}, but no row"
            yield Finding("stray-record", stray.record_id, stray.name, sentence, self._fix)

    def stray_files(self) -> Iterator[Finding]:
        names = (name for name in sorted(os.listdir(self._table.root)) if self._is_strange(name))
        for part in chunks(names, CHUNK):
            recorded = self._recorded(part)  # since the rows were looked at
            for name in part:
                if name not in recorded:
                    path = str(self._table.root / name)
                    sentence = f"there is no row for {path!r}; it is left alone"
                    yield Finding("stray-file", None, path, sentence)

    def _is_strange(self, name: str) -> bool:
        is_ours = name.startswith(STATE) or name in self._known  # what a kill left of a marker too
        return not is_ours and name.endswith(self._suffix)

    def _recorded(self, names: list[str]) -> set[str]:
        has_row = select(self._rows.c.id).where(self._rows.c.id == _files.c.record_id).exists()
        statement = select(_files.c.name).where(
            _files.c.table_name == self._rows.fullname, _files.c.name.in_(names), has_row
        )
        with self._table.database.reading() as connection:
            return set(connection.scalars(statement))

    def processes(self) -> Iterator[Finding]:
        for stranger in strangers(self._table.root):
            yield Finding("not-believed", None, str(stranger.path), str(stranger))
        for folder in process_folders(self._table.root):
            sidecar = read_sidecar(folder)
            unread: dict[str, OSError] = {}
            for receipt in unfinished(self._table, sidecar, unread):
                sentence = f"{receipt.record_id} was finished and not committed; store.recover() does it"
                path = None if receipt.value is not None else str(receipt.path(self._table.root))
                yield Finding("unfinished", receipt.record_id, path, sentence)
            for key, error in unread.items():
                sentence = f"{UNREAD.format(key)}: {error}"
                yield Finding("unfinished", key, error.filename, sentence)
            if lines := unreadable(self._table, sidecar):
                fixed = self._fix and is_abandoned(self._table, sidecar)
                fixed = fixed and self._put_aside(folder)
                sentence = f"{lines} lines of the sidecar in {str(folder)!r} cannot be read"
                yield Finding("malformed-sidecar", None, str(folder), sentence, fixed)
            elif is_nameless(sidecar):
                sentence = f"{str(folder)!r} does not say whose it is, and is left alone: remove it if it is nobody's"
                yield Finding("nameless", None, str(folder), sentence)
            elif is_abandoned(self._table, sidecar):
                yield Finding(
                    "abandoned",
                    None,
                    str(folder),
                    f"the process of {str(folder)!r} is gone; store.recover() clears it",
                )

    def claims(self) -> Iterator[Finding]:
        for holder in self._table.claims.abandoned():
            key = holder.record_id
            if self._fix:
                self._table.claims.release([(key, holder.token)])
            yield Finding("abandoned", key, None, f"the claim on {key} was left by {holder}", self._fix)

    def _delete_row(self, row: Found, token: str, first: Callable[[], bool] = lambda: True) -> bool:
        return self._table.publisher.delete_held(row.id, token, first)
