"""Readings of a cgroup's memory files, with the same columns for v1 and v2.

The columns are those of `schema.TABLES["samples"]`, with v2's names. A value without a file is None, never 0,
and a limit that is not set is `UNLIMITED_BYTES`. All sizes include the cgroups below: the rows `total_` of v1
(memcg1_stat_format, mm/memcontrol-v1.c), and memory.stat of v2 (memcg_stat_format, mm/memcontrol.c).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tracer.categories import COUNTERS
from tracer.schema import MEMORY_STAT_COUNTS, TABLES, UNLIMITED_BYTES

Reading = dict[str, int | None]

COLUMNS: Final = tuple(
    name for name in TABLES["samples"].names if name not in ("time", "cgroup_id", "source", "kill_id")
)
"""The keys of every reading."""

# PAGE_COUNTER_MAX depends on the page size; with pages of up to 64 KiB it is at least this.
_UNLIMITED_FROM: Final = 0x7FFF_FFFF_FFFF_0000
_READ_BYTES: Final = 16384
_GONE: Final = frozenset({errno.ENODEV, errno.ENOENT})

V1_STAT: Final = {counter.v1: counter.column for counter in COUNTERS if counter.v1 is not None} | {
    name: name for name in ("workingset_refault_anon", "workingset_refault_file", "pgfault", "pgmajfault")
}
"""Name in v1's memory.stat -> column."""

_V1_COLUMNS: Final = {f"total_{name}".encode(): column for name, column in V1_STAT.items()}
_V2_COLUMNS: Final = {
    counter.v2_line.encode(): counter.column for counter in COUNTERS if counter.is_in_v2_stat
} | {name.encode(): name for name in MEMORY_STAT_COUNTS}
_V2_EVENTS: Final = {
    b"max": "max_events",
    b"high": "high_events",
    b"low": "low_events",
    b"oom": "oom_events",
    b"oom_kill": "oom_kill_events",
    b"oom_group_kill": "oom_group_kill_events",
}
_V2_SWAP_EVENTS: Final = {
    b"high": "swap_high_events",
    b"max": "swap_max_events",
    b"fail": "swap_fail_events",
}
_V1_OOM_CONTROL: Final = {
    b"oom_kill_disable": "oom_kill_disable",
    b"under_oom": "under_oom",
    b"oom_kill": "oom_kill_events",
}


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


def _size(column: str) -> Callable[[bytes], Reading]:
    return lambda content: {column: parse_size(content)}


def _keyed(columns: Mapping[bytes, str]) -> Callable[[bytes], Reading]:
    return lambda content: parse_flat_keyed(content, columns)


_FILES: Final[Mapping[int, Mapping[str, Callable[[bytes], Reading]]]] = MappingProxyType(
    {
        1: {
            "memory.usage_in_bytes": _size("usage_bytes"),
            "memory.limit_in_bytes": _size("limit_bytes"),
            "memory.soft_limit_in_bytes": _size("soft_limit_bytes"),
            "memory.kmem.usage_in_bytes": _size("kernel_bytes"),
            "memory.kmem.limit_in_bytes": _size("kmem_limit_bytes"),
            "memory.memsw.limit_in_bytes": _size("swap_limit_bytes"),
            "memory.swappiness": _size("swappiness"),
            "memory.use_hierarchy": _size("use_hierarchy"),
            "memory.stat": _keyed(_V1_COLUMNS),
            "memory.failcnt": _size("max_events"),
            "memory.memsw.failcnt": _size("swap_max_events"),
            "memory.oom_control": _keyed(_V1_OOM_CONTROL),
        },
        2: {
            "memory.current": _size("usage_bytes"),
            "memory.max": _size("limit_bytes"),
            "memory.high": _size("high_bytes"),
            "memory.low": _size("low_bytes"),
            "memory.min": _size("min_bytes"),
            "memory.swap.current": _size("swap_usage_bytes"),
            "memory.swap.high": _size("swap_high_bytes"),
            "memory.swap.max": _size("swap_limit_bytes"),
            "memory.oom.group": _size("oom_group"),
            "memory.stat": _keyed(_V2_COLUMNS),
            "memory.events": _keyed(_V2_EVENTS),
            "memory.swap.events": _keyed(_V2_SWAP_EVENTS),
            "memory.pressure": parse_pressure,
        },
    }
)


class MemcgFiles:
    """The memory files of one cgroup, for many readings.

    No file stays open between readings, so a recorder of a thousand cgroups needs as few descriptors as that
    of one. With `cgroup_id`, a later cgroup in the same directory is not read. A file that this kernel or
    this cgroup lacks leaves its columns None: the root cgroup of v2 has no limit, and a cgroup of v2 can
    exist before it has the memory controller.
    """

    def __init__(self, directory: Path, version: int, cgroup_id: int | None = None) -> None:
        self._directory = directory
        self._version = version
        self._cgroup_id = cgroup_id

    def read(self) -> Reading | None:
        """Return the values now, with `COLUMNS` as keys; None if the cgroup is gone.

        Raises OSError if they cannot be read now (EMFILE: this process has too many open files).
        """
        reading: Reading = dict.fromkeys(COLUMNS)
        try:
            directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise
        try:
            if self._cgroup_id not in (None, os.fstat(directory).st_ino):
                return None
            found = [_read_into(reading, directory, *file) for file in _FILES[self._version].items()]
        finally:
            os.close(directory)
        if not all(found) and not self._is_there():
            return None
        # Each version shows this counter in one of two places. On v1, memsw.usage - usage would be the same,
        # if both were read at one instant.
        if self._version == 1:
            reading["swap_usage_bytes"] = reading["swap_bytes"]
            _add_memsw_refusals(reading)
        else:
            reading["swap_bytes"] = reading["swap_usage_bytes"]
        return reading

    def _is_there(self) -> bool:
        """Return whether the cgroup still exists: files are also absent if the directory was removed."""
        try:
            return self._cgroup_id in (None, self._directory.stat().st_ino)
        except FileNotFoundError:
            return False


def _read_into(reading: Reading, directory: int, name: str, parse: Callable[[bytes], Reading]) -> bool:
    """Read one file of the directory into `reading`; return False if there is no such file."""
    try:
        content = _content(directory, name)
    except PermissionError:
        return True
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    reading.update(parse(content))
    return True


def _add_memsw_refusals(reading: Reading) -> None:
    """Add the refusals of memory + swap to those of memory, on v1.

    A charge that memory + swap refuses does not reach the counter of memory (try_charge_memcg,
    mm/memcontrol.c), so a cgroup whose two limits are equal hits the limit of memory + swap. Since
    "page_counter: track failcnt only for legacy cgroups", v6.15, refusals are counted for memory alone: then
    0 may also mean that the limit was hit.
    """
    refused = reading["swap_max_events"]
    limit, memsw_limit = reading["limit_bytes"], reading["swap_limit_bytes"]
    if refused is None or limit is None or memsw_limit is None:
        return
    if not refused and memsw_limit < UNLIMITED_BYTES:
        reading["swap_max_events"] = None
    if reading["max_events"] is None:
        return
    reading["max_events"] += refused
    if not refused and memsw_limit <= limit < UNLIMITED_BYTES:
        reading["max_events"] = None


def _content(directory: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(fd, _READ_BYTES)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # memory.pressure with psi=0
            return b""
        raise
    finally:
        os.close(fd)
