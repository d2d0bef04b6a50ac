"""The post-mortem from a trace: a report for each decision of the OOM killer.

What explains a kill is imported for it: a picture shows only the memory of its kills.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tracer.analysis.core.columns import Int64s, integers
from tracer.analysis.core.lookups import LogKill
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.explain import outline
from tracer.analysis.explain.measure.recorded_kill import RecordedKill, RecordedKills
from tracer.analysis.kernel_log import comparison
from tracer.analysis.kernel_log.comparison import Told
from tracer.analysis.results.kill import OomReport
from tracer.errors import UsageError

if TYPE_CHECKING:
    from tracer.analysis.explain.recorded_facts import RecordedDepth
    from tracer.analysis.explain.sizing.demand import Demand

_Explain: TypeAlias = Callable[[TraceTables, RecordedKill, Told], OomReport]


def explain(trace: TraceTables, *, is_sized: bool = True) -> list[OomReport]:
    """Return one report for each kill, in order of time; an empty list if nothing was killed.

    Without `is_sized`, the sizing is null, which saves looking for refaults. A kill that a bug keeps from
    being explained has a report that says so (`trace.defects`).
    Kills that only the trace's kernel log has are included. The definitions of the numbers are in
    `analysis.explain.measure.composition` (the classes of memory), `analysis.explain.measure.window` (the
    time before the kill, and the reclaimed cache), `analysis.explain.verdict` (the cause),
    `analysis.kernel_log.comparison` (the additions from the log) and `analysis.explain.logged_kills`
    (kills that the probe missed).
    """
    return PostMortems(trace).all(is_sized=is_sized)


class PostMortems:
    """The kills of a trace, of which a caller may want to have only one explained."""

    def __init__(self, trace: TraceTables) -> None:
        self._trace = trace
        missed: list[LogKill] = trace.defects.attempt(
            "the kernel log of the trace", lambda: trace.missed, lambda _: []
        )
        self._only_logged = _from_the_log(trace, missed)
        completed = trace.defects.attempt(
            "the kernel log of the trace",
            partial(comparison.complete, trace),
            partial(comparison.without, trace),
        )
        self._completed, self._kills = completed, RecordedKills(trace, completed)
        self._sized: dict[int, OomReport] = {}
        self._needs: dict[int, Demand] = {}

    def all(self, *, is_sized: bool = True) -> list[OomReport]:
        """Return what `explain` returns."""
        reports = self._each(_to("all" if is_sized else "all but the range"), self._completed.told)
        return self._with_ranges_of_runs(reports, self._kills.numbers) if is_sized else reports

    def measured(self) -> list[OomReport]:
        """Return the reports of `outlines` with the memory of the limit owner, without refaults: what a
        picture shows."""
        return self._each(outline.with_memory, self._completed.added)

    def listed(self) -> list[OomReport]:
        """Return the reports of `outlines` with the limit owner, the cause and its confidence: what a list
        shows of a kill."""
        return self._each(_to("causes"), self._completed.added)

    def judged(self, whole: Collection[int] = ()) -> list[OomReport]:
        """Return the reports of `listed` with the memory of the limit owner: what a list and a chart show of
        a kill. The kills with the numbers in `whole` have whole reports."""
        everything, a_part = _to("all"), _to("causes and memory")

        def explain(trace: TraceTables, kill: RecordedKill, told: Told) -> OomReport:
            return (everything if kill.kill_id in whole else a_part)(trace, kill, told)

        def tell(kill_id: int) -> Told:
            return self._completed.told(kill_id) if kill_id in whole else self._completed.added(kill_id)

        return self._with_ranges_of_runs(self._each(explain, tell), whole)

    def summarized(self) -> list[OomReport]:
        """Return the reports of `outlines` with the limit owner and its memory, the trigger, the number of
        attempts, the verdict without evidence, the code that grew and the range of limits: what a row of each
        kill has."""
        reports = self._each(_to("row"), self._completed.added)
        return self._with_ranges_of_runs(reports, self._kills.numbers)

    def outlines(self) -> list[OomReport]:
        """Return the reports of `explain` with number, time, limit owner and victims alone: the rest takes
        most of the time."""
        return self._by_time(
            outline.unexplained(self._outline(kill_id), outline.NOT_ASKED)
            for kill_id in self._completed.kill_ids
        )

    def one(self, kill_id: int) -> OomReport:
        """Return the whole report of a kill, by its number."""
        if kill_id not in self._kills.numbers:
            return next(report for report in self._only_logged if report.kill_id == kill_id)
        report = self._explained(
            kill_id, partial(self._kills.kill_at, kill_id), _to("all"), self._completed.told
        )
        (found,) = self._with_ranges_of_runs([report], [kill_id])
        return found

    def sized(self, kill_id: int) -> OomReport:
        """Return the report of `outlines` with the limit owner and the kill's own range of limits."""
        if kill_id not in self._kills.numbers:
            return self.one(kill_id)
        if kill_id not in self._sized:
            find = partial(self._kills.kill_at, kill_id)
            self._sized[kill_id] = self._explained(kill_id, find, _to("range"), self._completed.added)
        return self._sized[kill_id]

    def _with_ranges_of_runs(self, reports: Sequence[OomReport], whole: Collection[int]) -> list[OomReport]:
        """Return the reports, those of the kills in `whole` with the ranges of limits of their runs."""
        self._sized |= {report.kill_id: report for report in reports if report.kill_id in whole}
        return [self._with_range_of_run(report) if report.kill_id in whole else report for report in reports]

    def _with_range_of_run(self, report: OomReport) -> OomReport:
        """Return a report with the range for all kills for the same limit, which is the answer of `whatif`.

        The range of a later kill alone is too low for the run: the kills before it freed memory.
        """
        owner_id = report.limit_owner.cgroup_id
        kills = () if owner_id is None else self._kills.by_owner.get(owner_id, ())
        is_sized = report.sizing.min_limit_bytes is not None and report.limit_owner.lowered is None
        if owner_id is None or len(kills) < 2 or not is_sized:
            return report
        # a picture shows no conclusions
        from tracer.analysis.explain import kill_report  # noqa: PLC0415
        from tracer.analysis.explain.sizing import demand  # noqa: PLC0415

        if owner_id not in self._needs:
            known_by = [self.sized(kill_id) for kill_id in kills[: demand.MOST_KILLS]]
            self._needs[owner_id] = demand.of_kills(self._kills.subtree_of(owner_id), known_by)
        return kill_report.with_range_of_run(report, self._needs[owner_id], len(kills))

    def _by_time(self, recorded: Iterable[OomReport]) -> list[OomReport]:
        return sorted([*recorded, *self._only_logged], key=attrgetter("time"))

    def _each(self, explain: _Explain, tell: Callable[[int], Told]) -> list[OomReport]:
        reports = {kill_id: self._explained(kill_id, find, explain, tell) for kill_id, find in self._kills}
        return self._by_time(reports[kill_id] for kill_id in self._completed.kill_ids)

    def _explained(
        self,
        kill_id: int,
        find: Callable[[], RecordedKill],
        explain: _Explain,
        tell: Callable[[int], Told],
    ) -> OomReport:
        return outline.explained(
            self._trace.defects,
            kill_id,
            lambda: explain(self._trace, find(), tell(kill_id)),
            lambda: self._outline(kill_id),
        )

    def _outline(self, kill_id: int) -> OomReport:
        return outline.from_trace(self._trace, *self._kills.rows_for(kill_id), self._completed.state(kill_id))


def allocated_before(trace: TraceTables, kill_id: int) -> tuple[Int64s | None, int, int]:
    """Return where and when the allocators of a kill were charged: (cgroup ids, begin, end in nanoseconds).

    The ids are None if all cgroups count. UsageError if there is no such kill, or only the kernel log has it.
    """
    numbers = np.unique(integers(trace.oom["kill_id"])).tolist()
    if kill_id in {kill.kill_id for kill in trace.missed}:
        raise UsageError(f"kill {kill_id} is known from the kernel log alone: see memcg-tracer explain")
    if kill_id not in numbers:
        raise no_such_kill(kill_id, numbers)
    kill = RecordedKills(trace, comparison.complete(trace)).kill_at(kill_id)
    return None if kill.owner_id is None else kill.subtree.members, kill.window.begin, kill.time_ns


def no_such_kill(kill_id: int, numbers: Sequence[int], place: str = "this trace") -> UsageError:
    """Return the error for a number that is not among `numbers`, which are in ascending order."""
    there = "no kill at all" if not numbers else f"kill {numbers[0]}"
    there += f" to {numbers[-1]}" if len(numbers) > 1 else ""
    return UsageError(f"there is no kill {kill_id} in {place}: it holds {there}")


def _to(depth: RecordedDepth) -> _Explain:
    """Return what explains a kill to this depth."""
    from tracer.analysis.explain import recorded_facts  # noqa: PLC0415  a picture shows no conclusions

    explain = recorded_facts.DEPTHS[depth]
    return lambda trace, kill, told: explain(recorded_facts.RecordedFacts(trace, kill, told))


def _from_the_log(trace: TraceTables, missed: Sequence[LogKill]) -> list[OomReport]:
    """Return a report for each kill that only the kernel log of the trace has."""
    if not missed:
        return []
    from tracer.analysis.explain import logged_kills  # noqa: PLC0415  most traces have all kills

    return list(logged_kills.missed(trace, missed))
