"""The assembly of an `OomReport` from what one source, a trace or a kernel log, shows of a kill.

A source (`postmortem`, `log_postmortem`) first gives the outline of a kill: a report with its parties and its
quality, without conclusions. `unexplained` is the report of a kill that a bug of ours keeps from being
explained. To explain a kill, the source measures. A value that it does not show is None, and
`Quality.unknown` has the reason. From there on all kills are treated alike: the verdict, then the advice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from tracer.analysis.explain import verdict
from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.victim_selection import Selection
from tracer.analysis.explain.words import advice
from tracer.analysis.explain.words.wording import owner_name, process
from tracer.analysis.results.conclusions import NO_VERDICT, Verdict
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import ChargedStack

_NOT_EXPLAINED: Final = (
    *("verdict", "composition", "working_set_bytes", "reclaim", "cushion", "allocators"),
    *("further_allocators", "candidates", "sizing.min_limit_bytes"),
)


def assemble(
    outline: OomReport,
    findings: Findings,
    selection: Selection,
    sizes: Mapping[str, int | None],
    *,
    judge: Callable[[Findings], Verdict] = verdict.judge,
    charged_in: Callable[[Sequence[str]], tuple[ChargedStack, ...]] = lambda _kinds: (),
) -> OomReport:
    """Return the report of a kill: its outline, with what was measured and the conclusions.

    `findings`: without the candidates, which `selection` has. `sizes`: memory.stat of the limit owner at the
    kill, in bytes, by name (`schema.MEMORY_STAT_BYTES`); None is "not known". `judge` gives the verdict on
    the findings. `charged_in` returns the stacks with which memory of some kinds was charged before the kill.
    """
    findings = replace(findings, candidates=selection.candidates, kmsg_fields=outline.quality.kmsg_fields)
    judged = judge(findings)
    return replace(
        outline,
        limit_owner=findings.owner,
        trigger=findings.trigger,
        victims=tuple(findings.victims),
        candidates=selection.candidates,
        composition=findings.composition,
        reclaim=findings.reclaim,
        cushion=findings.cushion,
        allocators=tuple(findings.allocators),
        verdict=judged,
        advice=(*advice.advise(findings, judged.cause), *advice.settings(findings, judged.cause)),
        memory_stat_bytes={name: size for name, size in sizes.items() if size is not None},
        badness_total_pages=selection.total_pages,
        what_if=selection.what_if,
        further_allocators=findings.further_allocators,
        shared_files=tuple(findings.shared_files),
        charged_in=charged_in(CAUSES[judged.cause].grows),
    )


def unexplained(report: OomReport, why: str) -> OomReport:
    """Return the outline of a report as that of a kill which `why` keeps from being explained."""
    killed = ", ".join(process(victim.comm, victim.pid) for victim in report.victims) or "a process"
    limit = f" for {owner_name(report.limit_owner)}" if report.constraint == "memcg" else ""
    summary = f"{killed} was killed{limit}. This kill could not be explained: {why}."
    quality = report.quality
    return OomReport(
        kill_id=report.kill_id,
        time=report.time,
        ktime_ns=report.ktime_ns,
        constraint=report.constraint,
        limit_owner=report.limit_owner,
        victims=report.victims,
        verdict=replace(NO_VERDICT, summary=summary),
        quality=replace(quality, unknown={**quality.unknown, **dict.fromkeys(_NOT_EXPLAINED, why)}),
        kernel_log=report.kernel_log,
    )
