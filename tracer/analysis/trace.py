"""A trace with what several analyses derive from its tables: look-ups, sums, kills and cgroups that lived.

The analyses, verbs and renderers read this class. A user of `tracer.open` sees `render.plot.opened_trace`
instead. A method imports the analysis that it calls: a question must not load the answers to all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import times_ns
from tracer.analysis.core.gaps import Fineness
from tracer.analysis.core.lives import Places
from tracer.analysis.core.lookups import Processes
from tracer.errors import Defects, TracerError
from tracer.trace.read.reader import Trace

if TYPE_CHECKING:
    from tracer.analysis.core.evicted import Evicted, Refaulted
    from tracer.analysis.core.gaps import Looks, Losses, SummedIntervals
    from tracer.analysis.core.lookups import Functions, Logged, LogKill
    from tracer.analysis.core.page_cache import CacheEvents, PageMoves
    from tracer.analysis.core.rows import Charges
    from tracer.analysis.explain.postmortem import PostMortems
    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.results.sigkill import Sigkill
    from tracer.analysis.results.survivor import Held


class AnalysedTrace(Trace):
    """A trace: its tables as pandas DataFrames, and what analyses share. Each part is computed once."""

    @cached_property
    def defects(self) -> Defects:
        """Return the bugs that cost a part of the answers so far: `tracer.errors.Defects`."""
        return Defects()

    @cached_property
    def charges(self) -> Charges:
        """Return the columns of `charge` that the analyses read: `tracer.analysis.core.rows.Charges`."""
        from tracer.analysis.core.rows import Charges

        return Charges.from_trace(self)

    @cached_property
    def evicted(self) -> Evicted:
        """Return the page cache that reclaim took from cgroups: `tracer.analysis.core.evicted.Evicted`."""
        from tracer.analysis.core.evicted import Evicted

        return Evicted.from_events(self.cache_events, self.tasks)

    @cached_property
    def span_ns(self) -> tuple[int, int]:
        """Return the first and the last moment: `tracer.analysis.core.tables.span_ns`."""
        from tracer.analysis.core import tables

        return tables.span_ns(self)

    @cached_property
    def cache_events(self) -> CacheEvents:
        """Return the events of the page cache in little memory: `tracer.analysis.core.page_cache`."""
        from tracer.analysis.core import page_cache

        return page_cache.from_trace(self, self.cgroups, self.processes)

    @cached_property
    def page_moves(self) -> PageMoves:
        """Return the refaults, and what stayed in the cache: `tracer.analysis.views.refaults.page_moves`."""
        from tracer.analysis.views import refaults

        return refaults.page_moves(self)

    @cached_property
    def refaults(self) -> pd.DataFrame:
        """Return the page cache that was read again: `tracer.analysis.views.refaults.refaults`."""
        from tracer.analysis.views import refaults

        return refaults.refaults(self)

    @cached_property
    def refaulted(self) -> Refaulted:
        """Return the refaults of cgroups, in order of time: `tracer.analysis.core.evicted.Refaulted`."""
        from tracer.analysis.views import refaults

        return refaults.refaulted(self)

    @cached_property
    def waits(self) -> pd.DataFrame:
        """Return the times in which threads waited for memory: `tracer.analysis.views.reclaim.waits`."""
        from tracer.analysis.views import reclaim

        return reclaim.waits(self)

    @cached_property
    def places(self) -> Places:
        """Return the look-up of cgroups: `tracer.analysis.core.lives.Places`."""
        return Places(self.cgroups)

    @cached_property
    def processes(self) -> Processes:
        """Return the look-up of processes: `tracer.analysis.core.lookups.Processes`."""
        clock = self.meta["clock"]
        return Processes(self.tasks, self.oom, clock["realtime_ns"] - clock["monotonic_ns"])

    @cached_property
    def losses(self) -> Losses:
        """Return the look-up of losses: `tracer.analysis.core.gaps.Losses`."""
        from tracer.analysis.core.gaps import Losses

        return Losses(self.loss)

    @cached_property
    def looks(self) -> Looks:
        """Return the look-up of samples: `tracer.analysis.core.gaps.Looks`."""
        from tracer.analysis.core.gaps import Looks

        if not self.fineness.is_thinned:
            return Looks.from_samples(self.samples)
        times = times_ns(self.samples)
        return Looks.from_samples(self.samples[self.fineness.every_ns(times) == 0], times)

    @cached_property
    def summed_intervals(self) -> SummedIntervals:
        """Return the look-up of intervals without detail:
        `tracer.analysis.core.gaps.SummedIntervals`."""
        from tracer.analysis.core.gaps import SummedIntervals

        return SummedIntervals(self.summed)

    @cached_property
    def fineness(self) -> Fineness:
        """Return the fineness of the rows over time: `tracer.analysis.core.gaps.Fineness`."""
        return Fineness(self.meta, times_ns(self.oom))

    @cached_property
    def logged(self) -> list[Logged]:
        """Return the reports of the OOM killer in the kernel log:
        `tracer.analysis.kernel_log.logged_reports.logged`."""
        from tracer.analysis.kernel_log import logged_reports

        return self.defects.attempt(
            "the kernel log of the trace", lambda: logged_reports.logged(self.kernel_log), lambda _: []
        )

    @cached_property
    def missed(self) -> list[LogKill]:
        """Return the kills that only the kernel log has: `tracer.analysis.kernel_log.decisions.missed`."""
        from tracer.analysis.kernel_log import decisions

        return decisions.missed(self)

    @cached_property
    def functions(self) -> Functions:
        """Return the look-up of stacks: `tracer.analysis.core.lookups.Functions`."""
        from tracer.analysis.core.lookups import Functions

        return Functions(self.stacks)

    def explain(self, cgroup: str | int | None = None, *, is_sized: bool = True) -> list[OomReport]:
        """Return the post-mortem of each OOM kill that concerns `cgroup`, by time.

        Without `is_sized`, the sizing is null, which saves time.
        """
        from tracer.analysis.explain import kill_filter, postmortem

        ids = kill_filter.chosen(self, cgroup)
        return kill_filter.recorded_kills_of(self, postmortem.explain(self, is_sized=is_sized), ids)

    def summarized(self) -> list[OomReport]:
        """Return the kills of `explain` with what a row of each has: no evidence and no advice, and nothing
        on single processes, files or attempts."""
        from tracer.analysis.explain.postmortem import PostMortems

        return PostMortems(self).summarized()

    def listed(self, cgroup: str | int | None = None) -> tuple[list[OomReport], PostMortems]:
        """Return the kills of `explain` with their parties, cause and confidence alone, which a list shows,
        and what explains one of them."""
        from tracer.analysis.explain import kill_filter
        from tracer.analysis.explain.postmortem import PostMortems

        ids, found = kill_filter.chosen(self, cgroup), PostMortems(self)
        return kill_filter.recorded_kills_of(self, found.listed(), ids), found

    def outlined(self, cgroup: str | int | None = None) -> tuple[list[OomReport], PostMortems]:
        """Return the kills of `explain` with their parties alone, and what explains one of them: with many
        kills, that takes a small part of the time of `explain`."""
        from tracer.analysis.explain import kill_filter
        from tracer.analysis.explain.postmortem import PostMortems

        ids, found = kill_filter.chosen(self, cgroup), PostMortems(self)
        return kill_filter.recorded_kills_of(self, found.outlines(), ids), found

    def held_cgroups(self, cgroup: str | int | None = None) -> list[Held]:
        """Return how near each cgroup came to its limit, and what reclaim gave back.

        `cgroup`: only cgroups that fit this pattern.
        """
        from tracer.analysis.explain.survivors import held_cgroups

        return held_cgroups(self, cgroup)

    def sigkilled(self, cgroup: str | int | None = None) -> list[Sigkill]:
        """Return the SIGKILLs that ended processes and were not the OOM killer's, by time."""
        if self.sigkills.empty:
            return []
        from tracer.analysis.views.sigkills import sigkills

        return sigkills(self, cgroup)

    def spared_cgroups(self, reports: Sequence[OomReport], cgroup: str | int | None = None) -> list[Held]:
        """Return the `held_cgroups` without the cgroups that have a kill in `reports`."""
        from tracer.analysis.explain import kill_filter
        from tracer.analysis.explain.survivors import held_cgroups

        killed = kill_filter.with_kills(self, reports)
        return held_cgroups(self, cgroup, without=killed, reports=reports)

    def samples_of_code(
        self,
        cgroup: str | int | None = None,
        kill_id: int | None = None,
        until: pd.Timestamp | None = None,
    ) -> pd.DataFrame:
        """Return the samples of code of a cgroup and the cgroups below it, or those that count for the
        allocators of a kill.

        Without a kill and `until` they are all; else those whose memory is still held then. Raises
        TracerError for a trace without samples (`record --stacks off`).
        """
        from tracer.analysis.core import naming
        from tracer.analysis.explain import postmortem
        from tracer.analysis.views import code_samples

        if not code_samples.were_asked_for(self):
            raise TracerError(
                f"{self.path} has no samples of the code that grew: it was recorded with --stacks off, or by "
                "an older version"
            )
        members, begin, end = (
            (None, None, None) if kill_id is None else postmortem.allocated_before(self, kill_id)
        )
        if cgroup is not None:
            below = naming.members_of(self, naming.select(self, cgroup))
            members = below if members is None else np.intersect1d(members, below)
        if until is not None:
            end = until.as_unit("ns").value
        if end is None:
            return code_samples.samples_within(self.code_samples, members, begin, end)
        return code_samples.held_within(self, members, begin, end)
