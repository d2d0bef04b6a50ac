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
from tracer.render.words import (
    cache_facts,
    code_facts,
    kill_facts,
    mapping_facts,
    quality_facts,
    runtime_facts,
    screen_facts,
)
from tracer.render.words.escape import visible
from tracer.render.words.prose import prose

SCREEN_LINES: Final = 30
_BAR_CELLS: Final = 20
_COLUMNS_FOR_BARS: Final = 100
_MOST_FACTORS: Final = 2


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
    yield console.facts(screen_facts.setting(report))
    yield from _advice(report, most_advice)
    yield from _composition(report)
    yield console.facts(mapping_facts.by_mapping(report.mappings, report.time))
    yield console.facts(runtime_facts.of_runtimes(report.runtime, report.mappings))
    yield console.facts(cache_facts.of_kill(report))
    yield Text()
    yield console.facts(code_facts.grown(report.code, report.code_sampled_share))
    yield console.facts(screen_facts.cushion(report))
    factors = report.verdict.contributing[:most_factors]
    yield console.facts(
        ("" if number else "also", visible(evidence.sentence(factor)))
        for number, factor in enumerate(factors)
    )
    yield console.facts(screen_facts.how_sure(report))
    if not is_in_view:
        yield prose(_more(report), "dim")


def _advice(report: OomReport, most: int) -> Iterator[RenderableType]:
    sentences = [visible(sentence) for sentence in report.advice]
    left_out = len(sentences) - most
    sentences = sentences[:most] + list(screen_facts.sizing(report))
    if not sentences:
        return
    yield console.title("What to do")
    yield console.bullets(sentences)
    if left_out > 0:
        yield console.note(f"and {left_out} more (-v)")


class _Composition:
    """The kinds of memory as a table, with bars if they fit."""

    def __init__(self, report: OomReport) -> None:
        self._parts = kill_facts.composition(report, least_bytes=screen_facts.least_bytes(report))
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


def _composition(report: OomReport) -> Iterator[RenderableType]:
    if not screen_facts.is_composition_known(report):
        if report.constraint in ("memcg", "unknown"):
            yield console.title("What filled the limit")
            yield console.note(quality_facts.not_known(report, "composition"))
        elif found := screen_facts.leading_evidence(report):
            yield console.title("Evidence")
            yield console.bullets(map(visible, found))
        return
    yield console.title(screen_facts.filled(report))
    yield console.indented(_Composition(report))


def _more(report: OomReport) -> str:
    if report.kernel_log is not None:
        return "More: -v (evidence, stack, every process)."
    return "More: -v (evidence, reclaim, stacks, every process), or memcg-tracer report TRACE -o page.html."
