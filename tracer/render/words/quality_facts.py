"""The quality of a trace and of a report in words: hooks, losses, the kernel log, and unknown fields."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from tracer import units
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.quality import LOG_ALONE, OF_LIVES, Quality, SummedInterval, ThinnedInterval
from tracer.categories import PART_BY_NAME
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact
from tracer.trace.recording_ends import COMMAND_ENDED, CONTINUED, DURATION, QUIET, WRITE_FAILED

EXPLAINED_BY: Final = frozenset(
    {
        *("memory by kind", "cache added", "cache deleted", "memcg reclaim", "reclaim target"),
        *("lists shrunk", "event counters", "OOM kill", "OOM decision", "OOM candidates"),
    }
)
"""The signals (kernel/probes.py) that a post-mortem depends on."""

FORMERLY_EXPLAINED_BY: Final = frozenset({"kernel memory"})
"""Further such signals of older traces, whose recorders hooked the counters."""

ALL_EXACT: Final = "all exact"


def ways_taken(probes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (signal, its hook and how exact the hook is). Both are escaped for a terminal."""
    for name, probe in probes.items():
        yield visible(str(name)), visible(_way_taken(probe))


def _way_taken(probe: Any) -> str:
    if probe is None:
        return "absent"
    if not isinstance(probe, Mapping):  # an old trace, which has the hook without its meaning
        return str(probe)
    meaning, hook, detail = (probe.get(key) for key in ("meaning", "hook", "detail"))
    if not hook:
        return ": ".join(filter(None, ("absent", detail)))
    return f"{meaning or 'meaning not known'}: {hook}" + (f" ({detail})" if detail else "")


def not_exact(probes: Mapping[str, Any]) -> str | None:
    """Return `absent: A, B; approximate: C` for the signals that a post-mortem depends on.

    Return `ALL_EXACT` if all of them are exact, and None if the trace has no meanings.
    """
    meanings = {
        name: probe.get("meaning")
        for name, probe in probes.items()
        if name in EXPLAINED_BY | FORMERLY_EXPLAINED_BY and isinstance(probe, Mapping)
    }
    if not meanings:
        return None
    by_meaning = {
        meaning: [name for name, its in meanings.items() if its == meaning]
        for meaning in ("absent", "approximate")
    }
    parts = [f"{meaning}: {', '.join(names)}" for meaning, names in by_meaning.items() if names]
    return "; ".join(parts) or ALL_EXACT


_ENDS: Final = {
    COMMAND_ENDED: "when its command ended",
    DURATION: "after the given time (-d)",
    QUIET: "when nothing more had happened for 5 s",
    CONTINUED: "when it was long enough; the next trace goes on",
    WRITE_FAILED: "because the trace could not be written",
    "failed": "because the recorder failed",
    "command_not_started": "because its command could not be started",
}


def end_in_words(reason: str) -> str:
    """Return an end reason of meta.json in words: `when its command ended`, or `by SIGINT` for a signal."""
    if reason.startswith("SIG"):
        return f"by {visible(reason)}"
    return _ENDS.get(reason) or visible(reason)


KERNEL_LOG: Final = {
    "matched": "its lines about this kill were read and compared",
    "missing": "no line about this kill was read",
    "rate_limited": "the kernel left lines out (rate limit)",
    "only": "the only source of this report",
}
FIELDS_IN_WORDS: Final = {
    "constraint": "the kind of shortage",
    "limit_owner": "the cgroup whose limit was hit",
    "limit_owner.cgroup": "the path of the cgroup",
    "limit_owner.container": "its container",
    "limit_owner.pod": "its pod",
    "limit_owner.namespace": "the namespace of its pod",
    "limit_owner.image": "its image",
    **dict.fromkeys(OF_LIVES, "the run number of the cgroup"),
    "limit_owner.limit_bytes": "the limit",
    "limit_owner.usage_bytes": "usage at the kill",
    "limit_owner.is_ancestor": "whether the limit belongs to an ancestor",
    "trigger": "the requesting task",
    "trigger.pid": "the pid of the requesting task",
    "trigger.comm": "the name of the requesting task",
    "trigger.cgroup": "the cgroup of the requesting task",
    "trigger.gfp": "the gfp flags of the request",
    "trigger.order": "the order of the request",
    "trigger.stack": "the kernel stack",
    "trigger.user_stack": "the user stack",
    "trigger.user_stack_left_code": "whether its unwinding left the code",
    "victims": "the killed processes",
    "victims.swap_bytes": "the swap usage of a killed process",
    "victims.anon_rss_bytes": "the RSS of a killed process",
    "victims.pid": "the pid of a killed process",
    "victims.cgroup": "the cgroup of a killed process",
    "candidates": "the processes that the kernel considered",
    "candidates.badness": "the badness of some candidates",
    "candidates.anon_rss_bytes": "the kinds of RSS of the candidates",
    "candidates.shmem_rss_bytes": "the kinds of RSS of the candidates",
    "badness_total_pages": "the total that oom_score_adj is a share of",
    "what_if": "the oom_score_adj that would have changed the choice",
    "composition": "the composition of usage",
    "composition.total": "usage",
    "working_set_bytes": "the working set",
    "memory_stat_bytes": "some counters of memory.stat",
    "reclaim": "the reclaim attempts",
    "reclaim.swap_writes": "writes to swap",
    "reclaim.swap_reads": "reads from swap",
    "allocators": "the allocating processes",
    "further_allocators": "the allocating processes",
    "cushion": "the evicted page cache",
    "cushion.evicted_bytes": "the evicted page cache",
    "cushion.absorbed_bytes": "the growth for which evictions made room",
    "cushion.cache_start_bytes": "the peak of the page cache",
    "cushion.cache_end_bytes": "the page cache at the kill",
    "cushion.limit_reached_at": "the time when usage reached the limit",
    "cushion.exhausted_at": "the time when the page cache was used up",
    "cushion.evicted_after_bytes": "the page cache evicted after that",
    "cushion.refaulted_bytes": "the evicted page cache that was read again",
    "cushion.kernel_refaulted_bytes": "the kernel's count of what was read again",
    "sizing.min_limit_bytes": "the minimum limit",
    "time": "the date",
    "ktime_ns": "the kernel's timestamp",
    "kernel_log.page_size": "the page size",
    "code_sampled_share": "the share of the growth that was sampled",
    "code_memory": "the sampled memory that was freed again",
}
"""Field of the report that can be unknown -> a noun phrase for it, in the order of what is shown: what
decides the story stands first. `PART_BY_NAME` has the classes of the composition."""
_PLACES: Final = {field: place for place, field in enumerate(FIELDS_IN_WORDS)}

_NOT_IN_BRIEF: Final = (
    "trigger.user_stack_left_code",
    "cushion.kernel_refaulted_bytes",
    "cushion.evicted_after_bytes",
    "candidates.anon_rss_bytes",
    "candidates.shmem_rss_bytes",
    "composition.hugetlb",
    "code_sampled_share",
    "code_memory",
)
"""Fields that only confirm others, or whose memory is charged to a cgroup only with a rare mount option."""

TOTALS_EXACT: Final = "totals are exact"
_MOST_LISTED: Final = 3
_REASONS: Final = {
    "ring_full": "the ring was full",
    "max_overhead": "--max-overhead was exceeded",
    "history": "older history is kept as sums",
}


def losses(lost_records: int) -> str:
    """Return the number of lost records and their effect, or `none`."""
    return f"{units.count(lost_records)}: totals of flows may be too low" if lost_records else "none"


def summed(intervals: Sequence[SummedInterval], effect: str) -> str:
    """Return the first intervals in which page-cache events were summed, the reason, and the effect on the
    numbers."""
    listed = ", ".join(map(_interval, intervals[:_MOST_LISTED]))
    more = f" and in {len(intervals) - _MOST_LISTED} more intervals" if len(intervals) > _MOST_LISTED else ""
    return f"page-cache events {listed}{more}: {effect}"


def resolution(every_ms: int) -> str:
    """Return the sentence for a kill whose rows are thinned."""
    return (
        f"the rows of this kill are kept one in {every_ms} ms, so times are no finer; the trace that was "
        "written for it has more"
    )


def coarser(intervals: Sequence[ThinnedInterval], row: pd.Timedelta) -> list[ThinnedInterval]:
    """Return the intervals whose rows are too coarse for rows of a timeline of this length."""
    return [one for one in intervals if one.every_ms * 1_000_000 > row.value]


def thinned(intervals: Sequence[ThinnedInterval]) -> str:
    """Return the intervals in which rows were thinned, with the resolution in each."""
    listed = [
        f"one in {one.every_ms} ms from {one.begin:%H:%M:%S.%f}"[:-3] + f" to {one.end:%H:%M:%S.%f}"[:-3]
        for one in intervals
    ]
    return f"rows are kept {' and '.join(listed)} UTC, so times within are no finer"


def _interval(one: SummedInterval) -> str:
    why = ", ".join(_REASONS.get(reason) or visible(reason) for reason in one.reasons)
    begin, end = (time.strftime("%H:%M:%S.%f")[:-3] for time in (one.begin, one.end))
    return f"from {begin} to {end} UTC ({why})"


def quality(report: OomReport) -> Iterator[Fact]:
    """Yield the losses, the use of the kernel log, the signals, and each unknown field with its reason."""
    lost = report.quality.lost_records
    if report.kernel_log is None:
        yield "lost records", losses(lost)
    else:
        yield (
            "lost lines",
            f"{units.count(lost)} by the log's own count" if lost else "none mentioned in the log",
        )
    if report.quality.summed:
        yield "summed", summed(report.quality.summed, TOTALS_EXACT)
    if report.quality.resolution_ms:
        yield "times", resolution(report.quality.resolution_ms)
    elif report.quality.thinned:
        yield "times", thinned(report.quality.thinned)
    yield "kernel log", _use_of_kernel_log(report.quality)
    yield from (("differs", visible(sentence)) for sentence in report.quality.disagreements)
    if (signals := not_exact(report.quality.probes)) is not None:
        yield "signals", signals
    by_reason: dict[str, list[str]] = {}
    for field, why in sorted(report.quality.unknown.items(), key=_place):
        by_reason.setdefault(why, []).append(_in_words(field))
    for why, fields in by_reason.items():
        yield "not known", f"{', '.join(dict.fromkeys(fields))}: {visible(why)}"


def not_known_in_words(quality: Quality, said: Collection[str] = ()) -> list[str]:
    """Return each unknown field once, except fields that no kernel log shows, fields that a brief text leaves
    out, and fields in `said`, which another line reports."""
    fields = (
        field
        for field, why in sorted(quality.unknown.items(), key=_place)
        if why != LOG_ALONE and field not in _NOT_IN_BRIEF and field not in said
    )
    return list(dict.fromkeys(map(_in_words, fields)))


def is_beyond_a_log(report: OomReport, field: str) -> bool:
    """Return whether the field is unknown because the report comes from a kernel log alone."""
    return report.quality.unknown.get(field) == LOG_ALONE


def kernel_log_agrees(quality: Quality) -> str:
    """Return in words whether the kernel's own lines about the kill were read, and whether they agree with
    the trace."""
    words = KERNEL_LOG[quality.kmsg]
    if quality.kmsg == "matched":
        words = (
            "its lines about this kill differ, see below"
            if quality.disagreements
            else "its lines about this kill agree"
        )
    return f"{words}; {visible(quality.kmsg_missing)}" if quality.kmsg_missing else words


def not_known(report: OomReport, field: str) -> str:
    """Return `not known: REASON`."""
    why = report.quality.unknown.get(field)
    return units.UNKNOWN if why is None else f"{units.UNKNOWN}: {visible(why)}"


def _use_of_kernel_log(quality: Quality) -> str:
    """Return in words the findings in the kernel log, its missing parts, and the fields that come from it."""
    words = KERNEL_LOG[quality.kmsg]
    if quality.kmsg_missing:
        words += f"; {visible(quality.kmsg_missing)}"
    if quality.kmsg_fields:
        words += f"; taken from it: {', '.join(map(_in_words, quality.kmsg_fields))}"
    return words


def _place(unknown: tuple[str, str]) -> int:
    """Return where an unknown field stands; a class of the composition stands with the whole."""
    field, _ = unknown
    return _PLACES.get(field, _PLACES.get(field.partition(".")[0], len(_PLACES)))


def _in_words(field: str) -> str:
    """Return the noun phrase for a field of the report, given its dotted name."""
    whole, _, part = field.partition(".")
    if whole == "composition" and part in PART_BY_NAME:
        return PART_BY_NAME[part].label
    return FIELDS_IN_WORDS.get(field) or visible(field)
