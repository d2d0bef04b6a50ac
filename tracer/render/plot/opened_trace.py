"""The class of the object that `tracer.open` returns: a trace for people, with its analyses and pictures.

Verbs, analyses and renderers use the trace inside it. So every name here is meant to be used, and stands with
its help in this module alone; the tables and their columns are from `tracer.meanings`. Verbs and their
documents have the names of the JSON. Here, what was evicted and read again has the name that people see too.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import pyarrow as pa

from tracer import meanings
from tracer.analysis.results import forms, report_frames
from tracer.analysis.trace import AnalysedTrace
from tracer.extras import from_extra
from tracer.schema import TABLES
from tracer.trace.read.reader import Tables
from tracer.units import count

if TYPE_CHECKING:
    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.results.sigkill import Sigkill
    from tracer.analysis.views.code_samples import Charged
    from tracer.render.plot.pictures import Pictures
    from tracer.trace.meta import Meta

READ_AGAIN: Final = "read_again_bytes"


def _documented(opened: type[OpenedTrace]) -> type[OpenedTrace]:
    """Add a paragraph for each public name to the docstring: how it is called, and what it returns."""
    answers = [_answer(name, value) for name, value in vars(opened).items() if not name.startswith("_")]
    tables = f"The tables:\n\n{meanings.documentation()}"
    opened.__doc__ = "\n\n".join([inspect.getdoc(opened) or "", *answers, tables]) + "\n"
    return opened


def _answer(name: str, value: Any) -> str:
    called = "()" if inspect.isfunction(value) else ""
    returned = (inspect.getdoc(value) or "").split("\n\n")[0].removeprefix("Return ")
    return f"t.{name}{called}\n{textwrap.indent(returned, '  ')}"


@_documented
class OpenedTrace(Tables):
    """A trace: its tables as pandas DataFrames, and what follows from them.

    A table is read at first use and kept. A column `time` is its index, sorted, in UTC. Names contain the
    units: `_bytes`, `_pages`, `_ns`, `_us`; a page has `t.meta["page_size"]` bytes. NA is "not known", 0 is
    zero. A limit that is not set is NA as well, and the flag beside it is then false.

    What follows from the tables, each with an example in its own help, such as `help(t.kills)`:
    """

    def __init__(self, path: str | Path) -> None:
        self._trace = AnalysedTrace(path)

    def _frame(self, name: str) -> pd.DataFrame:
        frame: pd.DataFrame = getattr(self._trace, name)
        return frame

    def __repr__(self) -> str:
        return forms.as_text(*self._shown())

    def _repr_html_(self) -> str:
        return forms.as_html(*self._shown())

    def _shown(self) -> tuple[str, forms.Facts]:
        """Return a title, and (label, text) for each line; tables of events are counted, not read."""
        meta = self.meta
        rows = {name: self.rows(name) for name in TABLES}
        machine = f"on {meta['host_name']}, kernel {meta['kernel_release']}, cgroup v{meta['cgroup_version']}"
        facts = [
            ("recorded", f"{meta['started']} to {meta['ended'] or 'an interruption'}, {machine}"),
            ("command", " ".join(meta["command_line"])[:200]),
            ("rows", ", ".join(f"{name} {number:,}" for name, number in rows.items() if number)),
            ("lost records", count(None if meta["lost"] is None else self._trace.losses.affecting_sizes)),
            (
                "next",
                "t.explain(), t.kills(), t.held(), t.timeline(), t.evictions(), t.plot; help(t) says more",
            ),
        ]
        return forms.printable(f"memcg-tracer trace {self.path}", facts)

    def explain(self, cgroup: str | int | None = None, *, is_sized: bool = True) -> list[OomReport]:
        """Return the post-mortem of each OOM kill, by time: a list, empty if nothing was killed.

            [(report.time, report.verdict.cause) for report in t.explain("web")]

        `help("tracer.analysis.results.kill.OomReport")` has the fields. `cgroup`: only kills that concern it
        (`help("tracer.analysis.explain.kill_filter")`). Without `is_sized`, the sizing is null, which saves
        time.
        """
        return self._trace.explain(cgroup, is_sized=is_sized)

    def kills(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return the kills as a row for each victim, indexed by `time` (UTC).

            t.kills()[["container", "victim", "cause", "limit_reached_at", "limit_to_kill_ms"]]

        `help("tracer.analysis.results.report_frames.kills")` has the columns.
        """
        return report_frames.kills(self.explain(cgroup))

    def kill_window(self, kill_id: int) -> pd.DataFrame:
        """Return the memory of the limit owner when the window before a kill begins, and at the kill, with
        the flows of page cache between: two rows.

            t.kill_window(1)[["usage_bytes", "anon_bytes", "cache_bytes"]].diff()

        `help("tracer.analysis.explain.kill_window.kill_window")` has the columns. Raises UsageError if there
        is no such kill.
        """
        from tracer.analysis.explain.kill_window import kill_window_of

        return kill_window_of(self._trace, kill_id)

    def held(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return the cgroups that lived: a row for each, with how near it came to its limit, and what reclaim
        gave back.

            t.held().sort_values("headroom_bytes")[["cgroup", "limit_bytes", "peak_usage_bytes"]]

        `help("tracer.analysis.results.report_frames.held")` has the columns.
        """
        rows = report_frames.held(self._trace.held_cgroups(cgroup))
        rows[READ_AGAIN] = rows["refaulted_bytes"]
        return rows

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

        rows = timeline(self._trace, cgroup, every, begin, end, run=run)
        rows[READ_AGAIN] = rows["cache_refaulted_bytes"]
        return rows

    def evictions(self, by: str = "file", cgroup: str | int | None = None) -> pd.DataFrame:
        """Return what was added to the page cache, evicted and read again: a row for each `file`, `cgroup`
        (owner and actor), `cause` or `process`, the most evicted first, and columns in bytes.

            t.evictions(by="file").nlargest(3, "read_again_bytes")[["path", "read_again_bytes"]]

        `help("tracer.analysis.views.evictions.evictions")` has the columns.
        """
        from tracer.analysis.views.evictions import evictions

        rows = evictions(self._trace, by, cgroup)
        rows[READ_AGAIN] = rows["returned_bytes"]
        return rows

    @property
    def refaults(self) -> pd.DataFrame:
        """Return the page cache that was evicted and read again: a row for each piece, with its evictor and
        the process that read it again.

            t.with_names(t.refaults).groupby("file", observed=True)["bytes"].sum()

        `help("tracer.analysis.views.refaults.refaults")` has the columns.
        """
        return self._trace.refaults

    def thrash(self) -> pd.DataFrame:
        """Return the intervals in which page cache was evicted and soon read again: a row for each cgroup and
        interval.

            t.with_names(t.thrash())[["cgroup", "begin", "end", "evicted_bytes"]]

        `help("tracer.analysis.views.thrash.thrash")` has the columns.
        """
        from tracer.analysis.views import thrash

        return thrash.thrash(self._trace)

    def miss_curve(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return how much of the page cache that was read again more memory would have kept: a row for each
        cgroup and step of memory.

            t.miss_curve("web").set_index("extra_bytes")["spared_share"]

        `help("tracer.analysis.views.miss_curve.miss_curve")` has the columns.
        """
        from tracer.analysis.views import miss_curve

        return miss_curve.miss_curve(self._trace, cgroup)

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
        from tracer.analysis.whatif.outcomes import what_if

        return report_frames.outcomes(what_if(self._trace, limits, cgroup, swap_bytes))

    @property
    def waits(self) -> pd.DataFrame:
        """Return the times in which threads waited for memory: a row for each wait.

            t.waits.groupby("kind", observed=True)["duration_ns"].sum()

        `help("tracer.analysis.views.reclaim.waits")` has the columns.
        """
        return self._trace.waits

    def waits_by_process(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return how long each process waited for memory: a row for each process, a column in ms for each
        kind of wait (NaN: not recorded).

            t.waits_by_process().nlargest(5, "stalled_ms")

        `help("tracer.analysis.views.reclaim.by_process")` has the columns.
        """
        from tracer.analysis.views import reclaim

        return reclaim.by_process(self._trace, cgroup)

    def lost_time(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return the time that tasks lost to reclaim, reading again, swap and memory.high, and their work: a
        row for each cgroup and second.

            t.lost_time("web")["reread_ms"].resample("10s").sum()

        `help("tracer.analysis.views.lost_time.lost_time")` has the columns.
        """
        from tracer.analysis.views import lost_time

        return lost_time.lost_time(self._trace, cgroup)

    def code(self, cgroup: str | int | None = None) -> pd.DataFrame:
        """Return the code that made memory grow, a row for each function.

            t.code()[["kill_id", "share", "function", "file", "line"]]

        `help("tracer.analysis.results.report_frames.code")` has the columns.
        """
        reports = self.explain(cgroup)
        return report_frames.code(reports, self._trace.spared_cgroups(reports, cgroup))

    def charged_stacks(self, cgroup: str | int | None = None, kill_id: int | None = None) -> list[Charged]:
        """Return the samples of `record --stacks`, summed up by process name and functions: a list, the most
        memory first.

            [(row.comm, row.user[-1:], row.weight_bytes) for row in t.charged_stacks(kill_id=1)]

        `help("tracer.analysis.views.code_samples.Charged")` has the fields. `cgroup`: only what was charged
        to it or to a cgroup below it. `kill_id`: only what counts for the allocators of that kill. Raises
        TracerError for a trace without samples (`record --stacks off`).
        """
        from tracer.analysis.views import code_samples

        return code_samples.charged(self._trace, self._trace.samples_of_code(cgroup, kill_id))

    def sigkilled(self, cgroup: str | int | None = None) -> list[Sigkill]:
        """Return the SIGKILLs that ended processes and were not the OOM killer's, by time: a list.

            [(kill.target.comm, kill.sender and kill.sender.comm, kill.way) for kill in t.sigkilled()]

        `help("tracer.analysis.results.sigkill.Sigkill")` has the fields.
        """
        return self._trace.sigkilled(cgroup)

    @cached_property
    def plot(self) -> Pictures:
        """Return the pictures, such as `t.plot.timeline()`: each returns matplotlib Axes, with the kills
        marked.

            t.plot.timeline().figure.savefig("timeline.png")

        `help("tracer.render.plot.pictures.Pictures")` has them all. The first use imports matplotlib. Raises
        TracerError if it is not installed (extra `plot`).
        """
        with from_extra("plot", "a picture"):
            from tracer.render.plot.pictures import Pictures

        return Pictures(self._trace)

    def with_names(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a table with the names of its ids as further columns: `cgroup` and `container` (in
        `reclaim`: `target_cgroup` and `target_container`), `task_cgroup`, `comm`, `file`.

            t.with_names(t.charge).groupby("comm", observed=True)["bytes"].sum()
        """
        from tracer.analysis.core.naming import with_names

        return with_names(self._trace, frame)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table, or some columns of it, as a pyarrow.Table in recorded order. It is not kept.

            t.table("charge", ["time", "bytes"])

        Raises TraceError for a damaged file, and KeyError for an unknown table or column.
        """
        return self._trace.table(name, columns)

    def batches(self, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Return an iterator over columns of a table in recorded order, some 100,000 rows at a time. It takes
        as little memory for a long table as for a short one.

            sum(batch.num_rows for batch in t.batches("charge", ["bytes"]))

        An identity table (`cgroups`, `tasks`, `inodes`, `stacks`) has superseded rows as well. A word may
        have another code in each batch. Raises as `table` does.
        """
        return self._trace.batches(name, columns)

    def rows(self, name: str) -> int:
        """Return the number of rows of a table; Parquet files are counted without reading them.

            t.rows("pagecache")

        Raises TraceError for a damaged file, and KeyError for an unknown table.
        """
        return self._trace.rows(name)

    @property
    def path(self) -> Path:
        """Return the directory of the trace."""
        return self._trace.path

    @property
    def meta(self) -> Meta:
        """Return what meta.json says of the recording: the machine, the options, the probes and the losses.

            t.meta["kernel_release"], t.meta["page_size"]

        docs/trace-format.md lists the members.
        """
        return self._trace.meta

    @property
    def interrupted(self) -> bool:
        """Return whether the trace has no end, because the recorder was killed or is still at work."""
        return self._trace.interrupted

    @property
    def size_bytes(self) -> int:
        """Return the length of all files of the trace."""
        return self._trace.size_bytes
