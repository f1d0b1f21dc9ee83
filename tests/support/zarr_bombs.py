"""Small folders of zarr whose chunks would be huge in memory, whatever their arrays claim to be."""

import json
import struct
import zlib
from pathlib import Path

ZEROS = bytes(1 << 25)  # of which a few dozens are more than may be allocated
TIMES = 64


def zarr_packed_by_bz2(path: Path) -> None:
    import bz2

    second(path, bz2.compress(ZEROS) * TIMES, {"id": "bz2", "level": 9})


def zarr_packed_by_lzma(path: Path) -> None:
    import lzma

    second(path, lzma.compress(ZEROS) * TIMES, {"id": "lzma", "format": 1, "check": -1, "preset": 1})


def zarr_packed_by_lzma_with_a_large_dictionary(path: Path) -> None:
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}]
    octets = lzma.compress(bytes(80), lzma.FORMAT_RAW, filters=filters)
    filters[0]["dict_size"] = 3 << 29
    second(path, octets, {"id": "lzma", "format": lzma.FORMAT_RAW, "check": -1, "filters": filters})


def zarr_packed_by_gzip(path: Path) -> None:
    import gzip

    second(path, gzip.compress(ZEROS) * TIMES, {"id": "gzip", "level": 1})


def zarr_packed_by_zlib(path: Path) -> None:
    stream = zlib.compressobj()
    first, again = (stream.compress(ZEROS) + stream.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    second(path, first + again * TIMES, {"id": "zlib", "level": 1})


def zarr_packed_by_zstd(path: Path) -> None:
    import numcodecs

    second(path, bytes(numcodecs.get_codec({"id": "zstd"}).encode(ZEROS)) * TIMES, {"id": "zstd", "level": 1})


def zarr_packed_by_zstd_that_says_no_size(path: Path) -> None:
    repeated = ((1 << 17) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (1).to_bytes(3, "little")
    frame = b"\x28\xb5\x2f\xfd" + b"\x00\x38" + repeated * (1 << 14) + last
    second(path, frame, {"id": "zstd", "level": 1})


def zarr_packed_by_lz4(path: Path) -> None:
    second(path, struct.pack("<i", (1 << 31) - 1) + bytes(80), {"id": "lz4", "acceleration": 1})


def zarr_packed_by_blosc(path: Path) -> None:
    import numcodecs

    octets = bytearray(numcodecs.get_codec({"id": "blosc"}).encode(bytes(80)))
    octets[4:8] = struct.pack("<i", (1 << 31) - 100)
    options = {"cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    second(path, bytes(octets), {"id": "blosc", **options})


def zarr_whose_filter_is_wide(path: Path) -> None:
    wide = {"id": "astype", "encode_dtype": "<f8", "decode_dtype": "<U50000000"}
    second(path, bytes(80), None, filters=[wide])


def zarr_whose_filters_widen(path: Path) -> None:
    wider = {"id": "astype", "encode_dtype": "|i1", "decode_dtype": "<f8"}
    second(path, bytes(80), None, filters=[wider] * 9)


def zarr_of_the_second_version_whose_texts_claim_to_be_many(path: Path) -> None:
    second(path, texts(1 << 28, []), None, filters=[{"id": "vlen-utf8"}], dtype="|O")


def zarr_whose_texts_claim_to_be_many(path: Path) -> None:
    third(path, texts(1 << 28, []), [{"name": "vlen-utf8"}], data_type="string")


def zarr_whose_texts_are_packed_densely(path: Path) -> None:
    import bz2

    # Each is a text of its own that is really there, in a file of a few bytes.
    one = struct.pack("<I", len(ZEROS)) + ZEROS
    packed = bz2.compress(texts(64, []) + one) + bz2.compress(one) * 63
    second(path, packed, {"id": "bz2", "level": 9}, filters=[{"id": "vlen-utf8"}], dtype="|O", shape=[64])


def zarr_of_a_shard_packed_by_gzip(path: Path) -> None:
    import gzip

    octets = gzip.compress(ZEROS) * TIMES
    index = struct.pack("<QQ", 0, len(octets))
    within = [{"name": "bytes", "configuration": {"endian": "little"}}]
    within.append({"name": "gzip", "configuration": {"level": 1}})
    shard = {
        "chunk_shape": [10],
        "codecs": within,
        "index_codecs": [within[0], {"name": "crc32c"}],
        "index_location": "end",
    }
    shard_octets = octets + index + struct.pack("<I", crc32c(index))
    third(path, shard_octets, [{"name": "sharding_indexed", "configuration": shard}])


def crc32c(octets: bytes) -> int:
    """Return the checksum of an index."""
    from numcodecs.checksum32 import CRC32C

    return int.from_bytes(bytes(CRC32C(location="end").encode(octets))[-4:], "little")


def texts(count: int, of: list[bytes], *, lengths: list[int] | None = None) -> bytes:
    """Return a chunk that claims to have so many texts, and has those."""
    lengths = [len(one) for one in of] if lengths is None else lengths
    parts = (struct.pack("<I", length) + one for length, one in zip(lengths, of, strict=True))
    return struct.pack("<I", count) + b"".join(parts)


def second(
    path: Path,
    octets: bytes,
    compressor: dict | None,
    *,
    filters: list[dict] | None = None,
    dtype: str = "<f8",
    shape: tuple[int, ...] | list[int] = (10,),
) -> None:
    """Write an array of the second version of the format that has one chunk."""
    path.mkdir()
    described = {
        "shape": shape,
        "chunks": shape,
        "dtype": dtype,
        "compressor": compressor,
        "filters": filters,
    }
    described |= {"zarr_format": 2, "order": "C", "fill_value": None if dtype == "|O" else 0}
    (path / ".zarray").write_text(json.dumps(described))
    (path / ".".join("0" for _ in shape)).write_bytes(octets)


def third(
    path: Path,
    octets: bytes,
    codecs: list[dict],
    *,
    data_type: str = "float64",
    shape: tuple[int, ...] = (10,),
) -> None:
    """Write an array of the third version of the format that has one chunk."""
    (path / "c").mkdir(parents=True)
    described = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "" if data_type == "string" else 0,
        "codecs": codecs,
        "attributes": {},
    }
    (path / "zarr.json").write_text(json.dumps(described))
    (path / "c" / "0").write_bytes(octets)


BOMBS = {
    zarr_packed_by_bz2: ".zarr",
    zarr_packed_by_lzma: ".zarr",
    zarr_packed_by_lzma_with_a_large_dictionary: ".zarr",
    zarr_packed_by_gzip: ".zarr",
    zarr_packed_by_zlib: ".zarr",
    zarr_packed_by_zstd: ".zarr",
    zarr_packed_by_zstd_that_says_no_size: ".zarr",
    zarr_packed_by_lz4: ".zarr",
    zarr_packed_by_blosc: ".zarr",
    zarr_whose_filter_is_wide: ".zarr",
    zarr_whose_filters_widen: ".zarr",
    zarr_of_the_second_version_whose_texts_claim_to_be_many: ".zarr",
    zarr_whose_texts_claim_to_be_many: ".zarr",
    zarr_whose_texts_are_packed_densely: ".zarr",
    zarr_of_a_shard_packed_by_gzip: ".zarr",
}
"""What writes each, and its suffix."""
