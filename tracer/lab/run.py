"""Record an experiment with `record`, and check the explanation of the trace."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tracer.analysis.results.kill import Cause, OomReport
from tracer.analysis.results.survivor import Held
from tracer.analysis.trace import AnalysedTrace
from tracer.errors import TracerError
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.process.children import start_module
from tracer.lab.checks import Check, Evidence
from tracer.lab.experiments import Experiment
from tracer.lab.scratch import scratch_directory
from tracer.lab.survival import Survival
from tracer.trace.write.claim import claim


@dataclass(frozen=True)
class Outcome:
    """The labels of an experiment, the path of its trace, and its checks."""

    experiment: str
    cause: Cause | None
    state: str | None
    trace: Path
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Return whether every check passed."""
        return all(check.passed for check in self.checks)


def run(experiment: Experiment, output: Path | None, force: bool) -> Outcome:
    """Record the experiment into `output` (None: the default of `record`), and check the explanation.

    The recording is a separate process, with the command that a user would type; its progress goes to stderr.
    Raises TracerError if nothing was recorded, or if this machine cannot run the experiment.
    """
    lacking = what_lacks(experiment)
    if lacking is not None:
        raise TracerError(lacking)
    if output is not None and not force and os.path.lexists(output):
        claim(output, force=False).close()  # refused before the files of the experiment are made
    with (
        scratch_directory(nearest(output or Path("traces"))) as scratch,
        experiment.prepare(scratch) as place,
    ):
        path = record(experiment, place, output, force)
    checks = examine(experiment, AnalysedTrace(path))
    return Outcome(experiment.name, experiment.cause, experiment.state, path, checks)


def what_lacks(experiment: Experiment) -> str | None:
    """Return the reason why this machine cannot run the experiment; None if it can."""
    if experiment.needs_v2 is None or memory_hierarchy().version == 2:
        return None
    return (
        f"{experiment.name} needs {experiment.needs_v2}, which cgroup v1 does not have: "
        "run it where the memory controller is on v2"
    )


def examine(experiment: Experiment, trace: AnalysedTrace) -> tuple[Check, ...]:
    """Return the checks of an experiment on a trace; only the first if the number of kills is wrong."""
    reports = own_kills(trace)
    first = experiment.kills(reports)
    if not first.passed:
        return (first,)
    if experiment.cause is None:
        survival = Survival(trace, own_life(trace), experiment.limit_bytes)
        return (first, *(check(survival) for check in experiment.survival))
    evidence = Evidence(trace, reports, experiment.limit_bytes, experiment.cause)
    return (first, *(check(evidence) for check in experiment.checks))


def own_kills(trace: AnalysedTrace) -> list[OomReport]:
    """Return the kills in the experiment's cgroup; the trace can also have global kills."""
    own = f"{own_cgroup(trace)}/"
    return [
        report
        for report in trace.explain()
        if any(f"{victim.cgroup}/".startswith(own) for victim in report.victims)
    ]


def own_life(trace: AnalysedTrace) -> Held:
    """Return the report about the experiment's cgroup as a survivor."""
    own = own_cgroup(trace)
    (held,) = (one for one in trace.held_cgroups() if one.cgroup == own)
    return held


def own_cgroup(trace: AnalysedTrace) -> str:
    """Return the path of the experiment's cgroup."""
    (cgroup,) = trace.meta["filters"]["cgroups"]
    return str(cgroup)


def record(experiment: Experiment, place: Path, output: Path | None, force: bool) -> Path:
    """Record an experiment whose files are at `place`, and return the path of its trace."""
    options = ["--name", f"lab-{experiment.name}"]
    options += ["--limit", str(experiment.limit_bytes), "--swap", str(experiment.swap_bytes)]
    options += ["-o", str(output)] if output is not None else []
    options += ["-f"] if force else []
    arguments = ["record", *options, "--", *experiment.command(place)]
    recording = start_module("tracer", *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        printed = recording.communicate()[0].decode("utf-8", "surrogateescape").splitlines()
    except BaseException:
        recording.terminate()  # it ends in order, and leaves neither a cgroup nor a process
        recording.communicate()
        raise
    if not printed:
        raise TracerError(f"the experiment was not recorded: record ended with status {recording.returncode}")
    # What the work itself prints need not end in a newline.
    return Path(printed[-1]) if output is None else output


def nearest(path: Path) -> Path:
    """Return the closest existing directory above `path`."""
    return next((parent for parent in path.absolute().parents if parent.is_dir()), Path.cwd())
