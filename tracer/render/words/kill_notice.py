"""The line about a kill that a running recorder prints at once, before anything is explained."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tracer.render.words.escape import visible
from tracer.units import size


def kill_notice(kill: Mapping[str, Any], place: str) -> str:
    """Return `OOM kill in web at 20:14:03 UTC: tail (pid 25057), at a limit of 48 MiB`, escaped.

    `kill` is a row of `oom`, `place` the name of the cgroup whose limit was hit, else of the victim's.
    """
    when = _clock(kill)
    limit = "" if kill["limit_bytes"] is None else f", at a limit of {size(kill['limit_bytes'])}"
    return f"OOM kill in {visible(place)} at {when}: {visible(kill['comm'])} (pid {kill['pid']}){limit}"


def judged_notice(kill: Mapping[str, Any], place: str, cause: str, summary: str) -> str:
    """Return `web, killed at 20:14:03 UTC: anon_growth: tail (pid 25057) asked for ...`, escaped."""
    return f"{visible(place)}, killed at {_clock(kill)}: {cause}: {summary}"


def _clock(kill: Mapping[str, Any]) -> str:
    return f"{datetime.fromtimestamp(kill['time'] / 1e9, UTC):%H:%M:%S} UTC"
