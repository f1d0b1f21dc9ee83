"""What somebody left in a results folder to do harm: the Store opens and works, and nothing else is touched."""

import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropic import ResultsDirUnavailableError, Store
from entropic.runs.jobs import Receipt
from tests.support import hostile
from tests.support.hostile import FIELDS, FOLDERS, LINE, Target
from tests.support.protocol_cases import Place, Sim


@pytest.fixture
def place(tmp_path: Path, sqlite_url: str) -> Place:
    return Place(sqlite_url, tmp_path)


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
