"""Arrays for tests, and processes that replace one all the time, or are killed while they do."""

import os
import time
from pathlib import Path

import numpy as np

from entropic.array_store import LocalArrayStore
from entropic.disk import replacing
from entropic.errors import EntropicError
from tests.support.kill_steps import killing_at

VALUES = np.arange(24, dtype="uint8").reshape(2, 3, 4)
STEPS = ("mkdir", "rename", "rmdir", "unlink")
SECONDS = 4.0


def one_after_the_other() -> None:
    """Have a system that cannot exchange two folders."""
    replacing._system_call = lambda: None  # type: ignore[assignment]


def killed_at(step: int, basedir: Path, at_once: bool) -> None:
    """Replace an array, and be killed before so many steps, or after all."""
    if not at_once:
        one_after_the_other()
    counted = killing_at(step)
    store = LocalArrayStore(basedir)
    store._zarr()
    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    replacing._swap = counted(replacing._swap)
    store.store_array(store.validation_prediction_array("r", 5, "d"), VALUES + 1, overwrite=True)


def write(store: LocalArrayStore, number: int) -> None:
    """Store an array of many chunks, all of one number."""
    identifier = store.validation_prediction_array("r", 5, "d")
    store.store_array(identifier, np.full((64, 64, 8), number), overwrite=True, chunks=(16, 16, 8))


def replace_or_read(basedir: Path, at_once: bool, what: str) -> tuple[set[int], list[str]]:
    """Write or read for some seconds; return the numbers that were there, and what was not as it should be."""
    if not at_once:
        one_after_the_other()
    store, numbers, trouble, end = LocalArrayStore(basedir), set(), [], time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < end:
        number = number % 50 + 1
        if what == "write":
            write(store, number)
            continue
        try:
            found = np.unique(store.retrieve_array(store.validation_prediction_array("r", 5, "d")))
        except EntropicError as error:
            trouble.append(repr(error))
            continue
        numbers |= set(found.tolist())
        if found.size > 1:
            trouble.append(f"mixed: {found}")
    return numbers, trouble
