"""The answer of `explain` on one screen: the cause, advice, composition, cushion, stacks and quality.

Each part is short. `render.terminal.explain_text` and the page show everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from tracer import units
from tracer.analysis.explain.words import evidence
from tracer.analysis.results.kill import OomReport
from tracer.categories import LAYER_BY_NAME, PART_BY_NAME
from tracer.render.terminal import console
from tracer.render.words import code_facts, kill_facts, mapping_facts, places, quality_facts
from tracer.render.words.escape import visible
from tracer.render.words.places import place_of_life
from tracer.render.words.prose import Fact, prose

SCREEN_LINES: Final = 30
LEAST_SHARE: Final = 0.01
"""Parts of usage below this share of the limit are left out."""

_BAR_CELLS: Final = 20
_COLUMNS_FOR_BARS: Final = 100
_MOST_FACTORS: Final = 2
_MOST_NAMED: Final = 4
_MOST_EVIDENCE: Final = 4


def kill_screen(report: OomReport, *, lines: int = SCREEN_LINES, is_in_view: bool = False) -> RenderableType:
    """Return the answer in at most `lines` lines, or in more to keep at least one piece of advice.

    `is_in_view`: no options of the command line are named, for a reader inside of another verb.
    """
    factors = min(len(report.verdict.contributing), _MOST_FACTORS)
    advice = len(report.advice)
    with_factors = [(most, also) for most in range(advice, 1, -1) for also in range(factors, 0, -1)]
    amounts = with_factors + [(most, 0) for most in range(advice, 0, -1)] or [(0, factors)]
    return console.Fitted(
        lines, [partial(_kill_screen, report, *most, is_in_view=is_in_view) for most in amounts]
    )


def _kill_screen(
    report: OomReport, most_advice: int, most_factors: int, *, is_in_view: bool
) -> Iterator[RenderableType]:
    """Yield the answer with the given amounts of advice and contributing factors."""
    yield prose(visible(report.verdict.summary), "bold")
    yield prose(kill_facts.cause(report))
    yield Text()
    yield console.facts(_setting(report))
    yield from _advice(report, most_advice)
    yield from _composition(report)
    yield console.facts(mapping_facts.by_mapping(report.mappings, report.time))
    yield console.facts(mapping_facts.of_runtimes(report.runtime, report.mappings))
    yield Text()
    yield console.facts(code_facts.grown(report.code, report.code_sampled_share))
    yield console.facts(_cushion(report))
    factors = report.verdict.contributing[:most_factors]
    yield console.facts(
        ("" if number else "also", visible(evidence.sentence(factor)))
        for number, factor in enumerate(factors)
    )
    yield console.facts(_how_sure(report))
    if not is_in_view:
        yield prose(_more(report), "dim")


def _setting(report: OomReport) -> Iterator[Fact]:
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


def _advice(report: OomReport, most: int) -> Iterator[RenderableType]:
    sentences = [visible(sentence) for sentence in report.advice]
    left_out = len(sentences) - most
    sentences = sentences[:most] + list(_sizing(report))
    if not sentences:
        return
    yield console.title("What to do")
    yield console.bullets(sentences)
    if left_out > 0:
        yield console.note(f"and {left_out} more (-v)")


def _sizing(report: OomReport) -> Iterator[str]:
    """Yield the minimum limit as far as it is known. If no limit is known to be enough, add the time that a
    larger limit would have bought."""
    if (limit := kill_facts.minimum_limit(report)) is None:
        return
    _, high = report.sizing.min_limit_bytes or (None, None)
    yield limit if high is not None else f"{limit} {visible(report.sizing.pace)}".rstrip()


class _Composition:
    """The kinds of memory as a table, with bars if they fit."""

    def __init__(self, report: OomReport) -> None:
        self._parts = kill_facts.composition(report, least_bytes=_least_bytes(report))
        self._full = report.composition.total or 0

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        with_bars = options.max_width >= _COLUMNS_FOR_BARS - 2
        table = console.Rows(("", "<"), ("", ">"), ("", ">"), *([("", "<")] if with_bars else []), ("", "<"))
        for part, value in self._parts:
            kind = PART_BY_NAME[part]
            layer = LAYER_BY_NAME[kind.layer]
            bar = Text(layer.glyph * round(_BAR_CELLS * max(value, 0) / self._full), style=layer.terminal)
            sizes = units.size(value), units.percent(value, self._full)
            bars = [bar] if with_bars else []
            table.add_row(Text(kind.label, layer.terminal), *sizes, *bars, prose(kind.meaning, "dim"))
        yield table


def _least_bytes(report: OomReport) -> float:
    limit = report.limit_owner.limit_bytes if report.limit_owner.has_limit else report.composition.total
    return LEAST_SHARE * (limit or 0)


def _composition(report: OomReport) -> Iterator[RenderableType]:
    total = report.composition.total
    if "composition" in report.quality.unknown or not total:
        if report.constraint in ("memcg", "unknown"):
            yield console.title("What filled the limit")
            yield console.note(quality_facts.not_known(report, "composition"))
        elif found := [item for item in report.verdict.evidence if not item.is_doubt]:
            yield console.title("Evidence")
            yield console.bullets(visible(evidence.with_source(item)) for item in found[:_MOST_EVIDENCE])
        return
    owner = report.limit_owner
    of_size = f" of {units.size(owner.limit_bytes)}" if owner.has_limit else ""
    usage = "" if of_size and total == owner.limit_bytes else f": usage was {units.size(total)}"
    yield console.title(f"What filled the limit{of_size}{usage}")
    yield console.indented(_Composition(report))


def _cushion(report: OomReport) -> Iterator[Fact]:
    it = report.cushion
    if it.evicted_bytes is None:
        if it.cache_end_bytes is not None:
            yield "page cache", f"{units.size(it.cache_end_bytes)} left at the kill"
        for item in report.verdict.evidence:
            if item.kind == "swap_use":
                yield "swap", evidence.sentence(item).removeprefix("swap: ")
        return
    if it.evicted_bytes < _least_bytes(report):
        evicted = f"only {units.size(it.evicted_bytes)}" if it.evicted_bytes else "nothing"
        yield (
            "page cache",
            f"{evicted} was evicted before the kill, {units.size(it.cache_end_bytes)} was left",
        )
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


def _how_sure(report: OomReport) -> Iterator[Fact]:
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


def _more(report: OomReport) -> str:
    if report.kernel_log is not None:
        return "More: -v (evidence, stack, every process)."
    return "More: -v (evidence, reclaim, stacks, every process), or memcg-tracer report TRACE -o page.html."
