"""The history of a table's claims, attempts and commits, and a small model of what it may be.

Triggers record it in a SQLite database, past the code under test and inside its transactions: what was rolled back
leaves nothing, what was committed stands in the order of the commits. The model plays it back:

* a claim is inserted only while its key is free, a take-over changes the token, no token ever comes again;
* a row is written only by a transaction that gave up the token which its key had just then, once per token, so that
  an owner whose claim was taken over cannot commit;
* each written row has one file record, and either one COMPLETED attempt, named by the file record, or, if the file was
  registered, none; no attempt is recorded twice.

SQLite tells a trigger nothing of its transaction. It is known by its shape: claims are deleted, then rows and file
records written, then attempts. Where a release comes right before a commit the last claims deleted are the commit's.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CLAIMED, TAKEN_OVER, GIVEN_UP = "claimed", "taken over", "given up"
INSERTED, UPDATED, DELETED = "row inserted", "row updated", "row deleted"
RECORDED, ATTEMPTED = "file recorded", "attempted"

_PHASES = {GIVEN_UP: 0, INSERTED: 1, UPDATED: 1, RECORDED: 1, ATTEMPTED: 2}

_HISTORY = """
CREATE TABLE test_history (
    number INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL, key TEXT NOT NULL, value TEXT, detail TEXT
)
"""

_TRIGGER = """
CREATE TRIGGER test_history_{number} AFTER {event} ON {table} {condition}
BEGIN
    INSERT INTO test_history (what, key, value, detail) VALUES ('{what}', {values});
END
"""


@dataclass(frozen=True)
class Event:
    """One row that was inserted, changed or deleted.

    Attributes
    ----------
    value : str or None
        The token of a claim, the new one of a take-over; the id of an attempt, also in a file record.
    detail : str or None
        The former token of a take-over, the state of an attempt.
    """

    what: str
    key: str
    value: str | None = None
    detail: str | None = None


class HistoryError(AssertionError):
    """The history is one that must not be."""


@dataclass
class History:
    """What the history comes to."""

    held: dict[str, str] = field(default_factory=dict)
    """The token of each key that is claimed."""
    rows: set[str] = field(default_factory=set)
    commits: dict[str, str] = field(default_factory=dict)
    """The key of each attempt that was committed, in the order of the commits."""
    attempts: dict[str, str] = field(default_factory=dict)
    """The state of each attempt."""
    tokens: set[str] = field(default_factory=set)
    """All that ever were."""


def record_history(path: Path, table: str) -> None:
    """Make the triggers in the SQLite file *path* that record what happens to *table* from now on."""
    of_table = f"WHEN {{}}.table_name = '{table}'"
    new, old = of_table.format("NEW"), of_table.format("OLD")
    triggers = [
        ("entropic_claims", "INSERT", new, CLAIMED, "NEW.record_id, NEW.token, NULL"),
        ("entropic_claims", "UPDATE OF token, owner", new, TAKEN_OVER, "NEW.record_id, NEW.token, OLD.token"),
        ("entropic_claims", "DELETE", old, GIVEN_UP, "OLD.record_id, OLD.token, NULL"),
        (table, "INSERT", "", INSERTED, "NEW.id, NULL, NULL"),
        (table, "UPDATE OF result_file", "", UPDATED, "NEW.id, NULL, NULL"),
        (table, "DELETE", "", DELETED, "OLD.id, NULL, NULL"),
        ("entropic_files", "INSERT", new, RECORDED, "NEW.record_id, NEW.attempt, NULL"),
        ("entropic_attempts", "INSERT", new, ATTEMPTED, "NEW.record_id, NEW.id, NEW.state"),
    ]
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute(_HISTORY)
        for number, (of, event, condition, what, values) in enumerate(triggers):
            connection.execute(
                _TRIGGER.format(
                    number=number, table=of, event=event, condition=condition, what=what, values=values
                )
            )


def read_history(path: Path) -> list[Event]:
    """Return what the triggers recorded in the SQLite file *path*."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        found = connection.execute("SELECT what, key, value, detail FROM test_history ORDER BY number")
        return [Event(*row) for row in found]


def replay(events: Iterable[Event]) -> History:
    """Play *events* back and return what they come to.

    Raises
    ------
    HistoryError
        If they are a history that must not be; the message has the events of the transaction.
    """
    history = History()
    for transaction in _transactions(events):
        try:
            _apply(history, transaction)
        except HistoryError as error:
            shown = "\n".join(f"  {event}" for event in transaction)
            raise HistoryError(f"{error}, in\n{shown}") from None
    return history


def _transactions(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Cut the history where a transaction must have ended; releases stay with the commit that follows them."""
    transaction: list[Event] = []
    for event in events:
        phase = _PHASES.get(event.what)
        if transaction and (phase is None or phase < _PHASES.get(transaction[-1].what, len(_PHASES))):
            yield transaction
            transaction = []
        transaction.append(event)
    if transaction:
        yield transaction


def _apply(history: History, transaction: list[Event]) -> None:
    given_up: list[str] = []
    written: list[str] = []
    files: dict[str, str | None] = {}
    completed: dict[str, str] = {}
    for event in transaction:
        if event.what in {CLAIMED, TAKEN_OVER}:
            _grant(history, event)
        elif event.what == GIVEN_UP:
            _require(history.held.pop(event.key, None) == event.value, f"{event.key} had another token")
            given_up.append(event.key)
        elif event.what in {INSERTED, UPDATED, DELETED}:
            _require((event.key in history.rows) == (event.what != INSERTED), f"no {event.what} can be")
            (history.rows.discard if event.what == DELETED else history.rows.add)(event.key)
            written += [event.key] if event.what != DELETED else []
        elif event.what == RECORDED:
            _require(event.key not in files, f"{event.key} has two file records")
            files[event.key] = event.value
        else:
            _attempt(history, event)
            if event.detail == "COMPLETED":
                _require(event.key not in completed, f"{event.key} was completed twice")
                completed[event.key] = str(event.value)
    _check_commit(given_up, written, files, completed)
    history.commits.update({attempt: key for key, attempt in completed.items()})


def _grant(history: History, event: Event) -> None:
    token = str(event.value)
    _require(token not in history.tokens, f"the token {token} came again")
    history.tokens.add(token)
    # The former token of a take-over; none where the claim is a new one.
    _require(history.held.get(event.key) == event.detail, f"{event.key} had another token, or was not free")
    history.held[event.key] = token


def _attempt(history: History, event: Event) -> None:
    attempt = str(event.value)
    _require(attempt not in history.attempts, f"the attempt {attempt} was recorded twice")
    history.attempts[attempt] = str(event.detail)


def _check_commit(
    given_up: list[str], written: list[str], files: dict[str, str | None], completed: dict[str, str]
) -> None:
    _require(len(set(written)) == len(written), "a row was written twice on one claim")
    claimed = given_up[len(given_up) - len(written) :] if written else []
    _require(set(claimed) == set(written), "a row was written without its claim")
    _require(files.keys() == set(written), "rows and file records are not of the same keys")
    made = {key: attempt for key, attempt in files.items() if attempt is not None}
    _require(made == completed, "the completed attempts are not those whose files were recorded")


def _require(condition: bool, violation: str) -> None:
    if not condition:
        raise HistoryError(violation)
