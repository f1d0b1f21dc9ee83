"""The life of a results folder's marker, and the keys that a table was registered with."""

import json
import os
import shutil
from pathlib import Path

import pytest

from entropic import Base, Mapped, ResultsDirUnavailableError, SchemaError, Store, param
from entropic.disk import roots
from entropic.model import folders
from tests.support import protocol_cases as cases
from tests.support.processes import outcomes_of, run_together
from tests.support.protocol_cases import Other, Place

A = {"a": 1.5}


def marker(folder: Path) -> dict[str, str]:
    return json.loads((folder / roots.MARKER).read_text())


def registered_root(place: Place) -> str:
    return place.sql("SELECT root FROM entropic_tables WHERE table_name = 'protocol_sims'")[0].root


def open_at(place: Place, folder: Path) -> Store:
    return Store(place.runner(), cases.Sim, folder, ".txt", place.url)


def test_first_store_marks_its_folder_and_registers_it(place):
    place.store()

    (row,) = place.sql("SELECT value FROM entropic_meta WHERE name = 'database'")
    file = place.folder / "entropic.sqlite3"
    assert marker(place.results) == {
        "root": registered_root(place),
        "database": row.value,
        "table": "protocol_sims",
        "place": {"kind": "sqlite", "file": str(file), "beside": "../entropic.sqlite3"},
    }


def test_second_store_leaves_the_marker_as_it_is(place):
    place.store()
    before = (place.results / roots.MARKER).stat()

    place.store()

    after = (place.results / roots.MARKER).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def open_and_tell_root(place: Place) -> str:
    place.store()
    return marker(place.results)["root"]


def test_eight_first_stores_at_once_agree_on_one_marker(place):
    roots = run_together(open_and_tell_root, [(place,)] * 8)

    assert set(roots) == {registered_root(place)}


def die_after_the_marker(place: Place) -> None:
    folders.write_marker = cases.after(folders.write_marker)
    place.store()


def test_marker_of_a_process_killed_before_its_commit_is_taken_over(place):
    (outcome,) = outcomes_of(die_after_the_marker, [(place,)])
    left = marker(place.results)["root"]
    store = place.store()

    record = store.run_or_retrieve(A)

    assert outcome.exitcode == -9
    assert registered_root(place) == left
    assert Path(record.result_file).exists()


def test_folder_that_was_moved_is_found_without_a_write(place):
    place.store().run_or_retrieve(A)
    moved = place.folder / "moved"
    place.results.rename(moved)
    before = place.sql("SELECT * FROM protocol_sims"), place.sql("SELECT * FROM entropic_tables")

    record = open_at(place, moved).run_or_retrieve(A)

    assert Path(record.result_file).parent == moved
    assert Path(record.result_file).read_text() == "version 1 of 1.5"
    assert len(place.runner().calls) == 1
    assert (place.sql("SELECT * FROM protocol_sims"), place.sql("SELECT * FROM entropic_tables")) == before


def assert_reads_and_refuses_to_write(place: Place, store: Store) -> None:
    assert store.retrieve(A).a == 1.5
    assert store.count() == 1
    for call in (
        lambda: store.run_or_retrieve({"a": 2.5}),
        lambda: store.run_or_retrieve(A),
        lambda: store.run(A),
        lambda: store.sweep([{"a": 2.5}], progress=False),
        lambda: store.recover(),
        lambda: store.check(fix=True),
    ):
        with pytest.raises(ResultsDirUnavailableError, match="adopt_root"):
            call()
    assert len(place.runner().calls) == 1


def test_folder_that_is_not_mounted_is_read_around_and_nothing_runs(place):
    place.store().run_or_retrieve(A)
    shutil.rmtree(place.results)

    assert_reads_and_refuses_to_write(place, place.store())

    assert not place.results.exists()


def test_empty_mount_point_is_read_around_and_stays_empty(place):
    place.store().run_or_retrieve(A)
    shutil.rmtree(place.results)
    place.results.mkdir()

    assert_reads_and_refuses_to_write(place, place.store())

    assert os.listdir(place.results) == []


def test_folder_that_goes_while_a_store_is_open_stops_runs(place):
    store = place.store()
    store.run_or_retrieve(A)
    place.results.rename(place.folder / "elsewhere")

    with pytest.raises(ResultsDirUnavailableError, match="is not there"):
        store.run_or_retrieve(A)

    assert len(place.runner().calls) == 1
    assert not place.results.exists()


def test_adopted_folder_takes_the_place_of_one_that_was_removed(place):
    place.store().run_or_retrieve(A)
    former = registered_root(place)
    shutil.rmtree(place.results)
    store = place.store()

    store.adopt_root()

    assert marker(place.results)["root"] == registered_root(place) != former
    assert Path(store.run_or_retrieve(A).result_file).read_text() == "version 1 of 1.5"
    assert len(place.runner().calls) == 2
    assert not place.store().check(checksum=True)


def test_folder_that_was_replaced_is_not_the_tables_any_more_when_it_comes_back(place):
    place.store().run_or_retrieve(A)
    old = place.folder / "old"
    place.results.rename(old)
    place.store().adopt_root()

    store = open_at(place, old)

    with pytest.raises(ResultsDirUnavailableError, match="earlier folder"):
        store.run(A)


def test_store_that_was_open_before_the_folder_was_adopted_elsewhere_refuses_to_run(place):
    store = place.store()
    open_at(place, place.folder / "new").adopt_root()

    other = place.store()

    with pytest.raises(ResultsDirUnavailableError):
        other.run(A)
    assert store.count() == 0


def test_two_tables_cannot_share_a_folder(place):
    place.store()

    with pytest.raises(ResultsDirUnavailableError, match=r"belongs to table 'protocol_sims'") as caught:
        Store(place.runner(), Other, place.results, ".txt", place.url)

    assert str(place.results / "protocol_others") in str(caught.value)
    assert marker(place.results)["table"] == "protocol_sims"


def test_table_that_has_a_folder_may_not_adopt_another_tables(place):
    place.store()
    other = Store(place.runner(), Other, place.folder / "others", ".txt", place.url)
    shutil.rmtree(place.folder / "others")
    store = Store(place.runner(), Other, place.results, ".txt", place.url)

    with pytest.raises(ResultsDirUnavailableError):
        store.adopt_root()

    assert marker(place.results)["table"] == "protocol_sims"
    assert other.count() == 0


def test_two_databases_cannot_share_a_folder(place):
    place.store().run_or_retrieve(A)
    second = Place(f"sqlite:///{place.folder / 'second.sqlite3'}", place.folder)
    before = sorted(os.listdir(place.results))

    with pytest.raises(ResultsDirUnavailableError, match="another database"):
        second.store()

    assert sorted(os.listdir(place.results)) == before


def test_folder_of_a_lost_database_is_adopted_on_purpose(place):
    place.store().run_or_retrieve(A)
    second = Place(f"sqlite:///{place.folder / 'second.sqlite3'}", place.folder)
    store = open_at(second, place.folder / "empty")
    store = open_at(second, place.results)

    store.adopt_root()

    assert store.run_or_retrieve(A).a == 1.5
    assert marker(place.results)["root"] == registered_root(second)


def test_marker_that_cannot_be_read_stops_runs(place):
    store = place.store()
    (place.results / roots.MARKER).write_text("{")

    with pytest.raises(ResultsDirUnavailableError):
        store.run_or_retrieve(A)

    assert place.runner().calls == []


# The keys that a table was registered with


def model(**columns):
    """A model of one table; each call replaces the class of the call before, as a notebook's cell does."""
    annotations = {name: Mapped[kind] for name, (kind, _) in columns.items()}
    values = {name: value for name, (_, value) in columns.items() if value is not None}
    body = {
        "__tablename__": "registration_runs",
        "__annotations__": annotations,
        "__module__": __name__,
        **values,
    }
    return type("Run", (Base,), {"__qualname__": "Run", **body})


def open_model(place: Place, **columns) -> Store:
    return Store(place.runner(), model(**columns), place.results, ".txt", place.url)


def test_default_that_changed_is_refused_with_both_values(place):
    open_model(place, a=(float, None), b=(float, param(default=0.25))).run_or_retrieve(A)

    with pytest.raises(SchemaError, match=r"default of b was 0\.25 and is 0\.75"):
        open_model(place, a=(float, None), b=(float, param(default=0.75)))


def test_default_that_was_added_to_a_parameter_is_refused(place):
    open_model(place, a=(float, None), b=(float, None))

    with pytest.raises(SchemaError, match=r"default of b was .*no default"):
        open_model(place, a=(float, None), b=(float, param(default=0.75)))


@pytest.mark.parametrize(
    ("was", "now", "advice", "followed"),
    [
        (None, "dropped", "Put it back as it was, of type float, without a default", None),
        (param(default=0.25), "dropped", "with the default 0.25", param(default=0.25)),
        (param(default=0.25), None, "Put it back", param(default=0.25)),
        (None, param(default=0.5), "Take the default away, and give the value each time", None),
        (
            param(default=0.25),
            param(default=0.5),
            "Put the old default back, and give the",
            param(default=0.25),
        ),
    ],
)
def test_advice_on_a_parameter_that_changed_works_when_it_is_followed(place, was, now, advice, followed):
    open_model(place, a=(float, None), b=(float, was)).run_or_retrieve({**A, "b": 0.5})
    changed = {} if now == "dropped" else {"b": (float, now)}

    with pytest.raises(SchemaError) as caught:
        open_model(place, a=(float, None), **changed)
    assert advice in str(caught.value)
    assert "__tablename__, such as 'registration_runs_2', and the Store another results_dir" in str(
        caught.value
    )

    record = open_model(place, a=(float, None), b=(float, followed)).run_or_retrieve({**A, "b": 0.5})
    assert (record.b, len(place.runner().calls)) == (0.5, 1)


def test_advice_on_a_parameter_that_can_be_none_or_cannot_any_more_works(place, tmp_path):
    open_model(place, a=(float, None), b=(float, None)).run_or_retrieve({**A, "b": 0.5})

    with pytest.raises(SchemaError, match=r"b can be None now, .* Take None out of its annotation again"):
        open_model(place, a=(float, None), b=(float | None, None))

    assert open_model(place, a=(float, None), b=(float, None)).count() == 1
    other = Place(f"sqlite:///{tmp_path / 'other.sqlite3'}", tmp_path / "other")
    open_model(other, a=(float, None), b=(float | None, None)).run_or_retrieve(A)
    with pytest.raises(SchemaError, match=r"b could be None, .* Annotate it as \.\.\. \| None again"):
        open_model(other, a=(float, None), b=(float, None))


def test_same_model_opens_again(place):
    open_model(place, a=(float, None), b=(float, param(default=0.25))).run_or_retrieve(A)

    store = open_model(place, a=(float, None), b=(float, param(default=0.25)))

    assert store.run_or_retrieve({**A, "b": 0.25}).b == 0.25
    assert len(place.runner().calls) == 1


@pytest.fixture(
    params=[
        "sqlite_url",
        pytest.param("postgres_url", marks=pytest.mark.slow),
        pytest.param("mysql_url", marks=pytest.mark.slow),
    ]
)
def anywhere(request, tmp_path: Path) -> Place:
    return Place(request.getfixturevalue(request.param), tmp_path)


DEFAULTS = [[1], [1.0], [True], {"a": [0.0]}, {"a": [0]}, [1e16], [10**16], ["1"], {"a": [1e300, 5e-324]}]


@pytest.mark.parametrize("default", DEFAULTS, ids=repr)
def test_default_of_a_document_is_the_same_only_in_all_its_types(anywhere, default):
    def open_with(value) -> Store:
        return open_model(anywhere, a=(float, None), b=(type(value), param(default=value)))

    record = open_with(default).run_or_retrieve(A)

    assert open_with(default).run_or_retrieve(A).id == record.id
    for other in DEFAULTS:
        if other is not default:
            with pytest.raises(SchemaError, match="the default of b was "):
                open_with(other)
    assert len(anywhere.runner().calls) == 1
