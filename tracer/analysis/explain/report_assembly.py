"""The assembly of an `OomReport` from what one source, a trace or a kernel log, shows of a kill.

`unexplained` is the report of a kill that a bug of ours keeps from being explained.

The sources (`postmortem`, `log_postmortem`) measure. A value that a source does not show is None, and
`Quality.unknown` has the reason. From there on all kills are treated alike: the verdict, then the advice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pandas as pd

from tracer.analysis.explain import verdict
from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.victim.victim_selection import Selection
from tracer.analysis.explain.words import advice
from tracer.analysis.explain.words.wording import owner_name, process
from tracer.analysis.results.conclusions import UNKNOWN, Sizing, Verdict
from tracer.analysis.results.kill import LimitOwner, OomReport
from tracer.analysis.results.memory import ChargedStack, Composition, Cushion
from tracer.analysis.results.quality import KernelLogPlace, Quality
from tracer.analysis.results.reclaim_attempts import Reclaim
from tracer.analysis.results.tasks import Trigger, Victim

_NOT_EXPLAINED: Final = (
    *("verdict", "composition", "working_set_bytes", "reclaim", "cushion", "allocators"),
    *("further_allocators", "candidates", "sizing.min_limit_bytes"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of one kill by one source.

    `findings`: without the candidates, which `selection` has. `sizes`: memory.stat of the limit owner at the
    kill, in bytes, by name (`schema.MEMORY_STAT_BYTES`); None is "not known". `kernel_log`: None for a trace.
    `charged_in` returns the stacks with which memory of some kinds was charged before the kill.
    """

    kill_id: int
    ktime_ns: int | None
    findings: Findings
    selection: Selection
    sizes: Mapping[str, int | None]
    working_set_bytes: int | None
    sizing: Sizing
    quality: Quality
    kernel_log: KernelLogPlace | None = None
    charged_in: Callable[[Sequence[str]], tuple[ChargedStack, ...]] = lambda _kinds: ()


def assemble(measured: Measured, judge: Callable[[Findings], Verdict] = verdict.judge) -> OomReport:
    """Return the report of a kill; `judge` gives the verdict on its findings."""
    selection = measured.selection
    findings = replace(
        measured.findings, candidates=selection.candidates, kmsg_fields=measured.quality.kmsg_fields
    )
    judged = judge(findings)
    return OomReport(
        kill_id=measured.kill_id,
        time=findings.time,
        ktime_ns=measured.ktime_ns,
        constraint=findings.constraint,
        limit_owner=findings.owner,
        trigger=findings.trigger,
        victims=tuple(findings.victims),
        candidates=selection.candidates,
        composition=findings.composition,
        working_set_bytes=measured.working_set_bytes,
        reclaim=findings.reclaim,
        cushion=findings.cushion,
        allocators=tuple(findings.allocators),
        verdict=judged,
        advice=(*advice.advise(findings, judged.cause), *advice.settings(findings, judged.cause)),
        sizing=measured.sizing,
        quality=measured.quality,
        memory_stat_bytes={name: size for name, size in measured.sizes.items() if size is not None},
        badness_total_pages=selection.total_pages,
        what_if=selection.what_if,
        kernel_log=measured.kernel_log,
        further_allocators=findings.further_allocators,
        shared_files=tuple(findings.shared_files),
        charged_in=measured.charged_in(CAUSES[judged.cause].grows),
    )


def reduced(report: OomReport, why: str) -> OomReport:
    """Return a report without its conclusions, which `why` keeps from being shown."""
    return unexplained(
        report.kill_id,
        time=report.time,
        constraint=report.constraint,
        owner=report.limit_owner,
        victims=report.victims,
        quality=report.quality,
        why=why,
        ktime_ns=report.ktime_ns,
        place=report.kernel_log,
    )


def unexplained(
    kill_id: int,
    *,
    time: pd.Timestamp | None,
    constraint: str,
    owner: LimitOwner,
    victims: Sequence[Victim],
    quality: Quality,
    why: str,
    ktime_ns: int | None = None,
    place: KernelLogPlace | None = None,
) -> OomReport:
    """Return the report of a kill of which only the parties are known: `why` tells what keeps it from being
    explained. `unknown` of `quality` has the reasons for what the source lacks as well."""
    killed = ", ".join(process(victim.comm, victim.pid) for victim in victims) or "a process"
    limit = f" for {owner_name(owner)}" if constraint == "memcg" else ""
    summary = f"{killed} was killed{limit}. This kill could not be explained: {why}."
    return OomReport(
        kill_id=kill_id,
        time=time,
        ktime_ns=ktime_ns,
        constraint=constraint,
        limit_owner=owner,
        trigger=Trigger(None, None, None, None, None, None, None),
        victims=tuple(victims),
        candidates=(),
        composition=Composition(),
        working_set_bytes=None,
        reclaim=Reclaim(None, None, None, None, ()),
        cushion=Cushion(),
        allocators=(),
        verdict=Verdict(UNKNOWN, "low", summary, (), ()),
        advice=(),
        sizing=Sizing(None),
        quality=replace(quality, unknown={**quality.unknown, **dict.fromkeys(_NOT_EXPLAINED, why)}),
        kernel_log=place,
    )
