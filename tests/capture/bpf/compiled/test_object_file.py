"""Object files: references to maps, encoding and decoding."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.bpf.compiled.object_file import (
    SUBPROGRAMS,
    MapDefinition,
    ObjectFile,
    ProgramCode,
    Subprogram,
)
from tracer.kernel.struct_header import KERNEL_FUNCTIONS

EXIT = bytes.fromhex("9500000000000000")


def load_immediate(register: int, source: int, value: int) -> bytes:
    """Return BPF_LD_IMM64, one instruction that takes the space of two."""
    return struct.pack("<BBhi", 0x18, source << 4 | register, 0, value) + bytes(8)


def test_references_to_maps_are_found_and_replaced() -> None:
    lookalike = load_immediate(1, 0, 7)  # the number 7, no map
    code = ProgramCode.from_instructions(
        load_immediate(1, 1, 7) + lookalike + load_immediate(2, 1, 9) + EXIT, {7: 0, 9: 1}
    )
    assert code.references == ((0, 0), (32, 1))
    expected = load_immediate(1, 1, 20) + lookalike + load_immediate(2, 1, 30) + EXIT
    assert code.bound([20, 30].__getitem__, {}) == expected


def test_settings_become_constants_of_64_bits() -> None:
    other = load_immediate(3, 0, 1)
    code = ProgramCode.from_instructions(
        load_immediate(1, 15, 1) + other + load_immediate(2, 15, 0) + EXIT, {}, (), ["small", "large"]
    )
    assert code.settings == ((0, "large"), (32, "small"))
    linked = ObjectFile((), {"caller": ProgramCode(EXIT, (), ((0, "code"),)), "code": code}).linked("caller")
    large = struct.pack("<BBhIiI", 0x18, 1, 0, 0xFFFFFFFE, 0, 5)
    expected = large + other + load_immediate(2, 0, 7) + EXIT
    settings = {"small": 7, "large": 5 << 32 | 0xFFFFFFFE}
    assert code.bound([].__getitem__, settings) == expected
    assert linked.code.bound([].__getitem__, settings)[len(EXIT) :] == expected


def test_setting_without_a_value_raises() -> None:
    code = ProgramCode.from_instructions(load_immediate(1, 15, 0), {}, (), ["size"])
    with pytest.raises(KeyError):
        code.bound([].__getitem__, {})


def test_second_half_of_a_wide_instruction_is_no_reference() -> None:
    halves = struct.pack("<BBhi", 0x18, 1, 0, 5) + struct.pack("<BBhi", 0x18, 0x11, 0, 5)
    assert ProgramCode.from_instructions(halves + EXIT, {}).references == ()


def test_reference_to_an_unknown_map_raises() -> None:
    with pytest.raises(KeyError):
        ProgramCode.from_instructions(load_immediate(1, 1, 7), {8: 0})


def call(source: int, value: int) -> bytes:
    """Return BPF_JMP | BPF_CALL."""
    return struct.pack("<BBhi", 0x85, source << 4, 0, value)


def test_call_of_a_kernel_function_is_no_call_of_a_helper() -> None:
    helper, number = call(0, 113), struct.pack("<BBhi", 0x18, 1, 0, KERNEL_FUNCTIONS + 5) + bytes(8)
    code = ProgramCode.from_instructions(helper + call(0, KERNEL_FUNCTIONS + 70_000) + number + EXIT, {})
    assert code.instructions == helper + call(2, 70_000) + number + EXIT


def jump(instructions: bytes, position: int) -> int:
    """Return the byte offset of the function to which the instruction at `position` refers."""
    distance = int(struct.unpack_from("<i", instructions, position + 4)[0])
    return position + 8 * (distance + 1)


def test_subprograms_follow_the_program_once_and_are_called_where_they_are() -> None:
    names = ["inner", "turn", "unused"]
    program = ProgramCode.from_instructions(
        call(0, 5) + load_immediate(1, 1, 7) + load_immediate(2, 4, 1) + call(0, SUBPROGRAMS + 0) + EXIT,
        {7: 3},
        names,
    )
    turn = ProgramCode.from_instructions(
        call(0, 1) + call(0, SUBPROGRAMS + 0) + load_immediate(1, 1, 7) + EXIT, {7: 3}, names
    )
    parts = {
        "program": program,
        "inner": ProgramCode(EXIT, ()),
        "turn": turn,
        "unused": ProgramCode(EXIT, ()),
    }
    code, subprograms = ObjectFile((), parts).linked("program")
    turn_begins, inner_begins = len(program.instructions), len(program.instructions + turn.instructions)
    assert subprograms == (Subprogram(turn_begins // 8, True), Subprogram(inner_begins // 8, False))
    assert len(code.instructions) == inner_begins + len(EXIT)
    assert jump(code.instructions, 24) == turn_begins
    assert jump(code.instructions, 40) == jump(code.instructions, turn_begins + 8) == inner_begins
    assert code.instructions[41] >> 4 == 1  # BPF_PSEUDO_CALL
    assert code.references == ((8, 3), (turn_begins + 16, 3))


def test_program_without_subprograms_is_linked_as_it_is() -> None:
    code = ProgramCode.from_instructions(load_immediate(1, 1, 7) + EXIT, {7: 3})
    assert ObjectFile((), {"program": code}).linked("program") == (code, ())


NUMBERS = st.integers(0, 2**31 - 1)
CODES = st.builds(
    ProgramCode,
    st.binary(max_size=64),
    st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3).map(tuple),
    *[st.lists(st.tuples(NUMBERS, st.text()), max_size=3).map(tuple)] * 2,
)
DEFINITIONS = st.builds(MapDefinition, st.text(), *[NUMBERS] * 5, st.text(), st.text())


@given(
    st.builds(
        ObjectFile,
        st.lists(DEFINITIONS, max_size=4).map(tuple),
        st.dictionaries(st.text(), CODES, max_size=4),
    )
)
def test_object_file_survives_encode_and_decode(object_file: ObjectFile) -> None:
    assert ObjectFile.decode(object_file.encode()) == object_file


@given(st.binary(max_size=64) | st.sampled_from([b"{}", b"[]", b'{"maps": [[1]], "programs": {}}', b"7"]))
def test_decode_of_another_document_raises(document: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        ObjectFile.decode(document)
