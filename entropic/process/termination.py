"""SIGTERM, as batch systems send it before they kill: give back what is held, then end as if nothing had been done.

Without a handler the process ends between two instructions, and its claims block their keys until others see that it
is gone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

from entropic.process.blocks import transparent

__all__ = ["Terminated", "raise_if_terminated", "terminable"]


class Terminated(BaseException):
    """SIGTERM came; raised in the main thread, and like `KeyboardInterrupt` no `Exception`."""


_handler: Callable[..., None] | None = None  # the latest of ours
_has_come = False
_forking = threading.local()  # .mask: the signals that this thread blocked before it forked


@transparent
def terminable() -> Iterator[None]:
    """Let SIGTERM in this block raise `Terminated`, and end the process by it when the block is left.

    A second SIGTERM ends it at once. Where the program has a handler of its own, or in another thread than the main
    one, which cannot have any, nothing changes; nor does it in processes that are forked in the block.
    """
    global _handler, _has_come
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    _has_come = False

    def come(*_: object) -> None:
        global _has_come
        _has_come = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    try:
        _handler = come
        signal.signal(signal.SIGTERM, come)
        yield
    finally:
        try:
            if signal.getsignal(signal.SIGTERM) is come:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        finally:
            if _has_come:  # whatever a runner made of the exception
                os.kill(os.getpid(), signal.SIGTERM)


def raise_if_terminated() -> None:
    """Raise `Terminated` again if SIGTERM has come, and a runner has caught the first one."""
    if _has_come:
        raise Terminated


def _is_installed() -> bool:
    return _handler is not None and signal.getsignal(signal.SIGTERM) is _handler


def _before_fork() -> None:
    # Python forgets the signals that reach a child before it runs: this one must wait for its default.
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}) if _is_installed() else None


def _after_fork() -> None:
    mask, _forking.mask = _forking.mask, None
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    # A pool of processes, for instance, ends its own by SIGTERM and expects that they end; and what the block holds is
    # the parent's to give back.
    global _has_come
    _has_come = False
    if _is_installed():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
