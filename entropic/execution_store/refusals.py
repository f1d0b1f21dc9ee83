"""Why a change of a key came to nothing."""

from __future__ import annotations

from entropic.errors import TransactionError

__all__ = ["called_already", "changed_itself", "lost"]


def lost(name: str, key: str) -> TransactionError:
    """Return the error of a comparison in a block that another process has come before."""
    return TransactionError(
        f"another process changed the key {key!r} of the store {name!r} while this transaction was about to: leave the "
        "block and run all of it again"
    )


def changed_itself(name: str, key: str) -> TransactionError:
    """Return the error of an update of which the function has written the key."""
    return TransactionError(
        f"the function that updates the key {key!r} of the store {name!r} has changed it itself: let it return the "
        "value"
    )


def called_already(name: str, key: str) -> str:
    """Return why an update cannot be tried again."""
    return (
        f"the function that updates the key {key!r} of the store {name!r} was called, and then the database dropped "
        "the transaction with all that was written in it: nothing is changed. Update the key again, which calls the "
        "function again"
    )
