"""What a sweep finds before it runs anything."""

from contextlib import nullcontext

import pytest

from entropic import HashCollisionError, ParameterError, ResultFileMissingError, ResultsDirUnavailableError
from entropic.sweeps import plan
from entropic.sweeps.plan import make_plan
from tests.support.counting import statements
from tests.support.stores import open_store
from tests.support.sweep_runs import Runs, Swept, sets


@pytest.fixture
def store(tmp_path):
    return open_store(Swept, tmp_path, Runs(tmp_path / "log"))


def planned(store, params):
    return make_plan(store._table, params)


def lose(store, ns):
    for n in ns:
        (store.results_dir / store.retrieve({"n": n}).result_file).unlink()


def test_plan_tells_hits_misses_and_lost_files_apart_in_input_order(store):
    store.sweep(sets(4), progress=False)
    lose(store, [1])

    found = planned(store, [{"n": n} for n in (9, 3, 1, 0, 7, 3)])

    keys = {n: store.key({"n": n}) for n in (9, 3, 1, 0, 7)}
    assert list(found.order) == list(keys.values())
    assert {key: record.n for key, record in found.records.items()} == {keys[3]: 3, keys[0]: 0}
    assert list(found.tasks) == [keys[9], keys[7], keys[1]]
    assert [found.tasks[keys[n]].identity.values["n"] for n in (9, 7, 1)] == [9, 7, 1]
    assert [row.id for row in found.gone] == [keys[1]]


def test_plan_runs_and_writes_nothing(store, tmp_path):
    store.sweep(sets(2), progress=False)
    lose(store, [0])
    before = sorted((tmp_path / "results").rglob("*"))

    with statements(store.database.engine) as seen:
        planned(store, sets(4))

    assert [statement.split()[0] for statement in seen] == ["SELECT"]
    assert store.runner.total() == 2
    assert sorted((tmp_path / "results").rglob("*")) == before


def test_plan_of_a_set_that_does_not_fit_says_which(store):
    with pytest.raises(ParameterError) as raised:
        planned(store, [{"n": 1}, {"n": 2, "unknown": 3}])

    assert any("in parameter set 1 of the sweep" in note for note in raised.value.__notes__)


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("apart", [0, 600], ids=["in one chunk", "chunks apart"])
def test_two_different_sets_with_one_key_are_an_error(store, is_there, apart):
    if is_there:
        store.run_or_retrieve({"id": "mine", "n": 1})
    between = [{"n": n} for n in range(10, 10 + apart)]

    with pytest.raises(HashCollisionError):
        planned(store, [{"id": "mine", "n": 1}, *between, {"id": "mine", "n": 2}])


def test_many_lost_files_are_an_error_unless_they_are_to_run_again(store, caplog):
    store.sweep(sets(20), progress=False)
    lose(store, range(11))
    found = planned(store, sets(20))

    with pytest.raises(ResultFileMissingError, match=r"^11 of 20 results are gone .*Nothing was run"):
        found.check_gone(store._table, "raise")
    found.check_gone(store._table, "rerun")

    assert "11 results are gone" in caplog.text


@pytest.mark.parametrize(("count", "lost"), [(20, 10), (200, 20)], ids=["ten", "a tenth"])
def test_few_lost_files_run_again(store, monkeypatch, count, lost):
    store.sweep(sets(count), progress=False)
    lose(store, range(lost))

    planned(store, sets(count)).check_gone(store._table, "raise")


def test_lost_files_are_not_for_running_again_where_the_folder_is_gone(store, tmp_path):
    store.sweep(sets(2), progress=False)
    (tmp_path / "results").rename(tmp_path / "away")

    found = planned(store, sets(2))

    with pytest.raises(ResultsDirUnavailableError):
        found.check_gone(store._table, "rerun")


def test_registered_file_that_is_gone_is_not_made_again(store, tmp_path):
    (tmp_path / "measured.txt").write_text("measured")
    store.register({"n": 1}, tmp_path / "measured.txt")
    (tmp_path / "measured.txt").unlink()

    found = planned(store, sets(2))

    with pytest.raises(ResultFileMissingError, match="registered"):
        found.check_gone(store._table, "rerun")


@pytest.mark.parametrize(
    ("is_heard", "each"), [(True, [0, 1, 2, 3, 4, 29]), (False, [29])], ids=["heard", "unheard"]
)
def test_plan_of_many_hits_lists_the_folder_instead_of_looking_at_each(store, monkeypatch, is_heard, each):
    store.sweep(sets(30), progress=False)
    lose(store, [29])
    monkeypatch.setattr(plan, "LISTED", 5)
    monkeypatch.setattr(plan, "CHUNK", 10)
    looked = []
    reader = store._table.reader
    is_present = reader.is_present
    monkeypatch.setattr(reader, "is_present", lambda row: looked.append(row) or is_present(row))

    with statements(store.database.engine) if is_heard else nullcontext():
        found = planned(store, sets(30))

    assert [row.row["n"] for row in found.gone] == [29]
    assert [row.row["n"] for row in looked] == each


@pytest.mark.parametrize("odd", [None, {"n": 3.0}, {"id": "mine", "n": 3}], ids=["none", "typed", "named"])
def test_plan_is_the_same_whether_somebody_listens_or_not(store, odd, monkeypatch):
    """Hits, misses, lost files, sets given twice, now and chunks ago, and one that is not usual."""
    monkeypatch.setattr(plan, "CHUNK", 10)
    params = [{"n": n} for n in (*range(25), 7, 24, 23, *range(60, 65), 7, 61)]
    if odd is not None:
        params.insert(22, odd)
    store.sweep([*sets(25), *([odd] if odd else [])], progress=False)
    lose(store, [5, 13])

    straight = planned(store, params)
    with statements(store.database.engine):
        general = planned(store, params)

    assert list(straight.order.items()) == list(general.order.items())
    assert list(straight.records) == list(general.records)
    for one, other in zip(straight.records.values(), general.records.values(), strict=True):
        assert (one.id, one.n, one.result_file) == (other.id, other.n, other.result_file)
    assert straight.tasks == general.tasks
    assert list(straight.tasks) == list(general.tasks)
    assert straight.gone == general.gone
