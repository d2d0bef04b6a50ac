"""Verification of `whatif`: the same work at other limits, and what two of its traces say about them.

One trace is that of the experiment at its own limit. The other one is recorded with room for all the work.
Both are asked about the same limits, around the demand of the work. The work then runs at each of them,
untraced, and the kernel's counts decide: kills in the cgroup, and page cache that was read again
(workingset_refault_file of memory.stat, or what the disk gave more than to a run with room, if that is more).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tracer.analysis.results.outcome import NOT_KNOWN, UNFLUSHED_BYTES, AtLimit, WhatIf, is_wide
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.whatif.outcomes import what_if
from tracer.lab.checks import Check
from tracer.lab.experiments import Experiment
from tracer.lab.resize import Rerun, read_again_bytes, rerun
from tracer.lab.run import Outcome, nearest, own_cgroup, record
from tracer.lab.scratch import scratch_directory
from tracer.units import UNKNOWN, size

_ROOM_BYTES: Final = 1 << 30
_BELOW_PERCENT: Final = (50, 80, 95)
_ABOVE: Final = (0.0, 0.5, 1.1)
"""Where between the limit that is enough and the peak of usage the upper limits lie."""
_PATIENCE_S: Final = 60.0


@dataclass(frozen=True)
class Answered:
    """What a trace says about a limit, and what the work did; a run that took too long decides nothing.

    `recorded_bytes`: the limit in the trace.
    """

    at: AtLimit
    run: Rerun
    recorded_bytes: int

    @property
    def is_decided(self) -> bool:
        """Return whether the trace says something, and the work came to an end."""
        return self.at.outcome != "unknown" and (self.run.kills > 0 or self.run.status is not None)

    @property
    def is_wrong(self) -> bool:
        """Return whether the work did not end as the trace says."""
        return self.is_decided and (self.at.outcome == "killed") != (self.run.kills > 0)

    @property
    def is_counted(self) -> bool:
        """Return whether the range of what was read again has an end that the run can refute."""
        is_over = self.run.kills == 0 and self.run.status is not None
        return is_over and self.run.refaulted_bytes is not None and self.at.read_again_bytes != NOT_KNOWN

    @property
    def is_outside(self) -> bool:
        """Return whether what was read again is outside of its range."""
        low, high = self.at.read_again_bytes
        again = self.run.refaulted_bytes or 0
        too_few = low is not None and again + UNFLUSHED_BYTES < low
        return self.is_counted and (too_few or (high is not None and again > high + UNFLUSHED_BYTES))

    @property
    def is_above(self) -> bool:
        """Return whether the limit is above the recorded one."""
        return self.at.limit_bytes > self.recorded_bytes

    @property
    def is_wide(self) -> bool:
        """Return whether the range of what is read again is wide."""
        return is_wide(self.at.read_again_bytes)

    def line(self) -> str:
        """Return what was said and what happened, in a line."""
        run = self.run
        did = "killed" if run.kills else "lived" if run.status is not None else "crawled"
        low, high = (None if end is None else size(end) for end in self.at.read_again_bytes)
        again = f"read again {size(run.refaulted_bytes)}, expected {low or UNKNOWN} to {high or UNKNOWN}"
        return f"{self.at.outcome} at {size(self.at.limit_bytes)}: {did}; {again}; {self.at.why}"


def verified(experiment: Experiment, outcome: Outcome) -> Outcome:
    """Return the outcome with a check for each limit and trace."""
    found = _compared(experiment, AnalysedTrace(outcome.trace), nearest(outcome.trace))
    return replace(outcome, checks=(*outcome.checks, *map(check, found)))


def asked_and_run(experiment: Experiment, near: Path) -> list[Answered]:
    """Record an experiment at its own limit, and return what both traces say and what happened.

    Files are made in or near `near`.
    """
    with scratch_directory(near) as scratch, experiment.prepare(scratch) as place:
        own = AnalysedTrace(record(experiment, place, scratch / "trace", force=False))
        return _compared(experiment, own, near)


def _compared(experiment: Experiment, own: AnalysedTrace, near: Path) -> list[Answered]:
    with scratch_directory(near) as scratch, experiment.prepare(scratch) as place:
        enough = replace(experiment, limit_bytes=_ROOM_BYTES)
        roomy = AnalysedTrace(record(enough, place, scratch / "trace", force=False))
        limits = limits_around(what_if(roomy, (), own_cgroup(roomy)))
        asked = [what_if(trace, limits, own_cgroup(trace)).limits for trace in (own, roomy)]
    with_room, *runs = (
        rerun(experiment, limit, near, _PATIENCE_S, is_timed=False) for limit in (_ROOM_BYTES, *limits)
    )
    runs = [replace(run, refaulted_bytes=read_again_bytes(run, with_room)) for run in runs]
    return [
        Answered(at, run, recorded)
        for answers, recorded in zip(asked, (experiment.limit_bytes, _ROOM_BYTES), strict=True)
        for at, run in zip(answers, runs, strict=True)
    ]


def limits_around(found: WhatIf) -> list[int]:
    """Return six limits around the demand of a run that was recorded with room: three below the least limit
    that is not known to be too low, and three above it."""
    low = found.killed_below_bytes or found.limits[0].limit_bytes
    enough = found.survives_from_bytes or low * 5 // 4
    most = max([enough * 5 // 4, *(one.limit_bytes for one in found.limits if one.limit_bytes < _ROOM_BYTES)])
    below = [low * percent // 100 for percent in _BELOW_PERCENT]
    return below + [enough + round((most - enough) * share) + UNFLUSHED_BYTES for share in _ABOVE]


def check(answered: Answered) -> Check:
    """Return the check of an answer."""
    name = f"what a trace says about {size(answered.at.limit_bytes)} is what happens there"
    return Check(name, not (answered.is_wrong or answered.is_outside), answered.line())
