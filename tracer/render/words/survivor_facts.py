"""The facts about a cgroup in a trace without a kill: how near it came to its limit, and what made room."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import pandas as pd

from tracer import units
from tracer.analysis.explain.slowed import room_left, slowest
from tracer.analysis.results.survivor import Crawl, Delayed, Held, RereadFile
from tracer.analysis.views.reclaim import REQUESTED
from tracer.categories import PART_BY_NAME
from tracer.render.words import memory_facts
from tracer.render.words.escape import visible
from tracer.render.words.kill_facts import allocated, read_again, shown_time, sizing_basis, why_no_range
from tracer.render.words.limit_outcomes import in_words
from tracer.render.words.places import place_of_life
from tracer.render.words.prose import Fact
from tracer.render.words.quality_facts import TOTALS_EXACT, losses, summed
from tracer.render.words.reclaim_facts import (
    MEMORY_HIGH,
    MEMORY_MAX,
    above_high,
    bound,
    lowered,
    memory_high,
    more_memory,
    swapped,
    waits,
)

_MOST_FILES_IN_BRIEF: Final = 2
_LOST_IN_WORDS: Final = {
    "reread_ms": "reading again what had been evicted",
    "reclaim_ms": "in reclaim (waits for a CPU left out)",
    "swap_in_ms": "reading from swap",
    "throttled_ms": "throttled above {high}",
}
"""Part of the lost time (`analysis.results.survivor.LostTime`) -> the words after its duration."""

_KERNEL_PART_DIVISOR: Final = 200
"""Parts of kernel memory below usage / `_KERNEL_PART_DIVISOR` are left out."""

_NEARLY_ALL_PERCENT: Final = 99
_NONE_SEEN: Final = "No OOM kill was recorded before the recording broke off"


def held(one: Held) -> Iterator[Fact]:
    """Yield all facts about a surviving cgroup: how near it came to its limit, and what made room."""
    yield "limit", _limit(one)
    yield from memory_high(one)
    yield "peak usage", _peak_usage(one)
    if one.kernel_peak_bytes is not None:
        yield "its peak ever", f"{units.size(one.kernel_peak_bytes)} by the kernel's own count (memory.peak)"
    yield from _progress(one)
    yield "made of", _made_of(one)
    yield from memory_facts.every_part(one.mappings, one.peak_time, "the peak of usage")
    yield from memory_facts.of_runtimes(one.runtime, one.mappings)
    yield from memory_facts.by_file(one.cached, one.peak_usage_bytes, None)
    yield from _allocated(one, len(one.allocators))
    yield "evicted", f"{units.size(one.evicted_bytes)} of page cache, {_by_what(one)}"
    if one.peak_swap_bytes:
        yield (
            "in swap",
            f"{units.size(one.peak_swap_bytes)} at most: process or shared memory that was swapped out",
        )
    yield from swapped(one.reclaim)
    if one.stuck_since is not None:
        yield "stuck since", _stuck(one.stuck_since)
    yield "read again", read_again(one.refaulted_bytes, one.kernel_refaulted_bytes)
    yield from _read_again(one.progress.files)
    yield from more_memory(one.miss_curve)
    yield from _waits(one)
    yield "minimum limit", f"{_minimum_limit(one)}. {sizing_basis(one.sizing)}".rstrip()
    if one.max_events is not None:
        yield "limit hit", f"{units.times(one.max_events)} by the kernel's count"
    else:
        yield "limit hit", f"{units.UNKNOWN}: {visible(one.quality.unknown.get('max_events', ''))}"
    yield "lost records", losses(one.quality.lost_records)
    if one.quality.summed:
        yield "summed", summed(one.quality.summed, TOTALS_EXACT)


def in_brief(one: Held) -> Iterator[Fact]:
    """Yield the main facts in a few lines: usage, its largest kinds, evictions, sizing and losses."""
    yield "limit", _limit(one)
    yield from memory_high(one)
    yield "peak usage", _peak_usage(one)
    if one.progress.crawl is not None:
        yield from _progress(one)
    kinds = (
        ("page cache", one.cache_at_peak_bytes),
        (f"anonymous memory{_anon_at_most(one)}", one.anon_at_peak_bytes),
        ("shared memory", one.shmem_at_peak_bytes),
        (f"kernel memory{_kernel_parts(one)}", one.kernel_at_peak_bytes),
    )
    least = (one.peak_usage_bytes or 0) / 100
    made_of = [f"{units.size(bytes_)} {kind}" for kind, bytes_ in kinds if bytes_ and bytes_ >= least]
    if made_of:
        yield "made of", ", ".join(made_of)
    yield from memory_facts.by_mapping(one.mappings, one.peak_time, "the peak of usage")
    yield from memory_facts.of_runtimes(one.runtime, one.mappings)
    yield from memory_facts.by_file(one.cached, one.peak_usage_bytes, None)
    yield from islice(_allocated(one, 1, by_command=True), 1)
    if one.stuck_since is not None:
        yield "stuck since", _stuck(one.stuck_since)
    again = f"; {units.size(one.refaulted_bytes)} was read again" if one.refaulted_bytes else ""
    if one.evicted_bytes:
        yield "evicted", f"{units.size(one.evicted_bytes)} of page cache, {_by_what(one)}{again}"
    if one.progress.crawl is not None:
        yield from islice(_read_again(one.progress.files), _MOST_FILES_IN_BRIEF)
    if one.peak_swap_bytes:
        yield "in swap", f"{units.size(one.peak_swap_bytes)} at most"
    yield from islice(_waits(one), 1)
    yield "minimum limit", _minimum_limit(one)
    if one.max_events is not None:
        yield "limit hit", f"{units.times(one.max_events)} by the kernel's count"
    yield "lost records", losses(one.quality.lost_records)
    if one.quality.summed:
        yield "summed", summed(one.quality.summed, TOTALS_EXACT)


def _made_of(one: Held) -> str:
    """Return the memory at the peak of usage by kind, and the peak of anon if it was at another time."""
    parts = {"kernel memory": _kernel_parts(one)}
    others = "".join(
        f"{words} {units.size(bytes_)}{parts.get(words, '')}, "
        for words, bytes_ in (
            ("shared memory (tmpfs, memfd)", one.shmem_at_peak_bytes),
            ("kernel memory", one.kernel_at_peak_bytes),
        )
        if bytes_
    )
    anon = f"{units.size(one.anon_at_peak_bytes)}{_anon_at_most(one)}"
    moment = "" if one.peak_time is None else f", at {shown_time(one.peak_time)}"
    return (
        f"page cache (file contents, which reclaim can drop) {units.size(one.cache_at_peak_bytes)}, {others}"
        f"anon (process memory without a file) {anon}{moment}"
    )


def _kernel_parts(one: Held) -> str:
    """Return ` (3 MiB reclaimable slab, 1 MiB page tables)`: parts with at least 0.5 % of usage."""
    parts = sorted(one.kernel_parts_at_peak_bytes.items(), key=lambda part: -(part[1] or 0))
    least = max((one.peak_usage_bytes or 0) / _KERNEL_PART_DIVISOR, 1)
    listed = [
        f"{units.size(size)} {PART_BY_NAME[name].label}" for name, size in parts if (size or 0) >= least
    ]
    return f" ({', '.join(listed)})" if listed else ""


def _anon_at_most(one: Held) -> str:
    """Return the peak of anonymous memory, if it is notably more than at the peak of usage; else empty."""
    more = (one.peak_anon_bytes or 0) - (one.anon_at_peak_bytes or 0)
    if one.anon_at_peak_bytes is None or more * 100 < (one.peak_usage_bytes or 0) or not more:
        return ""
    return f" ({units.size(one.peak_anon_bytes)} at another time)"


def _allocated(one: Held, most: int, *, by_command: bool = False) -> Iterator[Fact]:
    """Yield the processes that were charged most until usage was at its peak."""
    of_all = (one.allocators, one.further_allocators, most, one.peak_time, "the peak of usage")
    found = allocated(*of_all, thinned=one.quality.thinned, by_command=by_command)
    for number, (who, charged) in enumerate(found):
        yield "" if number else "allocated", f"{who} {charged}"


def _waits(one: Held) -> Iterator[Fact]:
    """Yield the processes that waited longest, with a remark if they also waited for files."""
    lost = one.progress.lost
    rest = ", beside its waits for files" if lost is not None and lost.reread_ms else ""
    yield from ((label, sentence + rest) for label, sentence in waits(one.reclaim, _high(one)))


def _high(one: Held) -> str:
    return MEMORY_HIGH if one.high_owner is None else one.high_owner.file


def advice(one: Held) -> str:
    """Return the sentences on the limit that the same work needs."""
    return f"Minimum limit: {_minimum_limit(one)}. {sizing_basis(one.sizing)}".rstrip()


def _limit(one: Held) -> str:
    how = lowered(one, MEMORY_MAX)
    return units.limit(one.limit_bytes) + (f", {how}" if how else "")


def _minimum_limit(one: Held) -> str:
    low, high = one.sizing.min_limit_bytes or (0, None)
    if not low and not one.sizing.outcomes:
        return f"not known: {why_no_range(one.quality)}"
    if not one.sizing.outcomes:
        return f"at least {units.size(low)}; how much is enough is not known: {why_no_range(one.quality)}"
    below = f"killed below {units.size(low)}; " if low else ""
    enough = one.sizing.outcomes[0]
    lives = "is not killed" if enough.outcome == "unknown" else in_words(enough)
    survives = f"{below}from {units.size(enough.limit_bytes)}, it {lives}"
    if high is None:
        why = why_no_range(one.quality)
        return f"{survives}; a limit that is large enough for its page cache is not known: {why}"
    slowed = ", if memory.high is no lower" if _is_slowed(one) else ""
    most = f"with {units.size(high)}, the same work"
    if enough.limit_bytes == high:
        return f"{below}{most} survives and reads (nearly) nothing again{slowed}"
    return f"{survives}; {most} reads (nearly) nothing again{slowed}"


def _is_slowed(one: Held) -> bool:
    """Return whether memory.high slowed its tasks or evicted its page cache, as it will at any limit."""
    return one.progress.state == "throttled" or bool(one.high_events)


def _peak_usage(one: Held) -> str:
    near, peak = "", one.peak_usage_bytes or 0
    if one.headroom_bytes is not None and one.limit_bytes and peak > one.limit_bytes:
        why = "it was lowered later"
        if not lowered(one, MEMORY_MAX):
            why += ", or a charge that cannot fail was let through"
        near = f", above the limit: {why}"
    elif one.headroom_bytes is not None and one.limit_bytes:
        share = units.percent(one.peak_usage_bytes, one.limit_bytes)
        near = f", {share} of the limit; {units.size(one.headroom_bytes)} was left"
    return units.size(one.peak_usage_bytes) + near


def _stuck(since: pd.Timestamp) -> str:
    return (
        f"{shown_time(since)}: tasks wait for memory that nobody frees, because oom_kill_disable is set in "
        "memory.oom_control. Unset it, raise the limit, or end a task"
    )


def _progress(one: Held) -> Iterator[Fact]:
    """Yield the state, the lost time by its parts, the work, and the memory pressure.

    The active time of tasks is their lost time, their work and their first reads: no idle waits.
    """
    it = one.progress
    if it.state is None or it.lost is None:
        return
    lost = {name: getattr(it.lost, name) for name in _LOST_IN_WORDS}
    if it.crawl is not None:
        seconds = (it.crawl.end - it.crawl.begin).total_seconds()
        yield (
            "state",
            f"{it.state}: {units.in_percent(it.crawl.lost_share)} of the tasks' active time was lost in the "
            f"{units.duration(seconds)} from {shown_time(it.crawl.begin)}",
        )
    parts = [
        f"{units.duration(ms / 1000)} {_LOST_IN_WORDS[name].format(high=_high(one))}"
        for name, ms in sorted(lost.items(), key=lambda part: -(part[1] or 0))
        if ms
    ]
    if it.lost_share is not None:
        time = f"{'all ' if it.crawl else ''}the active time of the tasks"
        yield "lost time", f"{units.in_percent(it.lost_share)} of {time}: {', '.join(parts) or 'none'}"
    first = (
        f", and {units.duration(it.lost.first_read_ms / 1000)} of reading" if it.lost.first_read_ms else ""
    )
    if it.lost.work_ms is not None:
        yield "work", f"{units.duration(it.lost.work_ms / 1000)} of CPU time outside of reclaim{first}"
    if one.psi_some_share:
        yield (
            "pressure",
            f"some task waited for memory {units.in_percent(one.psi_some_share)} of the whole trace, "
            "idle time included (PSI)",
        )


def _read_again(files: Iterable[RereadFile]) -> Iterator[Fact]:
    for number, file in enumerate(files):
        path = "a file whose name is not known" if file.path is None else visible(file.path)
        program = ", which it executes" if file.executable else ""
        yield "" if number else "of these", f"{units.size(file.refaulted_bytes)} of {path}{program}"


def _is_requested(one: Held) -> bool:
    """Return whether nearly all that was evicted was evicted on request."""
    return 0 < one.evicted_bytes * _NEARLY_ALL_PERCENT <= one.evicted_on_request_bytes * 100


def _requested_part(one: Held) -> str:
    """Return the part of the evicted cache that was evicted on request; empty if there is none."""
    asked = one.evicted_on_request_bytes
    return f"{units.size(asked)} of it on request" if asked else ""


def _by_what(one: Held) -> str:
    attempts, stall_ms = one.reclaim.attempts, one.reclaim.stall_ms
    if one.evicted_bytes and not attempts:
        return "by reclaim for an ancestor cgroup or for the whole machine"
    if _is_requested(one):
        return REQUESTED
    at = f"limit or above its {_high(one)}" if one.high_owner is not None else "limit"
    asked = _requested_part(one)
    return (
        f"by {units.count(attempts)} reclaim attempts (the kernel frees memory for a cgroup at its "
        f"{at}), which delayed tasks by {units.duration(stall_ms and stall_ms / 1000)}"
        + (f"; {asked}" if asked else "")
    )


def summary(cgroups: Iterable[Held], *, interrupted: bool = False) -> str:
    """Return the answer for a trace without a kill: the cgroup nearest to its limit, and what made room.

    `interrupted`: the recording has no end. It is used only for a trace without data of any cgroup.
    """
    cgroups = list(cgroups)
    if interrupted and not cgroups:
        return (
            f"{_NONE_SEEN}, and it has no data of any cgroup. The recorder was killed, or is still running: "
            "a kill cannot be excluded."
        )
    crawling = slowest(cgroups)
    answer = _nearest_to_its_limit(cgroups) if crawling is None else _crawl(crawling)
    return answer + "".join(_broken_off(cgroups[0]) if cgroups else ())


def _crawl(one: Held) -> str:
    """Return the answer for a cgroup whose tasks live, but hardly work."""
    crawl = one.progress.crawl
    assert crawl is not None
    last = "the last " if crawl.lasts else ""
    span = f"{last}{units.duration((crawl.end - crawl.begin).total_seconds())}"
    share = units.in_percent(crawl.lost_share)
    spent = f"For {span}, {_who(one.progress.delayed)} spent {share} of the active time"
    if one.progress.state == "throttled":
        return f"{spent} throttled: {above_high(one)}, which slows tasks and never kills."
    outlook = f"; {_outlook(crawl)}" if crawl.lasts else ""
    is_endless = not crawl.lasts and crawl.is_flat()
    always = " No OOM kill ends such work: there is always page cache to evict." if is_endless else ""
    return f"{spent} {_doing(one)}{outlook}. {_room(one)}{always}"


def _outlook(crawl: Crawl) -> str:
    """Return in words whether a kill will end tasks that crawl, as far as the growth of memory that reclaim
    cannot free shows."""
    if crawl.is_flat():
        return "no OOM kill will end this"
    pace, room = crawl.grown_per_minute(), crawl.room_bytes
    if pace is None or room is None:
        return "it is not known whether a kill will end this"
    return (
        f"memory that cannot be reclaimed grew by {units.size(pace)} a minute meanwhile, and a kill comes "
        f"when the {units.size(room)} that was left for it is full"
    )


def _who(delayed: Sequence[Delayed]) -> str:
    """Return `4 cc1plus and 2 more`: the processes that lost most time."""
    if not delayed or delayed[0].comm is None:
        return "the tasks"
    first, more = delayed[0], sum(one.processes for one in delayed[1:])
    many = f"{units.count(first.processes)} " if first.processes > 1 else ""
    return f"{many}{visible(first.comm or '')}{f' and {units.count(more)} more' if more else ''}"


def _doing(one: Held) -> str:
    """Return the cause of the lost time: `reading /usr/lib/…/cc1plus again`."""
    lost = one.progress.lost
    if lost is not None and (lost.swap_in_ms or 0) > (lost.reread_ms or 0) + (lost.reclaim_ms or 0):
        return "reading swapped memory back"
    in_reclaim = "in reclaim and " if lost and (lost.reclaim_ms or 0) > (lost.reread_ms or 0) else ""
    if not one.progress.files or one.progress.files[0].path is None:
        return f"{in_reclaim}reading evicted files again"
    first = one.progress.files[0]
    whole = one.refaulted_bytes or sum(file.refaulted_bytes for file in one.progress.files)
    others = "" if 2 * first.refaulted_bytes >= whole else " and other files"
    return f"{in_reclaim}reading {visible(first.path or '')}{others} again"


def _room(one: Held) -> str:
    """Return the sentence about the limit and the evicted page cache."""
    place, evicted = place_of_life(one), units.size(one.evicted_bytes)
    limit = bound(one)
    if limit is None:
        return f"{place} had no limit; {evicted} of its page cache was evicted."
    return (
        f"{place} had too little memory for its files at {limit}: {evicted} of page cache was evicted, "
        f"{units.size(one.refaulted_bytes)} of it read again."
    )


def beside_kills(cgroups: Iterable[Held]) -> str | None:
    """Return a sentence on the cgroups without a kill in a trace with kills; None if they have no limit."""
    limited = [one for one in cgroups if one.headroom_bytes is not None and one.limit_bytes]
    if not limited:
        return None
    others = (
        "1 other cgroup with a limit" if len(limited) == 1 else f"{len(limited)} other cgroups with limits"
    )
    near = min(limited, key=room_left)
    room = f"; {_made_room(near)}" if near.evicted_bytes or near.peak_swap_bytes else ""
    return f"{others} had no kill: {_came_near(near)}{room}."


def _broken_off(one: Held) -> Iterator[str]:
    """Yield the parts of the warning that the work was cut off, or that a kill may have come after the last
    record."""
    if one.recorded_until is None:
        if one.cut_off is not None:
            yield f" The work was not complete: {visible(one.cut_off)}."
        return
    yield (
        f" The recording has no end: its last record is from {shown_time(one.recorded_until)}. The recorder "
        "was killed then, could not write any more, or is still running: a kill after that cannot be excluded"
    )
    if one.recorder_cgroup is not None:
        yield f", and is likely: the recorder ran in {visible(one.recorder_cgroup)}, which was traced"
    yield "."


def _nearest_to_its_limit(cgroups: Sequence[Held]) -> str:
    limited = [one for one in cgroups if one.headroom_bytes is not None and one.limit_bytes]
    if not limited:
        # With -c, only some cgroups are shown, and a limit of a cgroup above them may apply.
        whose = (
            "none of the cgroups shown has a limit of its own"
            if cgroups
            else "no cgroup of this trace has a limit"
        )
        return f"{_no_kill(cgroups)}, and {whose}."
    near = min(limited, key=room_left)
    if near.stuck_since is not None:
        return (
            f"{_no_kill(limited)}, but tasks are stuck: {place_of_life(near)} is at its limit of "
            f"{units.size(near.limit_bytes)}, and its OOM killer is switched off (memory.oom_control)."
        )
    return f"{_no_kill(limited)}: {_came_near(near)}; {_made_room(near)}."


def _came_near(near: Held) -> str:
    near_by = f"came within {units.size(near.headroom_bytes)} of" if near.headroom_bytes else "reached"
    how = lowered(near, MEMORY_MAX)
    return f"{place_of_life(near)} {near_by} its limit of {units.size(near.limit_bytes)}" + (
        f" ({how})" if how else ""
    )


def _made_room(near: Held) -> str:
    """Return the amounts of evicted, read again and swapped memory, as a clause."""
    asked = _requested_part(near)
    why = REQUESTED if _is_requested(near) else "to make room" + (f" ({asked})" if asked else "")
    evicted = (
        f"{units.size(near.evicted_bytes)} of page cache was evicted {why}"
        if near.evicted_bytes
        else "no page cache had to be evicted"
    )
    again = near.refaulted_bytes or 0
    if near.evicted_bytes and again * 2 >= near.evicted_bytes:
        evicted += f", {units.size(again)} had to be read again"
    swapped = f", and {units.size(near.peak_swap_bytes)} went to swap" if near.peak_swap_bytes else ""
    return evicted + swapped


def _no_kill(cgroups: Iterable[Held]) -> str:
    is_whole = all(one.recorded_until is None for one in cgroups)
    return "No OOM kill" if is_whole else _NONE_SEEN
