"""What an event loop of asyncio's waits for, as far as that is something of other threads and processes.

A loop goes on with the first thing that any of its tasks waits for. So this is known only where all of that is known:
no timer and no socket, and each task waits for an executor, or for others that do.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import Any

__all__ = ["awaited"]


def awaited(loop: Any) -> list[Any]:
    """Return the futures of executors with the first of which a loop goes on; none if it may go on with another thing.

    Parameters
    ----------
    loop : asyncio.BaseEventLoop
        Of another thread, which is inside of it.

    Raises
    ------
    LookupError
        If a task waits for what is not known here.
    AttributeError
        If it is a loop of another kind, or of a release whose ways are others.
    """
    has_timer = any(not timer.cancelled() for timer in list(loop._scheduled))
    wakes = len(loop._selector.get_map())  # its own pipe is one
    if has_timer or loop._ready or wakes > 1:
        return []
    tasks = sys.modules["asyncio"].all_tasks(loop)
    return [future for task in tasks for future in _of_task(task, tasks)]


def _of_task(task: Any, tasks: Collection[Any]) -> Iterator[Any]:
    where = task.get_coro()
    while hasattr(inner := where.cr_await, "cr_await"):
        where = inner
    frame = where.cr_frame
    name = (frame.f_globals["__name__"], frame.f_code.co_name)
    if name == ("asyncio.taskgroups", "__aexit__"):
        return  # for its tasks, each of which is asked
    waited_for = list(frame.f_locals["fs"]) if name == ("asyncio.tasks", "_wait") else [task._fut_waiter]
    if all(one.done() for one in waited_for):
        raise LookupError(f"{task!r} goes on")
    for one in waited_for:
        yield from _of_future(one, tasks)


def _of_future(future: Any, tasks: Collection[Any]) -> Iterator[Any]:
    if future.done() or future in tasks:
        return
    if hasattr(future, "_children"):  # of gather
        for one in future._children:
            yield from _of_future(one, tasks)
        return
    for callback, _ in future._callbacks or ():
        names = getattr(getattr(callback, "__code__", None), "co_freevars", ())
        if callback.__qualname__ == "_chain_future.<locals>._call_check_cancel" and "source" in names:
            yield callback.__closure__[names.index("source")].cell_contents
            return
    raise LookupError(f"what {future!r} waits for is not known")
