"""Do the rows, the file records and the folder say the same? Both ways, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, select

from entropic.disk.files import digest_of, size_of
from entropic.disk.owners import strangers
from entropic.disk.roots import STATE, quarantine
from entropic.disk.sidecars import process_folders, read_sidecar
from entropic.errors import ResultFileError
from entropic.model.records import Found
from entropic.printable import one_line
from entropic.process.logs import get_logger
from entropic.runs.recovery import is_abandoned, is_nameless, recover, unfinished, unreadable
from entropic.runs.result_table import ResultTable
from entropic.sql.tables import FileRow
from entropic.values.row_texts import digest_of_text

__all__ = ["Finding", "Report", "check_table"]

log = get_logger(__name__)

_files: Any = FileRow.__table__


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
        recover(table)  # a re-run that was killed between move and commit looks like a corrupt file
    elif not table.has_root():
        sentence = f"{str(table.root)!r} is absent or another table's: its files were not looked at"
        return Report([Finding("results-dir", None, str(table.root), sentence)])
    check = _Check(table, suffix, checksum=checksum, fix=fix)
    return Report(
        [*check.rows(), *check.stray_records(), *check.stray_files(), *check.processes(), *check.claims()]
    )


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
        for row in found:
            path = self._table.reader.path(row)
            if path is None:
                yield from self._value(row)
                continue
            # A registered file elsewhere may have the name of a stray one.
            if Path(path).parent == self._table.root:
                self._known.add(Path(path).name)
            if not self._table.reader.is_present(row):
                yield self._missing(row, path)
            elif row.sha256 is None:
                yield self._unrecorded(row, path, digest_of(Path(path)) if self._fix else None)
            else:
                yield from self._compared(row, path)

    def _value(self, row: Found) -> Iterator[Finding]:
        """Look at a row that names no file; its value, which has been read already, is compared in any case."""
        if row.value is None:
            if self._fix:
                self._delete_row(row)
            sentence = f"the row {row.id} has neither a file nor a value"
            yield Finding("missing-value", row.id, None, sentence, self._fix)
        elif row.sha256 is None:
            yield self._unrecorded(row, None, digest_of_text(row.value))
        elif (found := digest_of_text(row.value)) != (row.size_bytes, row.sha256):
            if self._fix:
                log.warning("the row of %s is deleted, whose value was damaged: %.2000r", row.id, row.value)
                self._delete_row(row)
            recorded = f"{row.size_bytes} and {row.sha256}"
            sentence = f"the value of {row.id} has {found[0]} bytes and SHA-256 {found[1]}, not {recorded}"
            yield Finding("corrupt-value", row.id, None, sentence, self._fix)

    def _compared(self, row: Found, path: str) -> Iterator[Finding]:
        try:
            sentence = self._difference(row, Path(path))
        except ResultFileError as error:  # it holds a FIFO, a link that dangles or the like
            yield Finding("not-a-file", row.id, path, str(error))
        except OSError as error:  # one that cannot be read does not keep the others from being looked at
            yield Finding("corrupt-file", row.id, path, f"{path} cannot be read: {error}")
        else:
            if sentence is not None:
                yield self._corrupt(row, path, sentence)

    def _is_ours(self, row: Found) -> bool:
        """Whether a run of ours made the file: one that was registered may be the only copy."""
        attempt = select(_files.c.attempt).where(
            _files.c.table_name == self._rows.fullname, _files.c.record_id == row.id
        )
        with self._table.database.reading() as connection:
            return connection.scalar(attempt) is not None

    def _missing(self, row: Found, path: str) -> Finding:
        is_registered = self._table.reader.is_registered(row)
        what = "the registered file" if is_registered else "the result"
        sentence = f"{what} of {row.id} is not there: {path}"
        fixed = self._fix and not is_registered
        if fixed:
            self._delete_row(row)
        return Finding("missing-file", row.id, path, sentence, fixed)

    def _difference(self, row: Found, path: Path) -> str | None:
        if not self._checksum:
            size = size_of(path)
            return None if size == row.size_bytes else f"{path} has {size} bytes, not {row.size_bytes}"
        size, sha256 = digest_of(path)
        if (size, sha256) == (row.size_bytes, row.sha256):
            return None
        return f"{path} has {size} bytes and SHA-256 {sha256}, not {row.size_bytes} and {row.sha256}"

    def _corrupt(self, row: Found, path: str, sentence: str) -> Finding:
        is_inside = Path(path).parent == self._table.root  # whatever a record names, nothing else is moved
        fixed = (
            self._fix
            and is_inside
            and self._is_ours(row)
            and not self._table.publisher.is_shared(path, row.id)
        )
        if fixed and (fixed := self._put_aside(Path(path))):
            self._delete_row(row)
        return Finding("corrupt-file", row.id, path, sentence, fixed)

    def _put_aside(self, path: Path) -> bool:
        """Move to quarantine; return whether that could be done."""
        try:
            kept = quarantine(path)
        except OSError as error:  # somebody has put a link there, or it may not be written
            log.warning("%r cannot be put in quarantine, and is left alone: %s", str(path), error)
            return False
        log.warning("%r is in quarantine: %r", str(path), str(kept))
        return True

    def _unrecorded(self, row: Found, path: str | None, digest: tuple[int, str] | None) -> Finding:
        """Of a row that 2.3 or SQL wrote: complete its file record."""
        inside = path is not None and Path(path).parent == self._table.root
        if self._fix and digest is not None:
            values = {
                "table_name": self._rows.fullname,
                "record_id": row.id,
                "name": Path(path).name if path is not None and inside else path,
                "size_bytes": digest[0],
                "sha256": digest[1],
            }
            self._table.database.write(lambda connection: connection.execute(insert(_files), values))
        sentence = f"the row {row.id} has no file record, as one that an earlier release or SQL wrote"
        return Finding("unrecorded-file", row.id, path, sentence, self._fix)

    def stray_records(self) -> Iterator[Finding]:
        statement = (
            select(_files.c.record_id, _files.c.name)
            .outerjoin(self._rows, self._rows.c.id == _files.c.record_id)
            .where(_files.c.table_name == self._rows.fullname, self._rows.c.id.is_(None))
        )
        with self._table.database.reading() as connection:
            strays = connection.execute(statement).all()
        for stray in strays:
            if self._fix:
                self._table.publisher.delete(stray.record_id)
            sentence = f"there is a file record of {stray.record_id}, but no row"
            yield Finding("stray-record", stray.record_id, stray.name, sentence, self._fix)

    def stray_files(self) -> Iterator[Finding]:
        for name in sorted(os.listdir(self._table.root)):
            is_ours = name.startswith(STATE) or name in self._known  # what a kill left of a marker too
            if not is_ours and name.endswith(self._suffix):
                path = str(self._table.root / name)
                yield Finding("stray-file", None, path, f"there is no row for {path!r}; it is left alone")

    def processes(self) -> Iterator[Finding]:
        for stranger in strangers(self._table.root):
            yield Finding("not-believed", None, str(stranger.path), str(stranger))
        for folder in process_folders(self._table.root):
            sidecar = read_sidecar(folder)
            for receipt in unfinished(self._table, sidecar):
                sentence = f"{receipt.record_id} was finished and not committed; store.recover() does it"
                path = None if receipt.value is not None else str(receipt.path(self._table.root))
                yield Finding("unfinished", receipt.record_id, path, sentence)
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

    def _delete_row(self, row: Found) -> None:
        def work(connection: Any) -> None:
            connection.execute(delete(self._rows).where(self._rows.c.id == row.id))
            connection.execute(self._delete_record(), {"key": row.id})

        self._table.database.write(work)
        path = self._table.reader.path(row)
        self._known -= {Path(path).name} if path is not None else set()

    def _delete_record(self) -> Any:
        return delete(_files).where(
            and_(_files.c.table_name == self._rows.fullname, _files.c.record_id == bindparam("key"))
        )
