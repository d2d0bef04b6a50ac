"""`top`: a live view of each cgroup's memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from tracer.cli import value_completion
from tracer.cli.trace_argument import OF_TOP
from tracer.cli.tuning import hooks, ring_pages
from tracer.cli.typed_values import frame_s
from tracer.quantities import SORT_KEYS


@click.command(
    epilog="""\b
Examples:
  sudo memcg-tracer top                             # all cgroups, the largest first; h: the keys
  sudo memcg-tracer top -c /kubepods --sort left    # pods, the next kill first
  sudo memcg-tracer top -c web -n 10 > table.txt    # ten tables, without a terminal
  sudo memcg-tracer top --json | jq 'select(.seconds_to_kill)'"""
)
@value_completion.cgroups_to(
    "Show",
    ". A cgroup that "
    "gets such a name later is shown from its first charge. May be repeated.  [default: every cgroup]",
)
@click.option(
    "-i", "interval_s", metavar="TIME", type=frame_s, default="1s",
    show_default=True, help="Time between two frames, from 0.1s to 1h; rates cover it.",
)  # fmt: skip
@click.option(
    "-n", "intervals", metavar="N", type=click.IntRange(min=1), help="End after N intervals.",
)  # fmt: skip
@click.option(
    "--sort", "sort", metavar="KEY", type=click.Choice(SORT_KEYS), default="usage", show_default=True,
    help=f"Sort by this column: {', '.join(SORT_KEYS)}.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each cgroup and interval.")
def command(
    *, cgroups: tuple[str, ...], interval_s: float, intervals: int | None, sort: str, as_json: bool
) -> None:
    """Show the memory of each cgroup live, and the decisions of reclaim and of the OOM killer.

    For each cgroup: usage and limit, memory that reclaim cannot drop, page cache, the rates of charges and
    evictions, the time that tasks reclaim and wait, and the time left until a kill at the present rate. Below
    is a feed of limits that are hit, reclaim that frees nothing, and OOM kills with their cause.

    Enter looks into a cgroup, x explains it, w writes a trace of the last minutes, h shows all keys. Traces
    go to a new directory traces/top-TIME, which is removed if it stays empty. Each OOM kill leaves a trace.

    Without a terminal, a table is printed each interval.
    """
    from tracer.capture.session import save_memory
    from tracer.kernel.privileges import require_linux
    from tracer.kernel.process.children import keep_pages_small

    require_linux("recording")
    save_memory()
    keep_pages_small()
    from tracer.top.live_view import TopOptions, top

    name = time.strftime(f"{OF_TOP}%Y%m%dT%H%M%SZ", time.gmtime())
    top(
        TopOptions(
            directory=Path("traces") / f"{name}-{os.getpid()}",
            cgroups=cgroups,
            interval_s=interval_s,
            intervals=intervals,
            sort=sort,
            as_json=as_json,
            ring_pages=ring_pages(),
            hooks=hooks(),
        )
    )
