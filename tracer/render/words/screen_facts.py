"""The facts of the first screen of a kill, which the terminal and Markdown show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer import units
from tracer.analysis.explain.words import evidence
from tracer.analysis.explain.words.sentence_parts import time_before
from tracer.analysis.results.kill import OomReport
from tracer.render.words import kill_facts, places, quality_facts
from tracer.render.words.escape import visible
from tracer.render.words.places import place_of_life
from tracer.render.words.prose import Fact

LEAST_SHARE: Final = 0.01
"""Parts of usage below this share of the limit are left out."""
_MOST_NAMED: Final = 4
_MOST_EVIDENCE: Final = 4


def setting(report: OomReport) -> Iterator[Fact]:
    """Yield the number and time of the kill, and its cgroup unless the summary names it."""
    yield "kill", kill_facts.number_and_time(report)
    if report.kernel_log is not None:
        yield "in the log", places.lines_of_log(report.kernel_log)
    owner = report.limit_owner
    if (
        owner.container is not None or owner.pod is not None or (owner.runs or 1) > 1
    ):  # otherwise, the summary has named the cgroup
        yield "cgroup", place_of_life(owner)
    if report.kernel_log is not None:
        yield from kill_facts.killed_in_brief(report)


def sizing(report: OomReport) -> Iterator[str]:
    """Yield the minimum limit as far as it is known. If no limit is known to be enough, add the time that a
    larger limit would have bought."""
    if (limit := kill_facts.minimum_limit(report)) is None:
        return
    _, high = report.sizing.min_limit_bytes or (None, None)
    yield limit if high is not None else f"{limit} {visible(report.sizing.pace)}".rstrip()


def least_bytes(report: OomReport) -> float:
    """Return the size below which a part of usage is left out."""
    limit = report.limit_owner.limit_bytes if report.limit_owner.has_limit else report.composition.total
    return LEAST_SHARE * (limit or 0)


def filled(report: OomReport) -> str:
    """Return the heading of the composition: the limit, and usage if it was not the limit."""
    owner, total = report.limit_owner, report.composition.total
    of_size = f" of {units.size(owner.limit_bytes)}" if owner.has_limit else ""
    usage = "" if of_size and total == owner.limit_bytes else f": usage was {units.size(total)}"
    return f"What filled the limit{of_size}{usage}"


def is_composition_known(report: OomReport) -> bool:
    """Return whether there is something to show of what filled the limit."""
    return bool(report.composition.total) and "composition" not in report.quality.unknown


def leading_evidence(report: OomReport) -> list[str]:
    """Return the first pieces of evidence that are no doubts, not escaped. They replace the composition of a
    kill without a limit."""
    found = [item for item in report.verdict.evidence if not item.is_doubt]
    return [evidence.with_source(item) for item in found[:_MOST_EVIDENCE]]


def cushion(report: OomReport) -> Iterator[Fact]:
    """Yield the page cache that was evicted before the kill, and what was left of it."""
    it = report.cushion
    if it.evicted_bytes is None:
        if it.cache_end_bytes is not None:
            yield "page cache", f"{units.size(it.cache_end_bytes)} left at the kill"
        for item in report.verdict.evidence:
            if item.kind == "swap_use":
                yield "swap", evidence.sentence(item).removeprefix("swap: ")
        return
    if it.evicted_bytes < least_bytes(report):
        evicted = f"only {units.size(it.evicted_bytes)}" if it.evicted_bytes else "nothing"
        left = units.size(it.cache_end_bytes)
        yield "page cache", f"{evicted} was evicted {_at_limit(report)}, {left} was left"
        return
    if it.exhausted_at is not None:
        end = f"used up {kill_facts.used_up(report, it.exhausted_at)} before the kill"
        end += kill_facts.evicted_after(report)
    else:
        end = f"{units.size(it.cache_end_bytes)} was left at the kill"
    room = (
        f", which made room for {units.size(it.absorbed_bytes)} of other memory" if it.absorbed_bytes else ""
    )
    again = f"; {units.size(it.refaulted_bytes)} was read again" if it.refaulted_bytes else ""
    yield "page cache", f"{units.size(it.evicted_bytes)} evicted{room}; {end}{again}"


def _at_limit(report: OomReport) -> str:
    """Return `in the 12 ms at the limit`, the time that a cushion covers: page cache may have been evicted
    when usage was at the limit earlier."""
    since = report.cushion.limit_reached_at
    if since is None or report.time is None:
        return "before the kill"
    return f"in the {time_before(report.time, since, report.quality.thinned)} at the limit"


def how_sure(report: OomReport) -> Iterator[Fact]:
    """Yield the losses, the doubts, the comparison with the kernel log, and the unknown fields."""
    quality = report.quality
    if report.kernel_log is None:
        yield "lost records", quality_facts.losses(quality.lost_records)
        if quality.summed:
            yield "summed", quality_facts.summed(quality.summed, quality_facts.TOTALS_EXACT)
        if quality.resolution_ms:
            yield "times", quality_facts.resolution(quality.resolution_ms)
        yield "kernel log", quality_facts.kernel_log_agrees(quality)
        signals = quality_facts.not_exact(quality.probes)
        if signals is not None and signals != quality_facts.ALL_EXACT:
            yield "signals", signals
    else:
        yield ("source", "a kernel log alone, which does not show what grew or what reclaim freed")
        if quality.lost_records:
            yield "lost lines", f"{units.count(quality.lost_records)} by the log's own count"
    yield from (("doubt", visible(doubt)) for doubt in _doubts(report))
    yield from (("differs", visible(sentence)) for sentence in quality.disagreements)
    said = {"sizing.min_limit_bytes"} if report.sizing.min_limit_bytes is not None else set()
    names = quality_facts.not_known_in_words(quality, said)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    if names:
        yield "not known", ", ".join(names[:_MOST_NAMED]) + more


def _doubts(report: OomReport) -> Iterator[str]:
    """Yield the facts that lower the confidence, except the use of a kernel log alone (see `source`)."""
    for item in report.verdict.evidence:
        if item.is_doubt and report.kernel_log is None:
            yield evidence.doubt(item)
