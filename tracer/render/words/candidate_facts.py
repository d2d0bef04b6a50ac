"""The candidates of the OOM killer as a table, and changes that would have led to another victim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer import units
from tracer.analysis.explain.victim_selection import ADJ_SCALE, OOM_SCORE_ADJ_MIN
from tracer.analysis.results.kill import Candidate, OomReport, WhatIf
from tracer.render.words.escape import visible
from tracer.render.words.kill_facts import titled
from tracer.render.words.prose import Fact

TITLES: Final = ("candidate", "badness", "of total", "RSS", "uses", "adj", "adj adds", "")
SIDES: Final = "<>>>>>><"
_NEVER: Final = "never"


def cells(candidate: Candidate, report: OomReport, page_size: int) -> tuple[str, ...]:
    """Return the cells of a candidate below `TITLES`."""
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
    """Return the note that explains the table."""
    words = "badness: pages that the process uses (RSS, swap, page tables) plus the pages that adj adds"
    total = report.badness_total_pages
    if total is not None:
        thousandth = units.size(total // ADJ_SCALE * page_size)
        words += f"; an adj of 1 adds {thousandth}, a thousandth of {units.size(total * page_size)}"
    return (
        f"{words}. The highest badness is killed. never: the adj is -1000, or no memory is left to be freed"
    )


def titles(report: OomReport) -> Iterator[Fact]:
    """Yield the process titles that contain more than the name, except the victims' titles, which
    `kill_facts.killed` yields."""
    killed = {victim.pid for victim in report.victims}
    for one in report.candidates:
        if one.cmdline is not None and one.pid not in killed:
            yield "candidate", f"{visible(one.comm)} ({one.pid}){titled(one.cmdline)}"


def what_if(report: OomReport) -> Iterator[Fact]:
    """Yield the values of oom_score_adj with which the OOM killer would have chosen another victim, all else
    being equal."""
    for number, change in enumerate(report.what_if):
        yield "" if number else "instead", _sentence(change)


def _sentence(change: WhatIf) -> str:
    task = f"{visible(change.comm)} ({change.pid})"
    victim = (
        "it" if change.victim_pid == change.pid else f"{visible(change.victim_comm)} ({change.victim_pid})"
    )
    only = "only " if change.instead == OOM_SCORE_ADJ_MIN else ""
    adj = f"had oom_score_adj {change.instead}, not {change.oom_score_adj}"
    return f"{only}if {task} {adj}, {victim} would have been killed"
