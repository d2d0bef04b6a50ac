"""A process that reads and explains traces: `python -m soak.judging`.

It reads paths from stdin, a line each, and answers each with a line of JSON: `Judged`. It has no loop of the
watch to disturb, and takes a low priority.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from soak.lane import name_of

from tracer.analysis.results.kill import OomReport
from tracer.analysis.trace import AnalysedTrace
from tracer.errors import TracerError
from tracer.lab.checks import Check, Evidence
from tracer.lab.experiments import EXPERIMENTS
from tracer.trace import layout


@dataclass
class JudgedKill:
    """A kill in a trace: `failed` has the failed checks of its experiment, and what they compared."""

    cgroup: str
    pids: list[int]
    time_s: float
    label: str | None
    cause: str | None
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Judged:
    """A trace: its times are seconds since 1970, `error` says why it could not be read or explained."""

    trace: str
    started_s: float = 0.0
    end_reason: str | None = None
    has_journals: bool = False
    bytes_on_disk: int = 0
    kills: list[JudgedKill] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    summed_until_s: float = 0.0
    """Until then, page cache is summed, so that some questions have no answer."""
    error: str | None = None


def main() -> int:
    """Judge the traces of stdin."""
    os.nice(5)
    for line in sys.stdin:
        print(json.dumps(asdict(judge(Path(line.rstrip("\n"))))), flush=True)
    return 0


def judge(path: Path) -> Judged:
    """Read and explain a trace."""
    judged = Judged(str(path))
    try:
        trace = AnalysedTrace(path)
        judged.has_journals = (path / layout.JOURNAL).exists()
        judged.bytes_on_disk = layout.size_bytes(path)
        judged.started_s = _seconds(trace.meta["started"])
        judged.end_reason = trace.meta.get("end_reason")
        judged.lost = {name: number for name, number in dict(trace.meta.get("lost") or {}).items() if number}
        if not trace.summed.empty:
            judged.summed_until_s = trace.summed.index.max().timestamp()
        judged.kills = _kills(trace)
    except Exception as error:  # of any kind: it is what the soak looks for
        judged.error = f"{type(error).__name__}: {error}"
    return judged


def _kills(trace: AnalysedTrace) -> list[JudgedKill]:
    """Return the kills in cgroups of ours."""
    own: dict[str, list[OomReport]] = defaultdict(list)
    kills = []
    for report in trace.explain():
        cgroup = next((victim.cgroup for victim in report.victims if name_of(victim.cgroup or "")), None)
        if cgroup is not None:
            own["/" + cgroup.split("/")[1]].append(report)
        elif report.time is not None:  # of others, or in a cgroup whose name was lost
            pids = [victim.pid for victim in report.victims if victim.pid is not None]
            kills.append(JudgedKill("", pids, report.time.timestamp(), None, report.verdict.cause))
    for cgroup, reports in own.items():
        experiment = EXPERIMENTS[name_of(cgroup) or ""]
        for report in reports:
            assert report.time is not None
            pids = [victim.pid for victim in report.victims if victim.pid is not None]
            cause = report.verdict.cause
            kills.append(JudgedKill(cgroup, pids, report.time.timestamp(), experiment.cause, cause))
        if experiment.cause is not None and "a0-" not in cgroup:
            evidence = Evidence(trace, reports, experiment.limit_bytes, experiment.cause)
            first = kills[-len(reports)]
            number = experiment.kills(reports)
            if not number.passed:
                first.failed[number.name] = number.detail
            for ask in experiment.checks:
                try:
                    check = ask(evidence)
                except TracerError as error:  # a name that the check looks up was lost
                    check = Check("all can be checked", False, str(error))
                if not check.passed:
                    first.failed[check.name] = check.detail
    return kills


def _seconds(value: Any) -> float:
    from datetime import datetime

    return datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp()


if __name__ == "__main__":
    sys.exit(main())
