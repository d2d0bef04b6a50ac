"""The contents of the page of `report`: the kills and cgroups of a trace, with their charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pandas as pd

    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.results.outcome import WhatIf
    from tracer.analysis.results.quality import ThinnedInterval
    from tracer.analysis.results.survivor import Held
    from tracer.analysis.trace import AnalysedTrace
    from tracer.render.page import html
    from tracer.render.page.chart import Chart, Stretch
    from tracer.render.page.crop import Span
    from tracer.render.page.flame_graph import FlameGraph

_ROWS: Final = 300
_ROWS_OF_FURTHER_KILLS: Final = 120
"""The rows of a chart of a kill after the first: a page of many kills must stay small."""

_BLOCKS_OF_FURTHER_KILLS: Final = 200
"""The frames of a flame graph of a kill after the first."""

_WHOLE: Final = "all"
_WHOLE_IS_MORE: Final = 1.25
"""The whole life of a cgroup has its own view if it is longer by this factor than the first view."""


def subject(trace: AnalysedTrace, cgroup: str | None) -> html.Subject:
    """Return the contents of the page for a trace, or for the matching cgroups in it."""
    from tracer.analysis.explain import slowed
    from tracer.render.page import html

    reports = _reports(trace, cgroup)
    held = trace.spared_cgroups(reports, cgroup)
    first = [] if reports else slowed.foremost_first(held)[:1]
    return html.Subject(
        trace=str(trace.path),
        meta=dict(trace.meta),
        interrupted=trace.interrupted,
        lost=trace.losses.affecting_sizes,
        reports=reports,
        held=held,
        charts_of_kills=dict(_charts_of_kills(trace, reports, html.explained(reports))),
        flames_of_kills=dict(_flames_of_kills(trace, html.explained(reports))),
        charts_of_held={one.cgroup_id: drawn for one in first if (drawn := _chart_of_held(trace, one))},
        other_limits=_other_limits(trace, reports, first),
        flames_of_held={one.cgroup_id: flame for one in first if (flame := _flame_of_held(trace, one))},
        sigkills=trace.defects.attempt(
            "the SIGKILLs that were no OOM kills", lambda: trace.sigkilled(cgroup), lambda _: []
        ),
        defects=trace.defects,
    )


def _reports(trace: AnalysedTrace, cgroup: str | None) -> list[OomReport]:
    """Return the kills: whole reports of those that the page explains, and of the others what its list and
    its charts show."""
    from tracer.render.page import html

    outlined, post_mortems = trace.outlined(cgroup)
    concerning = {report.kill_id for report in outlined}
    whole = {report.kill_id for report in html.explained(outlined)}
    return [report for report in post_mortems.judged(whole) if report.kill_id in concerning]


def _other_limits(trace: AnalysedTrace, reports: Sequence[OomReport], first: Sequence[Held]) -> WhatIf | None:
    """Return the run of the page's cgroup at other limits; None: a bug keeps it from being replayed, or the
    trace has no data of it."""
    from tracer.analysis.core import naming
    from tracer.analysis.explain import kill_filter
    from tracer.analysis.whatif.outcomes import what_if

    owner = kill_filter.newest(reports).limit_owner.cgroup_id if reports else None
    number = owner if reports else next((one.cgroup_id for one in first), None)
    if number is None or number not in naming.with_data(trace):
        return None
    return trace.defects.attempt(
        "the run at other limits", lambda: what_if(trace, (), number), lambda _: None
    )


def _flames_of_kills(
    trace: AnalysedTrace, explained: Sequence[OomReport]
) -> Iterator[tuple[int, FlameGraph]]:
    """Yield the number and the flame graph of each of these kills that has samples of code; the first one has
    more frames."""
    for report in explained:
        drawn = trace.defects.attempt(
            f"the flame graph of kill {report.kill_id}",
            partial(_flame_of_kill, trace, report, is_first=report is explained[0]),
            lambda _: None,
        )
        if drawn is not None:
            yield report.kill_id, drawn


def _flame_of_kill(trace: AnalysedTrace, report: OomReport, *, is_first: bool) -> FlameGraph | None:
    from tracer.analysis.explain.causes.registry import CAUSES
    from tracer.render.page import flame_graph

    if not report.code:
        return None
    samples = trace.samples_of_code(kill_id=report.kill_id)
    most = flame_graph.MOST_BLOCKS if is_first else _BLOCKS_OF_FURTHER_KILLS
    return _flame(trace, samples, CAUSES[report.verdict.cause].grows, most)


def _flame_of_held(trace: AnalysedTrace, one: Held) -> FlameGraph | None:
    """Return the flame graph of a surviving cgroup, of the kind of memory that grew most, at its peak."""
    from tracer.render.page import flame_graph

    number = one.cgroup_id
    if not one.code or number is None:
        return None
    kind = "kernel" if one.code[0].of == "slab" else one.code[0].of
    return trace.defects.attempt(
        f"the flame graph of {one.cgroup}",
        lambda: _flame(
            trace,
            trace.samples_of_code(number, until=one.peak_time if kind == "anon" else None),
            (kind,),
            flame_graph.MOST_BLOCKS,
        ),
        lambda _: None,
    )


def _flame(
    trace: AnalysedTrace, samples: pd.DataFrame, kinds: Sequence[str], most_blocks: int
) -> FlameGraph | None:
    """Return the flame graph of these rows of `code_samples` whose memory is of these kinds."""
    from tracer.analysis.views import code_samples
    from tracer.render.page import flame_graph

    stacks = [
        one
        for one in code_samples.by_origin(trace, samples)
        if ("kernel" if one.category == "sock" else one.category) in kinds
    ]
    tree = code_samples.growth_tree(stacks)
    return flame_graph.flame_graph(tree, kinds, trace.meta["filters"]["stacks_bytes"], most_blocks)


def _charts_of_kills(
    trace: AnalysedTrace, reports: Sequence[OomReport], explained: Sequence[OomReport]
) -> Iterator[tuple[int, Chart]]:
    """Yield the number and the chart of each kill to explain; the first one has all views."""
    for report in explained:
        drawn = trace.defects.attempt(
            f"the chart of kill {report.kill_id}",
            partial(_chart_of_kill, trace, report, reports, is_first=report is explained[0]),
            lambda _: None,
        )
        if drawn is not None:
            yield report.kill_id, drawn


def _chart_of_kill(
    trace: AnalysedTrace, report: OomReport, reports: Sequence[OomReport], *, is_first: bool
) -> Chart | None:
    from tracer import units
    from tracer.analysis.explain import kill_filter
    from tracer.analysis.views import focus
    from tracer.render.page import crop

    number = _drawn_cgroup(trace, report)
    if number is None or report.time is None:
        return None
    life = focus.lifetime(trace, number)
    story = crop.of_kill(report, life)
    if story is None:
        return None
    spans = [("the kill", story)]
    last = crop.last_moments(report.time, story)
    if is_first and last is not None:
        before_s = (report.time - last[0]).total_seconds()
        spans.append((f"the last {units.duration(before_s)}", last))
    if is_first and _is_longer(life, story):
        spans.append((_WHOLE, life))
    rows = _ROWS if is_first else _ROWS_OF_FURTHER_KILLS
    kills = kill_filter.concerning(trace, reports, [number])
    return _chart(trace, number, f"kill-{report.kill_id}", spans, rows, kills=kills, kill=report.time)


def _drawn_cgroup(trace: AnalysedTrace, report: OomReport) -> int | None:
    """Return the cgroup whose memory is drawn for a kill: the limit's owner, else the first known victim's
    cgroup."""
    places = [(report.limit_owner.cgroup_id, report.limit_owner.cgroup)]
    places += [(victim.cgroup_id, victim.cgroup) for victim in report.victims]
    for number, path in places:
        if number is not None:
            return number
        if path is not None and report.time is not None:
            return trace.places.id_at(path, report.time.value)
    return None


def _chart_of_held(trace: AnalysedTrace, one: Held) -> Chart | None:
    """Return the chart of a surviving cgroup: the time in which its tasks crawled, if any, and its whole
    life."""
    number = one.cgroup_id
    if number is None:
        return None
    return trace.defects.attempt(
        f"the chart of {one.cgroup}", partial(_chart_of_life, trace, one, number), lambda _: None
    )


def _chart_of_life(trace: AnalysedTrace, one: Held, number: int) -> Chart | None:
    from tracer.analysis.views import focus

    life, crawl = focus.lifetime(trace, number), one.progress.crawl
    spans = [(_WHOLE, life)]
    if crawl is not None and _is_longer(life, (crawl.begin, crawl.end)):
        spans.insert(0, ("the slow time", (max(crawl.begin, life[0]), min(crawl.end, life[1]))))
    return _chart(trace, number, "held", spans, _ROWS)


def _is_longer(whole: Span, part: Span) -> bool:
    return whole[1] - whole[0] > _WHOLE_IS_MORE * (part[1] - part[0])


def _chart(
    trace: AnalysedTrace,
    number: int,
    key: str,
    spans: Sequence[tuple[str, Span]],
    rows: int,
    *,
    kills: Sequence[OomReport] = (),
    kill: pd.Timestamp | None = None,
) -> Chart | None:
    """Return the chart of a cgroup with a view for each span; None if the first has less than two rows."""
    import pandas as pd

    from tracer.analysis.core.tables import start_ns
    from tracer.analysis.views import focus, thrash
    from tracer.render import picture
    from tracer.render.page import chart
    from tracer.render.words.places import place

    label, life = trace.places.label_of(number), trace.places.lives.life_for(number)
    soon = thrash.thrash_below(trace, number)
    stretches: list[Stretch] = []
    for words, (begin, end) in spans:
        thinned = trace.fineness.thinned(begin.value, end.value) if trace.fineness.is_thinned else ()
        timeline = focus.timeline_of_life(
            trace,
            number,
            rows,
            every=_every(thinned, (begin, end), rows),
            begin=begin.isoformat(),
            end=(end + pd.Timedelta(1, "ns")).isoformat(),
        )
        if len(timeline) < 2:
            if not stretches:
                return None
            continue
        marked = [
            *picture.kill_markers(kills, label, timeline),
            *picture.read_again_markers(soon, timeline),
        ]
        stretches.append(chart.Stretch(words, timeline, marked, _how_coarse(thinned, timeline)))
    container, pod = trace.places.container_of(number)
    return chart.drawn(
        key,
        place(label, container, pod, run=life.run, runs=life.runs),
        stretches,
        pd.Timestamp(start_ns(trace), tz="UTC") if kill is None else kill,
        is_kill=kill is not None,
        page_size=trace.meta["page_size"],
    )


def _every(thinned: Sequence[ThinnedInterval], span: Span, rows: int) -> str | None:
    """Return the length of the trace's rows at the end of the span, if that is longer than span / `rows`:
    shorter rows would show nothing more."""
    from tracer.analysis.results.quality import resolution_s

    every_s = resolution_s(thinned, span[1])
    return f"{round(every_s * 1000)}ms" if every_s * rows > (span[1] - span[0]).total_seconds() else None


def _how_coarse(thinned: Sequence[ThinnedInterval], timeline: pd.DataFrame) -> str:
    """Return the sentence on the times in which the trace is coarser than the rows; empty if it never is."""
    from tracer.analysis.views.timeline import row_length
    from tracer.render.words import quality_facts

    if not (coarse := quality_facts.coarser(thinned, row_length(timeline))):
        return ""
    words = quality_facts.thinned(coarse)
    return f"{words[0].upper()}{words[1:]}."
