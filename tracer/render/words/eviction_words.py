"""The names of files, cgroups, causes and processes in tables and pictures of evictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from tracer.analysis.core.columns import optional_text

WHY: Final = {
    "reclaim_memcg": "to keep a cgroup within its limit",
    "reclaim_direct": "for an allocation that found the machine short of memory",
    "reclaim_kswapd": "in the background, because the machine was short of memory or the cache was idle",
}
COUNTED_LESS: Final = (
    "the kernel forgets old evictions, and with the multi-generational LRU (lru_gen) it skips pages that are "
    "now charged to another cgroup"
)
"""Why the kernel counts fewer refaults than a trace has."""
_CAUSES: Final = {
    "read": "read by a system call",
    "write": "written by a system call",
    "readahead": "read ahead, or on request",
    "fault": "page fault in a mapping",
    "truncate": "file truncated or removed, device closed",
    "invalidate": "dropped on request (fadvise), or stale",
    "drop_caches": "vm.drop_caches was written",
    "other": "not determined",
    **WHY,
}


def file_names(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return (owners, the process that evicted most, use, file). A text may be empty."""
    path = optional_text(row["path"])
    if path is None and row["dev"] is None:
        return "", "", "", "files that were not told apart"
    name = f"no name known: {row['dev']} inode {row['ino']}" if path is None else path
    if not pd.isna(row["deleted"]) and row["deleted"]:
        name = f"(deleted) {name}"
    use = optional_text(row["use"]) or ""
    owners = f"{row['owners']} cgroups" if row["owners"] > 1 else ""
    if pd.isna(row["evictor_tgid"]):
        return owners, "", use, name
    evictor = f"{optional_text(row['evictor_comm']) or 'pid'} {int(row['evictor_tgid'])}"
    return owners, evictor, use, name


def cgroup_names(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return (the charged cgroup, the cgroup of the acting tasks)."""
    owner, actor = optional_text(row["cgroup"]), optional_text(row["task_cgroup"])
    charged = optional_text(row["container"]) or owner or "nobody"
    run = f" run {row['run']}" if not pd.isna(row["runs"]) and row["runs"] > 1 else ""
    removed = run + (" (removed)" if row["charged_to"] == "removed" else "")
    is_own = not pd.isna(row["cgroup_id"]) and row["cgroup_id"] == row["task_cgroup_id"]
    return charged + removed, "its own" if is_own else actor or "not known"


def cause_names(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return (cause, its meaning)."""
    return str(row["cause"]), _CAUSES[str(row["cause"])]


def process_names(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return (process, its cgroup)."""
    comm = optional_text(row["comm"])
    process = "not known" if pd.isna(row["tgid"]) else f"{comm or 'pid'} {row['tgid']}"
    return process, optional_text(row["task_cgroup"]) or "not known"
