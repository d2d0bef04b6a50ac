"""The sentences of a range of limits: its grounds, and the time that a greater limit would have lasted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tracer.analysis.explain.sizing.margins import Ground, Range
from tracer.analysis.results.conclusions import Sizing
from tracer.units import coarse_duration, duration, size

_STEP_BYTES: Final = 100 << 20

_GROUNDS: Final[Mapping[str, str]] = {
    "mapped": (
        "The killed processes had {untouched_bytes} mapped that they had not touched; what they would have "
        "mapped after that is not known."
    ),
    "files_have_a_size": (
        "The files of the shared memory have a size, and {left_bytes} of them was not touched."
    ),
    "shared_since_a_fork": (
        "Processes shared {shared_bytes} since a fork, which is copied when it is written."
    ),
    "room_for_cache": "The upper end has room for {cache_bytes} of page cache, since some was read again.",
    "limit_before_unknown": (
        "A limit must be above what was in use: reclaim could not free {kept_bytes} of it."
    ),
    "limit_before": (
        "The limit of {before_bytes} was enough until it was lowered; reclaim could not free {kept_bytes} of "
        "what was in use."
    ),
    "low": "Below {low_bytes}, memory that cannot be reclaimed does not fit.",
    "low_with_swap": (
        "Below {low_bytes}, memory that cannot be reclaimed does not fit beside {swap_bytes} of swap."
    ),
    "nothing_evicted": "Usage was at most {usage_bytes}, and no page cache had to be evicted.",
    "nothing_read_again": (
        "Usage was at most {usage_bytes}, and (nearly) no page cache that was evicted had to be read again."
    ),
    "read_again": (
        "Usage was at most {usage_bytes}. Of the {again_bytes} of page cache that was read again, "
        "{extra_bytes} more memory would have kept nearly all, and {lists_bytes} is room for the kernel's "
        "choice of pages."
    ),
    "slowed_down": "memory.high slowed it down: set that no lower than the upper end either.",
    "hits_not_traced": (
        "Whether less than this upper end would do is not known: only evictions are traced, not hits."
    ),
    "room_for_peaks": (
        "The upper end has room for {apart_bytes}, with which the peaks of concurrent processes could fall "
        "together."
    ),
    "reclaim_cost": "At the upper end, reclaim still costs about {cost_share} of the tasks' time.",
}
"""Kind of ground -> its sentence. Numbers are formatted by the units in their names."""


def worded(found: Range) -> Sizing:
    """Return a range with its sentences."""
    pace = "" if found.pace is None else _PACES[found.pace.kind](found.pace.numbers)
    return Sizing(found.limits_bytes, tuple(map(_sentence, found.basis)), pace)


def _sentence(ground: Ground) -> str:
    words = {
        name: size(value) if name.endswith("_bytes") else f"{value:.0%}"
        for name, value in ground.numbers.items()
    }
    return _GROUNDS[ground.kind].format(**words)


def _grown(it: Mapping[str, Any]) -> str:
    """Return `40 MiB in 3 s, without 1 s in which tasks hardly ran`."""
    lost = f", without {duration(it['lost_s'])} in which tasks hardly ran" if it["lost_s"] else ""
    return f"{size(it['grown_bytes'])} in {coarse_duration(it['span_s'], it['resolution_s'])}{lost}"


def _growth(it: Mapping[str, Any]) -> str:
    share = _STEP_BYTES / it["grown_bytes"]
    buys = coarse_duration(share * it["span_s"], share * it["resolution_s"])
    return f"At this growth ({_grown(it)}), each extra {size(_STEP_BYTES)} of limit buys {buys}."


def _growth_in_files(it: Mapping[str, Any]) -> str:
    return (
        f"Memory grew by {_grown(it)}, most of it in shared memory whose files have a size: "
        f"{size(it['left_bytes'])} of them was not touched."
    )


_PACES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "growth": _growth,
    "growth_in_files": _growth_in_files,
}
