"""The line about a kill that a running recorder prints at once, before anything is explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from tracer.analysis.results import sigkill
from tracer.capture.observer import Sigkilled
from tracer.render.words.escape import visible
from tracer.render.words.sigkill_words import clock, in_a_line
from tracer.units import count, size

_MOST_AT_ONCE: Final = 8


def kill_notice(kill: Mapping[str, Any], place: str) -> str:
    """Return `OOM kill in web at 20:14:03 UTC: tail (pid 25057), at a limit of 48 MiB`, escaped.

    `kill` is a row of `oom`, `place` the name of the cgroup whose limit was hit, else of the victim's.
    """
    when = _clock(kill)
    limit = "" if kill["limit_bytes"] is None else f", at a limit of {size(kill['limit_bytes'])}"
    return f"OOM kill in {visible(place)} at {when}: {visible(kill['comm'])} (pid {kill['pid']}){limit}"


def sigkill_notice(one: Sigkilled) -> str:
    """Return `SIGKILL to web (pid 7) in NAME at 20:14:03 UTC: sent by timeout (pid 3), child of sh (pid 2)`,
    escaped."""
    kill = sigkill.from_row(one.row, {})
    return visible(in_a_line(kill, one.number, one.place, _clock(one.row)))


def sigkill_notices(kills: Sequence[Sigkilled]) -> Iterator[str]:
    """Yield the notices of SIGKILLs that are reported together, and how many more there are."""
    yield from map(sigkill_notice, kills[:_MOST_AT_ONCE])
    if more := sum(one.number for one in kills[_MOST_AT_ONCE:]):
        yield f"SIGKILL to {count(more)} more process{'es' * (more > 1)}: the table sigkills has them"


def judged_notice(kill: Mapping[str, Any], place: str, cause: str, summary: str) -> str:
    """Return `web, killed at 20:14:03 UTC: anon_growth: tail (pid 25057) asked for ...`, escaped."""
    return f"{visible(place)}, killed at {_clock(kill)}: {cause}: {summary}"


def _clock(kill: Mapping[str, Any]) -> str:
    return clock(datetime.fromtimestamp(kill["time"] // 1_000_000_000, UTC))
