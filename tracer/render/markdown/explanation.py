"""The answer of `explain` as Markdown: the first screen, for a ticket or a chat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tracer import units
from tracer.analysis.explain import slowed
from tracer.analysis.explain.words import evidence
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.sigkill import Sigkill
from tracer.analysis.results.survivor import Held
from tracer.categories import PART_BY_NAME
from tracer.render.markdown import marks
from tracer.render.words import (
    code_facts,
    kill_facts,
    kill_list,
    memory_facts,
    quality_facts,
    screen_facts,
    sigkill_words,
    survivor_facts,
)
from tracer.render.words.places import place_of_life

_MOST_LISTED: Final = 8
_MOST_SIGKILLS: Final = 3


def kills(reports: Sequence[OomReport], explained: OomReport, *, is_picked: bool) -> Iterator[str]:
    """Yield the lines of one kill, below a table of the last ones if there are several and none was
    picked."""
    if len(reports) > 1 and not is_picked:
        yield from (f"{marks.bold(sentence)}  " for sentence in kill_list.summary(reports))
        listed = kill_list.table(reports[-_MOST_LISTED:])
        yield from marks.heading(
            "The last kills" if listed.day is None else f"The last kills ({listed.day}, UTC)"
        )
        yield from marks.table(listed.columns, listed.rows)
        yield from marks.heading(f"Kill {explained.kill_id}")
    yield from kill(explained)


def beside_kills(cgroups: Sequence[Held], sigkills: Sequence[Sigkill]) -> Iterator[str]:
    """Yield a sentence on the cgroups without a kill, and one on the SIGKILLs that were no OOM kills."""
    for sentence in filter(
        None, (survivor_facts.beside_kills(cgroups), sigkill_words.beside_kills(sigkills))
    ):
        yield from ("", marks.escaped(sentence))


def kill(report: OomReport) -> Iterator[str]:
    """Yield the lines of one kill."""
    yield from (marks.bold(report.verdict.summary), "", marks.escaped(kill_facts.cause(report)), "")
    yield from marks.facts(screen_facts.setting(report))
    if advice := [*report.advice, *screen_facts.sizing(report)]:
        yield from marks.heading("What to do")
        yield from marks.bullets(advice)
    yield from _composition(report)
    yield ""
    yield from marks.facts(memory_facts.by_mapping(report.mappings, report.time))
    yield from marks.facts(memory_facts.of_runtimes(report.runtime, report.mappings))
    yield from marks.facts(memory_facts.cache_at_kill(report))
    yield from marks.facts(code_facts.grown(report.grown))
    yield from marks.facts(screen_facts.cushion(report))
    yield from marks.facts(("also", evidence.sentence(factor)) for factor in report.verdict.contributing)
    yield from marks.facts(screen_facts.how_sure(report))


def _composition(report: OomReport) -> Iterator[str]:
    """Yield what filled the limit, or why that is not known; without a limit, the evidence."""
    if screen_facts.is_composition_known(report):
        yield from marks.heading(screen_facts.filled(report))
        parts = kill_facts.composition(report, least_bytes=screen_facts.least_bytes(report))
        yield from parts_table(parts, report.composition.total or 0)
    elif report.constraint in ("memcg", "unknown"):
        yield from marks.heading("What filled the limit")
        yield marks.escaped(quality_facts.not_known(report, "composition"))
    elif found := screen_facts.leading_evidence(report):
        yield from marks.heading("Evidence")
        yield from marks.bullets(found)


def parts_table(parts: Sequence[tuple[str, int]], total: int) -> Iterator[str]:
    """Yield a table of (part of usage, bytes)."""
    columns = (("memory", "<"), ("size", ">"), ("share", ">"), ("", "<"))
    yield from marks.table(
        columns,
        (
            (
                PART_BY_NAME[part].label,
                units.size(size),
                units.percent(size, total),
                PART_BY_NAME[part].meaning,
            )
            for part, size in parts
        ),
    )


def survivors(cgroups: Sequence[Held], sigkills: Sequence[Sigkill], *, interrupted: bool) -> Iterator[str]:
    """Yield the lines for a trace without a kill: the cgroup that was nearest to its limit."""
    yield from (f"{marks.bold(line)}  " for line in sigkill_words.sentences(sigkills, _MOST_SIGKILLS))
    yield marks.bold(survivor_facts.summary(cgroups, interrupted=interrupted))
    for one in slowed.foremost_first(cgroups)[:1]:
        yield from marks.heading(place_of_life(one))
        yield from marks.facts(survivor_facts.in_brief(one))
        yield from marks.facts(code_facts.grown(one.grown))
