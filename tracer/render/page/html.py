"""The report as one self-contained HTML page. It makes no requests, and is complete without its script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd
from markupsafe import Markup

from tracer import units
from tracer.analysis.explain import slowed
from tracer.analysis.explain.kill_filter import newest
from tracer.analysis.explain.outline import unexplained
from tracer.analysis.explain.words import evidence
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.outcome import WhatIf
from tracer.analysis.results.sigkill import Sigkill
from tracer.analysis.results.survivor import Held
from tracer.categories import PART_BY_NAME
from tracer.errors import Defects
from tracer.render.page import flame_graph, page_frame, tiles
from tracer.render.page.chart import Chart
from tracer.render.page.flame_graph import FlameGraph
from tracer.render.words import (
    code_facts,
    kill_facts,
    kill_list,
    limit_outcomes,
    memory_facts,
    places,
    quality_facts,
    reclaim_facts,
    sigkill_words,
    survivor_facts,
)
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact
from tracer.render.words.quality_facts import end_in_words

MOST_KILLS: Final = 20
"""The number of newest kills that are explained in full: a browser has to lay out all of them."""

_MOST_ALLOCATORS: Final = 10
_MOST_LISTED: Final = 200
_MOST_HELD: Final = 50
_MOST_SIGKILLS: Final = 50
_BELOW: Final = "listed below"
_BY_JSON: Final = "memcg-tracer explain TRACE --json lists all"
_NO_CHART: Final = "There is no chart: the trace has too few records of this cgroup."


@dataclass(frozen=True, slots=True)
class Subject:
    """The contents of the page. `lost` is the number of lost records from which sizes would be computed,
    `held` has the cgroups without a kill, `sigkills` the SIGKILLs that were not the OOM killer's, by time.

    `charts_of_kills` and `flames_of_kills` have pictures by the number of the kill, `charts_of_held` and
    `flames_of_held` by the id of the cgroup. If a bug keeps a part from being shown, the bug is added to
    `defects`.
    """

    trace: str
    meta: Mapping[str, Any]
    interrupted: bool
    lost: int
    reports: Sequence[OomReport]
    held: Sequence[Held]
    charts_of_kills: Mapping[int, Chart]
    charts_of_held: Mapping[int | None, Chart]
    flames_of_kills: Mapping[int, FlameGraph] = field(default_factory=dict)
    other_limits: WhatIf | None = None
    flames_of_held: Mapping[int | None, FlameGraph] = field(default_factory=dict)
    sigkills: Sequence[Sigkill] = ()
    defects: Defects = field(default_factory=Defects)


def page(subject: Subject) -> str:
    """Return the page. The same subject always gives the same text.

    The newest kill comes first. Only the newest of many kills and the first of many surviving cgroups are
    explained in full. Without a kill, the page is about the cgroup that `slowed.foremost_first` puts first,
    below the newest SIGKILL of another sender.
    """
    page_size = int(subject.meta["page_size"])
    reports, held = subject.reports, slowed.foremost_first(subject.held)
    headline, *below_headline = _headline(subject)
    sigkills = sigkill_words.sentences(subject.sigkills, _MOST_SIGKILLS, _BY_JSON)
    style, script = page_frame.style(), page_frame.source("report.js")
    told = explained(reports)
    is_one, listed = len(reports) == 1, kill_list.table(reports[-_MOST_LISTED:])
    return (
        page_frame.environment()
        .get_template("report.html.j2")
        .render(
            title=f"memcg-tracer: {visible(subject.trace)}",
            headline=headline,
            below_headline=below_headline,
            sigkills=sigkills if reports or len(sigkills) > 1 else [],
            tiles=_tiles(reports, held),
            interrupted=subject.interrupted,
            lost=units.count(subject.lost) if subject.lost else None,
            no_chart=_NO_CHART,
            flame_titles=flame_graph.TITLES,
            kills=[_shown_kill(subject, report, page_size) for report in told],
            explained={str(report.kill_id) for report in told},
            how_often=[] if is_one else list(kill_list.summary(reports)),
            list_titles=[title for title, _ in listed.columns],
            list=[] if is_one else list(listed.rows)[::-1],
            list_note=_left_out(len(reports)),
            held=[shown for one in held[:_MOST_HELD] if (shown := _shown_life(subject, one)) is not None],
            more_memory_titles=reclaim_facts.MORE_MEMORY_TITLES,
            more_memory_note=reclaim_facts.MORE_MEMORY_NOTE,
            other_limits=None if subject.other_limits is None else _other_limits(subject.other_limits),
            more_held=max(len(held) - _MOST_HELD, 0),
            recording=list(_recording(subject)),
            style=Markup(style),
            style_hash=Markup(page_frame.source_hash(style)),
            script=Markup(script),
            script_hash=Markup(page_frame.source_hash(script)),
        )
    )


def _headline(subject: Subject) -> list[str]:
    """Return the sentence of the page, and those below it, escaped. The last one counts the SIGKILLs that
    only the list has."""
    if subject.reports:
        beside = sigkill_words.beside_kills(subject.sigkills, _BELOW)
        return [visible(newest(subject.reports).verdict.summary), *([beside] if beside else [])]
    newest_sigkill = sigkill_words.sentences(subject.sigkills, 1, _BELOW)
    survived = visible(survivor_facts.summary(subject.held, interrupted=subject.interrupted))
    return [*newest_sigkill[:1], survived, *newest_sigkill[1:]]


def _tiles(reports: Sequence[OomReport], held: Sequence[Held]) -> Sequence[tiles.Tile]:
    if reports:
        return tiles.of_kill(newest(reports))
    return tiles.of_survivor(held[0]) if held else ()


def explained(reports: Sequence[OomReport]) -> list[OomReport]:
    """Return the kills to explain: the kill of the headline, then the others, newest first."""
    if not reports:
        return []
    first = newest(reports)
    return [first, *(report for report in reversed(reports) if report is not first)][:MOST_KILLS]


def _shown_kill(subject: Subject, report: OomReport, page_size: int) -> dict[str, Any]:
    drawn = subject.charts_of_kills.get(report.kill_id)
    flame = subject.flames_of_kills.get(report.kill_id)
    return subject.defects.attempt(
        f"kill {report.kill_id}",
        lambda: _kill(report, page_size, drawn, flame),
        lambda why: _kill(unexplained(report, why), page_size, drawn, flame),
    )


def _shown_life(subject: Subject, one: Held) -> dict[str, Any] | None:
    return subject.defects.attempt(
        f"the cgroup {one.cgroup}",
        lambda: _held(
            one, subject.charts_of_held.get(one.cgroup_id), subject.flames_of_held.get(one.cgroup_id)
        ),
        lambda _: None,
    )


def _held(one: Held, drawn: Chart | None, flame: FlameGraph | None) -> dict[str, Any]:
    return {
        "place": places.place_of_life(one),
        "place_in_short": places.place_in_short(one),
        "chart": drawn,
        "grown": list(code_facts.grown(one.grown)),
        "flame": flame,
        "advice": [survivor_facts.advice(one)],
        "facts": list(survivor_facts.held(one)),
        "more_memory": reclaim_facts.more_memory_rows(one.miss_curve),
    }


def _other_limits(found: WhatIf) -> dict[str, Any]:
    reasons = {f"{one.outcome}: {visible(one.why)}." for one in found.limits}
    return {
        "answer": limit_outcomes.answer(found),
        "titles": limit_outcomes.TITLES,
        "rows": limit_outcomes.rows(found),
        "note": " ".join(sorted(reasons)),
    }


def _left_out(kills: int) -> str:
    unlisted = max(kills - _MOST_LISTED, 0)
    earlier = f"{kill_list.earlier(unlisted)}: memcg-tracer explain TRACE --list. " if unlisted else ""
    explained = (
        f"The newest {MOST_KILLS} are explained below, any other by --kill N. " if kills > MOST_KILLS else ""
    )
    return f"{earlier}{explained}Times are in UTC."


def _kill(report: OomReport, page_size: int, drawn: Chart | None, flame: FlameGraph | None) -> dict[str, Any]:
    total, attempts = report.composition.total, report.reclaim.transcript
    return {
        "number": report.kill_id,
        "heading": f"Kill {report.kill_id}: {_when_and_where(report)}",
        "chart": drawn,
        "grown": list(code_facts.grown(report.grown)),
        "flame": flame,
        "summary": visible(report.verdict.summary),
        "cause": kill_facts.cause(report),
        "setting": list(kill_facts.setting(report)),
        "evidence": [visible(evidence.with_source(item)) for item in report.verdict.evidence],
        "contributing": [visible(evidence.sentence(item)) for item in report.verdict.contributing],
        "composition": list(_composition(report)),
        "usage": units.size(total),
        "composition_rest": [*kill_facts.composition_rest(report), *_by_mapping(report)],
        "often_confused": list(kill_facts.often_confused(report)),
        "cushion": list(kill_facts.cushion(report)),
        "reclaim": list(reclaim_facts.tried(report, page_size)),
        "transcript": reclaim_facts.transcript(report, attempts),
        "asked": list(kill_facts.asked(report)),
        "stack": [visible(frame) for frame in report.trigger.stack or ()],
        "user_stack": [visible(frame) for frame in kill_facts.user_stack(report)],
        "allocators": list(
            kill_facts.allocated(
                report.allocators,
                report.further_allocators,
                _MOST_ALLOCATORS,
                report.time,
                thinned=report.quality.thinned,
            )
        ),
        "killed": list(kill_facts.killed(report, len(report.victims))),
        "victims": [kill_facts.victim_cells(victim) for victim in report.victims],
        "victim_titles": kill_facts.VICTIM_TITLES,
        "victim_note": kill_facts.VICTIM_NOTE,
        "candidates": [
            kill_facts.candidate_cells(candidate, report, page_size) for candidate in report.candidates
        ],
        "candidate_titles": kill_facts.CANDIDATE_TITLES,
        "candidate_note": kill_facts.candidate_note(report, page_size),
        "candidate_cmdlines": list(kill_facts.candidate_titles(report)),
        "what_if": list(kill_facts.what_if(report)),
        "advice": list(kill_facts.sizing(report)),
        "quality": list(quality_facts.quality(report)),
    }


def _when_and_where(report: OomReport) -> str:
    when = units.UNKNOWN if report.time is None else f"{report.time:%Y-%m-%d %H:%M:%S} UTC"
    return f"{when}, {places.place_in_short(report.limit_owner)}"


def _by_mapping(report: OomReport) -> Iterator[str]:
    """Yield the memory of the killed process by mapping, and what its runtime showed."""
    sentences = [sentence for _, sentence in memory_facts.by_mapping(report.mappings, report.time)]
    if sentences:
        yield f"by mapping: {'; '.join(sentences)}"
    for label, sentence in memory_facts.of_runtimes(report.runtime, report.mappings):
        yield f"{label}: {sentence}"
    cached = [sentence for _, sentence in memory_facts.cache_at_kill(report)]
    if cached:
        yield f"in cache: {'; '.join(cached)}"


def _composition(report: OomReport) -> Iterator[dict[str, Any]]:
    """Yield each part of usage, with its place in the bar in percent."""
    total, left = report.composition.total, 0.0
    for part, value in kill_facts.composition(report):
        kind, share = PART_BY_NAME[part], 100 * max(value, 0) / total if total else 0.0
        yield {
            "layer": kind.layer,
            "label": kind.label,
            "meaning": kind.meaning,
            "size": units.size(value),
            "percent": units.percent(value, total),
            "share": share,
            "left": left,
        }
        left += share


def _recording(subject: Subject) -> list[Fact]:
    meta = subject.meta
    started, ended = (
        None if meta[name] is None else kill_facts.shown_time(pd.Timestamp(meta[name]).tz_convert("UTC"))
        for name in ("started", "ended")
    )
    pairs = (
        ("trace", subject.trace),
        ("host", f"{meta['host_name']}, {meta['architecture']}, {meta['cpus']} CPUs"),
        ("cgroups", f"v{meta['cgroup_version']}"),
        ("kernel", meta["kernel_release"]),
        ("command", " ".join(map(str, meta["command_line"]))),
        ("started", started),
        (
            "ended",
            "interrupted" if subject.interrupted else f"{ended}, {end_in_words(str(meta['end_reason']))}",
        ),
        ("lost records", units.count(subject.lost) if subject.lost else "none"),
        ("recorded by", f"memcg-tracer {meta['tool_version']}"),
    )
    return [(label, visible(str(value))) for label, value in pairs]
