"""Protocol Buffers' wire format, as much of it as an execution trace needs. Owns bytes; knows no message.

Source: protobuf.dev, "Encoding". A field is a varint ``number << 3 | type``; varints are type 0; strings, messages and
packed lists 2 (a length, then bytes). Zeros of plain fields are left out, as proto3 does; of a ``oneof`` they are
written, since which one is set has a meaning.
"""

from __future__ import annotations

from collections.abc import Iterable


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first. Negative numbers are taken as 64 bits."""
    value &= 0xFFFFFFFFFFFFFFFF
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def number(field: int, value: int) -> bytes:
    """An integer, enum or bool."""
    return varint(field << 3) + varint(value)


def block(field: int, data: bytes) -> bytes:
    """A string or message, already encoded."""
    return varint(field << 3 | 2) + varint(len(data)) + data


def text(field: int, value: str) -> bytes:
    """A string."""
    return block(field, value.encode())


def packed(field: int, values: Iterable[int]) -> bytes:
    """A packed list of integers; nothing where it is empty."""
    data = b"".join(varint(value) for value in values)
    return block(field, data) if data else b""


def delimited(message: bytes) -> bytes:
    """A message with its length before it, so that many can follow one another in a file."""
    return varint(len(message)) + message
