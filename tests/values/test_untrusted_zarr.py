"""Honest arrays of zarr are read whatever packs them, and chunks that claim what they have not are refused."""

import json

import numcodecs
import numpy as np
import pytest
import zarr

from entropic import DecodeError
from entropic.values import untrusted
from entropic.values.codecs import load, open_file
from entropic.values.untrusted import Budget
from entropic.values.untrusted_chunks import TEXTS, chunk_steps
from tests.support import zarr_bombs

pytestmark = [
    # Earlier releases call texts no part of the format yet; numcodecs' own are none of the third version's.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:numcodecs"),
]

PACKING = ["blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"]
CHECKSUMS = ["adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3"]
CONVERTING = {
    "astype": {"encode_dtype": "<f4", "decode_dtype": "<f8"},
    "bitround": {"keepbits": 10},
    "delta": {"dtype": "<f8"},
    "fixedscaleoffset": {"offset": 0, "scale": 2, "dtype": "<f8", "astype": "<i2"},
    "quantize": {"digits": 2, "dtype": "<f8"},
    "shuffle": {"elementsize": 8},
}
VALUES = np.arange(11 * 7, dtype="<f8").reshape(11, 7)


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """Grant no more than the file's size calls for, but for a little."""
    monkeypatch.setattr(untrusted, "_FREE_BYTES", 1 << 20)


def options(name):
    return CONVERTING.get(name, {"initval": 0} if name == "jenkins_lookup3" else {})


def second(path, values, *, codecs, compressor=None):
    """Write an array of the second version of the format, in chunks of 4 x 3 values."""
    filters = [numcodecs.get_codec({"id": name, **options(name)}) for name in codecs]
    compressor = compressor and numcodecs.get_codec({"id": compressor})
    shape = {"shape": values.shape, "chunks": (4, 3)[: values.ndim], "dtype": values.dtype, "zarr_format": 2}
    array = zarr.create_array(str(path), **shape, filters=filters or None, compressors=compressor)
    array[...] = values


def third(path, values, codecs):
    """Write an array of the third version of the format, in chunks of 4 x 3 values."""
    zarr.create_array(str(path), shape=values.shape, chunks=(4, 3), dtype=values.dtype, compressors=None)
    for codec in codecs:
        try:
            zarr.registry.get_codec_class(codec["name"])
        except KeyError:
            pytest.skip("this release of zarr does not know the codec")
    described = json.loads((path / "zarr.json").read_text())
    described["codecs"] = codecs
    (path / "zarr.json").write_text(json.dumps(described))
    zarr.open_array(str(path), mode="r+")[...] = values


def same_as_zarr(path):
    expected = zarr.open(str(path), mode="r")[...]
    found = load(str(path))
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(found, expected)
    return np.asarray(found)


@pytest.mark.parametrize("name", [*PACKING, None])
def test_array_of_the_second_version_is_read(tmp_path, name):
    second(tmp_path / "result.zarr", VALUES, codecs=["delta"], compressor=name)

    np.testing.assert_array_equal(same_as_zarr(tmp_path / "result.zarr"), VALUES)


@pytest.mark.parametrize("name", [*PACKING, *CHECKSUMS, *CONVERTING, "base64"])
def test_array_with_a_filter_is_read(tmp_path, name):
    second(tmp_path / "result.zarr", VALUES, codecs=[name], compressor=None if name in PACKING else "zstd")

    same_as_zarr(tmp_path / "result.zarr")


BLOSC = {"typesize": 8, "cname": "zstd", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}


@pytest.mark.parametrize(
    "packing",
    [
        *({"name": f"numcodecs.{name}", "configuration": options(name)} for name in PACKING),
        *({"name": f"numcodecs.{name}", "configuration": options(name)} for name in [*CHECKSUMS, "shuffle"]),
        {"name": "gzip", "configuration": {"level": 1}},
        {"name": "zstd", "configuration": {"level": 0, "checksum": True}},
        {"name": "blosc", "configuration": BLOSC},
        {"name": "crc32c"},
    ],
    ids=lambda one: one["name"],
)
def test_array_of_the_third_version_is_read(tmp_path, packing):
    third(tmp_path / "result.zarr", VALUES, [{"name": "bytes", "configuration": {"endian": "big"}}, packing])

    np.testing.assert_array_equal(same_as_zarr(tmp_path / "result.zarr"), VALUES)


@pytest.mark.parametrize("name", sorted(CONVERTING.keys() - {"shuffle"}))
def test_array_of_the_third_version_with_a_filter_is_read(tmp_path, name):
    codecs = [
        {"name": "transpose", "configuration": {"order": [1, 0]}},
        {"name": f"numcodecs.{name}", "configuration": options(name)},
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "gzip", "configuration": {"level": 1}},
        {"name": "crc32c"},
    ]
    third(tmp_path / "result.zarr", VALUES, codecs)

    same_as_zarr(tmp_path / "result.zarr")


def test_array_of_bits_is_read(tmp_path):
    bits = VALUES % 3 == 0
    second(tmp_path / "result.zarr", bits, codecs=["packbits"], compressor="zlib")

    np.testing.assert_array_equal(same_as_zarr(tmp_path / "result.zarr"), bits)


def test_array_of_categories_is_read(tmp_path):
    texts = np.array(["a", "bcd", "a", "", "bcd"], "<U3")
    codec = numcodecs.Categorize(labels=["a", "bcd"], dtype="<U3")
    made = {"shape": (5,), "chunks": (2,), "dtype": "<U3", "zarr_format": 2, "filters": [codec]}
    zarr.create_array(str(tmp_path / "result.zarr"), **made)[...] = texts

    np.testing.assert_array_equal(same_as_zarr(tmp_path / "result.zarr"), texts)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("packed", [True, False])
def test_texts_are_read(tmp_path, version, packed):
    texts = np.array([f"text {'é' * n}" for n in range(60)], object)
    packing = {} if packed else {"compressors": None}
    made = {"shape": (60,), "chunks": (7,), "dtype": "str", "zarr_format": version, **packing}
    zarr.create_array(str(tmp_path / "result.zarr"), **made)[...] = texts

    assert same_as_zarr(tmp_path / "result.zarr").tolist() == texts.tolist()


@pytest.mark.parametrize("shape", [(60,), ()])
def test_texts_in_shards_are_read(tmp_path, shape):
    texts = np.array([f"text {n}" for n in range(int(np.prod(shape)))], object).reshape(shape)
    shards = {"shards": (21,), "chunks": (7,)} if shape else {}
    zarr.create_array(str(tmp_path / "result.zarr"), shape=shape, **shards, dtype="str")[...] = texts

    assert same_as_zarr(tmp_path / "result.zarr").tolist() == texts.tolist()


def test_octets_are_read(tmp_path):
    octets = np.array([b"x" * n for n in range(20)], object)
    made = {"shape": (20,), "chunks": (7,), "dtype": "bytes", "zarr_format": 3}
    zarr.create_array(str(tmp_path / "result.zarr"), **made)[...] = octets

    assert same_as_zarr(tmp_path / "result.zarr").tolist() == octets.tolist()


def frames(octets, size):
    """Return what zstd packs, as a writer does that does not know the size and flushes often."""
    pa = pytest.importorskip("pyarrow")
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        for start in range(0, len(octets), size):
            stream.write(octets[start : start + size])
            stream.flush()
    packed = sink.getvalue().to_pybytes()
    try:
        numcodecs.get_codec({"id": "zstd"}).decode(packed)
    except RuntimeError:
        pytest.skip("this release of numcodecs does not read it")
    return packed


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_zstd_that_says_no_size_is_read(tmp_path, size):
    values = np.random.default_rng(0).integers(0, 9, 50_000).astype("<f8")
    packed = frames(values.tobytes(), size)
    zarr_bombs.second(tmp_path / "result.zarr", packed, {"id": "zstd", "level": 1}, shape=values.shape)

    np.testing.assert_array_equal(load(str(tmp_path / "result.zarr")), values)


def test_texts_in_zstd_that_says_no_size_are_read(tmp_path):
    of = [f"text {n}".encode() for n in range(1000)]
    packed = frames(zarr_bombs.texts(1000, of), 1 << 20)
    codecs = [{"name": "vlen-utf8"}, {"name": "zstd", "configuration": {"level": 0, "checksum": False}}]
    zarr_bombs.third(tmp_path / "result.zarr", packed, codecs, data_type="string", shape=(1000,))

    assert [text.encode() for text in load(str(tmp_path / "result.zarr"))] == of


@pytest.mark.parametrize("packed", ["gzip", "bz2", "lzma", "zlib"])
def test_streams_one_after_another_are_read(tmp_path, packed):
    codec = numcodecs.get_codec({"id": packed})
    octets = VALUES.tobytes()
    parts = [octets] if packed == "zlib" else [octets[:100], octets[100:]]
    chunk = b"".join(bytes(codec.encode(part)) for part in parts)
    zarr_bombs.second(tmp_path / "result.zarr", chunk, codec.get_config(), shape=VALUES.shape)

    np.testing.assert_array_equal(load(str(tmp_path / "result.zarr")), VALUES)


VLEN = {"id": "vlen-utf8"}
LIES = {
    "fewer": zarr_bombs.texts(1, [b"x"]),
    "more": zarr_bombs.texts(3, [b"x", b"y", b"z"]),
    "longer": zarr_bombs.texts(2, [b"x", b"yz"], lengths=[1, 3]),
    "longest": zarr_bombs.texts(2, [b"x", b"yz"], lengths=[(1 << 32) - 1, 2]),
    "torn": zarr_bombs.texts(2, [b"x"]),
    "empty": b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_texts_whose_header_lies_are_refused(tmp_path, lie):
    zarr_bombs.second(tmp_path / "2.zarr", LIES[lie], None, filters=[VLEN], dtype="|O", shape=(2,))
    zarr_bombs.third(tmp_path / "3.zarr", LIES[lie], [{"name": VLEN["id"]}], data_type="string", shape=(2,))

    for name in ("2.zarr", "3.zarr"):
        with pytest.raises(DecodeError, match=r"texts, where its shape makes 2|longer than what is there"):
            load(str(tmp_path / name))


@pytest.mark.parametrize("name", ["vlen-array", "vlen-bytes", "vlen-utf8"])
def test_what_is_of_any_length_is_told_from_lies(name):
    codec = numcodecs.get_codec({"id": name, **({"dtype": "u1"} if name == "vlen-array" else {})})
    values = np.empty(2, object)
    values[:] = {
        "vlen-array": [np.arange(2), np.arange(3)],
        "vlen-bytes": [b"x", b""],
        "vlen-utf8": ["x", "é"],
    }[name]
    (step,) = chunk_steps([(name, codec.get_config())], 2, None, "x", Budget("result.zarr", 100))
    honest = bytes(codec.encode(values))
    left = step.budget.left

    step.require(honest)

    assert left - step.budget.left == len(honest) - 4 - 2 * 4
    for lie in LIES.values():
        with pytest.raises(DecodeError):
            step.require(lie)


def test_texts_together_are_no_more_than_the_budget():
    (step,) = chunk_steps([("vlen-bytes", {})], 1, None, "x", Budget("result.zarr", 100))
    chunk = zarr_bombs.texts(1, [bytes(1 << 19)])
    step.require(chunk)
    step.require(chunk)

    with pytest.raises(DecodeError, match="claims to hold more than its bytes can"):
        step.require(chunk)


UNBOUNDED = [
    [("json2", {})],
    [("msgpack2", {})],
    [("pickle", {})],
    [("vlen-utf8", {}), ("astype", {"encode_dtype": "<f8", "decode_dtype": "<U99"})],
    [("transpose", {}), ("bytes", {})],
]
UNBOUNDED_NUMBERS = [
    [("numcodecs.zfpy", {})],
    [("numcodecs.pcodec", {})],
    [("bytes", {}), ("a codec of somebody's own", {})],
    [("zstd", {}), ("packbits", {})],
    [("json2", {})],
    [("vlen-bytes", {})],
]


@pytest.mark.parametrize(
    ("codecs", "size"), [*((one, None) for one in UNBOUNDED), *((one, 80) for one in UNBOUNDED_NUMBERS)]
)
def test_codec_of_which_nobody_can_tell_what_it_unpacks_to_is_refused(codecs, size):
    with pytest.raises(DecodeError, match=r"nobody can tell beforehand.*record\.open\(\)"):
        chunk_steps(codecs, 10, size, "x", Budget("result.zarr", 100))


def test_every_codec_of_numcodecs_is_bounded_or_refused():
    refused = {"json2", "msgpack2", "pickle", "pcodec", "zfpy"}
    bounded = {*PACKING, *CHECKSUMS, *CONVERTING, *TEXTS, "base64", "categorize", "packbits"}

    assert set(numcodecs.registry.codec_registry) - refused <= bounded


class Own(numcodecs.abc.Codec):
    """A codec that somebody has registered."""

    codec_id = "own"

    def encode(self, buf):
        return buf

    def decode(self, buf, out=None):
        return buf


def test_array_packed_by_a_codec_of_ones_own_is_opened(tmp_path, monkeypatch):
    monkeypatch.setitem(numcodecs.registry.codec_registry, "own", Own)
    zarr_bombs.second(tmp_path / "result.zarr", VALUES.tobytes(), {"id": "own"}, shape=VALUES.shape)

    with pytest.raises(DecodeError, match="packed by 'own'"):
        load(str(tmp_path / "result.zarr"))
    np.testing.assert_array_equal(open_file(str(tmp_path / "result.zarr"))[...], VALUES)
