"""`contents`: what is in memory now, by cgroup, file, process and kmem_cache, without a trace."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from tracer.cli import standard_streams, value_completion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracer.kernel.cgroups.cgroupfs import Hierarchy

_BY = ("file", "process", "slab", "cgroup")


@click.command(
    epilog="""\b
Examples:
  sudo memcg-tracer contents -c web                 # of which files, whose slab?
  sudo memcg-tracer contents --by cgroup            # removed cgroups that hold memory as well
  sudo memcg-tracer contents --by file -n 20        # the largest files in the page cache
  sudo memcg-tracer contents -c web --json | jq '.cgroups[].files[:3]'"""
)
@value_completion.cgroups_to(
    "Show",
    "; also what was removed below it. May be repeated.  [default: every cgroup]",
)
@click.option(
    "--by", metavar="KEY", type=click.Choice(_BY),
    help=f"Show the largest of one kind, of all these cgroups: {', '.join(_BY)}.  "
    "[default: all kinds, for each of the largest cgroups]",
)  # fmt: skip
@click.option(
    "-n", "most", metavar="N", type=click.IntRange(min=1, max=100_000), default=10, show_default=True,
    help="Show at most N cgroups, and at most N files, processes and slab caches of each; with --by, at most "
    "N of all cgroups. The JSON document has the sums of every cgroup.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, sizes in bytes.")
def command(*, cgroups: tuple[str, ...], by: str | None, most: int, as_json: bool) -> None:
    """Show what is in memory now: page cache by file, memory of processes, slab by cache.

    Each page of the machine is looked at once, which takes about 20 ms of CPU for each GiB. So nothing has
    to be recorded before, and memory of removed cgroups is found. Sizes are of what is charged to a cgroup
    itself, without the cgroups below it.
    """
    from tracer.capture.contents.look import Wanted, look
    from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
    from tracer.kernel.naming.host_names import HostNames
    from tracer.kernel.privileges import require_linux, require_root
    from tracer.render.terminal import console, contents_text
    from tracer.render.words import contents_words

    require_linux("looking at memory")
    require_root("looking at memory")
    hierarchy, lookup = memory_hierarchy(), HostNames().find
    wanted = Wanted(by, most, _paths(hierarchy, cgroups) if cgroups else None)
    with standard_streams.progress_of("looking at memory") as shown:
        found = look(
            hierarchy,
            wanted,
            lookup,
            lambda done, whole: shown.says(f"{100 * done // whole} % of memory read"),
        )
    if as_json:
        click.echo(json.dumps(contents_words.document(found), indent=2))
        return
    columns = console.columns_for(sys.stdout)
    console.write(sys.stdout, contents_text.lines(found, by, most, columns=columns))


def _paths(hierarchy: Hierarchy, arguments: Sequence[str]) -> list[str]:
    """Return the paths of the cgroups that the arguments select. Raises UsageError if one selects nothing."""
    from tracer.errors import UsageError
    from tracer.kernel.cgroups.selectors import list_cgroups, parse_selector
    from tracer.kernel.naming.host_names import HostNames

    listing = list_cgroups(hierarchy, HostNames().find)
    paths: dict[str, None] = {}
    for argument in arguments:
        selector = parse_selector(hierarchy, argument)
        found = listing.find(selector)
        if not found:
            raise UsageError(
                f"no cgroup or container is {argument!r} ({listing.near(selector)}); one that was removed "
                "and still holds memory needs -c of a cgroup above it, or --by cgroup"
            )
        paths.update(dict.fromkeys(found))
    return list(paths)
