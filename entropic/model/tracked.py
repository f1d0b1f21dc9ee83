"""The mapping in ``custom_data``, whose changes in place a session sees."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy.ext.mutable import MutableDict

__all__ = ["TrackedDict"]


class TrackedDict(MutableDict[str, Any]):
    """A `MutableDict` that makes the list of those who have it when that is asked for.

    Most records are never changed, and the list would take longer to make than the record.
    """

    _state: Any = None  # of the record that it was made with, until the list is there

    def kept_by(self, state: Any) -> TrackedDict:
        """Note the state of the one record that has this as its ``custom_data``; return this."""
        self._state = state
        return self

    @property
    def _parents(self) -> WeakKeyDictionary[Any, str]:
        parents: WeakKeyDictionary[Any, str] | None = self.__dict__.get("_made")
        if parents is None:
            parents = self.__dict__["_made"] = WeakKeyDictionary()
            state = self.__dict__.pop("_state", None)
            if state is not None and state.obj() is not None:
                parents[state] = "custom_data"
        return parents
