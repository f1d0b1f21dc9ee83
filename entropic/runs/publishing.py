"""From a staged file to a committed row: one transaction that a late owner cannot complete.

In this order: bring results and their lines to the disk if they are not known to be there, delete the claims if their
tokens are still ours, write rows, file records and attempts, move the files to their places, commit. A crash before the
commit leaves the sidecar's lines, from which `recovery` does the same again; so every step can be repeated. A line is
settled once its attempt is in the table of attempts. By that a transaction whose answer was lost, as when the server
stopped, knows when it is repeated that it had been committed. A row that the database refuses is a run that failed, and
so is a result that the disk does not keep; any other trouble leaves the line for recovery.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from entropic.disk.files import digest_of, may_replace, remove, sync_folder
from entropic.disk.guarded import located, unlink
from entropic.disk.names import is_name, require_text
from entropic.disk.registered import note_registered
from entropic.disk.roots import quarantine
from entropic.disk.staging import move
from entropic.errors import AlreadyExistsError, ClaimLostError, ResultFileError
from entropic.leases.claims import Claims
from entropic.model.base import RESULT_VALUE, reserved_of, table_key
from entropic.model.identities import Identity
from entropic.model.parameters import Parameters
from entropic.process.logs import get_logger
from entropic.process.provenance import CodeState
from entropic.runs.durable import not_kept, sync_runs
from entropic.runs.endings import Endings, ended_at
from entropic.runs.former import former_of, keep_former
from entropic.runs.jobs import Failure, Receipt
from entropic.runs.named import Named
from entropic.runs.refusals import refused
from entropic.sql.database import Database
from entropic.sql.drift import check_user_table
from entropic.sql.prepared import PreparedInsert, PreparedQuery
from entropic.sql.tables import AttemptRow, FileRow, MetaRow

__all__ = ["Published", "Publisher"]

log = get_logger(__name__)

_files: Any = FileRow.__table__
_attempts: Any = AttemptRow.__table__
_meta: Any = MetaRow.__table__
_insert_file, _insert_attempt = PreparedInsert(insert(_files)), PreparedInsert(insert(_attempts))


class _ClaimGone(Exception):
    """Some claim of the batch is not ours any more."""


class Published(NamedTuple):
    """What became of finished runs that were not committed."""

    lost: set[str]
    """Keys whose claim had been lost: nothing of them is published."""
    refused: list[Failure]
    """Runs whose row the database refuses; recorded, and their keys given back."""


class Publisher:
    """Commits what was run for one table.

    Attributes
    ----------
    named : Named
        Who else names a file.

    Notes
    -----
    Safe between threads and processes: the claims decide.
    """

    def __init__(
        self, database: Database, parameters: Parameters, claims: Claims, endings: Endings, root: Path
    ) -> None:
        self._database = database
        self._parameters = parameters
        self._claims = claims
        self._endings = endings
        self._root = root
        self.named = Named(database, table_key(parameters.model), root)
        rows: Any = parameters.model.__table__
        self._rows = rows
        self._reserved = reserved_of(parameters.model)
        self._table: str = table_key(parameters.model)
        # Built once: SQLAlchemy takes longer to build a statement than SQLite to run it.
        keys: Any = bindparam("keys", expanding=True)
        is_record = (_files.c.table_name == self._table) & (_files.c.record_id == self._rows.c.id)
        self._select_former = PreparedQuery(
            select(self._rows.c.id, _files.c.name, _files.c.attempt)
            .outerjoin_from(self._rows, _files, is_record)
            .where(self._rows.c.id.in_(keys))
        )
        self._delete_files = PreparedQuery(
            delete(_files).where(_files.c.table_name == self._table, _files.c.record_id.in_(keys))
        )
        self._insert_row = PreparedInsert(insert(rows))

    def publish(
        self, finished: Sequence[tuple[Receipt, str]], code: CodeState, told: set[str] | None = None
    ) -> Published:
        """Commit receipts, each with its claim's token, and return what could not be committed.

        One that was lost or refused does not keep the others from their rows.

        Parameters
        ----------
        told : set of str, optional
            What was warned of already (`Outputs.split_returned`).
        """
        trouble = sync_runs(self._root, [receipt for receipt, _ in finished])
        published = self._publish([one for one in finished if one[0].attempt not in trouble], code, told)
        for receipt, token in finished:
            if receipt.attempt in trouble:
                published.refused.append(self._give_up(receipt, token, code, trouble[receipt.attempt]))
        return published

    def _publish(
        self, finished: Sequence[tuple[Receipt, str]], code: CodeState, told: set[str] | None
    ) -> Published:
        lost: set[str] = set()
        failed: list[Failure] = []
        if not finished:
            return Published(lost, failed)
        try:
            self._commit(finished, code, told)
        except _ClaimGone:
            if len(finished) == 1:
                return Published(self._lose(finished[0][0]), failed)
        except Exception as error:
            if not self._database.blames_row(error):
                raise
            if len(finished) == 1:
                return Published(lost, [self._refuse(*finished[0], code, error)])
        else:
            return Published(lost, failed)
        for one in finished:
            published = self._publish([one], code, told)
            lost |= published.lost
            failed += published.refused
        return Published(lost, failed)

    def _commit(
        self, finished: Sequence[tuple[Receipt, str]], code: CodeState, told: set[str] | None
    ) -> None:
        receipts = [receipt for receipt, _ in finished]
        pairs = sorted((receipt.record_id, token) for receipt, token in finished)
        keys = [receipt.record_id for receipt in receipts]
        attempts = [receipt.attempt for receipt in receipts]
        stale: list[tuple[str, str]] = []

        def work(connection: Connection) -> None:
            if self._claims.delete(connection, pairs) != len(pairs):
                if self._endings.completed(connection, attempts) == set(attempts):
                    return  # by a commit whose answer was lost
                raise _ClaimGone
            former = self._former(connection, keys)
            placed = [(receipt, self._name(receipt, former)) for receipt in receipts]
            rows = {receipt.record_id: self._row_of(receipt, name, told) for receipt, name in placed}
            self._write_rows(connection, rows, former)
            self._replace_files(connection, [self._file_of(receipt, name) for receipt, name in placed])
            _insert_attempt(connection, [self._endings.row(receipt, code) for receipt in receipts])
            # Last: a row that the database refuses must not have cost the file that it was to replace.
            for receipt, name in placed:
                if name is None:
                    continue  # the row has it
                if former.get(receipt.record_id) == name:
                    keep_former(receipt, self._root, name)
                move(receipt.path(self._root), self._root / name)
            names = {name for _, name in placed}
            stale[:] = [(key, name) for key, name in former.items() if name is not None and name not in names]

        self._database.write(work, repeatable=True)
        for receipt in receipts:
            if receipt.replaces is not None and receipt.value is None:
                with suppress(OSError):  # of a slot that is gone, or in another's hands
                    unlink(former_of(receipt, self._root))
        for key, name in stale:
            # A re-run's file has another name: the old one is nobody's now.
            if not self.named.has_other(self._root / name, key):
                self._remove_former(self._root / name)

    def _remove_former(self, path: Path) -> None:
        try:
            remove(path)
            is_there = os.path.lexists(path)
        except OSError:  # in a folder in which each may only remove what is theirs
            is_there = True
        if is_there:
            log.warning("%r was replaced and could not be removed: whose it is may delete it", str(path))

    def _former(self, connection: Connection, keys: list[str]) -> dict[str, str | None]:
        """Return the rows that are there already, each with the name of its file if a run of ours made it."""
        rows = self._select_former.rows(connection, keys)
        return {key: name if attempt is not None and is_name(name) else None for key, name, attempt in rows}

    def _name(self, receipt: Receipt, former: Mapping[str, str | None]) -> str | None:
        """Return the name of a result's file: only one that is recorded as its row's is replaced. None of a value."""
        if receipt.value is not None:
            return None
        name = receipt.final_name
        path = os.path.join(self._root, name)
        if not os.path.lexists(path) or (former.get(receipt.record_id) == name and may_replace(path)):
            return name
        if not receipt.is_at(receipt.path(self._root)) and (there := receipt.placed(self._root)) is not None:
            return there  # a crash came between its move and its commit
        return receipt.other_name

    def _refuse_own(self, path: Path, key: str) -> None:
        require_text(path)
        other = self.named.writer(path, key)
        if other is not None:
            of = "" if other.table_name == self._table else f" of table {other.table_name!r}"
            raise AlreadyExistsError(
                f"{str(path)!r} is what the run {other.record_id!r}{of} wrote, which is replaced when that is run "
                "again: register a copy of it"
            )
        if self.named.is_in_state(path):
            raise AlreadyExistsError(
                f"{str(path)!r} lies in a folder of state, which is cleared: register a copy of it"
            )
        if self._root.resolve().is_relative_to(path.resolve()):
            raise ResultFileError(
                f"{str(path)!r} is no result, as the results folder {str(self._root)!r} lies in it: register a folder "
                "or a file besides"
            )

    def _write_rows(
        self, connection: Connection, rows: Mapping[str, dict[str, Any]], former: Mapping[str, str | None]
    ) -> None:
        if new := [row for key, row in rows.items() if key not in former]:
            self._insert_row(connection, new)
        if old := [row for key, row in rows.items() if key in former]:
            # By number: a column may be called as one likes, a bound value may not.
            binds = {name: f"value_{number}" for number, name in enumerate(old[0])}
            columns: dict[str, Any] = {name: bindparam(bind) for name, bind in binds.items() if name != "id"}
            connection.execute(
                update(self._rows).where(self._rows.c.id == bindparam(binds["id"])).values(columns),
                [{binds[name]: value for name, value in row.items()} for row in old],
            )

    def _replace_files(self, connection: Connection, records: list[dict[str, Any]]) -> None:
        self._delete_files.count(connection, [record["record_id"] for record in records])
        _insert_file(connection, records)

    def _row_of(self, receipt: Receipt, name: str | None, told: set[str] | None) -> dict[str, Any]:
        outputs, rest = self._parameters.outputs.split_returned(receipt.returned, told, receipt.spelled)
        return self._row(
            receipt.record_id,
            {**self._parameters.load(receipt.stored), **self._parameters.outputs.nulls(), **outputs},
            None if name is None else os.path.join(self._root, name),
            value=receipt.value,
            created_at=ended_at(receipt),
            custom={"elapsed_seconds": round(receipt.elapsed_s, 4), **rest, **receipt.custom},
        )

    def _row(
        self,
        key: str,
        values: Mapping[str, Any],
        path: str | None,
        *,
        value: str | None = None,
        created_at: datetime,
        custom: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return a row, whose result is the file at *path* or, in tables that have such, a value."""
        return {
            **self._parameters.by_column(values),
            "id": key,
            "result_file": path,
            **({RESULT_VALUE: value} if RESULT_VALUE in self._reserved else {}),
            "created_at": created_at,
            "custom_data": custom,
        }

    def _file_of(self, receipt: Receipt, name: str | None) -> dict[str, Any]:
        staged = receipt.staged
        return self._file(receipt.record_id, name, (staged.size_bytes, staged.sha256), receipt.attempt)

    def _file(
        self, key: str, name: str | None, digest: tuple[int, str], attempt: str | None = None
    ) -> dict[str, Any]:
        return {
            "table_name": self._table,
            "record_id": key,
            "attempt": attempt,
            "name": name,
            "size_bytes": digest[0],
            "sha256": digest[1],
        }

    def register(
        self, identity: Identity, path: Path, shown: str, custom: Mapping[str, Any], token: str
    ) -> None:
        """Write the row of a file that was made elsewhere, over the one that is there, and give the claim back."""
        self._refuse_own(path, identity.id)
        outputs, notes = self._parameters.outputs.split_given(custom)
        inside = path.parent == self._root
        record = self._file(identity.id, path.name if inside else str(path), digest_of(path))
        values = {**identity.values, **self._parameters.outputs.nulls(), **outputs}
        row = self._row(identity.id, values, shown, created_at=datetime.now(UTC), custom=notes)
        is_written = and_(
            self._rows.c.id == row["id"],
            self._rows.c.result_file == row["result_file"],
            self._rows.c.created_at == row["created_at"],
        )

        def is_there(connection: Connection) -> bool:
            return connection.scalar(select(self._rows.c.id).where(is_written)) is not None

        def work(connection: Connection) -> None:
            if self._claims.delete(connection, [(identity.id, token)]) != 1:
                if is_there(connection):
                    return  # by a commit whose answer was lost
                raise ClaimLostError(
                    f"{identity.id!r} was taken over while {shown!r} was read: this process was silent for longer "
                    f"than its lease of {self._claims.lease_s:g} s. Nothing was registered"
                )
            self._write_rows(connection, {identity.id: row}, self._former(connection, [identity.id]))
            self._replace_files(connection, [record])

        if not inside:  # before the row is there, which is nothing without the note
            note_registered(self._root, (self._table, identity.id), path)
        self._database.decide_by(is_there)
        self._database.write(work, repeatable=True)

    def patch_registered(self, key: str, custom: Mapping[str, Any]) -> None:
        """Replace the ``custom_data`` of a row, and the outputs that are given with it."""
        outputs, notes = self._parameters.outputs.split_given(custom)
        values = {**self._parameters.by_column(outputs), "custom_data": notes}
        change = update(self._rows).where(self._rows.c.id == key).values(values)
        self._database.write(lambda connection: connection.execute(change), repeatable=True)

    def annotate(self, key: str, custom: Mapping[str, Any]) -> bool:
        """Merge *custom* into the ``custom_data`` of a row, without what is None; return whether there is a row."""
        notes = self._rows.c.custom_data
        asked = select(notes).where(self._rows.c.id == key).with_for_update()

        def work(connection: Connection) -> bool:
            row = connection.execute(asked).first()
            if row is None:
                return False
            merged = {**(row[0] or {}), **custom}
            kept = {name: value for name, value in merged.items() if custom.get(name, value) is not None}
            connection.execute(update(self._rows).where(self._rows.c.id == key).values({notes: kept}))
            return True

        return self._database.write(work, repeatable=True)

    def delete(self, key: str) -> bool:
        """Delete a row and its file record; return whether there was one."""
        was_there = False

        def work(connection: Connection) -> None:
            nonlocal was_there
            was_there |= self._delete(connection, key)

        self._database.write(work, repeatable=True)
        return was_there

    def _delete(self, connection: Connection, key: str) -> bool:
        self._delete_files.count(connection, [key])
        return connection.execute(delete(self._rows).where(self._rows.c.id == key)).rowcount > 0

    def delete_held(self, key: str, token: str, first: Callable[[], bool]) -> bool:
        """Delete the row and the file record of a key that is held, which uses its claim up, once *first* was done.

        Returns
        -------
        bool
            False if the claim was lost, or *first* says so: then both stay.
        """
        is_ready: list[bool] = []  # asked once, however often the transaction is tried

        def work(connection: Connection) -> bool:
            if self._claims.delete(connection, [(key, token)]) != 1:
                return False
            if not is_ready:
                is_ready.append(first())
            if is_ready[0]:
                self._delete(connection, key)
            return is_ready[0]

        return self._database.write(work)

    def flush(self) -> None:
        """Make every commit so far survive a power cut, so that sidecars may be emptied."""
        sync_folder(self._root)
        if self._database.dialect != "sqlite":
            return  # every commit does

        def touch(connection: Connection) -> None:
            # There and back: SQLite neither writes nor syncs anything for an UPDATE that leaves the row as it is.
            for value in (_meta.c.value + " ", func.rtrim(_meta.c.value)):
                connection.execute(update(_meta).where(_meta.c.name == "database").values(value=value))

        self._database.write(touch, durable=True)  # SQLite only: there is no server to be lost

    def _refuse(self, receipt: Receipt, token: str, code: CodeState, error: Exception) -> Failure:
        """Record a run whose row the database refuses: its file first, so that a crash leaves nothing to publish."""
        model = self._parameters.model
        # Of a table that has changed meanwhile every row may be refused: no run is to blame for that.
        check_user_table(self._database, self._rows, f"{model.__module__}.{model.__qualname__}")
        failure = refused(receipt, error, None if receipt.value is not None else self._put_aside(receipt))
        return self._fail(failure, token, code)

    def _give_up(self, receipt: Receipt, token: str, code: CodeState, error: OSError) -> Failure:
        """Record a run that the disk does not keep: its file first, so that a crash leaves nothing to publish."""
        if receipt.value is None:
            try:
                quarantine(receipt.path(self._root))
            except OSError:
                remove(receipt.path(self._root))
        return self._fail(not_kept(receipt, error), token, code)

    def _fail(self, failure: Failure, token: str, code: CodeState) -> Failure:
        """Record what a finished run has come to, and give its key back."""
        self._endings.record([(failure.record_id, token)], [self._endings.row(failure, code)])
        log.warning("%s: %s", failure.record_id, failure.message)
        return failure

    def _put_aside(self, receipt: Receipt) -> Path | None:
        """Move the file of a run that has no row to quarantine; return where it is, unless it is gone."""
        if receipt.is_at(receipt.path(self._root)):
            return quarantine(receipt.path(self._root))
        # A constraint that the database looks at last, on COMMIT, is looked at after the file was moved.
        rows = self._database.read(lambda connection: self._former(connection, [receipt.record_id]))
        former, name = former_of(receipt, self._root), receipt.placed(self._root)
        if name is None or (rows and rows[receipt.record_id] == name and not former.exists()):
            return None
        aside = quarantine(self._root / name)
        if rows and former.exists():
            with located(former) as (kept, slot):
                os.replace(kept, self._root / name, src_dir_fd=slot)
        return aside

    def _lose(self, receipt: Receipt) -> set[str]:
        if self._database.read(lambda connection: self._endings.completed(connection, [receipt.attempt])):
            return set()  # the answer to a commit that had succeeded was lost, and it was tried again
        if receipt.value is not None:
            self._endings.drop(receipt, "the claim on its key was lost while it ran")
        elif receipt.is_at(receipt.path(self._root)):
            quarantine(receipt.path(self._root))
        log.warning(
            "the claim on %s was lost while it ran, because this process was silent for longer than its lease: nothing "
            "was published",
            receipt.record_id,
        )
        return {receipt.record_id}
