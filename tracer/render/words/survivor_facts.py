"""The facts about a cgroup in a trace without a kill: how near its limit it came, and what made room."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import pandas as pd

from tracer import units
from tracer.analysis.results.survivor import Held
from tracer.render.words.escape import visible
from tracer.render.words.kill_facts import limit_range, refaulted, shown_time, sizing_basis
from tracer.render.words.places import place_of_life
from tracer.render.words.prose import Fact
from tracer.render.words.quality_facts import losses
from tracer.render.words.reclaim_facts import swapped, waits

_NONE_SEEN: Final = "No OOM kill was recorded before the recording broke off"


def held(one: Held) -> Iterator[Fact]:
    """Yield everything about a surviving cgroup: how near its limit it came, and what made room."""
    yield "limit", units.limit(one.limit_bytes)
    yield "peak usage", _peak_usage(one)
    others = "".join(
        f"{words} {units.size(bytes_)}, "
        for words, bytes_ in (
            ("shared memory (tmpfs, memfd)", one.shmem_at_peak_bytes),
            ("kernel memory (slab, page tables, stacks, sockets)", one.kernel_at_peak_bytes),
        )
        if bytes_
    )
    yield (
        "made of",
        f"page cache (file contents, which reclaim can drop) {units.size(one.cache_at_peak_bytes)} at that "
        f"time, {others}anon (process memory without a file) {units.size(one.peak_anon_bytes)} at most",
    )
    yield "evicted", f"{units.size(one.evicted_bytes)} of page cache, {_by_what(one)}"
    if one.peak_swap_bytes:
        yield (
            "in swap",
            f"{units.size(one.peak_swap_bytes)} at most: process or shared memory, swapped out to make room",
        )
    yield from swapped(one.reclaim)
    if one.stuck_since is not None:
        yield "stuck since", _stuck(one.stuck_since)
    yield "refaulted", refaulted(one.refaulted_bytes, one.evicted_bytes)
    yield from waits(one.reclaim)
    if one.sizing.min_limit_bytes is not None:
        yield (
            "minimum limit",
            f"between {limit_range(one.sizing)} for the same work. {sizing_basis(one.sizing)}",
        )
    if one.max_events is not None:
        yield "limit hit", f"{units.count(one.max_events)} times by the kernel's count"
    else:
        yield "limit hit", f"{units.UNKNOWN}: {visible(one.quality.unknown.get('max_events', ''))}"
    yield "lost records", losses(one.quality.lost_records)


def in_brief(one: Held) -> Iterator[Fact]:
    """Yield the same in a few lines: usage, its largest kinds, evictions, sizing and losses."""
    yield "limit", units.limit(one.limit_bytes)
    yield "peak usage", _peak_usage(one)
    kinds = (
        ("page cache", one.cache_at_peak_bytes),
        ("anonymous memory", one.peak_anon_bytes),
        ("shared memory", one.shmem_at_peak_bytes),
        ("kernel memory", one.kernel_at_peak_bytes),
    )
    least = (one.peak_usage_bytes or 0) / 100
    made_of = [f"{units.size(bytes_)} {kind}" for kind, bytes_ in kinds if bytes_ and bytes_ >= least]
    if made_of:
        yield "made of", ", ".join(made_of)
    if one.stuck_since is not None:
        yield "stuck since", _stuck(one.stuck_since)
    again = f"; {units.size(one.refaulted_bytes)} was read again" if one.refaulted_bytes else ""
    if one.evicted_bytes:
        yield "evicted", f"{units.size(one.evicted_bytes)} of page cache, {_by_what(one)}{again}"
    if one.peak_swap_bytes:
        yield "in swap", f"{units.size(one.peak_swap_bytes)} at most"
    yield from islice(waits(one.reclaim), 1)
    if one.sizing.min_limit_bytes is not None:
        yield "minimum limit", f"between {limit_range(one.sizing)} for the same work"
    if one.max_events is not None:
        yield "limit hit", f"{units.count(one.max_events)} times by the kernel's count"
    yield "lost records", losses(one.quality.lost_records)


def room_left(one: Held) -> float:
    """Return the share of its limit that the cgroup never used, from 0 to 1; infinite without a limit."""
    if one.headroom_bytes is None or not one.limit_bytes:
        return math.inf
    return one.headroom_bytes / one.limit_bytes


def _peak_usage(one: Held) -> str:
    near = ""
    if one.headroom_bytes is not None and one.limit_bytes:
        share = units.percent(one.peak_usage_bytes, one.limit_bytes)
        near = f", {share} of the limit; {units.size(one.headroom_bytes)} was left"
    return units.size(one.peak_usage_bytes) + near


def _stuck(since: pd.Timestamp) -> str:
    return (
        f"{shown_time(since)}: tasks wait for memory that nobody frees, because oom_kill_disable is set in "
        "memory.oom_control. Unset it, raise the limit, or end a task"
    )


def _by_what(one: Held) -> str:
    attempts, stall_ms = one.reclaim.attempts, one.reclaim.stall_ms
    if one.evicted_bytes and not attempts:
        return "by reclaim for an ancestor cgroup or for the whole machine"
    return (
        f"by {units.count(attempts)} reclaim attempts (the kernel frees memory for a cgroup at its "
        f"limit), which delayed tasks by {units.duration(stall_ms and stall_ms / 1000)}"
    )


def summary(cgroups: Iterable[Held], *, interrupted: bool = False) -> str:
    """Return the answer for a trace without a kill: the cgroup nearest to its limit, and what made room.

    `interrupted`: the recording has no end; used only for a trace without data of any cgroup.
    """
    cgroups = list(cgroups)
    if interrupted and not cgroups:
        return (
            f"{_NONE_SEEN}, and it has no data of any cgroup. The recorder was killed, or is still running: "
            "a kill cannot be excluded."
        )
    return _nearest_to_its_limit(cgroups) + "".join(_broken_off(cgroups[0]) if cgroups else ())


def _broken_off(one: Held) -> Iterator[str]:
    """Yield the parts of the warning that a kill can have followed the last record."""
    if one.recorded_until is None:
        return
    yield (
        f" The recording has no end: its last record is from {shown_time(one.recorded_until)}. The recorder "
        "was killed then, could not write any more, or is still running: a kill after that cannot be excluded"
    )
    if one.recorder_cgroup is not None:
        yield f", and is likely: the recorder ran in {visible(one.recorder_cgroup)}, which was traced"
    yield "."


def _nearest_to_its_limit(cgroups: Iterable[Held]) -> str:
    limited = [one for one in cgroups if one.headroom_bytes is not None and one.limit_bytes]
    if not limited:
        return f"{_no_kill(cgroups)}, and no cgroup of this trace has a limit."
    near = min(limited, key=room_left)
    where = place_of_life(near)
    if near.stuck_since is not None:
        return (
            f"{_no_kill(limited)}, but tasks are stuck: {where} is at its limit of "
            f"{units.size(near.limit_bytes)}, and its OOM killer is switched off (memory.oom_control)."
        )
    near_by = f"came within {units.size(near.headroom_bytes)} of" if near.headroom_bytes else "reached"
    evicted = (
        f"{units.size(near.evicted_bytes)} of page cache was evicted to make room"
        if near.evicted_bytes
        else "no page cache had to be evicted"
    )
    again = near.refaulted_bytes or 0
    if near.evicted_bytes and again * 2 >= near.evicted_bytes:
        evicted += f", {units.size(again)} had to be read again"
    swapped = f", and {units.size(near.peak_swap_bytes)} went to swap" if near.peak_swap_bytes else ""
    limit = units.size(near.limit_bytes)
    return f"{_no_kill(limited)}: {where} {near_by} its limit of {limit}; {evicted}{swapped}."


def _no_kill(cgroups: Iterable[Held]) -> str:
    is_whole = all(one.recorded_until is None for one in cgroups)
    return "No OOM kill" if is_whole else _NONE_SEEN
