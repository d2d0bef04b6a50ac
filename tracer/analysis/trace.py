"""A trace with its analyses as methods. `tracer.open` returns one that can draw as well.

A method imports the analysis that it calls: a question must not load the answers to all others.
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
from tracer.schema import TABLES
from tracer.trace.read.reader import Trace
from tracer.units import count

if TYPE_CHECKING:
    from tracer.analysis.core.evicted import Evicted, Refaulted
    from tracer.analysis.core.gaps import Looks, Losses, SummedIntervals
    from tracer.analysis.core.lookups import Functions, Logged, LogKill
    from tracer.analysis.core.page_cache import CacheEvents, PageMoves
    from tracer.analysis.core.rows import Charges
    from tracer.analysis.explain.postmortem import PostMortems
    from tracer.analysis.results import forms
    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.results.sigkill import Sigkill
    from tracer.analysis.results.survivor import Held
    from tracer.analysis.views.code_samples import Charged


class AnalysedTrace(Trace):
    """A trace: its tables as pandas DataFrames, and what follows from them."""

    def timeline(
        self,
        cgroup: str | int | None = None,
        every: str = "100ms",
        begin: str | float | None = None,
        end: str | float | None = None,
        *,
        run: int | None = None,
    ) -> pd.DataFrame:
        """Return the memory of cgroups over time: a row for each cgroup and interval of `every`, indexed by
        `time` (UTC), and a column for each quantity, most in bytes.

            t.timeline("web", every="1s")[["usage_bytes", "anon_bytes", "cache_bytes"]].plot()

        `read_again_bytes` is the page cache that had been evicted and was read again. The columns, `begin`,
        `end` and `run`: `help("tracer.analysis.views.timeline.timeline")`.
        """
        from tracer.analysis.views.timeline import timeline

        return timeline(self, cgroup, every, begin, end, run=run)

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
        """Return the page cache that was evicted and read again: a row for each piece, with its evictor and
        the process that read it again.

            t.with_names(t.refaults).groupby("file", observed=True)["bytes"].sum()

        `help("tracer.analysis.views.refaults.refaults")` has the columns.
        """
        from tracer.analysis.views import refaults

        return refaults.refaults(self)

    @cached_property
    def refaulted(self) -> Refaulted:
        """Return the refaults of cgroups, in order of time: `tracer.analysis.core.evicted.Refaulted`."""
        from tracer.analysis.views import refaults

        return refaults.refaulted(self)

    def miss_curve(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return how much of the page cache that was read again more memory would have kept: a row for each
        cgroup and step of memory.

            t.miss_curve("web").set_index("extra_bytes")["spared_share"]

        `help("tracer.analysis.views.miss_curve.miss_curve")` has the columns.
        """
        from tracer.analysis.views import miss_curve

        return miss_curve.miss_curve(self, cgroup)

    @cached_property
    def waits(self) -> pd.DataFrame:
        """Return the times in which threads waited for memory: a row for each wait.

            t.waits.groupby("kind", observed=True)["duration_ns"].sum()

        `help("tracer.analysis.views.stalls.waits")` has the columns.
        """
        from tracer.analysis.views import stalls

        return stalls.waits(self)

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
        `tracer.analysis.core.lookups.logged`."""
        from tracer.analysis.core import lookups

        return self.defects.attempt(
            "the kernel log of the trace", lambda: lookups.logged(self.kernel_log), lambda _: []
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

    def waits_by_process(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return how long each process waited for memory: a row for each process, a column in ms for each
        kind of wait (NaN: not recorded).

            t.waits_by_process().nlargest(5, "stalled_ms")

        `help("tracer.analysis.views.stalls.by_process")` has the columns.
        """
        from tracer.analysis.views import stalls

        return stalls.by_process(self, cgroup)

    def evictions(self, by: str = "file", cgroup: str | int | None = None) -> pd.DataFrame:
        """Return what was added to the page cache, evicted and read again: a row for each `file`, `cgroup`
        (owner and actor), `cause` or `process`, the most evicted first, and columns in bytes.

            t.evictions(by="file").nlargest(3, "read_again_bytes")[["path", "read_again_bytes"]]

        `help("tracer.analysis.views.evictions.evictions")` has the columns.
        """
        from tracer.analysis.views.evictions import evictions

        return evictions(self, by, cgroup)

    def lost_time(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return the time that tasks lost to reclaim, reading again, swap and memory.high, and their work: a
        row for each cgroup and second.

            t.lost_time("web")["reread_ms"].resample("10s").sum()

        `help("tracer.analysis.views.lost_time.lost_time")` has the columns.
        """
        from tracer.analysis.views import lost_time

        return lost_time.lost_time(self, cgroup)

    def thrash(self) -> pd.DataFrame:
        """Return the intervals in which page cache was evicted and soon read again: a row for each cgroup and
        interval.

            t.with_names(t.thrash())[["cgroup", "begin", "end", "evicted_bytes"]]

        `help("tracer.analysis.views.thrash.thrash")` has the columns.
        """
        from tracer.analysis.views import thrash

        return thrash.thrash(self)

    def explain(self, cgroup: str | int | None = None, *, is_sized: bool = True) -> list[OomReport]:
        """Return the post-mortem of each OOM kill, by time: a list, empty if nothing was killed.

            [(report.time, report.verdict.cause) for report in t.explain("web")]

        `cgroup`: only kills that concern it (`tracer.analysis.explain.kill_filter.recorded_kills_of`).
        Without `is_sized`, the sizing is null, which saves time.
        """
        from tracer.analysis.explain import kill_filter, postmortem

        return kill_filter.recorded_kills_of(self, postmortem.explain(self, is_sized=is_sized), cgroup)

    def judged(self, cgroup: str | int | None = None) -> tuple[list[OomReport], PostMortems]:
        """Return the kills of `explain` with their parties, cause and confidence alone, which a list shows,
        and what explains one of them."""
        from tracer.analysis.explain import kill_filter
        from tracer.analysis.explain.postmortem import PostMortems

        found = PostMortems(self)
        return kill_filter.recorded_kills_of(self, found.judged(), cgroup), found

    def outlined(self, cgroup: str | int | None = None) -> tuple[list[OomReport], PostMortems]:
        """Return the kills of `explain` with their parties alone, and what explains one of them: with many
        kills, that takes a small part of the time of `explain`."""
        from tracer.analysis.explain import kill_filter
        from tracer.analysis.explain.postmortem import PostMortems

        found = PostMortems(self)
        return kill_filter.recorded_kills_of(self, found.outlines(), cgroup), found

    def kills(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return the kills as a row for each victim, indexed by `time` (UTC).

            t.kills()[["container", "victim", "cause", "limit_reached_at", "limit_to_kill_ms"]]

        `help("tracer.analysis.results.report_frames.kills")` has the columns.
        """
        from tracer.analysis.results import report_frames

        return report_frames.kills(self.explain(cgroup))

    def code(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return the code that made memory grow, a row for each function.

            t.code()[["kill_id", "share", "function", "file", "line"]]

        `help("tracer.analysis.results.report_frames.code")` has the columns.
        """
        from tracer.analysis.results import report_frames

        reports = self.explain(cgroup)
        return report_frames.code(reports, self.spared_cgroups(reports, cgroup))

    def kill_window(self, kill_id: int) -> pd.DataFrame:
        """Return the memory of the limit owner when the window before a kill begins, and at the kill, with
        the flows of page cache between: two rows.

            t.kill_window(1)[["usage_bytes", "anon_bytes", "cache_bytes"]].diff()

        `help("tracer.analysis.explain.kill_window.kill_window")` has the columns. Raises UsageError if there
        is no such kill.
        """
        from tracer.analysis.explain import kill_window, postmortem

        reports = {report.kill_id: report for report in postmortem.PostMortems(self).measured()}
        if kill_id not in reports:
            raise postmortem.no_such_kill(kill_id, sorted(reports))
        return kill_window.kill_window(self, reports[kill_id])

    def whatif(
        self, limits: Sequence[int] = (), cgroup: str | int | None = None, swap_bytes: int | None = None
    ) -> pd.DataFrame:
        """Return the outcome of the recorded run at other limits: a row for each limit, by limit.

            t.whatif([300 << 20, 512 << 20])[["outcome", "why", "read_again_high_bytes"]]

        The index is `limit_bytes`. `outcome` is "survives", "killed", "thrashes" or "unknown", and `why` its
        reason. `read_again_low_bytes` and `read_again_high_bytes`: the page cache that would be read again;
        `lost_share_low` and `lost_share_high`: the share of its tasks' time that would be lost; NA: not
        known. Without `limits`, some are chosen. `cgroup` and `swap_bytes`:
        `help("tracer.analysis.whatif.outcomes.what_if")`.
        """
        from tracer.analysis.results import report_frames
        from tracer.analysis.whatif.outcomes import what_if

        return report_frames.outcomes(what_if(self, limits, cgroup, swap_bytes))

    def held_cgroups(self, cgroup: str | int | None = None) -> list[Held]:
        """Return how near each cgroup came to its limit, and what reclaim gave back.

        `cgroup`: only cgroups that fit this pattern.
        """
        from tracer.analysis.explain.survivors import held_cgroups

        return held_cgroups(self, cgroup)

    def sigkilled(self, cgroup: str | int | None = None) -> list[Sigkill]:
        """Return the SIGKILLs that ended processes and were not the OOM killer's, by time: a list.

            [(kill.target.comm, kill.sender and kill.sender.comm, kill.way) for kill in t.sigkilled()]

        `help("tracer.analysis.results.sigkill.Sigkill")` has the fields.
        """
        from tracer.analysis.views.sigkills import sigkills

        return sigkills(self, cgroup)

    def spared_cgroups(self, reports: Sequence[OomReport], cgroup: str | int | None = None) -> list[Held]:
        """Return the `held_cgroups` without the cgroups that have a kill in `reports`."""
        from tracer.analysis.explain import kill_filter
        from tracer.analysis.explain.survivors import held_cgroups

        killed = kill_filter.with_kills(self, reports)
        return held_cgroups(self, cgroup, without=killed, reports=reports)

    def held(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return the cgroups that lived: a row for each, with how near it came to its limit, and what reclaim
        gave back.

            t.held().sort_values("headroom_bytes")[["cgroup", "limit_bytes", "peak_usage_bytes"]]

        `help("tracer.analysis.results.report_frames.held")` has the columns.
        """
        from tracer.analysis.results import report_frames

        return report_frames.held(self.held_cgroups(cgroup))

    def __repr__(self) -> str:
        from tracer.analysis.results import forms

        return forms.as_text(*self._shown())

    def _repr_html_(self) -> str:
        from tracer.analysis.results import forms

        return forms.as_html(*self._shown())

    def _shown(self) -> tuple[str, forms.Facts]:
        """Return a title, and (label, text) for each line; tables of events are counted, not read."""
        from tracer.analysis.results import forms

        meta = self.meta
        rows = {name: self.rows(name) for name in TABLES}
        machine = f"on {meta['host_name']}, kernel {meta['kernel_release']}, cgroup v{meta['cgroup_version']}"
        facts = [
            ("recorded", f"{meta['started']} to {meta['ended'] or 'an interruption'}, {machine}"),
            ("command", " ".join(meta["command_line"])[:200]),
            ("rows", ", ".join(f"{name} {number:,}" for name, number in rows.items() if number)),
            ("lost records", count(None if meta["lost"] is None else sum(meta["lost"].values()))),
            (
                "next",
                "t.explain(), t.kills(), t.held(), t.timeline(), t.evictions(), t.plot; help(t) says more",
            ),
        ]
        return forms.printable(f"memcg-tracer trace {self.path}", facts)

    def charged_stacks(self, cgroup: str | int | None = None, kill_id: int | None = None) -> list[Charged]:
        """Return the samples of `record --stacks`, summed up by process name and functions: a list, the most
        memory first.

            [(row.comm, row.user[-1:], row.weight_bytes) for row in t.charged_stacks(kill_id=1)]

        `help("tracer.analysis.views.code_samples.Charged")` has the fields. `cgroup`: only what was charged
        to it or to a cgroup below it. `kill_id`: only what counts for the allocators of that kill. Raises
        TracerError for a trace without samples (`record --stacks off`).
        """
        from tracer.analysis.views import code_samples

        return code_samples.charged(self, self.samples_of_code(cgroup, kill_id))

    def samples_of_code(self, cgroup: str | int | None = None, kill_id: int | None = None) -> pd.DataFrame:
        """Return the rows of `t.code_samples` that `charged_stacks` sums up; it has the arguments and the
        errors."""
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
        return code_samples.samples_within(self.code_samples, members, begin, end)

    def with_names(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a table with the names of its ids as further columns: `cgroup` and `container` (in
        `reclaim`: `target_cgroup` and `target_container`), `task_cgroup`, `comm`, `file`.

            t.with_names(t.charge).groupby("comm", observed=True)["bytes"].sum()
        """
        from tracer.analysis.core.naming import with_names

        return with_names(self, frame)
