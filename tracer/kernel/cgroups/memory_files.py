"""Readings of a cgroup's memory files, with the columns of `schema.TABLES["samples"]` as keys.

A limit that is not set is `UNLIMITED_BYTES`. Sizes include the cgroups below: the rows `total_` of v1
(memcg1_stat_format, mm/memcontrol-v1.c), and memory.stat of v2 (memcg_stat_format, mm/memcontrol.c). No file
stays open.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tracer.categories import COUNTERS, RECLAIM_KINDS, V1_STAT
from tracer.kernel.cgroups.cgroupfs import Hierarchy, descendants
from tracer.schema import MEMORY_STAT_COUNTS, UNLIMITED_BYTES

Reading = dict[str, int]

# PAGE_COUNTER_MAX depends on the page size; with pages of up to 64 KiB it is at least this.
_UNLIMITED_FROM: Final = 0x7FFF_FFFF_FFFF_0000
_STAT: Final = "memory.stat"
_ABSENT: Final = frozenset({errno.ENODEV, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP})
"""The cgroup or the file is gone, or this user may not read it; memory.pressure with psi=0 is not
supported."""

RECLAIM_PARTS: Final = {
    count: tuple(f"{count}_{kind.lower()}" for kind in RECLAIM_KINDS) for count in ("pgscan", "pgsteal")
}
"""Column -> the lines of v2's memory.stat that add up to it; a kernel may lack some of them."""

_V1_COLUMNS: Final = {f"total_{name}".encode(): column for name, column in V1_STAT.items()}
_V2_COLUMNS: Final = (
    {counter.v2_line.encode(): counter.column for counter in COUNTERS if counter.is_in_v2_stat}
    | {name.encode(): name for name in MEMORY_STAT_COUNTS if name not in RECLAIM_PARTS}
    | {part.encode(): part for parts in RECLAIM_PARTS.values() for part in parts}
)


def parse_size(content: bytes) -> int | None:
    """Return the bytes in a file with one number, or with v2's "max"; None for any other content."""
    word = content.strip()
    if word == b"max":
        return UNLIMITED_BYTES
    if not word.isdigit():
        return None
    value = int(word)
    return UNLIMITED_BYTES if value >= _UNLIMITED_FROM else value


def parse_flat_keyed(content: bytes, columns: Mapping[bytes, str]) -> Reading:
    """Return the rows `key value` whose key is in `columns`; rows of another form are left out."""
    reading: Reading = {}
    for line in content.split(b"\n"):
        key, _, value = line.partition(b" ")
        if key in columns and value.isdigit():
            reading[columns[key]] = int(value)
    return reading


def parse_pressure(content: bytes) -> Reading:
    """Return the totals of a PSI file in microseconds (psi_show, kernel/sched/psi.c)."""
    reading: Reading = {}
    for line in content.split(b"\n"):
        kind, _, rest = line.partition(b" ")
        total = rest.rpartition(b"total=")[2]
        if kind in (b"some", b"full") and total.isdigit():
            reading[f"psi_{kind.decode()}_total_us"] = int(total)
    return reading


def read_stat(cgroup: Path, version: int) -> Reading:
    """Return the columns in memory.stat, with the columns of `RECLAIM_PARTS` in parts; {} if there is no such
    file.

    A reading makes the kernel add up the counters of this cgroup and of the cgroups below it, if many have
    changed (mem_cgroup_flush_stats, mm/memcontrol.c). Raises OSError if the file cannot be read now (EMFILE).
    """
    return parse_flat_keyed(read(cgroup, _STAT), _V1_COLUMNS if version == 1 else _V2_COLUMNS)


def flush_stat(cgroup: Path) -> None:
    """Make the kernel add up the counters, as `read_stat` does. Raises OSError as `read_stat`."""
    read(cgroup, _STAT, most_bytes=1)


def read_pressure(cgroup: Path) -> Reading:
    """Return the columns in memory.pressure; {} if there is none. Raises OSError as `read_stat`."""
    return parse_pressure(read(cgroup, "memory.pressure"))


def read_size(cgroup: Path, name: str) -> int | None:
    """Return the number in a file of one number; None if there is none. Raises OSError as `read_stat`."""
    return parse_size(read(cgroup, name))


def read_limit(cgroup: Path, version: int) -> int | None:
    """Return the limit of a cgroup in bytes; None if it has none. Raises OSError as `read_stat`."""
    return read_size(cgroup, "memory.limit_in_bytes" if version == 1 else "memory.max")


def read_usage(cgroup: Path, version: int) -> int | None:
    """Return the usage of a cgroup in bytes; None if it has none. Raises OSError as `read_stat`."""
    return read_size(cgroup, "memory.usage_in_bytes" if version == 1 else "memory.current")


def read_peak(cgroup: Path, version: int) -> int | None:
    """Return the highest usage of a cgroup so far in bytes, by the kernel's own count.

    None if it has none: v2 has memory.peak since 8e20d4b33266 ("mm/memcontrol: export memcg->watermark
    via sysfs for v2 memcg"), v5.19. Raises OSError as `read_stat`.
    """
    return read_size(cgroup, "memory.max_usage_in_bytes" if version == 1 else "memory.peak")


def read_limit_hits(cgroup: Path, version: int) -> int | None:
    """Return how often a charge found the limit full; None if it is not counted. Raises OSError as
    `read_stat`."""
    if version == 1:
        return read_size(cgroup, "memory.failcnt")
    return parse_flat_keyed(read(cgroup, "memory.events"), {b"max": "max"}).get("max")


def read_oom_kills(cgroup: Path, version: int) -> int:
    """Return how many tasks of a cgroup were killed; 0 if it is gone. Raises OSError as `read_stat`."""
    content = read(cgroup, "memory.oom_control" if version == 1 else "memory.events")
    return parse_flat_keyed(content, {b"oom_kill": "oom_kill"}).get("oom_kill", 0)


def oom_kills_below(hierarchy: Hierarchy, cgroup: Path) -> int:
    """Return the kernel's count of tasks that were killed in a cgroup and below it.

    On v2, the count of a cgroup includes the cgroups below it (memcg_memory_event,
    include/linux/memcontrol.h).
    """
    counted = descendants(cgroup) if hierarchy.version == 1 else [cgroup]
    return sum(read_oom_kills(directory, hierarchy.version) for directory in counted)


def read(cgroup: Path, name: str, most_bytes: int = 16384) -> bytes:
    """Return the content of a file of a cgroup; b"" if the file is absent or unreadable."""
    try:
        fd = os.open(cgroup / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ABSENT:
            return b""
        raise
    try:
        return os.read(fd, most_bytes)
    except OSError as error:
        if error.errno in _ABSENT:
            return b""
        raise
    finally:
        os.close(fd)
