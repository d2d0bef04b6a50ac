"""The circumstances of a kill: growth and its pace, swap, protection, and the children that held memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Int64s, integers, is_one_of, times_ns
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.limits import swap_room_of
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure.findings import Circumstances, Holder, Swap
from tracer.analysis.explain.measure.subtree_levels import SubtreeLevels
from tracer.analysis.explain.measure.window import Window
from tracer.schema import UNLIMITED_BYTES

_GROWING: Final = tuple(ledger.NOT_CACHE)
_RISE_PERCENT: Final = 80
_SWAP_REFUSALS: Final = ("swap_max_events", "swap_fail_events")


def around(
    subtree: Subtree, window: Window, *, trigger_id: int, sizes: Mapping[str, int | None]
) -> Circumstances:
    """Return the circumstances of a kill at `window.end` for the limit of a subtree.

    `sizes`: those of memory.stat at the kill (`composition.at_kill`), in bytes.
    """
    below = subtree.once("circumstances.below", lambda: SubtreeLevels.from_subtree(subtree))
    levels = below.levels_at(window.end)
    tops = below.gone_tops(window.end)
    return Circumstances(
        grown_bytes=_grown(subtree, window, sizes),
        rise_ns=_rise_ns(subtree, window),
        swap=_swap(subtree, below, window),
        protected_bytes=_protected_bytes(below, window.end),
        holders=_holders(below, levels, trigger_id),
        # Page cache and kernel objects outlive their cgroup, which is then dying.
        dying_bytes=int(np.where(below.is_known, np.maximum(levels, 0), 0)[tops].sum()),
        dirty_wait_ms=_dirty_wait_ms(subtree, window),
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


def _grown(subtree: Subtree, window: Window, sizes: Mapping[str, int | None]) -> dict[str, int]:
    """Return the growth of each class above its least level in the window, in bytes.

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
        grown[name] = max(last - (steps.least() or 0), 0)
    return grown


def _rise_ns(subtree: Subtree, window: Window) -> int | None:
    """Return how long the last 80 % of the growth of memory other than cache took; None if nothing grew."""
    steps = ledger.change(subtree, ledger.NOT_CACHE).within(window.begin, window.end)
    last, least = steps.at(window.end) or 0, steps.least() or 0
    if last <= least:
        return None
    low = steps.times[steps.values < last - (last - least) * _RISE_PERCENT // 100]
    return window.end - (int(low[-1]) if len(low) else window.begin)


def _swap(subtree: Subtree, below: SubtreeLevels, window: Window) -> Swap | None:
    level = ledger.level(subtree, {"swap": 1})
    last = int(below.read.last_rows_at(window.end)[below.owner])
    if level is None or last < 0:
        return None
    meta = subtree.whole.meta
    room = swap_room_of(below.samples.iloc[last], meta.get("cgroup_version"))
    machine = meta.get("memory", {}).get("swap_total_bytes")
    bounds = [bound for bound in (room, machine) if bound is not None and bound < UNLIMITED_BYTES]
    return Swap(
        used_bytes=level.at(window.end) or 0,
        allowed_bytes=min(bounds, default=None),
        refused=any(_rose(subtree, column, window) for column in _SWAP_REFUSALS),
    )


def _rose(subtree: Subtree, column: str, window: Window) -> bool:
    counted = ledger.count(subtree, column).within(window.at_limit, window.end)
    return len(counted.values) > 0 and int(counted.values[-1]) > (counted.before or int(counted.values[0]))


def _protected_bytes(below: SubtreeLevels, end_ns: int) -> int:
    """Return the usage of the children that memory.min protects."""
    last = below.read.last_rows_at(end_ns)[below.children]
    return int(below.kept_bytes[last[last >= 0]].sum())


def _dirty_wait_ms(subtree: Subtree, window: Window) -> float:
    def find() -> Steps:
        waits = subtree.waits
        dirty = waits[is_one_of(waits["kind"], ["dirty"])]
        return Steps(times_ns(dirty), np.cumsum(integers(dirty["duration_ns"])), 0)

    waited = subtree.once("circumstances.dirty_wait", find)
    return ((waited.at(window.end) or 0) - (waited.at(window.begin - 1) or 0)) / 1e6
