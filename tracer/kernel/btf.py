"""BTF, the description of the running kernel's types (Documentation/bpf/btf.rst).

BTF shows how this kernel was built: the offset of a structure's member, the value of an enumerator, and
whether a tracepoint exists (each has a typedef `btf_trace_NAME`, include/trace/bpf_probe.h). No decision
depends on a version number.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Final

from tracer.errors import TracerError

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
_MODULES: Final = ("btrfs",)
"""The modules whose structures the programs read. One that is not loaded, or is a part of the kernel, has no
BTF of its own."""

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("<HBBIIIII")  # struct btf_header (include/uapi/linux/btf.h)

# Kinds (include/uapi/linux/btf.h).
INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF = 1, 2, 3, 4, 5, 6, 8
VOLATILE, CONST, RESTRICT, TYPE_TAG = 9, 10, 11, 18
FUNC, FUNC_PROTO, VAR, DATASEC, DECL_TAG, ENUM64 = 12, 13, 14, 15, 17, 19

_COMMON_WORDS: Final = 3
_FIXED_WORDS: Final = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
_WORDS_EACH: Final = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}
_MAX_DEPTH: Final = 32  # as the kernel: MAX_RESOLVE_DEPTH, kernel/bpf/btf.c
_MODIFIERS: Final = frozenset({TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG})


class BtfError(TracerError):
    """The BTF is damaged, or of an unknown form."""

    def __init__(self, how: str) -> None:
        super().__init__(f"the BTF is damaged or of an unknown form: {how}; see memcg-tracer doctor")


@dataclass(frozen=True)
class Member:
    """A member of a structure: its offset from the beginning of the structure, and the id of its type.

    A bitfield has `bits`, and begins at bit `first_bit` of the byte at its offset, counted from the lowest;
    any other member has 0 bits.
    """

    offset_bytes: int
    type_id: int
    first_bit: int = 0
    bits: int = 0

    def inside(self, outer: Member) -> Member:
        """Return this member of the structure `outer` as a member of the structure around `outer`."""
        return replace(self, offset_bytes=outer.offset_bytes + self.offset_bytes)


@dataclass(frozen=True)
class KnownTypes:
    """The parts of a kernel's BTF that a recorder needs after its programs are compiled.

    `enumerators`: name -> value of the kernel's memory counters, in the kernel's order. `functions`: name ->
    type id of the functions that may be hooked, and `tracepoints` likewise.
    """

    enumerators: Mapping[str, int]
    functions: Mapping[str, int]
    tracepoints: Mapping[str, int]

    def function(self, name: str) -> int | None:
        """Return the type id of a function; None if the kernel has no such function."""
        return self.functions.get(name)

    def tracepoint(self, name: str) -> int | None:
        """Return the type id of a tracepoint; None if the kernel has no such tracepoint."""
        return self.tracepoints.get(name)


def read_btf(path: Path) -> bytes:
    """Return the BTF in a file with that of modules beside it, not parsed; raises TracerError if there is
    none."""
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise TracerError(
            f"no BTF at {path} ({error.strerror}): the kernel must be built with CONFIG_DEBUG_INFO_BTF=y"
        ) from None
    for name in _MODULES:
        with suppress(OSError):
            blob = _joined(blob, path.with_name(name).read_bytes())
    return blob


def _joined(*blobs: bytes) -> bytes:
    """Return the BTF of a kernel and of a module as one.

    The numbers of a module's types and the offsets of its strings go on where those of the kernel end
    (btf_parse_module() in kernel/bpf/btf.c).
    """
    types, strings = (b"".join(parts) for parts in zip(*map(_sections, blobs), strict=True))
    return packed(types, strings)


def packed(types: bytes, strings: bytes) -> bytes:
    """Return a blob of BTF."""
    head = _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(types), len(types), len(strings))
    return head + types + strings


def _sections(blob: bytes) -> tuple[bytes, bytes]:
    """Return the types and the strings of a blob."""
    try:
        magic, _version, _flags, header_len, type_off, type_len, str_off, str_len = _HEADER.unpack_from(blob)
    except struct.error:
        raise BtfError("it is shorter than its header") from None
    types, strings = header_len + type_off, header_len + str_off
    if magic != _MAGIC or type_len % 4 or max(types + type_len, strings + str_len) > len(blob):
        raise BtfError("its header is not one that this tool knows")
    return blob[types : types + type_len], blob[strings : strings + str_len]


class Btf:
    """Parsed BTF. Type ids are the kernel's: 0 is void, and 1 is the first type."""

    def __init__(self, blob: bytes) -> None:
        types, self._strings = _sections(blob)
        self._words = memoryview(types).cast("I")
        try:
            self._scan()
        except IndexError:
            raise BtfError("a type is cut off, or of an unknown kind") from None

    @classmethod
    def load(cls, path: Path = VMLINUX) -> Btf:
        """Read the running kernel's BTF and that of `_MODULES`; raises TracerError if there is none."""
        return cls(read_btf(path))

    def _scan(self) -> None:
        """Record where each type starts, and the first type of each name for the kinds that are looked up by
        name.

        Records vary in length, so this walk over all types is the only slow step.
        """
        fixed = [_COMMON_WORDS + _FIXED_WORDS.get(kind, 0) for kind in range(ENUM64 + 1)]
        each = [_WORDS_EACH.get(kind, 0) for kind in range(ENUM64 + 1)]  # another kind is an IndexError
        self._starts: list[int] = []
        self._structs: dict[int, int] = {}  # offset of the name -> type id
        self._typedefs: dict[int, int] = {}
        self._functions: dict[int, int] = {}
        self._enums: list[int] = []
        named: list[dict[int, int] | None] = [None] * (ENUM64 + 1)
        named[STRUCT] = named[UNION] = self._structs
        named[TYPEDEF] = self._typedefs
        named[FUNC] = self._functions
        words, position, end = self._words, 0, len(self._words)
        append = self._starts.append
        while position < end:
            append(position)
            info = words[position + 1]
            kind = (info >> 24) & 0x1F
            if (ids := named[kind]) is not None:
                ids.setdefault(words[position], len(self._starts))
            elif kind in (ENUM, ENUM64):
                self._enums.append(position)
            position += fixed[kind] + each[kind] * (info & 0xFFFF)
        if position != end:
            raise IndexError(position)

    # Names

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if end < 0:
            raise BtfError(f"it has no string at {offset}")
        return self._strings[offset:end].decode(errors="backslashreplace")

    def _start(self, type_id: int) -> int:
        if not 0 < type_id <= len(self._starts):
            raise BtfError(f"it has no type {type_id}")
        return int(self._starts[type_id - 1])

    def _find(self, name: str, ids: dict[int, int]) -> int | None:
        """Return the id of the type of a name; BTF has each string once, at one offset."""
        offset = self._offsets.get(name.encode())
        return ids.get(offset) if offset else None

    @cached_property
    def _offsets(self) -> dict[bytes, int]:
        """Return string -> offset. A compilation looks for 250 names, and a search takes up to 0.5 ms."""
        strings = self._strings.split(b"\0")
        return dict(zip(strings, accumulate((len(one) + 1 for one in strings), initial=0), strict=False))

    def tracepoint(self, name: str) -> int | None:
        """Return the type id of a tracepoint's typedef; None if there is no such tracepoint."""
        return self._find(f"btf_trace_{name}", self._typedefs)

    def tracepoint_arguments(self, name: str) -> tuple[str, ...] | None:
        """Return what `function_arguments` does, for a tracepoint; None if there is no such tracepoint."""
        found = self.tracepoint(name)
        if found is None:
            return None
        pointer = self.resolve(found)
        prototype = self.resolve(self.target(pointer)) if self.kind(pointer) == PTR else 0
        return self._parameters(prototype)[1:]  # the first is the private data of the attached program

    def function(self, name: str) -> int | None:
        """Return the type id of a function, which may be inlined everywhere; None if there is none."""
        return self._find(name, self._functions)

    def function_arguments(self, name: str) -> tuple[str, ...] | None:
        """Return the names of the types of a function's arguments; None if there is no such function.

        A pointer has the name of the type that it points to.
        """
        found = self.function(name)
        return None if found is None else self._parameters(self.target(found))

    def _parameters(self, prototype: int) -> tuple[str, ...]:
        if self.kind(prototype) != FUNC_PROTO:
            return ()
        start = self._start(prototype)
        count = int(self._words[start + 1]) & 0xFFFF
        begin = start + _COMMON_WORDS
        types = self._words[begin + 1 : begin + 2 * count : 2].tolist()
        return tuple(self._argument(type_id) for type_id in types)

    def _argument(self, type_id: int) -> str:
        resolved = self.resolve(type_id)
        return self.name(self.resolve(self.target(resolved)) if self.kind(resolved) == PTR else resolved)

    def struct(self, name: str) -> int | None:
        """Return the type id of a structure or union, or of a typedef of one; None if there is none."""
        found = self._find(name, self._structs)
        if found is None and (alias := self._find(name, self._typedefs)) is not None:
            found = self.resolve(alias)
        return found

    @cached_property
    def enumerators(self) -> dict[str, int]:
        """Return the enumerators of all enums, anonymous ones included: name -> value."""
        values: dict[str, int] = {}
        for start in self._enums:
            info = self._words[start + 1]
            stride = _WORDS_EACH[(info >> 24) & 0x1F]
            begin = start + _COMMON_WORDS
            for position in range(begin, begin + stride * (info & 0xFFFF), stride):
                values.setdefault(self._string(self._words[position]), self._words[position + 1])
        return values

    # Types

    def kind(self, type_id: int) -> int:
        """Return the kind of a type (BTF_KIND_*); 0 for void."""
        return (int(self._words[self._start(type_id) + 1]) >> 24) & 0x1F if type_id else 0

    def name(self, type_id: int) -> str:
        """Return the name of a type; "" for a type without one."""
        return self._string(int(self._words[self._start(type_id)])) if type_id else "void"

    def target(self, type_id: int) -> int:
        """Return the id of the type behind a pointer, typedef or qualifier."""
        return int(self._words[self._start(type_id) + 2])

    def resolve(self, type_id: int) -> int:
        """Return the id of the type behind typedefs and qualifiers."""
        for _ in range(_MAX_DEPTH):
            if self.kind(type_id) not in _MODIFIERS:
                return type_id
            type_id = self.target(type_id)
        raise BtfError(f"type {type_id} refers to itself")

    def size_bytes(self, type_id: int) -> int:
        """Return the size of a type; pointers are 8 bytes, as on every supported architecture."""
        count = 1
        for _ in range(_MAX_DEPTH):
            type_id = self.resolve(type_id)
            if self.kind(type_id) != ARRAY:
                return count * (8 if self.kind(type_id) == PTR else self.target(type_id))
            type_id, elements = self.array(type_id)
            count *= elements
        raise BtfError(f"type {type_id} contains itself")

    def is_signed(self, type_id: int) -> bool:
        """Return whether an integer type is signed."""
        return bool((int(self._words[self._start(type_id) + _COMMON_WORDS]) >> 24) & 1)

    def array(self, type_id: int) -> tuple[int, int]:
        """Return (type id of the elements, number of elements) of an array."""
        start = self._start(type_id) + _COMMON_WORDS
        return int(self._words[start]), int(self._words[start + 2])

    def members(self, type_id: int) -> list[tuple[str, Member]]:
        """Return the direct members of a structure or union in order; an anonymous member has the name ""."""
        start = self._start(type_id)
        info = int(self._words[start + 1])
        has_bitfields = info >> 31
        body = self._words[start + 3 : start + 3 + 3 * (info & 0xFFFF)].tolist()
        rows = zip(body[::3], body[1::3], body[2::3], strict=True)
        members = []
        for name, kind, offset in rows:
            bits, at = (offset >> 24, offset & 0xFFFFFF) if has_bitfields else (0, offset)
            members.append((self._string(name), Member(at // 8, kind, at % 8 if bits else 0, bits)))
        return members

    def member(self, type_id: int, name: str, depth: int = 0) -> Member | None:
        """Return a member of a structure, or of its anonymous ones; None if it has no such member."""
        if depth == _MAX_DEPTH:
            raise BtfError(f"type {type_id} contains itself")
        nested = []
        for label, found in self.members(type_id):
            if label == name:
                return found
            if not label:
                nested.append(found)
        for outer in nested:
            inner_id = self.resolve(outer.type_id)
            if self.kind(inner_id) in (STRUCT, UNION) and (inner := self.member(inner_id, name, depth + 1)):
                return inner.inside(outer)
        return None
