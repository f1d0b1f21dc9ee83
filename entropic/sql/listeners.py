"""Whether anybody listens to an engine's statements: those who do must see each of them, so SQLAlchemy has to run it.

Listeners may come and go at any time, so a hit asks each time. The answer is a comparison with what the engine was
when nobody listened: an event that gets its first listener gets another collection, and an echo another logger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

__all__ = ["is_unheard", "unheard"]

_EVENTS = ("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute")
_sql_log = logging.getLogger("sqlalchemy.engine")


def is_unheard(engine: Engine) -> bool:
    """Whether nobody listens to the statements of *engine*, sees them echoed, or has their tables translated."""
    events: Any = engine.dispatch
    return not (
        engine.echo
        or any(getattr(events, name) for name in _EVENTS)
        or _sql_log.isEnabledFor(logging.INFO)
        or engine.get_execution_options().get("schema_translate_map")
    )


def unheard(engine: Engine) -> Callable[[], bool]:
    """Return a function that says what `is_unheard` says of *engine*, for a fraction of its time."""
    events: Any = engine.dispatch
    four = [getattr(events, name) for name in _EVENTS]
    # Whoever listened before is not worth a short cut: the next one would be in the same collection.
    if any(not isinstance(one.listeners, tuple) for one in four):
        return lambda: is_unheard(engine)
    before, after, before_cursor, after_cursor = four
    # Of all engines; the collections stay what they are.
    every, every_after, every_cursor, every_after_cursor = (one.parent_listeners for one in four)
    quiet = engine.logger
    options = engine._execution_options
    is_logged = _sql_log.isEnabledFor
    info = logging.INFO

    def is_still_unheard() -> bool:
        return not (
            events.before_cursor_execute is not before_cursor
            or events.after_cursor_execute is not after_cursor
            or events.before_execute is not before
            or events.after_execute is not after
            or every_cursor
            or every_after_cursor
            or every
            or every_after
            or engine.logger is not quiet
            or engine._execution_options is not options
            or is_logged(info)
        ) or is_unheard(engine)

    return is_still_unheard
