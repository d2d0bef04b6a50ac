"""`explain`: the post-mortem of an OOM kill."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, overload

import click

from tracer.cli import standard_streams, trace_argument, value_completion
from tracer.errors import Defects, TracerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tracer.analysis.explain.kill_report import Depth
    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.results.sigkill import Sigkill
    from tracer.analysis.results.survivor import Held
    from tracer.analysis.trace import AnalysedTrace
    from tracer.cli.standard_streams import Progress
    from tracer.kernel.kmsg.log_files import Log
    from tracer.kernel.kmsg.other_killers import OtherKill
    from tracer.render.terminal.console import Written


_Of = Literal["outlines", "causes", "all"]
"""The measure in which all kills are explained, whichever is shown in full."""

_COUNTED_EACH: Final = 256


@click.command(
    epilog="""\b
Examples:
  memcg-tracer explain
  memcg-tracer explain web
  memcg-tracer explain traces/page-cache
  memcg-tracer explain traces/page-cache --kill 1 -v
  memcg-tracer explain traces/restarts --list -c web
  memcg-tracer explain traces/page-cache --json | jq '.kills[].verdict'
  memcg-tracer explain traces/page-cache --markdown | gh issue comment 41 --body-file -
  journalctl -k | memcg-tracer explain --kmsg - --last"""
)
@trace_argument.argument
@click.option(
    "--kmsg",
    metavar="FILE",
    help="Explain the kills in a kernel log (dmesg, journalctl -k, kern.log, .gz, .xz) instead; - is stdin.",
)
@value_completion.cgroup_of_trace(
    ": only kills at the limit of a matching cgroup, or of a task in "
    "one; includes descendants and all runs of a name.",
)
@value_completion.kill_of_trace(
    "Explain kill number N. Default: the newest, below a list of the last kills.",
)
@click.option("--last", is_flag=True, help="Explain only the newest kill.")
@click.option("--list", "as_list", is_flag=True, help="Print only a line for each kill.")
@click.option("-v", "--verbose", is_flag=True, help="Show everything: evidence, reclaim, stacks, all tables.")
@click.option(
    "--in-view", "is_in_view", is_flag=True, hidden=True, help="Name no options: for the view of top."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document of all kills, or of the selected ones."
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the answer as Markdown, for a ticket.")
def command(
    path: Path | None,
    *,
    kmsg: str | None,
    cgroup: str | None,
    kill_id: int | None,
    last: bool,
    as_list: bool,
    verbose: bool,
    is_in_view: bool,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """Explain an OOM kill: its cause, and why it came at that moment.

    If there are several kills, the last ones are listed and the newest is explained. For a trace without a
    kill, explain shows whether tasks were thrashing or throttled (memory.high), how near each cgroup came to
    its limit, and what reclaim freed. For a kernel log alone, it shows what the log contains and what it
    lacks.

    NAME is a container, pod or cgroup: its newest kill in /var/lib/memcg-tracer is explained, or else in
    traces/, or else in the kernel log (journal or dmesg). Without TRACE or NAME, the newest kill of
    all is explained.
    """
    if path is not None and kmsg is not None:
        raise UsageError("give either a TRACE or --kmsg FILE; see memcg-tracer explain -h")
    if as_list + last + (kill_id is not None) > 1:
        raise UsageError("--list, --last and --kill N exclude each other: give one of them")
    if as_markdown and (as_json or as_list or verbose):
        raise UsageError("--markdown has the first screen: leave --json, --list and -v out")
    from tracer.analysis.explain import kill_filter

    is_picked = last or kill_id is not None
    with standard_streams.progress_of("looking for the kill") as now:
        source = _source(path, kmsg, now)
        trace, log = source.trace, source.log
        now.says(f"explaining {source.log_name if trace is None else trace.path}")
        cgroup = source.name if cgroup is None else cgroup
        defects = Defects() if trace is None else trace.defects
        elsewhere: list[OtherKill] = []
        reports: Sequence[OomReport]
        explain: Callable[[OomReport], OomReport]
        if log is not None:
            depth: Depth = "parties" if is_picked else "causes" if as_list or not as_json else "all"
            reports, explain = _reports_from_log(source, log, cgroup, defects, depth)
            elsewhere = log.other_kills
        else:
            assert trace is not None
            of = _measure(trace, is_picked=is_picked, as_list=as_list, as_json=as_json)
            reports, explain = _reports_from_trace(trace, cgroup, of)
        chosen = reports
        if kill_id is not None:
            chosen = [explain(_numbered(reports, kill_id, is_of_log=trace is None, cgroup=cgroup))]
        elif last and reports:
            chosen = [explain(kill_filter.newest(reports))]
        explained: OomReport | None = None
        above: list[Written] = []
        if chosen and not as_json:
            explained = None if as_list else chosen[0] if is_picked else explain(kill_filter.newest(chosen))
            if not as_markdown:
                above = _above(_Counted(reports, now), explained, is_picked=is_picked, is_in_view=is_in_view)
        is_brief = bool(reports) and (as_list or is_picked)
        held = [] if trace is None or is_brief else _held(trace, reports, cgroup, as_json=as_json)
        sigkills = [] if trace is None or is_brief else trace.sigkilled(cgroup)
        others = 0 if trace is None or chosen or cgroup is None or as_json else len(trace.explain())
    answer = _Answer(trace, reports, explained, held, sigkills, elsewhere, is_picked, verbose, is_in_view)
    if as_json:
        _print_json(
            trace,
            source.log_name,
            chosen,
            elsewhere,
            held,
            sigkills=sigkills,
            defects=defects,
            as_list=as_list,
        )
    elif as_markdown:
        _print_markdown(answer)
    else:
        _write_screen(answer, above, others=others, is_without_kills=not chosen)
    defects.raise_if_any()


@dataclass(frozen=True)
class _Answer:
    """The answer to show: `explained` is the kill that is shown in full, of all `reports`."""

    trace: AnalysedTrace | None
    reports: Sequence[OomReport]
    explained: OomReport | None
    held: list[Held]
    sigkills: list[Sigkill]
    elsewhere: list[OtherKill]
    is_picked: bool
    verbose: bool
    is_in_view: bool


def _write_screen(answer: _Answer, above: list[Written], *, others: int, is_without_kills: bool) -> None:
    """Write the answer for a terminal; `others`: the kills of cgroups that were not asked for."""
    trace, held, sigkills = answer.trace, answer.held, answer.sigkills
    if is_without_kills:
        _write_survivors(
            trace,
            held,
            sigkills,
            answer.elsewhere,
            others=others,
            verbose=answer.verbose,
            is_in_view=answer.is_in_view,
        )
    _write(above)
    if answer.explained is not None:
        _explain(
            trace,
            answer.explained,
            verbose=answer.verbose,
            is_in_view=answer.is_in_view,
            is_below_a_list=bool(above) and not answer.is_picked,
            below=2 * (bool(held) + bool(sigkills)),
        )
        _write_spared(held, sigkills)
    _write_elsewhere(answer.elsewhere)


def _held(
    trace: AnalysedTrace, reports: Sequence[OomReport], cgroup: str | None, *, as_json: bool
) -> list[Held]:
    """Return the cgroups without a kill, without a search if all have one and JSON does not ask for it."""
    from tracer.analysis.explain import kill_filter

    is_shown = as_json or not reports or kill_filter.spares_any(trace, reports)
    return trace.spared_cgroups(reports, cgroup) if is_shown else []


def _explained_already(report: OomReport) -> OomReport:
    return report


def _measure(trace: AnalysedTrace, *, is_picked: bool, as_list: bool, as_json: bool) -> _Of:
    """Return the measure for all kills. A single one is explained at once, without a cause before."""
    if is_picked:
        return "outlines"
    return "all" if not as_list and (as_json or trace.rows("oom") <= 1) else "causes"


def _reports_from_trace(
    trace: AnalysedTrace, cgroup: str | None, of: _Of
) -> tuple[list[OomReport], Callable[[OomReport], OomReport]]:
    """Return the kills of a trace, and what explains one of them.

    A kill that is picked is the only one to be explained, and a list shows only causes.
    """
    if of == "all":
        return trace.explain(cgroup), _explained_already
    reports, post_mortems = trace.outlined(cgroup) if of == "outlines" else trace.listed(cgroup)
    return reports, lambda report: post_mortems.one(report.kill_id)


@dataclass(frozen=True)
class _Source:
    """A trace or a log, and the name that the user gave for it.

    `found` says why the log of this machine was read.
    """

    trace: AnalysedTrace | None = None
    log: Log | None = None
    log_name: str | None = None
    name: str | None = None
    found: str | None = None


def _source(path: Path | None, kmsg: str | None, now: Progress) -> _Source:
    """Return what the user typed. Raises TracerError if there is no kill."""
    if kmsg is not None:
        from tracer.kernel.kmsg import log_files
        from tracer.units import size

        def says(read_bytes: int) -> None:
            now.says(f"reading {kmsg}: {size(read_bytes)}")

        return _Source(log=log_files.read(kmsg, says), log_name=kmsg)
    found = trace_argument.find(path)
    if found is not None:
        return _Source(found.trace, name=found.name)
    from tracer.kernel.kmsg import this_machine

    nothing, here = trace_argument.nothing_found(path), this_machine.read()
    if here is None:
        how = "root can, by journalctl or dmesg" if sys.platform == "linux" else "give one of Linux to --kmsg"
        raise TracerError(f"{nothing}; and no kernel log can be read here: {how}")
    command, log = here
    if not (log.reports or log.other_kills):
        raise TracerError(f"{nothing}; the kernel log ({command}) shows no kill either")
    return _Source(None, log, command, None if path is None else str(path), f"{nothing}; {command}")


def _reports_from_log(
    source: _Source, log: Log, cgroup: str | None, defects: Defects, depth: Depth
) -> tuple[Sequence[OomReport], Callable[[OomReport], OomReport]]:
    """Return the kills of a log that concern a cgroup, and what explains one of them; a line says so if the
    log was searched for."""
    from tracer.analysis.explain import kill_filter
    from tracer.analysis.explain.logged_kills import LogKills
    from tracer.kernel.naming.host_names import NamesHere

    reports = LogKills(log.reports, NamesHere().names_at, defects, depth=depth)
    if cgroup is not None and reports:
        try:
            reports = reports.only(kill_filter.positions_of_logged(reports.to_depth("parties"), cgroup))
        except TracerError as error:
            raise TracerError(str(error) if source.found is None else f"{source.found}: {error}") from None
    if source.found is not None:
        trace_argument.note(f"{source.found} has the kills")
    return reports, lambda report: reports.explained(report.kill_id)


class _Counted(Sequence["OomReport"]):
    """Kills; the progress says how many of them were read."""

    def __init__(self, reports: Sequence[OomReport], now: Progress) -> None:
        self._reports = reports
        self._now = now

    def __len__(self) -> int:
        return len(self._reports)

    def __iter__(self) -> Iterator[OomReport]:
        for number, report in enumerate(self._reports, start=1):
            if number % _COUNTED_EACH == 0:
                self._now.says(f"explaining kills: {number:,} of {len(self):,}")
            yield report

    @overload
    def __getitem__(self, at: int) -> OomReport: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[OomReport]: ...
    def __getitem__(self, at: int | slice) -> OomReport | Sequence[OomReport]:
        return self._reports[at]


def _above(
    reports: Sequence[OomReport], explained: OomReport | None, *, is_picked: bool, is_in_view: bool
) -> list[Written]:
    """Return what is written above the explanation of one of many kills; the list, if none is explained."""
    from tracer.render.terminal import explain_text

    if explained is None:
        return list(explain_text.listed_kills(reports))
    if len(reports) == 1:
        return []
    if is_picked:
        return list(explain_text.one_of_many(reports, explained, is_in_view=is_in_view))
    return list(explain_text.above_the_explanation(reports, explained))


def _explain(
    trace: AnalysedTrace | None,
    explained: OomReport,
    *,
    verbose: bool,
    is_in_view: bool,
    is_below_a_list: bool,
    below: int,
) -> None:
    """Write the explanation of one kill. It leaves room for `below` more lines."""
    from tracer.render.terminal import explain_text

    lines = explain_text.LINES_BELOW_A_LIST if is_below_a_list else explain_text.SCREEN_LINES
    page_size = _page_size(trace, explained)
    lines -= below
    text = explain_text.post_mortem(
        explained, page_size=page_size, verbose=verbose, lines=lines, is_in_view=is_in_view
    )
    _write(text)


def _write_survivors(
    trace: AnalysedTrace | None,
    held: list[Held],
    sigkills: list[Sigkill],
    elsewhere: list[OtherKill],
    *,
    others: int,
    verbose: bool,
    is_in_view: bool,
) -> None:
    """Write what held in a trace without a kill; `others`: the kills of cgroups that were not asked for."""
    from tracer.analysis.explain.survivors import nearest_lives
    from tracer.render.terminal import console

    if trace is None:
        from tracer.render.terminal import explain_text
        from tracer.render.words.prose import prose

        _write([prose(explain_text.instead_of_a_report(elsewhere))])
        return
    from tracer.render.terminal import survivor_text

    lives = nearest_lives(trace, held)
    if lives or not trace.defects:
        text = survivor_text.held(
            lives, sigkills, interrupted=trace.interrupted, verbose=verbose, is_in_view=is_in_view
        )
        _write(text)
    if others:
        kills = "1 kill" if others == 1 else f"{others} kills"
        _write([console.title(f"{kills} of other cgroups in this trace: memcg-tracer explain --list")])


def _write_elsewhere(kills: list[OtherKill]) -> None:
    if kills:
        from tracer.render.terminal import explain_text

        _write(explain_text.other_kills(kills))


def _write_spared(held: list[Held], sigkills: list[Sigkill]) -> None:
    if not held and not sigkills:
        return
    from tracer.render.words import sigkill_words, survivor_facts
    from tracer.render.words.prose import prose

    sentences = [survivor_facts.beside_kills(held), sigkill_words.beside_kills(sigkills)]
    _write(map(prose, filter(None, sentences)))


def _print_markdown(answer: _Answer) -> None:
    from tracer.analysis.explain.survivors import nearest_lives
    from tracer.render.markdown import explanation, marks

    trace = answer.trace
    lines: Iterable[str]
    if answer.explained is not None:
        lines = chain(
            explanation.kills(answer.reports, answer.explained, is_picked=answer.is_picked),
            explanation.beside_kills(answer.held, answer.sigkills),
        )
    elif trace is not None:
        lives = nearest_lives(trace, answer.held)
        lines = explanation.survivors(lives, answer.sigkills, interrupted=trace.interrupted)
    else:
        from tracer.render.terminal import explain_text

        lines = [marks.escaped(explain_text.instead_of_a_report(answer.elsewhere))]
    for line in lines:
        click.echo(line)


def _print_json(
    trace: AnalysedTrace | None,
    kmsg: str | None,
    reports: Sequence[OomReport],
    other_kills: list[OtherKill],
    survivors: list[Held],
    *,
    sigkills: list[Sigkill],
    defects: Defects,
    as_list: bool,
) -> None:
    """Print the document. `held` and `sigkills` are left out if they would be empty beside kills."""
    from tracer.analysis.explain.outline import unexplained
    from tracer.analysis.explain.words import evidence
    from tracer.render.words import kill_list

    def document(report: OomReport) -> dict[str, Any]:
        return defects.attempt(
            f"kill {report.kill_id}",
            lambda: evidence.document(report),
            lambda why: evidence.document(unexplained(report, why)),
        )

    made: Callable[[OomReport], Mapping[str, Any]] = kill_list.to_dict if as_list else document
    if trace is None:
        others = {
            name: [asdict(kill) for kill in other_kills if kill.is_in_kernel is in_kernel]
            for name, in_kernel in (("userspace_kills", False), ("other_kernel_kills", True))
        }
        _print_document({"schema": 1, "trace": None, "kmsg": kmsg}, made, reports, others)
    else:
        is_known = trace.has_table("sigkills")
        after: dict[str, list[Any] | None] = {
            "held": [one.to_dict() for one in survivors],
            "sigkills": [one.to_dict() for one in sigkills] if is_known else None,
        }
        shown = {name: found for name, found in after.items() if found or not reports}
        _print_document({"schema": 1, "trace": str(trace.path)}, made, reports, shown)


def _print_document(
    before: dict[str, Any],
    made: Callable[[OomReport], Mapping[str, Any]],
    reports: Sequence[OomReport],
    after: Mapping[str, list[Any] | None],
) -> None:
    """Print a JSON object with the objects of kills, one after the other: a log may have too many to hold."""
    click.echo(json.dumps(before, indent=2).removesuffix("\n}") + ',\n  "kills": [', nl=False)
    separator, end = "\n    ", "]"
    with nullcontext() if sys.stdout.isatty() else standard_streams.progress_of("writing the kills") as now:
        for report in reports if now is None else _Counted(reports, now):
            text = json.dumps(made(report), indent=2).replace("\n", "\n    ")
            click.echo(separator + text, nl=False)
            separator, end = ",\n    ", "\n  ]"
    rest = json.dumps(after, indent=2).removeprefix("{") if after else "\n}"
    click.echo(f"{end}{',' if after else ''}{rest}")


def _write(renderables: Iterable[Written]) -> None:
    from tracer.render.terminal import console

    console.write(sys.stdout, renderables)


def _page_size(trace: AnalysedTrace | None, report: OomReport) -> int:
    from tracer.analysis.kernel_log.logged_kill import DEFAULT_PAGE_SIZE

    if trace is not None:
        return int(trace.meta["page_size"])
    place = report.kernel_log
    return (place.page_size if place is not None else None) or DEFAULT_PAGE_SIZE


def _numbered(
    reports: Sequence[OomReport], kill_id: int, *, is_of_log: bool, cgroup: str | None
) -> OomReport:
    from tracer.analysis.explain.logged_kills import LogKills
    from tracer.analysis.explain.postmortem import no_such_kill

    numbers = reports.numbers() if isinstance(reports, LogKills) else [report.kill_id for report in reports]
    if kill_id not in numbers:
        place = f"this {'log' if is_of_log else 'trace'}" + ("" if cgroup is None else f" for {cgroup!r}")
        raise no_such_kill(kill_id, numbers, place)
    return reports[numbers.index(kill_id)]
