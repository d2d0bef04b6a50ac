"""Checks of the explanation of an experiment with a kill, for which the right answer is known.

Each check is a function from `Evidence` to a `Check`, which carries the numbers that explain a failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracer.units import count, duration, size

if TYPE_CHECKING:
    import pandas as pd

    from tracer.analysis.results.kill import Cause, OomReport
    from tracer.analysis.trace import AnalysedTrace

_HELD_BY_CPU_BYTES: Final = 1 << 20


def writer_has_ended(evidence: Evidence, left_bytes: int) -> Check:
    """Check that a process wrote this much shmem, and ended before the kill.

    Memory written before usage reached half of the limit is not in the window of the allocators.
    """
    name, report = "the writer of what is left had ended", evidence.report
    wrote = max(report.allocators, key=lambda one: one.shmem_bytes, default=None)
    if wrote is None or wrote.exited is None or report.time is None:
        return Check(name, False, "no writer of shmem has an end")
    before_s = (report.time - wrote.exited).total_seconds()
    least = left_bytes - evidence.limit_bytes // 2
    passed = least <= wrote.shmem_bytes <= left_bytes and before_s > 0
    detail = f"pid {wrote.tgid} wrote {size(wrote.shmem_bytes)}, and ended {duration(before_s)} before"
    return Check(name, passed, detail)


def memory_was_copied(evidence: Evidence, size_bytes: int) -> Check:
    """Check that a fork is a contributing factor; the process and its child have this much memory
    each.

    Both also have the interpreter. A page to which the parent has written since the fork exists twice.
    """
    name, report = "the fork is a factor", evidence.report
    numbers = next((one.numbers for one in report.verdict.contributing if one.kind == "cow"), {})
    shared, copied = numbers.get("shared_bytes"), numbers.get("copied_bytes")
    anon = report.composition.anon
    if not isinstance(shared, int) or not isinstance(copied, int) or anon is None:
        return Check(name, False, "no memory that processes share is found")
    # The memory without the copies, and the most memory that could be copied.
    both = (anon - copied, shared + copied)
    passed = all(size_bytes <= each <= size_bytes + INTERPRETER_BYTES for each in both)
    detail = f"{size(copied)} copied, {size(shared)} still shared, set up: {size(size_bytes)}"
    return Check(name, passed, detail)


def segment_is_the_ceiling(evidence: Evidence, size_bytes: int, members: int) -> Check:
    """Check that growth is extrapolated to the end of a segment of this size, and not beyond.

    The upper end of the minimum limit has room for the whole segment beside the other memory. The rest of it
    is less than the interpreter of each member, which may copy the memory that it shares, and the charges
    that each CPU may hold.
    """
    name, report = "growth ends at the size of the segment", evidence.report
    found = [one.size_bytes for one in report.shared_files if one.is_mapped]
    _, high = report.sizing.min_limit_bytes or (None, None)
    shmem = report.composition.shmem
    if high is None or shmem is None:
        return Check(name, False, "no upper end of the minimum limit is found")
    needed = size_bytes + evidence.limit_bytes - shmem
    more = members * INTERPRETER_BYTES + int(evidence.trace.meta["cpus"]) * _HELD_BY_CPU_BYTES
    passed = found == [size_bytes] and needed <= high <= needed + more
    sizes = ", ".join(size(one) for one in found) or "not known"
    detail = f"its size: {sizes}, set up: {size(size_bytes)}; it fits below {size(high)}, needed: "
    return Check(name, passed, f"{detail}{size(needed)}")


_CHARGE_BATCH_PAGES = 64
INTERPRETER_BYTES = 16 << 20
_NEARLY_ALL = 0.8
_NEXT_TO_NONE = 0.05
_RSS_ERROR_BYTES = 1 << 20  # a task's RSS is counted in batches on each CPU (mm/memory.c, add_mm_counter)


@dataclass(frozen=True)
class Check:
    """A statement about the trace, its truth, and the numbers that decide it."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Evidence:
    """The trace of an experiment with its kills (usually one), its limit, and its label."""

    trace: AnalysedTrace
    reports: Sequence[OomReport]
    limit_bytes: int
    cause: Cause

    @property
    def report(self) -> OomReport:
        return self.reports[0]


def only_kill(reports: Sequence[OomReport]) -> Check:
    """Check that there is exactly one kill, because the workload allocates until it is killed."""
    return Check("one OOM kill, explained", len(reports) == 1, f"{len(reports)} in the trace")


def first_kill(reports: Sequence[OomReport]) -> Check:
    """Check that there is a kill. There can be several, because the requesting task survives.

    A victim that has lost its address space does not make the kernel wait any more, so another task can be
    killed before the memory of the victim is free.
    """
    return Check("an OOM kill, explained", bool(reports), f"{len(reports)} in the trace")


def killed_at_the_limit(evidence: Evidence) -> Check:
    """Check that usage was at the limit: a memcg OOM happens when a charge would exceed the limit.

    See mm/memcontrol.c, try_charge_memcg.
    """
    owner = evidence.report.limit_owner
    # Charges that CPUs hold in advance (MEMCG_CHARGE_BATCH in mm/memcontrol.c) count as usage when the limit
    # is hit. They may be uncharged while the kernel prints its report, before the kill.
    uncharged = (owner.limit_bytes or 0) - (owner.usage_bytes or 0)
    stock = _CHARGE_BATCH_PAGES * int(evidence.trace.meta["page_size"]) * int(evidence.trace.meta["cpus"])
    at_limit = owner.limit_bytes == evidence.limit_bytes and 0 <= uncharged <= stock
    detail = (
        f"usage {size(owner.usage_bytes)} of {size(owner.limit_bytes)}, set: {size(evidence.limit_bytes)}"
    )
    return Check("killed at its own limit", at_limit and evidence.report.constraint == "memcg", detail)


def cause_is_named(evidence: Evidence) -> Check:
    """Check that the verdict is the label of the experiment."""
    verdict = evidence.report.verdict
    detail = f"{verdict.cause} ({verdict.confidence} confidence), label: {evidence.cause}"
    return Check("the cause is found", verdict.cause == evidence.cause, detail)


def composition_adds_up(evidence: Evidence) -> Check:
    """Check that the named classes make up usage within 1 %; `other` is the rest."""
    composition = evidence.report.composition
    total = composition.total
    named = sum(value for part, value in composition.parts() if part != "other" and value is not None)
    passed = total is not None and total > 0 and abs(named - total) <= total / 100
    return Check("the composition adds up to usage within 1 %", passed, f"{size(named)} of {size(total)}")


def evictions_equal_pgsteal(evidence: Evidence) -> Check:
    """Check that the trace has an eviction for each page that the kernel counts as stolen from the cgroup."""
    owners = _owner_ids(evidence)
    damons = damons_bytes(evidence.trace, owners)
    return equal_pgsteal(evidence.report.cushion.evicted_bytes, _pgsteal_bytes(evidence, owners), damons)


def equal_pgsteal(evicted_bytes: int | None, stolen_bytes: int | None, damons_bytes: int) -> Check:
    """Compare evictions with the kernel's count, which excludes evictions by DAMON (`damons_pages`)."""
    passed = (
        evicted_bytes is not None
        and stolen_bytes is not None
        and 0 <= evicted_bytes - stolen_bytes <= damons_bytes
    )
    detail = f"evicted {evicted_bytes} bytes, pgsteal {stolen_bytes} bytes"
    if damons_bytes:
        detail += f"; DAMON evicted {damons_bytes} bytes, which are not in pgsteal"
    return Check("evicted bytes equal the kernel's pgsteal", passed, detail)


def damons_bytes(trace: AnalysedTrace, cgroup_ids: Sequence[int]) -> int:
    """Return the bytes of page cache that DAMON's threads evicted from these cgroups."""
    from tracer.analysis.explain.measure.window import damons_pages

    evicted = trace.evicted.of_cgroups(sorted(set(cgroup_ids)))
    return damons_pages(trace.processes, evicted, *trace.span_ns) * int(trace.meta["page_size"])


def cache_fills_to_the_limit(evidence: Evidence) -> Check:
    """Check act one: usage reaches the limit while nearly all of it is cache."""
    from tracer.analysis.core.columns import optional

    timeline = _timeline(evidence)
    full = timeline[timeline["usage_bytes"] >= 0.97 * evidence.limit_bytes]  # a large folio is 2 %
    if full.empty:
        return Check("act 1: cache fills to the limit", False, "usage never came within 3 % of the limit")
    cache = optional(full["cache_bytes"].max())
    passed = cache is not None and cache >= 0.8 * evidence.limit_bytes
    detail = f"cache was {size(cache)} of {size(evidence.limit_bytes)}"
    return Check("act 1: cache fills to the limit", passed, detail)


def cache_gives_way(evidence: Evidence) -> Check:
    """Check act two: usage stays within 5 % of the limit while anonymous memory replaces cache.

    An attempt frees whole large folios, so usage dips by a few MiB. Usage also dips by the pages that are
    evicted for another reason than this limit: by reclaim for the machine, by kswapd, or by DAMON because
    they are idle. It also dips by other memory that is freed: runc starts a container with a copy of itself
    in shmem, which may outlive the first eviction.
    """
    name = "act 2: cache gives way to anonymous memory"
    cushion = evidence.report.cushion
    absorbed, evicted = cushion.absorbed_bytes, cushion.evicted_bytes
    timeline = _timeline(evidence).dropna(subset=["usage_bytes", "cache_bytes"])
    if absorbed is None or evicted is None or timeline.empty:
        return Check(name, False, "the evictions are not known")
    act = timeline.loc[timeline["cache_bytes"].idxmax() :]
    lowest = int(act["usage_bytes"].min())
    before = act.loc[: act["usage_bytes"].idxmin()]
    others = int(before[["cache_evicted_direct_bytes", "cache_evicted_kswapd_bytes"]].sum().sum())
    not_cache = before["usage_bytes"] - before["cache_bytes"]
    freed = max(int(not_cache.iloc[0] - not_cache.iloc[-1]), 0)
    passed = absorbed + others >= 0.7 * evidence.limit_bytes and evicted >= absorbed
    passed = passed and lowest + others + freed >= 0.95 * evidence.limit_bytes
    detail = f"{size(evicted)} evicted for {size(absorbed)} of growth, usage never below {size(lowest)}"
    if others:
        detail += f"; {size(others)} evicted before for another reason than this limit"
    if freed:
        detail += f"; {size(freed)} of other memory freed before"
    return Check(name, passed, detail)


def cache_is_used_up(evidence: Evidence) -> Check:
    """Check act three: the kill happens after the cache is used up."""
    cushion, killed_at = evidence.report.cushion, evidence.report.time
    passed = (
        cushion.exhausted_at is not None
        and killed_at is not None
        and cushion.exhausted_at <= killed_at
        and cushion.cache_end_bytes is not None
        and cushion.cache_end_bytes <= 0.05 * evidence.limit_bytes
    )
    detail = f"{size(cushion.cache_end_bytes)} left at the kill, {_used_up(cushion.exhausted_at, killed_at)}"
    return Check("act 3: the kill comes when the cache is used up", passed, detail)


def _used_up(exhausted_at: pd.Timestamp | None, killed_at: pd.Timestamp | None) -> str:
    if exhausted_at is None or killed_at is None:
        return "never used up"
    return f"used up {duration((killed_at - exhausted_at).total_seconds())} before"


def code_is_named(evidence: Evidence, shares: Mapping[str, float]) -> Check:
    """Check that these functions made memory grow, each by its share, within three times the error of
    samples.

    A kernel or an interpreter may not let frames be read, and on a slow machine the process may be killed
    first. So a report that names no function passes, and says so.
    """
    name = "the code that grew is named"
    found = {one.frames[0].function: one for one in evidence.report.code if one.frames}
    named = [found[function] for function in shares if function in found]
    if not named:
        return Check(name, True, "no function of the program was named here")
    whole = sum(one.share for one in named)
    passed = len(named) == len(shares) and all(
        abs(found[function].share / whole - share) <= 3 * found[function].share_error / whole
        for function, share in shares.items()
    )
    detail = ", ".join(f"{one.share / whole:.0%} in {one.frames[0]}" for one in named)
    set_up = ", ".join(f"{share:.0%}" for share in shares.values())
    return Check(name, passed, f"{detail}; set up: {set_up}")


def little_was_evicted(evidence: Evidence) -> Check:
    """Check that hardly any cache was evicted, because there was no cache."""
    evicted = evidence.report.cushion.evicted_bytes
    passed = evicted is not None and evicted <= 0.1 * evidence.limit_bytes
    return Check("there was no cushion of cache", passed, f"{size(evicted)} evicted")


def full_of(evidence: Evidence, classes: Sequence[str]) -> Check:
    """Check that these classes make up nearly all of usage; the rest is the interpreter."""
    made_of = evidence.report.composition
    found = sum(getattr(made_of, name) or 0 for name in classes)
    passed = found >= _NEARLY_ALL * evidence.limit_bytes
    detail = f"{size(found)} of {size(made_of.total)}"
    return Check(f"the limit is full of {' and '.join(classes)}", passed, detail)


def shmem_of_no_process(evidence: Evidence, unmapped_bytes: int) -> Check:
    """Check that shmem includes memory that was written but never mapped."""
    shmem = evidence.report.composition.shmem
    mapped = sum(one.shmem_rss_bytes or 0 for one in evidence.report.victims)
    passed = shmem is not None and abs(shmem - mapped - unmapped_bytes) <= _RSS_ERROR_BYTES
    detail = f"{size(shmem)}, minus {size(mapped)} in the victim's RSS; written: {size(unmapped_bytes)}"
    return Check("shmem that no process has mapped is found", passed, detail)


def little_was_mapped(evidence: Evidence) -> Check:
    """Check that the victim's RSS is small: the memory that is freed when it dies belongs to no process."""
    mapped = sum(
        (one.anon_rss_bytes or 0) + (one.file_rss_bytes or 0) + (one.shmem_rss_bytes or 0)
        for one in evidence.report.victims
    )
    passed = bool(evidence.report.victims) and mapped <= 2 * INTERPRETER_BYTES
    return Check("the victim's RSS is only that of the interpreter", passed, size(mapped))


def reclaim_met_unwritten_pages(evidence: Evidence) -> Check:
    """Check that the last attempts freed almost nothing, because the pages were dirty or under writeback.

    A folio of 512 pages may have been written back just then. The multi-gen LRU skips such pages uncounted.
    """
    tried = evidence.report.reclaim.transcript
    scanned = sum(one.scanned_file_pages for one in tried)
    unwritten = sum(max(one.nr_dirty, one.nr_writeback) for one in tried)
    freed = sum(one.reclaimed_pages for one in tried)
    passed = bool(tried) and freed <= _NEXT_TO_NONE * scanned and unwritten >= _NEARLY_ALL * scanned
    detail = f"{unwritten} of {scanned} pages dirty or under writeback, {freed} freed"
    return Check("reclaim found pages that were not yet written", passed, detail)


def locked_file(evidence: Evidence, size_bytes: int) -> Check:
    """Check that the cache of the locked file is not droppable, and in the victim's RSS."""
    clean = evidence.report.composition.file_clean
    mapped = sum(one.file_rss_bytes or 0 for one in evidence.report.victims)
    passed = clean is not None and clean <= 0.05 * evidence.limit_bytes and mapped >= size_bytes
    detail = f"{size(mapped)} mapped, {size(size_bytes)} of it locked; {size(clean)} can be dropped"
    return Check("a locked file is not droppable cache", passed, detail)


def worst_is_killed(evidence: Evidence, crowd: Sequence[tuple[int, int]]) -> Check:
    """Check that the kernel killed the first process of the crowd, or the first few in order.

    `crowd` has (bytes, oom_score_adj) of each process, ordered by badness: the resident memory plus
    oom_score_adj thousandths of the limit (mm/oom_kill.c, oom_badness). All are copies of one process, so its
    own memory counts equally for each.
    """
    limit = evidence.limit_bytes
    scores = [least + adj * limit // 1000 for least, adj in crowd]
    left = limit - sum(
        least for least, _ in crowd
    )  # the most memory that the requesting process has; its adj is 0
    victims = [victim for report in evidence.reports for victim in report.victims]
    passed = scores == sorted(scores, reverse=True) and scores[0] > left
    passed = passed and 0 < len(victims) <= len(crowd)
    passed = passed and all(
        victim.oom_score_adj == adj and 0 <= (victim.anon_rss_bytes or 0) - least <= INTERPRETER_BYTES
        for victim, (least, adj) in zip(victims, crowd, strict=False)
    )
    killed = ", ".join(f"{size(one.anon_rss_bytes)} with adj {one.oom_score_adj}" for one in victims)
    detail = f"killed: {killed}; set up: {size(crowd[0][0])} with adj {crowd[0][1]}, badness "
    return Check("the worst is killed", passed, f"{detail}{size(scores[0])}, the next {size(scores[1])}")


def all_are_candidates(evidence: Evidence, crowd: Sequence[tuple[int, int]]) -> Check:
    """Check that the whole crowd and the requesting task are candidates, the victim first.

    If functions cannot be hooked and the kernel left its table out, the report must give the reason. The
    kernel writes ten reports in 5 s, so perhaps none after kills elsewhere.
    """
    name, report = "all are candidates, the worst first", evidence.report
    found, why = report.candidates, report.quality.unknown.get("candidates")
    if not found and report.quality.kmsg != "matched" and why is not None:
        return Check(name, True, f"not known, as reported: {why}")
    expected = sorted([0, *(adj for _, adj in crowd)])
    passed = sorted(one.oom_score_adj for one in found) == expected
    passed = passed and [one.chosen for one in found] == [True] + [False] * len(crowd)
    detail = f"{len(found)} of {len(expected)}"
    if found:
        detail += f", the first: pid {found[0].pid}, badness {count(found[0].badness)} pages"
    return Check(name, passed, detail)


def three_cgroups(evidence: Evidence, trigger: str, victim: str) -> Check:
    """Check that trigger and victim are named in these cgroups below the limit owner."""
    report = evidence.report
    owner, died = report.limit_owner, [one.cgroup for one in report.victims]
    expected = (f"{owner.cgroup}/{trigger}", [f"{owner.cgroup}/{victim}"])
    passed = owner.is_ancestor is True and (report.trigger.cgroup, died) == expected
    detail = f"request from {report.trigger.cgroup}, killed in {', '.join(map(str, died))}"
    return Check("trigger, victim and limit in three cgroups", passed, f"{detail}, limit: {owner.cgroup}")


def killed_together(evidence: Evidence, others_bytes: Sequence[int]) -> Check:
    """Check that one decision killed the trigger and one process of each of these sizes."""
    victims = evidence.report.victims
    others = sorted(one.anon_rss_bytes or 0 for one in victims if one.pid != evidence.report.trigger.pid)
    passed = (
        len(victims) == len(others) + 1 == len(others_bytes) + 1
        and all(one.group_kill for one in victims)
        and all(
            least <= found <= least + INTERPRETER_BYTES
            for least, found in zip(sorted(others_bytes), others, strict=True)
        )
    )
    sizes = ", ".join(f"{one.comm} (pid {one.pid}) {size(one.anon_rss_bytes)}" for one in victims)
    return Check("all were killed by one decision", passed, sizes)


def _timeline(evidence: Evidence) -> pd.DataFrame:
    """Return the limit owner's timeline before the kill; a row has the levels at its interval's end."""
    import pandas as pd

    from tracer.analysis.views.timeline import timeline

    rows = timeline(evidence.trace, evidence.report.limit_owner.cgroup, "20ms")
    assert evidence.report.time is not None  # a trace has a clock
    return rows[rows.index <= evidence.report.time - pd.Timedelta("20ms")]


def _pgsteal_bytes(evidence: Evidence, owners: Sequence[int]) -> int | None:
    """Return the kernel's count from the creation of the cgroup until the kill, as the sample at the kill has
    it.

    That sample has no count if only memory.stat counts (v2 until the counts became node statistics in 7.1),
    because memory.stat lags until its next flush. Then the last reading is right: the only process is gone,
    so nothing is reclaimed after the kill.
    """
    samples = evidence.trace.samples
    readings = samples[samples["cgroup_id"].isin(owners)].dropna(subset="pgsteal")
    at_kill = readings[readings["kill_id"] == evidence.report.kill_id]
    counts = (readings if at_kill.empty else at_kill)["pgsteal"]
    return None if counts.empty else int(counts.iloc[-1]) * int(evidence.trace.meta["page_size"])


def _owner_ids(evidence: Evidence) -> list[int]:
    cgroups = evidence.trace.cgroups
    owners = cgroups.loc[cgroups["path"] == evidence.report.limit_owner.cgroup, "cgroup_id"]
    return [int(each) for each in owners]
