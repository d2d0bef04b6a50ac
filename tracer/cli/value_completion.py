"""The options that name cgroups and kills, and the shell completion of their values and of runs.

A completion reads only the names that it offers, without pandas. If it cannot read them, it offers nothing,
because a completion cannot report an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click
from click.shell_completion import CompletionItem, split_arg_string

from tracer.errors import TracerError

if TYPE_CHECKING:
    from tracer.trace.read.reader import Trace

_MOST: Final = 500
_PLAIN: Final = re.compile(r"[\w./:@%+=,-]+", re.ASCII)

Option: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


def cgroup_of_trace(use: str) -> Option:
    """Return -c of a verb that reads a trace; `use` ends its help."""
    words = f"Path, container name or id, or glob{use}"
    return click.option("-c", "--cgroup", metavar="CGROUP", shell_complete=cgroups_in_trace, help=words)


def kill_of_trace(use: str) -> Option:
    """Return --kill of a verb that reads a trace; `use` is its help."""
    return click.option("--kill", "kill_id", metavar="N", type=int, shell_complete=kills_in_trace, help=use)


def cgroups_to(begin: str, rest: str) -> Option:
    """Return -c of a verb that looks at cgroups of this machine; `begin` and `rest` are parts of its help."""
    words = f"{begin} this cgroup and its descendants: a path, a container name or id, or a glob{rest}"
    return click.option(
        *("-c", "--cgroup", "cgroups"),
        metavar="CGROUP",
        multiple=True,
        shell_complete=cgroups_here,
        help=words,
    )


def cgroups_here(
    _context: click.Context, _parameter: click.Parameter, typed: str
) -> list[CompletionItem[Any]]:
    """Return the names of the containers that run here, and the paths of the memory cgroups."""
    from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
    from tracer.kernel.cgroups.selectors import list_cgroups
    from tracer.kernel.naming.host_names import HostNames

    with suppress(OSError, TracerError):
        listing = list_cgroups(memory_hierarchy(), HostNames().find)
        named = [] if typed.startswith("/") else listing.containers()
        return _offered([*(name for name, _ in named), *listing.paths], typed)
    return []


def cgroups_in_trace(
    context: click.Context, _parameter: click.Parameter, typed: str
) -> list[CompletionItem[Any]]:
    """Return the names of the containers, and the paths of the cgroups, in the trace on the command line."""
    with suppress(OSError, TracerError):
        rows = _trace(context).table("cgroups", ["container", "path"])
        return _offered([*rows["container"].to_pylist(), *rows["path"].to_pylist()], typed)
    return []


def kills_in_trace(
    context: click.Context, _parameter: click.Parameter, typed: str
) -> list[CompletionItem[Any]]:
    """Return the numbers of the kills in the trace on the command line, with the killed process."""
    from tracer.render.words.escape import visible

    with suppress(OSError, TracerError):
        rows = _trace(context).table("oom", ["kill_id", "comm", "pid"]).to_pylist()
        killed = {str(row["kill_id"]): f"{visible(row['comm'] or '')} (pid {row['pid']})" for row in rows}
        return [
            CompletionItem(number, help=who) for number, who in killed.items() if number.startswith(typed)
        ]
    return []


def runs_in_trace(
    context: click.Context, _parameter: click.Parameter, typed: str
) -> list[CompletionItem[Any]]:
    """Return the run numbers of the name after -c in the trace on the command line."""
    words = split_arg_string(
        os.environ.get("COMP_WORDS", "")
    )  # click drops the options before an incomplete one
    named = [name for option, name in pairwise(words) if option in ("-c", "--cgroup")]
    if not named:
        return []
    with suppress(OSError, TracerError):
        rows = _trace(context).table("cgroups", ["container", "path"])
        pairs = zip(rows["container"].to_pylist(), rows["path"].to_pylist(), strict=True)
        paths = [path for container, path in pairs if named[-1] in (container, path)]
        lives = [path for path in paths if not any(path.startswith(f"{other}/") for other in paths)]
        return [
            CompletionItem(number)
            for number in map(str, range(1, len(lives) + 1))
            if number.startswith(typed)
        ]
    return []


def _trace(context: click.Context) -> Trace:
    from tracer.trace.meta import is_trace
    from tracer.trace.read.reader import Trace

    # click stops parsing at an option without its value, and leaves all words in args.
    named = context.params.get("path"), *(context.params.get("paths") or ())
    for path in filter(None, (*named, *context.args)):
        if is_trace(Path(path)):
            return Trace(path)
    raise TracerError("no trace on the command line")


def _offered(names: Sequence[str | None], typed: str) -> list[CompletionItem[Any]]:
    """Return the names that begin with the typed text, each once.

    bash inserts a name unquoted, so only names that no shell would expand or split are offered.
    """
    offered = (name for name in dict.fromkeys(names) if name and name.startswith(typed))
    return [CompletionItem(name) for name in offered if _PLAIN.fullmatch(name)][:_MOST]
