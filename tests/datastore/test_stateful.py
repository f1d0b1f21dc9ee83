"""A datastore against a dict: whatever is called in whatever order, both hold the same, with crashes in between."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy.exc import DBAPIError

from entropic import AlreadyExistsError
from entropic.datastore import DataStore
from entropic.disk.notes import Notes
from entropic.process.identity import Process
from entropic.sql.clock import ManualClock
from entropic.values.payloads import payload_of
from tests.support.component_cases import TABLES, Component, Filter, Source, files_of
from tests.support.databases import empty

A = Source({"n": 0})
B = Filter({"n": 1}, A)
C = Filter({"n": 2}, A)
D = Component({"n": 3}, [B, C])
COMPONENTS = [A, B, C, D, Source({"n": 4})]
INPUTS = {0: set(), 1: {0}, 2: {0}, 3: {0, 1, 2}, 4: set()}

numbers = st.integers(0, 4)
names = st.sampled_from(["x", "X", "a/b%"])
values = st.sampled_from([0, None, "text", (1, [2]), np.arange(3), np.arange(4), {"a": np.zeros(2)}])
policies = st.sampled_from(["replace", "replace", "error", "verify"])


class Killed(BaseException):
    """The process ends here."""


class Machine(RuleBasedStateMachine):
    """Calls on a real store, and what they mean for a dict."""

    database: Any

    def __init__(self) -> None:
        super().__init__()
        empty(self.database, *TABLES)
        self.clock = ManualClock(1.7e9)
        self.folder = Path(tempfile.mkdtemp(prefix="entropic-components-"))
        self.store = DataStore(self.database, self.folder, clock=self.clock)
        self.data: dict[tuple[int, str], tuple[Any, float]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(n=numbers, name=names, value=values, if_exists=policies)
    def keep(self, n, name, value, if_exists):
        self.clock.advance(1)
        former = self.data.get((n, name))
        is_same = former is not None and is_equal(former[0], value)
        if former is not None and (if_exists == "error" or (if_exists == "verify" and not is_same)):
            with pytest.raises(AlreadyExistsError):
                self.store.store(COMPONENTS[n], name, value, if_exists=if_exists)
            return
        self.store.store(COMPONENTS[n], name, value, if_exists=if_exists)
        if former is None or if_exists == "replace":
            self.data[n, name] = (value, self.clock.now)

    @rule(n=numbers, name=names, value=values)
    def compute(self, n, name, value):
        self.clock.advance(1)
        found = self.store.compute_once(COMPONENTS[n], name, lambda: value)
        expected, _ = self.data.setdefault((n, name), (value, self.clock.now))
        assert is_equal(found, expected)

    @rule(n=numbers, name=names | st.none(), dependents=st.booleans())
    def delete(self, n, name, dependents):
        gone = [key for key in self.data if key[0] == n and name in {None, key[1]}]
        # What is not known has no dependents.
        gone += [key for key in self.data if dependents and n in INPUTS[key[0]]]
        assert self.store.delete(COMPONENTS[n], name, dependents=dependents) == len(gone)
        for key in gone:
            del self.data[key]

    @rule(count=st.integers(0, 3))
    def prune(self, count):
        """Keep those that were stored in the last seconds."""
        limit = self.clock.now - count
        gone = sorted((since, key) for key, (_, since) in self.data.items() if since < limit)
        found = self.store.prune(older_than=count)
        assert [(item.parameters["n"], item.attribute) for item in found] == [key for _, key in gone]
        for _, key in gone:
            del self.data[key]

    @rule(
        changes=st.lists(st.tuples(numbers, names, values | st.just(Killed)), min_size=1, max_size=3),
        fails=st.booleans(),
    )
    def block(self, changes, fails):
        before = dict(self.data)
        try:
            with self.database.transaction():
                for n, name, value in changes:
                    self.clock.advance(1)
                    if value is Killed:
                        self.store.delete(COMPONENTS[n], name)
                        self.data.pop((n, name), None)
                    else:
                        self.store.store(COMPONENTS[n], name, value)
                        self.data[n, name] = (value, self.clock.now)
                if fails:
                    raise Killed
        except Killed:
            self.data = before

    @rule(
        n=numbers, name=names, value=values, at=st.sampled_from(["note", "file", "begin", "commit", "after"])
    )
    def crash(self, n, name, value, at):
        """End in the middle of storing, and leave all that lies about to the next process."""
        self.clock.advance(1)
        with pytest.MonkeyPatch.context() as patch:
            if at in {"note", "file"}:
                steps = {"note": (Notes, "write"), "file": (DataStore, "_change")}[at]
                patch.setattr(*steps, killed)
            else:
                # Who is killed cleans nothing up.
                patch.setattr("entropic.sql.exchange.Exchange._settle_if_possible", lambda *args, **given: [])
                dialect = self.database.engine.dialect
                commit = dialect.do_commit

                def do_commit(connection):
                    if at == "after":
                        commit(connection)
                    raise Killed

                if at == "begin":
                    patch.setattr(type(self.database), "write", killed)
                else:
                    patch.setattr(dialect, "do_commit", do_commit)
            is_killed = False
            try:
                self.store.store(COMPONENTS[n], name, value)
            except (Killed, DBAPIError):
                is_killed = True
        if at == "after" or not is_killed:
            self.data[n, name] = (value, self.clock.now)
        self.reopen()

    @rule()
    def reopen(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Process, "is_alive", lambda self: False)  # who wrote the notes has ended
            self.store = DataStore(self.database, self.folder, clock=self.clock)

    @invariant()
    def both_hold_the_same(self):
        for n, component in enumerate(COMPONENTS):
            for name in ("x", "X", "a/b%"):
                assert self.store.has(component, name) is ((n, name) in self.data)
        found = self.store.list_contents()
        assert {(item.parameters["n"], item.attribute) for item in found} == self.data.keys()
        for item in found:
            value, since = self.data[item.parameters["n"], item.attribute]
            component = COMPONENTS[item.parameters["n"]]
            assert is_equal(self.store.retrieve(component, item.attribute, strict=True, verify=True), value)
            assert item.updated_at.timestamp() == since
        assert files_of(self.store) == sorted(item.path for item in found if item.path is not None)

    @invariant()
    def nothing_else_is_known(self):
        full = {n for n, _ in self.data}
        known = full.union(*(INPUTS[n] for n in full))
        query = "SELECT count(*) FROM entropic_component_states"
        with self.database.reading() as connection:
            assert connection.exec_driver_sql(query).scalar_one() == len(known)
        for n in range(5):
            below = {state.parameters["n"] for state in self.store.ancestors(COMPONENTS[n])}
            assert below == (INPUTS[n] if n in known else set())
            above = {state.parameters["n"] for state in self.store.descendants(COMPONENTS[n])}
            assert above == {other for other in known if n in INPUTS[other]}


def is_equal(one: Any, other: Any) -> bool:
    return payload_of(one).content() == payload_of(other).content()


def killed(*args: Any, **given: Any) -> Any:
    raise Killed


def run(database: Any, count: int, steps: int) -> None:
    run_state_machine_as_test(
        type("MachineOnDatabase", (Machine,), {"database": database}),
        settings=settings(
            max_examples=count,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_store_behaves_like_a_dict(kept):
    run(kept, {"sqlite": 2}.get(kept.dialect, 1), 12)


@pytest.mark.slow
def test_store_behaves_like_a_dict_for_long(kept):
    run(kept, {"sqlite": 8}.get(kept.dialect, 3), 40)
