"""SIGTERM, as batch systems send it before they kill: give back what is held, then end as if nothing had been done.

Without a handler the process ends between two instructions, and its claims block their keys until others see that it
is gone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Terminated", "terminable"]


class Terminated(BaseException):
    """SIGTERM came; raised in the main thread, and like `KeyboardInterrupt` no `Exception`."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM in this block raise `Terminated`, and end the process by it when the block is left.

    A second SIGTERM ends it at once. Where the program has a handler of its own, or in another thread than the main
    one, which cannot have any, nothing changes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    has_come = False

    def come(*_: object) -> None:
        nonlocal has_come
        has_come = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    signal.signal(signal.SIGTERM, come)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is come:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if has_come:  # whatever a runner made of the exception
            os.kill(os.getpid(), signal.SIGTERM)
