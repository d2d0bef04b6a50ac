"""Synthetic traces: tables made from plain rows, with the dtypes of the reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
import pytest
from synthetic.unset import unset_row

from tracer.analysis.trace import AnalysedTrace
from tracer.schema import TABLES

PAGE = 4096
MIB = 1 << 20
START_NS = 1_764_000_000_000_000_000
_BATCH_ROWS = 7


class SyntheticTrace(AnalysedTrace):
    """A trace in memory. `add` adds rows; a missing column is null if it may be, else the empty value.

    What was read from the rows or follows from them is kept until they change.
    """

    __repr__ = object.__repr__

    def __init__(self) -> None:
        self.meta: Any = {
            **{"page_size": PAGE, "cpus": 2, "cgroup_version": 1, "memory": {"swap_total_bytes": 0}},
            "probes": {"oom": "tp_btf/mark_victim"},
            "clock": {"monotonic_ns": 0, "realtime_ns": START_NS},
            "ended": "2026-01-31T12:00:10+00:00",
            "lost": {},
        }
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}

    def add(self, table: str, seconds: float | None = None, **row: Any) -> None:
        if seconds is not None:
            row["time"] = self.ns(seconds)
        unset = unset_row(table)
        if unknown := set(row) - set(unset):
            raise AssertionError(f"{table} has no columns {unknown}")
        self.recorded()[table].append(unset | row)

    def charged(self, seconds: float, cgroup_id: int, category: str, amount: int, **row: Any) -> None:
        self.add(
            "charge",
            seconds,
            **{"cgroup_id": cgroup_id, "category": category, "bytes": amount, "pages": amount // PAGE} | row,
        )

    def recorded(self) -> dict[str, list[dict[str, Any]]]:
        """Return table -> its rows, to change them."""
        for name in vars(self).keys() - _RECORDED:
            delattr(self, name)
        return self._rows

    def forget(self, table: str) -> None:
        self.recorded()[table].clear()

    @staticmethod
    def ns(seconds: float) -> int:
        return START_NS + round(seconds * 1e9)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        rows = self._tables.get(name)
        if rows is None:
            rows = self._tables[name] = pa.Table.from_pylist(self._rows[name], schema=TABLES[name])
        return rows if columns is None else rows.select(list(columns))

    @cached_property
    def _tables(self) -> dict[str, pa.Table]:
        return {}

    def batches(self, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self.table(name, columns).to_batches(max_chunksize=_BATCH_ROWS)

    def rows(self, name: str) -> int:
        return len(self._rows[name])


_RECORDED: Final = frozenset(vars(SyntheticTrace()))
"""The attributes that do not follow from others."""


@pytest.fixture
def trace() -> SyntheticTrace:
    return SyntheticTrace()


@pytest.fixture
def new_trace() -> type[SyntheticTrace]:
    """Return the class of traces, because hypothesis uses one fixture for all examples of a test."""
    return SyntheticTrace


@pytest.fixture
def page_cache_experiment(trace: SyntheticTrace) -> SyntheticTrace:
    """Return a trace of cgroup 7 with a limit of 100 MiB, in steps of 1 MiB, 10 ms apart.

    From 0.1 s on, python3 (tgid 41) reads a file of 117 MiB, the last 17 MiB of which evict older cache.
    From 2 s on, it allocates 99 MiB, and each MiB evicts 1 MiB of cache. At 3.5 s three reclaim attempts
    free nothing, and at 3.6 s it is killed with 99 MiB of anonymous memory and 1 MiB of cache. 5 pages had
    been refaulted.
    """
    limit = 100 * MIB
    created = trace.ns(0)
    trace.add(
        "cgroups", cgroup_id=7, path="/docker/4f2a", container="web", container_id="4f2a99", created=created
    )
    trace.add("tasks", tgid=41, start_ns=5, comm="python3", first_seen=trace.ns(0.05), exited=trace.ns(3.7))
    trace.add("tasks", tgid=41, start_ns=9, comm="reused", first_seen=trace.ns(3.9))
    trace.add("stacks", stack_id=3, frames=["out_of_memory", "try_charge_memcg", "handle_mm_fault"])
    usage = 0
    for step in range(117):
        seconds = 0.1 + step / 100
        if usage == limit:
            _evict_one_mib(trace, seconds, step - 100)
        usage = min(usage + MIB, limit)
        trace.add(
            "pagecache",
            seconds,
            cgroup_id=7,
            tgid=41,
            op="add",
            cause="readahead",
            inode_id=1,
            index=step * 256,
            nr_pages=256,
        )
        trace.charged(seconds, 7, "file", MIB, tgid=41, usage_bytes=usage, limit_bytes=limit)
    for step in range(99):
        seconds = 2 + step / 100
        _evict_one_mib(trace, seconds, 17 + step)
        trace.charged(seconds, 7, "anon", MIB, tgid=41, usage_bytes=usage, limit_bytes=limit)
    for step in range(3):
        trace.add(
            "reclaim",
            3.5 + step / 100,
            kind="memcg",
            cgroup_id=7,
            task_cgroup_id=7,
            tgid=41,
            pid=42,
            duration_ns=2_000_000,
            scanned=100,
            priority=0,
            usage_bytes=limit,
            limit_bytes=limit,
        )
    trace.add(
        "samples",
        3.6,
        cgroup_id=7,
        source="oom",
        kill_id=1,
        usage_bytes=limit,
        limit_bytes=limit,
        inactive_file_bytes=MIB // 2,
        workingset_refault_file=5,
        pgsteal=116 * 256,
        **dict.fromkeys((f"{name}_bytes" for name in _STAT), 0) | {"anon_bytes": 99 * MIB, "file_bytes": MIB},
    )
    trace.add(
        "oom",
        3.6,
        ktime_ns=777,
        kill_id=1,
        constraint="memcg",
        limit_owner_cgroup_id=7,
        usage_bytes=limit,
        limit_bytes=limit,
        trigger_pid=42,
        trigger_tgid=41,
        trigger_comm="python3",
        trigger_cgroup_id=7,
        is_told=True,
        gfp=0xCC0,
        kernel_stack_id=3,
        pid=41,
        tgid=41,
        comm="python3",
        cgroup_id=7,
        anon_rss_bytes=98 * MIB,
    )
    trace.charged(3.65, 7, "anon", -99 * MIB, usage_bytes=MIB, limit_bytes=limit)
    return trace


_STAT = (
    *("anon", "file", "shmem", "file_dirty", "file_writeback", "swapcached", "unevictable", "sock", "percpu"),
    *("slab_reclaimable", "slab_unreclaimable", "kernel", "kernel_stack", "page_tables", "vmalloc"),
)


def _evict_one_mib(trace: SyntheticTrace, seconds: float, mib: int) -> None:
    trace.add(
        "reclaim",
        seconds,
        kind="memcg",
        cgroup_id=7,
        task_cgroup_id=7,
        tgid=41,
        pid=42,
        duration_ns=1_000_000,
        scanned=300,
        reclaimed=256,
        priority=12,
        usage_bytes=99 * MIB,
        limit_bytes=100 * MIB,
    )
    trace.add(
        "pagecache",
        seconds,
        cgroup_id=7,
        tgid=41,
        op="delete",
        cause="reclaim_memcg",
        inode_id=1,
        index=mib * 256,
        nr_pages=256,
    )
    trace.charged(seconds, 7, "file", -MIB, tgid=41, usage_bytes=99 * MIB, limit_bytes=100 * MIB)
