"""Compiled BPF programs and the definitions of the maps that they share.

An object file is independent of any process: a program refers to a map by its index, which the loader
replaces with the map's descriptor in its own process.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from tracer.kernel.struct_header import KERNEL_FUNCTIONS

_INSTRUCTION: Final = struct.Struct("<BBhi")  # struct bpf_insn (include/uapi/linux/bpf.h)
_LD_IMM64: Final = 0x18
_PSEUDO_MAP_FD: Final = 1
_CALL: Final = 0x85
_PSEUDO_KFUNC_CALL: Final = 2


class MapDefinition(NamedTuple):
    """The arguments of BPF_MAP_CREATE, and the C types of keys and values in JSON as BCC describes them."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key_type: str
    value_type: str


class ProgramCode(NamedTuple):
    """A program's instructions, and its references to maps: (byte offset of the instruction, map index)."""

    instructions: bytes
    references: tuple[tuple[int, int], ...]

    @classmethod
    def from_instructions(cls, instructions: bytes, maps: Mapping[int, int]) -> ProgramCode:
        """Return the code for instructions that refer to maps by descriptor, and call functions of the kernel
        as helpers (`KERNEL_FUNCTIONS`). `maps`: descriptor -> map index.
        """
        references = []
        position = 0
        code = bytearray(instructions)
        while position < len(code):
            opcode, registers, _, value = _INSTRUCTION.unpack_from(code, position)
            if opcode == _LD_IMM64 and registers >> 4 == _PSEUDO_MAP_FD:
                references.append((position, maps[value]))
            elif opcode == _CALL and value >= KERNEL_FUNCTIONS:
                function = value - KERNEL_FUNCTIONS
                _INSTRUCTION.pack_into(code, position, _CALL, _PSEUDO_KFUNC_CALL << 4, 0, function)
            position += _INSTRUCTION.size * (2 if opcode == _LD_IMM64 else 1)
        return cls(bytes(code), tuple(references))

    def with_maps(self, fd: Callable[[int], int]) -> bytes:
        """Return the instructions with the descriptors of maps, as `fd` returns them for a map index."""
        code = bytearray(self.instructions)
        for position, number in self.references:
            struct.pack_into("<i", code, position + 4, fd(number))
        return bytes(code)


@dataclass(frozen=True)
class ObjectFile:
    """One compilation unit: its maps, and its programs by name."""

    maps: tuple[MapDefinition, ...]
    programs: Mapping[str, ProgramCode]

    def encode(self) -> bytes:
        """Return a document that `decode` reads."""
        programs = {name: [code.instructions.hex(), code.references] for name, code in self.programs.items()}
        return json.dumps({"maps": self.maps, "programs": programs}).encode()

    @classmethod
    def decode(cls, document: bytes) -> ObjectFile:
        """Read a document of `encode`. Raises ValueError, KeyError or TypeError for any other."""
        read = json.loads(document)
        programs = {
            name: ProgramCode(bytes.fromhex(code), tuple((int(at), int(number)) for at, number in references))
            for name, (code, references) in read["programs"].items()
        }
        return cls(tuple(MapDefinition(*one) for one in read["maps"]), programs)
