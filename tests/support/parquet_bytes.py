"""Parquet files by hand, whose footer and pages need not agree: no writer makes such.

A struct of Thrift is a dict of the numbers of its fields to pairs of a type and a value.
"""

import struct

I32, I64, TEXT, LIST, STRUCT = 5, 6, 8, 9, 12
INT64, BYTE_ARRAY = 2, 6  # types of columns
REQUIRED, REPEATED = 0, 2
PLAIN, PREFIXED, BY_NUMBER = 0, 7, 8  # encodings


def parquet(kind: int, repetition: int, pages: list[bytes], **says: int) -> bytes:
    """Return a file of one column and one row group, whose first page is a dictionary.

    Parameters
    ----------
    says : int
        What the footer says of the column: ``rows`` and ``values``.
    """
    body = b"".join(pages)
    rows, values = says["rows"], says["values"]
    schema = [
        {4: (TEXT, b"schema"), 5: (I32, 1)},
        {1: (I32, kind), 3: (I32, repetition), 4: (TEXT, b"x")},
    ]
    column = {
        1: (I32, kind),
        2: (LIST, (I32, [PLAIN])),
        3: (LIST, (TEXT, [b"x"])),
        4: (I32, 0),  # not packed
        5: (I64, values),
        6: (I64, len(body)),
        7: (I64, len(body)),
        9: (I64, 4 + len(pages[0])),
        11: (I64, 4),
    }
    chunk = {2: (I64, 4), 3: (STRUCT, column)}
    group = {1: (LIST, (STRUCT, [chunk])), 2: (I64, len(body)), 3: (I64, rows)}
    footer = thrift({1: (I32, 1), 2: (LIST, (STRUCT, schema)), 3: (I64, rows), 4: (LIST, (STRUCT, [group]))})
    return b"PAR1" + body + footer + struct.pack("<I", len(footer)) + b"PAR1"


def dictionary(content: bytes, values: int) -> bytes:
    """Return a page of a dictionary."""
    details = {1: (I32, values), 2: (I32, PLAIN)}
    size = (I32, len(content))
    return thrift({1: (I32, 2), 2: size, 3: size, 7: (STRUCT, details)}) + content


def page(content: bytes, values: int, encoding: int) -> bytes:
    """Return a page of values, with their levels."""
    details = {1: (I32, values), 2: (I32, encoding), 3: (I32, 3), 4: (I32, 3)}
    size = (I32, len(content))
    return thrift({1: (I32, 0), 2: size, 3: size, 5: (STRUCT, details)}) + content


def levels(*runs: tuple[int, int]) -> bytes:
    """Return levels of one bit: pairs of how many there are, and which."""
    content = b"".join(run(*one) for one in runs)
    return struct.pack("<I", len(content)) + content


def numbers(count: int, number: int = 0) -> bytes:
    """Return as many numbers of one entry in a dictionary."""
    return b"\x01" + run(count, number)


def run(count: int, value: int) -> bytes:
    """Return one value of at most eight bits, repeated."""
    return varint(count << 1) + bytes([value])


def text(content: bytes) -> bytes:
    """Return a text as it is."""
    return struct.pack("<I", len(content)) + content


def varint(value: int) -> bytes:
    """Return a number of any length."""
    octets = bytearray()
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    return bytes([*octets, value])


def thrift(fields: dict[int, tuple]) -> bytes:
    """Return a struct in the compact form."""
    octets = b""
    last = 0
    for number, (kind, value) in fields.items():
        octets += bytes([number - last << 4 | kind]) + _value(kind, value)
        last = number
    return octets + b"\0"


def _value(kind: int, value) -> bytes:
    if kind in {I32, I64}:
        return varint(value << 1)
    if kind == TEXT:
        return varint(len(value)) + value
    if kind == STRUCT:
        return thrift(value)
    of, items = value
    return bytes([len(items) << 4 | of]) + b"".join(_value(of, one) for one in items)
