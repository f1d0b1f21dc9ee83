"""Runs that need each other in a random graph without circles, swept in random parts by several at once.

Whatever the graph, whoever sweeps which part of it, wherever the runs go on: every sweep ends, has what it asked for,
and each key ran once.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entropic.disk.sidecars import WAITS
from tests.support import servers
from tests.support.nested_cases import Needs, in_threads, sweep_at
from tests.support.processes import run_together

LIMIT_S = 120.0  # for what takes seconds, on a machine that does much else

quickly = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
slowly = settings(quickly, max_examples=2)


@dataclass(frozen=True)
class Graph:
    """What runs of two tables need, and which numbers of the first each process sweeps, in which order."""

    nodes: Mapping[int, Sequence[int]]
    leaves: Mapping[int, Sequence[int]]
    back: Mapping[int, Sequence[int]]
    """What the leaves need of the nodes."""
    asked: Sequence[Sequence[int]]

    def needed(self) -> set[str]:
        """Everything that is run in the end."""
        found: set[str] = set()
        open_ = [("node", n) for part in self.asked for n in part]
        while open_:
            kind, n = open_.pop()
            if f"{kind}{n}" not in found:
                found.add(f"{kind}{n}")
                open_ += [("node", one) for one in (self.nodes if kind == "node" else self.back).get(n, ())]
                open_ += [("leaf", one) for one in (self.leaves.get(n, ()) if kind == "node" else ())]
        return found

    def value(self, kind: str, n: int) -> int:
        """What the file of a run says."""
        if kind == "leaf":
            return 1 + sum(self.value("node", one) for one in self.back.get(n, ()))
        nodes = sum(self.value("node", one) for one in self.nodes.get(n, ()))
        return 1 + nodes + sum(self.value("leaf", one) for one in self.leaves.get(n, ()))


@st.composite
def graphs(draw: st.DrawFn, *, parts: int, most: int = 12) -> Graph:
    """Each run needs up to three of those that come before it in some order of all, so that there is no circle."""
    order = draw(
        st.permutations([("node", n) for n in range(most)] + [("leaf", n) for n in range(most // 3)])
    )
    nodes, leaves, back = {}, {}, {}
    for place, (kind, n) in enumerate(order):
        before = order[:place] if kind == "node" else [one for one in order[:place] if one[0] == "node"]
        needs = draw(st.lists(st.sampled_from(before), max_size=3, unique=True)) if before else []
        of_nodes = tuple(one for what, one in needs if what == "node")
        (nodes if kind == "node" else back)[n] = of_nodes
        if kind == "node":
            leaves[n] = tuple(one for what, one in needs if what == "leaf")
    numbers = st.lists(st.integers(0, most - 1), min_size=most // 2, max_size=most, unique=True)
    return Graph(nodes, leaves, back, [draw(numbers) for _ in range(parts)])


def check(graph: Graph, where: str, url: str, address: str = "") -> None:
    """Sweep all parts of a graph at once, and look at what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        needs = Needs(
            folder, url or f"sqlite:///{folder}/entropic.sqlite3", graph.nodes, graph.leaves, graph.back
        )
        for is_leaf in (False, True):
            needs.store(is_leaf=is_leaf)
        each = [(needs, part, where, address) for part in graph.asked]
        if len(each) == 1:
            found = in_threads(lambda: sweep_at(*each[0]), timeout_s=LIMIT_S)
        else:
            found = run_together(sweep_at, each, timeout_s=LIMIT_S)

        assert found == [[graph.value("node", n) for n in part] for part in graph.asked]
        assert needs.calls() == Counter(graph.needed())
        assert not list(Path(folder).rglob(f"{WAITS}*"))
        with needs.store().database.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM entropic_claims").scalar() == 0
        needs.store().database.dispose()


@pytest.mark.parametrize("where", [pytest.param("serial", marks=pytest.mark.slow), "threads"])
@quickly
@given(graph=graphs(parts=1, most=6))
def test_graph_in_this_process_runs_each_key_once(where, graph):
    check(graph, where, "")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["serial", "threads", "processes", "workers", "dask"])
@pytest.mark.parametrize("parts", [1, 2, 3])
@slowly
@given(data=st.data())
def test_graph_runs_each_key_once_wherever_its_parts_are_swept(where, parts, data, dask_client):
    check(data.draw(graphs(parts=parts)), where, "", dask_client.scheduler.address)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
@pytest.mark.parametrize(("where", "parts"), [("serial", 3), ("threads", 2), ("workers", 2)])
@settings(slowly, max_examples=1)
@given(data=st.data())
def test_graph_on_a_server_runs_each_key_once(kind, where, parts, data, request):
    server = request.getfixturevalue("postgres_server" if kind == "postgresql" else "mysql_server")
    make = servers.postgres_database if kind == "postgresql" else servers.mysql_database
    with ExitStack() as stack:
        check(data.draw(graphs(parts=parts)), where, stack.enter_context(make(server)))


TWO_FAMILIES = Graph({0: (), 1: ()}, {0: (0,), 1: (1,)}, {}, [[0, 1]])


@pytest.mark.slow
@pytest.mark.parametrize("where", ["processes", "workers", "dask"])
def test_workers_begin_runs_inside_of_runs_in_two_processes(where, tmp_path, sqlite_url, dask_client):
    """So that what is said of workers above is said of nested runs in each of them."""
    graph = TWO_FAMILIES
    needs = Needs(str(tmp_path), sqlite_url, graph.nodes, graph.leaves, graph.back, meet=2)
    for is_leaf in (False, True):
        needs.store(is_leaf=is_leaf)

    assert sweep_at(needs, [0, 1], where, dask_client.scheduler.address) == [2, 2]
    assert len(needs.pids(inside=True)) == 2
    assert needs.calls() == Counter(graph.needed())
