"""The order of the cgroups that lived: which one the answer is about, and how near the others came."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tracer.analysis.results.survivor import Held
from tracer.schema import UNLIMITED_BYTES


def foremost_first(cgroups: Iterable[Held]) -> list[Held]:
    """Return the cgroups: the one that the answer is about, then the others, nearest to their limit first."""
    by_room = sorted(cgroups, key=room_left)
    foremost = slowest(by_room)
    return sorted(by_room, key=lambda one: one is not foremost)


def slowest(cgroups: Iterable[Held]) -> Held | None:
    """Return the cgroup that the answer is about if any is throttled or thrashing, else None.

    It is the one that lost the greatest share; of several with about that share, the deepest one with a
    limit, because the figures of each cgroup include those below it.
    """
    found = [
        (one, one.progress.crawl)
        for one in cgroups
        if one.progress.crawl is not None and one.stuck_since is None
    ]
    return max(
        found,
        key=lambda it: (round(it[1].lost_share, 1), _is_bounded(it[0]), it[0].cgroup.count("/")),
        default=(None, None),
    )[0]


def room_left(one: Held) -> float:
    """Return the share of its limit that the cgroup never used, from 0 to 1; infinite without a limit."""
    if one.headroom_bytes is None or not one.limit_bytes:
        return math.inf
    return one.headroom_bytes / one.limit_bytes


def _is_bounded(one: Held) -> bool:
    limits = (one.limit_bytes, one.high_bytes)
    return any(limit is not None and limit < UNLIMITED_BYTES for limit in limits)
