"""`t.plot`: the pictures of a trace as matplotlib Axes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from tracer.analysis.explain.kill_window import kill_window
from tracer.analysis.results.kill import OomReport
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views import focus
from tracer.analysis.views.evictions import evictions
from tracer.analysis.views.timeline import row_length
from tracer.analysis.whatif.outcomes import what_if
from tracer.errors import TracerError
from tracer.render.picture import kill_markers
from tracer.render.plot import cushion_area, eviction_bars, limit_curve, over_time, waterfall
from tracer.render.plot.axes_style import pictured
from tracer.render.plot.subject import Subject, chosen

_ROWS: Final = 240
_LIMITS: Final = 120
_BAR_HEIGHT: Final = 0.42


class Pictures:
    """The pictures of a trace. Each method draws on `ax`, or on new Axes, and returns the Axes.

    `cgroup` is a pattern as in `t.timeline`, which must fit only one name. `kill` is the number of a kill, as
    in `explain --kill`; the default is the newest kill that concerns the cgroup. `ax.figure.savefig(name)`
    writes a picture to a file.
    """

    def __init__(self, trace: AnalysedTrace) -> None:
        self._trace = trace

    @cached_property
    def _reports(self) -> list[OomReport]:
        return self._trace.explain(is_sized=False)

    def timeline(
        self,
        cgroup: str | int | None = None,
        every: str | None = None,
        begin: str | None = None,
        end: str | None = None,
        *,
        kill: int | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the composition of usage over time, against the limit: the levels of `t.timeline`.

        `every`, `begin` and `end` are as in `t.timeline`; the default is the life of the cgroup in at most
        240 rows. Second 0 is the kill, or the beginning of the trace if there was no kill. The levels at the
        kill are from `t.kill_window`.
        """
        subject = chosen(self._trace, self._reports, cgroup, kill)
        rows = focus.timeline_of_life(
            self._trace, subject.cgroup_id, _ROWS, every=every, begin=begin, end=end
        )
        if rows.empty:
            raise TracerError(f"{self._trace.path} has nothing of this cgroup in that time")
        markers = kill_markers(self._reports, self._trace.places.label_of(subject.cgroup_id), rows)
        held = over_time.levels(rows, self._at_kill(subject, rows), row_length(rows))
        with pictured(ax, 4.4) as axes:
            over_time.draw(axes, subject, held, markers)
        return axes

    def cushion(
        self, cgroup: str | int | None = None, *, kill: int | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw how all other memory replaced page cache before a kill, and when the page cache was used up:
        the levels of `t.timeline`, and the facts of `cushion` in the report.

        Raises TracerError if nothing was killed for the cgroup's limit.
        """
        subject, report = self._of_limit(cgroup, kill)
        window = kill_window(self._trace, report)
        begin, end = (time.isoformat() for time in window.index)
        rows = focus.timeline_of_life(self._trace, subject.cgroup_id, _ROWS, begin=begin, end=end)
        # The last row is left out, because it ends at the kill or after it.
        levels = over_time.levels(rows.iloc[:-1], window.iloc[1:], row_length(rows))
        held = pd.concat([window.iloc[:1][levels.columns.intersection(window.columns)], levels])
        with pictured(ax, 4.4) as axes:
            cushion_area.draw(axes, subject, report, held)
        return axes

    def waterfall(
        self, cgroup: str | int | None = None, *, kill: int | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw the composition of usage at the begin of the window before a kill, the changes, and the
        composition at the kill: `t.kill_window`. The changes add up exactly.

        Raises TracerError if nothing was killed for the cgroup's limit.
        """
        subject, report = self._of_limit(cgroup, kill)
        with pictured(ax, 4.8) as axes:
            waterfall.draw(axes, subject, kill_window(self._trace, report))
        return axes

    def evictions(self, by: str = "file", cgroup: str | int | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw the evicted page cache, and the part of it that was read again: `t.evictions`.

        The 12 largest rows have a bar each. All other rows share one bar. `by` and `cgroup` are as in
        `t.evictions`.
        """
        drawn = eviction_bars.bars(evictions(self._trace, by, cgroup), by)
        with pictured(ax, 1.5 + _BAR_HEIGHT * max(len(drawn), 1) * (1 + (by == "cgroup"))) as axes:
            eviction_bars.draw(axes, drawn, by, is_exact=self._trace.summed.empty)
        return axes

    def whatif(
        self,
        cgroup: str | int | None = None,
        *,
        limits: Sequence[int] = (),
        swap_bytes: int | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the recorded run at other limits: where it is killed, and what it reads again: `t.whatif`.

        `limits`, in bytes, and `swap_bytes` are as in `t.whatif`; limits between them are drawn as well.
        """
        found = what_if(self._trace, limits, cgroup, swap_bytes, evenly=_LIMITS)
        with pictured(ax, 4.4) as axes:
            limit_curve.draw(axes, found)
        return axes

    def _of_limit(self, cgroup: str | int | None, kill: int | None) -> tuple[Subject, OomReport]:
        """Return the cgroup whose limit led to the kill to draw, and the kill."""
        subject = chosen(self._trace, self._reports, cgroup, kill)
        report = subject.kill
        if report is None:
            raise TracerError(f"nothing was killed in {self._trace.path}: see its held_cgroups()")
        owner = report.limit_owner.cgroup_id
        if owner is None:
            raise TracerError(f"kill {report.kill_id} was for no limit of a cgroup in this trace")
        return Subject(self._trace, owner, report), report

    def _at_kill(self, subject: Subject, rows: pd.DataFrame) -> pd.DataFrame | None:
        """Return the levels at the kill; None if they belong to another cgroup or are outside of `rows`."""
        report = subject.kill
        if report is None or report.limit_owner.cgroup_id != subject.cgroup_id:
            return None
        if report.kill_id not in set(self._trace.oom["kill_id"]):
            return None  # only the kernel log has it
        at_kill = kill_window(self._trace, report).iloc[1:]
        return at_kill if rows.index[0] <= at_kill.index[0] < rows.index[-1] + row_length(rows) else None
