"""What a thread waits for, and what a process is at: seen where it is so, and never where it is not."""

import asyncio
import concurrent.futures
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from entropic.process.stacks import EXECUTOR, POOL, PROCESS, TASK, tasks_around, waits_for
from tests.support.processes import forkserver
from tests.support.waiting import wait_for

LIMIT_S = 30.0


def work(folder, name="0", how="here"):
    """Say what this process is at, and end when there is a file ``go``."""

    def say():
        if how != "here":
            time.sleep(0.1)  # who starts it waits for it by then, if it does
        at = tasks_around(threading.get_ident())
        part = Path(folder, f".{name}")
        part.write_text(json.dumps(at))
        part.rename(Path(folder, name))
        wait_for(Path(folder, "go").exists, timeout_s=LIMIT_S)

    if how == "here":
        say()
    elif how == "threads":
        with ThreadPoolExecutor(1) as threads:
            threads.submit(say).result()
    else:  # a thread that nothing here waits for
        thread = threading.Thread(target=say, daemon=True)
        thread.start()
        while thread.is_alive():
            time.sleep(0.01)
    return name


@pytest.fixture
def pool(tmp_path):
    with ProcessPoolExecutor(2, mp_context=forkserver()) as executor:
        yield executor
        (tmp_path / "go").touch()


@pytest.fixture
def waiting(tmp_path):
    """Call a function in a thread, and return what it waits for of what *names* are at."""
    threads = []

    def look(function, *names, closing=()):
        thread = threading.Thread(target=function)
        thread.start()
        threads.append(thread)
        tasks = {name: at(name) for name in names}
        every = [task for one in tasks.values() for task in one]
        found, before, still = set(), None, 0
        deadline = time.monotonic() + 3.0
        while not found and still < 20 and time.monotonic() < deadline:  # it may be on its way yet
            found = waits_for(thread.ident, every, [task for name in closing for task in tasks[name]])
            here = traceback.extract_stack(sys._current_frames().get(thread.ident), limit=3)
            still = still + 1 if here == before else 0
            before = here
            time.sleep(0.01)
        return {name for name in names if found.intersection(tasks[name])}

    def at(name):
        wait_for((tmp_path / name).exists, timeout_s=LIMIT_S)
        return [tuple(task) for task in json.loads((tmp_path / name).read_text())]

    yield look
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def in_threads(future):
    with ThreadPoolExecutor(1) as threads:
        threads.submit(future.result).result()


def in_thread(future):
    thread = threading.Thread(target=future.result)
    thread.start()
    thread.join()


def polled(future):
    while not future.done():
        time.sleep(0.01)


WAYS = {
    "result": lambda future: future.result(),
    "exception": lambda future: future.exception(),
    "all": lambda future: concurrent.futures.wait([future]),
    "next": lambda future: list(concurrent.futures.as_completed([future])),
    "over a pool of threads": in_threads,
    "over a thread": in_thread,
}
NO_WAYS = {
    "limited": lambda future: future.result(LIMIT_S),
    "limited for all": lambda future: concurrent.futures.wait([future], LIMIT_S),
    "polled": polled,
}


@pytest.mark.parametrize("way", WAYS)
def test_thread_that_waits_for_a_task_is_seen(waiting, pool, tmp_path, way):
    future = pool.submit(work, tmp_path)

    assert waiting(lambda: WAYS[way](future), "0") == {"0"}


@pytest.mark.parametrize("way", NO_WAYS)
def test_thread_that_may_go_on_without_a_task_does_not_wait_for_it(waiting, pool, tmp_path, way):
    future = pool.submit(work, tmp_path)

    assert waiting(lambda: NO_WAYS[way](future), "0") == set()


def test_thread_waits_only_for_its_own_task(waiting, pool, tmp_path):
    """Another one is at the same pool, and a process of that has the same number in another pool."""
    with ProcessPoolExecutor(1, mp_context=forkserver()) as other:
        futures = [pool.submit(work, tmp_path, "0"), pool.submit(work, tmp_path, "1")]
        other.submit(work, tmp_path, "2")

        assert waiting(futures[1].result, "0", "1", "2") == {"1"}
        (tmp_path / "go").touch()


def test_thread_that_maps_waits_for_the_first_part(waiting, pool, tmp_path):
    assert waiting(lambda: list(pool.map(work, [tmp_path] * 2, "01")), "0", "1") == {"0"}


def test_thread_that_shuts_an_executor_down_waits_for_its_tasks(waiting, tmp_path):
    # Its own: two who shut it down at once are in each other's way.
    pool = ProcessPoolExecutor(1, mp_context=forkserver())
    pool.submit(work, tmp_path)

    assert waiting(pool.shutdown, "0") == {"0"}


@pytest.mark.parametrize("closing", ["", "0", "01"])
def test_thread_that_takes_what_comes_first_waits_if_all_of_it_waits_for_that(
    waiting, pool, tmp_path, closing
):
    futures = [pool.submit(work, tmp_path, name) for name in "01"]

    found = waiting(lambda: next(concurrent.futures.as_completed(futures)), "0", "1", closing=closing)

    assert found == (set("01") if closing == "01" else set())


@pytest.mark.parametrize("closing", ["0", "01"])
def test_thread_waits_for_what_is_in_the_way_of_its_task_if_that_is_all(waiting, pool, tmp_path, closing):
    for name in "01":
        pool.submit(work, tmp_path, name)
    queued = [pool.submit(work, tmp_path, name) for name in "23456"][-1]

    assert waiting(queued.result, "0", "1", closing=closing) == (set("01") if closing == "01" else set())


@pytest.mark.parametrize(("how", "found"), [("threads", {"0"}), ("daemon", set())])
def test_task_is_what_its_threads_are_at_if_it_waits_for_them(waiting, pool, tmp_path, how, found):
    future = pool.submit(work, tmp_path, "0", how)

    assert waiting(future.result, "0") == found


PARTS = {
    "apply": lambda pool, folder: pool.apply(work, (folder,)),
    "map": lambda pool, folder: pool.map(work, [folder]),
    "imap": lambda pool, folder: list(pool.imap(work, [folder])),
}


@pytest.mark.parametrize("way", [*PARTS, "get", "wait"])
def test_thread_that_waits_for_a_pool_of_multiprocessing_is_seen(waiting, tmp_path, way):
    with contextlib.closing(forkserver().Pool(1)) as pool:
        if way in PARTS:
            found = waiting(lambda: PARTS[way](pool, tmp_path), "0")
        else:
            result = pool.apply_async(work, (tmp_path,))
            found = waiting(getattr(result, way), "0")
        (tmp_path / "go").touch()
    pool.join()

    assert found == {"0"}


def test_thread_that_waits_for_a_pool_of_multiprocessing_with_a_limit_does_not_wait(waiting, tmp_path):
    with contextlib.closing(forkserver().Pool(1)) as pool:
        result = pool.apply_async(work, (tmp_path, "0"))
        assert waiting(lambda: result.get(LIMIT_S), "0") == set()
        (tmp_path / "go").touch()
    pool.join()


def named(given):
    """`work` with one argument, as imap_unordered gives."""
    return work(*given)


@pytest.mark.parametrize(
    ("parts", "closing"), [("01", ""), ("01", "0"), ("01", "01"), ("01x", "01"), ("0", "0")]
)
def test_thread_that_takes_any_part_of_a_pool_waits_if_all_of_them_wait_for_it(
    waiting, tmp_path, parts, closing
):
    with contextlib.closing(forkserver().Pool(2)) as pool:
        given = [(tmp_path, name) for name in parts]

        found = waiting(lambda: list(pool.imap_unordered(named, given)), *parts[:2], closing=closing)

        (tmp_path / "go").touch()
    pool.join()
    assert found == (set(closing) if set(closing) == set(parts[:2]) else set())


@pytest.mark.parametrize("closing", ["0", "01"])
def test_thread_waits_for_what_all_of_a_pool_is_at_if_its_part_is_queued(waiting, tmp_path, closing):
    with contextlib.closing(forkserver().Pool(2)) as pool:
        for name in "01":
            pool.apply_async(work, (tmp_path, name))
        queued = pool.apply_async(work, (tmp_path, "2"))

        found = waiting(queued.get, "0", "1", closing=closing)

        (tmp_path / "go").touch()
    pool.join()
    assert found == (set("01") if closing == "01" else set())


def test_thread_that_joins_a_pool_waits_for_what_it_is_at(waiting, tmp_path):
    pool = forkserver().Pool(2)
    pool.apply_async(work, (tmp_path, "0"))
    pool.imap(named, [(tmp_path, "1")])
    pool.close()

    assert waiting(pool.join, "0", "1") == set("01")


async def gathered(*ways):
    await asyncio.gather(*(way() for way in ways))


async def grouped(*ways):
    async def one(way):
        await way()

    async with asyncio.TaskGroup() as group:
        for way in ways:
            group.create_task(one(way))


async def any_of(*ways):
    await asyncio.wait([asyncio.ensure_future(way()) for way in ways])


def over_a_thread_of_the_loop(future):
    return lambda: asyncio.to_thread(future.result)


def wrapped(future):
    return lambda: asyncio.wrap_future(future)


@pytest.mark.parametrize("closing", ["", "0", "01"])
@pytest.mark.parametrize("each", [wrapped, over_a_thread_of_the_loop])
@pytest.mark.parametrize("together", [gathered, grouped, any_of])
def test_event_loop_waits_if_all_that_its_tasks_wait_for_waits_for_it(
    waiting, pool, tmp_path, together, each, closing
):
    futures = [pool.submit(work, tmp_path, name) for name in "01"]

    found = waiting(lambda: asyncio.run(together(*(each(one) for one in futures))), "0", "1", closing=closing)

    assert found == (set("01") if closing == "01" else set())


def test_event_loop_that_waits_for_one_future_waits_for_its_task(waiting, pool, tmp_path):
    future = pool.submit(work, tmp_path)

    assert waiting(lambda: asyncio.run(gathered(wrapped(future))), "0") == {"0"}


async def with_a_limit(future):
    await asyncio.wait_for(asyncio.wrap_future(future), LIMIT_S)


async def beside_a_timer(future):
    asyncio.get_running_loop().call_later(LIMIT_S, print)
    await asyncio.wrap_future(future)


async def beside_a_socket(future):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        asyncio.get_running_loop().add_reader(ours, print)
        await asyncio.wrap_future(future)
        asyncio.get_running_loop().remove_reader(ours)


async def beside_what_is_not_known(future):
    event = asyncio.Event()
    other = asyncio.create_task(event.wait())
    await asyncio.wrap_future(future)
    event.set()
    await other


async def awake(future):
    while not future.done():
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "way", [with_a_limit, beside_a_timer, beside_a_socket, beside_what_is_not_known, awake]
)
def test_event_loop_that_may_go_on_otherwise_does_not_wait(waiting, pool, tmp_path, way):
    future = pool.submit(work, tmp_path)

    assert waiting(lambda: asyncio.run(way(future)), "0", closing="0") == set()


@pytest.mark.parametrize(("how", "found"), [("here", {"0"}), ("threads", {"0"}), ("daemon", set())])
def test_thread_that_joins_a_process_waits_for_it(waiting, tmp_path, how, found):
    process = forkserver().Process(target=work, args=(tmp_path, "0", how))
    process.start()

    assert waiting(process.join, "0") == found
    (tmp_path / "go").touch()
    process.join(LIMIT_S)


def test_thread_that_has_a_limit_does_not_wait_for_a_process(waiting, tmp_path):
    process = forkserver().Process(target=work, args=(tmp_path,))
    process.start()

    assert waiting(lambda: process.join(LIMIT_S), "0") == set()
    (tmp_path / "go").touch()
    process.join(LIMIT_S)


@pytest.mark.parametrize("way", ["wait", "communicate"])
def test_thread_that_waits_for_a_program_is_seen(waiting, way):
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(30)"])
    boot = tasks_around(threading.get_ident())[0][1].rsplit(" ", 2)[0]
    task = (PROCESS, f"{boot} {child.pid} ")
    thread = threading.Thread(target=getattr(child, way))
    thread.start()
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: waits_for(thread.ident, [task]), timeout_s=5.0)

    found = waits_for(thread.ident, [task, (PROCESS, f"{boot} {os.getpid()} ")])
    child.kill()
    thread.join(LIMIT_S)
    assert found == {task}


def test_kinds_are_told_apart(pool, tmp_path):
    (tmp_path / "go").touch()
    pool.submit(work, tmp_path).result()
    with contextlib.closing(forkserver().Pool(1)) as parts:
        parts.apply(work, (tmp_path, "1"))
    parts.join()

    kinds = [[kind for kind, _ in json.loads((tmp_path / name).read_text())] for name in "01"]
    assert kinds == [[PROCESS, EXECUTOR], [PROCESS, POOL]]
    assert [kind for kind, _ in tasks_around(threading.get_ident())] == [PROCESS]


def kinds_in_fork():
    """What a fork of this process is at, by kind; its stack is a copy of its parent's."""
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        kinds = [kind for kind, _ in tasks_around(threading.get_ident())]
        os.write(sender, json.dumps(kinds).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return json.loads(os.read(receiver, 1000)), [kind for kind, _ in tasks_around(threading.get_ident())]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_is_not_at_the_task_of_its_parent(pool):
    assert pool.submit(kinds_in_fork).result() == ([PROCESS], [PROCESS, EXECUTOR])


@pytest.mark.slow
def test_thread_that_waits_for_joblib_is_seen(waiting, tmp_path):
    joblib = pytest.importorskip("joblib")
    from joblib.externals.loky import get_reusable_executor

    found = waiting(
        lambda: joblib.Parallel(2)(joblib.delayed(work)(tmp_path, name) for name in "01"), "0", "1"
    )
    (tmp_path / "go").touch()
    get_reusable_executor().shutdown()

    assert found == {"0", "1"}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["result", "gather", "limited"])
def test_thread_that_waits_for_a_task_of_dask_is_seen(waiting, tmp_path, dask_client, way):
    future = dask_client.submit(work, str(tmp_path), pure=False)
    ways = {
        "result": future.result,
        "gather": lambda: dask_client.gather([future]),
        "limited": lambda: future.result(LIMIT_S),
    }

    assert waiting(ways[way], "0") == ({"0"} if way != "limited" else set())
    (tmp_path / "go").touch()
    kinds = [kind for kind, _ in json.loads((tmp_path / "0").read_text())]
    assert TASK in kinds
