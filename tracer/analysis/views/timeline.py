"""The timeline of cgroups: each quantity in bins of equal length.

Each row of a table is counted in a matrix of (cgroup shown, bin), once for each cgroup shown to which it
belongs. The cost is a pass over the table for each level of nesting, for any number of cgroups and bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.bins import Bins, Grid, Readings, refaulted_bytes, require_bounded, stalled_us
from tracer.analysis.core.columns import (
    Bools,
    Int64s,
    Unsigned,
    column_times_ns,
    distinct,
    integers,
    is_one_of,
    known,
    times_ns,
)
from tracer.analysis.core.evicted import is_evicted
from tracer.analysis.core.ledger import ANON, CACHE, Weights, base_levels
from tracer.analysis.core.rows import TableRows
from tracer.analysis.core.tables import ShmemFiles, TraceTables, page_size, unrecorded_categories
from tracer.analysis.kernel_log import decisions
from tracer.analysis.views import reclaim
from tracer.analysis.views.lost_time import reread_ms
from tracer.analysis.views.reclaim import STALLED, are_stalls_known, is_waited_for
from tracer.enumerations import CATEGORY
from tracer.schema import LATEST_NS
from tracer.trace.read.to_pandas import with_flag

_EVERY_NS: Final = "every_ns"  # in `attrs` of the frame: one row alone does not show its length

_REST_OF_KERNEL: Final = "kernel_other_bytes"
LEVELS: Final[Mapping[str, Weights]] = {
    "anon_bytes": ANON,
    "file_bytes": {"file": 1},
    "cache_bytes": CACHE,
    "shmem_bytes": {"shmem": 1},
    "slab_bytes": {"slab_reclaimable": 1, "slab_unreclaimable": 1},
    "kernel_stack_bytes": {"kernel_stack": 1},
    "page_tables_bytes": {"page_tables": 1},
    _REST_OF_KERNEL: {
        "kernel": 1,
        "slab_reclaimable": -1,
        "slab_unreclaimable": -1,
        "kernel_stack": -1,
        "page_tables": -1,
    },
    "sock_bytes": {"sock": 1},
    "swap_bytes": {"swap": 1},
}
"""Columns that follow from the ledger: category -> sign. anon + cache + shmem + slab + kernel_stack +
page_tables + kernel_other + sock is all that usage counts; kernel_other holds percpu, vmalloc, zswap and what
has no counter of its own, or none that was found."""

_SAMPLED: Final = ("file_dirty_bytes", "file_writeback_bytes", "zswap_bytes")
_EVICTED_BY: Final = {
    "cache_evicted_memcg_bytes": "reclaim_memcg",
    "cache_evicted_direct_bytes": "reclaim_direct",
    "cache_evicted_kswapd_bytes": "reclaim_kswapd",
}


_MOVES: Final = ("cache_added_bytes", "cache_dropped_bytes", *_EVICTED_BY)


def _kinds_of_moves(kinds: pd.DataFrame) -> Int64s:
    """Return for each kind of event its position in `_MOVES`."""
    is_move = [is_one_of(kinds["op"], ["add"])]
    is_move += [is_evicted(kinds) & is_one_of(kinds["cause"], [cause]) for cause in _EVICTED_BY.values()]
    places = [_MOVES.index(name) for name in ("cache_added_bytes", *_EVICTED_BY)]
    return np.asarray(np.select(is_move, places, _MOVES.index("cache_dropped_bytes")), dtype=np.int64)


def timeline(
    trace: TraceTables,
    cgroup: str | int | None = None,
    every: str = "100ms",
    begin: str | float | None = None,
    end: str | float | None = None,
    *,
    run: int | None = None,
) -> pd.DataFrame:
    """Return the memory of a cgroup and all below it over time, a row for each bin.

    `cgroup` is any pattern of `naming.resolve`. All lives (`analysis.core.lives`) of each name that fits are
    shown one after the other; with `run`, that life alone; without a pattern, every cgroup with data in the
    trace. `every` is the length of a bin (`"100ms"`, `"1s"`). `begin` and `end` are seconds from the start of
    the trace (`"1.5s"`, `1.5`) or ISO 8601 times, in UTC unless they have a zone.

    The index, `time` (UTC), is the beginning of the bin. The first columns are the cgroup of the row:
    `cgroup` (its path), `container` (null: not known), both categorical, `cgroup_id` and `run`. If a name
    has several lives, each has rows from the bin in which it was created to the last one in which it
    existed, or in which anything was counted for it.

    Levels are in bytes, at the end of the bin: usage, limit, high (memory.high), anon, file, cache, shmem,
    slab, kernel_stack, page_tables, kernel_other, sock, swap, file_dirty, file_writeback, zswap, each with
    `_bytes`. `file_bytes` is the kernel's NR_FILE_PAGES, which contains shmem; `cache_bytes` does not.
    `kernel_other_bytes` contains zswap, which holds swapped pages, compressed. Levels of categories are the
    start sample plus the ledger. Usage (`ledger.usage`) and limit are the latest reading of the page counter,
    high, dirty, writeback and zswap the latest sample. NA means not known yet, or a category that was not
    recorded; for limit and high, it also means that none is set, and `is_limited` and `is_high_limited` are
    then false.

    Flows are sums over the bin:

    * `cache_added_bytes`; `cache_evicted_bytes`, taken by reclaim, and of that `cache_evicted_memcg_bytes`,
      `cache_evicted_direct_bytes` and `cache_evicted_kswapd_bytes`, by cause; `cache_dropped_bytes`,
      truncated or invalidated (without shmem); `cache_refaulted_bytes`, evicted within the trace and read
      again in the bin (NA: events were summed in it, see `summed`);
    * `refault_bytes`, file pages that the kernel counted as refaulted, in the bin of the sample that first
      has them; `psi_some_us` and `psi_full_us`, by `core.bins.stalled_us`;
    * `reclaim_attempts` that began in the bin for a target in the subtree, their `reclaimed_bytes` and
      `scanned_pages`, and `reclaim_stall_ms`, the time of all but those of kswapd;
    * `swap_written_bytes` and `swap_read_bytes`, by the time at which the IO was queued (NA: not recorded),
      and its mean duration, `swap_write_mean_ms` and `swap_read_mean_ms` (NaN: no end was seen);
    * `oom_kills`, victims in the subtree, or killed for the cgroup's limit.

    The time that tasks of the subtree waited is summed up over the tasks, each moment in its own bin (NaN:
    not recorded): `stalled_reclaim_ms`, in reclaim for any target, and of that `stalled_throttled_ms`,
    throttled inside reclaim; `stalled_dirty_ms`, writers held back for dirty pages; `stalled_swap_in_ms`,
    page faults on swapped-out pages, and `stalled_high_ms`, above memory.high, both without the reclaim
    inside them; `stalled_reread_ms`, for file contents that had been evicted from the subtree
    (`analysis.views.lost_time`).

    Raises TracerError for a cgroup that is not in the trace, UsageError for times that make no sense.
    """
    if cgroup is not None:
        ids = naming.select(trace, cgroup, run)
    else:
        ids = naming.with_data(trace) if run is None else [naming.select_run(trace, run)]
    bins = Bins.cover(trace, every, begin, end)
    require_bounded(bins, every, len(ids))
    grid = Grid.from_cgroups(trace, ids, bins)
    columns: dict[str, Any] = {}
    columns |= _counter_levels(trace, grid)
    columns |= _ledger_levels(trace, grid)
    columns |= _page_cache_flows(trace, grid)
    columns["refault_bytes"] = refaulted_bytes(trace, grid)
    columns |= _reclaim_flows(trace, grid)
    columns |= _swap_io(trace, grid)
    columns |= _stalled(trace, grid)
    columns["stalled_reread_ms"] = reread_ms(trace, grid)
    for who in ("some", "full"):
        columns[f"psi_{who}_us"] = stalled_us(trace, grid, f"psi_{who}_total_us")
    columns["oom_kills"] = _oom_kills(trace, grid)

    index = pd.DatetimeIndex(np.tile(bins.begins(), len(ids)), name="time").tz_localize("UTC")
    columns |= _whose(trace, ids, bins.count)
    frame = pd.DataFrame({name: columns[name] for name in COLUMNS}, index=index)
    frame.attrs[_EVERY_NS] = int(bins.width_ns)
    return frame[_lived(trace, grid, frame)]


def row_length(timeline: pd.DataFrame) -> pd.Timedelta:
    """Return the length of the rows of a timeline, even if it has only one row."""
    if _EVERY_NS not in timeline.attrs:
        return pd.Timedelta(timeline.index[1] - timeline.index[0])
    return pd.Timedelta(timeline.attrs[_EVERY_NS], "ns")


def _whose(trace: TraceTables, ids: list[int], bins: int) -> dict[str, Any]:
    """Return the columns that identify the cgroup of a row."""
    containers = [trace.places.container_of(number)[0] for number in ids]
    return {
        "cgroup": _repeated(naming.labels_of(trace.cgroups, ids), bins),
        "cgroup_id": np.repeat(np.array(ids, dtype=np.int64), bins),
        "container": _repeated(containers, bins),
        "run": np.repeat(
            np.array([trace.places.lives.life_for(number).run for number in ids], np.int64), bins
        ),
    }


def _repeated(labels: Sequence[str | None], bins: int) -> pd.Categorical:
    categories = pd.Index(sorted({label for label in labels if label is not None}), dtype=object)
    codes = categories.get_indexer(pd.Index(labels, dtype=object))
    return pd.Categorical.from_codes(np.repeat(codes, bins), categories=categories)


def _lived(trace: TraceTables, grid: Grid, frame: pd.DataFrame) -> Bools:
    """Return a mask of the rows to keep: all rows of the only life of a name; of one of several lives, those
    during it."""
    shape = len(grid.ids), grid.bins.count
    counted = (frame[list(FLOWS)].fillna(0) != 0).any(axis=1).to_numpy(dtype=bool).reshape(shape)
    spans = np.array([trace.places.lifetime_ns(number) for number in grid.ids], np.int64).reshape(-1, 2)
    first, end = grid.bins.slot(spans[:, :1]), grid.bins.slot(spans[:, 1:])
    slot = np.arange(1, grid.bins.slots)
    to_come = np.logical_or.accumulate(((slot <= end) | counted)[:, ::-1], axis=1)[:, ::-1]
    lives = trace.places.lives.by_name(grid.ids)
    alone = [named[0].cgroup_id for named in lives if len(named) == 1]
    is_alone = np.isin(np.array(grid.ids, np.int64), alone).reshape(-1, 1)
    return np.asarray((is_alone | ((slot >= first) & to_come)).ravel())


PLACE: Final = ("cgroup", "cgroup_id", "container", "run")
"""The columns that identify the cgroup of a row."""

FLOWS: Final = (
    "cache_added_bytes",
    "cache_evicted_bytes",
    "cache_dropped_bytes",
    "cache_refaulted_bytes",
    "reclaim_attempts",
    "reclaim_stall_ms",
    "swap_written_bytes",
    "swap_read_bytes",
    *STALLED,
    "stalled_reread_ms",
    "oom_kills",
)
"""Columns that can count something for a cgroup that was removed: its cache outlives it."""

COLUMNS: Final = (
    *PLACE,
    "usage_bytes",
    "limit_bytes",
    "is_limited",
    "high_bytes",
    "is_high_limited",
    *LEVELS,
    "file_dirty_bytes",
    "file_writeback_bytes",
    "cache_added_bytes",
    "cache_evicted_bytes",
    *_EVICTED_BY,
    "cache_dropped_bytes",
    "cache_refaulted_bytes",
    "refault_bytes",
    "reclaim_attempts",
    "reclaimed_bytes",
    "scanned_pages",
    "reclaim_stall_ms",
    "swap_written_bytes",
    "swap_write_mean_ms",
    "swap_read_bytes",
    "swap_read_mean_ms",
    *STALLED,
    "stalled_reread_ms",
    "psi_some_us",
    "psi_full_us",
    "oom_kills",
    "zswap_bytes",
)


def _counter_levels(trace: TraceTables, grid: Grid) -> dict[str, Any]:
    limits = {
        "limit_bytes": Readings.from_counter(trace, "limit_bytes"),
        "high_bytes": Readings.from_samples(trace.samples, "high_bytes"),
    }
    columns: dict[str, Any] = {}
    for name, read in limits.items():
        columns |= with_flag(name, grid.latest(read))
    columns["usage_bytes"] = grid.latest(Readings.from_usage(trace, grid.ids))
    return columns | {name: grid.latest(Readings.from_samples(trace.samples, name)) for name in _SAMPLED}


def _ledger_levels(trace: TraceTables, grid: Grid) -> dict[str, Any]:
    charges, changed = trace.charges, grid.zeros(len(CATEGORY.names))
    grid.add(changed, charges.category, charges.cgroup_id, charges.time, charges.bytes)
    running = dict(zip(CATEGORY.names, changed.cumsum(axis=2, out=changed), strict=True))
    exists = _exists(trace, grid)
    columns: dict[str, Any] = {}
    samples, unrecorded = TableRows.whole(trace.samples), unrecorded_categories(trace)
    for name, parts in LEVELS.items():
        left_in = unrecorded if name == _REST_OF_KERNEL else ()
        weights = {one: sign for one, sign in parts.items() if sign > 0 or one not in left_in}
        bases, is_known = base_levels(samples, trace.places, grid.ids, weights, unrecorded)
        level = sum(weight * running[category] for category, weight in weights.items())
        columns[name] = grid.shown_or_na(level + bases.reshape(-1, 1), exists & is_known.reshape(-1, 1))
    return columns


def _exists(trace: TraceTables, grid: Grid) -> Bools:
    """Return a mask of (cgroup shown, slot): the cgroup existed by the end of the slot."""
    created = pd.Series(
        column_times_ns(trace.cgroups["created"]), index=pd.Index(integers(trace.cgroups["cgroup_id"]))
    )
    first = np.array([max(created.get(number, 0), 0) for number in grid.ids], dtype=np.int64)
    return np.arange(grid.bins.slots) >= grid.bins.slot(first).reshape(-1, 1)


def _page_cache_flows(trace: TraceTables, grid: Grid) -> dict[str, Any]:
    """Return the flows of page cache. All pages of a run count in the bin of its first folio."""
    size, shmem = page_size(trace), ShmemFiles.from_inodes(trace.inodes)
    events, moved = trace.cache_events, grid.zeros(len(_MOVES))
    is_shmem = shmem.hold(*(integers(events.files[name]) for name in ("inode_id", "dev")))
    kind_of_move = _kinds_of_moves(events.kinds)
    owner_of_kind = integers(events.kinds["cgroup_id"])
    is_dropped = kind_of_move == _MOVES.index("cache_dropped_bytes")
    for part in events.batches():
        pages = part.pages
        if is_shmem.any():
            pages = pages * ~(is_shmem[part.file] & is_dropped[part.kind])
        kind, time, moved_pages = _by_slot(grid.bins, part.kind, part.time, pages)
        grid.add(moved, kind_of_move[kind], owner_of_kind[kind], time, moved_pages * size)
    links, returned = trace.page_moves.links, grid.zeros(1)
    for batch in links.batches():
        kind, time, back_pages = _by_slot(grid.bins, batch.added_kind, batch.back_ns, batch.pages)
        grid.add(returned, np.zeros_like(kind), owner_of_kind[kind], time, back_pages * size)
    flows = dict(zip(_MOVES, moved, strict=True))
    flows["cache_evicted_bytes"] = sum(flows[name] for name in _EVICTED_BY)
    shown: dict[str, Any] = {name: grid.shown(flow) for name, flow in flows.items()}
    return shown | {"cache_refaulted_bytes": grid.shown_or_na(returned[0], _is_followed(trace, grid))}


def _by_slot(bins: Bins, kind: Unsigned, time_ns: Int64s, pages: Unsigned) -> tuple[Int64s, Int64s, Int64s]:
    """Return (kind, a time, sum of the pages) for each kind of event and slot."""
    slot = np.minimum(bins.slot(time_ns), bins.slots)
    code, firsts = distinct(slot - slot.min(initial=bins.slots), kind)
    return kind[firsts].astype(np.int64), time_ns[firsts], np.bincount(code, pages).astype(np.int64)


def _is_followed(trace: TraceTables, grid: Grid) -> Bools:
    """Return a mask of (cgroup shown, slot): no page-cache events were summed in the slot."""
    followed = np.ones((len(grid.ids), grid.bins.slots), dtype=bool)
    for interval in trace.summed_intervals.near(0, LATEST_NS):
        first, last = grid.bins.slot(np.array([interval.begin.value, interval.end.value]))
        followed[:, first : last + 1] = False
    return followed


def _reclaim_flows(trace: TraceTables, grid: Grid) -> dict[str, Any]:
    reclaim = trace.reclaim
    time, target = times_ns(reclaim), integers(reclaim["cgroup_id"])
    every_row = np.ones(len(reclaim), dtype=bool)
    waited_for = is_waited_for(reclaim)
    freed = integers(reclaim["reclaimed"]) * page_size(trace)
    stall_ns = grid.sums(target, time, integers(reclaim["duration_ns"]), waited_for)
    return {
        "reclaim_attempts": grid.shown(grid.sums(target, time, np.ones_like(time), every_row)),
        "reclaimed_bytes": grid.shown(grid.sums(target, time, freed, every_row)),
        "scanned_pages": grid.shown(grid.sums(target, time, integers(reclaim["scanned"]), every_row)),
        "reclaim_stall_ms": grid.shown(stall_ns) / 1e6,
    }


def _swap_io(trace: TraceTables, grid: Grid) -> dict[str, Any]:
    rows = trace.swap_io
    time, owner = times_ns(rows), integers(rows["cgroup_id"])
    is_over = known(rows["duration_ns"])
    found: dict[str, Any] = {}
    for op, done in (("write", "written"), ("read", "read")):
        is_op = is_one_of(rows["op"], [op])
        amounts = grid.sums(owner, time, integers(rows["nr_pages"]) * page_size(trace), is_op)
        took_ns = grid.shown(grid.sums(owner, time, integers(rows["duration_ns"]), is_op & is_over))
        over = grid.shown(grid.sums(owner, time, np.ones_like(time), is_op & is_over))
        is_known = np.full(amounts.shape, reclaim.is_swap_known(trace, trace.charges))
        found[f"swap_{done}_bytes"] = grid.shown_or_na(amounts, is_known)
        found[f"swap_{op}_mean_ms"] = took_ns / np.where(over > 0, over, np.nan) / 1e6
    return found


def _stalled(trace: TraceTables, grid: Grid) -> dict[str, Any]:
    waits = trace.waits
    begins = times_ns(waits)
    ends = begins + integers(waits["duration_ns"])
    columns: dict[str, Any] = {}
    for name, kinds in STALLED.items():
        waited_ns = grid.time_within(
            integers(waits["cgroup_id"]), begins, ends, is_one_of(waits["kind"], kinds)
        )
        is_known = any(are_stalls_known(trace, kind) for kind in kinds)
        columns[name] = grid.shown(waited_ns) / (1e6 if is_known else np.nan)
    return columns


def _oom_kills(trace: TraceTables, grid: Grid) -> Int64s:
    """Return the number of victims; one that is below a cgroup and killed for its limit counts once."""
    oom = decisions.victims(trace)
    kills = np.zeros((len(grid.ids), grid.bins.slots), dtype=np.int64)
    slot = grid.bins.slot(times_ns(oom))
    owners, victims = integers(oom["limit_owner_cgroup_id"]), integers(oom["cgroup_id"])
    for row in np.flatnonzero((slot > 0) & (slot < grid.bins.slots)).tolist():
        shown = {*grid.shown_for(owners[row]), *grid.shown_for(victims[row])}
        kills[list(shown), slot[row]] += 1
    return grid.shown(kills)
