"""The summary that `record --summary` appends: from the trace, or from counts and the kernel log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer.analysis.results.kill import OomReport
    from tracer.capture.counted_run import CountedRun
    from tracer.capture.options import Options
    from tracer.capture.session import Recording


def of_trace(options: Options, recording: Recording, place: str) -> str:
    """Return the summary of a recorded command; `place` is where its trace will be. Raises TracerError."""
    from tracer.analysis.trace import AnalysedTrace
    from tracer.render.markdown import job_summary

    trace = AnalysedTrace(recording.path)
    # The shortest path is that of the command's cgroup: the others are below it.
    held = min(trace.held_cgroups(), key=lambda one: len(one.cgroup), default=None)
    lines = job_summary.recorded(
        options.command, recording.status, trace.explain(), held, machine_bytes=_machine_bytes(), trace=place
    )
    return "".join(f"{line}\n" for line in lines)


def of_counts(options: Options, run: CountedRun, why: str) -> str:
    """Return the summary of a counted command; `why`: why it was not recorded."""
    from tracer.render.markdown import job_summary

    report = _logged_kill(run) if run.kills else None
    lines = job_summary.counted(options.command, run, report, why=why, machine_bytes=_machine_bytes())
    return "".join(f"{line}\n" for line in lines)


def _machine_bytes() -> int | None:
    from tracer.kernel.meminfo import meminfo_bytes

    return meminfo_bytes().get("MemTotal")


def _logged_kill(run: CountedRun) -> OomReport | None:
    """Return the newest kill of the cgroup in the kernel log of this machine, if it can be read here."""
    from tracer.analysis.explain import kill_filter
    from tracer.analysis.explain.logged_kills import LogKills
    from tracer.errors import TracerError
    from tracer.kernel.kmsg import this_machine

    found = this_machine.read()
    if found is None or run.path is None:
        return None
    reports = LogKills(found[1].reports, depth="parties")
    try:
        mine = reports.only(kill_filter.positions_of_logged(reports, run.path))
    except TracerError:
        return None
    return mine.explained(kill_filter.newest(mine).kill_id)
