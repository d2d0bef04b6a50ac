"""One reading of a cgroup's memory files, v1 and v2 in one set of columns.

The columns are those of `schema.TABLES["samples"]` under v2's names. A value that a version has no file for
is None, never 0; what is unlimited is `UNLIMITED_BYTES`. All sizes are hierarchical: the cgroup with all
below it (v1's own `total_` rows, mm/memcontrol-v1.c `memcg1_stat_format`; v2's memory.stat, mm/memcontrol.c
`memcg_stat_format`).
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

# PAGE_COUNTER_MAX depends on the page size; with pages of up to 64 KiB it is not below this.
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
    """A file of one number of bytes, or v2's "max"; None for anything else."""
    word = content.strip()
    if word == b"max":
        return UNLIMITED_BYTES
    if not word.isdigit():
        return None
    value = int(word)
    return UNLIMITED_BYTES if value >= _UNLIMITED_FROM else value


def parse_flat_keyed(content: bytes, columns: Mapping[bytes, str]) -> Reading:
    """The rows `key value` of which `columns` names the key; rows of any other form are left out."""
    reading: Reading = {}
    for line in content.split(b"\n"):
        key, _, value = line.partition(b" ")
        if key in columns and value.isdigit():
            reading[columns[key]] = int(value)
    return reading


def parse_pressure(content: bytes) -> Reading:
    """The totals of a PSI file in microseconds (kernel/sched/psi.c, `psi_show`)."""
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
    """The memory files of one cgroup, for many readings. No file stays open between them: a recorder of a
    thousand cgroups needs no more descriptors than that of one.

    `cgroup_id`: a cgroup of another id that has the directory's name by now is not read; None reads whatever
    is there. A file that this kernel or this cgroup lacks (the root cgroup has no limit on v2; a v2 cgroup
    can be there before it has the memory controller) leaves its columns None.
    """

    def __init__(self, directory: Path, version: int, cgroup_id: int | None = None) -> None:
        self._directory = directory
        self._version = version
        self._cgroup_id = cgroup_id

    def read(self) -> Reading | None:
        """Return the values now, with `COLUMNS` as keys; None: the cgroup is gone.

        Raises OSError where they cannot be read now (EMFILE: the process may open no more files).
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
        # One counter, and each version shows it in one of two places. v1's memsw.usage - usage would say the
        # same, were the two read at one instant.
        if self._version == 1:
            reading["swap_usage_bytes"] = reading["swap_bytes"]
            _add_memsw_refusals(reading)
        else:
            reading["swap_bytes"] = reading["swap_usage_bytes"]
        return reading

    def _is_there(self) -> bool:
        """Whether the cgroup still has its name: a directory that was removed has no files either."""
        try:
            return self._cgroup_id in (None, self._directory.stat().st_ino)
        except FileNotFoundError:
            return False


def _read_into(reading: Reading, directory: int, name: str, parse: Callable[[bytes], Reading]) -> bool:
    """Read one file of the directory; False where it is not there."""
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
    """v1: a charge that memory + swap refuses never comes to memory's own counter (try_charge_memcg), so a
    cgroup whose two limits are the same hits the first. Since 6.15 ("page_counter: track failcnt only for
    legacy cgroups") it is counted for memory alone: then 0 does not say that the limit was not hit.
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
        if error.errno == errno.EOPNOTSUPP:  # memory.pressure with PSI switched off (psi=0)
            return b""
        raise
    finally:
        os.close(fd)
