"""kill -9 of who stores, deletes or computes data of components, at each step: the old or the new are there."""

import pytest

from entropic import Database
from entropic.datastore import DataStore
from tests.support.component_cases import CHANGES, TABLES, TOP, counts, files_of, filled, killed_at, state_of
from tests.support.component_cases import OTHER as NEW
from tests.support.databases import empty
from tests.support.kill_steps import die_at_each_step

pytestmark = pytest.mark.slow

BEFORE = {
    "Source{'rate': 1}.array": [0.0, 1.0, 2.0, 3.0],
    "Source{'rate': 1}.plain": 1,
    "Filter{'k': 2}.array": [0.0, 1.0, 2.0, 3.0],
}
OTHER = [0.0, 1.0, 2.0, 3.0, 4.0]
AFTER = {
    "replace": {**BEFORE, "Source{'rate': 1}.array": OTHER},
    "array by plain": {**BEFORE, "Source{'rate': 1}.array": 3},
    "plain by array": {**BEFORE, "Source{'rate': 1}.plain": OTHER},
    "add": {**BEFORE, "Filter{'k': 3}.array": OTHER},
    "delete": {},
    "prune": {},
    "compute": {**BEFORE, "Filter{'k': 2}.other": OTHER},
    "block": {"Source{'rate': 1}.array": OTHER, "Source{'rate': 1}.plain": 2},
    "rolled back": BEFORE,
}


def look(folder, url):
    """Return what the next process finds, all of whose files are somebody's."""
    store = DataStore(url, folder)
    state = state_of(store)
    in_files = [item.path for item in store.list_contents() if item.path is not None]
    assert files_of(store) == sorted(in_files)
    assert counts(store)["data_files"] == len(in_files)
    store.database.dispose()
    return state


def look_and_compute(folder, url):
    """Do the same, and compute, for which nobody waits for whoever held the claim."""
    state = look(folder, url)
    store = DataStore(url, folder)
    assert store.compute_once(TOP, "other", lambda: NEW).tolist() == OTHER
    assert counts(store)["claims"] == 0
    store.database.dispose()
    return state


def die(change, tmp_path, url_of):
    how = look_and_compute if change == "compute" else look
    return die_at_each_step(
        change,
        tmp_path,
        url_of,
        fill=filled,
        killed_at=killed_at,
        look=how,
        before=BEFORE,
        after=AFTER[change],
    )


@pytest.mark.parametrize("change", CHANGES)
def test_data_are_the_old_or_the_new_ones_whenever_a_process_was_killed(change, tmp_path):
    steps = die(change, tmp_path, lambda step: f"sqlite:///{tmp_path / f'{step}.sqlite3'}")

    assert steps > 2


def test_data_on_a_server_are_the_old_or_the_new_ones_whenever_a_process_was_killed(tmp_path, server_url):
    """One database for all steps: what each of them leaves is another folder's."""

    def emptied(step):
        if step:
            database = Database(server_url)
            empty(database, *TABLES)
            database.dispose()
        return server_url

    assert die("replace", tmp_path, emptied) > 2
