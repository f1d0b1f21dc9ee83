"""The component datastore inside a transaction, and after one whose answer was lost."""

import logging

import numpy as np
import pytest

from entropic import AlreadyExistsError
from entropic.datastore import DataStore
from entropic.weights_store import LocalWeightsStore, Weights
from tests.support.component_cases import Component, Filter, Source, counts, files_of
from tests.support.lost_commits import lose_commit

A = Source({"n": 1})
B = Filter({"n": 2}, A)


def contents(store):
    return {
        (item.parameters["n"], item.attribute): np.asarray(
            store.retrieve({1: A, 2: B}[item.parameters["n"]], item.attribute, verify=True)
        ).tolist()
        for item in store.list_contents()
    }


def everything(store):
    store.store(A, "array", np.arange(4))
    store.store(A, "array", np.arange(5))
    store.store(A, "plain", np.arange(2))
    store.store(B, "new", np.arange(3))
    store.store(B, "plain", 2)
    store.store(B, "plain", 2, if_exists="verify")
    assert store.delete(A, "gone") == 1
    assert store.has(B, "new")
    assert store.retrieve(A, "array").tolist() == [0, 1, 2, 3, 4]
    assert [state.parameters for state in store.descendants(A)] == [{"n": 2}]
    assert len(store.list_contents()) == 4


def test_what_a_block_stores_is_committed_with_it_or_not_at_all(store, shared):
    store.store(A, "array", np.arange(3))
    store.store(A, "plain", 1)
    store.store(A, "gone", np.arange(1))
    before, files = contents(store), files_of(store)

    def interrupted():
        with shared.transaction():
            everything(store)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents(store) == before
    assert files_of(store) == files

    with shared.transaction():
        everything(store)
    assert contents(store) == {
        (1, "array"): [0, 1, 2, 3, 4], (1, "plain"): [0, 1], (2, "new"): [0, 1, 2], (2, "plain"): 2,
    }  # fmt: skip
    assert len(files_of(store)) == 3

    with shared.transaction():
        assert len(store.prune(max_bytes=0)) == 4
        assert store.list_contents() == []
    assert files_of(store) == []
    assert counts(store)["component_states"] == 0


def test_what_is_refused_in_a_block_does_not_end_it(store, shared):
    store.store(A, "array", np.arange(3))
    with shared.transaction():
        store.store(A, "x", 1)
        for act, error in (
            (lambda: store.store(A, "x", object()), TypeError),
            (lambda: store.store(A, "", 1), ValueError),
            (lambda: store.store(A, "array", np.arange(4), if_exists="error"), AlreadyExistsError),
            (lambda: store.store(A, "array", np.arange(4), if_exists="verify"), AlreadyExistsError),
        ):
            with pytest.raises(error):
                act()
        store.store(B, "y", 2)
    assert contents(store) == {(1, "array"): [0, 1, 2], (1, "x"): 1, (2, "y"): 2}
    assert len(files_of(store)) == 1


def test_several_stores_are_written_as_a_whole(store, shared, tmp_path):
    weights = LocalWeightsStore(tmp_path / "weights", shared)

    def both(fails):
        with shared.transaction():
            store.store(A, "x", np.arange(3))
            weights.store_weights("r", 1, Weights({"w": np.ones(2)}))
            assert not fails

    with pytest.raises(AssertionError):
        both(fails=True)
    assert (contents(store), weights.iterations("r")) == ({}, [])

    both(fails=False)
    assert (contents(store), weights.iterations("r")) == ({(1, "x"): [0, 1, 2]}, [1])
    weights.remove("r", 1)


def test_store_can_be_opened_in_a_block(shared, tmp_path):
    with shared.transaction():
        store = DataStore(shared, tmp_path / "other")
        store.store(A, "x", np.arange(3))
    assert contents(store) == {(1, "x"): [0, 1, 2]}


@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("value", [1, np.arange(3)], ids=["plain", "array"])
def test_store_does_not_mind_that_the_answer_to_its_commit_is_lost(store, shared, arrives, value, caplog):
    caplog.set_level(logging.ERROR)
    for act in (
        lambda: store.store(Component({"n": 1}), "x", value),
        lambda: store.compute_once(Component({"n": 1}), "y", lambda: value),
    ):
        lose_commit(shared, arrives=arrives)
        act()
    assert len(store.list_contents()) == 2
    assert len(files_of(store)) == (2 if isinstance(value, np.ndarray) else 0)
    assert counts(store)["claims"] == 0
