"""`explain`: why the OOM killer came."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import tracer
from tracer.cli import value_completion
from tracer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.trace import AnalysedTrace
    from tracer.kernel.kmsg.userspace import UserspaceKill


@click.command(
    epilog="""\b
Examples:
  memcg-tracer explain traces/page-cache
  memcg-tracer explain traces/page-cache --kill 1 -v
  memcg-tracer explain traces/restarts --list -c web
  memcg-tracer explain traces/page-cache --json | jq '.kills[].verdict'
  journalctl -k | memcg-tracer explain --kmsg - --last"""
)
@click.argument("path", metavar="[TRACE]", type=click.Path(path_type=Path), required=False)
@click.option(
    "--kmsg",
    metavar="FILE",
    help="Explain the kills in a kernel log instead (dmesg, journalctl -k, kern.log, .gz, .xz); - is stdin.",
)
@click.option(
    "-c",
    "--cgroup",
    metavar="CGROUP",
    shell_complete=value_completion.cgroups_in_trace,
    help="Path, container name or id, or glob: only kills for the limit of the cgroups that fit, or of a "
    "task in them; descendants and all lives of a name count in.",
)
@click.option(
    "--kill",
    "kill_id",
    metavar="N",
    type=int,
    shell_complete=value_completion.kills_in_trace,
    help="Explain kill number N. Default: the newest, after a line for each.",
)
@click.option("--last", is_flag=True, help="Explain the newest kill alone.")
@click.option("--list", "as_list", is_flag=True, help="Print a line for each kill, and no more.")
@click.option("-v", "--verbose", is_flag=True, help="Show everything: evidence, reclaim, stacks, all tables.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document: all kills, or those that were picked."
)
def command(
    path: Path | None,
    *,
    kmsg: str | None,
    cgroup: str | None,
    kill_id: int | None,
    last: bool,
    as_list: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Explain an OOM kill: why it came, and why then.

    Of many kills each has a line, and the newest is explained. Without a kill in the trace it says what held
    instead: how near each cgroup came to its limit and what reclaim gave back. From a kernel log alone it
    says what the log tells, and what it cannot.
    """
    if (path is None) == (kmsg is None):
        raise UsageError("give either a TRACE or --kmsg FILE; see memcg-tracer explain -h")
    if as_list + last + (kill_id is not None) > 1:
        raise UsageError("--list, --last and --kill N each say which kills to show: give one of them")
    from tracer.analysis.explain import kill_filter

    trace = None if path is None else tracer.open(path)
    elsewhere: list[UserspaceKill] = []
    if trace is None:
        reports, elsewhere = _of_log(str(kmsg), cgroup)
    else:
        reports = trace.explain(cgroup)
    chosen = [kill_filter.newest(reports)] if last and reports else reports
    if kill_id is not None:
        place = f"this {'log' if trace is None else 'trace'}" + ("" if cgroup is None else f" for {cgroup!r}")
        chosen = [_of_number(reports, kill_id, place)]
    if as_json:
        _print_json(trace, kmsg, chosen, elsewhere, cgroup=cgroup, as_list=as_list)
        return
    if not chosen:
        _say_what_held(trace, cgroup, elsewhere, verbose=verbose)
    elif as_list:
        from tracer.render.words import kill_list

        _write(kill_list.listed(chosen))
    else:
        is_picked = last or kill_id is not None
        _tell(trace, reports, kill_filter.newest(chosen), is_picked=is_picked, verbose=verbose)
    if elsewhere:
        from tracer.render.terminal import userspace_text

        _write(userspace_text.told(elsewhere))


def _of_log(log: str, cgroup: str | None) -> tuple[list[OomReport], list[UserspaceKill]]:
    """The kernel's kills, and those in user space."""
    from tracer.analysis.explain import kill_filter, log_postmortem
    from tracer.kernel.cgroups.containers import NamesHere
    from tracer.kernel.kmsg import log_files

    here = NamesHere()

    def named(path: str) -> tuple[str | None, str | None]:
        names = here.names_at(path)
        return names.container, names.pod

    found = log_files.read(log)
    reports = list(log_postmortem.explain(found.reports, named))
    if cgroup is not None and reports:
        reports = kill_filter.logged_kills_of(reports, cgroup)
    return reports, found.userspace_kills


def _tell(
    trace: AnalysedTrace | None,
    reports: list[OomReport],
    told: OomReport,
    *,
    is_picked: bool,
    verbose: bool,
) -> None:
    """The story of one kill, below what there is to say of the others."""
    from tracer.render.terminal import explain_text
    from tracer.render.words import kill_list

    lines = explain_text.SCREEN_LINES
    if len(reports) > 1 and not is_picked:
        _write(kill_list.before_the_story(reports, told))
        lines = explain_text.LINES_BELOW_A_LIST
    elif len(reports) > 1:
        _write(kill_list.one_of_many(reports, told))
    page_size = _page_size(trace, told)
    _write(explain_text.post_mortem(told, page_size=page_size, verbose=verbose, lines=lines))


def _say_what_held(
    trace: AnalysedTrace | None, cgroup: str | None, elsewhere: list[UserspaceKill], *, verbose: bool
) -> None:
    from tracer.analysis.explain.survivors import of_names
    from tracer.render.terminal import explain_text, paragraphs

    if trace is None:
        from tracer.render.terminal import userspace_text
        from tracer.render.words.prose import prose

        _write([prose(userspace_text.instead_of_a_report(elsewhere))])
        return
    _write(
        explain_text.held(
            of_names(trace, trace.held_cgroups(cgroup)), interrupted=trace.interrupted, verbose=verbose
        )
    )
    others = 0 if cgroup is None else len(trace.explain())
    if others:
        kills = "1 kill" if others == 1 else f"{others} kills"
        _write([paragraphs.title(f"{kills} of other cgroups in this trace: memcg-tracer explain --list")])


def _print_json(
    trace: AnalysedTrace | None,
    kmsg: str | None,
    reports: list[OomReport],
    userspace_kills: list[UserspaceKill],
    *,
    cgroup: str | None,
    as_list: bool,
) -> None:
    """`held` says what lived where nothing was killed."""
    from tracer.render.terminal import userspace_text
    from tracer.render.words import kill_list

    kills = [kill_list.to_dict(report) if as_list else report.to_dict() for report in reports]
    if trace is None:
        others = [userspace_text.to_dict(kill) for kill in userspace_kills]
        head = {"schema": 1, "trace": None, "kmsg": kmsg, "kills": kills, "userspace_kills": others}
    else:
        held = {} if kills else {"held": [one.to_dict() for one in trace.held_cgroups(cgroup)]}
        head = {"schema": 1, "trace": str(trace.path), "kills": kills, **held}
    click.echo(json.dumps(head, indent=2))


def _write(renderables: Iterable[RenderableType]) -> None:
    from tracer.render.terminal import console

    console.write(sys.stdout, renderables)


def _page_size(trace: AnalysedTrace | None, report: OomReport) -> int:
    from tracer.analysis.kernel_log.logged_memory import DEFAULT_PAGE_SIZE

    if trace is not None:
        return int(trace.meta["page_size"])
    place = report.kernel_log
    return (place.page_size if place is not None else None) or DEFAULT_PAGE_SIZE


def _of_number(reports: list[OomReport], kill_id: int, place: str) -> OomReport:
    from tracer.analysis.explain.postmortem import no_such_kill

    for report in reports:
        if report.kill_id == kill_id:
            return report
    raise no_such_kill(kill_id, [report.kill_id for report in reports], place)
