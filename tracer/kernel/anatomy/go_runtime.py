"""What the Go runtime knows of its memory, read from a live process: gcController, memstats, mbuckets.

The variables are found by the symbol table of the program, and their members by the version of Go in
.go.buildinfo: the offsets are those of gcControllerState (runtime/mgcpacer.go), mstats (runtime/mstats.go)
and bucket (runtime/mprof.go). The runtime changes them while they are read: each number is right, and two of
them may be a moment apart.

The heap profile is the runtime's own. It samples an allocation each MemProfileRate bytes (512 KiB), and so
does the estimate here, as runtime/pprof does it. An allocation counts until a collection has freed it. A
program that never asks for the profile has none: the linker then turns it off.
"""

from __future__ import annotations

import math
import re
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tracer.kernel.anatomy.go_functions import GoFunctions
from tracer.kernel.anatomy.shown import Shown
from tracer.kernel.process.elf_file import CutOffError, ElfFile, elf_file
from tracer.kernel.process.live_memory import Memory

KIND: Final = "go"
NO_LIMIT: Final = (1 << 63) - 1
"""The memory limit of a program for which none is set (math.MaxInt64)."""

MOST_SITES: Final = 12
_MOST_BUCKETS: Final = 1 << 14
_MOST_DEPTH: Final = 512
_MOST_FRAMES: Final = 12
_MOST_TEXT: Final = 800
_OFF: Final = -1  # of gc_percent
_MOST_BYTES: Final = 1 << 48
_VERSION: Final = re.compile(rb"go(\d{1,3})\.(\d{1,3})(?:\.\d{1,3})?(?:rc\d+)?")
_INFO_MAGIC: Final = b"\xff Go buildinf:"
_TEXT_INLINE: Final = 2
_WORDS: Final = 40
_BUCKET_WORDS: Final = 6
_MEM_PROFILE: Final = 1
_COLLECTOR: Final = b"runtime.gcController"
_STATS: Final = b"runtime.memstats"
_BUCKETS: Final = b"runtime.mbuckets"
_RATE: Final = b"runtime.MemProfileRate"
_OF_RUNTIME: Final = ("runtime.", "internal/runtime/")


class _Layout(NamedTuple):
    """Offsets in gcControllerState in words of 8 bytes, of numgc in mstats in bytes, and the words of a cycle
    of memRecord."""

    goal: int
    marked: int
    in_use: int
    released: int
    free: int
    ready: int
    collections: int
    cycle_words: int


_SINCE_1_21: Final = _Layout(9, 19, 34, 35, 36, 39, 7704, 4)
_SINCE_1_25: Final = _SINCE_1_21._replace(collections=7680)
_SINCE_1_27: Final = _SINCE_1_25._replace(cycle_words=2)  # without the bytes, which the size tells
_LAYOUTS: Final = {
    **dict.fromkeys([(1, 21), (1, 22), (1, 23), (1, 24)], _SINCE_1_21),
    **dict.fromkeys([(1, 25), (1, 26)], _SINCE_1_25),
    (1, 27): _SINCE_1_27,
}


def read_runtime(process: Path, memory: Memory, start: int, until_s: float) -> Iterator[Shown]:
    """Yield what the runtime of a Go process (a directory of /proc) shows of its memory.

    `start`: where the first mapping of the program begins. If it cannot be read, the reason is yielded. The
    profile is left out if it is not read by `until_s`, a moment of CLOCK_MONOTONIC.
    """
    try:
        with elf_file(process / "exe") as elf:
            if elf is not None:
                yield from _numbers(elf, memory, elf.shift(start), until_s)
    except (OSError, struct.error, ValueError, OverflowError):
        yield Shown(KIND, "unread", None, "its memory could not be read")
    except CutOffError as error:
        yield Shown(KIND, "unread", None, str(error))


def _numbers(elf: ElfFile, memory: Memory, shift: int, until_s: float) -> Iterator[Shown]:
    version = go_version(elf)
    if version is None:
        yield Shown(KIND, "unread", None, "the program does not say which Go built it")
        return
    yield Shown(KIND, "version", None, f"{version[0]}.{version[1]}")
    layout = _LAYOUTS.get(version)
    if layout is None:
        yield Shown(KIND, "unread", None, f"the runtime of Go {version[0]}.{version[1]} is not known")
        return
    collector, stats = elf.symbol(_COLLECTOR), elf.symbol(_STATS)
    if collector is None or stats is None:
        yield Shown(KIND, "unread", None, "the program has no symbol table (it was built with -s)")
        return
    words = memory.numbers(shift + collector, _WORDS)
    collections = int.from_bytes(memory.read(shift + stats + layout.collections, 4), "little")
    found = {
        "gc_percent": max(struct.unpack("<i", struct.pack("<Q", words[0])[:4])[0], _OFF),
        "memory_limit_bytes": words[1],
        "heap_goal_bytes": min(words[layout.goal], NO_LIMIT),
        "heap_live_bytes": words[layout.marked],
        "heap_in_use_bytes": words[layout.in_use],
        "heap_free_bytes": words[layout.free],
        "heap_released_bytes": words[layout.released],
        "runtime_bytes": words[layout.ready],
        "collections": collections,
    }
    if any(value > NO_LIMIT for value in found.values()):
        yield Shown(KIND, "unread", None, "its numbers are no sizes of memory")
        return
    yield from (Shown(KIND, name, value) for name, value in found.items())
    with suppress(OSError, struct.error, ValueError, OverflowError):
        yield from _sites(elf, memory, shift, layout, until_s)


def go_version(elf: ElfFile) -> tuple[int, int] | None:
    """Return the version of Go that built a program (debug/buildinfo), Go 1.18 or later; else None."""
    section = elf.section(b".go.buildinfo")
    if section is None:
        return None
    head = elf.read(section.offset, 128)
    if not head.startswith(_INFO_MAGIC) or not head[15:16] or not head[15] & _TEXT_INLINE:
        return None
    found = _VERSION.match(head, 33)  # behind its length, one byte
    return (int(found[1]), int(found[2])) if found else None


def _sites(elf: ElfFile, memory: Memory, shift: int, layout: _Layout, until_s: float) -> Iterator[Shown]:
    """Yield the heap profile: all of it in bytes, and the functions that allocated most."""
    buckets, rate_at = elf.symbol(_BUCKETS), elf.symbol(_RATE)
    if buckets is None or rate_at is None:
        return
    rate = memory.number(shift + rate_at)
    if not 0 < rate < _MOST_BYTES:
        return
    names: dict[int, str | None] = {}
    functions = GoFunctions(elf)

    def name(address: int) -> str | None:
        if address not in names:
            frame = functions.frame(address - shift - 1)  # the call is before the address of return
            names[address] = None if frame is None else f"{frame.function} ({frame.file}:{frame.line})"
        return names[address]

    held: dict[str, float] = {}
    for bytes_, addresses in _buckets(memory, memory.number(shift + buckets), rate, layout):
        if time.monotonic() > until_s:
            return
        stack = _stack([text for address in addresses[: 4 * _MOST_FRAMES] if (text := name(address))])
        held[stack] = held.get(stack, 0) + bytes_
    if held:
        yield Shown(KIND, "profiled_bytes", round(sum(held.values())))
    for stack in sorted(held, key=lambda stack: -held[stack])[:MOST_SITES]:
        yield Shown(KIND, "site_bytes", round(held[stack]), stack)


def _stack(frames: list[str]) -> str:
    """Return a stack as one text, without the frames of the runtime at both ends."""
    own = [number for number, frame in enumerate(frames) if not frame.startswith(_OF_RUNTIME)]
    kept = frames[own[0] : own[-1] + 1] if own else frames[:1]
    return ";".join(kept[:_MOST_FRAMES])[:_MOST_TEXT]


def _buckets(memory: Memory, at: int, rate: int, layout: _Layout) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Yield (bytes in use, addresses of the stack) of each call site of the profile."""
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _MOST_BUCKETS:
        seen.add(at)
        _, following, kind, _, size, depth = memory.numbers(at, _BUCKET_WORDS)
        if kind & 0xFFFFFFFF != _MEM_PROFILE or depth > _MOST_DEPTH:
            return
        words = memory.numbers(at + 8 * _BUCKET_WORDS, depth + 4 * layout.cycle_words)
        cycles = words[depth:]
        objects = sum(cycles[0 :: layout.cycle_words]) - sum(cycles[1 :: layout.cycle_words])
        if objects > 0 and size > 0 and objects * size < _MOST_BYTES:
            yield objects * size / -math.expm1(-size / rate), words[:depth]
        at = following
