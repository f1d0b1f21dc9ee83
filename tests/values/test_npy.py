"""`entropic.values.npy`: what NumPy reads from a file, and no header parsed twice."""

from __future__ import annotations

import ast
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from entropic.errors import DecodeError
from entropic.values import npy
from entropic.values.codecs import load
from entropic.values.npy import load_npy, save_npy

DTYPES = st.one_of(
    arrays.scalar_dtypes(),
    arrays.byte_string_dtypes(),
    arrays.unicode_string_dtypes(),
    arrays.nested_dtypes(max_leaves=3),
    st.sampled_from([np.dtype("g"), np.dtype("G"), np.dtype("f2"), np.dtype(">c16")]),
)


def assert_same(found: Any, wanted: Any) -> None:
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert found.dtype.byteorder == wanted.dtype.byteorder
    assert found.tobytes("A") == wanted.tobytes("A")
    flags = ("C_CONTIGUOUS", "F_CONTIGUOUS", "WRITEABLE", "ALIGNED")
    assert [found.flags[flag] for flag in flags] == [wanted.flags[flag] for flag in flags]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    data=st.data(),
    dtype=DTYPES,
    shape=arrays.array_shapes(min_dims=0, min_side=0),
    order=st.sampled_from("CF"),
)
def test_reads_what_numpy_reads(data: Any, dtype: Any, shape: Any, order: Any, tmp_path: Path) -> None:
    array = np.asarray(data.draw(arrays.arrays(dtype, shape)), order=order)
    path = str(tmp_path / "a.npy")
    save_npy(array, path)
    assert_same(load_npy(path), np.load(path))


def test_what_is_read_is_one_s_own(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npy")
    save_npy(np.arange(5.0), path)
    first = load_npy(path)
    first += 1
    first.resize(7)
    np.testing.assert_array_equal(load_npy(path), np.arange(5.0))


def test_parses_no_header_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(tmp_path / f"{n}.npy") for n in range(4)]
    for number, path in enumerate(paths):
        save_npy(np.full(128, float(number)), path)
    npy._described.cache_clear()
    load_npy(paths[0])
    parsed: list[str] = []
    monkeypatch.setattr(ast, "literal_eval", parsed.append)
    assert [load_npy(path)[0] for path in paths] == [0.0, 1.0, 2.0, 3.0]
    assert parsed == []


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    save_npy(np.arange(4, dtype="i4"), str(path))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises((ValueError, EOFError)):
            load_npy(str(path))
    path.write_bytes(whole + b"more")
    np.testing.assert_array_equal(load_npy(str(path)), np.arange(4))


def test_a_file_that_shrinks_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npy"
    save_npy(np.arange(1000), str(path))
    described = npy._described

    def cut(header: bytes) -> Any:
        path.write_bytes(path.read_bytes()[:500])
        return described(header)

    monkeypatch.setattr(npy, "_described", cut)
    with pytest.raises(DecodeError, match="became shorter"):
        load_npy(str(path))


@pytest.mark.parametrize("kind", [b"<f8", b">i2", b"|b1"])
def test_a_claim_of_more_than_there_is_is_refused_before_there_is_room_for_it(
    kind: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.npy"
    text = b"{'descr': '%b', 'fortran_order': False, 'shape': (1099511627776,), }" % kind
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + text.ljust(117) + b"\n" + bytes(64))
    with pytest.raises(DecodeError, match=r"claims to hold.*1099511627776"):
        load(str(path))


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (9223372036854775808, 0), }",
        b"{'descr': '<f8', 'fortran_order': 1, 'shape': (1,), }",
        b"{'descr': '<f8', 'shape': (1,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"1, " * 65 + b"), }",
        b"__import__('os')",
        b"\xff" * 20,
    ],
)
def test_a_damaged_header_is_a_value_error(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    length = 118 if len(header) < 118 else 310
    path.write_bytes(
        b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + header.ljust(length - 1) + b"\n" + bytes(8)
    )
    with pytest.raises(ValueError):  # noqa: PT011  NumPy's own words
        load(str(path))


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.array([print], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_npy(str(path))


def test_a_header_of_another_length_is_numpy_s_to_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.arange(3.0), version=(2, 0))
    path = tmp_path / "a.npy"
    path.write_bytes(stream.getvalue())
    np.testing.assert_array_equal(load_npy(str(path)), np.arange(3.0))
