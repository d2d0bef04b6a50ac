"""The summary of one run of a command as Markdown, for the page of a CI job."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracer import units
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.survivor import Held
from tracer.render.markdown import explanation, marks
from tracer.render.words import code_facts, kill_facts, survivor_facts
from tracer.render.words.prose import Fact

if TYPE_CHECKING:
    from tracer.capture.counted_run import CountedRun

_MOST_COMMAND: Final = 80
_LEAST_SHARE: Final = 0.01
_SIGNAL: Final = 128

_OPTION_WITH_VALUE: Final = {
    "sudo": re.compile(
        "-[^-CDRTUghprtu]*[CDRTUghprtu]|--(?:chdir|chroot|close-from|command-timeout|group|host|other-user|"
        "prompt|role|type|user)"
    ),
    "bash": re.compile("[-+][^-oO]*[oO]|--(?:init-file|rcfile)"),
    "sh": re.compile("[-+][^-o]*o"),
}
"""What only begins the command that is meant: the options whose value is the next word."""
_IS_SCRIPT: Final = re.compile("-[^-]*c.*")

SMALLER: Final = "Would a smaller runner do?"


def recorded(
    command: Sequence[str],
    status: int,
    reports: Sequence[OomReport],
    held: Held | None,
    *,
    machine_bytes: int | None,
    trace: str,
) -> Iterator[str]:
    """Yield the summary of a recorded run. `held` is the cgroup of the command."""
    yield from _title(command, status)
    if reports:
        yield from explanation.kills(reports, reports[-1], is_picked=False)
    elif held is not None:
        yield marks.bold(survivor_facts.summary([held]))
        yield ""
        yield from marks.facts([_machine(machine_bytes)])
        yield from marks.facts(survivor_facts.in_brief(held))
        yield from marks.facts(code_facts.grown(held.grown))
        yield from marks.heading(SMALLER)
        yield marks.escaped(smaller(held, machine_bytes))
    else:
        yield marks.escaped("The trace has no data of the command's cgroup.")
    yield from ("", f"Trace: {marks.code(trace)}", "")


def smaller(held: Held, machine_bytes: int | None) -> str:
    """Return what the trace proves about a smaller limit."""
    found = held.sizing.min_limit_bytes
    whole = held.limit_bytes if held.headroom_bytes is not None else machine_bytes
    what = "limit" if held.headroom_bytes is not None else "machine"
    basis = kill_facts.sizing_basis(held.sizing)
    if found is None or found == (0, None):
        return f"Not known: {kill_facts.why_no_range(held.quality)}. {basis}".rstrip()
    low, high = found
    least = f"At least {units.size(low)} is needed to survive" if low else "How little would do is not known"
    if high is None:
        why = kill_facts.why_no_range(held.quality)
        return f"Not known. {least}; how much is enough is not known: {why}. {basis}".rstrip()
    if whole is None:
        answer = f"{units.size(high)} would do"
    elif high < whole:
        answer = f"Yes: {units.size(high)} instead of the {units.size(whole)} of this {what} would do"
    elif low < whole:
        answer = f"Only at a price: with less than {units.size(high)}, files may be read again"
    else:
        answer = f"No: the same work needs {units.size(low)}"
    return f"{answer}, for the command alone. {least}. {basis}".rstrip()


def counted(
    command: Sequence[str],
    run: CountedRun,
    report: OomReport | None,
    *,
    why: str,
    machine_bytes: int | None,
) -> Iterator[str]:
    """Yield the summary of a counted run. `why`: why it was not recorded. `report`: its newest kill in the
    kernel log."""
    yield from _title(command, run.status)
    yield marks.bold(_headline(run))
    yield ""
    yield from marks.facts(_counts(run, machine_bytes, why))
    if run.parts is not None and run.usage_bytes:
        yield from marks.heading(
            f"What filled it: {units.size(run.usage_bytes)} at the highest of {_readings(run)}"
        )
        parts = [
            (part, size)
            for part, size in run.parts.items()
            if size is not None and size >= run.usage_bytes * _LEAST_SHARE
        ]
        yield from explanation.parts_table(sorted(parts, key=lambda part: -part[1]), run.usage_bytes)
    if report is not None:
        yield from marks.heading("The kill, by the kernel log")
        yield from explanation.kill(report)
    elif run.kills:
        yield ""
        yield from marks.facts([("kernel log", "it cannot be read here, or does not have the kill")])
    yield from marks.heading(SMALLER)
    yield marks.escaped(_smaller_by_counts(run))
    yield ""


def _title(command: Sequence[str], status: int) -> Iterator[str]:
    text = what_runs(command)
    shown = text if len(text) <= _MOST_COMMAND else f"{text[: _MOST_COMMAND - 1]}…"
    ended = f"signal {status - _SIGNAL}" if status > _SIGNAL else "success" if status == 0 else "failure"
    yield from ("", f"## Memory of {marks.code(shown)}", "", f"Exit status {status} ({ended}).", "")


def what_runs(command: Sequence[str]) -> str:
    """Return the command that is meant, for a shell: without sudo before it; of `bash -c`, the script."""
    words = list(command)
    if Path(words[0]).name == "sudo":
        meant = _after_options(words[1:], _OPTION_WITH_VALUE["sudo"])
        while meant and "=" in meant[0]:  # a variable of the environment
            meant = meant[1:]
        words = meant or words
    program = Path(words[0]).name
    if program in ("bash", "sh"):
        arguments = _after_options(words[1:], _OPTION_WITH_VALUE[program])
        if arguments and any(_IS_SCRIPT.fullmatch(one) for one in words[1 : -len(arguments)]):
            return arguments[0]
    return shlex.join(words)


def _after_options(words: list[str], with_value: re.Pattern[str]) -> list[str]:
    at = 0
    while at < len(words) and words[at][:1] in ("-", "+"):
        if words[at] == "--":
            return words[at + 1 :]
        at += 2 if with_value.fullmatch(words[at]) else 1
    return words[at:]


def _headline(run: CountedRun) -> str:
    kills = "no OOM kill" if not run.kills else "1 OOM kill" if run.kills == 1 else f"{run.kills} OOM kills"
    if run.scope == "none":
        return "Its memory is not known: this machine shows no memory cgroup."
    peak = run.peak_bytes if run.peak_bytes is not None else run.usage_bytes
    limit = "" if run.limit_bytes is None else f" of a limit of {units.size(run.limit_bytes)}"
    return f"Peak {units.size(peak)}{limit}; {kills}."


def _machine(machine_bytes: int | None) -> Fact:
    return "machine", f"{units.size(machine_bytes)} of memory"


def _readings(run: CountedRun) -> str:
    return "one reading" if run.readings == 1 else f"{units.count(run.readings)} readings"


def _counts(run: CountedRun, machine_bytes: int | None, why: str) -> Iterator[Fact]:
    yield (
        "not recorded",
        f"{why}. These are the counts of the kernel's files; what grew in the code is not known",
    )
    yield _machine(machine_bytes)
    if run.scope == "none":
        return
    if run.scope == "job":
        yield (
            "counted",
            "the cgroup of the whole job, with all that ran beside the command: no cgroup could be made for "
            "the command alone",
        )
    if run.peak_bytes is not None:
        since = ", since that cgroup was made" if run.scope == "job" else ""
        yield "peak usage", f"{units.size(run.peak_bytes)} by the kernel's own count{since}"
    else:
        between = f"{run.read_interval_s * 1000:.0f} ms"
        yield (
            "peak usage",
            f"{units.size(run.usage_bytes)} at the highest of {_readings(run)}, {between} apart: this kernel "
            "has no count of its own (memory.peak)",
        )
    yield "limit", "none" if run.limit_bytes is None else units.size(run.limit_bytes)
    if run.limit_hits is not None:
        yield "limit hit", f"{units.times(run.limit_hits)} by the kernel's count"
    if run.evicted_bytes is not None:
        yield (
            "evicted",
            f"{units.size(run.evicted_bytes)} of page cache and swapped memory, by the kernel's count",
        )
    yield "OOM kills", f"{units.count(run.kills)} by the kernel's count"


def _smaller_by_counts(run: CountedRun) -> str:
    """Return what the counts prove: usage never exceeded its peak, and reclaim cannot free all of it."""
    if run.kills:
        return "No: the OOM killer ended a task in this run."
    if run.scope == "none" or run.peak_bytes is None or run.unreclaimable_bytes is None:
        return "Not known: the kernel's own count of the peak is missing."
    job = " with all else in the job" if run.scope == "job" else ""
    if run.limit_hits:
        return (
            f"Not known: it was at its limit {units.times(run.limit_hits)}. Reclaim could not free "
            f"{units.size(run.unreclaimable_bytes)} of it without swap, in {_readings(run)}."
        )
    return (
        f"{units.size(run.peak_bytes)} would do: usage{job} never exceeded it. Less than "
        f"{units.size(run.unreclaimable_bytes)} would not do without swap: reclaim cannot free that much, in "
        f"{_readings(run)}. Between these two, page cache has to give way, at a cost that only a trace shows."
    )
