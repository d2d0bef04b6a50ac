"""Samples of `record --stacks`: the stacks with which processes allocated.

Each sample represents `weight_bytes` that were charged (docs/trace-format.md). It has a user stack and the
kernel stack to which it led. Frames with the same symbol are one function, at any offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.columns import Int64s, integers, times_ns
from tracer.analysis.core.lookups import Frames
from tracer.analysis.core.tables import TraceTables

_NO_NAME: Final = "[unknown]"


class Charged(NamedTuple):
    """Bytes that were sampled in a process; `user` and `kernel` are the functions, outermost first."""

    comm: str
    user: Frames
    kernel: Frames
    weight_bytes: int


def were_asked_for(trace: TraceTables) -> bool:
    """Return whether the trace was recorded with `--stacks`."""
    return (trace.meta.get("filters") or {}).get("stacks_bytes") is not None


def samples_within(
    samples: pd.DataFrame, members: Int64s | None, begin_ns: int | None = None, end_ns: int | None = None
) -> pd.DataFrame:
    """Return the rows of `code_samples` from `begin_ns` to `end_ns`, both included (ns since the epoch;
    None: no bound).

    `members`: only those that were charged to these cgroups; None: to any.
    """
    moments = times_ns(samples)
    first = 0 if begin_ns is None else np.searchsorted(moments, begin_ns)
    last = len(moments) if end_ns is None else np.searchsorted(moments, end_ns, "right")
    rows = samples.iloc[first:last]
    return rows if members is None else rows[np.isin(integers(rows["cgroup_id"]), members)]


def charged(trace: TraceTables, samples: pd.DataFrame) -> list[Charged]:
    """Return rows of `code_samples` summed up by process name and functions, the heaviest first."""
    functions = trace.functions
    sums: dict[tuple[str, Frames, Frames], int] = {}
    named = naming.with_names(trace, samples)
    for comm, rows in named.groupby("comm", dropna=False, observed=True):
        name = _NO_NAME if pd.isna(comm) else str(comm)
        columns = (integers(rows[name]) for name in ("stack_id", "kernel_stack_id", "bytes"))
        for user, kernel, weight in _by_stacks(*columns):
            key = (name, functions.functions_for(user)[::-1], functions.functions_for(kernel)[::-1])
            sums[key] = sums.get(key, 0) + weight
    rows_of_all = [Charged(*key, weight) for key, weight in sums.items()]
    return sorted(rows_of_all, key=lambda row: (-row.weight_bytes, row))


def _by_stacks(users: Int64s, kernels: Int64s, sampled: Int64s) -> Iterator[tuple[int, int, int]]:
    """Yield (user stack, kernel stack, weight) of each pair that occurs; `NO_ID`: no stack."""
    ids = np.column_stack([users, kernels])
    pairs, pair_of = np.unique(ids, axis=0, return_inverse=True)
    weights = np.zeros(len(pairs), np.int64)
    np.add.at(weights, pair_of.ravel(), sampled)
    for (user, kernel), weight in zip(pairs.tolist(), weights.tolist(), strict=True):
        yield user, kernel, weight
