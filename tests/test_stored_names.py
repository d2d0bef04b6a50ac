"""The text that stands for a name in a trace: readable, and different for different names."""

from __future__ import annotations

import itertools
import os

import pytest

from tracer.stored_names import device_numbers, stored_device, stored_name, stored_path, stored_text


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        (b"web-1", "web-1"),
        ("café".encode(), "café"),
        (b"a\xffb", r"a\xffb"),
        (rb"a\xffb", r"a\x5cxffb"),
        (rb"dev-disk-by\x2dlabel.swap", r"dev-disk-by\x2dlabel.swap"),
        (rb"back\slash", r"back\slash"),
        (rb"\x5cxff", r"\x5cx5cxff"),
        (b"\\\xff", "\\\\xff"),
        (b"\xed\xb3\xbf", r"\xed\xb3\xbf"),
    ],
)
def test_stored_name_has_each_byte(name: bytes, stored: str) -> None:
    assert stored_name(name) == stored
    assert stored_text(name.decode("utf-8", "surrogateescape")) == stored
    assert stored_path(os.fsdecode(name)) == stored


def test_stored_names_of_different_names_differ() -> None:
    pieces = (b"\\", b"x", b"f", b"5", b"c", b"\xff", b"\x5cx5c", "é".encode(), b"\xc3")
    names = {b"".join(parts) for length in range(1, 6) for parts in itertools.product(pieces, repeat=length)}
    assert len({stored_name(name) for name in names}) == len(names)


def test_stored_device_has_major_and_minor_number() -> None:
    assert device_numbers((259 << 20) + 7) == (259, 7)
    assert stored_device((259 << 20) + 7) == "259:7"
