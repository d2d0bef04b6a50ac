"""Protobuf messages put together by hand, from the numbers in a .proto file."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Return an integer as it is on the wire."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, value: str | bytes | int) -> bytes:
    """Return a field as it is on the wire: a text, a message or a map's entry, or an integer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(key: str, value: str) -> bytes:
    """Return an entry of a map of texts."""
    return field(1, key) + field(2, value)


def first_text(message: bytes) -> str:
    """Return the text of field 1, which begins the message and has at most 127 bytes."""
    assert message[0] == 1 << 3 | 2 and message[1] < 0x80
    return message[2 : 2 + message[1]].decode()
