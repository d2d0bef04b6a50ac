"""The report as one self-contained HTML page, without requests and without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import jinja2
import pandas as pd
from markupsafe import Markup

from tracer import units
from tracer.analysis.explain.kill_filter import newest
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.survivor import Held
from tracer.categories import LAYERS, PART_BY_NAME
from tracer.render.words import (
    candidate_facts,
    evidence,
    kill_facts,
    kill_list,
    places,
    quality_facts,
    reclaim_facts,
    survivor_facts,
)
from tracer.render.words.end_reasons import end_in_words
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact

_MOST_ALLOCATORS: Final = 10
_MOST_KILLS: Final = 20
_MOST_LISTED: Final = 200
_MOST_HELD: Final = 50


@dataclass(frozen=True, slots=True)
class Picture:
    """An `<svg>` element of `render.page.plots` and its cgroup: run `run` of the `runs` lives of a name."""

    cgroup: str
    container: str | None
    svg: str
    run: int = 1
    runs: int = 1


@dataclass(frozen=True, slots=True)
class Subject:
    """The contents of the page; `lost` is the number of records lost in all streams, `held` has the cgroups
    without a kill."""

    trace: str
    meta: Mapping[str, Any]
    interrupted: bool
    lost: int
    pictures: Sequence[Picture]
    reports: Sequence[OomReport]
    held: Sequence[Held]


def page(subject: Subject) -> str:
    """Return the page; the same subject always gives the same text.

    The newest kill comes first. Only the newest of many kills and the first of many surviving cgroups are
    explained in full, because a browser has to show them all.
    """
    page_size = int(subject.meta["page_size"])
    headline = (
        newest(subject.reports).verdict.summary
        if subject.reports
        else survivor_facts.summary(subject.held, interrupted=subject.interrupted)
    )
    is_one = len(subject.reports) == 1
    return _template().render(
        title=f"memcg-tracer: {visible(subject.trace)}",
        headline=visible(headline),
        interrupted=subject.interrupted,
        lost=units.count(subject.lost) if subject.lost else None,
        layers=LAYERS,
        pictures=[
            {
                "place": places.place(picture.cgroup, picture.container, run=picture.run, runs=picture.runs),
                "svg": Markup(picture.svg),
            }
            for picture in subject.pictures
        ],
        kills=[_kill(report, page_size) for report in reversed(subject.reports[-_MOST_KILLS:])],
        how_often=[] if is_one else list(kill_list.summary(subject.reports)),
        list_titles=[title for title, _ in kill_list.columns(subject.reports[-_MOST_LISTED:])],
        list=[] if is_one else list(kill_list.rows(subject.reports[-_MOST_LISTED:])),
        list_note=_left_out(len(subject.reports)),
        held=[
            {
                "place": places.place_of_life(one),
                "facts": list(survivor_facts.held(one)),
                "more_memory": reclaim_facts.more_memory_rows(one.miss_curve),
            }
            for one in subject.held[:_MOST_HELD]
        ],
        more_memory_titles=reclaim_facts.MORE_MEMORY_TITLES,
        more_memory_note=reclaim_facts.MORE_MEMORY_NOTE,
        more_held=max(len(subject.held) - _MOST_HELD, 0),
        recording=list(_recording(subject)),
    )


def _left_out(kills: int) -> str:
    unlisted = max(kills - _MOST_LISTED, 0)
    earlier = (
        f"{units.count(unlisted)} earlier kills: memcg-tracer explain TRACE --list. " if unlisted else ""
    )
    explained = (
        f"The newest {_MOST_KILLS} are explained below, any other by --kill N. "
        if kills > _MOST_KILLS
        else ""
    )
    return f"{earlier}{explained}Times are in UTC."


def _kill(report: OomReport, page_size: int) -> dict[str, Any]:
    total, attempts = report.composition.total, report.reclaim.transcript
    return {
        "number": report.kill_id,
        "summary": visible(report.verdict.summary),
        "cause": kill_facts.cause(report),
        "setting": list(kill_facts.setting(report)),
        "evidence": [visible(evidence.with_source(item)) for item in report.verdict.evidence],
        "contributing": [visible(evidence.sentence(item)) for item in report.verdict.contributing],
        "composition": [
            {
                "layer": PART_BY_NAME[part].layer,
                "label": PART_BY_NAME[part].label,
                "meaning": PART_BY_NAME[part].meaning,
                "size": units.size(value),
                "percent": units.percent(value, total),
                "share": 100 * max(value, 0) / total if total else 0,
            }
            for part, value in kill_facts.composition(report)
        ],
        "usage": units.size(total),
        "composition_rest": list(kill_facts.composition_rest(report)),
        "often_confused": list(kill_facts.often_confused(report)),
        "cushion": list(kill_facts.cushion(report)),
        "reclaim": list(reclaim_facts.tried(report, page_size)),
        "transcript": reclaim_facts.transcript(report, attempts),
        "asked": list(kill_facts.asked(report)),
        "stack": [visible(frame) for frame in report.trigger.stack or ()],
        "user_stack": [visible(frame) for frame in report.trigger.user_stack or ()],
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
            candidate_facts.cells(candidate, report, page_size) for candidate in report.candidates
        ],
        "candidate_titles": candidate_facts.TITLES,
        "candidate_note": candidate_facts.note(report, page_size),
        "candidate_cmdlines": list(candidate_facts.titles(report)),
        "what_if": list(candidate_facts.what_if(report)),
        "advice": list(kill_facts.sizing(report)),
        "quality": list(quality_facts.quality(report)),
    }


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


@cache
def _template() -> jinja2.Template:
    source = (resources.files("tracer.render.page") / "report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source)
