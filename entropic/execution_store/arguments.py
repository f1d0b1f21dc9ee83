"""What callers may give: names of keys and stores, contexts, policies and times to live."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from numbers import Real
from typing import Any
from uuid import UUID

from entropic.execution_store.documents import STORE_KEY, KeyPolicy
from entropic.process.callables import STILL_TO_BE_RUN, returns_later

__all__ = [
    "EPOCH",
    "check_function",
    "check_kept",
    "check_key",
    "check_name",
    "check_poll",
    "check_ttl",
    "check_version",
    "expiry",
    "is_store_key",
    "policy_of",
    "prefix_range",
    "scope_of",
]

NAME_LENGTH = 255
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
LONGEST_S = 1e12  # more than the calendar has, and no float is too small for it
LAST_CHARACTER = 0x10FFFF
_DATABASE = re.compile(r"(sqlite|postgresql|mysql|mariadb)(\+\w+)?://")
_OBJECT_ID = re.compile(r"[0-9a-f]{24}")


def check_name(name: Any, what: str = "the name of a store") -> str:
    """Return *name* if every database can keep it exactly.

    Raises
    ------
    ValueError
        If it is no text of 1 to 255 characters, or has NUL or half of a surrogate pair.
    """
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH:
        size = f" of {len(name)}" if isinstance(name, str) else ""
        raise ValueError(f"{what} is text of 1 to {NAME_LENGTH} characters, not{size} {name!r:.100}")
    if "\0" in name or (not name.isascii() and any("\ud800" <= one <= "\udfff" for one in name)):
        raise ValueError(f"{what} has no NUL and no half of a surrogate pair, as {name!r:.300} has")
    return str.__str__(name)  # str() of an Enum member is not its value


def check_key(key: Any) -> str:
    """Return *key* if a value can be kept under it.

    Raises
    ------
    ValueError
        If `check_name` has something against it, or it stands for the store itself.
    """
    if is_store_key(key):
        raise ValueError(
            f"{STORE_KEY!r} is a reserved key, which stands for the store itself: use create_store, update_metadata "
            "and delete_store of the service, or another key"
        )
    return check_name(key, "a key")


def is_store_key(key: Any) -> bool:
    """Whether a key stands for the store itself; of what is no text, such as an array, nothing is asked."""
    return isinstance(key, str) and key == STORE_KEY


def check_function(function: Any, what: str) -> None:
    """Raise TypeError if *function* cannot be called, or a call of it does nothing yet."""
    if not callable(function):
        raise TypeError(f"{what}, not {function!r:.100}")
    if returns_later(function):
        raise TypeError(
            f"{what}, and what {function!r:.100} returns {STILL_TO_BE_RUN}: give a plain function, be it one that "
            "calls asyncio.run(...)"
        )


def scope_of(dataset_id: Any) -> str:
    """Return the text that stands for a context in the database; empty for the global one.

    Raises
    ------
    ValueError
        If it is no text, number, UUID or ObjectId, or the URL of a database.
    """
    if dataset_id is None:
        return ""
    if isinstance(dataset_id, str):
        if _DATABASE.match(dataset_id):  # all would go to the database of the options
            raise ValueError(
                "the dataset_id is the URL of a database (not shown, a password may be in it): say database=..."
            )
        return check_name(dataset_id, "a dataset_id")
    is_number = isinstance(dataset_id, int) and not isinstance(dataset_id, bool)
    if is_number or isinstance(dataset_id, UUID) or _OBJECT_ID.fullmatch(str(dataset_id)):
        return check_name(str(dataset_id), "a dataset_id")
    raise ValueError(
        f"a dataset_id is text, a number, a UUID or an ObjectId, not {dataset_id!r:.100} of type "
        f"{type(dataset_id).__name__}; leave it out for the global context"
    )


def policy_of(policy: Any) -> KeyPolicy:
    """Return the policy that is meant.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        return KeyPolicy(policy)
    except ValueError:
        raise ValueError(f"a policy is 'persist' or 'evict', not {policy!r:.100}") from None


def check_ttl(ttl: Any) -> float | None:
    """Return *ttl* if it is a time to live in seconds.

    Raises
    ------
    ValueError
        If it is no number, negative or not finite.
    """
    if ttl is None:
        return None
    seconds = _number(ttl)
    if seconds is None:
        raise ValueError(f"a ttl is a number of seconds, 0 or more, not {ttl!r:.100}; None is without an end")
    return seconds


def check_kept(age_s: Any, count: Any) -> tuple[int, int]:
    """Return for how many microseconds, and how many events are kept.

    Raises
    ------
    ValueError
        If it is no time, or no number of them.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"events_kept is how many events of a store are kept, 1 or more, not {count!r:.100}")
    return round(_seconds(age_s, "events_kept_s") * 1e6), count


def check_version(version: Any) -> int:
    """Return the version of a key."""
    if isinstance(version, bool) or not isinstance(version, int):
        raise TypeError(f"a version is what get_with_version has given, not {version!r:.100}")
    return version


def check_poll(poll_s: Any) -> float:
    """Return *poll_s* if it is a time between two looks.

    Raises
    ------
    ValueError
        If it is none.
    """
    return _seconds(poll_s, "poll_s")


def _seconds(value: Any, name: str) -> float:
    seconds = _number(value)
    if not seconds:
        raise ValueError(f"{name} is a number of seconds, more than 0, not {value!r:.100}")
    return seconds


def _number(value: Any) -> float | None:
    """Return *value* as a float, cut at `LONGEST_S`; None if it is no finite number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number: Any = value
    return float(min(number, LONGEST_S)) if 0 <= number < math.inf else None


def expiry(now_us: int, ttl: float | None) -> int | None:
    """Return when a time to live that begins at *now_us* is over, in microseconds since 1970.

    Raises
    ------
    ValueError
        If it is after the year 9999.
    """
    if ttl is None:
        return None
    at = now_us + round(ttl * 1e6)
    if at > LAST_US:
        raise ValueError(f"a ttl of {ttl:g} s ends after the year 9999; None is without an end")
    return at


def prefix_range(prefix: str) -> tuple[str, str | None]:
    """Return the first name that may begin with *prefix*, and the first after it that does not, if there is one."""
    end = prefix
    while end:
        character = ord(end[-1])
        if character < LAST_CHARACTER:
            # Halves of surrogate pairs are no characters.
            return prefix, end[:-1] + chr(0xE000 if character == 0xD7FF else character + 1)
        end = end[:-1]
    return prefix, None
