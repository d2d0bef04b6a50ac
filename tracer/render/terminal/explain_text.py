"""Many kills for a terminal, and everything about one: `explain -v`. `first_screen` has the short answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import RenderableType
from rich.text import Text

from tracer import units
from tracer.analysis.explain.words import evidence
from tracer.analysis.results.kill import OomReport
from tracer.categories import LAYER_BY_NAME, PART_BY_NAME
from tracer.render.terminal import console, first_screen
from tracer.render.terminal.console import Written
from tracer.render.words import (
    cache_facts,
    candidate_facts,
    code_facts,
    kill_facts,
    kill_list,
    mapping_facts,
    quality_facts,
    reclaim_facts,
    runtime_facts,
)
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact, prose

if TYPE_CHECKING:
    from tracer.kernel.kmsg.other_killers import OtherKill

MOST_LINES: Final = 8
_MOST_DRAWN: Final = 500
"""The lines of a table that rich lays out, which takes 0.3 ms a line."""


def above_the_explanation(reports: Sequence[OomReport], explained: OomReport) -> Iterator[Written]:
    """Yield the text above the explanation of one of many kills.

    The text has the number of kills of each name, a line for each of the last kills, and the number of the
    explained kill.
    """
    yield from (prose(sentence, "bold") for sentence in kill_list.summary(reports))
    yield Text()
    yield from listed_kills(reports[-MOST_LINES:])
    left_out = len(reports) - MOST_LINES
    if left_out > 0:
        are = "is" if left_out == 1 else "are"
        yield console.note(f"{kill_list.earlier(left_out)} {are} left out: --list shows all")
    yield Text()
    others = kill_list.others(len(reports) - 1)
    newest = "the newest" if explained.kill_id == reports[-1].kill_id else "the newest with a known victim"
    yield prose(f"Kill {explained.kill_id}, {newest} ({others}: --kill N explains one)", "bold cyan")
    yield Text()


def one_of_many(
    reports: Sequence[OomReport], explained: OomReport, *, is_in_view: bool = False
) -> Iterator[RenderableType]:
    """Yield the line above the explanation of a kill that was chosen by an option."""
    listed = "" if is_in_view else ": --list"
    yield prose(f"Kill {explained.kill_id}; {kill_list.others(len(reports) - 1)}{listed}", "dim")
    yield Text()


def listed_kills(reports: Iterable[OomReport]) -> Iterator[Written]:
    """Yield a table with a line for each kill."""
    listed = kill_list.table(reports)
    table = console.LongRows(listed.columns, listed.rows)
    if listed.day is not None:
        yield console.note(f"times are of {listed.day}, UTC")
    yield table.as_rows() if len(table) <= _MOST_DRAWN else table


_MOST: Final = 8


def instead_of_a_report(kills: Sequence[OtherKill]) -> str:
    """Return the answer for a log without a report of the kernel's OOM killer."""
    if not kills:
        return "This log has no report of the OOM killer: the kernel killed nothing, or logged it elsewhere."
    killers = " and ".join(dict.fromkeys(map(_killer, kills)))
    in_kernel = any(kill.is_in_kernel for kill in kills)
    killed = f"It names kills by {killers}:" if in_kernel else f"In user space, {killers} killed:"
    return f"This log has no report of the kernel's OOM killer. {killed}"


def other_kills(kills: Sequence[OtherKill]) -> Iterator[RenderableType]:
    """Yield a sentence for each of the first kills."""
    in_kernel = any(kill.is_in_kernel for kill in kills)
    yield console.title("Killed without a report" if in_kernel else "Killed in user space, not by the kernel")
    for kill in kills[:_MOST]:
        pid = "" if kill.pid is None else f" (pid {kill.pid})"
        victim = f"{visible(kill.victim or 'an unnamed process')}{pid}"
        if kill.is_by_oom_killer:
            yield prose(
                f"{_killer(kill)} killed a process of {victim}, as systemd reports (line {kill.line})"
            )
            continue
        yield prose(f"{_killer(kill)} killed {victim}: {visible(kill.reason)} (line {kill.line})")
    if len(kills) > _MOST:
        yield console.note(f"{units.count(len(kills) - _MOST)} more: --json lists all")


def _killer(kill: OtherKill) -> str:
    if kill.is_by_oom_killer:
        return "the kernel's OOM killer"
    return f"the kernel's driver {kill.killer}" if kill.is_in_kernel else kill.killer


_BAR_CELLS: Final = 20
LINES_BELOW_A_LIST: Final = 20
"""The height of the explanation below a list of kills. The list takes the rest of a screen."""


def post_mortem(
    report: OomReport,
    *,
    page_size: int,
    verbose: bool,
    lines: int = first_screen.SCREEN_LINES,
    is_in_view: bool = False,
) -> Iterator[RenderableType]:
    """Yield the explanation of a kill in `lines` lines, or everything about the kill if `verbose`."""
    if verbose:
        yield from _everything(report, page_size)
    else:
        yield first_screen.kill_screen(report, lines=lines, is_in_view=is_in_view)


def _everything(report: OomReport, page_size: int) -> Iterator[RenderableType]:
    yield prose(visible(report.verdict.summary), "bold")
    yield prose(kill_facts.cause(report))
    yield Text()
    yield console.facts(kill_facts.setting(report))
    yield from _bullets("What to do", kill_facts.sizing(report))
    yield from _bullets("Evidence", map(evidence.with_source, report.verdict.evidence))
    yield from _bullets("What else played a part", map(evidence.sentence, report.verdict.contributing))
    yield console.title("The weight of each cause, from 0 to 1 (docs/causes.md)")
    yield console.facts(kill_facts.suspects(report))
    yield from _composition(report)
    yield console.title("Numbers that are often confused")
    yield console.facts(kill_facts.often_confused(report))
    yield from _cushion(report)
    yield from _reclaim(report, page_size)
    yield from _who(report, page_size)
    yield console.title("Quality of this report")
    yield console.facts(quality_facts.quality(report))
    if report.quality.probes:
        yield console.title("The hook of each signal")
        yield console.facts(quality_facts.ways_taken(report.quality.probes), label_cells=0)
    yield console.note(
        "docs/: glossary.md explains the terms, causes.md the causes, victim.md the choice of the victim"
    )


def _composition(report: OomReport) -> Iterator[RenderableType]:
    total = report.composition.total
    yield console.title("What filled the limit")
    if "composition" in report.quality.unknown:
        yield console.note(quality_facts.not_known(report, "composition"))
        return
    table = console.Rows(("", "<"), ("", ">"), ("", ">"), ("", "<"), ("", "<"))
    for part, value in kill_facts.composition(report):
        kind = PART_BY_NAME[part]
        layer = LAYER_BY_NAME[kind.layer]
        cells = round(_BAR_CELLS * max(value, 0) / total) if total else 0
        bar = Text(layer.glyph * cells, style=layer.terminal)
        table.add_row(
            kind.label, units.size(value), units.percent(value, total), bar, prose(kind.meaning, "dim")
        )
    table.add_row(Text("= usage", "bold"), Text(units.size(total), "bold"))
    yield console.indented(table)
    yield from (console.note(rest) for rest in kill_facts.composition_rest(report))
    yield console.facts(mapping_facts.every_part(report.mappings, report.time))
    yield console.facts(runtime_facts.of_runtimes(report.runtime, report.mappings))
    yield console.facts(cache_facts.of_kill(report))


def _cushion(report: OomReport) -> Iterator[RenderableType]:
    if report.kernel_log is not None and report.cushion.cache_end_bytes is None:
        return
    yield console.title("The cushion: page cache that could be reclaimed before the kill")
    yield console.facts(kill_facts.cushion(report))


def _reclaim(report: OomReport, page_size: int) -> Iterator[RenderableType]:
    if quality_facts.is_beyond_a_log(report, "reclaim"):
        return
    yield console.title("Reclaim: the kernel tries to free memory before it kills")
    attempts = report.reclaim.transcript
    yield console.facts(reclaim_facts.tried(report, page_size))
    if not attempts:
        return
    transcript = reclaim_facts.transcript(report, attempts)
    table = console.Rows(*zip(transcript.titles, "><>>>>><"[: len(transcript.titles)], strict=True))
    for row in transcript.rows:
        table.add_row(*row)
    yield console.indented(table)
    yield console.note(transcript.note)


def _who(report: OomReport, page_size: int) -> Iterator[RenderableType]:
    yield console.title("The request, the allocating processes, and the victims")
    yield console.facts(kill_facts.asked(report))
    yield console.facts(_stacks(report))
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
        yield console.facts(
            ("" if number else "allocated", line)
            for number, line in enumerate(charged or [kill_facts.no_allocator(report)])
        )
    yield console.facts(code_facts.in_full(report.code, report.code_sampled_share))
    yield console.facts(kill_facts.killed(report, len(report.victims)))
    victims = console.Rows(*zip(kill_facts.VICTIM_TITLES, "<>>>>>>", strict=True))
    for victim in report.victims:
        victims.add_row(*kill_facts.victim_cells(victim))
    if report.victims:
        yield console.indented(victims)
        yield console.note(kill_facts.VICTIM_NOTE)
    if not report.candidates:
        return
    weighed = console.Rows(*zip(candidate_facts.TITLES, candidate_facts.SIDES, strict=True))
    for candidate in report.candidates:
        weighed.add_row(*candidate_facts.cells(candidate, report, page_size))
    yield console.indented(weighed)
    yield console.note(candidate_facts.note(report, page_size))
    yield console.facts(candidate_facts.titles(report))
    yield console.facts(candidate_facts.what_if(report))


def _stacks(report: OomReport) -> Iterator[Fact]:
    """Yield the trigger's stacks, innermost frame first, a line for each frame."""
    for label, stack in (("kernel stack", report.trigger.stack), ("user stack", report.trigger.user_stack)):
        for number, frame in enumerate(stack or ()):
            yield "" if number else label, visible(frame)


def _bullets(title: str, sentences: Iterable[str]) -> Iterator[RenderableType]:
    shown = [visible(sentence) for sentence in sentences]
    if shown:
        yield console.title(title)
        yield console.bullets(shown)
