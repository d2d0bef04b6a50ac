"""The circumstances of a kill: growth and its pace, swap, protection, and the children that held memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import NO_ID, Int64s, integers, is_one_of, optional, times_ns
from tracer.analysis.core.index import RunningSums
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.limits import limit_of, swap_room_of
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure import forks, shared_memory
from tracer.analysis.explain.measure.findings import Circumstances, Holder, Mover, Swap
from tracer.analysis.explain.measure.subtree_levels import SubtreeLevels
from tracer.analysis.explain.measure.window import Window
from tracer.analysis.explain.slowed import thrashing
from tracer.analysis.results.tasks import Candidate
from tracer.schema import UNLIMITED_BYTES

_GROWING: Final = tuple(ledger.NOT_CACHE)
_RISE_PERCENT: Final = 80
_MOST_MOVERS: Final = 10
_EXIT_NS: Final = 1_000_000_000
"""A process that ends so soon after a kill may have been exiting: it is then not weighed either."""
_SWAP_REFUSALS: Final = (("swap_max_events", "swap_fail_events"), ("swap_max_events",))
"""The counters of all failures to swap, and of those at a limit of a cgroup
(__mem_cgroup_try_charge_swap in mm/memcontrol.c)."""


def around(
    subtree: Subtree,
    window: Window,
    *,
    trigger_id: int,
    sample: Mapping[str, Any] | None,
    sizes: Mapping[str, int | None],
    candidates: Sequence[Candidate],
    locked_cache_bytes: int | None,
    locked_in_unknown_bytes: int,
    weighed_tgids: frozenset[int] | None,
) -> Circumstances:
    """Return the circumstances of a kill at `window.end` for the limit of a subtree.

    `sample`: the row of `samples` of the limit owner at the kill. `sizes`: those of memory.stat at the kill
    (`composition.at_kill`), in bytes. `locked_cache_bytes`, `locked_in_unknown_bytes`: as in `Circumstances`.
    `candidates`: the tasks that the kernel weighed. `weighed_tgids`: all processes among them; None: some may
    be missing.
    """
    below = subtree.once("circumstances.below", lambda: SubtreeLevels.from_subtree(subtree))
    levels = below.levels_at(window.end)
    tops = below.gone_tops(window.end)
    return Circumstances(
        grown_bytes=_grown(subtree, window, sizes, locked_cache_bytes),
        rise_ns=_rise_ns(subtree, window),
        thrashing=thrashing.before_a_kill(subtree, window.at_limit, window.end),
        swap=_swap(subtree, below, window, sample),
        protected_bytes=_protected_bytes(below, window.end, sample),
        holders=_holders(below, levels, trigger_id),
        # Page cache and kernel objects outlive their cgroup, which is then dying.
        dying_bytes=int(np.where(below.is_known, np.maximum(levels, 0), 0)[tops].sum()),
        dirty_wait_ms=_dirty_wait_ms(subtree, window),
        ended_writer=shared_memory.ended_writer(subtree, window.end) if sizes.get("shmem") else None,
        fork=forks.at_kill(subtree, candidates, window.end),
        kernel_bytes=sizes.get("kernel"),
        locked_cache_bytes=locked_cache_bytes or 0,
        incompressible_bytes=sizes.get("zswap_incomp"),
        locked_in_unknown_bytes=locked_in_unknown_bytes,
        moved=() if weighed_tgids is None else _moved(subtree, window.end, weighed_tgids),
    )


def _holders(below: SubtreeLevels, levels: Int64s, trigger_id: int) -> tuple[Holder, ...]:
    """Return the children that held memory, the largest first; the rest of the level is the owner's own."""
    all_held = int(levels[below.owner]) if below.is_known[below.owner] else None
    with_trigger = below.positions_above(trigger_id)
    children = below.children[(below.is_known & (levels != 0))[below.children]]
    holders = [
        Holder(below.labels[child].rpartition("/")[2], held, child in with_trigger)
        for child, held in zip(children.tolist(), levels[children].tolist(), strict=True)
    ]
    own = (all_held or 0) - sum(holder.held_bytes for holder in holders)
    if holders and all_held is not None and own > 0:
        holders.append(Holder(None, own, is_triggers=False))
    return tuple(sorted(holders, key=lambda holder: -holder.held_bytes))


def _grown(
    subtree: Subtree, window: Window, sizes: Mapping[str, int | None], locked_cache_bytes: int | None
) -> dict[str, int]:
    """Return the growth of each class above its least level in the window, in bytes.

    The ledger counts locked page cache as cache. As much of it grew as the unevictable list grew.

    Changes that a CPU had not handed over at the kill (up to 256 KiB) reach the ledger later. For a small
    limit that can be all of the growth, so the level in `sizes` is preferred.
    """
    grown = {}
    for name in _GROWING:
        steps = ledger.change(subtree, {name: 1}).within(window.begin, window.end)
        last, at_kill = steps.at(window.end) or 0, sizes.get(name)
        base = ledger.base_bytes(subtree, {name: 1})
        if base is not None and at_kill is not None:
            last = at_kill - base
        grown[name] = max(last - _least(steps, window), 0)
    if locked_cache_bytes:
        locked = ledger.reading(subtree, "unevictable_bytes").within(window.begin, window.end)
        last = sizes.get("unevictable") or 0
        grown["locked_cache"] = min(max(last - (locked.least() or 0), 0), locked_cache_bytes)
    return grown


def _least(steps: Steps, window: Window) -> int:
    """Return the least level since usage passed half of the limit.

    The step in which it passed counts in part: how much of it is below half depends on when usage was read.
    """
    if window.passed is None:
        return steps.least() or 0
    before, after = steps.at(window.begin) or 0, steps.at(window.passed) or 0
    passing = round(after - window.share_above * (after - before))
    later = steps.within(window.passed, window.end).values
    return min(passing, int(later.min())) if len(later) else passing


def _rise_ns(subtree: Subtree, window: Window) -> int | None:
    """Return how long the last 80 % of the growth of memory other than cache took, without the time that
    tasks lost; None if nothing grew."""
    steps = ledger.change(subtree, ledger.NOT_CACHE).within(window.begin, window.end)
    last, least = steps.at(window.end) or 0, steps.least() or 0
    if last <= least:
        return None
    low = np.flatnonzero(steps.values < last - (last - least) * _RISE_PERCENT // 100)
    position = int(low[-1]) if len(low) else -1
    begin = int(steps.times[position]) if len(low) else window.begin
    if position + 1 < len(steps.times):
        begin = subtree.whole.fineness.held_until(begin, int(steps.times[position + 1]))
    return window.end - begin - thrashing.lost_ns(subtree, begin, window.end)


def _swap(
    subtree: Subtree, below: SubtreeLevels, window: Window, sample: Mapping[str, Any] | None
) -> Swap | None:
    """Return the owner's memory in swap and its bound: by the sample at the kill, else by the last before."""
    level = ledger.level(subtree, {"swap": 1})
    last = int(below.read.last_rows_at(window.end)[below.owner])
    before = below.swap_limits.row(last) if last >= 0 else None
    is_at_kill = sample is not None and limit_of(sample, "effective_swap_limit_bytes") is not None
    row = sample if is_at_kill else before
    if level is None or row is None:
        return None
    meta, used = subtree.whole.meta, level.at(window.end) or 0
    version, total = meta.get("cgroup_version"), meta.get("memory", {}).get("swap_total_bytes")
    room = limit_of(row, "swap_room_bytes") if version == 2 else None  # on v1 it is room for memory as well
    allowed = [swap_room_of(row, version), None if room is None else used + room]
    least = min((one for one in allowed if one is not None and one < UNLIMITED_BYTES), default=None)
    bounds = [one for one in (least, total) if one is not None]
    refused, by_cgroup = (any(_rose(subtree, name, window) for name in names) for names in _SWAP_REFUSALS)
    bound, levels = _bound(row, before, version, least), optional(row["swap_bound_levels"])
    if (refused and not by_cgroup) or (total is not None and (least is None or total < least)):
        bound = "machine"
    path = subtree.whole.places.path_of(subtree.cgroup_id) if bound == "above" and levels else None
    return Swap(
        used_bytes=used,
        allowed_bytes=min(bounds, default=None),
        refused=refused,
        bound=bound,
        bound_cgroup=None if path is None else path.rsplit("/", levels or 0)[0] or None,
    )


def _bound(
    row: Mapping[str, Any], before: Mapping[str, Any] | None, version: int | None, least: int | None
) -> Literal["own", "above", "machine"] | None:
    """Return whose limit of swap allows least; None if none is set, or if it is not known.

    Traces without `swap_bound_levels` are from before the column; the owner's own limit is then compared.
    """
    levels = optional(row["swap_bound_levels"])
    own = None if before is None else swap_room_of(before, version, of="swap_limit_bytes")
    if least is None or (levels is None and own is None):
        return None
    is_own = not levels if levels is not None else (own or 0) <= least
    return "own" if is_own else "above"


def _rose(subtree: Subtree, column: str, window: Window) -> bool:
    counted = ledger.count(subtree, column).within(window.at_limit, window.end)
    return len(counted.values) > 0 and int(counted.values[-1]) > (counted.before or int(counted.values[0]))


def _protected_bytes(below: SubtreeLevels, end_ns: int, sample: Mapping[str, Any] | None) -> int:
    """Return the usage of the children that memory.min protects: the kernel's own sum at the kill, or else by
    the last sample of each child before it."""
    at_kill = None if sample is None else optional(sample["protected_bytes"])
    if at_kill is not None:
        return at_kill
    last = below.read.last_rows_at(end_ns)[below.children]
    return int(below.kept_bytes[last[last >= 0]].sum())


def _dirty_wait_ms(subtree: Subtree, window: Window) -> float:
    def find() -> Steps:
        waits = subtree.waits
        dirty = waits[is_one_of(waits["kind"], ["dirty"])]
        return Steps(times_ns(dirty), np.cumsum(integers(dirty["duration_ns"])), 0)

    waited = subtree.once("circumstances.dirty_wait", find)
    return ((waited.at(window.end) or 0) - (waited.at(window.begin - 1) or 0)) / 1e6


def _moved(subtree: Subtree, kill_ns: int, weighed_tgids: frozenset[int]) -> tuple[Mover, ...]:
    """Return the processes that had moved away by a kill, the largest first.

    Such a process lives, the anonymous memory that it charged in the subtree during the trace is not all
    freed, and the kernel did not weigh it: it weighs each process of the subtree (mem_cgroup_scan_tasks in
    mm/memcontrol.c). Processes that an earlier kill ended are left out, since they are no candidates either.
    """
    processes = subtree.whole.processes
    tgids, charged = subtree.once("circumstances.anon_of_processes", lambda: _anon_of_processes(subtree))
    held = charged.sums_at(kill_ns)
    movers = [
        Mover(tgid, processes.comm_at(tgid, kill_ns, kill_ns), held_bytes)
        for tgid, held_bytes in zip(tgids[held > 0].tolist(), held[held > 0].tolist(), strict=True)
        if tgid != NO_ID and tgid not in weighed_tgids and not processes.was_killed(tgid, kill_ns)
        if processes.cgroup_at(tgid, kill_ns) is not None
        if processes.cgroup_at(tgid, kill_ns + _EXIT_NS) is not None
    ]
    return tuple(sorted(movers, key=lambda mover: -mover.held_bytes)[:_MOST_MOVERS])


def _anon_of_processes(subtree: Subtree) -> tuple[Int64s, RunningSums]:
    """Return the processes that anonymous memory was charged to, and how much, as sums over time."""
    charges = subtree.charges
    picked, bytes_ = charges.weighted({"anon": 1})
    tgids, process = np.unique(charges.tgid[picked].astype(np.int64), return_inverse=True)
    return tgids, RunningSums.from_rows(charges.time[picked], process, bytes_[picked], len(tgids))
