"""Compiled BPF programs, the subprograms that they call, and the definitions of the maps that they share.

An object file is independent of any process: a program refers to a map by its index, which the loader
replaces with the map's descriptor in its own process. BCC compiles each function on its own, so a subprogram
(bpf/shared/subprograms.h) is referred to by its name, and `ObjectFile.linked` puts it behind the program.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tracer.kernel.struct_header import KERNEL_FUNCTIONS

_INSTRUCTION: Final = struct.Struct("<BBhi")  # struct bpf_insn (include/uapi/linux/bpf.h)
_WIDE: Final = struct.Struct("<BBhI4xI")  # two of them: BPF_LD_IMM64, with the halves of a number
_LD_IMM64: Final = 0x18
_PSEUDO_MAP_FD: Final = 1
_PSEUDO_FUNC: Final = 4
PSEUDO_SETTING: Final = 15
"""The kind of a 64-bit constant that stands for a setting (bpf/shared/settings.h). The kernel's own kinds
(BPF_PSEUDO_* in include/uapi/linux/bpf.h) end at 6, and it refuses this one."""

_CALL: Final = 0x85
_PSEUDO_CALL: Final = 1
_PSEUDO_KFUNC_CALL: Final = 2


SUBPROGRAMS: Final = 1 << 29
"""Added to the number of a subprogram, which programs call as if it were a helper: BCC inlines every function
that it does not make a program of. No helper has such a number, and all are below `KERNEL_FUNCTIONS`."""


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
    """A program's instructions, and its references to maps (byte offset of the instruction, map index), to
    subprograms and to settings (byte offset, name).
    """

    instructions: bytes
    references: tuple[tuple[int, int], ...]
    calls: tuple[tuple[int, str], ...] = ()
    settings: tuple[tuple[int, str], ...] = ()

    @classmethod
    def from_instructions(
        cls,
        instructions: bytes,
        maps: Mapping[int, int],
        subprograms: Sequence[str] = (),
        settings: Sequence[str] = (),
    ) -> ProgramCode:
        """Return the code for instructions that refer to maps by descriptor, and call functions of the kernel
        (`KERNEL_FUNCTIONS`) and subprograms (`SUBPROGRAMS`) as helpers. `maps`: descriptor -> map index.
        `subprograms` and `settings`: their names, by number.
        """
        references = []
        calls = []
        constants = []
        position = 0
        code = bytearray(instructions)
        while position < len(code):
            opcode, registers, _, value = _INSTRUCTION.unpack_from(code, position)
            if opcode == _LD_IMM64 and registers >> 4 == _PSEUDO_MAP_FD:
                references.append((position, maps[value]))
            elif opcode == _LD_IMM64 and registers >> 4 == _PSEUDO_FUNC:
                calls.append((position, subprograms[value]))
            elif opcode == _LD_IMM64 and registers >> 4 == PSEUDO_SETTING:
                constants.append((position, settings[value]))
            elif opcode == _CALL and value >= KERNEL_FUNCTIONS:
                function = value - KERNEL_FUNCTIONS
                _INSTRUCTION.pack_into(code, position, _CALL, _PSEUDO_KFUNC_CALL << 4, 0, function)
            elif opcode == _CALL and value >= SUBPROGRAMS:
                _INSTRUCTION.pack_into(code, position, _CALL, _PSEUDO_CALL << 4, 0, 0)
                calls.append((position, subprograms[value - SUBPROGRAMS]))
            position += _INSTRUCTION.size * (2 if opcode == _LD_IMM64 else 1)
        return cls(bytes(code), tuple(references), tuple(calls), tuple(constants))

    def is_callback(self, position: int) -> bool:
        """Return whether the reference to a subprogram at this byte offset is its address, for a helper."""
        return self.instructions[position] == _LD_IMM64

    def bound(self, fd: Callable[[int], int], settings: Mapping[str, int]) -> bytes:
        """Return the instructions with the descriptors of maps, as `fd` returns them for a map index, and
        with the values of settings.
        """
        code = bytearray(self.instructions)
        for position, number in self.references:
            struct.pack_into("<i", code, position + 4, fd(number))
        for position, name in self.settings:
            opcode, registers, offset, _ = _INSTRUCTION.unpack_from(code, position)
            _WIDE.pack_into(
                code, position, opcode, registers & 15, offset, *divmod(settings[name], 1 << 32)[::-1]
            )
        return bytes(code)


class Subprogram(NamedTuple):
    """A function in the code of a program: the number of its first instruction, and whether a helper calls it
    back. The verifier follows a callback with the state of its caller, and any other subprogram once, for all
    values of its arguments.
    """

    first: int
    is_callback: bool


class LinkedCode(NamedTuple):
    """A program with the subprograms behind it."""

    code: ProgramCode
    subprograms: tuple[Subprogram, ...]


@dataclass(frozen=True)
class ObjectFile:
    """One compilation unit: its maps, and its programs and subprograms by name."""

    maps: tuple[MapDefinition, ...]
    programs: Mapping[str, ProgramCode]

    def linked(self, name: str) -> LinkedCode:
        """Return a program with all subprograms that it calls, directly or not."""
        names = [name]
        firsts, callbacks = {name: 0}, set()
        code, references, settings = bytearray(), [], []
        for one in names:  # grows
            part, begin = self.programs[one], len(code)
            firsts[one] = begin // _INSTRUCTION.size
            code += part.instructions
            references += [(begin + position, number) for position, number in part.references]
            settings += [(begin + position, setting) for position, setting in part.settings]
            names += dict.fromkeys(called for _, called in part.calls if called not in names)
        for one in names:
            part = self.programs[one]
            for position, called in part.calls:
                at = firsts[one] * _INSTRUCTION.size + position
                distance = firsts[called] - at // _INSTRUCTION.size - 1
                struct.pack_into("<i", code, at + 4, distance)
                callbacks |= {called} if part.is_callback(position) else set()
        subprograms = tuple(Subprogram(firsts[one], one in callbacks) for one in names[1:])
        linked = ProgramCode(bytes(code), tuple(references), settings=tuple(settings))
        return LinkedCode(linked, subprograms)

    def encode(self) -> bytes:
        """Return a document that `decode` reads."""
        programs = {
            name: [code.instructions.hex(), code.references, code.calls, code.settings]
            for name, code in self.programs.items()
        }
        return json.dumps({"maps": self.maps, "programs": programs}).encode()

    @classmethod
    def decode(cls, document: bytes) -> ObjectFile:
        """Read a document of `encode`. Raises ValueError, KeyError or TypeError for any other."""
        read = json.loads(document)
        programs = {
            name: ProgramCode(
                bytes.fromhex(code),
                tuple((int(at), int(number)) for at, number in references),
                tuple((int(at), str(called)) for at, called in calls),
                tuple((int(at), str(setting)) for at, setting in settings),
            )
            for name, (code, references, calls, settings) in read["programs"].items()
        }
        return cls(tuple(MapDefinition(*one) for one in read["maps"]), programs)
