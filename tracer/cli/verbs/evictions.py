"""`evictions`: the page cache of each owner, its evictors, and the cache that was read again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracer.cli import standard_streams, trace_argument, value_completion
from tracer.quantities import EVICTIONS_GROUPINGS

if TYPE_CHECKING:
    import pandas as pd

    from tracer.analysis.views.cache_flow import CacheFlow
    from tracer.render.terminal.evictions_text import Context


@click.command(
    epilog="""\b
Examples:
  memcg-tracer evictions traces/page-cache
  memcg-tracer evictions traces/page-cache --by cgroup -c '*page-cache'
  memcg-tracer evictions traces/page-cache --json | jq '.rows[:3]'"""
)
@trace_argument.argument
@value_completion.cgroup_of_trace(
    ": only cache charged to a matching cgroup or its descendants.",
)
@click.option(
    "--by",
    type=click.Choice(EVICTIONS_GROUPINGS),
    default="file",
    show_default=True,
    help="Key of the sums: file; charged cgroup and acting cgroup; cause; acting process.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document with all rows, sizes in bytes."
)
def command(path: Path | None, *, cgroup: str | None, by: str, as_json: bool) -> None:
    """Show which page cache was added, evicted (by which task, and why) and read again.

    Page cache is charged to one cgroup, and a task of the same or of another cgroup evicts it: --by cgroup
    shows both. Cache that is read again soon after its eviction did not fit.
    """
    from tracer.render.terminal import console, evictions_text

    with standard_streams.progress_of("summing up the page cache"):
        flow, table, context, trace_path = _looked_at(path, cgroup, by)
    if as_json:
        listed = json.loads(table.to_json(orient="records"))
        head = {"schema": 1, "trace": str(trace_path), "by": by}
        click.echo(json.dumps(head | flow.to_dict() | {"rows": listed}, indent=2))
        return
    console.write(sys.stdout, evictions_text.lines(flow, by, table, context))


def _looked_at(
    path: Path | None, cgroup: str | None, by: str
) -> tuple[CacheFlow, pd.DataFrame, Context, Path]:
    """Return the data to show for a trace, and its path. The trace, which may be large, is freed."""
    import pandas as pd

    from tracer.analysis.core.tables import start_ns
    from tracer.analysis.views.cache_flow import cache_flow
    from tracer.analysis.views.evictions import moves, summed
    from tracer.render.terminal import console
    from tracer.render.terminal.evictions_text import Context

    found = trace_argument.open_trace(path)
    trace, cgroup = found.trace, found.name if cgroup is None else cgroup
    sums = moves(trace, cgroup)
    context = Context(
        columns=console.columns_for(sys.stdout),
        origin=pd.Timestamp(start_ns(trace), tz="UTC"),
        interrupted=trace.interrupted,
    )
    return cache_flow(trace, sums, cgroup), summed(trace, sums, by), context, trace.path
