"""Where arrays are, what there is, and what is removed."""

import hashlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from entropic import (
    AlreadyExistsError,
    CorruptFileError,
    InvalidContainerError,
    ResultFileMissingError,
    array_store,
)
from entropic.array_store import (
    ArrayStore,
    LocalArrayIdentifier,
    LocalArrayStore,
    LocalContainerIdentifier,
)
from entropic.disk import replacing
from tests.support.array_cases import VALUES, killed_at, replace_or_read, write
from tests.support.processes import outcomes_of, run_together

zarr = pytest.importorskip("zarr")
pytestmark = pytest.mark.filterwarnings(  # of texts and structures
    "ignore:The data type:FutureWarning", "ignore:The (codec|dtype):UserWarning"
)


class Dataset:
    """What is validated on: its text is part of paths."""

    name = "a/b"

    def __str__(self):
        return "ds_a_b"


@pytest.fixture
def store(tmp_path):
    return LocalArrayStore(tmp_path / "arrays")


@pytest.mark.parametrize(
    ("call", "container", "path"),
    [
        (lambda s: s.validation_prediction_array("r", 5, "d"), "r/validation.zarr", "5/d/prediction"),
        (lambda s: s.validation_prediction_array("r", 5, Dataset()), "r/validation.zarr", "5/ds_a_b/prediction"),
        (lambda s: s.validation_output_array("r", 5, "t_0.1", "d"), "r/validation.zarr", "5/d/output/t_0.1"),
        (lambda s: s.validation_input_arrays("r")[0], "r/validation.zarr", "inputs/raw"),
        (lambda s: s.validation_input_arrays("r")[1], "r/validation.zarr", "inputs/gt"),
        (lambda s: s.validation_input_arrays("r", "i")[0], "r/validation.zarr", "inputs/i/raw"),
        (lambda s: s.validation_input_arrays("r", "i")[1], "r/validation.zarr", "inputs/i/gt"),
        (lambda s: s.best_validation_array("r", "f1"), "r/validation.zarr", "f1"),
        (lambda s: s.best_validation_array("r", "f1", "i"), "r/validation.zarr", "i/f1"),
        (lambda s: s.validation_prediction_array("a/b", 0, "x y"), "a/b/validation.zarr", "0/x y/prediction"),
        (lambda s: s.snapshot_container("r").array_identifier("volumes/raw"), "r/snapshot.zarr", "volumes/raw"),
        (lambda s: s.validation_container("r").array_identifier("any"), "r/validation.zarr", "any"),
    ],
)  # fmt: skip
def test_array_is_where_the_layout_says(store, tmp_path, call, container, path):
    assert call(store) == LocalArrayIdentifier(tmp_path / "arrays" / container, path)
    assert not (tmp_path / "arrays").exists()


def test_array_in_a_folder_whose_path_looks_like_a_url_is_kept_there(tmp_path):
    store = LocalArrayStore(tmp_path / "a::b")
    array = store.snapshot_container("r").array_identifier("raw")

    store.store_array(array, np.arange(3))

    assert store.retrieve_array(array).tolist() == [0, 1, 2]
    assert store.open(array).shape == (3,)
    assert (tmp_path / "a::b" / "r" / "snapshot.zarr" / "raw").is_dir()


def test_identifiers_are_values(tmp_path):
    one = LocalContainerIdentifier(Path("c.zarr"))
    array = one.array_identifier("d")

    assert array == LocalArrayIdentifier(container=Path("c.zarr"), dataset="d")
    assert len({array, one.array_identifier("d"), one.array_identifier("e")}) == 2
    assert repr(array) == "LocalArrayIdentifier(container=PosixPath('c.zarr'), dataset='d')"


@pytest.mark.parametrize("name", ["", "..", "/r", "a/../b", "nul\0", "\ud800"])
def test_name_that_would_leave_the_folder_is_refused(store, name):
    for call in (
        lambda: store.validation_container(name),
        lambda: store.snapshot_container(name),
        lambda: store.best_validation_array("r", name),
        lambda: store.validation_prediction_array("r", 1, name),
        lambda: store.validation_output_array("r", 1, name, "d"),
    ):
        with pytest.raises(ValueError, match=r"a name|the path of an array"):
            call()


def test_interface_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        ArrayStore()


# What is written


@pytest.mark.parametrize(
    "values", [VALUES, np.float32(3), np.array([np.nan, -0.0]), np.zeros((0, 3)), VALUES[:, ::2]]
)
def test_array_comes_back_with_its_digest(store, values):
    identifier = store.validation_prediction_array("r", 5, "d")
    store.store_array(identifier, values)

    back = store.retrieve_array(identifier, verify=True)

    np.testing.assert_array_equal(back, values)
    assert back.dtype == np.asarray(values).dtype


# Older releases bring them back as text of any length.
TEXTS = pytest.mark.skipif(zarr.__version__ < "3.1", reason="this zarr has no text of fixed length")
NOT_A_NUMBER = np.array([0x7FF8000000000123] * 2, dtype="u8").view("f8")
GAPS = np.dtype([("a", "i1"), ("b", "f8")], align=True)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (np.arange(6, dtype=">f4").reshape(2, 3), {}),
        (np.arange(6, dtype=">i8"), {"zarr_format": 2}),
        pytest.param(np.array(["a", "bc"], dtype=">U2"), {}, marks=TEXTS),
        pytest.param(np.array("ab", dtype="U5"), {}, marks=TEXTS),
        pytest.param(np.array(b"ab", dtype="S5"), {}, marks=TEXTS),
        (np.array(-0.0), {}),
        (np.full((4, 4), -0.0), {"chunks": (2, 2)}),
        (np.full(3, complex(-0.0, -0.0)), {}),
        (np.full(3, complex(-0.0, 0.0)), {"config": {"write_empty_chunks": False, "order": "C"}}),
        (np.array(complex(0.0, -0.0)), {}),
        (np.zeros(3), {"fill_value": -0.0}),
        (NOT_A_NUMBER, {"fill_value": np.nan}),
    ],
)
def test_values_come_back_to_the_last_bit(store, values, options):
    identifier = store.best_validation_array("r", "f1")
    store.store_array(identifier, values, **options)

    back = store.retrieve_array(identifier, verify=True)

    assert isinstance(back, np.ndarray)
    assert back.dtype == values.dtype.newbyteorder("<")
    assert back.tobytes() == values.astype(back.dtype).tobytes()


@pytest.mark.parametrize(
    "values",
    [
        np.array([(1, 2.0), (3, -0.0)], dtype=[("a", ">i4"), ("b", "<f8")]),
        np.array([(0, -0.0)], dtype=[("a", ">i4"), ("b", "<f8")]),
        np.ones(3, dtype=GAPS),
        np.array([(7, 7.0)] * 2, dtype="i1, f8").astype(GAPS),
    ],
)
def test_structures_come_back(store, values):
    """Of the fields of a structure zarr forgets the byte order, of its gaps everything."""
    identifier = store.best_validation_array("r", "f1")
    try:
        store.store_array(identifier, values)
    except KeyError:
        pytest.skip("this zarr has no structures")

    back = store.retrieve_array(identifier, verify=True)

    assert back.tolist() == values.tolist()
    assert np.signbit(back["b"]).tolist() == np.signbit(values["b"]).tolist()


def test_texts_of_any_length_are_verified(store):
    if not hasattr(np.dtypes, "StringDType"):
        pytest.skip("NumPy 1 has no StringDType")
    texts = np.array(["a" * 100, "b", "ß" * 50], dtype=np.dtypes.StringDType())
    identifier = store.best_validation_array("r", "f1")
    store.store_array(identifier, texts[1:])  # a part has other addresses than the same texts read anew

    assert store.retrieve_array(identifier, verify=True).tolist() == texts[1:].tolist()


def test_chunks_that_equal_the_fill_value_take_no_place(store):
    identifier = store.best_validation_array("r", "f1")
    store.store_array(identifier, np.zeros((4, 4)), chunks=(2, 2))

    assert files_below(identifier.container / "f1") == ["zarr.json"]


@pytest.mark.parametrize(
    "values",
    [np.arange(3, dtype=">f4"), np.arange(3.0), pytest.param(np.array(["a", "bc"]), marks=TEXTS)],
)
def test_digest_that_was_noted_before_is_that_of_the_values(store, values):
    """It was of the bytes as they were given."""
    identifier = store.best_validation_array("r", "f1")
    array = store.store_array(identifier, values)
    array.attrs["sha256"] = hashlib.sha256(values.tobytes()).hexdigest()

    assert store.retrieve_array(identifier, verify=True).tolist() == values.tolist()


def test_array_that_is_there_is_only_replaced_if_that_is_said(store):
    identifier = store.best_validation_array("r", "f1")
    store.store_array(identifier, VALUES)

    with pytest.raises(AlreadyExistsError, match="say overwrite=True"):
        store.store_array(identifier, VALUES + 1)
    np.testing.assert_array_equal(store.retrieve_array(identifier), VALUES)

    store.store_array(identifier, VALUES + 1, overwrite=True, chunks=(1, 3, 4))
    np.testing.assert_array_equal(store.retrieve_array(identifier, verify=True), VALUES + 1)


def test_part_of_an_array_is_read(store):
    identifier = store.validation_prediction_array("r", 5, "d")
    store.store_array(identifier, VALUES, chunks=(1, 3, 4))

    assert store.open(identifier)[1, 2].tolist() == VALUES[1, 2].tolist()


@pytest.mark.parametrize("mode", ["w", "w-", "a", "x", None])
def test_mode_in_which_an_array_could_be_lost_is_refused(store, mode):
    identifier = store.validation_prediction_array("r", 5, "d")
    store.store_array(identifier, VALUES)
    with pytest.raises(ValueError, match="is opened with the mode 'r' or 'r\\+', not"):
        store.open(identifier, mode)

    np.testing.assert_array_equal(store.retrieve_array(identifier, verify=True), VALUES)


def test_damaged_array_is_found_out(store):
    identifier = store.validation_prediction_array("r", 5, "d")
    store.store_array(identifier, VALUES)
    store.open(identifier, "r+")[0] = 9

    with pytest.raises(CorruptFileError, match="is not what was written"):
        store.retrieve_array(identifier, verify=True)
    assert store.retrieve_array(identifier)[0, 0, 0] == 9


def test_array_that_is_absent_or_has_no_digest_is_an_error(store):
    identifier = store.validation_prediction_array("r", 5, "d")
    with pytest.raises(ResultFileMissingError, match="there is no array"):
        store.retrieve_array(identifier)

    zarr.open_group(str(identifier.container), mode="a").create_array(
        identifier.dataset, shape=(1,), dtype="u1"
    )
    store.retrieve_array(identifier)
    with pytest.raises(ResultFileMissingError, match="there is no digest"):
        store.retrieve_array(identifier, verify=True)


def test_all_that_there_is_can_be_listed(store):
    put = lambda identifier, values=VALUES: store.store_array(identifier, values)  # noqa: E731
    put(store.validation_prediction_array("r", 5, "d"))
    put(store.validation_output_array("r", 10, "threshold_0.1", Dataset()), np.zeros(3))
    put(store.validation_input_arrays("r")[0])
    put(store.validation_input_arrays("r", "i")[1])
    put(store.best_validation_array("r", "f1", "i"))
    put(store.snapshot_container("r").array_identifier("volumes/raw"))
    put(store.validation_prediction_array("group/other", 1, "d"))

    found = {(a.run, a.role, a.iteration, a.dataset, a.parameters): a for a in store.arrays()}

    assert set(found) == {
        ("r", "prediction", 5, "d", None),
        ("r", "output", 10, "ds_a_b", "threshold_0.1"),
        ("r", "raw", None, None, None),
        ("r", "gt", None, "i", None),
        ("r", "best", None, "i/f1", None),
        ("r", "snapshot", None, "volumes/raw", None),
        ("group/other", "prediction", 1, "d", None),
    }
    output = found["r", "output", 10, "ds_a_b", "threshold_0.1"]
    assert (output.shape, output.dtype, len(output.digest)) == ((3,), "float64", 64)
    assert output.identifier == store.validation_output_array("r", 10, "threshold_0.1", Dataset())
    assert [a.run for a in store.arrays("group/other")] == ["group/other"]
    assert list(store.arrays("absent")) == []
    assert list(LocalArrayStore(store.basedir / "nowhere").arrays()) == []


def test_array_that_cannot_be_written_leaves_the_one_that_was_there(store, monkeypatch):
    identifier = store.validation_prediction_array("r", 5, "d")
    store.store_array(identifier, VALUES)
    before = files_below(store.basedir)

    def fail(array, selection, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zarr.Array, "__setitem__", fail)
    with pytest.raises(OSError, match="No space left"):
        store.store_array(identifier, VALUES + 1, overwrite=True)

    assert files_below(store.basedir) == before
    np.testing.assert_array_equal(store.retrieve_array(identifier, verify=True), VALUES)


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture(params=["at once", "one after the other"])
def how(request, monkeypatch):
    """Whether the system can let two folders change places."""
    if request.param == "one after the other":
        monkeypatch.setattr(replacing, "_system_call", lambda: None)
    return request.param


def test_array_that_cannot_be_moved_leaves_the_one_that_was_there(store, monkeypatch, how):
    identifier = store.validation_prediction_array("r", 5, "d")
    store.store_array(identifier, VALUES)
    before = files_below(store.basedir)
    original = os.rename

    def rename(source, target, **options):
        if source == replacing.NEW:
            raise OSError(28, "No space left on device")
        return original(source, target, **options)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        store.store_array(identifier, VALUES + 1, overwrite=True)

    assert files_below(store.basedir) == before
    np.testing.assert_array_equal(store.retrieve_array(identifier, verify=True), VALUES)


def test_array_gives_way_at_once_or_one_after_the_other(store, how):
    identifier = store.validation_prediction_array("r", 5, "d")
    for number in range(3):
        store.store_array(identifier, VALUES + number, overwrite=True)
        np.testing.assert_array_equal(store.retrieve_array(identifier, verify=True), VALUES + number)

    assert [path.name for path in store.basedir.joinpath("r").iterdir()] == ["validation.zarr"]


def test_array_that_another_process_was_faster_with_is_left_alone(store, monkeypatch):
    identifier = store.validation_prediction_array("r", 5, "d")
    place = identifier.container / identifier.dataset
    original = os.rename

    def rename(source, target, **options):
        if source == replacing.NEW:
            place.joinpath("theirs").mkdir(parents=True)
        return original(source, target, **options)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(AlreadyExistsError, match="is there already"):
        store.store_array(identifier, VALUES)

    assert [path.name for path in store.basedir.joinpath("r").iterdir()] == ["validation.zarr"]
    assert place.joinpath("theirs").is_dir()


@pytest.mark.slow
def test_writer_that_is_killed_at_any_step_leaves_one_of_the_two(tmp_path, how):
    seen, is_killed = [], True
    while is_killed:
        store = LocalArrayStore(tmp_path / str(len(seen)))
        identifier = store.validation_prediction_array("r", 5, "d")
        store.store_array(identifier, VALUES)
        ((outcome),) = outcomes_of(killed_at, [(len(seen), store.basedir, how == "at once")])
        is_killed = outcome.exitcode == -signal.SIGKILL
        assert is_killed or outcome.finished, outcome.traceback

        found = LocalArrayStore(store.basedir).retrieve_array(identifier, verify=True)
        seen.append(int((found - VALUES).max()))
        assert len(list(store.arrays())) == 1
        # Where it was killed before it wrote its note, or after that was removed, a folder is kept for a week.
        left = [path for path in store.basedir.joinpath("r").iterdir() if path.name != "validation.zarr"]
        assert [name for path in left for name in files_below(path)] == []

    assert seen == sorted(seen)
    assert {*seen} == {0, 1}


@pytest.mark.slow
def test_reader_gets_values_of_one_call(store, how):
    """While two processes replace an array of many chunks all the time."""
    write(store, 1)

    *_, (numbers, trouble) = run_together(
        replace_or_read, [(store.basedir, how == "at once", name) for name in ("write", "write", "read")]
    )

    assert len(numbers) > 1
    assert trouble == []


@pytest.mark.parametrize("name", ["file", "link"])
def test_file_or_link_in_the_place_of_an_array_is_left_alone(store, tmp_path, name):
    container = store.validation_container("r")
    store.store_array(container.array_identifier("there"), VALUES)
    container.container.joinpath("link").symlink_to(tmp_path)
    container.container.joinpath("file").touch()

    with pytest.raises(AlreadyExistsError, match="it was left alone"):
        store.store_array(container.array_identifier(name), VALUES, overwrite=True)

    assert container.container.joinpath("link").is_symlink()
    assert container.container.joinpath("file").is_file()
    np.testing.assert_array_equal(store.retrieve_array(container.array_identifier("there")), VALUES)


def test_group_is_left_alone(store):
    raw, truth = store.validation_input_arrays("r")
    for one in (raw, truth):
        store.store_array(one, VALUES)
    group = store.best_validation_array("r", "inputs")

    for overwrite in (False, True):
        with pytest.raises(
            AlreadyExistsError, match=r"is a group, and in it the arrays 'gt', 'raw': it was left"
        ):
            store.store_array(group, VALUES, overwrite=overwrite)
    raw.container.joinpath("inputs", "zarr.json").unlink()  # a folder with arrays need not say that it is one
    with pytest.raises(AlreadyExistsError, match="is a group"):
        store.store_array(group, VALUES, overwrite=True)
    with pytest.raises(ResultFileMissingError, match="there is no array"):
        store.retrieve_array(group)
    np.testing.assert_array_equal(store.retrieve_array(raw), VALUES)

    store.remove(group)
    store.store_array(group, VALUES)
    np.testing.assert_array_equal(store.retrieve_array(group), VALUES)


def test_group_that_was_made_meanwhile_is_left_alone(store, monkeypatch):
    original, below = array_store._write, store.best_validation_array("r", "a/b")
    identifier = store.best_validation_array("r", "a")

    def write_both(*args):
        monkeypatch.undo()
        original(*args)
        store.store_array(below, VALUES)

    monkeypatch.setattr(array_store, "_write", write_both)
    with pytest.raises(AlreadyExistsError, match=r"is a group, and in it the arrays 'b'"):
        store.store_array(identifier, VALUES, overwrite=True)

    assert [one.identifier for one in store.arrays()] == [below]


def test_damaged_array_can_be_replaced(store):
    identifier = store.best_validation_array("r", "f1")
    store.store_array(identifier, VALUES)
    identifier.container.joinpath("f1", "zarr.json").write_bytes(b"")

    store.store_array(identifier, VALUES, overwrite=True)

    np.testing.assert_array_equal(store.retrieve_array(identifier, verify=True), VALUES)


@pytest.mark.parametrize("overwrite", [False, True])
def test_array_below_another_is_refused(store, overwrite):
    above = store.validation_output_array("r", 1, "p", "d")
    store.store_array(above, VALUES)

    with pytest.raises(
        AlreadyExistsError, match=r"'1/d/output/p/q'.* would lie below '.*/output/p', which is an"
    ):
        store.store_array(store.validation_output_array("r", 1, "p/q", "d"), VALUES, overwrite=overwrite)

    assert [one.identifier for one in store.arrays()] == [above]


@pytest.mark.parametrize("name", ["zarr.json", "a/.zgroup", ".zarray/a", "x" * 256, "ü" * 128])
def test_name_for_which_there_is_no_place_is_refused(store, name):
    for call in (
        lambda: store.best_validation_array("r", name),
        lambda: store.validation_output_array("r", 1, name, "d"),
        lambda: store.store_array(
            LocalArrayIdentifier(store.basedir / "r" / "validation.zarr", name), VALUES
        ),
    ):
        with pytest.raises(ValueError, match="the path of an array has"):
            call()
    assert not store.basedir.exists()


@pytest.mark.parametrize("place", ["", "r", "r/validation.zarr"])
def test_file_where_a_folder_is_wanted_is_named_and_kept(store, place):
    path = store.basedir / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")

    with pytest.raises(NotADirectoryError, match="is a file, where a folder is wanted"):
        store.store_array(store.best_validation_array("r", "f1"), VALUES)

    assert path.read_text() == "precious"


def test_what_others_left_there_keeps_nothing_from_being_listed(store, caplog):
    store.store_array(store.best_validation_array("r", "f1"), VALUES)
    store.validation_container("r").container.joinpath("foreign").mkdir()
    store.validation_container("empty").container.mkdir(parents=True)
    damaged = store.validation_container("damaged").container
    damaged.mkdir(parents=True)
    damaged.joinpath("zarr.json").write_text("{")
    group = zarr.open_group(str(store.validation_container("old").container), mode="w", zarr_format=2)
    group.create_array("5/d/prediction", shape=(3,), dtype="f4")

    assert [(a.run, a.role, a.digest is None) for a in store.arrays()] == [
        ("old", "prediction", True), ("r", "best", False)
    ]  # fmt: skip
    assert [record.message.split(" cannot be listed")[0] for record in caplog.records] == [
        str(damaged), str(store.validation_container("empty").container)
    ]  # fmt: skip


def test_array_that_is_damaged_keeps_no_other_from_being_listed(store, caplog):
    for name in "abc":
        store.store_array(store.validation_prediction_array("r", 5, name), VALUES)
    container = store.validation_container("r").container
    container.joinpath("5/b/prediction/zarr.json").write_text("{")
    container.joinpath("5/c/prediction/zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')

    assert [one.dataset for one in store.arrays("r")] == ["a"]
    assert [record.message.split(" cannot be listed")[0] for record in caplog.records] == [
        str(container / "5/b/prediction"), str(container / "5/c/prediction")
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("version", [2, 3])
def test_container_that_was_consolidated_is_listed_as_it_is_now(store, version):
    container = store.validation_container("r").container
    container.parent.mkdir(parents=True)
    zarr.open_group(str(container), mode="w", zarr_format=version)
    for name in "abc":
        store.store_array(store.validation_prediction_array("r", 5, name), VALUES)
    zarr.consolidate_metadata(str(container))

    store.store_array(store.validation_prediction_array("r", 5, "a"), np.zeros(2), overwrite=True)
    store.remove(store.validation_prediction_array("r", 5, "b"))
    store.store_array(store.validation_output_array("r", 10, "p", "d"), VALUES)
    store.store_array(
        store.validation_output_array("r", 10, "q", "d"), VALUES
    )  # in a group that was made since

    assert [(one.identifier.dataset, one.shape) for one in store.arrays("r")] == [
        ("10/d/output/p", (2, 3, 4)),
        ("10/d/output/q", (2, 3, 4)),
        ("5/a/prediction", (2,)),
        ("5/c/prediction", (2, 3, 4)),
    ]


def test_arrays_that_are_the_first_of_a_container_can_be_stored_at_once(store):
    together = threading.Barrier(4, timeout=20)

    def store_all(name):
        for number in range(12):
            together.wait()
            store.store_array(store.validation_prediction_array(f"r{number}", 5, name), VALUES)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(store_all, name) for name in "abcd"]:
            done.result()

    assert len(list(store.arrays())) == 48
    assert zarr.open_group(str(store.validation_container("r0").container), mode="r")["5/a/prediction"].shape


def test_group_that_became_an_array_meanwhile_is_left_alone(store, monkeypatch):
    above = store.validation_container("r").array_identifier("5/d")
    make_groups = array_store.require_groups

    def require_groups(*given):
        monkeypatch.undo()
        store.store_array(above, VALUES)
        return make_groups(*given)

    monkeypatch.setattr(array_store, "require_groups", require_groups)
    with pytest.raises(AlreadyExistsError, match="is an array itself"):
        store.store_array(store.validation_prediction_array("r", 5, "d"), VALUES)

    assert [one.identifier for one in store.arrays()] == [above]


def test_values_that_zarr_writes_and_cannot_read_are_refused(store):
    identifier = store.validation_prediction_array("r", 5, "d")
    store.store_array(identifier, VALUES)
    with pytest.raises((TypeError, LookupError)):
        store.store_array(identifier, np.array(["NaT"], "M8"), overwrite=True)

    np.testing.assert_array_equal(store.retrieve_array(identifier, verify=True), VALUES)


def test_mask_of_values_is_not_dropped_silently(store):
    with pytest.raises(TypeError, match="the mask of a masked array would be lost"):
        store.store_array(store.best_validation_array("r", "f1"), np.ma.masked_greater(VALUES, 3))
    assert not store.basedir.exists()


def test_array_that_is_stored_in_a_container_of_the_former_format_is_listed(store):
    identifier = store.validation_prediction_array("r", 5, "d")
    identifier.container.parent.mkdir(parents=True)
    zarr.open_group(str(identifier.container), mode="w", zarr_format=2)

    store.store_array(identifier, VALUES)

    assert [one.identifier for one in store.arrays()] == [identifier]
    np.testing.assert_array_equal(store.retrieve_array(identifier, verify=True), VALUES)
    with pytest.raises(AlreadyExistsError, match="is a group, and in it the arrays 'prediction'"):
        store.store_array(store.validation_container("r").array_identifier("5/d"), VALUES, overwrite=True)


# What is removed


def test_removed_array_is_gone_and_no_other(store):
    keep, drop = (store.validation_prediction_array("r", i, "d") for i in (5, 10))
    for one in (keep, drop):
        store.store_array(one, VALUES)

    assert store.remove(drop) is None

    assert [a.identifier for a in store.arrays()] == [keep]


def test_removed_run_has_nothing_left_of_what_was_being_written(store):
    store.store_array(store.best_validation_array("r", "f1"), VALUES)
    store.basedir.joinpath("r", ".entropic-0.zarr").mkdir()
    store.basedir.joinpath("r", "other").mkdir()

    assert store.remove_run("r") == 1
    assert files_below(store.basedir) == ["r", "r/other"]


def test_removed_array_is_gone_before_any_of_it_is(store, monkeypatch):
    """Who read it meanwhile would take a chunk that is missing for one of zeros."""
    identifier = store.validation_prediction_array("r", 5, "d")
    store.store_array(identifier, VALUES)

    def is_seen(*args):
        with pytest.raises(ResultFileMissingError):
            store.retrieve_array(identifier)

    with monkeypatch.context() as patch:
        patch.setattr(replacing, "remove_at", is_seen)
        store.remove(identifier)
    store.store_array(identifier, VALUES)
    monkeypatch.setattr(replacing, "remove_at", is_seen)
    assert store.remove_run("r") == 1
    assert not identifier.container.exists()


def test_all_below_a_path_is_removed(store):
    for i in (5, 10):
        store.store_array(store.validation_prediction_array("r", i, "d"), VALUES)
    store.remove(store.validation_container("r").array_identifier("5"))

    assert [a.iteration for a in store.arrays()] == [10]


@pytest.mark.parametrize("container", ["x.n5", "x", "x.zarr.bak"])
def test_what_is_no_container_is_refused_as_both_documented_errors(store, container):
    path = store.basedir / container
    path.joinpath("d").mkdir(parents=True)

    with pytest.raises(InvalidContainerError, match=r"does not end with '\.zarr'") as caught:
        store.remove(LocalArrayIdentifier(path, "d"))

    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AssertionError)
    assert path.joinpath("d").is_dir()


@pytest.mark.parametrize("path", ["", "..", "../other", "/abs", "a/../../b", ".", "a//b"])
def test_path_that_leads_elsewhere_is_refused(store, path):
    store.store_array(store.validation_prediction_array("r", 5, "d"), VALUES)

    with pytest.raises(ValueError, match="the path of an array in its container is relative"):
        store.remove(LocalArrayIdentifier(store.validation_container("r").container, path))

    assert len(list(store.arrays())) == 1


@pytest.mark.parametrize("identifier", ["r/validation.zarr/d", None], ids=["path", "nothing"])
def test_what_is_no_identifier_is_refused_with_one_that_is(store, identifier):
    for act in (store.open, store.retrieve_array, store.remove, lambda one: store.store_array(one, VALUES)):
        with pytest.raises(TypeError, match="an array is named by a LocalArrayIdentifier"):
            act(identifier)


def test_container_elsewhere_is_refused(store, tmp_path):
    outside = tmp_path / "other" / "validation.zarr"
    outside.joinpath("d").mkdir(parents=True)
    store.basedir.joinpath("r").mkdir(parents=True)
    store.basedir.joinpath("r", "validation.zarr").symlink_to(outside)
    store.basedir.joinpath("linked").symlink_to(outside.parent)

    for container in (
        outside,
        store.basedir / "r" / "validation.zarr",
        store.basedir / "linked" / "validation.zarr",
        store.basedir / ".." / "other" / "validation.zarr",
    ):
        with pytest.raises(InvalidContainerError, match="is a link, or not below"):
            store.remove(LocalArrayIdentifier(container, "d"))
    assert outside.joinpath("d").is_dir()
    assert list(store.arrays()) == []


def test_link_inside_a_container_is_not_followed(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    container = store.validation_container("r").container
    container.mkdir(parents=True)
    container.joinpath("d").symlink_to(outside)
    outside.joinpath("precious").mkdir()

    store.remove(LocalArrayIdentifier(container, "d"))
    with pytest.raises(OSError, match="d"):
        store.remove(LocalArrayIdentifier(container, "d/precious"))

    assert outside.joinpath("precious").is_dir()


def test_what_is_absent_or_a_file_is_a_warning(store, caplog):
    container = store.validation_container("r")
    store.remove(container.array_identifier("absent"))
    container.container.mkdir(parents=True)
    container.container.joinpath("file").touch()
    store.remove(container.array_identifier("file"))

    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "is not there, so it was not removed" in caplog.text
    assert os.path.exists(container.container / "file")
