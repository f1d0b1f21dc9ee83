"""What a set of parameters is: its key, what the row holds, and what the runner gets."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from entropic.errors import ParameterError
from entropic.values.parameter_documents import NOTHING_ELSE, BadValue, Document, Documents, Sources, rebuild

__all__ = ["Documented", "Identity"]

_IMMUTABLE = frozenset({int, float, str, bool, bytes, type(None)})


class Identity(NamedTuple):
    """What a set of parameters is, for one table.

    Attributes
    ----------
    id : str
        The key.
    former_id : str or None
        The key that the published release 2.3 gave these parameters, where it is another one.
    values : dict
        Every parameter as its column holds it, defaults filled in.
    given : frozenset of str or None
        With an explicit ``id``: the parameters that were given, the only ones to compare. None for all.
    sources : dict
        By JSON parameter, where its document alone does not say what the runner must get: arrays, classes.
    originals : dict
        Enum members that the runner must get as they were given: their class may have been defined again.
    members : dict
        Enum members given for string columns, as text, ``Method.RK4``: what 2.3 put into the row under this key.
    ignored : dict
        What reaches the runner as it is, and identifies nothing.
    """

    id: str
    former_id: str | None
    values: dict[str, Any]
    given: frozenset[str] | None
    sources: dict[str, Sources]
    originals: dict[str, Any]
    members: dict[str, str]
    ignored: dict[str, Any]
    documents: frozenset[str]
    """The JSON parameters: their values are documents."""
    has_tuples: bool
    """Whether the former key is that of other parameters too, with lists for tuples."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The keys under which a row may stand, the own one first."""
        return (self.id,) if self.former_id is None else (self.id, self.former_id)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Identity:
        """Return the identity of a row: what another one under its key must be."""
        return cls(str(row["id"]), None, dict(row), None, {}, {}, {}, {}, frozenset(), has_tuples=False)

    @classmethod
    def of_key(cls, key: str) -> Identity:
        """Return the identity of a key of which nothing else is known, nor compared with its row."""
        return cls(key, None, {}, frozenset(), {}, {}, {}, {}, frozenset(), has_tuples=False)

    def key_of_run(self, found: str | None) -> str:
        """Return the key under which a run is kept where the row *found* is the one that there is."""
        # A former key that is that of lists too is left to the row that it has, which is theirs as well.
        return self.id if found is None or self.has_tuples else found

    def for_runner(self) -> dict[str, Any]:
        """Return the parameters as the runner sees them; but for what is ignored, nothing of them is the caller's.

        Raises
        ------
        ParameterError
            If an array or an object was changed since it was given.
        """
        made = {}
        for name, value in self.values.items():
            if name not in self.documents:
                made[name] = value if type(value) in _IMMUTABLE else copy.deepcopy(value)
                continue
            try:
                made[name] = rebuild(value, self.sources.get(name, NOTHING_ELSE))
            except BadValue as reason:
                raise ParameterError(f"the parameter {name!r} {reason}") from None
        return {**made, **self.originals, **self.ignored}


class Documented:
    """What is found out about the JSON parameters of one call.

    Attributes
    ----------
    sources : dict
        By parameter, of documents that do not hold all; beginning with those of the defaults.
    is_former : bool
        Whether the published release 2.3 could have stored the parameters.
    has_changed : bool
        Whether it may have given them another key.
    has_tuples : bool
        Whether it would have given that key to other parameters too, with lists for tuples.
    """

    def __init__(self, sources: dict[str, Sources], is_former: bool) -> None:
        self.sources = sources
        self.is_former = is_former
        self.has_changed = self.has_tuples = False
        self._documents: Documents | None = None

    @property
    def documents(self) -> Documents:
        """What makes the documents of this call."""
        # Not cached_property: its lock is the class's, and stays locked in a child that is forked meanwhile.
        if self._documents is None:
            self._documents = Documents()
        return self._documents

    def add(self, name: str, document: Document) -> tuple[Any, Any]:
        """Take a parameter's document in, and return what is stored and what is hashed."""
        if document.is_plain:
            self.sources.pop(name, None)
        else:
            self.sources[name] = self.documents.sources
            self.has_tuples = True
        self.has_changed = self.has_changed or document.former is not False
        self.is_former = self.is_former and document.former is not None
        return document.stored, document.key
