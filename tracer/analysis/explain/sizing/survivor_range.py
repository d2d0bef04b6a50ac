"""The range of limits for a cgroup that lived.

A limit holds as long as the memory that reclaim cannot free fits (`sizing.unreclaimable`). `low` is the peak
of that memory, by the charge ledger.

`high` is a limit at which the same work reads (nearly) nothing again: the peak of usage, the extra memory
that would have spared the refaults (`views.miss_curve`), and the memory that was in swap. Which part of the
page cache a smaller limit could do without is not known, since hits are not traced: there is no way to
replace pages that uses the least memory. So `high` is no smaller than usage was.

The range is null if the same work could need more another time (`sizing.completeness`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.core import ledger
from tracer.analysis.core.limits import swap_room_of
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import end_ns
from tracer.analysis.explain.sizing import completeness
from tracer.analysis.explain.sizing.margins import Sized, Spared, cache_to_spare, why_no_curve, with_margin
from tracer.analysis.explain.sizing.unreclaimable import own_samples, unreclaimable
from tracer.analysis.results.conclusions import Sizing
from tracer.analysis.views import miss_curve
from tracer.units import size

_NEVER_SWAPPED: Final[ledger.Weights] = {"kernel": 1, "slab_reclaimable": -1, "sock": 1}


def survivor_range(subtree: Subtree, peak_usage_bytes: int | None, state: str | None) -> Sized:
    """Return the range for a cgroup in which nothing was killed; `state` is whether its work went on."""
    kept = unreclaimable(subtree)
    if kept is None or peak_usage_bytes is None:
        return Sizing(
            None
        ), "the memory that the cgroup held when the trace began, or its usage, is not known"
    swap_bytes = _swap_bytes(subtree)
    if swap_bytes is None:
        return Sizing(None), "how much swap the cgroup could use is not known"
    swapped = ledger.level(subtree, {"swap": 1})
    held = kept if swapped is None else ledger.total([kept, swapped])
    if not (held.peak() or peak_usage_bytes):
        return Sizing(None), "it held nothing"
    why_not = completeness.why_incomplete(subtree, held, state) or why_no_curve(
        subtree, subtree.start_ns, end_ns(subtree.whole)
    )
    if why_not is not None:
        return Sizing(None), why_not
    low = kept.peak() or 0
    if swap_bytes:
        fixed = ledger.level(subtree, _NEVER_SWAPPED)
        low = max((held.peak() or 0) - swap_bytes, (fixed and ledger.total([fixed]).peak()) or 0)
    spared = cache_to_spare(subtree, miss_curve.reuse_of(subtree))
    out = (swapped and swapped.peak()) or 0
    high = max(peak_usage_bytes + spared.room_bytes() + out, held.peak() or 0)
    limits = with_margin(subtree.whole, low, high)
    return Sizing(limits, tuple(_basis(subtree, limits, peak_usage_bytes, spared, swap_bytes))), None


def _basis(
    subtree: Subtree, limits: tuple[int, int], peak_usage_bytes: int, spared: Spared, swap_bytes: int
) -> Iterator[str]:
    swap = f" beside {size(swap_bytes)} of swap" if swap_bytes else ""
    yield f"Below {size(limits[0])}, memory that cannot be reclaimed does not fit{swap}."
    usage = f"Usage was at most {size(peak_usage_bytes)}"
    if not subtree.evicted.pages_between(subtree.start_ns, end_ns(subtree.whole)):
        yield f"{usage}, and no page cache had to be evicted."
    elif not spared.extra_bytes:
        yield f"{usage}, and (nearly) no page cache that was evicted had to be read again."
    else:
        yield (
            f"{usage}. Of the {size(spared.again_bytes)} of page cache that was read again, "
            f"{size(spared.extra_bytes)} more memory would have kept nearly all, and "
            f"{size(spared.lists_bytes)} is room for the kernel's choice of pages."
        )
    slowed = ledger.count(subtree, "high_events").at(end_ns(subtree.whole))
    if slowed:
        yield "memory.high slowed it down: set that no lower than the upper end either."
    yield "Whether less than this upper end would do is not known: only evictions are traced, not hits."


def _swap_bytes(subtree: Subtree) -> int | None:
    """Return the swap that the cgroup could use beside a limit: the lesser of the machine's and its own."""
    meta = subtree.whole.meta
    machine = (meta.get("memory") or {}).get("swap_total_bytes")
    samples = own_samples(subtree, ("is_swap_limited", "is_limited"))
    allowed = swap_room_of(samples.iloc[-1], meta.get("cgroup_version")) if len(samples) else None
    bounds = [bound for bound in (machine, allowed) if bound is not None]
    return min(bounds) if 0 in bounds or len(bounds) == 2 else machine
