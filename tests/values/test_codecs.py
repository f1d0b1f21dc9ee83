"""Values and files: what is saved is loaded equal, in the format of its type; the rest is refused."""

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from entropic import register_codec, register_loader
from entropic.values import codecs, labelled
from entropic.values.codecs import adopt, can_save, load, registered_codecs, save
from tests.support.naming import shown
from tests.support.scripts import run_text
from tests.support.values import Mesh, Point, arrays, is_same, read_mesh, values, write_mesh

xarray = pytest.importorskip("xarray", reason="xarray is not installed")


@pytest.fixture(autouse=True)
def _registries(monkeypatch):
    """Forget what a test registers."""
    monkeypatch.setattr(codecs, "_known", codecs._known)


@pytest.fixture
def there_and_back(tmp_path):
    """Saves a value and loads it again; returns that, and the name of the file."""

    def go(value):
        for path in tmp_path.iterdir():
            path.unlink()
        save(value, str(tmp_path / "key"))
        (path,) = tmp_path.iterdir()
        return load(str(path)), path.name

    return go


# Arrays and plain values

slowly = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@slowly
@given(arrays())
def test_array_comes_back_equal_as_npy(there_and_back, array):
    back, name = there_and_back(array)

    assert name == "key.npy"
    assert is_same(back, array)
    assert back.flags.f_contiguous == array.flags.f_contiguous


@slowly
@given(values)
def test_nested_value_comes_back_equal(there_and_back, value):
    back, name = there_and_back(value)

    assert is_same(back, value)
    assert name in {"key.npy", "key.value.json", "key.value.h5"}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1.5, "key.value.json"),
        (None, "key.value.json"),
        ([(1, 2), {"a": np.float64(1)}], "key.value.json"),
        (np.arange(3), "key.npy"),
        (np.array(3), "key.npy"),
        ((np.arange(3), np.arange(4.0)), "key.value.h5"),
        ({"x": np.zeros((2, 3), order="F"), "n": 3, "names": np.array(["ä", "b"])}, "key.value.h5"),
        ({"t": np.array(["2026-01-02", "NaT"], "M8[ns]"), "wide": np.array([1], "g")}, "key.value.h5"),
        ({"m": np.ma.masked_greater(np.arange(4.0), 2)}, "key.value.h5"),
        (np.ma.masked_array([1, 2], mask=[True, False], fill_value=7), "key.value.h5"),
        (np.void(b"abc"), "key.value.h5"),
    ],
    ids=shown,
)
def test_format_is_that_of_the_value(there_and_back, value, name):
    back, found = there_and_back(value)

    assert found == name
    assert is_same(back, value)


def test_order_of_an_array_in_memory_is_kept(there_and_back):
    value = {"c": np.zeros((2, 3)), "f": np.asfortranarray(np.arange(6).reshape(2, 3))}

    back, _ = there_and_back(value)

    assert back["c"].flags.c_contiguous
    assert back["f"].flags.f_contiguous
    assert np.array_equal(back["f"], value["f"])


def test_hdf5_file_shows_its_arrays_to_other_programs(tmp_path):
    save({"run": {"x": np.arange(3.0)}, "note": "warm"}, str(tmp_path / "key"))

    with h5py.File(tmp_path / "key.value.h5") as file:
        assert list(file["arrays/run/x"]) == [0.0, 1.0, 2.0]
        assert json.loads(file["__document__"][()].tobytes())["note"] == "warm"


def test_json_file_is_json(tmp_path):
    save({"a": [1, float("nan")]}, str(tmp_path / "key"))

    text = (tmp_path / "key.value.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["a"][0] == 1


@pytest.mark.parametrize("value", [Mesh(3), np.array([None])], ids=type)
def test_other_value_is_refused_and_names_register_codec(tmp_path, value):
    with pytest.raises(TypeError, match="register_codec"):
        save(value, str(tmp_path / "key"))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "way"),
    [
        (object(), "a plain value, or a dict"),
        (iter([]), r"list\(\.\.\.\)"),
        ((n for n in "ab"), r"list\(\.\.\.\)"),
        (io.BytesIO(), "can be read once only"),
    ],
    ids=["object", "iterator", "generator", "file"],
)
def test_value_of_a_type_that_nobody_can_register_says_what_to_return(tmp_path, value, way):
    with pytest.raises(TypeError, match=way) as caught:
        save(value, str(tmp_path / "key"))

    assert "register_codec" not in str(caught.value)


# pandas

FRAMES = {
    "numbers": pd.DataFrame({"n": [1, 2], "x": [0.5, np.nan]}),
    "index": pd.DataFrame({"x": [1.0]}, index=pd.Index(["a"], name="name")),
    "times": pd.DataFrame({"x": [1, 2]}, index=pd.date_range("2026-01-01", periods=2, tz="UTC")),
    "levels": pd.DataFrame(
        {"x": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["k", "n"])
    ),
    "categories": pd.DataFrame(
        {"c": pd.Categorical(["lo", "hi"], categories=["lo", "mid", "hi"], ordered=True)}
    ),
    "nullable": pd.DataFrame(
        {"n": pd.array([1, None], dtype="Int64"), "s": pd.array(["a", None], dtype="string")}
    ),
    "empty": pd.DataFrame({"n": pd.Series([], dtype="int32")}),
    "small": pd.DataFrame({"x": np.array([1.5], "f4"), "b": [True], "u": np.array([3], "u2")}),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_frame_comes_back_equal(there_and_back, frame):
    back, name = there_and_back(frame)

    assert name == "key.parquet"
    pd.testing.assert_frame_equal(back, frame, check_exact=True, check_freq=False)


@pytest.mark.parametrize("name", ["rate", None])
def test_series_comes_back_as_a_series(there_and_back, name):
    series = pd.Series([1.5, 2.5], index=["a", "b"], name=name)

    back, file = there_and_back(series)

    assert file == "key.series.parquet"
    pd.testing.assert_series_equal(back, series, check_exact=True)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"mixed": [1, "a"]}),
        pd.DataFrame({"o": [{1, 2}]}),
        pd.Series([1, "a"]),
        xarray.Dataset({"c": ("x", np.array([1, "a"], object))}, attrs={"o": {"a": 1}}),
    ],
    ids=["mixed", "sets", "series", "dataset"],
)
def test_value_that_its_file_format_would_change_is_a_document_instead(there_and_back, frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back, name = there_and_back(frame)

    assert name.startswith("key.value.")
    assert frame.equals(back)


def test_subclass_of_a_frame_is_refused(tmp_path):
    class Special(pd.DataFrame):
        pass

    with pytest.raises(TypeError, match="Special"):
        save(Special({"x": [1]}), str(tmp_path / "key"))


# xarray


def field(**attrs):
    return xarray.DataArray(
        np.arange(6.0).reshape(2, 3),
        dims=("x", "t"),
        coords={"x": [10, 20], "t": [0.0, 0.5, 1.0]},
        name="height",
        attrs=attrs,
    )


def times(dtype):
    """Three times, in the unit that this release of pandas has for them, unless told otherwise."""
    values = pd.date_range("2026-01-01", periods=3, freq="h").to_numpy()
    return values if dtype is None else values.astype(dtype)


def timed(dtype):
    return field().assign_coords(t=times(dtype))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (field(units="m"), "key.dataarray.nc"),
        (field().rename(None), "key.dataarray.nc"),
        (xarray.Dataset({"height": field(), "n": ("x", np.array([1, 2], "i4"))}, attrs={"run": 3}), "key.nc"),
        (xarray.Dataset({"height": field()}), "key.nc"),
        (timed("M8[ns]"), "key.dataarray.nc"),
        (timed(None), "key.dataarray.nc"),
        (xarray.Dataset({"height": timed(None), "at": ("t", times(None))}, attrs={"run": 3}), "key.nc"),
        (xarray.DataArray(times(None), dims="t"), "key.dataarray.nc"),
        (xarray.Dataset({"b": ("k", [True, False])}, coords={"k": ["a", "bb"]}), "key.nc"),
    ],
    ids=[
        "array",
        "nameless",
        "dataset",
        "dataset of one",
        "ns",
        "times",
        "dataset of times",
        "only times",
        "text",
    ],
)
def test_xarray_object_comes_back_identical(there_and_back, value, name):
    back, found = there_and_back(value)

    assert found == name
    xarray.testing.assert_identical(back, value)
    assert {name: back[name].dtype for name in back.coords} == {n: value[n].dtype for n in value.coords}
    assert getattr(back, "dtype", None) == getattr(value, "dtype", None)


def test_classic_netcdf_is_left_to_xarray(tmp_path):
    """Whose file has another beginning, and which h5netcdf does not read."""
    path = tmp_path / "classic.nc"
    path.write_bytes(b"CDF\x01" + bytes(28))

    assert labelled._engine(str(path), is_whole=True) is None


@pytest.mark.parametrize(
    ("value", "extra"), [("pandas.DataFrame({'x': [1]})", "frames"), ("xarray.Dataset()", "xarray")]
)
def test_value_whose_writer_is_not_installed_says_how_to_get_it(tmp_path, value, extra):
    missing = {"frames": "pyarrow", "xarray": "h5netcdf"}[extra]
    package = value.partition(".")[0]
    script = (
        f"import sys, {package}; sys.modules[{missing!r}] = None\n"
        f"from entropic.values.codecs import save\nsave({value}, {str(tmp_path / 'key')!r})"
    )

    done = run_text(script, tmp_path)

    assert f"pip install 'entropic[{extra}]'" in done.stderr.splitlines()[-1]


# Types of the user's


def test_registered_type_comes_back_through_its_functions(there_and_back):
    register_codec(Mesh, ".mesh", save=write_mesh, load=read_mesh)

    back, name = there_and_back(Mesh(7))

    assert (type(back), back.cells, name) == (Mesh, 7, "key.mesh")


def test_registered_type_stands_for_its_subclasses_but_for_those_registered_themselves(there_and_back):
    class Fine(Mesh):
        pass

    class Finer(Fine):
        pass

    register_codec(Mesh, ".mesh", save=write_mesh, load=read_mesh)
    register_codec(Finer, ".finer", save=write_mesh, load=lambda path: Finer(read_mesh(path).cells))

    assert there_and_back(Fine(1))[1] == "key.mesh"
    assert type(there_and_back(Finer(1))[0]) is Finer


def test_arrays_may_be_written_in_another_format_and_old_ones_stay_readable(there_and_back, tmp_path):
    np.save(tmp_path / "old.npy", np.arange(2))
    old = load(str(tmp_path / "old.npy"))
    register_codec(
        np.ndarray,
        ".packed",
        save=lambda array, path: Path(path).write_bytes(array.astype("u1").tobytes()),
        load=lambda path: np.frombuffer(Path(path).read_bytes(), "u1"),
    )

    back, name = there_and_back(np.arange(3, dtype="u1"))

    assert name == "key.packed"
    assert back.tolist() == [0, 1, 2]
    assert old.tolist() == [0, 1]


def test_type_of_the_same_name_takes_the_place_of_the_former():
    """As when the cell of a notebook that defines and registers it runs again."""

    def define():
        class Cell:
            pass

        register_codec(Cell, ".cell", save=write_mesh, load=read_mesh)
        return Cell

    first, second = define(), define()

    assert [codec.types for codec in registered_codecs()] == [(second,)]
    assert first is not second


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ((dict, ".x"), ValueError, "dict"),
        ((float, ".x"), ValueError, "float"),
        (("Mesh", ".x"), TypeError, "'Mesh'"),
        ((Mesh, "x"), ValueError, "'x'"),
        ((Mesh, "."), ValueError, "'.'"),
        ((Mesh, Path), TypeError, "a suffix is a text, such as '.vtk', not <class 'pathlib.Path'>"),
        ((Mesh, ".npy"), ValueError, "'.npy'"),
        ((Mesh, ".H5"), ValueError, "'.H5'"),
        ((Mesh, ".value.json"), ValueError, "'.value.json'"),
    ],
)
def test_codec_that_could_not_be_told_apart_is_refused(arguments, error, named):
    with pytest.raises(error, match=named.replace(".", r"\.")):
        register_codec(*arguments, save=write_mesh, load=read_mesh)


def test_suffix_of_another_type_is_refused():
    register_codec(Mesh, ".mesh", save=write_mesh, load=read_mesh)

    with pytest.raises(ValueError, match=r"'\.mesh' is the suffix of tests\.support\.values\.Mesh"):
        register_codec(Point, ".mesh", save=write_mesh, load=read_mesh)


@pytest.mark.parametrize("which", ["save", "load"])
def test_codec_without_a_function_is_refused(which):
    functions = {"save": write_mesh, "load": read_mesh, which: "no function"}

    with pytest.raises(TypeError, match=f"{which}= for tests.support.values.Mesh"):
        register_codec(Mesh, ".mesh", **functions)


def test_codecs_travel(there_and_back, monkeypatch):
    register_codec(Mesh, ".mesh", save=write_mesh, load=read_mesh)
    sent = registered_codecs()
    monkeypatch.setattr(codecs, "_known", codecs.FORMATS)

    adopt(sent)
    adopt(sent)

    assert there_and_back(Mesh(2))[0].cells == 2


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (int, True),
        (dict, True),
        (Mapping, True),
        (object, True),
        (np.ndarray, True),
        (np.float32, True),
        (np.floating, True),
        (pd.DataFrame, True),
        (xarray.Dataset, True),
        (Mesh, False),
        (Point, True),
    ],
)
def test_can_save_says_what_is_hopeless(type_, expected):
    assert can_save(type_) is expected


def test_suffix_of_a_loader_that_was_registered_may_be_a_codecs(there_and_back):
    register_loader(".mesh", Path.read_text)
    register_codec(Mesh, ".mesh", save=write_mesh, load=read_mesh)

    assert there_and_back(Mesh(4))[0].cells == 4


def test_file_of_a_type_that_is_written_in_another_format_now_stays_readable(there_and_back, tmp_path):
    register_codec(Mesh, ".mesh", save=write_mesh, load=read_mesh)
    save(Mesh(5), str(tmp_path / "old"))
    register_codec(Mesh, ".grid", save=write_mesh, load=read_mesh)
    old = load(str(tmp_path / "old.mesh"))

    assert old.cells == 5
    assert there_and_back(Mesh(6))[1] == "key.grid"
    assert [codec.suffix for codec in registered_codecs()] == [".grid"]


def test_loader_that_was_registered_after_a_codec_stays_when_the_codec_travels_back(tmp_path):
    register_codec(Mesh, ".mesh", save=write_mesh, load=read_mesh)
    sent = registered_codecs()
    register_loader(".mesh", lambda path: "as the loader reads it")
    save(Mesh(1), str(tmp_path / "key"))

    adopt(sent)

    assert load(str(tmp_path / "key.mesh")) == "as the loader reads it"
    assert registered_codecs() == sent


def test_suffix_that_was_registered_is_opened_by_the_part_that_entropic_knows(tmp_path):
    register_loader(".fine.csv", lambda path: "fine")
    (tmp_path / "x.fine.csv").write_text("n\n1\n")

    with codecs.open_file(str(tmp_path / "x.fine.csv")) as file:
        assert file.read() == "n\n1\n"
