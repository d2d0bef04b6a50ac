"""Samples of `record --stacks`: the stacks with which processes allocated.

Each sample represents `weight_bytes` that were charged (docs/trace-format.md). It has a user stack and the
kernel stack to which it led. Frames with the same symbol are one function, at any offset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

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


class SampledStack(NamedTuple):
    """Bytes that were sampled in one process with one stack: frames as they were recorded, innermost first.

    `cgroup` is the path of the cgroup that was charged, `category` anon, shmem, file, kernel or sock. None:
    not known.
    """

    cgroup: str | None
    container: str | None
    comm: str | None
    tgid: int
    category: str
    user: Frames
    kernel: Frames
    weight_bytes: int

    @property
    def telling_kernel(self) -> Frames:
        """Return the functions of the kernel, unless they only show how the page came: a page fault, a read.

        They are kept for kernel memory, and where no stack of a program could be taken.
        """
        return self.kernel if not self.user or self.category in ("kernel", "sock") else ()


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
    for (comm,), user, kernel, weight in _by_stacks(trace, samples, ("comm",)):
        name = _NO_NAME if comm is None else str(comm)
        key = (name, functions.functions_for(user)[::-1], functions.functions_for(kernel)[::-1])
        sums[key] = sums.get(key, 0) + weight
    rows_of_all = [Charged(*key, weight) for key, weight in sums.items()]
    return sorted(rows_of_all, key=lambda row: (-row.weight_bytes, row))


def by_origin(trace: TraceTables, samples: pd.DataFrame) -> list[SampledStack]:
    """Return rows of `code_samples` summed up by cgroup, process, kind of memory and stack, the heaviest
    first."""
    functions = trace.functions
    found = [
        SampledStack(
            cgroup=cgroup,
            container=container,
            comm=comm,
            tgid=tgid,
            category=category,
            user=functions.frames_for(user) or (),
            kernel=functions.frames_for(kernel) or (),
            weight_bytes=weight,
        )
        for (cgroup, container, comm, tgid, category), user, kernel, weight in _by_stacks(
            trace, samples, ("cgroup", "container", "comm", "tgid", "category")
        )
    ]
    return sorted(found, key=lambda row: (-row.weight_bytes, *map(str, row)))


def _by_stacks(
    trace: TraceTables, samples: pd.DataFrame, names: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], int, int, int]]:
    """Yield (values of the named columns, None for null, user stack, kernel stack, bytes) of each combination
    that occurs; `NO_ID`: no stack."""
    named = naming.with_names(trace, samples)[list(names)]
    stacks = {name: integers(samples[name]) for name in ("stack_id", "kernel_stack_id")}
    keys = [*names, *stacks]
    grouped = named.assign(**stacks, bytes=integers(samples["bytes"])).groupby(
        keys, dropna=False, observed=True, sort=False
    )
    for key, weight in grouped["bytes"].sum().items():
        assert isinstance(key, tuple)
        *values, user, kernel = key
        yield tuple(None if pd.isna(one) else one for one in values), user, kernel, int(weight)
