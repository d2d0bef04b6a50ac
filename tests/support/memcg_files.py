"""What the memory files of a cgroup print, as the columns of `samples`: the readings to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tracer.categories import COUNTERS, V1_STAT
from tracer.kernel.cgroups.memory_files import parse_flat_keyed, parse_pressure, parse_size
from tracer.schema import MEMORY_STAT_COUNTS, TABLES, UNLIMITED_BYTES

Columns = dict[str, int | None]
_Parser = Callable[[bytes], Mapping[str, int | None]]

COLUMNS: Final = tuple(
    name
    for name in TABLES["samples"].names
    if name not in ("time", "cgroup_id", "source", "kill_id", "effective_min_bytes", "effective_low_bytes")
)
"""The columns that files print. No file prints effective protection."""


def _size(column: str) -> _Parser:
    return lambda content: {column: parse_size(content)}


def _keyed(columns: Mapping[str, str]) -> _Parser:
    return lambda content: parse_flat_keyed(content, {key.encode(): name for key, name in columns.items()})


_V2_STAT: Final = {counter.v2_line: counter.column for counter in COUNTERS if counter.is_in_v2_stat}
_FILES: Final[Mapping[int, Mapping[str, _Parser]]] = {
    1: {
        "memory.usage_in_bytes": _size("usage_bytes"),
        "memory.max_usage_in_bytes": _size("peak_bytes"),
        "memory.limit_in_bytes": _size("limit_bytes"),
        "memory.soft_limit_in_bytes": _size("soft_limit_bytes"),
        "memory.kmem.usage_in_bytes": _size("kernel_bytes"),
        "memory.kmem.limit_in_bytes": _size("kmem_limit_bytes"),
        "memory.memsw.limit_in_bytes": _size("swap_limit_bytes"),
        "memory.swappiness": _size("swappiness"),
        "memory.use_hierarchy": _size("use_hierarchy"),
        "memory.stat": _keyed({f"total_{name}": column for name, column in V1_STAT.items()}),
        "memory.failcnt": _size("max_events"),
        "memory.memsw.failcnt": _size("swap_max_events"),
        "memory.oom_control": _keyed(
            {"oom_kill_disable": "oom_kill_disable", "under_oom": "under_oom", "oom_kill": "oom_kill_events"}
        ),
    },
    2: {
        "memory.current": _size("usage_bytes"),
        "memory.peak": _size("peak_bytes"),
        "memory.max": _size("limit_bytes"),
        "memory.high": _size("high_bytes"),
        "memory.low": _size("low_bytes"),
        "memory.min": _size("min_bytes"),
        "memory.swap.current": _size("swap_usage_bytes"),
        "memory.swap.high": _size("swap_high_bytes"),
        "memory.swap.max": _size("swap_limit_bytes"),
        "memory.oom.group": _size("oom_group"),
        "memory.stat": _keyed(_V2_STAT | {name: name for name in MEMORY_STAT_COUNTS}),
        "memory.events": _keyed(
            {
                name: f"{name}_events"
                for name in (
                    *("max", "high", "low", "oom", "oom_kill", "oom_group_kill"),
                    "sock_throttled",
                )
            }
        ),
        "memory.swap.events": _keyed({name: f"swap_{name}_events" for name in ("high", "max", "fail")}),
        "memory.pressure": parse_pressure,
    },
}


def read_columns(cgroup: Path, version: int) -> Columns:
    """Return the columns that the files of a cgroup print; None: no file of it prints the column."""
    found: Columns = dict.fromkeys(COLUMNS)
    for name, parse in _FILES[version].items():
        if (cgroup / name).exists():
            found.update(parse((cgroup / name).read_bytes()))
    if found["limit_bytes"] is not None:
        found |= _effective(cgroup, version)
    if version == 2:
        return found | {"swap_bytes": found["swap_usage_bytes"]}
    refused, limit, memsw_limit = (
        found[name] for name in ("swap_max_events", "limit_bytes", "swap_limit_bytes")
    )
    found["swap_usage_bytes"] = found["swap_bytes"]
    if refused is not None and limit is not None and memsw_limit is not None:
        found["max_events"] = (found["max_events"] or 0) + refused
        if not refused and memsw_limit < UNLIMITED_BYTES:
            found["swap_max_events"] = None
            if memsw_limit <= limit:
                found["max_events"] = None
    return found


def counts_page_tables(cgroup: Path, version: int) -> bool:
    """Return whether memory.stat counts the page tables of processes, of which `cgroup` has at least one.

    It does not on 6.18.15 of Debian: there it has 0 beside the page tables in /proc/PID/status and in
    /proc/vmstat, and no hook sees a change; samples are null then. 6.1, 6.12, 7.3 and 6.18.44 count them.
    """
    return version == 1 or bool(read_columns(cgroup, version)["page_tables_bytes"])


_EFFECTIVE: Final[Mapping[int, Mapping[str, str]]] = {
    1: {
        "effective_limit_bytes": "memory.limit_in_bytes",
        "effective_swap_limit_bytes": "memory.memsw.limit_in_bytes",
    },
    2: {
        "effective_limit_bytes": "memory.max",
        "effective_high_bytes": "memory.high",
        "effective_swap_limit_bytes": "memory.swap.max",
    },
}
_SWAP_USAGE: Final = {1: "memory.memsw.usage_in_bytes", 2: "memory.swap.current"}


def _effective(cgroup: Path, version: int) -> Columns:
    """Return what a cgroup has together with the cgroups above and below it."""
    files = _EFFECTIVE[version]
    chain = [one for one in (cgroup, *cgroup.parents) if (one / files["effective_limit_bytes"]).exists()]
    found: Columns = {
        column: min(_read(one, file) for one in chain if (one / file).exists())
        for column, file in files.items()
    }
    swap = files["effective_swap_limit_bytes"]
    rooms = [
        (max(_read(one, swap) - _read(one, _SWAP_USAGE[version]), 0), levels)
        for levels, one in enumerate(chain)
        if _read(one, swap) < UNLIMITED_BYTES
    ]
    room, levels = min(rooms, default=(UNLIMITED_BYTES, None))
    found |= {"swap_room_bytes": room, "swap_bound_levels": levels}
    if version == 2:
        children = [one.parent for one in cgroup.glob("*/memory.min")]
        found["protected_bytes"] = sum(
            min(_read(one, "memory.current"), _read(one, "memory.min")) for one in children
        )
    return found


def _read(cgroup: Path, name: str) -> int:
    size = parse_size((cgroup / name).read_bytes())
    assert size is not None
    return size
