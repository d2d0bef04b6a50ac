"""Everything that `explain -v` shows. `render.terminal.first_screen` has the answer on one screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from tracer import units
from tracer.analysis.explain.words import evidence
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.survivor import Held
from tracer.categories import LAYER_BY_NAME, PART_BY_NAME
from tracer.render.terminal import first_screen, paragraphs
from tracer.render.terminal.allocation_stacks import charged_in
from tracer.render.words import (
    candidate_facts,
    kill_facts,
    quality_facts,
    reclaim_facts,
    signal_ways,
    survivor_facts,
)
from tracer.render.words.escape import visible
from tracer.render.words.places import place_of_life
from tracer.render.words.prose import Fact, prose

_BAR_CELLS: Final = 20
_MOST_HELD: Final = 50
LINES_BELOW_A_LIST: Final = 20
"""The height of the explanation below a list of kills. The list takes the rest of a screen."""


def post_mortem(
    report: OomReport, *, page_size: int, verbose: bool, lines: int = first_screen.SCREEN_LINES
) -> Iterator[RenderableType]:
    """Yield the explanation of a kill in `lines` lines, or everything about the kill if `verbose`."""
    if verbose:
        yield from _everything(report, page_size)
    else:
        yield first_screen.kill_screen(report, lines=lines)


def held(
    cgroups: Sequence[Held], *, interrupted: bool = False, verbose: bool = False
) -> Iterator[RenderableType]:
    """Yield the answer for a trace without a kill on one screen, or everything about each cgroup if
    `verbose`."""
    if not verbose:
        yield first_screen.survivors_screen(cgroups, interrupted=interrupted)
        return
    yield prose(survivor_facts.summary(cgroups, interrupted=interrupted), "bold")
    for one in cgroups[:_MOST_HELD]:
        yield paragraphs.title(place_of_life(one))
        yield paragraphs.facts(survivor_facts.held(one))
        yield paragraphs.facts(charged_in(one.charged_in, verbose=True))
    if len(cgroups) > _MOST_HELD:
        yield Text()
        yield Text(f"{len(cgroups) - _MOST_HELD} more cgroups were traced: --json lists them all.")


def _everything(report: OomReport, page_size: int) -> Iterator[RenderableType]:
    yield prose(visible(report.verdict.summary), "bold")
    yield prose(kill_facts.cause(report))
    yield Text()
    yield paragraphs.facts(kill_facts.setting(report))
    yield from _bullets("What to do", kill_facts.sizing(report))
    yield from _bullets("Evidence", map(evidence.with_source, report.verdict.evidence))
    yield from _bullets("What else played a part", map(evidence.sentence, report.verdict.contributing))
    yield paragraphs.title("The weight of each cause, from 0 to 1 (docs/causes.md)")
    yield paragraphs.facts(kill_facts.suspects(report))
    yield from _composition(report)
    yield paragraphs.title("Numbers that are often confused")
    yield paragraphs.facts(kill_facts.often_confused(report))
    yield from _cushion(report)
    yield from _reclaim(report, page_size)
    yield from _who(report, page_size)
    yield paragraphs.title("Quality of this report")
    yield paragraphs.facts(quality_facts.quality(report))
    if report.quality.probes:
        yield paragraphs.title("The hook of each signal")
        yield paragraphs.facts(signal_ways.taken(report.quality.probes), label_cells=0)
    yield paragraphs.note(
        "docs/: glossary.md explains the terms, causes.md the causes, victim.md the choice of the victim"
    )


def _composition(report: OomReport) -> Iterator[RenderableType]:
    total = report.composition.total
    yield paragraphs.title("What filled the limit")
    if "composition" in report.quality.unknown:
        yield paragraphs.note(quality_facts.not_known(report, "composition"))
        return
    table = paragraphs.Rows(("", "<"), ("", ">"), ("", ">"), ("", "<"), ("", "<"))
    for part, value in kill_facts.composition(report):
        kind = PART_BY_NAME[part]
        layer = LAYER_BY_NAME[kind.layer]
        cells = round(_BAR_CELLS * max(value, 0) / total) if total else 0
        bar = Text(layer.glyph * cells, style=layer.terminal)
        table.add_row(
            kind.label, units.size(value), units.percent(value, total), bar, prose(kind.meaning, "dim")
        )
    table.add_row(Text("= usage", "bold"), Text(units.size(total), "bold"))
    yield paragraphs.indented(table)
    yield from (paragraphs.note(rest) for rest in kill_facts.composition_rest(report))


def _cushion(report: OomReport) -> Iterator[RenderableType]:
    if report.kernel_log is not None and report.cushion.cache_end_bytes is None:
        return
    yield paragraphs.title("The cushion: page cache that could be reclaimed before the kill")
    yield paragraphs.facts(kill_facts.cushion(report))


def _reclaim(report: OomReport, page_size: int) -> Iterator[RenderableType]:
    if quality_facts.is_beyond_a_log(report, "reclaim"):
        return
    yield paragraphs.title("Reclaim: the kernel tries to free memory before it kills")
    attempts = report.reclaim.transcript
    yield paragraphs.facts(reclaim_facts.tried(report, page_size))
    if not attempts:
        return
    transcript = reclaim_facts.transcript(report, attempts)
    table = paragraphs.Rows(*zip(transcript.titles, "><>>>>><"[: len(transcript.titles)], strict=True))
    for row in transcript.rows:
        table.add_row(*row)
    yield paragraphs.indented(table)
    yield paragraphs.note(transcript.note)


def _who(report: OomReport, page_size: int) -> Iterator[RenderableType]:
    yield paragraphs.title("The request, the allocating processes, and the victims")
    yield paragraphs.facts(kill_facts.asked(report))
    yield paragraphs.facts(_stacks(report))
    if not quality_facts.is_beyond_a_log(report, "allocators"):
        charged = [
            f"{who} {charge}"
            for who, charge in kill_facts.allocated(
                report.allocators,
                report.further_allocators,
                len(report.allocators),
                report.time,
                thinned=report.quality.thinned,
            )
        ]
        yield paragraphs.facts(
            ("" if number else "allocated", line)
            for number, line in enumerate(charged or [kill_facts.no_allocator(report)])
        )
    yield paragraphs.facts(charged_in(report.charged_in, verbose=True))
    yield paragraphs.facts(kill_facts.killed(report, len(report.victims)))
    victims = paragraphs.Rows(*zip(kill_facts.VICTIM_TITLES, "<>>>>>>", strict=True))
    for victim in report.victims:
        victims.add_row(*kill_facts.victim_cells(victim))
    if report.victims:
        yield paragraphs.indented(victims)
        yield paragraphs.note(kill_facts.VICTIM_NOTE)
    if not report.candidates:
        return
    weighed = paragraphs.Rows(*zip(candidate_facts.TITLES, candidate_facts.SIDES, strict=True))
    for candidate in report.candidates:
        weighed.add_row(*candidate_facts.cells(candidate, report, page_size))
    yield paragraphs.indented(weighed)
    yield paragraphs.note(candidate_facts.note(report, page_size))
    yield paragraphs.facts(candidate_facts.titles(report))
    yield paragraphs.facts(candidate_facts.what_if(report))


def _stacks(report: OomReport) -> Iterator[Fact]:
    """Yield the trigger's stacks, innermost frame first, a line for each frame."""
    for label, stack in (("kernel stack", report.trigger.stack), ("user stack", report.trigger.user_stack)):
        for number, frame in enumerate(stack or ()):
            yield "" if number else label, visible(frame)


def _bullets(title: str, sentences: Iterable[str]) -> Iterator[RenderableType]:
    shown = [visible(sentence) for sentence in sentences]
    if shown:
        yield paragraphs.title(title)
        yield paragraphs.bullets(shown)
