"""Compiled BPF programs and the definitions of the maps that they share.

An object file is independent of any process: a program refers to a map by its index, which the loader
replaces with the map's descriptor in its own process.
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
        """Make it from instructions that refer to maps by descriptor. `maps`: descriptor -> map index."""
        references = []
        position = 0
        while position < len(instructions):
            opcode, registers, _, value = _INSTRUCTION.unpack_from(instructions, position)
            if opcode == _LD_IMM64 and registers >> 4 == _PSEUDO_MAP_FD:
                references.append((position, maps[value]))
            position += _INSTRUCTION.size * (2 if opcode == _LD_IMM64 else 1)
        return cls(instructions, tuple(references))

    def with_maps(self, fds: list[int]) -> bytes:
        """Return the instructions with these descriptors for the maps, by map index."""
        code = bytearray(self.instructions)
        for position, number in self.references:
            struct.pack_into("<i", code, position + 4, fds[number])
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
