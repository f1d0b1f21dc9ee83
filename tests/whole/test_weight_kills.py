"""kill -9 of who stores or removes weights, at each step: who opens the store next has the old or the new ones."""

import pytest
from sqlalchemy import delete

from entropic import BestNotFoundError, Database
from entropic.sql.tables.weights import BestWeightsRow, WeightsRow
from entropic.weights_store import LocalWeightsStore
from tests.support.kill_steps import die_at_each_step
from tests.support.weight_cases import AFTER, CHANGES, OLD, files_of, filled, killed_at, value_of

pytestmark = pytest.mark.slow

BEFORE = ({1: OLD, 2: OLD, 3: OLD}, 1)


def best_of(store):
    try:
        return store.retrieve_best("r", "d", "c")
    except BestNotFoundError:
        return None


def state_of(store):
    return {i: value_of(store.retrieve_weights("r", i, verify=True)) for i in store.iterations("r")}, best_of(
        store
    )


def look(folder, url):
    """Return what the next process finds, where there is a file for each of the weights."""
    store = LocalWeightsStore(folder, url)
    state = state_of(store)
    assert len(files_of(folder)) == len(state[0])
    store.database.dispose()
    return state


def die(change, tmp_path, url_of):
    return die_at_each_step(
        change,
        tmp_path,
        url_of,
        fill=filled,
        killed_at=killed_at,
        look=look,
        before=BEFORE,
        after=AFTER[change],
    )


@pytest.mark.parametrize("change", CHANGES)
def test_weights_are_the_old_or_the_new_ones_whenever_a_process_was_killed(change, tmp_path):
    steps = die(change, tmp_path, lambda step: f"sqlite:///{tmp_path / f'{step}.sqlite3'}")

    assert steps > 3


def test_weights_on_a_server_are_the_old_or_the_new_ones_whenever_a_process_was_killed(tmp_path, server_url):
    """One database for all steps: what each of them leaves is another run's folder."""

    def emptied(step):
        database = Database(server_url)
        if step:
            with database.engine.begin() as connection:
                for row in (BestWeightsRow, WeightsRow):
                    connection.execute(delete(row))
        database.dispose()
        return server_url

    assert die("replace", tmp_path, emptied) > 3
