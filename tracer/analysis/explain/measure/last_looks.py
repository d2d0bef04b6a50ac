"""The last looks before a kill: the page cache by file, processes by mapping, the bounds of heaps."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core.columns import (
    Int64s,
    integers,
    known,
    optional,
    optional_text,
    records,
    times_ns,
    utc_time,
)
from tracer.analysis.core.rows import TableRows
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.results.memory import CacheContents, CachedFile, MappedPart, ProcessMemory

MOST_FILES: Final = 10
"""The files that `CacheContents.files` has at most."""

_SIZES: Final = ("bytes", "dirty_bytes", "active_bytes")


def cached_files(subtree: Subtree, begin_ns: int, end_ns: int) -> CacheContents | None:
    """Return the last look within an interval at the page cache of a cgroup and those below it.

    None: there was none, or it found no cache.
    """
    rows = subtree.contents
    times = times_ns(rows)
    is_within = (times >= begin_ns) & (times <= end_ns)
    if not is_within.any():
        return None
    last_ns = int(times[is_within].max())
    look = rows[times == last_ns]
    named = look[known(look["inode_id"])]
    sums = named.groupby(["inode_id", "kind"], observed=True)[list(_SIZES)].sum(min_count=1)
    sums = sums.sort_values("bytes", ascending=False, kind="stable").head(MOST_FILES)
    files = tuple(_file(subtree, inode_id, kind, row) for (inode_id, kind), row in sums.iterrows())
    whole = int(look["bytes"].sum())
    return CacheContents(
        time=utc_time(last_ns),
        bytes=whole,
        files=files,
        further_files=len(np.unique(integers(named["inode_id"])))
        + int(look["files"][~known(look["inode_id"])].sum())
        - len(files),
        further_bytes=whole - sum(file.bytes for file in files),
        duration_ns=int(look["duration_ns"].max()),
    )


def _file(subtree: Subtree, inode_id: int, kind: str, sizes: pd.Series[int]) -> CachedFile:
    active = sizes["active_bytes"]
    return CachedFile(
        path=_path(subtree, inode_id),
        kind=str(kind),
        bytes=int(sizes["bytes"]),
        dirty_bytes=int(sizes["dirty_bytes"]),
        active_bytes=None if pd.isna(active) else int(active),
    )


def _path(subtree: Subtree, inode_id: int) -> str | None:
    inodes = subtree.whole.inodes
    found = inodes["path"][integers(inodes["inode_id"]) == inode_id]
    return optional_text(found.iloc[-1]) if len(found) else None


_OF_FILES: Final = ("file", "shared")
_ONE_LOOK_NS: Final = 2_000_000_000  # in which the processes of a cgroup are read, one after the other


def processes_at_kill(
    subtree: Subtree, begin_ns: int, kill_ns: int, killed: Collection[int]
) -> tuple[ProcessMemory, ...]:
    """Return the last look at each process that was there at a kill: the killed ones first, then the largest.

    `begin_ns`: what was looked at before does not count.
    """
    rows, exited_at = _rows(subtree, begin_ns, kill_ns), subtree.whole.processes.exited_at
    if rows is None:
        return ()
    listed = [
        one
        for one in _last_looks(subtree, rows)
        if one.pid in killed or exited_at(one.pid, one.time.as_unit("ns").value, kill_ns) is None
    ]
    return tuple(sorted(listed, key=lambda one: (one.pid not in killed, -one.rss_bytes)))


def largest_processes(subtree: Subtree, begin_ns: int, end_ns: int) -> tuple[ProcessMemory, ...]:
    """Return the look within an interval that found most memory, with the largest process first."""
    rows = _rows(subtree, begin_ns, end_ns)
    if rows is None:
        return ()
    times = times_ns(rows)
    look = np.cumsum(np.diff(times, prepend=times[0]) > _ONE_LOOK_NS // 4)
    held = np.bincount(look, rows["anon_bytes"].to_numpy(dtype=np.int64))
    found = _last_looks(subtree, rows[look == int(held.argmax())])
    return tuple(sorted(found, key=lambda one: -one.rss_bytes))


def _rows(subtree: Subtree, begin_ns: int, end_ns: int) -> pd.DataFrame | None:
    """Return the rows of `mappings` within an interval, in the order of time; None if there are none."""
    times, order = subtree.once("process_memory", lambda: _in_order(subtree.rows("mappings")))
    first, last = np.searchsorted(times, begin_ns), np.searchsorted(times, end_ns, "right")
    return subtree.mappings.iloc[order[first:last]] if first < last else None


def _in_order(rows: TableRows) -> tuple[Int64s, npt.NDArray[np.intp]]:
    times = rows.times
    order = np.argsort(times, kind="stable")
    return times[order], order


def _last_looks(subtree: Subtree, rows: pd.DataFrame) -> list[ProcessMemory]:
    """Return the last look at each process."""
    tgids, times = integers(rows["tgid"]), times_ns(rows)
    found = []
    for tgid in np.unique(tgids).tolist():
        time_ns = int(times[tgids == tgid].max())
        found.append(_process(subtree, tgid, time_ns, rows[(tgids == tgid) & (times == time_ns)]))
    return found


def _process(subtree: Subtree, tgid: int, time_ns: int, rows: pd.DataFrame) -> ProcessMemory:
    parts = [_part(row) for row in records(rows)]
    return ProcessMemory(
        pid=tgid,
        comm=subtree.whole.processes.comm_at(tgid, time_ns, time_ns),
        time=utc_time(time_ns),
        rss_bytes=sum(part.rss_bytes for part in parts),
        shared_bytes=sum(
            part.rss_bytes - part.pss_bytes
            for part in parts
            if part.pss_bytes is not None and part.kind not in _OF_FILES
        ),
        parts=tuple(sorted(parts, key=lambda part: -(part.rss_bytes + part.swap_bytes))),
    )


def _part(row: Any) -> MappedPart:
    """Return a part of a process. Memory of a file counts at each place at which it is mapped: a heap of ZGC
    at three, up to Java 20 (ZPhysicalMemoryManager::map in src/hotspot/share/gc/z)."""
    sizes = {name: int(row[name]) for name in ("count", "rss_bytes", "anon_bytes", "swap_bytes")}
    kind, pss_bytes = str(row["kind"]), optional(row["pss_bytes"])
    if pss_bytes is not None and kind not in _OF_FILES and not sizes["anon_bytes"]:
        sizes["rss_bytes"] = pss_bytes
    return MappedPart(kind=kind, name=str(row["name"]), pss_bytes=pss_bytes, **sizes)


_OPTIONS: Final = {
    "java": re.compile(r"(?:^| )(-Xmx|-XX:MaxHeapSize=)(\d+)([kmgt]?)(?= |$)", re.IGNORECASE),
    "node": re.compile(r"(?:^| )(--max[-_]old[-_]space[-_]size[= ])(\d+)()(?= |$)"),
}
_WITHOUT_OPTION: Final = ("dotnet",)
"""Programs whose command line has no such option: .NET reads its configuration (System.GC.HeapHardLimit), and
takes 75 % of the cgroup's limit by default."""
_LIBRARIES: Final = (
    (".NET", re.compile(r".*/libcoreclr\.so", re.DOTALL), None),
    ("Java", re.compile(r".*/libjvm\.so", re.DOTALL), None),
    (
        "DuckDB",
        re.compile(r".*/(?:lib|_)?duckdb(?:\.(?:so|cpython)[^/]*)?", re.DOTALL),
        "memory_limit, by default 80 % of the cgroup's limit",
    ),
)
"""Libraries that bound what they take, whatever the name of their program: name, mapped file, option."""
_PLAIN_UNIT: Final = {"java": 1, "node": 1 << 20}
SEMI_SPACES: Final = 3
"""The largest young generation of V8, in semi-spaces (YoungGenerationSizeFromSemiSpaceSize in
src/heap/heap.cc). No option for the old space bounds it."""
MOST_YOUNG_BYTES: Final = SEMI_SPACES * 64 << 20
"""The largest young generation without an option. A semi-space is at most 16 MiB up to Node.js 22, and 64 MiB
in 24 (measured)."""
_BESIDE_BYTES: Final = {"java": 0, "node": MOST_YOUNG_BYTES}
_SEMI_SPACE: Final = re.compile(r"(?:^| )--max[-_]semi[-_]space[-_]size[= ](\d{1,9})(?= |$)")
_UNITS: Final = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class HeapBound:
    """The bound of the heap of a process of `program`.

    `option` is the option that sets the bound, with what holds without it if that is known; None without one:
    the program then takes a part of the cgroup's limit. `bytes_` is the largest size of the heap; None: not
    known. `set_bytes` is the part of it that `option` sets. `young_bytes` is the largest young generation, if
    another option sets that.
    """

    program: str
    option: str | None = None
    bytes_: int | None = None
    set_bytes: int | None = None
    young_bytes: int | None = None


def heap_bound(comm: str | None, cmdline: str | None) -> HeapBound | None:
    """Return the bound of a process; None for a program without one. Of repeated options, the last counts."""
    words = (cmdline or "").split()
    name = words[0].rpartition("/")[2] if words else ""
    program = name if name in (*_OPTIONS, *_WITHOUT_OPTION) else comm
    if program in _WITHOUT_OPTION:
        return HeapBound(program)
    if program not in _OPTIONS:
        return None
    line = " ".join(words)
    found, young = list(_OPTIONS[program].finditer(line)), _young_bytes(line) if program == "node" else None
    if not found:
        return HeapBound(program, young_bytes=young)
    _, number, unit = found[-1].groups()
    size = int(number) * _UNITS.get(unit.lower(), _PLAIN_UNIT[program])
    most = size + (_BESIDE_BYTES[program] if young is None else young)
    return HeapBound(program, found[-1].group().strip(), most, size, young)


def library_bounds(files: Iterable[str]) -> list[HeapBound]:
    """Return the bounds that libraries among mapped files set for their own memory."""
    names = {*files}
    return [
        HeapBound(library, option)
        for library, file, option in _LIBRARIES
        if any(file.fullmatch(name) is not None for name in names)
    ]


def _young_bytes(line: str) -> int | None:
    """Return the young generation of V8 that an option allows; None without one.

    V8 rounds a semi-space up to a power of two (Heap::ConfigureHeap in src/heap/heap.cc).
    """
    sizes = [int(number) for number in _SEMI_SPACE.findall(line)]
    return SEMI_SPACES * (1 << (sizes[-1] - 1).bit_length() << 20) if sizes and sizes[-1] else None
