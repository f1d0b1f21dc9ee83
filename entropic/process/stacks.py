"""What a thread is at for another process, and what it waits for, as the stacks of threads tell.

A process pool knows nothing of runs: whoever waits for a task of one, and whoever is at that task, each see one end of
it. Both name it alike here: by the process that is at it and the number that the pool gave it. That a thread waits is
said only where it waits without a limit for something that has not ended, so what was said stays true until that ends.
What is not recognised counts as no wait: the pools meant here are those of `concurrent.futures`, `multiprocessing`,
loky, joblib and Dask, whose ways are their own and may change; then less is recognised, and nothing wrongly.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from entropic.process.event_loops import awaited
from entropic.process.identity import this_process

__all__ = ["EXECUTOR", "POOL", "PROCESS", "TASK", "Task", "tasks_around", "waits_for"]

Task = tuple[str, str]
"""What somebody may wait for that a process is at: its kind, and who is at it with what number."""

EXECUTOR, POOL, PROCESS, TASK = "executor", "pool", "process", "dask"

_Frames = Mapping[int, FrameType]
_Locals = Mapping[str, Any]

_EXECUTORS = {
    f"{package}process{module}"
    for package, module in (
        ("concurrent.futures.", ""),
        ("loky.", "_executor"),
        ("joblib.externals.loky.", "_executor"),
    )
}


def _name(pid: int, number: object) -> str:
    return f"{this_process().boot} {pid} {number}"


def tasks_around(thread: int) -> list[Task]:
    """Return what this process is at for others that cannot end before *thread* does, outermost first.

    Parameters
    ----------
    thread : int
        Its identifier.
    """
    found: list[Task] = []
    own = {one.ident: one for one in threading.enumerate()}.get(thread)
    frames = sys._current_frames()
    try:
        waiting = [other for other in frames if other == thread or _Look(frames, threads={thread}).at(other)]
        if (own is not None and not own.daemon) or threading.main_thread().ident in waiting:
            found.append((PROCESS, _name(os.getpid(), "")))
        for other in waiting:
            for frame in _stack(frames, other):
                if id(frame) in _of_parent:
                    break  # what it is a fork of is at what follows, not this process
                with suppress(Exception):
                    found += _task_of(frame)
            found += _dask_tasks(other)
    finally:
        frames.clear()  # or this frame would keep itself, and all others
    return found


def _task_of(frame: FrameType) -> Iterator[Task]:
    module, function = frame.f_globals.get("__name__"), frame.f_code.co_name
    if function == "_process_worker" and module in _EXECUTORS:
        item = frame.f_locals.get("call_item")
        if item is not None:
            yield EXECUTOR, _name(os.getpid(), item.work_id)
    elif function == "worker" and module == "multiprocessing.pool":
        job, part = frame.f_locals.get("job"), frame.f_locals.get("i")
        if job is not None:
            yield POOL, _name(os.getpid(), f"{job}.{part}")


def _dask_tasks(thread: int) -> Iterator[Task]:
    module = sys.modules.get("distributed.worker")
    if module is not None:
        with suppress(Exception):
            for worker in list(module.Worker._instances):
                if (key := worker.active_threads.get(thread)) is not None:
                    yield TASK, f"{worker.scheduler.address} {key}"


def waits_for(thread: int, tasks: Collection[Task], closing: Collection[Task] = ()) -> set[Task]:
    """Return those of *tasks* that must end before a thread of this process goes on.

    Parameters
    ----------
    closing : collection of tuple
        Those of *tasks* that are known to wait for this thread. Where the first of several would do, all of them must
        be among these.
    """
    frames = sys._current_frames()
    try:
        return _Look(frames, tasks, closing).at(thread)
    finally:
        frames.clear()


class _Look:
    """One look at what threads wait for."""

    def __init__(
        self,
        frames: _Frames,
        tasks: Collection[Task] = (),
        closing: Collection[Task] = (),
        *,
        threads: Collection[int] = (),
    ) -> None:
        self._frames = frames
        self._tasks = set(tasks)
        self._closing = set(closing)
        self._threads = threads
        self._managers = [one for one in threading.enumerate() if hasattr(one, "pending_work_items")]
        self._seen: set[int] = set()

    def at(self, thread: int) -> set[Task]:
        """Return what of the tasks a thread waits for; of a thread that is looked for, something."""
        found: set[Task] = set()
        if thread in self._seen:
            return found
        self._seen.add(thread)
        for frame in _stack(self._frames, thread):
            rule = _RULES.get((frame.f_globals.get("__name__", ""), frame.f_code.co_name))
            if rule is not None:
                with suppress(Exception):  # a release of somebody's that does it in another way
                    for group in rule(frame.f_locals):
                        found |= self._of_group(group)
        return found

    def _of_group(self, group: list[Any]) -> set[Task]:
        """Return what a wait is for that ends with the first of *group*."""
        ways = [self._of(one) for one in group]
        if len(ways) == 1:
            return ways[0]
        return set().union(*ways) if all(way and way <= self._closing for way in ways) else set()

    def _of(self, thing: Any) -> set[Task]:
        if isinstance(thing, threading.Thread):
            return self._of_thread(thing)
        if hasattr(thing, "_job"):  # of a pool of multiprocessing's
            return self._of_result(thing)
        if hasattr(thing, "key"):  # of Dask's
            task = (TASK, f"{thing.client.scheduler.address} {thing.key}")
            return {task} & self._tasks if not thing.done() else set()
        if hasattr(thing, "pid"):
            return {(PROCESS, _name(thing.pid, ""))} & self._tasks
        return set() if thing.done() else self._of_future(thing)

    def _of_thread(self, thread: threading.Thread) -> set[Task]:
        if thread.ident in self._threads:
            return {(PROCESS, "")}
        if thread in self._managers:  # of an executor that is shut down: it ends with the last of its tasks
            return {task for task in self._tasks if self._item(thread, task) is not None}
        return self.at(thread.ident) if thread.ident is not None else set()

    def _of_result(self, result: Any) -> set[Task]:
        pids = [process.pid for process in result._pool._pool]
        parts = [(pid, task, part) for pid in pids for task, part in self._parts(pid, result._job)]
        if type(result).__name__ == "IMapUnorderedIterator":  # any part would do
            found = {task for _, task, _ in parts} & self._closing
            is_all = result._length is not None and len(found) == result._length - result._index
            return found if is_all else self._in_all_of(pids)
        wanted = str(result._index) if hasattr(result, "_index") else None
        found = {task for _, task, part in parts if wanted in (None, part)}
        return found or self._in_all_of(pids)

    def _parts(self, pid: int, job: int) -> Iterator[tuple[Task, str]]:
        """Yield what a process of a pool of multiprocessing's is at of a job, with the number of the part."""
        start = _name(pid, f"{job}.")
        for task in self._tasks:
            if task[0] == POOL and task[1].startswith(start):
                yield task, task[1].removeprefix(start)

    def _in_all_of(self, pids: Sequence[int]) -> set[Task]:
        """Return what all processes of a pool are at, if all of that waits for this thread."""
        starts = [_name(pid, "") for pid in pids]
        at = [
            {one for one in self._closing if one[0] == POOL and one[1].startswith(start)} for start in starts
        ]
        return set().union(*at) if all(at) else set()

    def _of_future(self, future: Any) -> set[Task]:
        for manager in self._managers:
            for task in self._tasks:
                item = self._item(manager, task)
                if item is not None and item.future is future:
                    return {task}
            if any(item.future is future for item in list(manager.pending_work_items.values())):
                return self._in_the_way(manager)
        for thread in self._frames:
            for frame in _stack(self._frames, thread):
                if (
                    frame.f_globals.get("__name__") == "concurrent.futures.thread"
                    and frame.f_code.co_name == "run"
                    and getattr(frame.f_locals.get("self"), "future", None) is future
                ):
                    return {(PROCESS, "")} if thread in self._threads else self.at(thread)
        return set()

    def _in_the_way(self, manager: Any) -> set[Task]:
        """Return what all processes of an executor are at, if all of that waits for this thread."""
        at = {task for task in self._closing if self._item(manager, task) is not None}
        pids = {int(task[1].split(" ")[-2]) for task in at}
        return at if pids >= set(manager.processes) else set()

    def _item(self, manager: Any, task: Task) -> Any:
        """Return the work item of an executor that *task* is; None if it is none of its."""
        kind, name = task
        boot, pid, number = name.rsplit(" ", 2) if kind == EXECUTOR else ("", "0", "0")
        if kind != EXECUTOR or boot != this_process().boot or int(pid) not in manager.processes:
            return None
        return manager.pending_work_items.get(int(number))


def _stack(frames: _Frames, thread: int) -> Iterator[FrameType]:
    frame: FrameType | None = frames.get(thread)
    while frame is not None:
        yield frame
        frame = frame.f_back


# What a frame waits for, in groups: the wait ends with the first of each group, and with the last group


def _own(frame: _Locals) -> Iterator[list[Any]]:
    if frame["timeout"] is None:
        yield [frame["self"]]


def _futures(frame: _Locals) -> Iterator[list[Any]]:
    if frame["timeout"] is not None:
        return
    if frame["return_when"] == "ALL_COMPLETED":
        yield from ([future] for future in list(frame["fs"]) if not future.done())
    else:
        yield list(frame["fs"])


def _next_future(frame: _Locals) -> Iterator[list[Any]]:
    if frame["timeout"] is None:
        yield list(frame["pending"])


def _next_part(frame: _Locals) -> Iterator[list[Any]]:
    if frame["timeout"] is None:
        yield [frame["self"]]


def _pool(frame: _Locals) -> Iterator[list[Any]]:
    # The thread that ends, and is joined, with the last of the results.
    if frame["thread"]._state == "CLOSE":
        yield from ([result] for result in list(frame["cache"].values()))


def _loop(frame: _Locals) -> Iterator[list[Any]]:
    yield awaited(frame["self"])


def _joblib(frame: _Locals) -> Iterator[list[Any]]:
    parallel = frame["self"]
    if not parallel.return_generator and parallel.timeout is None:
        futures = [batch.job for batch in list(parallel._jobs)]
        yield from ([future] for future in futures if hasattr(future, "done"))


def _gathered(frame: _Locals) -> Iterator[list[Any]]:
    futures = frame["futures"]
    if isinstance(futures, Mapping):
        futures = list(futures.values())
    if isinstance(futures, list | tuple | set):
        yield from ([future] for future in list(futures) if hasattr(future, "key"))


_RULES: dict[tuple[str, str], Callable[[_Locals], Iterator[list[Any]]]] = {
    ("concurrent.futures._base", "result"): _own,
    ("concurrent.futures._base", "exception"): _own,
    ("concurrent.futures._base", "wait"): _futures,
    ("concurrent.futures._base", "as_completed"): _next_future,
    ("threading", "join"): _own,
    ("multiprocessing.process", "join"): _own,
    ("multiprocessing.pool", "wait"): _own,
    ("multiprocessing.pool", "next"): _next_part,
    ("multiprocessing.pool", "_handle_workers"): _pool,
    ("asyncio.base_events", "run_forever"): _loop,
    ("subprocess", "wait"): _own,
    ("subprocess", "communicate"): _own,
    ("joblib.parallel", "_retrieve"): _joblib,
    ("distributed.client", "result"): _own,
    ("distributed.client", "gather"): _gathered,
}


# The frames below that of the fork which made this process; it never returns to them.
_of_parent: set[int] = set()


def _forget_parent() -> None:
    global _of_parent
    here = threading.get_ident()
    _of_parent = {id(frame) for frame in _stack({here: sys._getframe(1)}, here)}


os.register_at_fork(after_in_child=_forget_parent)
