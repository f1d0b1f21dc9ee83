"""Garbage that is looked for at every chance: what another thread may do between any two steps of C code."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def at_each_collection(act: Callable[[], object]) -> Iterator[None]:
    """Look for garbage whenever something is made, and call *act* each time, as a thread would that comes in then."""

    def called(phase: str, info: object) -> None:
        if phase == "start":
            act()

    before = gc.get_threshold()
    gc.callbacks.append(called)
    gc.set_threshold(1)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(called)
