"""The facts about a kill, and the candidates of the OOM killer: labels, sentences and table cells.

The terminal and the page show the same facts in different layouts. Every name is escaped by `visible`, and
every technical term is explained at its first appearance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import pandas as pd

from tracer import units
from tracer.analysis.core.ledger import SUMMED_NS
from tracer.analysis.explain.victim_selection import ADJ_SCALE, OOM_SCORE_ADJ_MIN
from tracer.analysis.explain.words import evidence
from tracer.analysis.explain.words.cause_words import WORDS
from tracer.analysis.explain.words.sentence_parts import cgroup_name, process, time_before, trigger_name
from tracer.analysis.results.kill import Candidate, OomReport, Sizing, Trigger, Victim, WhatIf
from tracer.analysis.results.memory import Allocator, FurtherAllocators, name_without_number, shared_name
from tracer.analysis.results.quality import Quality, ThinnedInterval, resolution_s
from tracer.categories import PART_BY_NAME
from tracer.render.words import places
from tracer.render.words.escape import visible
from tracer.render.words.eviction_words import COUNTED_LESS
from tracer.render.words.places import place_of_life
from tracer.render.words.prose import Fact
from tracer.render.words.quality_facts import not_known

_TITLE_CHARACTERS: Final = 60
_SUMMED_S: Final = SUMMED_NS / 1e9
_MOST_KILLED: Final = 2
_LEFT_CODE: Final = "(unwinding ended here: the next address is no code, and callers are missing)"

CONSTRAINTS: Final = {
    "memcg": "the cgroup's own limit was hit",
    "global": "no cgroup limit was hit: the whole machine was out of memory",
    "cpuset": "the memory nodes of a cpuset were full",
    "mempolicy": "the memory nodes of a memory policy were full",
    "unknown": "it is not known what was exhausted",
}

VICTIM_TITLES: Final = ("killed", "anon", "file", "shmem", "page tables", "swap", "adj")
VICTIM_NOTE: Final = (
    "anon, file, shmem: RSS by kind. adj: oom_score_adj, from -1000 (never killed) to 1000 (killed first)"
)


def shown_time(time: pd.Timestamp) -> str:
    """Return `2025-11-24 23:40:04.412345 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S.%f") + " UTC"


def number_and_time(report: OomReport) -> str:
    """Return `number 1, 2025-11-24 23:40:04.412345 UTC`, or the time in the form of the kernel log."""
    when = places.when_logged(report.kernel_log) if report.time is None else shown_time(report.time)
    return f"number {report.kill_id}, {when}"


def used_up(report: OomReport, exhausted_at: pd.Timestamp) -> str:
    """Return the time from `exhausted_at`, when the page cache was used up, to the kill."""
    if report.time is None:
        return units.UNKNOWN
    return time_before(report.time, exhausted_at, report.quality.thinned)


def evicted_after(report: OomReport) -> str:
    """Return `, with 4.5 GiB more evicted after that`: cache that came back for moments after it was used up;
    empty for less than a tenth of usage."""
    after, total = report.cushion.evicted_after_bytes or 0, report.composition.total or 0
    return f", with {units.size(after)} more evicted after that" if after * 10 > total else ""


def seconds_before(report: OomReport, time: pd.Timestamp) -> float | None:
    """Return the seconds from `time` to the kill; None if the time of the kill is not known."""
    return None if report.time is None else (report.time - time).total_seconds()


def cause(report: OomReport) -> str:
    """Return the cause in words, its name and the confidence."""
    verdict = report.verdict
    label = "the limit was lowered below usage" if _is_lowered(report) else WORDS[verdict.cause].label
    return f"Cause: {label} ({verdict.cause}). Confidence: {verdict.confidence}."


def _is_lowered(report: OomReport) -> bool:
    """Return whether the limit was lowered, either by the kill's trigger or to a value still below usage."""
    lowered, usage, limit = (
        getattr(report.limit_owner, name) for name in ("lowered", "usage_bytes", "limit_bytes")
    )
    return lowered is not None and (lowered.by_trigger or (usage or 0) * 100 > (limit or 0) * 101)


def setting(report: OomReport) -> Iterator[Fact]:
    """Yield the time of the kill, the cgroup with the image of its container, and its limit."""
    owner = report.limit_owner
    yield "kill", number_and_time(report)
    if report.kernel_log is not None:
        yield "in the log", places.lines_of_log(report.kernel_log)
    yield "cgroup", place_of_life(owner)
    if owner.pod is not None and owner.namespace is not None:
        yield "namespace", visible(owner.namespace)
    if owner.image is not None:
        yield "image", visible(owner.image)
    ancestor = "; the requesting task is in a descendant of this cgroup" if owner.is_ancestor else ""
    constraint = CONSTRAINTS.get(report.constraint, f"{report.constraint}: set by a BPF policy")
    if report.kernel_log is not None and report.kernel_log.may_be_confined:
        constraint += ", or the nodes that a cpuset or a memory policy allowed"
    if _is_lowered(report):
        constraint = "it was lowered to this while more was in use"
    yield "limit", f"{units.limit(owner.limit_bytes)}; {constraint}{ancestor}"


def composition(report: OomReport, *, least_bytes: float = 0.0) -> list[tuple[str, int]]:
    """Return (class, bytes), largest first, of the non-empty classes of at least `least_bytes`."""
    parts = [
        (part, value) for part, value in report.composition.parts() if value and abs(value) >= least_bytes
    ]
    return sorted(parts, key=lambda part: -part[1])


def composition_rest(report: OomReport) -> Iterator[str]:
    """Yield a line with the names of the empty classes, and a line with the names of the unknown classes."""
    for words, wanted in (("empty: ", 0), ("not known: ", None)):
        labels = [PART_BY_NAME[part].label for part, value in report.composition.parts() if value == wanted]
        if labels:
            yield words + ", ".join(labels)


def suspects(report: OomReport) -> Iterator[Fact]:
    """Yield every cause that was considered, most likely first."""
    for suspect in report.verdict.suspects:
        yield suspect.cause, f"{suspect.weight:.2f}: {visible(evidence.sentence(suspect.evidence))}"


def often_confused(report: OomReport) -> Iterator[Fact]:
    """Yield usage, working set, RSS and cache, which are often confused with each other."""
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
        f"{units.size(usage)}: all memory that counts towards the limit, page cache included; the only "
        "number that the OOM killer looks at",
    )
    yield (
        "working set",
        f"{units.size(report.working_set_bytes)}: usage minus inactive_file ({units.size(inactive)}), the "
        "page cache that was not used recently; Kubernetes shows this number",
    )
    yield (
        "RSS",
        f"{units.size(sum(known) if rss and len(known) == len(rss) else None)}: resident set size, the "
        f"memory that the killed {victims} had mapped, whichever cgroup is charged; ps shows this number",
    )
    if report.memory_stat_bytes:
        yield "cache", _cache_at_kill(report)


def _cache_at_kill(report: OomReport) -> str:
    """Return the parts of the memory that the kernel counts as cache (NR_FILE_PAGES)."""
    made_of, counters = report.composition, report.memory_stat_bytes
    kinds = (
        ("clean", made_of.file_clean),
        ("dirty", made_of.file_dirty),
        ("under writeback", made_of.writeback),
        ("shmem, which cannot be dropped", made_of.shmem),
        ("locked or on ramfs", _locked_file(report)),
    )
    lists = (
        ("recently used", counters.get("active_file")),
        ("not recently used", counters.get("inactive_file")),
    )
    made, used = (
        ", ".join(f"{units.size(value)} {kind}" for kind, value in parts if value) for parts in (kinds, lists)
    )
    total = f"{units.size(counters.get('file'))}: the number that memory.stat and docker call cache"
    return "; ".join(part for part in (total, made, used) if part)


def cushion(report: OomReport) -> Iterator[Fact]:
    """Yield the facts about the page cache as the cushion before the kill: how it shrank."""
    it = report.cushion
    if report.kernel_log is not None:
        yield "page cache", f"{units.size(it.cache_end_bytes)} at the kill"
        return
    peak, at_kill = units.size(it.cache_start_bytes), units.size(it.cache_end_bytes)
    yield "page cache", f"{peak} at its peak, {at_kill} at the kill"
    yield "evicted", f"{units.size(it.evicted_bytes)}: page cache that reclaim removed"
    if it.evicted_bytes != 0:
        yield ("absorbed", f"{units.size(it.absorbed_bytes)}: other memory for which the evictions made room")
    if it.exhausted_at is not None:
        yield "used up", f"{used_up(report, it.exhausted_at)} before the kill{evicted_after(report)}"
    elif why := report.quality.unknown.get("cushion.exhausted_at"):
        yield "used up", f"{units.UNKNOWN}: {visible(why)}"
    elif it.evicted_bytes:
        yield "used up", "at no time between reaching the limit and the kill"
    yield "read again", read_again(it.refaulted_bytes, it.kernel_refaulted_bytes)


def read_again(again_bytes: int | None, kernel_bytes: int | None) -> str:
    """Return the evicted cache that was read again, and the kernel's count if it differs by 5 % or more."""
    counted = ""
    if kernel_bytes is not None and abs(kernel_bytes - (again_bytes or 0)) * 20 > kernel_bytes:
        why = (
            COUNTED_LESS
            if kernel_bytes < (again_bytes or 0)
            else "it includes what was evicted before that time or from another cgroup, and counts large "
            "folios as a whole"
        )
        counted = f"; the kernel's count is {units.size(kernel_bytes)}: {why}"
    return f"{units.size(again_bytes)} of what was evicted{counted}"


def _locked_file(report: OomReport) -> int | None:
    """Return the bytes of locked page cache, which the class of locked pages contains."""
    made_of, counters = report.composition, report.memory_stat_bytes
    others = (made_of.file_clean, made_of.file_dirty, made_of.writeback, made_of.shmem, counters.get("file"))
    if not made_of.unevictable or None in others:
        return None
    *parts, file = (value or 0 for value in others)
    return max(file - sum(parts), 0)


def asked(report: OomReport) -> Iterator[Fact]:
    """Yield the task whose request failed, or that lowered the limit: its name, cgroup and request."""
    trigger = report.trigger
    pages = ""
    if trigger.order is not None:
        pages = f", 2^{trigger.order} contiguous pages (order)" if trigger.order else ", one page (order 0)"
    gfp = "" if trigger.gfp is None else f", gfp {_gfp(trigger)} (what the allocator may do to find memory)"
    name = units.UNKNOWN if trigger.pid is None and trigger.comm is None else visible(trigger_name(trigger))
    lowered = report.limit_owner.lowered
    if lowered is not None and lowered.by_trigger:
        yield "lowered by", f"{name}{titled(trigger.cmdline)}"
    else:
        yield "requested by", f"{name}{titled(trigger.cmdline)}{pages}{gfp}"
    if trigger.cgroup is not None and trigger.cgroup != report.limit_owner.cgroup:
        yield "its cgroup", visible(trigger.cgroup)


def user_stack(report: OomReport) -> list[str]:
    """Return the frames of the requesting task in its program, and whether callers are missing. They are not
    escaped."""
    trigger = report.trigger
    end = [_LEFT_CODE] if trigger.user_stack_left_code else []
    return [*(trigger.user_stack or ()), *end]


def _gfp(trigger: Trigger) -> str:
    return f"{trigger.gfp:#x} {visible(trigger.gfp_names)}".rstrip()


def titled(cmdline: str | None) -> str:
    """Return ` [postgres: checkpointer]` for a process title that contains more than the name; else empty."""
    if cmdline is None:
        return ""
    shown = visible(cmdline)
    return f" [{shown if len(shown) <= _TITLE_CHARACTERS else shown[:_TITLE_CHARACTERS] + '…'}]"


def allocated(
    listed: Sequence[Allocator],
    further: FurtherAllocators | None,
    most: int,
    until: pd.Timestamp | None,
    event: str = "the kill",
    *,
    thinned: Sequence[ThinnedInterval] = (),
    by_command: bool = False,
) -> Iterator[Fact]:
    """Yield the bytes that each process charged in the window that ends at `until`, minus its uncharges.

    `event` names the event at `until`. `thinned` is `Quality.thinned`. With `by_command`, processes of one
    name share a line.
    """
    lines = _companies(listed) if by_command else [(one,) for one in listed]
    for company in lines[:most]:
        one = company[0] if len(company) == 1 else _sum_of(company)
        name = visible(one.comm) if one.comm else "name not known"
        each = f", at most {units.size(max(part.charged_bytes for part in company))} each"
        size = (
            f"{units.size(one.charged_bytes)}{each if company[1:] else ''}{_kinds(one)}{titled(one.cmdline)}"
        )
        who = f"{name} ({one.tgid})" if len(company) == 1 else f"{units.count(len(company))} {name} processes"
        yield who, size + _when(one, until, event, thinned)
    rest = [one for company in lines[most:] for one in company]
    processes = len(rest) + (further.processes if further is not None else 0)
    if processes:
        charged = sum(one.charged_bytes for one in rest) + (
            further.charged_bytes if further is not None else 0
        )
        yield f"{units.count(processes)} more", units.size(charged)


def _companies(listed: Sequence[Allocator]) -> list[tuple[Allocator, ...]]:
    """Return the processes grouped by name up to a trailing number. The name that charged most is first."""
    of_name: dict[str | int, list[Allocator]] = {}
    for one in listed:
        of_name.setdefault(name_without_number(one.comm) if one.comm else one.tgid, []).append(one)
    return sorted(
        map(tuple, of_name.values()), key=lambda company: -sum(one.charged_bytes for one in company)
    )


def _sum_of(company: Sequence[Allocator]) -> Allocator:
    """Return the sum of processes of one name. It has their command line if all of them share one."""
    first, exited = company[0], [one.exited for one in company if one.exited is not None]
    kinds = ("charged_bytes", "anon_bytes", "shmem_bytes", "file_bytes", "kernel_bytes")
    return replace(
        first,
        **{name: sum(getattr(one, name) for one in company) for name in kinds},
        comm=shared_name(one.comm for one in company if one.comm) if first.comm else None,
        cmdline=first.cmdline if len({one.cmdline for one in company}) == 1 else None,
        grew_from=min((one.grew_from for one in company if one.grew_from is not None), default=None),
        grew_until=max((one.grew_until for one in company if one.grew_until is not None), default=None),
        exited=max(exited) if len(exited) == len(company) else None,
    )


def _kinds(one: Allocator) -> str:
    """Return ` (28 MiB anonymous, 64 KiB kernel)`: the kinds with at least a hundredth of the charge."""
    left = one.anon_bytes + one.shmem_bytes + one.file_bytes + one.kernel_bytes
    kinds = (
        ("anonymous", one.anon_bytes),
        ("shared", one.shmem_bytes),
        ("page cache", one.file_bytes),
        ("kernel", one.kernel_bytes),
        ("freed by others", one.charged_bytes - left),
    )
    listed = [f"{units.size(part)} {kind}" for kind, part in kinds if part * 100 > one.charged_bytes]
    return f" ({', '.join(listed)})" if listed else ""


def _when(one: Allocator, until: pd.Timestamp | None, event: str, thinned: Sequence[ThinnedInterval]) -> str:
    """Return the span in which a process was charged most, in times before the event at `until`, and whether
    the process had ended by then."""
    if until is None or one.grew_from is None or one.grew_until is None:
        return ""
    begin, end = (_time_before(until, moment, thinned) for moment in (one.grew_from, one.grew_until))
    span = begin if begin == end else f"{begin} to {end}"
    when = f"at {event}" if span == "0 s" else f"{span} before {event}"
    ended = "" if one.exited is None else f"; the process had ended by {event}"
    return f", most of it {when}{ended}"


def _time_before(end: pd.Timestamp, moment: pd.Timestamp, thinned: Sequence[ThinnedInterval]) -> str:
    """Return the time from a charge to the end; a short one is no finer than the sums of charges are."""
    seconds = (end - moment).total_seconds()
    if resolution_s(thinned, moment) or not 0 < seconds < 10 * _SUMMED_S:
        return time_before(end, moment, thinned)
    return units.coarse_duration(seconds + _SUMMED_S, _SUMMED_S)


def no_allocator(report: OomReport) -> str:
    """Return the sentence for a report that names no allocator."""
    if "allocators" in report.quality.unknown:
        return not_known(report, "allocators")
    return "no charge by any process was seen in the window before the kill"


def killed(report: OomReport, most: int) -> Iterator[Fact]:
    """Yield the facts that the table of victims lacks: a group kill, process titles, and the victims'
    cgroups."""
    if not report.victims:
        yield "killed", not_known(report, "victims")
    if any(victim.group_kill for victim in report.victims):
        several = f"{units.count(len(report.victims))} processes by one decision"
        yield "killed", f"{several}: memory.oom.group is set, so they are killed together"
    for victim in report.victims[:most]:
        if victim.cmdline is not None:
            yield "killed", f"{visible(process(victim.comm, victim.pid))}{titled(victim.cmdline)}"
    cgroups = list(dict.fromkeys(victim.cgroup for victim in report.victims if victim.cgroup is not None))
    if cgroups and cgroups != [report.limit_owner.cgroup]:
        more = f" and {len(cgroups) - most} more" if len(cgroups) > most else ""
        yield "killed in", ", ".join(map(visible, cgroups[:most])) + more


def killed_in_brief(report: OomReport) -> Iterator[Fact]:
    """Yield the first victims with their sizes, oom_score_adj and cgroup, as far as they are known."""
    rss_of: dict[int | None, int | None] = {one.pid: one.rss_bytes for one in report.candidates}
    for number, victim in enumerate(report.victims[:_MOST_KILLED]):
        kinds = (
            (victim.anon_rss_bytes, "anonymous"),
            (victim.file_rss_bytes, "of files"),
            (victim.shmem_rss_bytes, "shared"),
            (victim.swap_bytes, "in swap"),
        )
        held = [f"{units.size(bytes_)} {kind}" for bytes_, kind in kinds if bytes_]
        if victim.anon_rss_bytes is None and (rss := rss_of.get(victim.pid)) is not None:
            held = [f"{units.size(rss)} of RSS", *held]
        adj = [f"oom_score_adj {victim.oom_score_adj}"] if victim.oom_score_adj else []
        is_elsewhere = victim.cgroup is not None and victim.cgroup != report.limit_owner.cgroup
        place = [f"in {cgroup_name(victim.cgroup)}"] if is_elsewhere and victim.cgroup != "/" else []
        if facts := [*held, *adj, *place]:
            words = visible(f"{process(victim.comm, victim.pid)}: {', '.join(facts)}")
            yield "" if number else "killed", words
    rest = len(report.victims) - _MOST_KILLED
    if rest > 0:
        yield "", f"and {units.count(rest)} more"


def short_name(victim: Victim) -> str:
    """Return `worker (71)`."""
    return f"{visible(victim.comm)} ({units.UNKNOWN if victim.pid is None else victim.pid})"


def victim_cells(victim: Victim) -> tuple[str, ...]:
    """Return the cells of a victim below `VICTIM_TITLES`."""
    return (
        short_name(victim),
        units.size(victim.anon_rss_bytes),
        units.size(victim.file_rss_bytes),
        units.size(victim.shmem_rss_bytes),
        units.size(victim.pgtables_bytes),
        units.size(victim.swap_bytes),
        units.UNKNOWN if victim.oom_score_adj is None else str(victim.oom_score_adj),
    )


def sizing(report: OomReport) -> Iterator[str]:
    """Yield the advice, then the minimum limit as far as it is known, with its basis."""
    yield from (visible(sentence) for sentence in report.advice)
    if (limit := minimum_limit(report)) is not None:
        yield f"{limit} {sizing_basis(report.sizing)}".rstrip()


def minimum_limit(report: OomReport) -> str | None:
    """Return the sentence on the minimum limit; None if a greater limit would not have helped."""
    sizing = report.sizing
    if sizing.min_limit_bytes is None:
        is_too_small = bool(sizing.basis or sizing.pace)
        return f"No limit is known to be enough: {why_no_range(report.quality)}." if is_too_small else None
    kills = f"all {sizing.kills} kills for this limit" if sizing.kills > 1 else "this kill"
    needed = f"The minimum limit that would have avoided {kills} is"
    low, high = map(units.size, sizing.min_limit_bytes)
    if sizing.min_limit_bytes[1] is not None:
        return f"{needed} between {low} and {high}."
    return f"{needed} more than {low}: {why_no_range(report.quality)}."


def why_no_range(quality: Quality) -> str:
    """Return the reason why there is no range of limits."""
    return visible(quality.unknown.get("sizing.min_limit_bytes", units.UNKNOWN))


def sizing_basis(sizing: Sizing) -> str:
    """Return the sentences on the basis of the minimum limit, joined by spaces."""
    return " ".join(map(visible, filter(None, (*sizing.basis, sizing.pace))))


CANDIDATE_TITLES: Final = ("candidate", "badness", "of total", "RSS", "uses", "adj", "adj adds", "")
CANDIDATE_SIDES: Final = "<>>>>>><"
_NEVER: Final = "never"


def candidate_cells(candidate: Candidate, report: OomReport, page_size: int) -> tuple[str, ...]:
    """Return the cells of a candidate below `CANDIDATE_TITLES`."""
    held, added = candidate.held_pages, candidate.adj_pages
    is_never = candidate.badness is None and (
        candidate.oom_score_adj == OOM_SCORE_ADJ_MIN or "candidates.badness" not in report.quality.unknown
    )
    return (
        f"{visible(candidate.comm)} ({candidate.pid})",
        _NEVER if is_never else units.count(candidate.badness),
        "" if is_never else units.percent(candidate.badness, report.badness_total_pages),
        units.size(candidate.rss_bytes),
        "" if held is None else units.size(held * page_size),
        str(candidate.oom_score_adj),
        "" if is_never or added is None else units.size(added * page_size),
        "chosen" if candidate.chosen else "",
    )


def candidate_note(report: OomReport, page_size: int) -> str:
    """Return the note that explains the table."""
    words = "badness: pages that the process uses (RSS, swap, page tables) plus the pages that adj adds"
    total = report.badness_total_pages
    if total is not None:
        thousandth = units.size(total // ADJ_SCALE * page_size)
        words += f"; an adj of 1 adds {thousandth}, a thousandth of {units.size(total * page_size)}"
    return (
        f"{words}. The highest badness is killed. never: the adj is -1000, or no memory is left to be freed"
    )


def candidate_titles(report: OomReport) -> Iterator[Fact]:
    """Yield the process titles that contain more than the name, except the victims' titles, which
    `killed` yields."""
    killed = {victim.pid for victim in report.victims}
    for one in report.candidates:
        if one.cmdline is not None and one.pid not in killed:
            yield "candidate", f"{visible(one.comm)} ({one.pid}){titled(one.cmdline)}"


def what_if(report: OomReport) -> Iterator[Fact]:
    """Yield the values of oom_score_adj with which the OOM killer would have chosen another victim, all else
    being equal."""
    for number, change in enumerate(report.what_if):
        yield "" if number else "instead", _other_victim(change)


def _other_victim(change: WhatIf) -> str:
    task = f"{visible(change.comm)} ({change.pid})"
    victim = (
        "it" if change.victim_pid == change.pid else f"{visible(change.victim_comm)} ({change.victim_pid})"
    )
    only = "only " if change.instead == OOM_SCORE_ADJ_MIN else ""
    adj = f"had oom_score_adj {change.instead}, not {change.oom_score_adj}"
    return f"{only}if {task} {adj}, {victim} would have been killed"
