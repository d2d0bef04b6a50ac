"""The sentence of an alarm, without the name of the cgroup."""

from __future__ import annotations

from tracer.live.alarm import Alarm, AllWaited, LimitHit, UsedUpSoon
from tracer.units import count, duration, size, times


def alarm_sentence(alarm: Alarm) -> str:
    """Return `Usage hit the limit of 100 MiB 37 times within 100 ms; usage is 99.5 MiB.`"""
    match alarm.numbers:
        case LimitHit() as hit:
            return _on_hit(hit)
        case UsedUpSoon() as fall:
            return _on_fall(fall)
        case AllWaited() as waited:
            return _on_wait(waited)


def _on_hit(hit: LimitHit) -> str:
    limit = size(hit.limit_bytes)
    within, usage = duration(hit.within_s), f"usage is {size(hit.usage_bytes)}"
    if hit.times is None:
        scanned = f"reclaim examined {count(hit.scanned_pages)} pages"
        return f"Usage is at the limit of {limit}: {scanned} within {within}; {usage}."
    how_often = times(hit.times)
    if hit.is_high:
        return f"Usage exceeded memory.high ({limit}) {how_often} within {within}; {usage}."
    return f"Usage hit the limit of {limit} {how_often} within {within}; {usage}."


def _on_fall(fall: UsedUpSoon) -> str:
    others = fall.left_bytes - fall.room_bytes - fall.cache_bytes
    swap = f", {size(others)} swap and slab" if others > fall.left_bytes // 20 else ""
    return (
        f"What is left below the limit of {size(fall.limit_bytes)} will be used up in "
        f"{duration(fall.left_s)}: {size(fall.left_bytes)} "
        f"({size(fall.room_bytes)} room, {size(fall.cache_bytes)} cache{swap}), "
        f"shrinking by {size(fall.rate)}/s for {duration(fall.lasted_s)}."
    )


def _on_wait(waited: AllWaited) -> str:
    used = "" if waited.usage_bytes is None else f"; usage is {size(waited.usage_bytes)}"
    of = f" of {size(waited.limit_bytes)}" if used and waited.limit_bytes is not None else ""
    return (
        f"All tasks waited for memory at the same time for {duration(waited.waited_s)} "
        f"({100 * waited.waited_s / waited.window_s:.0f} %) of the last "
        f"{duration(round(waited.window_s))}{used}{of}."
    )
