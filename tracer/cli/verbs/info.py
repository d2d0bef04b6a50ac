"""`info`: the contents of a trace."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracer.cli import trace_argument

if TYPE_CHECKING:
    from tracer.analysis.trace import AnalysedTrace
    from tracer.render.terminal import info_text


@click.command(
    epilog="""\b
Examples:
  memcg-tracer info traces/page-cache
  memcg-tracer info traces/page-cache --json | jq .rows"""
)
@trace_argument.argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(path: Path | None, as_json: bool) -> None:
    """Show the contents of a trace: rows, losses, cgroups, probes, duration, size, and how it ended."""
    from tracer.render.terminal import console, info_text

    summary = summarise(trace_argument.open_trace(path).trace)
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=2))
    else:
        console.write(sys.stdout, info_text.lines(summary))


def summarise(trace: AnalysedTrace) -> info_text.Summary:
    """Return the summary that `info` shows. Rows of large tables are only counted."""
    from tracer.analysis.core.lookups import Functions
    from tracer.analysis.kernel_log import decisions
    from tracer.render.terminal import info_text
    from tracer.schema import LATEST_NS, TABLES

    stacks = Functions(trace.stacks)
    return info_text.Summary(
        path=str(trace.path),
        interrupted=trace.interrupted,
        duration_s=_duration(trace),
        size_bytes=trace.size_bytes,
        rows={table: trace.rows(table) for table in TABLES if trace.has_table(table)},
        of_no_process=_of_no_process(trace),
        unnamed_stacks=stacks.unnamed(),
        cut_off_stacks=stacks.cut_off(),
        lost=_lost(trace),
        summed=trace.summed_intervals.near(0, LATEST_NS),
        cgroups=_cgroups(trace),
        kills=len({int(number) for number in decisions.victims(trace)["kill_id"]}),
        kills_of_log_alone=len(trace.missed),
        meta=dict(trace.meta),
    )


def _duration(trace: AnalysedTrace) -> float | None:
    import pandas as pd

    from tracer.analysis.core.tables import end_ns, start_ns

    ended = trace.meta["ended"]
    if ended is not None:
        return float((pd.Timestamp(ended) - pd.Timestamp(trace.meta["started"])).total_seconds())
    return (end_ns(trace) - start_ns(trace)) / 1e9 if start_ns(trace) else None


def _of_no_process(trace: AnalysedTrace) -> float | None:
    """Return the share of the charged and freed bytes whose process is not known; None without any bytes."""
    import numpy as np

    from tracer.analysis.core.rows import rows_of

    changed = unknown = 0
    for rows in rows_of(trace, "charge", ["tgid", "bytes"]):
        sizes = np.abs(rows.integers("bytes"))
        changed += int(sizes.sum())
        unknown += int(sizes[~rows.known("tgid")].sum())
    return unknown / changed if changed else None


def _lost(trace: AnalysedTrace) -> dict[str, int]:
    """Return the number of lost records of each stream that the recorder knew."""
    from tracer.wire.streams import TABLE_THAT_LOSES

    lost = trace.loss.groupby("stream", observed=True)["lost"].sum()
    known = [stream for stream, table in TABLE_THAT_LOSES.items() if trace.has_table(table)]
    return dict.fromkeys(known, 0) | {str(stream): int(records) for stream, records in lost.items()}


def _cgroups(trace: AnalysedTrace) -> list[info_text.TracedCgroup]:
    from tracer.analysis.core.columns import optional
    from tracer.analysis.views import focus
    from tracer.render.terminal import info_text

    ranked = focus.ranked(trace)
    lives = {cgroup_id: trace.places.lives.life_for(cgroup_id) for cgroup_id in ranked.index.tolist()}
    return [
        info_text.TracedCgroup(
            path=trace.places.label_of(cgroup_id),
            cgroup_id=cgroup_id,
            run=lives[cgroup_id].run,
            runs=lives[cgroup_id].runs,
            container=trace.places.container_of(cgroup_id)[0],
            limit_bytes=optional(row["limit_bytes"]),
            peak_usage_bytes=optional(row["peak_usage_bytes"]),
            kills=int(row["kills"]),
        )
        for cgroup_id, row in zip(ranked.index.tolist(), ranked.to_dict("records"), strict=True)
    ]
