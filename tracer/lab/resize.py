"""Verification of the minimum limit: the same work at its upper end, and well below its lower end.

These runs are not traced, so that the work has the limit to itself. The kernel's count of kills in the cgroup
decides if the work survived.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import tracer
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.survivor import Held
from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.cgroups.cgroupfs import descendants, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.cgroups.memory_files import MemcgFiles
from tracer.kernel.process.spawn import spawn
from tracer.lab.checks import Check
from tracer.lab.experiments import Experiment
from tracer.lab.run import Outcome, nearest, own_kills, own_life, record
from tracer.lab.scratch import scratch_directory
from tracer.units import UNKNOWN, size

_BELOW_PERCENT: Final = 80


@dataclass(frozen=True)
class Rerun:
    """The end of the work at a limit: its exit status (negative: a signal), and the number of kills in its
    cgroup."""

    status: int
    kills: int


def verified(experiment: Experiment, outcome: Outcome, repeat: int) -> Outcome:
    """Return the outcome with checks of the minimum limit in its trace, each end tried `repeat` times."""
    checks = verify(experiment, tracer.open(outcome.trace), nearest(outcome.trace), repeat)
    return replace(outcome, checks=(*outcome.checks, *checks))


def verify(experiment: Experiment, trace: AnalysedTrace, near: Path, repeat: int) -> Iterator[Check]:
    """Yield the checks of the minimum limit of `trace`, whose files are made in or near `near`.

    For a kill, record the same work once more at the upper end, where it survives, and check the minimum
    limit of that trace as well.
    """
    kills = own_kills(trace)
    if not kills:
        yield from _verify(experiment, own_life(trace), "without a kill", near, repeat)
        return
    yield from _verify(experiment, kills[0], "from a kill", near, repeat)
    limits = kills[0].sizing.min_limit_bytes
    if limits is None:
        return
    with scratch_directory(near) as scratch, experiment.prepare(scratch) as place:
        enough = replace(experiment, limit_bytes=limits[1])
        lived = tracer.open(record(enough, place, scratch / "trace", force=False))
        yield from _verify(experiment, own_life(lived), "without a kill", near, repeat)


def _verify(
    experiment: Experiment, report: OomReport | Held, origin: str, near: Path, repeat: int
) -> Iterator[Check]:
    name = f"the minimum limit is estimated {origin}"
    if report.sizing.min_limit_bytes is None:
        yield Check(name, False, report.quality.unknown.get("sizing.min_limit_bytes", UNKNOWN))
        return
    low, high = report.sizing.min_limit_bytes
    below = low * _BELOW_PERCENT // 100
    yield Check(name, low <= high, f"{size(low)} to {size(high)}")
    at_high = [rerun(experiment, high, near) for _ in range(repeat)]
    lived = sum(run.status == 0 and run.kills == 0 for run in at_high)
    yield Check("the work survives at the upper end", lived == repeat, f"{lived} of {repeat} at {size(high)}")
    at_below = [rerun(experiment, below, near) for _ in range(repeat)]
    died = sum(run.kills > 0 for run in at_below)
    detail = f"{died} of {repeat} at {size(below)}"
    yield Check(f"it is killed at {_BELOW_PERCENT} % of the lower end", died == repeat, detail)


def rerun(experiment: Experiment, limit_bytes: int, near: Path) -> Rerun:
    """Run the work of the experiment, untraced, in a fresh cgroup with this limit and no swap."""
    hierarchy = memory_hierarchy()
    with (
        scratch_directory(near) as scratch,
        experiment.prepare(scratch) as place,
        ephemeral_cgroup(f"resize-{experiment.name}", limit_bytes, 0, hierarchy) as cgroup,
    ):
        command = spawn(cgroup, experiment.command(place))
        try:
            command.release()
            status = command.process.wait()
        finally:
            command.process.kill()
            command.process.wait()
        kills = sum(_kills(directory, hierarchy.version) for directory in descendants(cgroup))
    return Rerun(status, kills)


def _kills(cgroup: Path, version: int) -> int:
    reading = MemcgFiles(cgroup, version).read()
    return (reading and reading["oom_kill_events"]) or 0
