"""Comparison of the ledger with the kernel's own counters."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
from support.memcg_files import Columns, read_columns
from support.settled import QUIET_S, settle

from tracer.categories import CATEGORIES
from tracer.enumerations import CATEGORY
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy, walk

_STOCKED: Final = ("slab_reclaimable", "slab_unreclaimable", "kernel")
_STOCK_BYTES: Final = mmap.PAGESIZE * (os.cpu_count() or 1)


def ledger_pages(trace: Any, memcg_id: int) -> dict[str, int]:
    """Return category -> pages: the sum of the cgroup's rows of `charge`."""
    charge = trace.charge[trace.charge["cgroup_id"] == memcg_id]
    pages = charge.groupby("category", observed=False)["pages"].sum()
    return {category: int(pages.get(category, 0)) for category in CATEGORY.names}


def kernel_bytes(trace: Any, memcg_id: int, flushed: Columns | None = None) -> dict[str, Any]:
    """Return category -> bytes: the growth in memory.stat between the first and the last sample, or between
    the first sample and a later reading.

    A cgroup that was made during the trace began with nothing. NA stands for a counter that the kernel does
    not print.
    """
    samples = trace.samples[trace.samples["cgroup_id"] == memcg_id]
    columns = [f"{category}_bytes" for category in CATEGORY.names]
    end = samples.loc[samples["source"] == "end", columns].iloc[-1]
    grown = (end if flushed is None else pd.Series(flushed)[columns]).astype("Int64")
    at_start = samples.loc[samples["source"] == "start", columns]
    if len(at_start):
        grown -= at_start.iloc[0].astype("Int64")
    else:
        assert trace.cgroups.set_index("cgroup_id").loc[memcg_id, "created"] is not pd.NaT
    return {c: pd.NA if pd.isna(v) else int(v) for c, v in zip(CATEGORY.names, grown, strict=True)}


def ledger_bytes(trace: Any, memcg_id: int) -> dict[str, int]:
    """Return category -> bytes: the sum of the cgroup's rows of `charge`, whose pages are rounded."""
    charge = trace.charge[trace.charge["cgroup_id"] == memcg_id]
    bytes_ = charge.groupby("category", observed=False)["bytes"].sum()
    return {category: int(bytes_.get(category, 0)) for category in CATEGORY.names}


def unequal(trace: Any, memcg_ids: Sequence[int]) -> list[int]:
    """Return those of many cgroups of which a category differs from the last sample: `differences` is to
    decide on them. It takes 10 ms for each cgroup.
    """
    columns = [f"{category}_bytes" for category in CATEGORY.names]
    samples = trace.samples.set_index("cgroup_id")
    at_start, at_end = (samples.loc[samples["source"] == source, columns] for source in ("start", "end"))
    made = trace.cgroups.loc[trace.cgroups["created"].notna(), "cgroup_id"]
    assert set(memcg_ids) <= {*at_start.index, *made} and set(memcg_ids) <= {*at_end.index}
    began_with = at_start.reindex(memcg_ids)
    began_with.loc[~began_with.index.isin(at_start.index)] = 0
    sums = trace.charge.pivot_table("bytes", "cgroup_id", "category", "sum", fill_value=0, observed=False)
    sums = sums.reindex(memcg_ids, fill_value=0)[list(CATEGORY.names)].set_axis(columns, axis=1)
    off = at_end.loc[memcg_ids] - began_with - sums
    return [int(one) for one in off.index[off.fillna(0).ne(0).any(axis=1)]]


def differences(
    trace: Any, memcg_id: int, subtree: Sequence[int] | None = None
) -> dict[str, tuple[float, ...]]:
    """Return category -> bytes, in the ledger and by the kernel, of the categories that differ.

    `subtree`: the ids of the cgroup and of all that were below it, whose rows add up to the kernel's numbers.
    On v1 these lack the kernel memory of removed cgroups, which then is not compared.

    A kernel that reclaims idle memory (DAMON) may evict file pages of a settled cgroup before the last
    sample, and memory.stat may lag behind that. It also lags behind what a worker frees after the cgroup was
    settled. So a category that differs from the last sample is compared with memory.stat as flushed now; its
    third number is that one.

    Samples also lag behind what a CPU's stock of objects hands over after the cgroup was
    settled: less than a page of each CPU (mod_objcg_state() in mm/memcontrol.c; 6.1 is seen to do so).
    """
    parts = [ledger_bytes(trace, one) for one in subtree or [memcg_id]]
    ledger = {category: sum(part[category] for part in parts) for category in CATEGORY.names}
    kernel = kernel_bytes(trace, memcg_id)
    if subtree is not None and memory_hierarchy().version == 1:
        kernel |= {category.name: pd.NA for category in CATEGORIES if category.v1 is None}
    rows = trace.pagecache
    since = trace.samples.index.max() - pd.Timedelta(QUIET_S, "s")
    rows = rows[(rows["op"] == "delete") & (rows["cgroup_id"] == memcg_id) & (rows.index > since)]
    late = dict.fromkeys(CATEGORY.names, 0) | {"file": int(rows["nr_pages"].sum()) * 4096}
    wrong: dict[str, tuple[float, ...]] = {
        c: (ledger[c], kernel[c])
        for c in CATEGORY.names
        if not pd.isna(kernel[c]) and not 0 <= kernel[c] - ledger[c] <= late[c]
    }
    hierarchy = memory_hierarchy()
    path = next((one.path for one in walk(hierarchy) if one.id == memcg_id), None) if wrong else None
    if path is None:
        return wrong
    directory = hierarchy.directory(path)
    settle(directory)
    later = kernel_bytes(trace, memcg_id, read_columns(directory, hierarchy.version))
    latest = {c: kernel[c] if pd.isna(later[c]) else later[c] for c in wrong}  # v1 prints no slab
    return {
        c: (*both, later[c])
        for c, both in wrong.items()
        if abs(latest[c] - both[0]) > _STOCK_BYTES * (c in _STOCKED)
    }
