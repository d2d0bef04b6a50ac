"""The counters of a HotSpot virtual machine: /tmp/hsperfdata_USER/PID, which it keeps up to date for jstat.

The layout is that of PerfDataPrologue and PerfDataEntry (share/runtime/perfMemory.hpp). The virtual machine
has the file mapped and writes to it without a lock, so a number may be a moment older than its neighbour.
Nothing runs in the virtual machine. What is read of the file is bounded.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.kernel.anatomy.own_files import Identity, names_in_tmp, open_file
from tracer.kernel.anatomy.shown import Shown

KIND: Final = "jvm"
Counters = Mapping[str, int | str]

_MOST_BYTES: Final = 1 << 20  # -XX:PerfDataMemorySize is 32 KiB by default
_MOST_ENTRIES: Final = 4096
_MOST_NAME_BYTES: Final = 256
_PAGE_BYTES: Final = 4096  # a smaller unit than any size of a heap
_MAGIC: Final = b"\xca\xfe\xc0\xc0"
_PROLOGUE: Final = struct.Struct("=4sBBBBiiqii")
_ENTRY: Final = struct.Struct("=iiiBBBBi")


def read_counters(process: Path, owner: Identity) -> Counters:
    """Return the counters of a process (a directory of /proc), by name; empty if it has none."""
    with suppress(OSError):
        for folder in names_in_tmp(process, "hsperfdata_"):
            with suppress(OSError):
                fd = open_file(process, owner.user, folder, str(owner.pid))
                try:
                    return parse_counters(os.pread(fd, _MOST_BYTES, 0))
                finally:
                    os.close(fd)
    return {}


def parse_counters(content: bytes) -> Counters:
    """Return the counters in the content of a file, by name: whole numbers and texts."""
    if len(content) < _PROLOGUE.size:
        return {}
    magic, is_little, *_, first, count = _PROLOGUE.unpack_from(content)
    if magic != _MAGIC or is_little != (sys.byteorder == "little"):
        return {}
    return dict(_entries(content, first, min(count, _MOST_ENTRIES)))


def _entries(content: bytes, at: int, count: int) -> Iterator[tuple[str, int | str]]:
    for _ in range(count):
        if at < 0 or at + _ENTRY.size > len(content):
            return
        length, name_at, vector, kind, _, _, _, data_at = _ENTRY.unpack_from(content, at)
        begin, data = at + name_at, at + data_at
        if at <= begin < len(content) and at <= data <= len(content) - 8:
            name = _text(content, begin, _MOST_NAME_BYTES)
            if kind == ord("J") and vector == 0:
                yield name, struct.unpack_from("=q", content, data)[0]
            elif kind == ord("B") and vector > 0:
                yield name, _text(content, data, min(vector, _MOST_NAME_BYTES))
        if length < _ENTRY.size:
            return
        at += length


def _text(content: bytes, at: int, most: int) -> str:
    return content[at : at + most].partition(b"\0")[0].decode("latin-1")


def shown(counters: Counters) -> Iterator[Shown]:
    """Yield what the counters say of memory."""
    yield from (Shown(KIND, name, value) for name, value in memory_numbers(counters).items())


_WITHOUT_BOUNDS: Final = ("G1", "ZGC")
"""Collectors whose generations may each become as large as the heap (G1MonitoringSupport and
ZServiceabilityCounters in src/hotspot/share/gc). ZGC has had generations since Java 21, with this name; of
one generation, it is "Z"."""


def memory_numbers(counters: Counters) -> dict[str, int]:
    """Return what the counters say of memory; empty if they lack the heap.

    `heap_used_bytes`, `heap_committed_bytes`, `heap_max_bytes`: of all generations together, as of the last
    collection. `metaspace_used_bytes`, `metaspace_committed_bytes`: with the compressed class space.
    `collections`: of the garbage collector, since the start.
    """
    numbers = {name: value for name, value in counters.items() if isinstance(value, int) and value >= 0}
    generations = {name: value for name, value in numbers.items() if name.startswith("sun.gc.generation.")}
    used = [value for name, value in generations.items() if name.endswith(".used")]
    committed, most = (
        [value for name, value in generations.items() if name.endswith(end) and ".space." not in name]
        for end in (".capacity", ".maxCapacity")
    )
    if not sum(committed):
        return {}
    collector = str(counters.get("sun.gc.collector.0.name", ""))
    found = {
        "heap_used_bytes": sum(used),
        "heap_committed_bytes": _whole_pages(sum(committed)),
        "heap_max_bytes": _whole_pages(
            max(most, default=0) if collector.startswith(_WITHOUT_BOUNDS) else sum(most)
        ),
    }
    for field, counter in (("used", "used"), ("committed", "capacity")):
        if (value := numbers.get(f"sun.gc.metaspace.{counter}")) is not None:
            found[f"metaspace_{field}_bytes"] = value
    collections = [
        value
        for name, value in numbers.items()
        if name.startswith("sun.gc.collector.") and name.endswith(".invocations")
    ]
    return found | ({"collections": sum(collections)} if collections else {})


def _whole_pages(bytes_: int) -> int:
    """Return a size without the few bytes that G1 adds, so that no generation is empty."""
    return bytes_ // _PAGE_BYTES * _PAGE_BYTES
