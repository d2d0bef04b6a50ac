"""The types of subprograms (bpf/shared/subprograms.h), for which the verifier asks.

It follows a static function, which a callback must be, with the state of its caller, and a global function
once, for all values of its arguments (do_check_subprogs in kernel/bpf/verifier.c). One document serves all
programs: every subprogram takes two numbers, and only its kind matters.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from tracer.capture.bpf.compiled.object_file import Subprogram

_HEADER: Final = struct.Struct("<HBBIIIII")  # struct btf_header (include/uapi/linux/btf.h)
_TYPE: Final = struct.Struct("<III")  # struct btf_type
_MAGIC: Final = 0xEB9F
_INT: Final = 1
_FUNC: Final = 12
_FUNC_PROTO: Final = 13
_STATIC: Final = 0
_GLOBAL: Final = 1
_NUMBER: Final = 1  # the type ids, in the order of the document
_NO_ARGUMENTS: Final = 2
_TWO_NUMBERS: Final = 3


class FunctionType(IntEnum):
    """The type ids of the kinds of functions."""

    PROGRAM = 4
    CALLBACK = 5
    SUBPROGRAM = 6


def document() -> bytes:
    """Return the types of all kinds of functions in the format of BTF."""
    names = ["number", "first", "second", *(one.name.lower() for one in FunctionType)]
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    at = {name: strings.index(b"\0" + name.encode() + b"\0") + 1 for name in names}
    types = _TYPE.pack(at["number"], _INT << 24, 8) + struct.pack("<I", 64)
    types += _TYPE.pack(0, _FUNC_PROTO << 24, _NUMBER)
    types += _TYPE.pack(0, _FUNC_PROTO << 24 | 2, _NUMBER)
    types += struct.pack("<IIII", at["first"], _NUMBER, at["second"], _NUMBER)
    types += _TYPE.pack(at["program"], _FUNC << 24 | _GLOBAL, _NO_ARGUMENTS)
    types += _TYPE.pack(at["callback"], _FUNC << 24 | _STATIC, _TWO_NUMBERS)
    types += _TYPE.pack(at["subprogram"], _FUNC << 24 | _GLOBAL, _TWO_NUMBERS)
    header = _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(types), len(types), len(strings))
    return header + types + strings


def function_infos(subprograms: Sequence[Subprogram]) -> list[tuple[int, int]]:
    """Return the first instruction and the type id of a program and its subprograms."""
    kinds = {False: FunctionType.SUBPROGRAM, True: FunctionType.CALLBACK}
    return [(0, FunctionType.PROGRAM), *((one.first, kinds[one.is_callback]) for one in subprograms)]
