"""The post-mortem in a terminal: the answer first, then what it rests on, in at most two screens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from tracer import units
from tracer.analysis.report import Held, OomReport
from tracer.render import candidates, facts, held_facts, probes, reclaim_facts, sections
from tracer.render.charged import heaviest
from tracer.render.escape import visible
from tracer.render.layers import BY_NAME, OF_COMPOSITION, PART_LABELS

_BAR_CELLS: Final = 20
_BRIEF_ROWS: Final = 5
_BRIEF_ATTEMPTS: Final = 3
_LITTLE_SHARE: Final = 0.005
_MOST_HELD: Final = 5
_MOST_OTHERS: Final = 20
_OWN_FRAME: Final = re.compile(r"bpf_prog_|bpf_trace_run")
_OFFSET: Final = re.compile(r"\+0x[0-9a-f]+(/0x[0-9a-f]+)?$")


def post_mortem(
    report: OomReport, others: Sequence[OomReport], *, page_size: int, verbose: bool
) -> Iterator[RenderableType]:
    """Everything about one kill; `others` are the trace's other kills, named in a line each.

    `verbose` shows whole stacks with offsets, every row of the tables and the probes.
    """
    yield Text(visible(report.verdict.summary), style="bold")
    yield Text(facts.cause(report))
    yield Text()
    yield sections.facts(facts.setting(report))
    yield from _bullets("Evidence", report.verdict.evidence)
    yield from _bullets("What else played a part", report.verdict.contributing)
    if verbose:
        yield sections.title("Which causes were weighed, from 0 to 1 (docs/causes.md)")
        yield sections.facts(facts.suspects(report))
    yield from _composition(report, 0.0 if verbose else _LITTLE_SHARE)
    yield sections.title("Numbers that are often taken for one another")
    yield sections.facts(facts.often_confused(report))
    yield sections.title("The cushion: page cache gives way until there is none")
    yield sections.facts(facts.cushion(report))
    yield from _reclaim(report, page_size, verbose)
    yield from _who(report, page_size, verbose)
    yield from _bullets("What to do", facts.sizing(report))
    yield sections.title("How far to trust this")
    yield sections.facts(facts.quality(report, reasons=verbose))
    if verbose and report.quality.probes:
        yield sections.title("By what each signal was taken")
        yield sections.facts(probes.taken(report.quality.probes), label_cells=0)
    yield sections.note(
        "docs/: words in glossary.md, causes in causes.md, how the victim is chosen in victim.md"
    )
    if others:
        yield sections.title(f"Other kills in this {'trace' if report.kernel_log is None else 'log'}")
        alike = facts.alike(others)
        yield sections.facts(fact for kills in alike[:_MOST_OTHERS] for fact in facts.first_of(kills))
        if len(alike) > _MOST_OTHERS:
            more = sum(map(len, alike[_MOST_OTHERS:]))
            yield sections.indented(Text(f"and {units.count(more)} more (--json has them all)"))


def held(cgroups: Sequence[Held]) -> Iterator[RenderableType]:
    """What is said of a trace without a kill."""
    yield Text(held_facts.summary(cgroups), style="bold")
    for one in cgroups[:_MOST_HELD]:
        yield sections.title(facts.place(one.cgroup, one.container))
        yield sections.facts(held_facts.held(one))
    if len(cgroups) > _MOST_HELD:
        yield Text()
        yield Text(f"{len(cgroups) - _MOST_HELD} more cgroups were traced: --json lists them all.")


def _composition(report: OomReport, least_share: float) -> Iterator[RenderableType]:
    total = report.composition.total
    yield sections.title("What the limit was full of")
    if "composition" in report.quality.unknown:
        yield sections.note(facts.not_known(report, "composition"))
        return
    table = sections.table(("", "<"), ("", ">"), ("", ">"), ("", "<"), ("", "<"))
    for part, value in facts.composition(report, least_share=least_share):
        layer = BY_NAME[OF_COMPOSITION[part]]
        label, meaning = PART_LABELS[part]
        cells = round(_BAR_CELLS * max(value, 0) / total) if total else 0
        bar = Text(layer.glyph * cells, style=layer.terminal)
        table.add_row(label, units.size(value), units.percent(value, total), bar, Text(meaning, style="dim"))
    table.add_row("= usage", units.size(total), style="bold")
    yield sections.indented(table)
    yield from (sections.note(rest) for rest in facts.composition_rest(report, least_share=least_share))


def _reclaim(report: OomReport, page_size: int, verbose: bool) -> Iterator[RenderableType]:
    yield sections.title("Reclaim: the kernel frees memory at the limit before it kills")
    attempts = report.reclaim.transcript
    yield sections.facts(reclaim_facts.tried(report, page_size))
    if not attempts:
        return
    transcript = reclaim_facts.transcript(report, attempts if verbose else attempts[-_BRIEF_ATTEMPTS:])
    table = sections.table(*zip(transcript.titles, "><>>>>><"[: len(transcript.titles)], strict=True))
    for row in transcript.rows:
        table.add_row(*row)
    yield sections.indented(table)
    yield sections.note(transcript.note)


def _who(report: OomReport, page_size: int, verbose: bool) -> Iterator[RenderableType]:
    yield sections.title("Who asked, who had allocated, who was killed")
    yield sections.facts(facts.asked(report))
    yield sections.facts(_stacks(report, verbose))
    most = len(report.allocators) if verbose else _BRIEF_ROWS
    charged = ", ".join(f"{who} {size}" for who, size in facts.allocated(report, most))
    yield sections.facts([("allocated", charged or facts.no_allocator(report))])
    yield sections.facts(heaviest(report, verbose=verbose))
    yield sections.facts(facts.killed(report, len(report.victims) if verbose else _BRIEF_ROWS))
    victims = sections.table(*zip(facts.VICTIM_TITLES, "<>>>>>>", strict=True))
    for victim in report.victims if verbose else report.victims[:_BRIEF_ROWS]:
        victims.add_row(*facts.victim_cells(victim))
    if report.victims:
        yield sections.indented(victims)
    if not verbose and len(report.victims) > _BRIEF_ROWS:
        yield sections.indented(Text(f"and {len(report.victims) - _BRIEF_ROWS} more (-v lists them)"))
    if report.victims:
        yield sections.note(facts.VICTIM_NOTE)
    if not report.candidates:
        return
    weighed = sections.table(*zip(candidates.TITLES, candidates.SIDES, strict=True))
    for candidate in report.candidates if verbose else report.candidates[:_BRIEF_ROWS]:
        weighed.add_row(*candidates.cells(candidate, report, page_size))
    yield sections.indented(weighed)
    if not verbose and len(report.candidates) > _BRIEF_ROWS:
        yield sections.indented(Text(f"and {len(report.candidates) - _BRIEF_ROWS} more (-v lists them)"))
    yield sections.note(candidates.note(report, page_size))
    yield sections.facts(candidates.what_if(report))


def _stacks(report: OomReport, verbose: bool) -> Iterator[facts.Fact]:
    """The trigger's stacks, innermost frame first: a chain of names, or when `verbose` a line each."""
    for label, stack in (("in the kernel", report.trigger.stack), ("in its code", report.trigger.user_stack)):
        if not stack:
            continue
        frames = [visible(frame) for frame in stack]
        if verbose:
            yield from ((("" if number else label), frame) for number, frame in enumerate(frames))
        else:
            yield label, " ← ".join(_OFFSET.sub("", frame) for frame in frames if not _OWN_FRAME.match(frame))


def _bullets(title: str, sentences: Iterable[str]) -> Iterator[RenderableType]:
    lines = [("-", visible(sentence)) for sentence in sentences]
    if lines:
        yield sections.title(title)
        yield sections.facts(lines, label_cells=1)
