"""`explain`: why the OOM killer came."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, Final

import click

import tracer
from tracer.analysis import from_log
from tracer.analysis.log_memory import DEFAULT_PAGE_SIZE
from tracer.analysis.oom import no_such_kill
from tracer.analysis.report import OomReport
from tracer.analysis.trace import AnalysedTrace
from tracer.errors import TracerError, UsageError
from tracer.kernel.kmsg import grammar, lines
from tracer.kernel.kmsg.facts import LogReport
from tracer.render import explain_text, text

_KMSG: Final = Path("/dev/kmsg")
_CHUNK_BYTES: Final = 1 << 20
_OF_OTHER_FORMATS: Final = (
    (b"\x1f\x8b", "gzip: give it to zcat, and what that prints to --kmsg -"),
    (b"\xfd7zXZ\x00", "xz: give it to xzcat, and what that prints to --kmsg -"),
    (b"\x28\xb5\x2f\xfd", "zstd: give it to zstdcat, and what that prints to --kmsg -"),
    (b"BZh", "bzip2: give it to bzcat, and what that prints to --kmsg -"),
    (b"LPKSHHRH", "a journal: give it to journalctl -k --file, and what that prints to --kmsg -"),
)
"""How a file that is no text begins -> what to do."""


@click.command(
    epilog="""\b
Examples:
  memcg-tracer explain traces/page-cache
  memcg-tracer explain traces/page-cache --kill 1 -v
  memcg-tracer explain traces/page-cache --json | jq '.kills[].verdict'
  journalctl -k | memcg-tracer explain --kmsg -"""
)
@click.argument("path", metavar="[TRACE]", type=click.Path(path_type=Path), required=False)
@click.option(
    "--kmsg",
    metavar="FILE",
    help="Explain the kills in a kernel log instead (dmesg, journalctl -k, kern.log); - is standard input.",
)
@click.option("--kill", "kill_id", metavar="N", type=int, help="Explain kill number N. Default: the first.")
@click.option("-v", "--verbose", is_flag=True, help="Show whole stacks, all rows of the tables, the probes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: all kills, or kill N.")
def command(
    path: Path | None, *, kmsg: str | None, kill_id: int | None, verbose: bool, as_json: bool
) -> None:
    """Explain an OOM kill: why it came, and why then.

    Without a kill in the trace it says what held instead: how near each cgroup came to its limit and what
    reclaim gave back. From a kernel log alone it says what the log tells, and what it cannot.
    """
    if (path is None) == (kmsg is None):
        raise UsageError("give either a TRACE or --kmsg FILE; see memcg-tracer explain -h")
    trace = None if path is None else tracer.open(path)
    reports = trace.explain() if trace is not None else list(from_log.explain(read_log(str(kmsg))))
    place = "this trace" if kmsg is None else "this log"
    chosen = reports if kill_id is None else [_of_number(reports, kill_id, place)]
    if as_json:
        shown = document(trace, chosen) if trace is not None else log_document(str(kmsg), chosen)
        click.echo(json.dumps(shown, indent=2))
    elif chosen:
        others = [report for report in reports if report is not chosen[0]]
        page_size = _page_size(trace, chosen[0])
        written = explain_text.post_mortem(chosen[0], others, page_size=page_size, verbose=verbose)
        text.write(sys.stdout, written)
    elif trace is not None:
        text.write(sys.stdout, explain_text.held(trace.held()))
    else:
        click.echo(
            "No report of the OOM killer is in this log: the kernel killed nothing, or said so elsewhere."
        )


def document(trace: AnalysedTrace, reports: list[OomReport]) -> dict[str, Any]:
    """The object of `explain --json`; `held` says what lived where nothing was killed."""
    kills = [report.to_dict() for report in reports]
    held = {} if kills else {"held": [one.to_dict() for one in trace.held()]}
    return {"schema": 1, "trace": str(trace.path), "kills": kills, **held}


def log_document(log: str, reports: list[OomReport]) -> dict[str, Any]:
    """The same of a kernel log."""
    return {"schema": 1, "trace": None, "kmsg": log, "kills": [report.to_dict() for report in reports]}


def read_log(log: str) -> Iterator[LogReport]:
    """The reports in a file, or in standard input for `-`. TracerError where it is not text at all."""
    if log != "-" and _KMSG.exists() and _KMSG.samefile(log):
        raise TracerError(f"{log} has no end: give what dmesg prints to --kmsg -")
    with nullcontext(sys.stdin.buffer) if log == "-" else Path(log).open("rb") as stream:
        first = stream.read(_CHUNK_BYTES)
        for beginning, what in _OF_OTHER_FORMATS:
            if first.startswith(beginning):
                raise TracerError(f"{_name(log)} is {what}")
        is_any = False
        for report in grammar.reports(lines.split(_chunks(first, stream))):
            is_any = True
            yield report
    if not is_any and b"\0" in first:
        raise TracerError(f"{_name(log)} is no text: give what dmesg or journalctl -k prints, or a kern.log")


def _name(log: str) -> str:
    return "standard input" if log == "-" else log


def _chunks(first: bytes, stream: IO[bytes]) -> Iterable[bytes]:
    chunk = first
    while chunk:
        yield chunk
        chunk = stream.read(_CHUNK_BYTES)


def _page_size(trace: AnalysedTrace | None, report: OomReport) -> int:
    if trace is not None:
        return int(trace.meta["page_size"])
    place = report.kernel_log
    return (place.page_size if place is not None else None) or DEFAULT_PAGE_SIZE


def _of_number(reports: list[OomReport], kill_id: int, place: str) -> OomReport:
    for report in reports:
        if report.kill_id == kill_id:
            return report
    raise no_such_kill(kill_id, [report.kill_id for report in reports], place)
