"""The layout of a wire record: fields, alignment, padding and size, as a C compiler computes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from tracer.enumerations import CATEGORY, Enumeration

KIND_BYTES: Final = {"u8": 1, "s8": 1, "char": 1, "u16": 2, "s16": 2, "u32": 4, "s32": 4, "u64": 8, "s64": 8}
"""C type of a field, or of an element of it -> its size in bytes, which is also its alignment."""

_RECORD_ALIGNMENT: Final = 8
"""A ring record is an 8-byte header and the payload, rounded up to 8 (kernel/bpf/ringbuf.c)."""

LENGTHS: Final = {
    "TRACER_CATEGORIES": len(CATEGORY.names),
    "TRACER_COMM_LEN": 16,
    "TRACER_FS_TYPE_LEN": 16,
    "TRACER_PATH_LEN": 416,
    "TRACER_STATE_ITEMS": 64,
    "TRACER_COUNTERS": 96,
    "TRACER_KERNEL_FRAMES": 64,
    "TRACER_PYTHON_FRAMES": 32,
    "TRACER_REGISTERS": 21,  # of x86-64, in the order of struct pt_regs
    "TRACER_STACK_COPY_BYTES": 16384,
    "TRACER_USER_FRAMES": 127,  # the default of kernel.perf_event_max_stack
}
"""#define of bpf/events.h -> elements of the arrays that have this length."""

PATH_LEN: Final = LENGTHS["TRACER_PATH_LEN"]


@dataclass(frozen=True)
class Field:
    """A member of a record.

    `kind` is a key of `KIND_BYTES`. An array has a `length`, a key of `LENGTHS`. `null` gives the numbers
    that stand for "not known": such a number is NULL in the trace. A field with an `enumeration` holds one of
    its numbers.
    """

    name: str
    kind: str
    comment: str = ""
    length: str = ""
    null: Literal["zero", "negative"] | None = None
    enumeration: Enumeration | None = None

    @property
    def size_bytes(self) -> int:
        """Return the size of the field, of all elements of an array."""
        return KIND_BYTES[self.kind] * (LENGTHS[self.length] if self.length else 1)


@dataclass(frozen=True)
class Padding:
    """Padding that a C compiler would add, declared as a member, so that compilers add no other padding."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class Record:
    """A record of a ring: `struct <name>_event` in C."""

    name: str
    comment: str
    fields: tuple[Field, ...]

    def members(self) -> Iterator[Field | Padding]:
        """Yield the fields with the padding that keeps each of them naturally aligned."""
        at = pads = 0
        for field in self.fields:
            if gap := -at % KIND_BYTES[field.kind]:
                pads += 1
                yield _padding(pads, gap)
            yield field
            at += gap + field.size_bytes
        if gap := -at % _RECORD_ALIGNMENT:
            yield _padding(pads + 1, gap)

    @property
    def size_bytes(self) -> int:
        """Return the size of the record, a multiple of 8."""
        return sum(member.size_bytes for member in self.members())

    def field_at(self, name: str) -> Field | None:
        """Return the field with this name; None if the record has no such field."""
        return next((field for field in self.fields if field.name == name), None)


def _padding(number: int, size_bytes: int) -> Padding:
    return Padding("pad" if number == 1 else f"pad{number}", size_bytes)
