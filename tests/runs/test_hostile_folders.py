"""What somebody left in a results folder to do harm: the Store opens and works, and nothing else is touched."""

import json
import logging
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropic import ResultsDirUnavailableError, Store
from entropic.disk.roots import Marker, read_marker, root_problem, write_marker
from entropic.model.records import Found
from entropic.runs.jobs import Receipt
from entropic.runs.removal import remove_result
from tests.support import hostile
from tests.support.hostile import FIELDS, FOLDERS, LINE, Target
from tests.support.protocol_cases import Place, Sim


@pytest.fixture
def target(place) -> Target:
    place.store()
    return Target(place.results, hostile.make_victim(place.folder))


def line_for(place: Place, target: Target, **fields) -> str:
    return target.line(**{"stored": {"a": 7.0, "b": 0}, **fields})


@pytest.mark.parametrize("plant", FOLDERS, ids=lambda plant: plant.__name__)
def test_store_opens_and_works_and_nothing_outside_is_touched(place, target, plant):
    plant(target)
    hostile.make_old(target.root)
    hostile.make_old(target.victim)
    before = hostile.snapshot(target.victim)

    took_s, store = hostile.seconds_of(place.store)

    assert took_s < 10
    if plant in hostile.REFUSED_TO_RUN:
        with pytest.raises(ResultsDirUnavailableError, match="is a link"):
            store.run_or_retrieve({"a": 1.0})
    else:
        assert Path(store.run_or_retrieve({"a": 1.0}).result_file).read_text() == "version 1 of 1.0"
    assert store.recover() == 0
    store.check(checksum=True, fix=True)
    assert store.count() == (plant not in hostile.REFUSED_TO_RUN)
    assert hostile.snapshot(target.victim) == before


def test_no_name_in_the_folder_makes_lines_of_its_own_in_what_is_said(place, target, caplog):
    hostile.names_that_are_odd(target)
    (target.root / "a\nb.txt").touch()
    hostile.make_old(target.root)

    store = place.store()
    told = [record.getMessage() for record in caplog.records] + [one.sentence for one in store.check()]

    assert told
    assert all(text.isprintable() for text in told)


def test_folder_that_does_not_say_whose_it_is_is_reported_and_never_cleared(place, target):
    hostile.a_folder_that_does_not_say_whose_it_is(target)
    hostile.make_old(target.root)

    store = place.store()
    report = store.check(fix=True)

    assert [(finding.kind, finding.is_fixed) for finding in report] == [("nameless", False)]
    assert (target.state / "x" / "0" / "f").read_bytes() == hostile.EVIL


FORGED = [(name, value) for name, values in FIELDS.items() for value in values]


@pytest.mark.parametrize(
    ("name", "value"), FORGED, ids=[f"{name}-{repr(value)[:40]!a}" for name, value in FORGED]
)
def test_line_with_a_forged_field_is_no_receipt(name, value):
    with pytest.raises((KeyError, TypeError)):
        Receipt.from_line({**LINE, name: value})


@pytest.mark.parametrize("name", sorted(set(LINE) - {"folder"}))
def test_line_without_a_field_is_no_receipt(name):
    with pytest.raises((KeyError, TypeError)):
        Receipt.from_line({key: value for key, value in LINE.items() if key != name})


def test_line_that_is_sound_is_a_receipt():
    receipt = Receipt.from_line(LINE)

    assert receipt.path(Path("/results")) == Path("/results/.entropic/x/0/f")
    assert receipt.final_name == "forged"


def test_forged_lines_are_counted_and_the_sound_one_among_them_is_recovered(place, target, caplog):
    target.slot()
    before = hostile.snapshot(target.victim)
    lines = [line_for(place, target, **{name: value}) for name, value in FORGED]
    target.write_sidecar("".join([*lines, line_for(place, target)]))

    with caplog.at_level(logging.WARNING):
        store = place.store()

    assert [record.id for record in store.records()] == ["forged"]
    assert (place.results / "forged").read_bytes() == hostile.EVIL
    assert hostile.snapshot(target.victim) == before
    assert "recovered forged" in caplog.text
    malformed = [finding for finding in store.check() if finding.kind == "malformed-sidecar"]
    assert [finding.sentence.split()[0] for finding in malformed] == [str(len(FORGED))]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_odd_text = st.lists(st.sampled_from(["..", "/", ".", "\0", "a", ".entropic", "\ud800"]), max_size=5).map(
    "".join
)


@given(st.dictionaries(st.sampled_from(sorted(LINE)), _json | _odd_text, min_size=1, max_size=3))
def test_whatever_a_line_says_its_paths_stay_in_their_folders(fields):
    try:
        receipt = Receipt.from_line({**LINE, **fields})
    except (KeyError, TypeError):
        return

    root = Path("/results")
    assert receipt.path(root).parents[3] == root
    assert ".." not in receipt.path(root).parts
    assert (root / receipt.final_name).parent == root
    assert not receipt.final_name.startswith(".entropic")
    json.dumps(receipt.as_line("d", "t"))


_marker = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("root", "database", "table"), _json | _odd_text),
        "place": _json
        | st.dictionaries(st.sampled_from(["kind", "file", "beside", "server", "name"]), _json | _odd_text),
    },
)


@given(_marker | _json)
def test_whatever_a_marker_says_it_is_read_as_one_of_texts_or_as_none(tmp_path_factory, said):
    root = tmp_path_factory.mktemp("root")
    (root / ".entropic-root.json").write_text(json.dumps(said))

    marker = read_marker(root)

    if marker is not None:
        parts = [marker.root, marker.database, marker.table, *(marker.place or {}).values()]
        assert all(isinstance(part, str) for part in parts)
        assert isinstance(root_problem(root, Marker("r", "d", "t")), str)


@settings(max_examples=20)
@given(st.dictionaries(st.sampled_from(["kind", "file", "beside", "server", "name"]), st.text() | _odd_text))
def test_whatever_place_a_marker_names_the_store_opens(opened_once, known):
    place, marker = opened_once
    write_marker(place.results, replace(marker, place=known), replace=True)

    with closing(place.store()) as store:
        assert store.count() == 0
        assert store.check() is not None


@pytest.fixture(scope="module")
def opened_once(tmp_path_factory) -> tuple[Place, Marker]:
    folder = tmp_path_factory.mktemp("places")
    place = Place(f"sqlite:///{folder / 'entropic.sqlite3'}", folder)
    return place, place.store()._table.marker


@given(
    _odd_text | st.text() | st.sampled_from(["victim", "victim/thesis.tex", "results", "results/../victim"])
)
def test_whatever_name_a_record_has_nothing_outside_is_removed(watched, name):
    place, store = watched
    before = hostile.snapshot(place.folder / "victim")

    for named in (name, f"{place.folder}/{name}", f"../{name}", f"./{name}/"):
        row = Found({"id": "forged", "result_file": named}, named, "0" * 64, 5)
        path = Path(store._table.reader.path(row))
        assert path.parent == place.results or os.path.isabs(named)
        remove_result(store._table, row)

    assert hostile.snapshot(place.folder / "victim") == before
    assert (place.results / ".entropic-root.json").exists()
    assert (place.folder / "entropic.sqlite3").exists()


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> tuple[Place, Store[Sim]]:
    folder = tmp_path_factory.mktemp("watched")
    hostile.make_victim(folder)
    place = Place(f"sqlite:///{folder / 'entropic.sqlite3'}", folder)
    return place, place.store()


@pytest.mark.parametrize(
    "value",
    [b"[]", b"17", b"null", hostile.DEEP.encode(), b'{"root": 1, "database": [], "table": null}', b""],
)
def test_marker_that_is_none_lets_the_store_open_and_read(place, target, value):
    record = place.store().run_or_retrieve({"a": 1.0})
    (target.root / ".entropic-root.json").write_bytes(value)

    store = place.store()

    assert store.retrieve({"a": 1.0}).result_file == record.result_file
    with pytest.raises(ResultsDirUnavailableError, match="cannot be read"):
        store.run_or_retrieve({"a": 2.0})


def reopened(place: Place, target: Target) -> Store[Sim]:
    took_s, store = hostile.seconds_of(place.store)
    assert took_s < 10
    return store


def test_marker_that_is_a_fifo_is_not_waited_for(place, target):
    (target.root / ".entropic-root.json").unlink()
    os.mkfifo(target.root / ".entropic-root.json")

    with pytest.raises(ResultsDirUnavailableError, match="cannot be read"):
        reopened(place, target).run_or_retrieve({"a": 2.0})


def test_marker_that_is_a_link_is_not_followed(place, target):
    marker = target.root / ".entropic-root.json"
    marker.rename(target.victim / "marker")
    marker.symlink_to(target.victim / "marker")

    with pytest.raises(ResultsDirUnavailableError, match="cannot be read"):
        reopened(place, target).run_or_retrieve({"a": 2.0})
