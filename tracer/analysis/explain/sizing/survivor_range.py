"""The range of limits for a cgroup that lived, by the replay of its run.

`low` is the limit below which the run is killed (`sizing.demand`). `high` is a limit at which the same work
survives and reads (nearly) nothing again (`sizing.read_again`), with room for the memory that was in swap,
and for peaks of concurrent processes that fall together. Which part of the page cache a smaller limit could
do without is not known, since hits are not traced: there is no way to replace pages that uses the least
memory. So `high` is no smaller than usage was. `Range.outcomes` has the outcome at the limit from which the
run survives, and at `high`, unless `high` holds only with another memory.high.

`high` is None if the same work could need more another time (`sizing.kill_range`), or if reclaim would still
take so much time there that the work would be slow. The range is null if the peak of one run shows no demand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import end_ns, page_size
from tracer.analysis.explain.sizing.kill_range import Ground, Range, Sized, ground
from tracer.analysis.explain.sizing.overlap import Overlap
from tracer.analysis.explain.sizing.read_again import Rereads
from tracer.analysis.explain.sizing.replayed_run import Replay
from tracer.analysis.explain.sizing.unreclaimable import swapped_out
from tracer.analysis.results.survivor import Progress

_LEAST_COST: Final = 0.01
_MOST_COST: Final = 1 / 6
"""Work that spends this share of its time in reclaim takes 1.2 times as long as without a limit."""


def survivor_range(replay: Replay) -> Sized:
    """Return the range for a cgroup in which nothing was killed."""
    subtree, needs = replay.subtree, replay.needs
    if needs.killed_below_bytes is None:
        return Range(), needs.between
    low = needs.killed_below_bytes
    least = _least(low, replay.swap_bytes or 0)
    if needs.survives_from_bytes is None:
        return Range((low, None), least), needs.why_open
    enough, rereads = replay.at(needs.survives_from_bytes), replay.rereads
    none_from, why_not = comfortable_bytes(subtree, rereads)
    if none_from is None:
        return Range((low, None), least, outcomes=(enough,)), why_not
    high, apart = max(none_from, needs.survives_from_bytes), Overlap.of(subtree).apart_bytes
    basis = [*least, *_basis(subtree, rereads)]
    if apart:
        basis.append(ground("room_for_peaks", apart_bytes=apart))
    cost = _reclaim_share(subtree, replay.going, rereads.spared.room_bytes())
    if cost >= _MOST_COST:
        why_not = (
            f"reclaim of page cache that was not read again took {100 * cost:.0f} % of the tasks' time, as "
            "it would at any limit that such cache fills"
        )
        return Range((low, None), tuple(basis), outcomes=(enough,)), why_not
    if cost >= _LEAST_COST:
        basis.append(ground("reclaim_cost", cost_share=cost))
    is_apart = high > enough.limit_bytes and not rereads.is_high
    outcomes = (enough, replay.at(high)) if is_apart else (enough,)
    return Range((low, high), tuple(basis), outcomes=outcomes, needs_high=rereads.is_high), None


def comfortable_bytes(subtree: Subtree, rereads: Rereads) -> tuple[int | None, str | None]:
    """Return the limit from which (nearly) nothing is read again, in whole pages, or None and the reason.

    It has room for the memory that was in swap, and for peaks of processes or threads that fall together.
    """
    none_from, why_not = rereads.none_from()
    if none_from is None:
        return None, why_not
    swapped = swapped_out(subtree)
    found = none_from + ((swapped and swapped.peak()) or 0) + Overlap.of(subtree).apart_bytes
    return -(-found // rereads.page_size) * rereads.page_size, None


def _reclaim_share(subtree: Subtree, going: Progress, room_bytes: int) -> float:
    """Return the share of the tasks' time that reclaim would still take with so much more memory, from 0 to
    1; 0 if it is not known.

    Cache that was evicted and not read again is evicted at any limit that it fills. Reclaim for the rest, and
    for as much as there is more room, is spared.
    """
    lost, begin, end = going.lost, subtree.start_ns, end_ns(subtree.whole)
    evicted = subtree.evicted.pages_between(begin, end)
    if lost is None or lost.reclaim_ms is None or lost.work_ms is None or not evicted:
        return 0.0
    again = int(subtree.refaulted.pages.sum(dtype=np.int64))
    left = max(evicted - again - room_bytes // page_size(subtree.whole), 0) / evicted
    parts = (lost.reread_ms, lost.swap_in_ms, lost.throttled_ms, lost.first_read_ms, lost.work_ms)
    cost = lost.reclaim_ms * left
    whole = cost + sum(part or 0 for part in parts)
    return cost / whole if whole else 0.0


def _basis(subtree: Subtree, rereads: Rereads) -> Iterator[Ground]:
    usage_bytes, spared, around_bytes = rereads.peak_usage_bytes, rereads.spared, rereads.around_bytes
    if not subtree.evicted.pages_between(subtree.start_ns, end_ns(subtree.whole)):
        yield ground("nothing_evicted", usage_bytes=usage_bytes)
    elif not spared.extra_bytes:
        yield ground("nothing_read_again", usage_bytes=usage_bytes)
    elif rereads.all_bytes is not None and rereads.none_from()[0] == rereads.all_fits_bytes:
        yield ground("all_fits", all_bytes=rereads.all_bytes, again_bytes=spared.again_bytes)
        if around_bytes:
            yield ground("read_around", around_bytes=around_bytes)
    else:
        yield ground(
            "read_again",
            usage_bytes=usage_bytes,
            again_bytes=spared.again_bytes,
            extra_bytes=spared.extra_bytes,
            lists_bytes=spared.lists_bytes,
        )
        if spared.late_bytes:
            yield ground("evicted_late", late_bytes=spared.late_bytes)
    if rereads.is_high:
        yield ground("slowed_down")
    yield ground("hits_not_traced")


def _least(low_bytes: int, swap_bytes: int) -> tuple[Ground, ...]:
    if not low_bytes:
        return ()
    if swap_bytes:
        return (ground("low_with_swap", low_bytes=low_bytes, swap_bytes=swap_bytes),)
    return (ground("low", low_bytes=low_bytes),)
