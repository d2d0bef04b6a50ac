"""The post-mortem from a kernel log alone: the same reports as from a trace, with the facts that a log has.

A log has the kernel's own account of a kill, and the state at that moment. It does not show the time before:
growth, evictions and allocators are not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from tracer.analysis.core.columns import NO_ID, utc_time
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain import shortage, verdict, victim_selection
from tracer.analysis.explain.measure import composition, window
from tracer.analysis.explain.measure.findings import Circumstances, Findings, PreviousKill, Swap
from tracer.analysis.explain.words import log_words
from tracer.analysis.kernel_log import decisions, logged_kill
from tracer.analysis.kernel_log.decisions import LogKill
from tracer.analysis.kernel_log.logged_kill import Named
from tracer.analysis.results.kill import LimitOwner, OomReport, Verdict, Victim
from tracer.analysis.results.memory import Composition, Cushion
from tracer.analysis.results.quality import LOG_ALONE, OF_LIVES, KernelLogPlace, Quality, Unknown
from tracer.errors import Defects
from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.stored_names import stored_text

_NOT_IN_LOG: Final = (
    *("reclaim", "cushion.cache_start_bytes", "cushion.evicted_bytes", "cushion.absorbed_bytes"),
    *("cushion.limit_reached_at", "cushion.exhausted_at", "cushion.evicted_after_bytes"),
    *("cushion.refaulted_bytes", "cushion.kernel_refaulted_bytes", "allocators"),
    *("further_allocators", "trigger.user_stack", *OF_LIVES, "sizing.min_limit_bytes", "ktime_ns"),
)
_JUDGED_ONLY: Final = Quality(
    0, "only", {}, dict.fromkeys((*_NOT_IN_LOG, *verdict.NOT_EXPLAINED), verdict.NOT_ASKED)
)


def explain(
    logs: Iterable[LogReport],
    named: Named = lambda _path: ContainerNames(),
    defects: Defects | None = None,
    *,
    is_judged_only: bool = False,
) -> Iterator[OomReport]:
    """Yield one report for each decision in a log, numbered from 1.

    A log has no names of containers and pods: `named` returns them for the path of a cgroup. A decision that
    a bug keeps from being explained has a report that says so, and the bug is added to `defects`. With
    `is_judged_only`, the reports have their parties, cause and confidence alone, which a list shows: that
    takes half of the time and a tenth of the memory.
    """
    kept = Defects() if defects is None else defects
    for number, log, before in _with_previous(logs):
        yield report(number, log, named=named, defects=kept, previous=before, is_judged_only=is_judged_only)


def explain_one(
    number: int, logs: Iterable[LogReport], named: Named, defects: Defects | None = None
) -> OomReport:
    """Return the report that `explain` yields for a decision, by its number."""
    kept = Defects() if defects is None else defects
    log, before = next((log, before) for at, log, before in _with_previous(logs) if at == number)
    return report(number, log, named=named, defects=kept, previous=before)


def _with_previous(logs: Iterable[LogReport]) -> Iterator[tuple[int, LogReport, PreviousKill | None]]:
    """Yield each decision with its number and the last kill for the same limit."""
    last: dict[str, tuple[int, LogReport]] = {}
    for number, log in enumerate(logs, start=1):
        previous = last.get(log.oom_memcg or "")
        yield number, log, None if previous is None else _before(log, *previous)
        if log.oom_memcg is not None and log.kills:
            last[log.oom_memcg] = number, log


def missed(trace: TraceTables) -> Iterator[OomReport]:
    """Yield a report for each kill that only the kernel log of a trace has (`kernel_log.decisions.missed`),
    with the clock and the names of the trace."""
    kills: list[LogKill] = trace.defects.attempt(
        "the kernel log of the trace", lambda: decisions.missed(trace), lambda _: []
    )
    for kill in kills:
        named, size = _named_in(trace, kill), page_size(trace)
        found = report(kill.kill_id, kill.report, named=named, defects=trace.defects, page_size=size)
        known, owner = {"time"}, found.limit_owner
        if kill.owner_id != NO_ID:
            life = trace.places.lives.life_for(kill.owner_id)
            owner = replace(owner, cgroup_id=kill.owner_id, run=life.run, runs=life.runs)
            known |= {*OF_LIVES}
        quality = replace(
            found.quality,
            lost_records=trace.losses.affecting_numbers(kill.time_ns, kill.time_ns),
            probes=dict(trace.meta["probes"]),
            unknown={field: why for field, why in found.quality.unknown.items() if field not in known},
            disagreements=(log_words.MISSED, *found.quality.disagreements),
        )
        yield replace(
            found,
            time=utc_time(kill.time_ns),
            limit_owner=owner,
            victims=tuple(_placed(trace, kill, found.victims)),
            quality=quality,
        )


def _placed(trace: TraceTables, kill: LogKill, victims: Sequence[Victim]) -> Iterator[Victim]:
    for victim, victim_id in zip(victims, kill.victim_ids, strict=True):
        known_id = None if victim_id == NO_ID else victim_id
        cgroup = victim.cgroup or trace.places.path_of(known_id)
        yield replace(victim, cgroup=cgroup, cgroup_id=known_id)


def _named_in(trace: TraceTables, kill: LogKill) -> Named:
    """Return the look-up of names by path: those of the last cgroup with that path before the kill."""

    def names_of(path: str) -> ContainerNames:
        life = trace.places.lives.parent_at(stored_text(path), kill.time_ns)
        return ContainerNames(*trace.places.container_of(life), *trace.places.origin_of(life))

    return names_of


def _before(log: LogReport, number: int, previous: LogReport) -> PreviousKill | None:
    """Return the kill before this one, for the same limit; None if the log does not show the time between
    them."""
    now, then, victim = log.stamp.since_boot_ns, previous.stamp.since_boot_ns, previous.kills[0]
    if now is None or then is None or now < then:
        return None
    return PreviousKill(number, victim.pid, victim.comm, now - then)


def report(
    number: int,
    log: LogReport,
    *,
    named: Named,
    defects: Defects,
    page_size: int | None = None,
    previous: PreviousKill | None = None,
    is_judged_only: bool = False,
) -> OomReport:
    """Return the report of one decision; `page_size` is given if another source than the log has it.

    `previous`: the last kill for the same limit. `is_judged_only`: see `explain`.
    """
    known_size = page_size or logged_kill.page_size(log)
    outline = _outline(number, log, known_size)
    explained = _judged if is_judged_only else _explained
    return defects.attempt(
        f"kill {number}",
        lambda: explained(outline, log, named, known_size, previous),
        lambda why: verdict.unexplained(outline, why),
    )


def _outline(number: int, log: LogReport, page_size: int | None) -> OomReport:
    """Return what the lines of a report say themselves."""
    memory = log.counters.get("memory")
    limit, usage = (None, None) if memory is None else (memory.limit_bytes, memory.usage_bytes)
    return OomReport(
        kill_id=number,
        time=None,
        constraint=log.constraint,
        limit_owner=LimitOwner(log.oom_memcg, limit_bytes=limit, usage_bytes=usage),
        victims=tuple(Victim(kill.pid, kill.comm, group_kill=len(log.kills) > 1) for kill in log.kills),
        quality=Quality(log.dropped, "only", {}, dict.fromkeys(_NOT_IN_LOG, LOG_ALONE)),
        kernel_log=KernelLogPlace(
            first_line=log.stamp.line,
            last_line=log.last_line,
            since_boot_ns=log.stamp.since_boot_ns,
            wall=log.stamp.wall,
            page_size=page_size,
            missing=log.missing,
            suppressed=log.suppressed,
            panicked=log.is_panic,
        ),
    )


def _judged(
    outline: OomReport, log: LogReport, named: Named, known_size: int | None, previous: PreviousKill | None
) -> OomReport:
    findings, _ = _findings(outline, log, named=named, known_size=known_size, previous=previous, unknown={})
    return replace(
        outline,
        time=findings.time,
        limit_owner=findings.owner,
        victims=tuple(findings.victims),
        verdict=verdict.pick(findings),
        quality=_JUDGED_ONLY,
    )


def _explained(
    outline: OomReport, log: LogReport, named: Named, known_size: int | None, previous: PreviousKill | None
) -> OomReport:
    unknown: Unknown = dict(outline.quality.unknown)
    findings, sizes = _findings(
        outline, log, named=named, known_size=known_size, previous=previous, unknown=unknown
    )
    total = victim_selection.logged_total_pages(log, findings.page_size)
    selection = victim_selection.from_log(log, total, findings.page_size, unknown)
    working_set = composition.working_set(sizes, findings.composition.total, unknown)
    return verdict.assemble(
        replace(
            outline,
            time=findings.time,
            working_set_bytes=working_set,
            quality=replace(outline.quality, unknown=unknown),
        ),
        findings,
        selection,
        sizes,
        judge=lambda found: _judge(log, found),
    )


def _findings(
    outline: OomReport,
    log: LogReport,
    *,
    named: Named,
    known_size: int | None,
    previous: PreviousKill | None,
    unknown: Unknown,
) -> tuple[Findings, logged_kill.Sizes]:
    """Return what the lines of a report show, and memory.stat of the limit owner in bytes."""
    page_size = known_size or logged_kill.DEFAULT_PAGE_SIZE
    if known_size is None:
        unknown["kernel_log.page_size"] = f"the kernel log does not show it; assumed to be {page_size} bytes"
    sizes = logged_kill.sizes(log)
    made_of = _composition(log, sizes, unknown)
    cache_end = window.cache_bytes(sizes)
    if cache_end is None:
        unknown["cushion.cache_end_bytes"] = logged_kill.why_not(log, "file")
    victims = tuple(logged_kill.victims(log, page_size, unknown))
    return Findings(
        time=logged_kill.kill_time(log.stamp, unknown),
        constraint=log.constraint,
        owner=logged_kill.limit_owner(log, outline.limit_owner, unknown, named),
        trigger=logged_kill.trigger(log, unknown),
        victims=victims,
        victim_tgids=frozenset(victim.pid for victim in victims),
        composition=made_of,
        cushion=Cushion(cache_end_bytes=cache_end),
        page_size=page_size,
        circumstances=_circumstances(log, sizes, made_of, page_size),
        is_told=True,
        kmsg="only",
        previous=previous,
    ), sizes


def _circumstances(
    log: LogReport, sizes: logged_kill.Sizes, made_of: Composition, page_size: int
) -> Circumstances:
    in_swap = logged_kill.swap(log)
    return Circumstances(
        swap=None if in_swap is None else Swap(*in_swap, refused=False),
        protected_bytes=log.min_protection_bytes or 0,
        shortage=shortage.from_log(log, page_size),
        no_victim=shortage.no_victim(log),
        machine=log.mem_info,
        full_swap_limit_bytes=logged_kill.full_swap_limit(log),
        kernel_bytes=sizes["kernel"],
        incompressible_bytes=sizes["zswap_incomp"],
        locked_in_unknown_bytes=composition.locked_in_unknown(sizes, made_of),
    )


def _composition(log: LogReport, sizes: logged_kill.Sizes, unknown: Unknown) -> Composition:
    memory = log.counters.get("memory")
    made_of, why = composition.compose(
        sizes,
        None if memory is None else memory.usage_bytes,
        absent=lambda name: logged_kill.why_not(log, name),
    )
    if not any(size for part, size in made_of.parts() if part != "other") and made_of.anon is None:
        # All of usage is in `other`, which does not mean that no counter has it.
        why = {"composition": logged_kill.why_not(log, "anon")}
    if log.constraint not in ("memcg", "unknown"):
        unknown["composition"] = unknown["working_set_bytes"] = logged_kill.NO_LIMIT
    else:
        unknown |= why if log.stats or memory is not None else {"composition": logged_kill.NO_COUNTERS}
    return made_of


def _judge(log: LogReport, findings: Findings) -> Verdict:
    """Return the verdict; if the log has the kill but not its report, the summary is reduced to that."""
    judged = verdict.judge(findings)
    if "header" not in log.missing or log.counters or log.mem_info is not None:
        return judged
    has_owner, has_summary = log.oom_memcg is not None, "summary" not in log.missing
    nodes = shortage.nodes_of(log)
    summary = log_words.summary_of_a_line(findings, nodes, has_owner=has_owner, has_summary=has_summary)
    return replace(judged, summary=summary)
