"""Samples of `record --stacks`: the stacks with which processes allocated.

Each sample represents `weight_bytes` that were charged (docs/trace-format.md). It has a user stack and the
kernel stack to which it led. Frames with the same symbol are one function, at any offset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.columns import Int64s, integers, times_ns
from tracer.analysis.core.lookups import Frames
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.results.memory import ChargedStack

_NO_NAME: Final = "[unknown]"
_LEAST_PART: Final = 4
_NEARLY_ALL_PERCENT: Final = 80

KINDS: Final = ("anon", "shmem", "file", "kernel")
"""The kinds of memory that is sampled; sockets count as kernel memory."""


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
    """Return the rows of `stack_samples` from `begin_ns` to `end_ns`, both included (ns since the epoch;
    None: no bound).

    `members`: only those that were charged to these cgroups; None: to any.
    """
    moments = times_ns(samples)
    first = 0 if begin_ns is None else np.searchsorted(moments, begin_ns)
    last = len(moments) if end_ns is None else np.searchsorted(moments, end_ns, "right")
    rows = samples.iloc[first:last]
    return rows if members is None else rows[np.isin(integers(rows["cgroup_id"]), members)]


def charged(trace: TraceTables, samples: pd.DataFrame) -> list[Charged]:
    """Return rows of `stack_samples` summed up by process name and functions, the heaviest first."""
    functions = trace.functions
    sums: dict[tuple[str, Frames, Frames], int] = {}
    named = naming.with_names(trace, samples)
    for comm, rows in named.groupby("comm", dropna=False, observed=True):
        name = _NO_NAME if pd.isna(comm) else str(comm)
        columns = (integers(rows[name]) for name in ("user_stack_id", "kernel_stack_id", "weight_bytes"))
        for user, kernel, weight in _by_stacks(*columns):
            key = (name, functions.functions_for(user)[::-1], functions.functions_for(kernel)[::-1])
            sums[key] = sums.get(key, 0) + weight
    rows_of_all = [Charged(*key, weight) for key, weight in sums.items()]
    return sorted(rows_of_all, key=lambda row: (-row.weight_bytes, row))


def charged_in(
    trace: TraceTables, samples: pd.DataFrame, kinds: Sequence[str] = KINDS
) -> tuple[ChargedStack, ...]:
    """Return the stacks with which memory of some kinds was charged, the heaviest first.

    Samples of one process name are merged by the functions that they have in common, innermost first. A stack
    is extended to its callers as long as callers with a quarter of all bytes each have nearly all of its
    bytes; stacks with less than a quarter of all bytes are left out.
    """
    if samples.empty:
        return ()
    picked = np.flatnonzero(np.isin(_kinds_of(trace, samples), kinds))
    functions, columns = trace.functions, ("user_stack_id", "kernel_stack_id", "weight_bytes")
    stacks = [integers(samples[name])[picked] for name in columns]
    tgid = integers(samples["tgid"])[picked]
    comms = trace.processes.comms(trace.processes.positions_at(tgid, times_ns(samples)[picked]))
    whole = int(stacks[-1].sum())
    # Without groupby: of the few samples before one of many kills, its overhead would be most of the time.
    rows_of: dict[str | None, list[int]] = {}
    for row, comm in enumerate(comms.tolist()):
        rows_of.setdefault(None if pd.isna(comm) else str(comm), []).append(row)
    found = []
    for comm, rows in rows_of.items():
        charges = [
            (functions.functions_for(user), functions.functions_for(kernel), weight)
            for user, kernel, weight in _by_stacks(*(column[rows] for column in stacks))
        ]
        tgids = np.unique(tgid[rows]).tolist()
        for user, sampled_bytes in _in_common([(path, weight) for path, _, weight in charges], whole):
            below = [(path, weight) for own, path, weight in charges if own[: len(user)] == user]
            entered = (
                _in_common(below, sampled_bytes)
                if user
                else _in_common([(path, weight) for own, path, weight in charges if not own], sampled_bytes)
            )
            found.append(
                ChargedStack(
                    comm=comm,
                    tgid=tgids[0] if len(tgids) == 1 else None,
                    processes=len(tgids),
                    of=kinds[0] if len(kinds) == 1 else "all",
                    user=user or None,
                    kernel=(entered[0][0] or None) if entered else None,
                    sampled_bytes=sampled_bytes,
                    of_bytes=whole,
                )
            )
    return tuple(sorted(found, key=lambda one: (-one.sampled_bytes, one.comm or "", one.user or ())))


def _kinds_of(trace: TraceTables, samples: pd.DataFrame) -> npt.NDArray[np.object_]:
    """Return the kind of each sample: shmem is page cache that a function of mm/shmem.c charged."""
    kinds = np.array(samples["category"], dtype=object)
    kinds[kinds == "sock"] = "kernel"
    for at in np.flatnonzero(kinds == "file").tolist():
        frames = trace.functions.functions_for(integers(samples["kernel_stack_id"])[at])
        if any(frame.startswith("shmem_") for frame in frames):
            kinds[at] = "shmem"
    return kinds


def _in_common(paths: Sequence[tuple[Frames, int]], whole: int) -> list[tuple[Frames, int]]:
    """Return (inner frames, weight) of the stacks that have a quarter of `whole` each, the heaviest first."""

    def below(prefix: Frames, members: Sequence[tuple[Frames, int]]) -> list[tuple[Frames, int]]:
        of_next: dict[Frames, list[tuple[Frames, int]]] = {}
        for path, weight in members:
            of_next.setdefault(path[: len(prefix) + 1], []).append((path, weight))
        weight = sum(weight for _, weight in members)
        heavy = {
            longer: group
            for longer, group in of_next.items()
            if longer != prefix and sum(weight for _, weight in group) * _LEAST_PART >= whole
        }
        kept = sum(weight for group in heavy.values() for _, weight in group)
        if prefix and kept * 100 < weight * _NEARLY_ALL_PERCENT:
            return [(prefix, weight)]
        found = [each for longer, group in heavy.items() for each in below(longer, group)]
        ended = sum(weight for path, weight in members if path == prefix)
        return found + ([((), ended)] if not prefix and ended and ended * _LEAST_PART >= whole else [])

    return sorted(below((), paths), key=lambda each: (-each[1], each[0]))


def _by_stacks(users: Int64s, kernels: Int64s, sampled: Int64s) -> Iterator[tuple[int, int, int]]:
    """Yield (user stack, kernel stack, weight) of each pair that occurs; `NO_ID`: no stack."""
    ids = np.column_stack([users, kernels])
    pairs, pair_of = np.unique(ids, axis=0, return_inverse=True)
    weights = np.zeros(len(pairs), np.int64)
    np.add.at(weights, pair_of.ravel(), sampled)
    for (user, kernel), weight in zip(pairs.tolist(), weights.tolist(), strict=True):
        yield user, kernel, weight
