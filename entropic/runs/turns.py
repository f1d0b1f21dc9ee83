"""The wait for one key: until it is ours, or somebody else has computed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from entropic.errors import ClaimTimeoutError
from entropic.process.logs import get_logger
from entropic.process.patience import Patience, Wait
from entropic.runs.holding import Holding, Keys
from entropic.runs.waits import Waiting
from entropic.sql.database import Database

__all__ = ["Turn"]

log = get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn:
    """Waits for keys, one at a time.

    Attributes
    ----------
    patience : Patience
        How long, and how often to look.
    """

    database: Database
    keys: Keys
    patience: Patience

    def wait(self, key: str, holding: Holding, attempt: Callable[[], T | None], *, name: str = "") -> T:
        """Return what *attempt* returns, once that is not None.

        Parameters
        ----------
        holding : Holding
            On whose behalf.
        attempt : callable
            Claims the key, or finds what there is by now; called again and again.
        name : str
            Of the key, for people.

        Raises
        ------
        DependencyCycleError
            If the key waits for a run that this context is inside of.
        ClaimTimeoutError
            If somebody held it for longer than the patience lasts, or at all while this thread is in a transaction.
        """
        wait, told, shown = Wait(self.patience), "", name or key
        with Waiting(self.keys, holding) as waiting:
            while True:
                found = attempt()
                if found is not None:
                    return found
                if self.database.is_in_block:
                    self._give_up(key, name or repr(key), "which a transaction does not wait for")
                waiting.go_on([key], wait.waited_s)
                told = self._say_who(key, shown, told) if wait.is_worth_saying() else told
                if wait.is_over():
                    limit = f"for longer than wait_timeout_s={self.patience.limit_s:g}"
                    self._give_up(key, name or repr(key), limit)
                self.database.rest()
                wait.pause()

    def _say_who(self, key: str, shown: str, told: str) -> str:
        """Say who holds the key, unless that was told; return the token of the claim."""
        holder = self.keys.claims.holders([key]).get(key)
        if holder is None or holder.token == told:
            return told
        log.warning("waiting for %s, which is run by %s", shown, holder)
        return holder.token

    def _give_up(self, key: str, shown: str, why: str) -> None:
        holder = self.keys.claims.holders([key]).get(key)
        raise ClaimTimeoutError(
            f"{shown} is held by {holder or 'another process'} {why}. Nothing was run; try again later"
        )
