"""What the compiler makes of our sources: programs, and the maps that they share.

It belongs to no process: a program names a map by its place in the unit, and the loader puts in the
descriptor that the map has here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

_INSTRUCTION: Final = struct.Struct("<BBhi")  # struct bpf_insn (include/uapi/linux/bpf.h)
_LD_IMM64: Final = 0x18
_PSEUDO_MAP_FD: Final = 1


class MapDefinition(NamedTuple):
    """A map as bpf(2) makes it, and the C types of its keys and values, in JSON as BCC describes them."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key_type: str
    value_type: str


class Code(NamedTuple):
    """A program's instructions, and where among them a map is meant: (offset of the instruction, map)."""

    instructions: bytes
    references: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, instructions: bytes, maps: Mapping[int, int]) -> Code:
        """From a program in which maps stand by the descriptors that they had: descriptor -> map."""
        references = []
        position = 0
        while position < len(instructions):
            opcode, registers, _, value = _INSTRUCTION.unpack_from(instructions, position)
            if opcode == _LD_IMM64 and registers >> 4 == _PSEUDO_MAP_FD:
                references.append((position, maps[value]))
            position += _INSTRUCTION.size * (2 if opcode == _LD_IMM64 else 1)
        return cls(instructions, tuple(references))

    def with_maps(self, fds: list[int]) -> bytes:
        """The instructions for a process that has the maps under these descriptors."""
        code = bytearray(self.instructions)
        for position, number in self.references:
            struct.pack_into("<i", code, position + 4, fds[number])
        return bytes(code)


@dataclass(frozen=True)
class Unit:
    """One compilation unit: its maps, and its programs by name."""

    maps: tuple[MapDefinition, ...]
    programs: Mapping[str, Code]

    def encode(self) -> bytes:
        """As `decode` takes it."""
        programs = {name: [code.instructions.hex(), code.references] for name, code in self.programs.items()}
        return json.dumps({"maps": self.maps, "programs": programs}).encode()

    @classmethod
    def decode(cls, document: bytes) -> Unit:
        """Raises ValueError, KeyError or TypeError for what is no such document."""
        read = json.loads(document)
        programs = {
            name: Code(bytes.fromhex(code), tuple((int(at), int(number)) for at, number in references))
            for name, (code, references) in read["programs"].items()
        }
        return cls(tuple(MapDefinition(*one) for one in read["maps"]), programs)
