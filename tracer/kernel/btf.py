"""The running kernel's own description of its types: BTF (Documentation/bpf/btf.rst).

Everything that depends on how this kernel was built is asked here: where a structure's member lies, what number an
enumerator has, whether a tracepoint exists (each has a typedef `btf_trace_NAME`, include/trace/bpf_probe.h). Nothing
is decided by a version number.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tracer.errors import TracerError

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("<HBBIIIII")

# Kinds (include/uapi/linux/btf.h).
INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF = 1, 2, 3, 4, 5, 6, 8
VOLATILE, CONST, RESTRICT, TYPE_TAG = 9, 10, 11, 18
FUNC_PROTO, VAR, DATASEC, DECL_TAG, ENUM64 = 13, 14, 15, 17, 19

_COMMON_WORDS: Final = 3
_FIXED_WORDS: Final = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
_WORDS_EACH: Final = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}
_MODIFIERS: Final = frozenset({TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG})


@dataclass(frozen=True)
class Member:
    """A member of a structure: its offset in bytes from the structure's begin, and the id of its type."""

    offset_bytes: int
    type_id: int


class Btf:
    """A parsed BTF blob. Type ids are the kernel's: 0 is void, 1 the first type."""

    def __init__(self, blob: bytes) -> None:
        try:
            magic, _version, _flags, header_len, type_off, type_len, str_off, str_len = _HEADER.unpack_from(blob)
        except struct.error:
            raise TracerError("the BTF blob is too short to be one") from None
        if magic != _MAGIC or header_len + str_off + str_len > len(blob) or type_len % 4:
            raise TracerError("the kernel's BTF is not in a form that this tool knows")
        types = header_len + type_off
        self._words: npt.NDArray[np.uint32] = np.frombuffer(blob, "<u4", type_len // 4, types)
        self._strings = blob[header_len + str_off : header_len + str_off + str_len]
        self._starts = self._scan(memoryview(blob)[types : types + type_len].cast("I"))
        self._names = self._words[self._starts]
        self._kinds = (self._words[self._starts + 1] >> 24) & 0x1F

    @classmethod
    def load(cls, path: Path = VMLINUX) -> Btf:
        """Read the running kernel's BTF; `TracerError` where there is none."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise TracerError(
                f"no BTF at {path} ({error.strerror}): the kernel must be built with CONFIG_DEBUG_INFO_BTF=y"
            ) from None

    @staticmethod
    def _scan(words: memoryview[int]) -> npt.NDArray[np.int64]:
        """The word at which each type starts: records vary in length, so this walk is the one slow step."""
        fixed = [_COMMON_WORDS + _FIXED_WORDS.get(kind, 0) for kind in range(32)]
        each = [_WORDS_EACH.get(kind, 0) for kind in range(32)]
        starts, position, end = [], 0, len(words)
        append = starts.append
        while position < end:
            append(position)
            info = words[position + 1]
            kind = (info >> 24) & 0x1F
            position += fixed[kind] + each[kind] * (info & 0xFFFF)
        return np.array(starts, np.int64)

    # Names

    def _string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _find(self, name: str, kinds: tuple[int, ...]) -> int | None:
        """The id of the first type of that name and kind. BTF keeps each string once, so its offset identifies it."""
        offset = self._strings.find(b"\0" + name.encode() + b"\0") + 1
        if offset == 0:
            return None
        hits = np.flatnonzero((self._names == offset) & np.isin(self._kinds, kinds))
        return int(hits[0]) + 1 if len(hits) else None

    def has_tracepoint(self, name: str) -> bool:
        """Whether a tracepoint of that name can be attached to as a raw tracepoint."""
        return self._find(f"btf_trace_{name}", (TYPEDEF,)) is not None

    def struct(self, name: str) -> int | None:
        """The type id of `struct name` or `union name` (also by a typedef's name), None where there is none."""
        found = self._find(name, (STRUCT, UNION))
        if found is None and (alias := self._find(name, (TYPEDEF,))) is not None:
            found = self.resolve(alias)
        return found

    @cached_property
    def enumerators(self) -> dict[str, int]:
        """Every enumerator of every named or anonymous enum: name -> value."""
        values: dict[str, int] = {}
        for kind, words in ((ENUM, 2), (ENUM64, 3)):
            for start in self._starts[self._kinds == kind]:
                count = int(self._words[start + 1]) & 0xFFFF
                body = self._words[start + _COMMON_WORDS : start + _COMMON_WORDS + words * count].reshape(-1, words)
                for row in body.tolist():
                    values.setdefault(self._string(row[0]), row[1])
        return values

    # Types

    def kind(self, type_id: int) -> int:
        """The kind of a type; 0 for void."""
        return int(self._kinds[type_id - 1]) if type_id else 0

    def name(self, type_id: int) -> str:
        """The name of a type, "" for one without."""
        return self._string(int(self._names[type_id - 1])) if type_id else "void"

    def target(self, type_id: int) -> int:
        """What a pointer, typedef or qualifier refers to."""
        return int(self._words[self._starts[type_id - 1] + 2])

    def resolve(self, type_id: int) -> int:
        """The type behind typedefs and qualifiers."""
        while self.kind(type_id) in _MODIFIERS:
            type_id = self.target(type_id)
        return type_id

    def size_bytes(self, type_id: int) -> int:
        """The size of a type; pointers are 8 bytes, as on every architecture supported."""
        type_id = self.resolve(type_id)
        kind = self.kind(type_id)
        if kind == PTR:
            return 8
        if kind == ARRAY:
            element, count = self.array(type_id)
            return self.size_bytes(element) * count
        return int(self._words[self._starts[type_id - 1] + 2])

    def is_signed(self, type_id: int) -> bool:
        """Whether an integer type is signed."""
        return bool((int(self._words[self._starts[type_id - 1] + _COMMON_WORDS]) >> 24) & 1)

    def array(self, type_id: int) -> tuple[int, int]:
        """(element type id, number of elements) of an array."""
        start = self._starts[type_id - 1] + _COMMON_WORDS
        return int(self._words[start]), int(self._words[start + 2])

    def members(self, type_id: int) -> list[tuple[str, Member]]:
        """The direct members of a structure or union in order; an anonymous one has the name ""."""
        start = int(self._starts[type_id - 1])
        info = int(self._words[start + 1])
        bitfields = info >> 31
        body = self._words[start + 3 : start + 3 + 3 * (info & 0xFFFF)].reshape(-1, 3).tolist()
        mask = 0xFFFFFF if bitfields else 0xFFFFFFFF
        return [(self._string(name), Member((bits & mask) // 8, kind)) for name, kind, bits in body]

    def member(self, type_id: int, name: str) -> Member | None:
        """The member `name` of a structure, looked for in its anonymous structures and unions too."""
        nested = []
        for label, found in self.members(type_id):
            if label == name:
                return found
            if not label:
                nested.append(found)
        for outer in nested:
            inner_id = self.resolve(outer.type_id)
            if self.kind(inner_id) in (STRUCT, UNION) and (inner := self.member(inner_id, name)):
                return Member(outer.offset_bytes + inner.offset_bytes, inner.type_id)
        return None
