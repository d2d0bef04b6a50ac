"""A compiled unit, its way to the disk and back, and its references to maps."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.bpf.object_file import Code, MapDefinition, Unit

EXIT = bytes.fromhex("9500000000000000")


def load_immediate(register: int, source: int, value: int) -> bytes:
    """BPF_LD_IMM64: one instruction in the place of two."""
    return struct.pack("<BBhi", 0x18, source << 4 | register, 0, value) + bytes(8)


def test_maps_are_found_where_a_program_names_them() -> None:
    lookalike = load_immediate(1, 0, 7)  # the number 7, no map
    code = Code.of(load_immediate(1, 1, 7) + lookalike + load_immediate(2, 1, 9) + EXIT, {7: 0, 9: 1})
    assert code.references == ((0, 0), (32, 1))
    expected = load_immediate(1, 1, 20) + lookalike + load_immediate(2, 1, 30) + EXIT
    assert code.with_maps([20, 30]) == expected


def test_the_second_half_of_an_instruction_is_none() -> None:
    halves = struct.pack("<BBhi", 0x18, 1, 0, 5) + struct.pack("<BBhi", 0x18, 0x11, 0, 5)
    assert Code.of(halves + EXIT, {}).references == ()


def test_a_map_that_is_not_of_the_unit_is_no_reference() -> None:
    with pytest.raises(KeyError):
        Code.of(load_immediate(1, 1, 7), {8: 0})


NUMBERS = st.integers(0, 2**31 - 1)
CODES = st.builds(Code, st.binary(max_size=64), st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3).map(tuple))
DEFINITIONS = st.builds(MapDefinition, st.text(), *[NUMBERS] * 5, st.text(), st.text())


@given(
    st.builds(
        Unit, st.lists(DEFINITIONS, max_size=4).map(tuple), st.dictionaries(st.text(), CODES, max_size=4)
    )
)
def test_a_unit_comes_back_as_it_was(unit: Unit) -> None:
    assert Unit.decode(unit.encode()) == unit


@given(st.binary(max_size=64) | st.sampled_from([b"{}", b"[]", b'{"maps": [[1]], "programs": {}}', b"7"]))
def test_what_is_no_unit_is_refused(document: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Unit.decode(document)
