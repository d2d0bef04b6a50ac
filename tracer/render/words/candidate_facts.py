"""Whom the kernel weighed, as a table, and what would have had it choose another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer import units
from tracer.analysis.explain.victim.badness import ADJ_SCALE, OOM_SCORE_ADJ_MIN
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.tasks import Candidate, WhatIf
from tracer.render.words.escape import visible
from tracer.render.words.kill_facts import Fact, titled

TITLES: Final = ("weighed", "badness", "of total", "RSS", "holds", "adj", "adj adds", "")
SIDES: Final = "<>>>>>><"
_NEVER: Final = "never"


def cells(candidate: Candidate, report: OomReport, page_size: int) -> tuple[str, ...]:
    """Cells under `TITLES`."""
    held, added = candidate.held_pages, candidate.adj_pages
    is_never = candidate.badness is None and (
        candidate.oom_score_adj == OOM_SCORE_ADJ_MIN or "candidates.badness" not in report.quality.unknown
    )
    return (
        f"{visible(candidate.comm)} ({candidate.pid})",
        _NEVER if is_never else units.count(candidate.badness),
        "" if is_never else units.percent(candidate.badness, report.badness_total_pages),
        units.size(candidate.rss_bytes),
        "" if held is None else units.size(held * page_size),
        str(candidate.oom_score_adj),
        "" if is_never or added is None else units.size(added * page_size),
        "chosen" if candidate.chosen else "",
    )


def note(report: OomReport, page_size: int) -> str:
    """What the table means."""
    words = "badness, in pages: what a task holds (RSS, swap, page tables) and what its adj adds"
    total = report.badness_total_pages
    if total is not None:
        thousandth = units.size(total // ADJ_SCALE * page_size)
        words += f"; 1 of it is {thousandth}, a thousandth of {units.size(total * page_size)}"
    return f"{words}. The most is killed; never: what has an adj of -1000, or nothing left to give back"


def titles(report: OomReport) -> Iterator[Fact]:
    """The titles of those whose title says more than the name; of victims they are said elsewhere."""
    killed = {victim.pid for victim in report.victims}
    for one in report.candidates:
        if one.cmdline is not None and one.pid not in killed:
            yield "weighed", f"{visible(one.comm)} ({one.pid}){titled(one.cmdline)}"


def what_if(report: OomReport) -> Iterator[tuple[str, str]]:
    """Which oom_score_adj would have led to another choice, all else being equal."""
    for number, change in enumerate(report.what_if):
        yield "" if number else "instead", _sentence(change)


def _sentence(change: WhatIf) -> str:
    task = f"{visible(change.comm)} ({change.pid})"
    victim = (
        "it" if change.victim_pid == change.pid else f"{visible(change.victim_comm)} ({change.victim_pid})"
    )
    only = "only " if change.instead == OOM_SCORE_ADJ_MIN else ""
    adj = f"an oom_score_adj of {change.instead}, not {change.oom_score_adj}"
    return f"{only}with {adj}, for {task}, {victim} would have been killed"
