"""The answer of `explain` for a terminal: one kill on a screen, all about it (`-v`), and many kills."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from tracer import units
from tracer.analysis.explain.words import evidence
from tracer.analysis.results.kill import OomReport
from tracer.categories import LAYER_BY_NAME, PART_BY_NAME
from tracer.render.terminal import console
from tracer.render.terminal.console import Written
from tracer.render.words import (
    code_facts,
    kill_facts,
    kill_list,
    memory_facts,
    quality_facts,
    reclaim_facts,
    screen_facts,
)
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact, prose

if TYPE_CHECKING:
    from tracer.kernel.kmsg.other_killers import OtherKill


SCREEN_LINES: Final = 30
_BAR_CELLS: Final = 20
_COLUMNS_FOR_BARS: Final = 100
_MOST_FACTORS: Final = 2


def kill_screen(report: OomReport, *, lines: int = SCREEN_LINES, is_in_view: bool = False) -> RenderableType:
    """Return the answer in at most `lines` lines, or in more to keep at least one piece of advice.

    `is_in_view`: for a reader inside of another verb, which scrolls: all advice is there, in as many lines as
    it takes, and no options of the command line are named.
    """
    factors = min(len(report.verdict.contributing), _MOST_FACTORS)
    advice = len(report.advice)
    with_factors = [(most, also) for most in range(advice, 1, -1) for also in range(factors, 0, -1)]
    amounts = with_factors + [(most, 0) for most in range(advice, 0, -1)] or [(0, factors)]
    if is_in_view:
        amounts = [(advice, factors)]
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
    yield from _composed(report)
    yield console.facts(memory_facts.by_mapping(report.mappings, report.time))
    yield console.facts(memory_facts.of_runtimes(report.runtime, report.mappings))
    yield console.facts(memory_facts.cache_at_kill(report))
    yield Text()
    yield console.facts(code_facts.grown(report.grown))
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


def _composed(report: OomReport) -> Iterator[RenderableType]:
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
            whose = visible(kill.victim or "a container that the line does not name")
            yield prose(
                f"{_killer(kill)} killed a process of {whose}, as {kill.reporter} reports (line {kill.line})"
            )
            continue
        reason = "" if kill.reason == "Killed" else f": {visible(kill.reason)}"
        yield prose(f"{_killer(kill)} killed {victim}{reason} (line {kill.line})")
    if len(kills) > _MOST:
        yield console.note(f"{units.count(len(kills) - _MOST)} more: --json lists all")
    if any(kill.is_by_oom_killer for kill in kills):
        yield console.note(
            "Only the kernel's own log shows the task, the limit and the memory: what journalctl -k or dmesg "
            "print on that machine (for a pod, on its node), as root"
        )


def _killer(kill: OtherKill) -> str:
    if kill.is_by_oom_killer:
        return f"the kernel's OOM killer{' or systemd-oomd' if kill.is_by_either else ''}"
    return f"the kernel's driver {kill.killer}" if kill.is_in_kernel else kill.killer


LINES_BELOW_A_LIST: Final = 20
"""The height of the explanation below a list of kills. The list takes the rest of a screen."""


def post_mortem(
    report: OomReport,
    *,
    page_size: int,
    verbose: bool,
    lines: int = SCREEN_LINES,
    is_in_view: bool = False,
) -> Iterator[RenderableType]:
    """Yield the explanation of a kill in `lines` lines, or everything about the kill if `verbose`."""
    if verbose:
        yield from _everything(report, page_size)
    else:
        yield kill_screen(report, lines=lines, is_in_view=is_in_view)


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
    yield console.facts(memory_facts.every_part(report.mappings, report.time))
    yield console.facts(memory_facts.of_runtimes(report.runtime, report.mappings))
    yield console.facts(memory_facts.cache_at_kill(report))


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
    yield console.facts(code_facts.in_full(report.grown))
    yield console.facts(kill_facts.killed(report, len(report.victims)))
    victims = console.Rows(*zip(kill_facts.VICTIM_TITLES, "<>>>>>>", strict=True))
    for victim in report.victims:
        victims.add_row(*kill_facts.victim_cells(victim))
    if report.victims:
        yield console.indented(victims)
        yield console.note(kill_facts.VICTIM_NOTE)
    if not report.candidates:
        return
    weighed = console.Rows(*zip(kill_facts.CANDIDATE_TITLES, kill_facts.CANDIDATE_SIDES, strict=True))
    for candidate in report.candidates:
        weighed.add_row(*kill_facts.candidate_cells(candidate, report, page_size))
    yield console.indented(weighed)
    yield console.note(kill_facts.candidate_note(report, page_size))
    yield console.facts(kill_facts.candidate_titles(report))
    yield console.facts(kill_facts.what_if(report))


def _stacks(report: OomReport) -> Iterator[Fact]:
    """Yield the trigger's stacks, innermost frame first, a line for each frame."""
    user = kill_facts.user_stack(report)
    for label, stack in (("kernel stack", report.trigger.stack), ("user stack", user)):
        for number, frame in enumerate(stack or ()):
            yield "" if number else label, visible(frame)


def _bullets(title: str, sentences: Iterable[str]) -> Iterator[RenderableType]:
    shown = [visible(sentence) for sentence in sentences]
    if shown:
        yield console.title(title)
        yield console.bullets(shown)
