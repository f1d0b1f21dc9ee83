"""What processes do with an execution store; a new process imports it by name."""

import threading
from pathlib import Path

from entropic.execution_store import ExecutionStore
from tests.support.counting import append_line

ROUNDS = 200
TURNS = 24
LAST = "last"  # the key with which a store's changes end


def count_up(url, how):
    """Add one to the key "n", many times, and return how often that was."""
    store = ExecutionStore.create("counter", "d", database=url)
    for _ in range(ROUNDS):
        if how == "update":
            store.update("n", lambda value: (value or 0) + 1)
            continue
        if how == "set_if_version":
            value, version = store.get_with_version("n")
            while not store.set_if_version("n", (value or 0) + 1, version):
                value, version = store.get_with_version("n")
            continue
        store.set_if_absent("n", 0)
        while not store.compare_and_set("n", value := store.get("n"), value + 1):
            pass
    return ROUNDS


def take(url, name):
    """Try to be the first at each of some keys; return those where that was so."""
    store = ExecutionStore.create("jobs", database=url)
    return [key for key in map(str, range(20)) if store.set_if_absent(key, name)]


def come_and_go(url, number):
    """Make a store and take it away, in each way that there is, while others do the same."""
    store = ExecutionStore.create("busy", database=url)
    for turn in range(40):
        key = f"{number}-{turn}"
        store.set(key, turn, ttl=0 if turn % 2 else None)
        if turn % 2 == 0 and number == 0:
            assert store._service.clear_cache("busy") == 0
        store.purge_expired()
        assert store.has(key) is (turn % 2 == 0)
        assert store.delete(key) is (turn % 2 == 0)
    return number


def change_much(url, number):
    """Change a store in every way, while others do the same; return the changes of keys that are ours, in order."""
    store = ExecutionStore.create("watched", database=url)
    done = []
    for turn in range(TURNS):
        key = f"{number}-{turn:02}"
        store.set(key, turn)
        store.update(key, lambda value: value + 1)
        assert store.compare_and_set(key, turn + 1, "done")
        store.set_many({f"{key}a": 1, f"{key}b": 2}, ttl=0 if turn % 4 == 0 else None)
        done += [f"set {key}"] * 3 + [f"set {key}a", f"set {key}b"]
        if turn % 2:
            assert store.delete(key)
            done.append(f"delete {key}")
        store.update("shared", lambda value: (value or 0) + 1)
        if turn % 10 == 9:
            store.purge_expired()
    return done


def follow(url, path):
    """Write a line for each change of a store, from where the last line ends, until the last change."""
    store, is_over = ExecutionStore.create("watched", database=url), threading.Event()

    def write(change):
        append_line(Path(path), f"{change.place} {change.operation} {change.key}")
        if change.key == LAST:
            is_over.set()

    lines = Path(path).read_text().splitlines()
    store.subscribe(write, place=lines[-1].split()[0], poll_s=0.02)
    if LAST not in lines[-1]:
        is_over.wait(300)
