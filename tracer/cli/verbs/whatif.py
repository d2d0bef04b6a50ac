"""`whatif`: the recorded run at other limits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracer.cli import standard_streams, trace_argument, value_completion
from tracer.cli.typed_values import is_size, size_bytes, some_bytes

if TYPE_CHECKING:
    from tracer.analysis.results.outcome import WhatIf


class _Limits(click.Command):
    """A command whose `--limit` takes all sizes that follow it."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Put `--limit` before each further size: click's options take a fixed number of values."""
        spread: list[str] = []
        of_limit = False
        for before, word in zip(["", *args], args, strict=False):
            of_limit = of_limit and is_size(word)
            spread += ["--limit", word] if of_limit and before != "--limit" else [word]
            of_limit = of_limit or word == "--limit" or before == "--limit"
        return super().parse_args(context, spread)


@click.command(
    cls=_Limits,
    epilog="""\b
Examples:
  memcg-tracer whatif traces/thrash
  memcg-tracer whatif traces/thrash --limit 8M 64M 120M
  memcg-tracer whatif traces/sharedbuffers --limit 150M --json""",
)
@trace_argument.argument
@click.option(
    "--limit", "limits", metavar="SIZE...", type=some_bytes, multiple=True,
    help="Limits to answer for.  [default: some around the demand of the run]",
)  # fmt: skip
@value_completion.cgroup_of_trace(
    " of the cgroup whose limit it is.  "
    "[default: the one with a kill, or else with the highest usage below a limit]",
)
@click.option(
    "--swap", "swap_bytes", metavar="SIZE", type=size_bytes,
    help="Swap beside each limit.  [default: as in the recording]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    path: Path | None, *, limits: tuple[int, ...], cgroup: str | None, swap_bytes: int | None, as_json: bool
) -> None:
    """Show what the recorded run would do at other memory limits.

    For each limit: it survives (no OOM kill), is killed, thrashes (no kill, but a third of its time or more
    is lost), or that is unknown, and why; how much page cache it would read again, and the share of its time
    that it would lose. What the trace cannot show is unknown: less memory than recorded may cost more, and a
    killed run may need any amount more.
    """
    from tracer.render.terminal import console, whatif_text

    with standard_streams.progress_of("replaying the run"):
        found, trace_path = _asked(path, limits, cgroup, swap_bytes)
    if as_json:
        click.echo(json.dumps({"schema": 1, "trace": str(trace_path)} | found.to_dict(), indent=2))
    else:
        console.write(sys.stdout, whatif_text.lines(found, is_asked=bool(limits)))


def _asked(
    path: Path | None, limits: tuple[int, ...], cgroup: str | None, swap_bytes: int | None
) -> tuple[WhatIf, Path]:
    """Return the answer for a trace, and its path. The trace, which may be large, is freed."""
    from tracer.analysis.explain import kill_filter
    from tracer.analysis.whatif.outcomes import what_if

    found = trace_argument.open_trace(path)
    if cgroup is None and found.name is not None:  # that of a parent stands for the limit that was hit below
        newest = kill_filter.newest(found.trace.outlined(found.name)[0])
        cgroup = newest.limit_owner.cgroup or found.name
    return what_if(found.trace, limits, cgroup, swap_bytes), found.trace.path
