"""What is said about a kill, or about a cgroup that lived: labels, sentences and table cells.

The terminal and the page show the same facts; only their layout differs. Every name has passed `visible`,
every technical word is explained where it is first used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import pandas as pd

from tracer import units
from tracer.analysis.explain import log_postmortem
from tracer.analysis.explain.wording import trigger_name
from tracer.analysis.results.conclusions import Sizing
from tracer.analysis.results.kill import LimitOwner, OomReport
from tracer.analysis.results.quality import Quality
from tracer.analysis.results.survivor import Held
from tracer.analysis.results.tasks import Trigger, Victim
from tracer.categories import PART_BY_NAME
from tracer.render.words import log_place, signal_ways
from tracer.render.words.escape import visible
from tracer.render.words.places import one_of

_TITLE_CHARACTERS: Final = 60

Fact: TypeAlias = tuple[str, str]
"""(label, sentence)"""

CAUSES: Final = {
    "anon_growth": "process memory grew",
    "shmem": "tmpfs or shared memory filled the limit",
    "dirty_writeback": "cache could not be dropped before it was written to disk",
    "unevictable": "locked memory, or files on ramfs, filled the limit",
    "kernel_memory": "kernel memory filled the limit",
    "gfp_constrained": "the request did not allow reclaim to enter file systems or to start I/O",
    "swap_exhausted": "swap was full",
    "protected_cache": "memory.min protects the cache that was left",
    "global_pressure": "the machine had no memory that this request could use",
    "unknown": "the records do not show why",
}
CONSTRAINTS: Final = {
    "memcg": "it was this cgroup's own limit that was hit",
    "global": "no limit of a cgroup: the request was to the machine as a whole",
    "cpuset": "the memory nodes of a cpuset were full",
    "mempolicy": "the memory nodes of a memory policy were full",
    "unknown": "what was exhausted is not known",
}
KERNEL_LOG: Final = {
    "matched": "its lines on this kill were read and compared",
    "missing": "no line on this kill was read",
    "rate_limited": "the kernel left lines out",
    "only": "all of this comes from it",
}
FIELDS_IN_WORDS: Final = {
    "time": "the date",
    "ktime_ns": "the time by the kernel's clock",
    "kernel_log.page_size": "how large a page is",
    "constraint": "what was short",
    "limit_owner": "whose limit was hit",
    "limit_owner.cgroup": "the path of the cgroup",
    "limit_owner.container": "its container",
    "limit_owner.pod": "its pod",
    **dict.fromkeys(log_postmortem.OF_LIVES, "which life of its path the cgroup was"),
    "limit_owner.limit_bytes": "the limit",
    "limit_owner.usage_bytes": "usage at the kill",
    "limit_owner.is_ancestor": "whether the limit was an ancestor's",
    "trigger": "who asked",
    "trigger.pid": "the pid of the task that asked",
    "trigger.comm": "the name of the task that asked",
    "trigger.cgroup": "the cgroup of the task that asked",
    "trigger.gfp": "what the request allowed (gfp)",
    "trigger.order": "how large the request was (order)",
    "trigger.stack": "the stack in the kernel",
    "trigger.user_stack": "the stack in the program's own code",
    "victims": "who was killed",
    "victims.swap_bytes": "what of a killed process was in swap",
    "victims.anon_rss_bytes": "the RSS of a killed process",
    "victims.cgroup": "the cgroup of a killed process",
    "candidates": "which processes the kernel weighed",
    "candidates.badness": "the badness of some of them",
    "badness_total_pages": "what oom_score_adj is a part of",
    "what_if": "which oom_score_adj would have changed the choice",
    "composition": "what the limit was full of",
    "composition.total": "usage",
    "working_set_bytes": "the working set",
    "memory_stat_bytes": "some counters (memory.stat)",
    "reclaim": "what reclaim tried",
    "reclaim.swap_writes": "what was written to swap",
    "reclaim.swap_reads": "what was read from swap",
    "allocators": "who had allocated",
    "further_allocators": "who had allocated",
    "cushion": "what the page cache gave back",
    "cushion.evicted_bytes": "what the page cache gave back",
    "cushion.absorbed_bytes": "how much other memory took its place",
    "cushion.cache_start_bytes": "how much page cache there was",
    "cushion.cache_end_bytes": "how much page cache was left",
    "cushion.exhausted_at": "when the page cache was used up",
    "cushion.refaulted_bytes": "how much evicted cache was needed again",
    "sizing.min_limit_bytes": "which limit would have sufficed",
}
"""Field of the report that can be unknown -> what it is; the classes of its composition: `PART_BY_NAME`."""

VICTIM_TITLES: Final = ("killed", "anon", "file", "shmem", "page tables", "swap", "adj")
VICTIM_NOTE: Final = "anon, file, shmem: its RSS by kind. adj: oom_score_adj, -1000 (never) to 1000 (first)"


def shown_time(time: pd.Timestamp) -> str:
    """`2025-11-24 23:40:04.412345 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S.%f") + " UTC"


def seconds_before(report: OomReport, time: pd.Timestamp) -> float | None:
    """From an instant to the kill; None where the time of the kill is not known."""
    return None if report.time is None else (report.time - time).total_seconds()


def place(
    cgroup: str | None,
    container: str | None,
    pod: str | None = None,
    *,
    run: int | None = None,
    runs: int | None = None,
) -> str:
    """`container web, pod web-1 (/docker/4f…)`; of one of several lives `run 3 of 7 of …`."""
    path = visible(cgroup) if cgroup is not None else "a cgroup whose path is not known"
    names = [f"{kind} {visible(name)}" for kind, name in (("container", container), ("pod", pod)) if name]
    where = f"{', '.join(names)} ({path})" if names else path
    return where if run is None or runs is None or runs == 1 else f"{one_of(run, runs)} of {where}"


def life(of: LimitOwner | Held) -> str:
    """The place of a limit that was hit, or of a cgroup that lived."""
    pod = of.pod if isinstance(of, LimitOwner) else None
    return place(of.cgroup, of.container, pod, run=of.run, runs=of.runs)


def cause(report: OomReport) -> str:
    verdict = report.verdict
    return f"Cause: {CAUSES[verdict.cause]} ({verdict.cause}). Confidence: {verdict.confidence}."


def setting(report: OomReport) -> Iterator[Fact]:
    """When, where, against which limit."""
    owner = report.limit_owner
    when = log_place.when(report.kernel_log) if report.time is None else shown_time(report.time)
    yield "kill", f"number {report.kill_id}, {when}"
    if report.kernel_log is not None:
        yield "in the log", log_place.lines(report.kernel_log)
    yield "cgroup", life(owner)
    ancestor = "; the task that asked lives in a cgroup below it" if owner.is_ancestor else ""
    constraint = CONSTRAINTS.get(report.constraint, f"{report.constraint}: a BPF policy's own")
    yield "limit", f"{units.limit(owner.limit_bytes)}; {constraint}{ancestor}"


def composition(report: OomReport, *, least_bytes: float = 0.0) -> list[tuple[str, int]]:
    """(class, bytes) of the classes that hold as much as this, or anything; the largest first."""
    parts = [
        (part, value) for part, value in report.composition.parts() if value and abs(value) >= least_bytes
    ]
    return sorted(parts, key=lambda part: -part[1])


def composition_rest(report: OomReport) -> Iterator[str]:
    """The classes with nothing in them, and those that are not known."""
    for words, wanted in (("none of it: ", 0), ("not known: ", None)):
        labels = [PART_BY_NAME[part].label for part, value in report.composition.parts() if value == wanted]
        if labels:
            yield words + ", ".join(labels)


def suspects(report: OomReport) -> Iterator[Fact]:
    """Every cause that was weighed, the likeliest first."""
    for suspect in report.verdict.suspects:
        yield suspect.cause, f"{suspect.weight:.2f}: {visible(suspect.reason)}"


def often_confused(report: OomReport) -> Iterator[Fact]:
    """Usage, working set, RSS and cache, which are often taken for one another."""
    rss = [
        part
        for victim in report.victims
        for part in (victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes)
    ]
    known = [part for part in rss if part is not None]
    victims = "processes" if len(report.victims) > 1 else "process"
    usage = report.limit_owner.usage_bytes
    inactive = report.memory_stat_bytes.get("inactive_file")
    yield (
        "usage",
        f"{units.size(usage)}: all that the limit counts, page cache included; the only number that decides "
        "on a kill",
    )
    yield (
        "working set",
        f"{units.size(report.working_set_bytes)}: usage less inactive_file ({units.size(inactive)}), the "
        "cache not used lately; what Kubernetes shows",
    )
    yield (
        "RSS",
        f"{units.size(sum(known) if rss and len(known) == len(rss) else None)}: resident set size, what the "
        f"killed {victims} had mapped, whoever is charged for it; what ps shows",
    )
    if report.memory_stat_bytes:
        yield "cache", _cache_at_kill(report)


def _cache_at_kill(report: OomReport) -> str:
    """What the kernel's word cache (NR_FILE_PAGES) stood for."""
    made_of, counters = report.composition, report.memory_stat_bytes
    kinds = (
        ("clean", made_of.file_clean),
        ("dirty", made_of.file_dirty),
        ("being written", made_of.writeback),
        ("shmem, which cannot be dropped", made_of.shmem),
        ("locked or on ramfs", _locked_file(report)),
    )
    lists = (("used lately", counters.get("active_file")), ("not lately", counters.get("inactive_file")))
    made, used = (
        ", ".join(f"{units.size(value)} {kind}" for kind, value in of if value) for of in (kinds, lists)
    )
    total = f"{units.size(counters.get('file'))}: what memory.stat and docker call cache"
    return "; ".join(part for part in (total, made, used) if part)


def cushion(report: OomReport) -> Iterator[Fact]:
    """The page cache as the cushion between the limit and the kill."""
    it = report.cushion
    if report.kernel_log is not None:
        yield "page cache", f"{units.size(it.cache_end_bytes)} at the kill"
        return
    at_most, at_kill = units.size(it.cache_start_bytes), units.size(it.cache_end_bytes)
    yield "page cache", f"{at_most} at its most, {at_kill} at the kill"
    yield "evicted", f"{units.size(it.evicted_bytes)}: taken from it by reclaim to make room"
    if it.evicted_bytes != 0:
        yield "absorbed", f"{units.size(it.absorbed_bytes)}: other memory that fitted only because of that"
    if it.exhausted_at is not None:
        yield "used up", f"{units.duration(seconds_before(report, it.exhausted_at))} before the kill"
    elif why := report.quality.unknown.get("cushion.exhausted_at"):
        yield "used up", f"{units.UNKNOWN}: {visible(why)}"
    else:
        yield "used up", "not between usage coming to the limit and the kill"
    yield "refaulted", refaulted(it.refaulted_bytes, it.evicted_bytes)


def refaulted(again_bytes: int | None, evicted_bytes: int | None) -> str:
    """What was read again by the kernel's count, which knows also of what had been evicted before."""
    more = again_bytes is not None and evicted_bytes is not None and again_bytes > evicted_bytes
    before = "; some of it was evicted before this time" if more else ""
    return f"{units.size(again_bytes)}: evicted, but soon needed and read again{before}"


def _locked_file(report: OomReport) -> int | None:
    """What of the cache no other class has: locked pages are a class of their own."""
    made_of, counters = report.composition, report.memory_stat_bytes
    others = (made_of.file_clean, made_of.file_dirty, made_of.writeback, made_of.shmem, counters.get("file"))
    if not made_of.unevictable or None in others:
        return None
    *parts, file = (value or 0 for value in others)
    return max(file - sum(parts), 0)


def asked(report: OomReport) -> Iterator[Fact]:
    """The task whose page could not be had: name, cgroup, what it asked for."""
    trigger = report.trigger
    pages = ""
    if trigger.order is not None:
        pages = f", 2^{trigger.order} pages in a row (order)" if trigger.order else ", one page (order 0)"
    gfp = "" if trigger.gfp is None else f", gfp {_gfp(trigger)} (what the allocator may do to find memory)"
    name = units.UNKNOWN if trigger.pid is None and trigger.comm is None else visible(trigger_name(trigger))
    yield "asked", f"{name}{titled(trigger.cmdline)}{pages}{gfp}"
    if trigger.cgroup is not None and trigger.cgroup != report.limit_owner.cgroup:
        yield "its cgroup", visible(trigger.cgroup)


def _gfp(trigger: Trigger) -> str:
    return f"{trigger.gfp:#x} {visible(trigger.gfp_names)}".rstrip()


def titled(cmdline: str | None) -> str:
    """` [postgres: checkpointer]`, where a title says more than the name before it."""
    if cmdline is None:
        return ""
    shown = visible(cmdline)
    return f" [{shown if len(shown) <= _TITLE_CHARACTERS else shown[:_TITLE_CHARACTERS] + '…'}]"


def allocated(report: OomReport, most: int) -> Iterator[Fact]:
    """Who charged how much in the window before the kill, net of what they gave back."""
    for one in report.allocators[:most]:
        name = visible(one.comm) if one.comm else "name not known"
        yield f"{name} ({one.tgid})", units.size(one.charged_bytes) + titled(one.cmdline)
    rest, further = report.allocators[most:], report.further_allocators
    processes = len(rest) + (further.processes if further is not None else 0)
    if processes:
        charged = sum(one.charged_bytes for one in rest) + (
            further.charged_bytes if further is not None else 0
        )
        yield f"{units.count(processes)} more", units.size(charged)


def no_allocator(report: OomReport) -> str:
    """What is said where no process is named."""
    if "allocators" in report.quality.unknown:
        return not_known(report, "allocators")
    return "no charge of any process was seen in the window before the kill"


def killed(report: OomReport, most: int) -> Iterator[Fact]:
    """What the table of victims does not say: that they died together, and in which cgroups they were."""
    if not report.victims:
        yield "killed", not_known(report, "victims")
    if any(victim.group_kill for victim in report.victims):
        several = f"{units.count(len(report.victims))} processes by one decision"
        yield "killed", f"{several}: memory.oom.group is set, so that they are killed together"
    for victim in report.victims[:most]:
        if victim.cmdline is not None:
            yield "killed", f"{visible(victim.comm)} (pid {victim.pid}){titled(victim.cmdline)}"
    cgroups = list(dict.fromkeys(victim.cgroup for victim in report.victims if victim.cgroup is not None))
    if cgroups and cgroups != [report.limit_owner.cgroup]:
        more = f" and {len(cgroups) - most} more" if len(cgroups) > most else ""
        yield "killed in", ", ".join(map(visible, cgroups[:most])) + more


def victim_cells(victim: Victim) -> tuple[str, ...]:
    """Cells under `VICTIM_TITLES`."""
    return (
        f"{visible(victim.comm)} ({victim.pid})",
        units.size(victim.anon_rss_bytes),
        units.size(victim.file_rss_bytes),
        units.size(victim.shmem_rss_bytes),
        units.size(victim.pgtables_bytes),
        units.size(victim.swap_bytes),
        units.UNKNOWN if victim.oom_score_adj is None else str(victim.oom_score_adj),
    )


def quality(report: OomReport) -> Iterator[Fact]:
    """What the report rests on, and what it does not know, with the reasons."""
    lost = report.quality.lost_records
    if report.kernel_log is not None:
        yield (
            "lost lines",
            f"{units.count(lost)} by the log's own count" if lost else "none that the log mentions",
        )
    else:
        yield "lost records", f"{units.count(lost)}: sums of flows may be low" if lost else "none"
    yield "kernel log", _kernel_log(report.quality)
    yield from (("differs", visible(sentence)) for sentence in report.quality.disagreements)
    if (signals := signal_ways.not_exact(report.quality.probes)) is not None:
        yield "signals", signals
    by_reason: dict[str, list[str]] = {}
    for field, why in report.quality.unknown.items():
        by_reason.setdefault(why, []).append(_in_words(field))
    for why, fields in by_reason.items():
        yield "not known", f"{', '.join(dict.fromkeys(fields))}: {visible(why)}"


def not_known_in_words(quality: Quality) -> list[str]:
    """What is not known, each once; without what no kernel log shows."""
    fields = (field for field, why in quality.unknown.items() if why != log_postmortem.LOG_ALONE)
    return list(dict.fromkeys(map(_in_words, fields)))


def is_beyond_a_log(report: OomReport, field: str) -> bool:
    """Whether the field is not known since the answer comes from a kernel log alone."""
    return report.quality.unknown.get(field) == log_postmortem.LOG_ALONE


def kernel_log_agrees(quality: Quality) -> str:
    """Whether the kernel's own lines on the kill were there, and say the same."""
    words = KERNEL_LOG[quality.kmsg]
    if quality.kmsg == "matched":
        words = (
            "its lines differ in what follows" if quality.disagreements else "its lines on this kill agree"
        )
    return f"{words}; {visible(quality.kmsg_missing)}" if quality.kmsg_missing else words


def not_known(report: OomReport, field: str) -> str:
    """`not known: why`."""
    why = report.quality.unknown.get(field)
    return units.UNKNOWN if why is None else f"{units.UNKNOWN}: {visible(why)}"


def _kernel_log(quality: Quality) -> str:
    """What was found there, what was not, and what of the report it told."""
    words = KERNEL_LOG[quality.kmsg]
    if quality.kmsg_missing:
        words += f"; {visible(quality.kmsg_missing)}"
    if quality.kmsg_fields:
        words += f"; taken from it: {', '.join(map(_in_words, quality.kmsg_fields))}"
    return words


def _in_words(field: str) -> str:
    """What a field of the report is, by its dotted name."""
    whole, _, part = field.partition(".")
    if whole == "composition" and part in PART_BY_NAME:
        return PART_BY_NAME[part].label
    return FIELDS_IN_WORDS.get(field) or visible(field)


def sizing(report: OomReport) -> Iterator[str]:
    """The advice, and the limit that would have sufficed where that can be told."""
    yield from (visible(sentence) for sentence in report.advice)
    basis = sizing_basis(report.sizing)
    if report.sizing.min_limit_bytes is not None:
        yield f"The least limit that would have held lies between {limit_range(report.sizing)}. {basis}"
    elif basis:
        why = visible(report.quality.unknown.get("sizing.min_limit_bytes", units.UNKNOWN))
        yield f"Which limit would have held cannot be told: {why}. {basis}"


def limit_range(sizing: Sizing) -> str:
    """`97.3 MiB and 412 MiB`."""
    low, high = sizing.min_limit_bytes or (None, None)
    return f"{units.size(low)} and {units.size(high)}"


def sizing_basis(sizing: Sizing) -> str:
    return " ".join(map(visible, filter(None, (*sizing.basis, sizing.pace))))
