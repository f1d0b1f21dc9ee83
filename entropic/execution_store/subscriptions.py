"""Subscriptions of this process: who is told of the changes of which store, and how far each has come.

One thread for each database looks for events and calls the callbacks, so that what they are told is committed. It is
there while somebody has subscribed. A forked child has no subscriptions.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from entropic.execution_store import events
from entropic.execution_store.events import CHANNEL, Change, Place
from entropic.process.logs import get_logger
from entropic.sql.clock import Clock
from entropic.sql.database import Database
from entropic.sql.listening import Alarm
from entropic.sql.urls import shown

__all__ = ["Subscription", "add", "remove", "ring"]

log = get_logger(__name__)

TROUBLE_S = 5.0  # between two looks while the database cannot be read
END_S = 1.0  # for callbacks when the process ends


@dataclass(eq=False)
class Subscription:
    """Who is told of the changes of a store, and how far that one has come.

    Attributes
    ----------
    place : Place
        After the last change that the callback has returned from.
    age_us : int
        For how long events are kept.
    poll_s : float
        Between two looks where the database does not tell.
    """

    id: str
    scope: str
    store_name: str
    callback: Callable[[Change], object]
    place: Place
    clock: Clock
    age_us: int
    poll_s: float
    is_open: bool = True

    def read(self, connection: Connection) -> tuple[Place, list[Change]]:
        """Return what is to be told next, and the place after that."""
        return events.read(connection, self.clock, self.scope, self.store_name, self.place, self.age_us)

    def tell(self, changes: list[Change]) -> None:
        """Tell the callback of each change, until it raises or is to be told no more."""
        for change in changes:
            if not self.is_open:
                return
            try:
                self.callback(change)
            except BaseException:  # SystemExit, too: the thread is not the callback's
                self.is_open = False
                log.exception(
                    "a subscriber of the store %r raised and is told no more; the change was %s of %r, and it can go "
                    "on from the place %s",
                    self.store_name,
                    change.operation,
                    change.key,
                    self.place.text,
                )
                return
            self.place = Place.of(change.place)


class _Watcher:
    """The thread that serves the subscriptions to one database."""

    def __init__(self, database: Database) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self._database = database
        self._alarm = Alarm(CHANNEL)
        self._is_in_trouble = False
        self._thread = threading.Thread(target=self._run, name="entropic-subscriptions", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        try:
            self._thread.start()
        except RuntimeError:  # there is no place for a thread
            self._alarm.close()
            raise

    def ring(self) -> None:
        """Let it look at once."""
        self._alarm.ring()

    def join(self) -> None:
        """Wait until it has ended, but not for a callback that takes long."""
        self._thread.join(END_S)

    def _run(self) -> None:
        try:
            while those := _of(self):
                self._alarm.wait(min(map(self._serve, those)))
        finally:
            self._database.release()
            self._alarm.close()

    def _serve(self, one: Subscription) -> float:
        """Tell one of what has changed, and return how long it waits for the next look."""

        def look(connection: Connection) -> tuple[Place, list[Change]]:
            self._alarm.listen(connection)
            return one.read(connection)

        # Only who listens needs the kept connection: dispose() closes it in another thread, perhaps in the middle of an
        # answer, and what the drivers make of that is an error of any kind.
        ask = self._database.look if self._database.dialect == "postgresql" else self._database.read
        try:
            place, changes = ask(look)
        except Exception as error:  # the thread is all that its subscribers have
            self._database.release()
            if not self._is_in_trouble:
                log.warning(
                    "the changes in %s cannot be read, and subscribers wait for them: %s",
                    shown(self._database.url),
                    str(error).partition("\n")[0],
                )
            self._is_in_trouble = True
            return TROUBLE_S
        self._is_in_trouble = False
        one.tell(changes)
        if one.is_open:
            one.place = place
        else:
            remove(one.id)
        return 0.0 if changes else one.poll_s


_watchers: dict[Engine, _Watcher] = {}
_lock = threading.Lock()


def add(database: Database, one: Subscription) -> None:
    """Tell *one* of changes from now on, until it is removed."""
    with _lock:
        watcher = _watchers.get(database.engine)
        if watcher is None:
            watcher = _Watcher(database)
            watcher.start()  # first, as it may fail; the thread waits for the lock
            _watchers[database.engine] = watcher
        watcher.subscriptions[one.id] = one
    watcher.ring()


def remove(subscription_id: str) -> bool:
    """Begin no further call of a subscriber's; return whether there was such a one."""
    with _lock:
        for watcher in _watchers.values():
            one = watcher.subscriptions.pop(subscription_id, None)
            if one is not None:
                one.is_open = False
                watcher.ring()
                return True
    return False


def ring(database: Database) -> None:
    """Let the subscribers of this process see at once what this thread has written, when it is committed."""
    watcher = _watchers.get(database.engine) if _watchers else None
    if watcher is not None:
        database.on_commit(watcher.ring)


def _of(watcher: _Watcher) -> list[Subscription]:
    """Return whom a watcher serves; if there is nobody left, another watcher will be made for the next one."""
    with _lock:
        if not watcher.subscriptions:
            for engine in [engine for engine, one in _watchers.items() if one is watcher]:
                del _watchers[engine]
        return list(watcher.subscriptions.values())


def _end() -> None:
    with _lock:
        watchers = list(_watchers.values())
    for watcher in watchers:
        for subscription_id in list(watcher.subscriptions):
            remove(subscription_id)
    for watcher in watchers:
        watcher.join()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _watchers.clear()


atexit.register(_end)
os.register_at_fork(after_in_child=_after_fork_in_child)
