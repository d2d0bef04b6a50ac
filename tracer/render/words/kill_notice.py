"""The line about a kill that a running recorder prints at once, before anything is explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from tracer.analysis.results import sigkill
from tracer.render.words.escape import visible
from tracer.render.words.sigkill_words import clock, process, sent_by
from tracer.schema import UNLIMITED_BYTES
from tracer.units import count, size

_MOST_AT_ONCE: Final = 8


def kill_notice(kill: Mapping[str, Any], place: str) -> str:
    """Return `OOM kill in web at 20:14:03 UTC: tail (pid 25057), at a limit of 48 MiB`, escaped.

    `kill` is a row of `oom`, `place` the name of the cgroup whose limit was hit, else of the victim's.
    """
    when = _clock(kill)
    limit = "" if kill["limit_bytes"] is None else f", at a limit of {size(kill['limit_bytes'])}"
    return f"OOM kill in {visible(place)} at {when}: {visible(kill['comm'])} (pid {kill['pid']}){limit}"


def sigkill_notice(row: Mapping[str, Any], place: str) -> str:
    """Return `SIGKILL to web (pid 7) in NAME at 20:14:03 UTC: sent by timeout (pid 3), child of sh (pid 2)`,
    escaped. `row` is a row of `sigkills`."""
    kill = sigkill.from_row(row, {}, unlimited_bytes=UNLIMITED_BYTES)
    where = f"in {visible(place)} at {_clock(row)}"
    return f"SIGKILL to {visible(process(kill.target))} {where}: {visible(sent_by(kill))}"


def sigkill_notices(kills: Sequence[tuple[Mapping[str, Any], str]]) -> Iterator[str]:
    """Yield the notices of SIGKILLs that came together, given with their places, and how many more there
    are."""
    for row, place in kills[:_MOST_AT_ONCE]:
        yield sigkill_notice(row, place)
    if (more := len(kills) - _MOST_AT_ONCE) > 0:
        yield f"SIGKILL to {count(more)} more process{'es' * (more > 1)}: the table sigkills has them"


def judged_notice(kill: Mapping[str, Any], place: str, cause: str, summary: str) -> str:
    """Return `web, killed at 20:14:03 UTC: anon_growth: tail (pid 25057) asked for ...`, escaped."""
    return f"{visible(place)}, killed at {_clock(kill)}: {cause}: {summary}"


def _clock(kill: Mapping[str, Any]) -> str:
    return clock(datetime.fromtimestamp(kill["time"] // 1_000_000_000, UTC))
