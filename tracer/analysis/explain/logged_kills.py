"""The kills of a kernel log alone, and the facts that a log has of each (`kill_report.Kill`).

A log has the kernel's own account of a kill, and the state at that moment. It does not show the time before:
growth, evictions and allocators are not known.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Final, NamedTuple, overload

import pandas as pd

from tracer.analysis.core.columns import NO_ID, utc_time
from tracer.analysis.core.lookups import LogKill
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain import shortage, verdict, victim_selection
from tracer.analysis.explain.kill_report import DEPTHS, Depth, Weighed
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.composition import Instant, Memory
from tracer.analysis.explain.measure.findings import Circumstances, Findings, PreviousKill, Swap
from tracer.analysis.explain.outline import NOT_ASKED, NOT_EXPLAINED, explained
from tracer.analysis.explain.victim_selection import Selection
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.kernel_log import logged_kill
from tracer.analysis.kernel_log.logged_kill import Named
from tracer.analysis.results.kill import NO_VERDICT, LimitOwner, OomReport, Sizing, Verdict, Victim
from tracer.analysis.results.memory import Cushion, Grown
from tracer.analysis.results.quality import LOG_ALONE, OF_LIVES, KernelLogPlace, Quality, Unknown
from tracer.errors import Defects
from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.kmsg.report.log_report import NOBODY, LogReport
from tracer.kernel.kmsg.text.styles import Stamp
from tracer.stored_names import stored_text

_NOT_IN_LOG: Final = (
    *("reclaim", "cushion.cache_start_bytes", "cushion.evicted_bytes", "cushion.absorbed_bytes"),
    *("cushion.limit_reached_at", "cushion.exhausted_at", "cushion.evicted_after_bytes"),
    *("cushion.refaulted_bytes", "cushion.kernel_refaulted_bytes", "allocators"),
    *("further_allocators", "trigger.user_stack", "trigger.user_stack_left_code", *OF_LIVES),
    *("sizing.min_limit_bytes", "ktime_ns"),
)
_NOT_ASKED: Final = Quality(0, "only", {}, dict.fromkeys((*_NOT_IN_LOG, *NOT_EXPLAINED), NOT_ASKED))


def _unnamed(_path: str) -> ContainerNames:
    return ContainerNames()


class LogKills(Sequence[OomReport]):
    """One report for each decision in a log, numbered from 1, which is made when it is read.

    So a log of many kills takes no more memory for its reports, and only kills that are looked at take time.
    A log has no names of containers and pods: `named` returns them for the path of a cgroup. A decision that
    a bug keeps from being explained has a report that says so, and the bug is added to `defects`. `places`:
    the places in `logs` of the decisions; None for all.
    """

    def __init__(
        self,
        logs: Sequence[LogReport],
        named: Named = _unnamed,
        defects: Defects | None = None,
        *,
        depth: Depth = "all",
        places: Sequence[int] | None = None,
    ) -> None:
        self._logs = logs
        self._named = named
        self._defects = Defects() if defects is None else defects
        self._depth: Depth = depth
        self._places = range(len(logs)) if places is None else places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[OomReport]:
        chosen = iter(self._places)
        at = next(chosen, None)
        for number, log, before in _with_previous(self._logs, is_asked=self._depth == "all"):
            if at is None:
                return
            if number == at + 1:
                yield self._report(number, log, before, self._depth)
                at = next(chosen, None)

    @overload
    def __getitem__(self, at: int) -> OomReport: ...
    @overload
    def __getitem__(self, at: slice) -> list[OomReport]: ...
    def __getitem__(self, at: int | slice) -> OomReport | list[OomReport]:
        if isinstance(at, slice):
            return [self._at(place, self._depth) for place in self._places[at]]
        return self._at(self._places[at], self._depth)

    def explained(self, number: int) -> OomReport:
        """Return everything about the decision with this number."""
        return self._at(number - 1, "all")

    def numbers(self) -> list[int]:
        """Return the numbers of the decisions."""
        return [place + 1 for place in self._places]

    def to_depth(self, depth: Depth) -> LogKills:
        """Return the same decisions, explained as far as `depth` says."""
        return LogKills(self._logs, self._named, self._defects, depth=depth, places=self._places)

    def only(self, positions: Iterable[int]) -> LogKills:
        """Return some of the decisions, by their positions among these."""
        places = array("L", (self._places[at] for at in positions))
        return LogKills(self._logs, self._named, self._defects, depth=self._depth, places=places)

    def _at(self, place: int, depth: Depth) -> OomReport:
        log = self._logs[place]
        before = _previous(self._logs, place) if depth == "all" else None
        return self._report(place + 1, log, before, depth)

    def _report(self, number: int, log: LogReport, before: PreviousKill | None, depth: Depth) -> OomReport:
        named, defects = self._named, self._defects
        return report(number, log, named=named, defects=defects, previous=before, depth=depth)


def explain(
    logs: Iterable[LogReport],
    named: Named = _unnamed,
    defects: Defects | None = None,
) -> Iterator[OomReport]:
    """Yield everything about each decision in a log (`LogKills`)."""
    yield from LogKills(list(logs), named, defects)


class _Earlier(NamedTuple):
    """A decision with a kill: its number and time, and the first victim."""

    number: int
    since_boot_ns: int | None
    pid: int | None
    comm: str


def _earlier(number: int, log: LogReport) -> _Earlier:
    victim = log.kills[0]
    return _Earlier(number, log.stamp.since_boot_ns, victim.pid, victim.comm)


def _with_previous(
    logs: Iterable[LogReport], *, is_asked: bool
) -> Iterator[tuple[int, LogReport, PreviousKill | None]]:
    """Yield each decision with its number and the last kill for the same limit, which is None if it is not
    asked for."""
    last: dict[str, _Earlier] = {}
    for number, log in enumerate(logs, start=1):
        previous = last.get(log.oom_memcg or "")
        yield number, log, None if previous is None else _before(log, previous)
        if is_asked and log.oom_memcg is not None and log.kills:
            last[log.oom_memcg] = _earlier(number, log)


def _previous(logs: Sequence[LogReport], place: int) -> PreviousKill | None:
    """Return the last kill before this one for the same limit; None if there is none."""
    log = logs[place]
    for at in reversed(range(place if log.oom_memcg is not None else 0)):
        other = logs[at]
        if other.kills and other.oom_memcg == log.oom_memcg:
            return _before(log, _earlier(at + 1, other))
    return None


def missed(trace: TraceTables, kills: Iterable[LogKill]) -> Iterator[OomReport]:
    """Yield a report for each of the kills that only the kernel log of a trace has
    (`TraceTables.missed`), with the clock and the names of the trace."""
    ended = trace.meta["ended"]
    ended_ns = math.inf if ended is None else pd.Timestamp(ended).as_unit("ns").value
    for kill in kills:
        why = sentence_parts.AFTER_THE_END if kill.time_ns > ended_ns else sentence_parts.MISSED
        named, size = _named_in(trace, kill), page_size(trace)
        found = report(kill.kill_id, kill.report, named=named, defects=trace.defects, page_size=size)
        known, owner = {"time"}, found.limit_owner
        if kill.owner_id != NO_ID:
            life = trace.places.lives.life_for(kill.owner_id)
            owner = replace(owner, cgroup_id=kill.owner_id, run=life.run, runs=life.runs)
            known |= {*OF_LIVES}
        quality = replace(
            found.quality,
            lost_records=trace.losses.affecting_sizes_near(kill.time_ns, kill.time_ns),
            probes=dict(trace.meta["probes"]),
            unknown={field: why for field, why in found.quality.unknown.items() if field not in known},
            disagreements=(why, *found.quality.disagreements),
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


def _before(log: LogReport, previous: _Earlier) -> PreviousKill | None:
    """Return the kill before this one, for the same limit; None if the log does not show the time between
    them."""
    now, then = log.stamp.since_boot_ns, previous.since_boot_ns
    if now is None or then is None or now < then:
        return None
    return PreviousKill(previous.number, previous.pid, previous.comm, now - then)


def report(
    number: int,
    log: LogReport,
    *,
    named: Named,
    defects: Defects,
    page_size: int | None = None,
    previous: PreviousKill | None = None,
    depth: Depth = "all",
) -> OomReport:
    """Return the report of one decision; `page_size` is given if another source than the log has it.

    `previous`: the last kill for the same limit.
    """
    facts = LoggedFacts(number, log, named, page_size or logged_kill.page_size(log), previous)
    return explained(defects, number, lambda: DEPTHS[depth](facts), lambda: facts.outline)


class LoggedFacts:
    """The facts of one decision in a kernel log (`kill_report.Kill`)."""

    def __init__(
        self, number: int, log: LogReport, named: Named, page_size: int | None, previous: PreviousKill | None
    ) -> None:
        self._number, self._log, self._named, self._previous = number, log, named, previous
        self._known_size, self._page_size = page_size, page_size or logged_kill.DEFAULT_PAGE_SIZE

    @cached_property
    def outline(self) -> OomReport:
        """Return what the lines of a report say themselves."""
        log = self._log
        return OomReport(
            kill_id=self._number,
            time=None,
            constraint=log.constraint,
            limit_owner=logged_kill.outlined_owner(log),
            victims=tuple(Victim(kill.pid, kill.comm, group_kill=len(log.kills) > 1) for kill in log.kills),
            quality=Quality(log.dropped, "only", {}, dict.fromkeys(_NOT_IN_LOG, LOG_ALONE)),
            kernel_log=self._place(),
        )

    def parties(self, judged: Verdict = NO_VERDICT) -> OomReport:
        """Return the time, the limit owner, and the victims with their sizes."""
        time, owner, victims, _ = self._parties
        return OomReport(
            kill_id=self._number,
            time=time,
            constraint=self._log.constraint,
            limit_owner=owner,
            victims=victims,
            verdict=judged,
            quality=_NOT_ASKED,
            kernel_log=self._place(),
        )

    def _place(self) -> KernelLogPlace:
        log = self._log
        return KernelLogPlace(
            first_line=log.stamp.line,
            last_line=log.last_line,
            since_boot_ns=log.stamp.since_boot_ns,
            wall=log.stamp.wall,
            page_size=self._known_size,
            missing=log.missing,
            suppressed=log.suppressed,
            panicked=log.is_panic,
            may_be_confined=log.may_be_confined,
        )

    @cached_property
    def _parties(self) -> tuple[pd.Timestamp | None, LimitOwner, tuple[Victim, ...], Unknown]:
        """Return the time, the limit owner, the victims, and reasons for unknown values of these."""
        unknown: Unknown = {}
        victims = tuple(logged_kill.victims(self._log, self._page_size, unknown))
        time = logged_kill.kill_time(self._log.stamp, unknown)
        return time, logged_kill.limit_owner(self._log, unknown, self._named), victims, unknown

    def picked(self) -> Verdict:
        """Return the cause and its confidence."""
        if _is_line_alone(self._log):
            return _verdict_on_a_line(self._log.constraint)
        return verdict.pick(self.weighed({}).findings)

    def weighed(self, unknown: Unknown) -> Weighed:
        """Read the memory of the limit owner, and the parties."""
        log, page_size = self._log, self._page_size
        if self._known_size is None:
            unknown["kernel_log.page_size"] = (
                f"the kernel log does not show it; assumed to be {page_size} bytes"
            )
        held = composition.memory(_at_kill(log), partial(_cushion, log), unknown)
        time, owner, victims, of_parties = self._parties
        unknown |= of_parties
        findings = Findings(
            time=time,
            constraint=log.constraint,
            owner=owner,
            trigger=logged_kill.trigger(log, unknown),
            victims=victims,
            victim_tgids=frozenset(victim.pid for victim in victims if victim.pid is not None),
            composition=held.made_of,
            cushion=held.cushion,
            page_size=page_size,
            circumstances=_circumstances(log, held, page_size),
            is_told=True,
            kmsg="only",
            previous=self._previous,
        )
        return Weighed(findings, held)

    def measured(self, weighed: Weighed, unknown: Unknown) -> tuple[Findings, Selection]:
        """Return the findings, and the selection of the victim from the table of tasks."""
        total = victim_selection.logged_total_pages(self._log, self._page_size)
        return weighed.findings, victim_selection.from_log(self._log, total, self._page_size, unknown)

    def sizing(self, _findings: Findings, _unknown: Unknown) -> Sizing:
        """Return no range of limits: the outline has the reason."""
        return Sizing()

    def quality(self, _findings: Findings, _selection: Selection, unknown: Unknown) -> Quality:
        """Return the quality of the log's report."""
        return replace(self.outline.quality, unknown=unknown)

    def judge(self, findings: Findings) -> Verdict:
        """Return the verdict; if the log has the kill but not its report, the summary is reduced to that."""
        log, judged = self._log, verdict.judge(findings)
        has_end = log.kills or log.chosen or log.group_memcg or findings.circumstances.no_victim
        if _is_part(log) and not has_end:
            return replace(judged, summary=sentence_parts.summary_of_a_part(findings))
        if "header" not in log.missing or log.counters or log.mem_info is not None or not has_end:
            return judged
        summary = sentence_parts.summary_of_a_line(
            findings,
            shortage.nodes_of(log),
            has_owner=log.oom_memcg is not None or log.container is not None,
            is_alone=_is_line_alone(log),
        )
        return replace(judged, summary=summary)

    def grown(self, _kinds: Sequence[str]) -> Grown:
        """Return that a log does not show the code."""
        return Grown(why_unknown=LOG_ALONE)


def _is_line_alone(log: LogReport) -> bool:
    """Return whether the log has only the line about a kill: the kernel limits the rate of whole reports
    (oom_kill_process, mm/oom_kill.c)."""
    has_memory = log.counters or log.stats or log.tasks or log.mem_info or log.min_protection_bytes
    has_names = log.oom_memcg or log.task_memcg or log.chosen or log.nodemask or log.mems_allowed
    has_no_kill = log.is_no_task_killable or log.is_panic_on_oom or log.is_panic or not log.kills
    return not (has_memory or has_names or has_no_kill or log.stack) and log.invoker == NOBODY


def _is_part(log: LogReport) -> bool:
    """Return whether the log has only the table of tasks, or the state of the machine, of a report."""
    has_begin = log.invoker != NOBODY or log.stack or log.constraint != "unknown"
    has_owner = log.oom_memcg or log.task_memcg or log.counters or log.stats
    return bool(log.tasks or log.mem_info is not None) and not (has_begin or has_owner)


@cache
def _verdict_on_a_line(constraint: str) -> Verdict:
    """Return the verdict on a kill of which the log has one line: no cause rests on the name and the size of
    a victim, so it is the same for all of them."""
    log = LogReport(Stamp(0), 0, constraint=constraint)
    return verdict.pick(LoggedFacts(0, log, _unnamed, None, None).weighed({}).findings)


def _circumstances(log: LogReport, held: Memory, page_size: int) -> Circumstances:
    in_swap = logged_kill.swap(log)
    return replace(
        shortage.circumstances(log, page_size),
        swap=None if in_swap is None else Swap(*in_swap, refused=False),
        protected_bytes=log.min_protection_bytes or 0,
        full_swap_limit_bytes=logged_kill.full_swap_limit(log),
        group=log.group_memcg,
        kills_asker=victim_selection.is_of_asker(log),
        **held.circumstances(),
    )


def _at_kill(log: LogReport) -> Instant:
    """Return the counters that the log has of the limit owner."""
    memory, absent, unknown = log.counters.get("memory"), logged_kill.why_not(log), {}
    if log.constraint not in ("memcg", "unknown"):
        unknown = dict.fromkeys(("composition", "working_set_bytes"), logged_kill.NO_LIMIT)
    elif memory is None and not log.stats:
        unknown = {"composition": logged_kill.NO_COUNTERS}
    usage_bytes = None if memory is None else memory.usage_bytes
    return Instant(logged_kill.sizes(log), usage_bytes, absent, unknown)


def _cushion(log: LogReport, *, cache_end_bytes: int | None, unknown: Unknown, **_: int) -> Cushion:
    """Return the level of the page cache: a log does not show the time before."""
    if cache_end_bytes is None:
        unknown["cushion.cache_end_bytes"] = logged_kill.why_not(log)("file")
    return Cushion(cache_end_bytes=cache_end_bytes)
