"""How attempts end: with a result, or without one, and then their keys are given back with the record of why.

A line of a sidecar is settled once its attempt is in the table of attempts, so an attempt is recorded once, by whoever
comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from entropic.leases.claims import CHUNK, Claims, Holder
from entropic.process.identity import batch_job, this_process
from entropic.process.logs import get_logger
from entropic.process.provenance import CodeState
from entropic.runs.jobs import Failure, Job, Outcome, Receipt, WorkerDied
from entropic.runs.refusals import spellings, storable
from entropic.sql.database import Database
from entropic.sql.prepared import PreparedInsert
from entropic.sql.tables import AttemptRow
from entropic.sql.tables.attempts import CANCELLED, COMPLETED, FAILED, LOST
from entropic.sql.upsert import chunks, insert_new

__all__ = ["Endings", "ended_at"]

log = get_logger(__name__)

_attempts: Any = AttemptRow.__table__


class Endings:
    """Records how attempts at the keys of one table end.

    Notes
    -----
    Safe between threads and processes.
    """

    def __init__(self, database: Database, claims: Claims, table_name: str) -> None:
        self._database = database
        self._claims = claims
        self._table = table_name
        self._insert_new_attempt = PreparedInsert(insert_new(_attempts, database.dialect))

    def _row(self, record_id: str, state: str, params: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
        """Return the row of an attempt that ends now, unless *facts*, by column, say otherwise."""
        if "id" not in facts:
            facts["id"] = uuid4().hex
        if "ended_at" not in facts:
            facts["ended_at"] = datetime.now(UTC)
        return {
            "table_name": self._table,
            "record_id": record_id,
            "state": state,
            "params": dict(params),
            **facts,
        }

    def row(self, outcome: Outcome, code: CodeState) -> dict[str, Any]:
        """Return the attempt that ended in *outcome*."""
        facts = {
            **outcome.where,
            **_code(code),
            "id": outcome.attempt,
            "started_at": datetime.fromtimestamp(outcome.started_at, UTC),
            "ended_at": ended_at(outcome),
        }
        if isinstance(outcome, Receipt):
            return self._row(outcome.record_id, COMPLETED, outcome.stored, **facts)
        return self._row(
            outcome.record_id,
            FAILED,
            outcome.stored,
            error_type=outcome.error_type[:255],
            message=storable(outcome.message),
            traceback=storable(outcome.traceback),
            exit_code=outcome.exit_code,
            **facts,
        )

    def fail(self, failed: Sequence[tuple[Failure, str]], code: CodeState) -> None:
        """Record runs that raised and give their keys back; trouble with that is only logged."""
        if not failed:
            return
        pairs = sorted((failure.record_id, token) for failure, token in failed)
        self._end_anyhow(pairs, [self.row(failure, code) for failure, _ in failed])

    def cancel(
        self,
        job: Job,
        token: str,
        started_at: datetime,
        code: CodeState,
        where: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a run that was interrupted, in this process or *where*, and give its key back.

        Trouble is only logged.
        """
        process = this_process()
        here = {"owner": process.owner, "host": process.host, "pid": process.pid, "batch_job": batch_job()}
        attempt = self._row(
            job.record_id,
            CANCELLED,
            job.stored,
            started_at=started_at,
            **(where or here),
            **_code(code),
        )
        self._end_anyhow([(job.record_id, token)], [attempt])

    def lose(self, lost: Sequence[tuple[Holder, Mapping[str, Any] | None]]) -> None:
        """Record attempts that ended with their process, or in silence, and give up what is left of their claims.

        Parameters
        ----------
        lost : sequence of (Holder, parameters or None)
            Who held the claim, whose token names the attempt; the parameters as stored, where they are known.
        """
        if not lost:
            return
        pairs = sorted((holder.record_id, holder.token) for holder, _ in lost)
        self.record(pairs, [self._lost(holder, params or {}) for holder, params in lost])

    def lose_worker(self, job: Job, death: WorkerDied, code: CodeState) -> None:
        """Record an attempt that ended with its worker; the claim stays, for another one."""
        attempt = self._row(
            job.record_id,
            LOST,
            job.stored,
            worker=death.worker,
            exit_code=death.exit_code,
            message=str(death),
            **_code(code),
        )
        self.record([], [attempt])

    def record(self, pairs: Sequence[tuple[str, str]], attempts: Sequence[Mapping[str, Any]]) -> None:
        """Give claims up, and record attempts that came to no result, as far as the database can spell them."""
        try:
            self._end_as_it_is(pairs, attempts)
        except Exception as error:
            if not self._database.blames_row(error):
                raise
            for attempt in attempts:
                self._end_spelled([pair for pair in pairs if pair[0] == attempt["record_id"]], attempt)

    def _end_spelled(self, pairs: Sequence[tuple[str, str]], attempt: Mapping[str, Any]) -> None:
        for spelling in spellings(attempt):
            try:
                return self._end_as_it_is(pairs, [spelling])
            except Exception as error:
                if not self._database.blames_row(error):
                    raise
                trouble = error
        log.warning("the end of a run of %s could not be recorded: %s", attempt["record_id"], trouble)
        self._claims.release(pairs)

    def _end_as_it_is(self, pairs: Sequence[tuple[str, str]], attempts: Sequence[Mapping[str, Any]]) -> None:
        def work(connection: Connection) -> None:
            self._claims.delete(connection, pairs)
            # A commit whose answer was lost is repeated, and two processes that clear up may both come upon one.
            self._insert_new_attempt(connection, attempts)

        self._database.write(work, repeatable=True)

    def _end_anyhow(self, pairs: Sequence[tuple[str, str]], attempts: Sequence[Mapping[str, Any]]) -> None:
        """As `record`, but for what is on its way to the caller: an exception that matters more than its record."""
        try:
            self.record(pairs, attempts)
        except SQLAlchemyError as trouble:
            log.warning("the end of %d runs could not be recorded: %s", len(attempts), trouble)
            with suppress(SQLAlchemyError):  # else the next who asks in this process tries again
                self._claims.release(pairs)

    def _lost(self, holder: Holder, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attempt of one who held a claim and did not come back."""
        return self._row(
            holder.record_id,
            LOST,
            params,
            id=holder.token,
            owner=holder.process.owner,
            host=holder.process.host,
            pid=holder.process.pid,
            started_at=datetime.fromtimestamp(holder.acquired_at, UTC),
            message=f"{holder}: it has ended, or was silent for longer than its lease; how far the run had come is "
            "not known",
        )

    def drop(self, receipt: Receipt, reason: str) -> None:
        """Record that a finished value is not committed: its line would be taken for a result that waits."""
        process = {name: receipt.where.get(name) for name in ("owner", "host", "pid", "worker", "batch_job")}
        facts = {"id": receipt.attempt, "started_at": datetime.fromtimestamp(receipt.started_at, UTC)}
        message = f"it had finished, and was dropped, as {reason}. It had returned {receipt.value}"
        attempt = self._row(
            receipt.record_id,
            LOST,
            receipt.stored,
            **process,
            **facts,
            ended_at=ended_at(receipt),
            message=message,
        )
        self.record([], [attempt])

    def settled(self, attempts: Sequence[str]) -> set[str]:
        """Return which of these attempts are over: committed, though their rows may be deleted since, or refused."""
        return self._database.read(lambda connection: self._known(connection, attempts))

    def completed(self, connection: Connection, attempts: Sequence[str]) -> set[str]:
        """Return which of these attempts are committed."""
        return self._known(connection, attempts, _attempts.c.state == COMPLETED)

    def _known(
        self, connection: Connection, attempts: Sequence[str], *where: ColumnElement[bool]
    ) -> set[str]:
        statement = select(_attempts.c.id).where(_attempts.c.id.in_(bindparam("ids", expanding=True)), *where)
        known: set[str] = set()
        for chunk in chunks(attempts, CHUNK):
            known.update(connection.scalars(statement, {"ids": chunk}))
        return known


def _code(code: CodeState) -> dict[str, Any]:
    return {"code": code.label, "git_commit": code.commit, "git_dirty": code.is_dirty}


def ended_at(outcome: Outcome) -> datetime:
    """Return when a run ended."""
    return datetime.fromtimestamp(outcome.started_at + outcome.elapsed_s, UTC)
