"""The reports on kills that only the kernel log of a trace has (`analysis.kernel_log.decisions.missed`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from tracer.analysis.core.columns import NO_ID, utc_time
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain import log_postmortem
from tracer.analysis.explain.measure.logged_parties import Named
from tracer.analysis.kernel_log.decisions import LogKill, missed
from tracer.analysis.results.kill import LimitOwner, OomReport
from tracer.analysis.results.tasks import Victim
from tracer.kernel.cgroups.containers import ContainerNames
from tracer.stored_names import stored_text

MISSED: Final = "the kernel log has this kill: the probe of the OOM killer missed it"


def reports(trace: TraceTables) -> Iterator[OomReport]:
    """Yield a report for each missed kill, from the log, with the clock and the names of the trace."""
    kills: list[LogKill] = trace.defects.attempt(
        "the kernel log of the trace", lambda: missed(trace), lambda _: []
    )
    for kill in kills:
        named, size = _named(trace, kill), page_size(trace)
        report = log_postmortem.report(
            kill.kill_id, kill.report, named=named, defects=trace.defects, page_size=size
        )
        report = replace(
            report,
            time=utc_time(kill.time_ns),
            limit_owner=_owner(trace, kill, report.limit_owner),
            victims=tuple(_victims(trace, kill, report.victims)),
        )
        known = {"time", *(log_postmortem.OF_LIVES if kill.owner_id != NO_ID else ())}
        quality = replace(
            report.quality,
            lost_records=trace.losses.affecting_numbers(kill.time_ns, kill.time_ns),
            probes=dict(trace.meta["probes"]),
            unknown={field: why for field, why in report.quality.unknown.items() if field not in known},
            disagreements=(MISSED, *report.quality.disagreements),
        )
        yield replace(report, quality=quality)


def _owner(trace: TraceTables, kill: LogKill, owner: LimitOwner) -> LimitOwner:
    if kill.owner_id == NO_ID:
        return owner
    life = trace.places.lives.life_for(kill.owner_id)
    return replace(owner, cgroup_id=kill.owner_id, run=life.run, runs=life.runs)


def _victims(trace: TraceTables, kill: LogKill, victims: Sequence[Victim]) -> Iterator[Victim]:
    for victim, victim_id in zip(victims, kill.victim_ids, strict=True):
        known_id = None if victim_id == NO_ID else victim_id
        cgroup = victim.cgroup or trace.places.path_of(known_id)
        yield replace(victim, cgroup=cgroup, cgroup_id=known_id)


def _named(trace: TraceTables, kill: LogKill) -> Named:
    """Return the look-up of names by path: those of the last cgroup with that path before the kill."""

    def names_of(path: str) -> ContainerNames:
        life = trace.places.lives.parent_at(stored_text(path), kill.time_ns)
        return ContainerNames(*trace.places.container_of(life), *trace.places.origin_of(life))

    return names_of
