"""What a kill came about in: what had grown and how fast, whether swap was full, who else held the memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from tracer.analysis import ledger, names
from tracer.analysis.cushion import Window
from tracer.analysis.findings import Circumstances, Holder, Swap
from tracer.analysis.tables import (
    Int64s,
    TraceTables,
    column_times_ns,
    integers,
    is_one_of,
    known,
    optional,
    times_ns,
)
from tracer.schema import UNLIMITED_BYTES

_GROWING: Final = ("anon", "shmem", "kernel", "sock")
_CHARGED: Final[ledger.Weights] = {"anon": 1, "file": 1, "kernel": 1, "sock": 1}
_RISE_PERCENT: Final = 80
_SWAP_REFUSALS: Final = ("swap_max_events", "swap_fail_events")


def around(
    trace: TraceTables,
    owner_id: int,
    members: Int64s,
    window: Window,
    *,
    trigger_id: int,
    sizes: Mapping[str, int | None],
) -> Circumstances:
    """Those of a kill at `window.end` for the limit of `owner_id`, `members` being all at and below it.
    `sizes` is `composition.at_kill`."""
    last = _last_samples(trace, members, window.end)
    children = _children(trace, owner_id, members)
    return Circumstances(
        grown_bytes=_grown(trace, owner_id, members, window, sizes),
        rise_ns=_rise_ns(trace, members, window),
        swap=_swap(trace, owner_id, members, window, last.get(owner_id)),
        protected_bytes=sum(_protected(last.get(child)) for child in children),
        holders=_holders(trace, owner_id, children, window.end, trigger_id),
        dying_bytes=_dying_bytes(trace, members, window.end),
        dirty_wait_ms=_dirty_wait_ms(trace, members, window),
    )


def _holders(
    trace: TraceTables, owner_id: int, children: Mapping[int, str], end_ns: int, trigger_id: int
) -> tuple[Holder, ...]:
    """Who held anything, the most first; what is left of the owner's own level is its own."""
    levels = ledger.levels_at(trace, [owner_id, *children], _CHARGED, end_ns)
    all_held = levels.pop(owner_id)
    holders = [
        Holder(
            children[child].rpartition("/")[2], held, trigger_id in names.descendants(trace.cgroups, child)
        )
        for child, held in levels.items()
        if held
    ]
    own = (all_held or 0) - sum(holder.held_bytes for holder in holders)
    if holders and all_held is not None and own > 0:
        holders.append(Holder(None, own, is_triggers=False))
    return tuple(sorted(holders, key=lambda holder: -holder.held_bytes))


def _grown(
    trace: TraceTables, owner_id: int, members: Int64s, window: Window, sizes: Mapping[str, int | None]
) -> dict[str, int]:
    """The ledger has what a CPU had not handed over by the kill (up to 256 KiB) only later: of a small limit
    that can be all of it. So what `sizes` knows counts."""
    grown = {}
    for name in _GROWING:
        steps = ledger.change(trace, members, {name: 1}).within(window.begin, window.end)
        last, at_kill = steps.at(window.end) or 0, sizes.get(name)
        base = ledger.base_bytes(trace, owner_id, {name: 1})
        if base is not None and at_kill is not None:
            last = at_kill - base
        grown[name] = max(last - (steps.least() or 0), 0)
    return grown


def _rise_ns(trace: TraceTables, members: Int64s, window: Window) -> int | None:
    """How long the last 80 % of the growth of what cannot be dropped took; None where nothing grew."""
    steps = ledger.change(trace, members, ledger.NOT_CACHE).within(window.begin, window.end)
    last, least = steps.at(window.end) or 0, steps.least() or 0
    if last <= least:
        return None
    low = steps.times[steps.values < last - (last - least) * _RISE_PERCENT // 100]
    return window.end - (int(low[-1]) if len(low) else window.begin)


def _swap(
    trace: TraceTables, owner_id: int, members: Int64s, window: Window, last: Mapping[str, Any] | None
) -> Swap | None:
    level = ledger.level(trace, owner_id, members, {"swap": 1})
    if level is None or last is None:
        return None
    limit = optional(last["swap_limit_bytes"])
    if limit is not None and trace.meta.get("cgroup_version") == 1:  # memory.memsw bounds both together
        limit = UNLIMITED_BYTES if limit >= UNLIMITED_BYTES else max(limit - (last["limit_bytes"] or 0), 0)
    machine = trace.meta.get("memory", {}).get("swap_total_bytes")
    bounds = [bound for bound in (limit, machine) if bound is not None and bound < UNLIMITED_BYTES]
    return Swap(
        used_bytes=level.at(window.end) or 0,
        allowed_bytes=min(bounds, default=None),
        refused=any(_rose(trace, owner_id, column, window) for column in _SWAP_REFUSALS),
    )


def _rose(trace: TraceTables, owner_id: int, column: str, window: Window) -> bool:
    counted = ledger.count(trace, owner_id, column).within(window.at_limit, window.end)
    return len(counted.values) > 0 and int(counted.values[-1]) > (counted.before or int(counted.values[0]))


def _protected(sample: Mapping[str, Any] | None) -> int:
    """Usage that memory.min keeps; memory.low does not: it is reclaimed too before a kill
    (shrink_node_memcgs and memcg_low_skipped in mm/vmscan.c)."""
    if sample is None:
        return 0
    return min(optional(sample["min_bytes"]) or 0, optional(sample["usage_bytes"]) or 0)


def _children(trace: TraceTables, owner_id: int, members: Int64s) -> dict[int, str]:
    """Id -> path of the cgroups right below the owner."""
    path = names.path_of(trace.cgroups, owner_id)
    if path is None:
        return {}
    depth = len(path.rstrip("/").split("/")) + 1
    below = {number: names.label_of(trace.cgroups, number) for number in members.tolist()}
    return {number: child for number, child in below.items() if len(child.split("/")) == depth}


def _dying_bytes(trace: TraceTables, members: Int64s, end_ns: int) -> int:
    """What cgroups held that had been removed: page cache and kernel objects outlive their cgroup."""
    cgroups = trace.cgroups
    removed = known(cgroups["removed"])
    gone = removed & (np.where(removed, column_times_ns(cgroups["removed"]), 0) <= end_ns)
    ids = np.intersect1d(integers(cgroups["cgroup_id"])[gone], members).tolist()
    paths = {number: names.label_of(cgroups, number) for number in ids}
    tops = [n for n in ids if paths[n].rpartition("/")[0] not in paths.values()]
    return sum(max(held or 0, 0) for held in ledger.levels_at(trace, tops, _CHARGED, end_ns).values())


def _dirty_wait_ms(trace: TraceTables, members: Int64s, window: Window) -> float:
    waits = trace.waits
    moments = times_ns(waits)
    rows = (
        is_one_of(waits["kind"], ["dirty"])
        & np.isin(integers(waits["cgroup_id"]), members)
        & (moments >= window.begin)
        & (moments <= window.end)
    )
    return float(integers(waits["duration_ns"])[rows].sum() / 1e6)


def _last_samples(trace: TraceTables, members: Int64s, end_ns: int) -> dict[int, Mapping[str, Any]]:
    """Cgroup -> its last reading of files before the kill."""
    samples = trace.samples
    rows = samples[
        np.isin(integers(samples["cgroup_id"]), members)
        & ~is_one_of(samples["source"], ["oom"])
        & (times_ns(samples) <= end_ns)
    ]
    last = rows.drop_duplicates("cgroup_id", keep="last")
    return {int(row["cgroup_id"]): {str(k): v for k, v in row.items()} for row in last.to_dict("records")}
