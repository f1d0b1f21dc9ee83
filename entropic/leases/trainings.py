"""The exclusive right to train a run: two trainers never write one.

It is a claim like that of a key that is computed, with the same lease, heartbeat and take-over. What a trainer writes
is fenced: `TrainingClaim.require` inside the transaction of a checkpoint takes the claim's row, so that one who was
silent for a lease, and lost the run to another, commits nothing more.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from sqlalchemy import update

from entropic.disk.names import check_name
from entropic.errors import ClaimLostError, ClaimTimeoutError
from entropic.leases import held
from entropic.leases.claims import Claims
from entropic.leases.heartbeat import Heartbeat
from entropic.process.blocks import transparent
from entropic.process.logs import get_logger
from entropic.process.patience import LEASE_S, Patience, Wait, checked_lease, checked_timeout
from entropic.sql.columns import ID_LENGTH
from entropic.sql.database import Database, DatabaseLike
from entropic.sql.tables import ClaimRow
from entropic.sql.versions import ensure_schema

__all__ = ["TrainingClaim", "claim_training"]

log = get_logger(__name__)

# Whose claims these are: no table of a user's has the name of one of the library's.
TABLE = "entropic_weights"


class TrainingClaim:
    """A run that is being trained here: what `claim_training` gives.

    Attributes
    ----------
    run_name : str
    """

    def __init__(self, database: Database, run_name: str, key: str, token: str) -> None:
        self.run_name = run_name
        self._database = database
        self._mine = update(ClaimRow).where(
            ClaimRow.table_name == TABLE, ClaimRow.record_id == key, ClaimRow.token == token
        )

    def require(self) -> None:
        """Raise `ClaimLostError` if the run is another's by now.

        Inside ``with database.transaction():`` it holds until that is committed: whoever takes the run over waits.
        """
        touch = self._mine.values(token=ClaimRow.token)
        if self._database.write(lambda connection: connection.execute(touch).rowcount, repeatable=True) == 0:
            raise ClaimLostError(
                f"the run {self.run_name!r} was taken over by another process while this one was silent for longer "
                "than its lease. Nothing more is stored; stop training it here"
            )


@transparent
def claim_training(
    database: DatabaseLike, run_name: str, *, lease_s: float = LEASE_S, wait_timeout_s: float | None = 0.0
) -> Iterator[TrainingClaim]:
    """Train a run in this block, and let nobody else do so.

    Parameters
    ----------
    lease_s : float
        Seconds of silence after which another process may take the run over; one that has ended is seen at once on
        the same machine.
    wait_timeout_s : float or None
        How long to wait for another trainer; None for as long as it takes.

    Raises
    ------
    ValueError
        If a number of seconds is none.
    ClaimTimeoutError
        If another process trains it. Nothing was changed.

    Notes
    -----
    Safe between processes and machines. A small process extends the claim, whatever the training does.
    """
    lease_s, wait_timeout_s = checked_lease(lease_s), checked_timeout(wait_timeout_s)
    database = Database.of(database)
    database.refuse_block("a claim", f"claim {run_name!r} first, then open the block")
    ensure_schema(database, [])
    claims = Claims(database, TABLE, lease_s=lease_s)
    key = check_name(run_name)
    if len(key) > ID_LENGTH:
        key = hashlib.sha256(key.encode()).hexdigest()
    token, process = claims.new_token(), os.getpid()
    held.know([token])
    try:
        _acquire(claims, run_name, key, token, wait_timeout_s)
        with Heartbeat(database, claims).beating():
            yield TrainingClaim(database, run_name, key, token)
    finally:
        if os.getpid() == process:  # not a forked child that leaves the block, too: it has no claim
            _give_back(claims, run_name, key, token)


def _give_back(claims: Claims, run_name: str, key: str, token: str) -> None:
    held.forget([token])  # first: should the rest fail, what is left is nobody's any more
    try:
        claims.release([(key, token)])
    except Exception:  # what is on its way matters more
        log.warning(
            "the claim on the run %r could not be released; it ends with its lease", run_name, exc_info=True
        )


def _acquire(claims: Claims, run_name: str, key: str, token: str, wait_timeout_s: float | None) -> None:
    wait, has_said = Wait(Patience(limit_s=wait_timeout_s)), False
    while key not in claims.acquire([key], {key: token}):
        holder = claims.holders([key]).get(key)
        if wait.is_over() or wait_timeout_s == 0:
            raise ClaimTimeoutError(
                f"the run {run_name!r} is being trained by {holder or 'another process'}. Nothing was changed; stop "
                "that one, wait (wait_timeout_s=...), or give this run another name"
            )
        if wait.is_worth_saying() and not has_said:
            has_said = True
            log.warning("waiting for the run %r, which is trained by %s", run_name, holder)
        wait.pause()
