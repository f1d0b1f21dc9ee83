"""The claims that one call or sweep holds: each is known from before it is taken until it is gone.

What is computed under a claim, and what becomes of it, is for those who hold it (`tenure` for the run cache). Here is
what all of them share: who needs a key that this process holds already takes it, waits for it or is told that it waits
for itself, and what is left when a block ends is given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from entropic.disk.roots import Marker
from entropic.leases import held
from entropic.leases.claims import Claims, Grant
from entropic.leases.held import Hold, Mark
from entropic.process.logs import get_logger
from entropic.process.raised import first_line
from entropic.runs.inside import inside_of, refuse_circle, wait_for

__all__ = ["Holding", "Keys"]

log = get_logger(__name__)


class Keys(Protocol):
    """Keys that are computed once: their claims, and the folder where those who wait leave notes.

    Attributes
    ----------
    claims : Claims
    root : Path
        The folder, absolute.
    marker : Marker
        Its `root` tells these keys from all others.
    """

    @property
    def claims(self) -> Claims:
        """Who computes which."""

    @property
    def root(self) -> Path:
        """The folder."""

    @property
    def marker(self) -> Marker:
        """Whose keys they are."""


class Holding:
    """Claims on some keys; a context manager: what is held when the block is left is given back.

    Parameters
    ----------
    name : str
        Of a sweep, as its `Work` has it.
    lends : bool
        Whether what it holds is begun in this process: a run that needs such a key before takes it.

    Notes
    -----
    Used by one thread; what others ask of it for their runs (`settle`, `hand_over`, `give_back`) is safe beside that.
    Between processes the claims decide.
    """

    def __init__(self, keys: Keys, *, name: str = "", lends: bool = False) -> None:
        self._keys = keys
        self._tokens: dict[str, str] = {}
        self._is_waiting = False
        self.name = name
        self.lends = lends
        self.is_serial = not name
        self.is_asked = False
        self.is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False  # first of all: should the rest fail, what is left is nobody's any more
        left = list(self._tokens.items())
        try:
            if self._is_waiting:
                wait_for(())
            self.release(self._tokens)
        except RecursionError:
            # Too deep for a word about it: a run that this one was inside of gives them back.
            self._keys.claims.release_later(left)
        except Exception as error:
            # What is on its way matters more, and nobody here counts them as held any more.
            log.warning(
                "%d claims could not be released; they end with their lease: %s", len(left), first_line(error)
            )
            log.debug("why they could not", exc_info=True)

    def take_over(self, wanted: Iterable[str], *, takes: bool = True) -> dict[str, Any]:
        """Take what nobody in this process has begun, and commit what has ended; return what is ours now.

        Parameters
        ----------
        takes : bool
            Whether to take anything; inside of a run that is done anyway.

        Returns
        -------
        dict
            By key, what its former keeper knew of it.

        Raises
        ------
        DependencyCycleError
            If one of *wanted* waits for a run that this call is inside of.
        """
        wanted, takes = list(wanted), takes or bool(inside_of())
        refuse_circle([self._mark(key) for key in wanted])
        taken: dict[str, Any] = {}
        for key in wanted:
            mark = self._mark(key)
            hold = held.find(mark)
            if hold is None or hold.keeper is self:
                continue
            hold.keeper.is_asked = True
            if hold.outcome is not None:
                hold.keeper.settle(key)
            elif takes and (ours := held.take(mark, self)) is not None:
                self._tokens[key] = ours.token
                taken[key] = ours.row
        return taken

    def acquire(self, wanted: Iterable[str]) -> dict[str, Grant]:
        """Claim what is free of *wanted*, or was left by an owner that is gone; return what was granted."""
        # Before they are granted: an interrupt must not leave behind what this one was not told of yet.
        tokens = {key: self._keys.claims.new_token() for key in wanted}
        held.know(tokens.values(), self)
        self._tokens |= tokens
        grants = self._keys.claims.acquire(tokens, tokens)
        self._drop(tokens.keys() - grants.keys())
        return grants

    def offer(self, key: str, row: Any = None) -> None:
        """Let others in this process find that a key is held here, and what there was under it."""
        held.offer(self._mark(key), self, self._tokens[key], row)

    def pair(self, key: str) -> tuple[str, str]:
        """Return a key that is held with its token, as `Claims.delete` takes them."""
        return key, self._tokens[key]

    def forget(self, key: str) -> None:
        """Note that a claim was used up."""
        self._drop([key])

    def wait_for(self, keys: Sequence[str]) -> None:
        """Note for which keys of others the run of this context waits; there may be none.

        Raises
        ------
        DependencyCycleError
            If one of them waits for a run of this context.
        """
        if keys or self._is_waiting:
            self._is_waiting = bool(keys)
            wait_for([self._mark(key) for key in keys])

    def release(self, keys: Iterable[str]) -> None:
        """Give keys back of which nothing was run."""
        given = list(keys)
        held.withdraw([self._mark(key) for key in given], self)  # before: nobody is to take them now
        pairs = self._pairs(given)
        self._keys.claims.release(pairs)
        self._drop_pairs(pairs)

    def _drop(self, keys: Iterable[str]) -> None:
        self._drop_pairs(self._pairs(keys))

    def _drop_pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Forget claims that are gone, but none that was taken on the same key since, by another thread."""
        gone = [key for key, token in pairs if self._tokens.get(key) == token]
        held.withdraw([self._mark(key) for key in gone], self)
        for key in gone:
            self._tokens.pop(key, None)
        held.forget(token for _, token in pairs)

    def _pairs(self, keys: Iterable[str]) -> list[tuple[str, str]]:
        tokens = ((key, self._tokens.get(key)) for key in keys)
        return [(key, token) for key, token in tokens if token is not None]

    def _mark(self, key: str) -> Mark:
        return self._keys.marker.root, key

    def _mine(self, keys: Iterable[str]) -> dict[str, Hold]:
        """Return those of *keys* of which others can find that they are held here."""
        holds = {key: held.find(self._mark(key)) for key in keys if key in self._tokens}
        return {key: hold for key, hold in holds.items() if hold and hold.keeper is self}

    # What others ask of it, who need a key that it holds, or wait

    def settle(self, key: str) -> None:
        """Commit or record what has come of a key, if it has ended."""
        self._settle_all([key])

    def hand_over(self, key: str) -> None:
        """Forget a key, which is another's now."""
        self._tokens.pop(key, None)

    def give_back(self) -> None:
        """Commit or record what has ended, and give back what was not begun: who waits must not block others."""
        self._settle_all(list(self._tokens))
        free = held.withdraw([self._mark(key) for key in list(self._tokens)], self, only_free=True)
        pairs = self._pairs(free)
        self._keys.claims.release(pairs)
        self._drop_pairs(pairs)

    def _settle_all(self, keys: Iterable[str]) -> None:
        """Commit or record what has ended of *keys*, for whoever keeps it until then."""
