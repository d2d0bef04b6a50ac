"""Comparison of the ledger with the kernel's own counters."""

from __future__ import annotations

from typing import Any

import pandas as pd
from support.settled import QUIET_S

from tracer.enumerations import CATEGORY


def ledger_pages(trace: Any, memcg_id: int) -> dict[str, int]:
    """Return category -> pages: the sum of the cgroup's rows of `charge`."""
    charge = trace.charge[trace.charge["cgroup_id"] == memcg_id]
    pages = charge.groupby("category", observed=False)["pages"].sum()
    return {category: int(pages.get(category, 0)) for category in CATEGORY.names}


def kernel_pages(trace: Any, memcg_id: int) -> dict[str, Any]:
    """Return category -> pages: the growth in memory.stat between the first and the last sample.

    A cgroup that was made during the trace began with nothing. NA stands for a counter that the kernel does
    not print.
    """
    samples = trace.samples[trace.samples["cgroup_id"] == memcg_id]
    columns = [f"{category}_bytes" for category in CATEGORY.names]
    grown = samples.loc[samples["source"] == "end", columns].iloc[-1].astype("Int64")
    at_start = samples.loc[samples["source"] == "start", columns]
    if len(at_start):
        grown -= at_start.iloc[0].astype("Int64")
    else:
        assert trace.cgroups.set_index("cgroup_id").loc[memcg_id, "created"] is not pd.NaT
    return {c: pd.NA if pd.isna(v) else int(v) / 4096 for c, v in zip(CATEGORY.names, grown, strict=True)}


def differences(trace: Any, memcg_id: int) -> dict[str, tuple[int, float]]:
    """Return category -> (pages in the ledger, pages by the kernel) of the categories that differ.

    A kernel that reclaims idle memory (DAMON) may evict file pages of a settled cgroup before the last
    sample, and memory.stat may lag behind that.
    """
    ledger, kernel = ledger_pages(trace, memcg_id), kernel_pages(trace, memcg_id)
    rows = trace.pagecache
    since = trace.samples.index.max() - pd.Timedelta(QUIET_S, "s")
    rows = rows[(rows["op"] == "delete") & (rows["cgroup_id"] == memcg_id) & (rows.index > since)]
    late = dict.fromkeys(CATEGORY.names, 0) | {"file": int(rows["nr_pages"].sum())}
    return {
        c: (ledger[c], kernel[c])
        for c in CATEGORY.names
        if not pd.isna(kernel[c]) and not -1 < kernel[c] - ledger[c] < 1 + late[c]
    }
