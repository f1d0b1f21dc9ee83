"""What processes do with an execution store; a new process imports it by name."""

from entropic.execution_store import ExecutionStore

ROUNDS = 200


def count_up(url, how):
    """Add one to the key "n", many times, and return how often that was."""
    store = ExecutionStore.create("counter", "d", database=url)
    for _ in range(ROUNDS):
        if how == "update":
            store.update("n", lambda value: (value or 0) + 1)
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
