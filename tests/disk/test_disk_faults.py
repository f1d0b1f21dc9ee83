"""The disk is full, or may only be read, in the middle: clear errors, and nothing that was finished is lost."""

import errno
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from entropic.disk import sidecars
from tests.support.processes import outcomes_of, run_together
from tests.support.small_disks import SIZE_BYTES, fill, free, read_only
from tests.support.stores import open_store
from tests.support.sweep_runs import Runs, Swept, query, sets, states


def url_on(folder):
    return f"sqlite:///{folder / 'runs.sqlite3'}"


class Filling:
    """Runs, and at *n* fills the disk: before the result is written, or after it."""

    def __init__(self, runs, disk, n, *, before):
        self.runs, self.disk, self.n, self.before = runs, disk, n, before

    def __call__(self, params):
        fills = params["n"] == self.n and not (self.disk / "filler").exists()
        if fills and self.before:
            Path(params["result_file"]).write_bytes(bytes(2 * SIZE_BYTES))
        result = self.runs(params)
        if fills:
            fill(self.disk)
        return result


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path / "runs.log")


# The results folder is full


def test_runner_that_fills_the_disk_fails_and_the_other_runs_of_the_sweep_are_stored(disk, tmp_path, runs):
    store = open_store(Swept, disk, Filling(runs, disk, 2, before=True), url_on(tmp_path))

    result = store.sweep(sets(5), on_error="continue", progress=False)

    assert [record.n for record in result] == [0, 1, 3, 4]
    (failed,) = result.failed
    assert (failed.error_type, failed.exception.errno) == ("OSError", errno.ENOSPC)
    assert states(tmp_path) == {"COMPLETED": 4, "FAILED": 1}
    assert not store.check(checksum=True)
    store.database.dispose()


def test_runner_that_fills_the_disk_raises_and_the_next_call_runs_it_again(disk, tmp_path, runs):
    store = open_store(Swept, disk, Filling(runs, disk, 2, before=True), url_on(tmp_path))
    with pytest.raises(OSError, match="No space left"):
        store.run_or_retrieve({"n": 2})

    record = open_store(Swept, disk, runs, url_on(tmp_path)).run_or_retrieve({"n": 2})

    assert record.square == 4.0
    assert not store.check(checksum=True)
    store.database.dispose()


def test_disk_that_is_full_when_a_result_is_noted_fails_the_run_and_the_next_call_runs_it_again(
    disk, tmp_path, runs
):
    store = open_store(Swept, disk, Filling(runs, disk, 2, before=False), url_on(tmp_path))
    with pytest.raises(OSError, match="No space left"):
        store.run_or_retrieve({"n": 2})
    free(disk)

    record = open_store(Swept, disk, runs, url_on(tmp_path)).run_or_retrieve({"n": 2})

    assert record.square == 4.0
    assert not store.check(checksum=True)
    store.database.dispose()


# The database's disk is full


def run_and_fill(folder, disk, runs):
    open_store(Swept, folder, Filling(runs, disk, 2, before=False), url_on(disk)).run_or_retrieve({"n": 2})


def test_result_that_a_full_disk_kept_from_being_committed_is_committed_by_the_next_process(
    disk, tmp_path, runs
):
    open_store(Swept, tmp_path, runs, url_on(disk)).database.dispose()
    (outcome,) = outcomes_of(run_and_fill, [(tmp_path, disk, runs)])
    free(disk)

    store = open_store(Swept, tmp_path, runs, url_on(disk))

    assert "database or disk is full" in outcome.traceback
    assert str(disk) in outcome.traceback
    assert store.retrieve({"n": 2}).square == 4.0
    assert runs.total() == 1
    assert not store.check(checksum=True)
    assert list(sidecars.process_folders(store.results_dir)) == []
    store.database.dispose()


# What may only be read


def hit_then_miss(folder, runs, url):
    store = open_store(Swept, folder, runs, url)
    hit = store.run_or_retrieve({"n": 0}).square, len(store.records())
    try:
        store.run_or_retrieve({"n": 1})
    except (OSError, OperationalError) as error:
        return *hit, "\n".join([str(error), *getattr(error, "__notes__", ())])
    return *hit, ""


def test_results_folder_that_may_only_be_read_gives_hits_and_names_itself_on_a_miss(disk, tmp_path, runs):
    run_together(one, [(disk, runs, url_on(tmp_path))])

    with read_only(disk):
        ((square, count, text),) = run_together(hit_then_miss, [(disk, runs, url_on(tmp_path))])

    assert (square, count) == (0.0, 1)
    assert "Read-only file system" in text
    assert str(disk / "results") in text
    ((_, _, text),) = run_together(hit_then_miss, [(disk, runs, url_on(tmp_path))])
    assert text == ""
    assert query(tmp_path, "SELECT * FROM entropic_claims") == []


def one(folder, runs, url):
    # It ends with the database open, as a process does that is killed: SQLite leaves its files for the next one.
    open_store(Swept, folder, runs, url).run_or_retrieve({"n": 0})


def test_database_that_was_closed_and_may_only_be_read_gives_hits_and_names_its_folder_on_a_miss(
    disk, tmp_path, runs
):
    """SQLite cannot make the files next to it that it needs for reading one that may change."""
    store = open_store(Swept, tmp_path, runs, url_on(disk))
    store.run_or_retrieve({"n": 0})
    store.close()

    with read_only(disk):
        again = open_store(Swept, tmp_path, runs, url_on(disk))
        assert again.run_or_retrieve({"n": 0}).n == 0
        with pytest.raises(OperationalError, match="readonly database") as caught:
            again.run_or_retrieve({"n": 1})
        again.close()

    assert f"in the folder '{disk}'" in "".join(caught.value.__notes__)
    assert runs.total() == 1


def test_database_that_may_only_be_read_gives_hits_and_names_its_folder_on_a_miss(disk, tmp_path, runs):
    run_together(one, [(tmp_path, runs, url_on(disk))])

    with read_only(disk):
        ((square, count, text),) = run_together(hit_then_miss, [(tmp_path, runs, url_on(disk))])

    assert (square, count) == (0.0, 1)
    assert str(disk) in text
    assert runs.total() == 1
