"""Stores against dicts: whatever is called in whatever order, both hold the same.

And against who follows their changes: what is read again whenever a key is told to have changed is what there is.
"""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from entropic import Database
from entropic.execution_store import ExecutionStore, ExecutionStoreService
from entropic.execution_store.events import Place, read
from entropic.sql.clock import ManualClock
from tests.execution_store.conftest import TABLES
from tests.support.databases import empty

contexts = st.sampled_from([None, "d1", "d2"])
names = st.sampled_from(["s", "S", "t%"])
keys = st.sampled_from(["a", "ab", "b", "á", "__"])
values = st.sampled_from([0, 1, None, "text", [1, 2], {"a": (1, b"\0")}])
ttls = st.sampled_from([None, None, 0, 1, 3])
policies = st.sampled_from(["persist", "evict"])


@dataclass
class Entry:
    """What the model knows of a key."""

    value: Any
    expires: float | None
    policy: str


class Machine(RuleBasedStateMachine):
    """Calls on real stores, and what they mean for a dict of dicts."""

    database: Any

    def __init__(self) -> None:
        super().__init__()
        empty(self.database, *TABLES)
        self.clock = ManualClock()
        self.stores: dict[tuple[str | None, str], dict[str, Entry]] = {}
        self.created: dict[tuple[str | None, str], tuple[dict[str, int], str]] = {}
        self.places: dict[tuple[str | None, str], Place] = {}
        self.followed: dict[tuple[str | None, str], dict[str, Any]] = {}

    def service(self, context: str | None) -> ExecutionStoreService:
        return ExecutionStoreService(context, database=self.database, clock=self.clock)

    def store(self, context: str | None, name: str) -> ExecutionStore:
        return ExecutionStore(name, self.service(context))

    def entries(self, context: str | None, name: str) -> dict[str, Entry]:
        """Return the model of a store, without what has expired."""
        alive = self.stores.setdefault((context, name), {})
        for key in [
            key for key, one in alive.items() if one.expires is not None and one.expires <= self.clock.now
        ]:
            del alive[key]
        return alive

    def entry(self, value: Any, ttl: float | None, policy: str) -> Entry:
        expires = None if ttl is None else self.clock.now + ttl
        return Entry(copy.deepcopy(value), expires, policy if ttl is None else "evict")

    @rule(context=contexts, name=names, key=keys, value=values, ttl=ttls, policy=policies)
    def set(self, context, name, key, value, ttl, policy):
        self.store(context, name).set(key, value, ttl, policy)
        self.entries(context, name)[key] = self.entry(value, ttl, policy)

    @rule(context=contexts, name=names, many=st.dictionaries(keys, values, max_size=3), ttl=ttls)
    def set_many(self, context, name, many, ttl):
        self.store(context, name).set_many(many, ttl)
        self.entries(context, name).update({key: self.entry(many[key], ttl, "persist") for key in many})

    @rule(context=contexts, name=names, key=keys, value=values, ttl=ttls, policy=policies)
    def set_if_absent(self, context, name, key, value, ttl, policy):
        alive = self.entries(context, name)
        assert self.store(context, name).set_if_absent(key, value, ttl, policy) is (key not in alive)
        alive.setdefault(key, self.entry(value, ttl, policy))

    @rule(context=contexts, name=names, key=keys, expected=values, value=values, ttl=ttls)
    def compare_and_set(self, context, name, key, expected, value, ttl):
        alive = self.entries(context, name)
        is_equal = key in alive and alive[key].value == expected
        assert self.store(context, name).compare_and_set(key, expected, value, ttl) is is_equal
        if is_equal:
            old = alive[key]
            alive[key] = (
                self.entry(value, ttl, "evict") if ttl is not None else Entry(value, old.expires, old.policy)
            )

    @rule(context=contexts, name=names, key=keys, value=values, ttl=ttls, is_late=st.booleans())
    def set_if_version(self, context, name, key, value, ttl, is_late):
        alive, store = self.entries(context, name), self.store(context, name)
        was, version = store.get_with_version(key)
        assert (was, version is None) == (alive[key].value if key in alive else None, key not in alive)
        if is_late:
            self.set(context, name, key, 1, None, "persist")
        assert store.set_if_version(key, value, version, ttl) is not is_late
        if not is_late:
            entry = self.entry(value, ttl, "persist")
            if ttl is None and key in alive:
                entry = Entry(value, alive[key].expires, alive[key].policy)
            alive[key] = entry

    @rule(context=contexts, name=names, key=keys)
    def update(self, context, name, key):
        alive = self.entries(context, name)
        assert self.store(context, name).update(key, lambda value: [value]) == [
            alive[key].value if key in alive else None
        ]
        old = alive.get(key, Entry(None, None, "persist"))
        alive[key] = Entry([old.value], old.expires, old.policy)

    @rule(context=contexts, name=names, key=keys)
    def delete(self, context, name, key):
        alive = self.entries(context, name)
        assert self.store(context, name).delete(key) is (alive.pop(key, None) is not None)

    @rule(context=contexts, name=names, key=keys, ttl=ttls)
    def update_ttl(self, context, name, key, ttl):
        alive = self.entries(context, name)
        assert (self.service(context).update_ttl(name, key, ttl) is not None) is (key in alive)
        if key in alive:
            policy = alive[key].policy
            alive[key] = self.entry(alive[key].value, ttl, policy)

    @rule(context=contexts, name=names, key=keys, policy=policies)
    def update_policy(self, context, name, key, policy):
        alive = self.entries(context, name)
        assert (self.service(context).update_policy(name, key, policy) is not None) is (key in alive)
        if key in alive:
            alive[key].policy = policy
            alive[key].expires = None if policy == "persist" else alive[key].expires

    @rule(context=contexts, name=names, policy=policies)
    def create_store(self, context, name, policy):
        made = self.service(context).create_store(name, {"n": len(self.created)}, policy, exist_ok=True)
        self.created.setdefault((context, name), ({"n": len(self.created)}, policy))
        assert made.metadata == self.created[context, name][0]

    @rule(context=contexts, name=names)
    def delete_store(self, context, name):
        alive, is_created = self.entries(context, name), (context, name) in self.created
        count = self.service(context).delete_store(name)
        assert (count, count.keys, count.stores) == (
            len(alive) + is_created, len(alive), int(is_created or bool(alive)),
        )  # fmt: skip
        self.stores.pop((context, name))
        self.created.pop((context, name), None)

    @rule(context=contexts, name=names | st.none())
    def clear_cache(self, context, name):
        before = self.existing()
        gone = 0
        for place in list(self.stores.keys() | self.created.keys()):
            if place[0] != context or name not in {None, place[1]}:
                continue
            alive = self.entries(*place)
            evicted = [key for key, one in alive.items() if one.policy == "evict"]
            for key in evicted:
                del alive[key]
            gone += len(evicted)
            if place in self.created and self.created[place][1] == "evict":
                del self.created[place]
                gone += 1
        count = self.service(context).clear_cache(name)
        assert (count, count.stores) == (gone, len(before) - len(self.existing()))

    @rule(context=contexts)
    def cleanup(self, context):
        places = [place for place in self.stores.keys() | self.created.keys() if place[0] == context]
        expected = sum(len(self.entries(*place)) + (place in self.created) for place in places)
        assert self.service(context).cleanup() == expected
        for place in places:
            self.stores.pop(place, None)
            self.created.pop(place, None)

    @rule(context=contexts)
    def purge_expired(self, context):
        self.service(context).purge_expired()

    @rule(context=contexts, name=names, key=keys, value=values)
    def crash_before_the_commit(self, context, name, key, value):
        def crash():
            with self.database.transaction() as block:
                self.store(context, name).set(key, value)
                self.store(context, name).delete("a")
                self.service(context).delete_store("s")
                block.connection.invalidate()  # closed without a word, as when the process is killed
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            crash()

    @rule()
    def reopen(self):
        self.database.dispose()
        type(self).database = Database(self.database.url)

    @rule(context=contexts, name=names, key=keys, value=values, expected=values)
    def block(self, context, name, key, value, expected):
        with self.database.transaction():
            self.set(context, name, key, value, None, "persist")
            self.compare_and_set(context, name, key, expected, value, None)
            self.update(context, name, key)

    @rule(seconds=st.sampled_from([1e-6, 0.5, 1, 2]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    def existing(self) -> list[tuple[str, str]]:
        """Return the names and contexts of the model's stores, sorted."""
        places = [place for place in self.stores.keys() | self.created.keys()
                  if self.entries(*place) or place in self.created]  # fmt: skip
        return sorted((name, context or "") for context, name in places)

    @rule(context=contexts, name=names)
    def follow(self, context, name):
        start = self.places.get((context, name), Place(0, 0, round(self.clock.now * 1e6)))
        place, changes = self.database.read(
            lambda connection: read(connection, self.clock, context or "", name, start, 86_400_000_000)
        )
        self.places[context, name] = place
        assert not any(change.missed for change in changes)
        assert place.number - start.number == len(changes)
        store, followed = self.store(context, name), self.followed.setdefault((context, name), {})
        for change in changes:
            followed[change.key] = store.get(change.key)
            is_gone = change.operation != "set" and change is changes[-1]
            assert not is_gone or not store.has(change.key)
        alive = self.entries(context, name)
        assert {key: followed.get(key) for key in alive} == {key: one.value for key, one in alive.items()}

    def teardown(self):
        for place in list(self.stores):
            self.follow(*place)

    @invariant()
    def both_hold_the_same(self):
        found = self.service(None).list_stores_global()
        assert [(one.store_name, one.dataset_id or "") for one in found] == self.existing()
        assert self.service(None).count_stores_global() == len(found)
        for one in found:
            alive = self.entries(one.dataset_id, one.store_name)
            store = self.store(one.dataset_id, one.store_name)
            assert store.items() == {key: alive[key].value for key in sorted(alive)}
            assert store.list_keys("a") == sorted(key for key in alive if key.startswith("a"))
            assert store.get_many(["b"]) == ({"b": alive["b"].value} if "b" in alive else {})
            for key, entry in alive.items():
                assert store.get_metadata(key)["policy"] == entry.policy
            assert one.metadata == self.created.get((one.dataset_id, one.store_name), ({},))[0]


def test_stores_behave_like_dicts(kept):
    machine = type("MachineOnDatabase", (Machine,), {"database": kept})
    count = {"sqlite": 5}.get(kept.dialect, 2)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=count, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.slow
def test_stores_behave_like_dicts_for_long(kept):
    machine = type("MachineOnDatabase", (Machine,), {"database": kept})
    count = {"sqlite": 10}.get(kept.dialect, 4)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=count, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
