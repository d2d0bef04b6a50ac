"""`export`: a trace, or a part of it, as a file for other tools."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from tracer.cli import value_completion
from tracer.cli.output import STDOUT, Write, check_folder, check_output, write_folder, write_output
from tracer.cli.typed_values import PathOrUrl
from tracer.errors import UsageError
from tracer.extras import from_extra

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from tracer.analysis.trace import AnalysedTrace
    from tracer.render.export.openmetrics_text import Event
    from tracer.render.export.tracks import Tracks

_MOST_MOMENTS: Final = 10_000  # over all cgroups: each moment of a cgroup has up to 50 values
_MOST_ROWS: Final = 500_000  # of the timelines of all cgroups: some 200 MiB


def _folded(trace: AnalysedTrace, cgroup: str | None, kill_id: int | None) -> Iterator[str]:
    from tracer.analysis.views import code_samples
    from tracer.render.export import folded

    return folded.lines(code_samples.charged(trace, trace.samples_of_code(cgroup, kill_id)))


def _pprof(trace: AnalysedTrace, cgroup: str | None, kill_id: int | None) -> Iterator[bytes]:
    from tracer.analysis.core.columns import times_ns
    from tracer.analysis.views import code_samples

    with from_extra("pprof", "export --to pprof"):
        from tracer.render.export import pprof_profile

        samples = trace.samples_of_code(cgroup, kill_id)
        moments = times_ns(samples).tolist() or [0]
        yield pprof_profile.profile(
            code_samples.by_origin(trace, samples),
            period_bytes=trace.meta["filters"]["stacks_bytes"],
            begin_ns=moments[0],
            end_ns=moments[-1],
            trace=trace.path.resolve().name,
        )


def _perfetto(trace: AnalysedTrace, cgroup: str | None, _kill_id: int | None) -> Iterator[bytes]:
    with from_extra("perfetto", "export --to perfetto"):
        from tracer.render.export import perfetto_trace

    return perfetto_trace.packets(_tracks(trace, cgroup), trace.meta["clock"])


def _parquet(file: IO[bytes], schema: pa.Schema, batches: Iterator[pa.Table]) -> None:
    from tracer.render.export import table_files

    table_files.write_parquet(file, schema, batches)


def _csv(file: IO[bytes], schema: pa.Schema, batches: Iterator[pa.Table]) -> None:
    from tracer.render.export import table_files

    table_files.write_csv(file, schema, batches)


def _chrome(trace: AnalysedTrace, cgroup: str | None, _kill_id: int | None) -> Iterator[str]:
    from tracer.render.export import chrome_trace

    return chrome_trace.pieces(_tracks(trace, cgroup), trace.meta["clock"])


def _openmetrics(trace: AnalysedTrace, cgroup: str | None, _kill_id: int | None) -> Iterator[str]:
    from tracer.analysis import replay
    from tracer.analysis.core import naming
    from tracer.render.export import openmetrics_text

    members = None if cgroup is None else set(naming.members_of(trace, naming.select(trace, cgroup)).tolist())
    every = _every(trace, len(naming.with_data(trace)), _MOST_MOMENTS)
    moments = (
        (moment_ns, [one for one in cgroups if members is None or one.cgroup_id in members])
        for moment_ns, cgroups in replay.moments(trace, every)
    )
    left_out = frozenset() if replay.knows_cushions(trace) else openmetrics_text.NEED_CUSHIONS
    cpu_s = (trace.meta.get("cost") or {}).get("cpu_s")
    return openmetrics_text.families(moments, _events(trace, cgroup), cpu_s=cpu_s, left_out=left_out)


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A format of one file: its pieces, and the notices for users."""

    pieces: Callable[[AnalysedTrace, str | None, int | None], Iterator[str] | Iterator[bytes]]
    help: str
    takes_kill: bool = False
    is_binary: bool = False


@dataclass(frozen=True, slots=True)
class DatasetFormat:
    """A dataset, to which many traces can be added."""

    help: str
    takes_kill: bool = False


@dataclass(frozen=True, slots=True)
class FolderFormat:
    """A format of a directory with a file for each table: the function that writes a file, the end of its
    name, and the notices for users."""

    write: Callable[[IO[bytes], pa.Schema, Iterator[pa.Table]], None]
    suffix: str
    help: str
    takes_kill: bool = False


FORMATS: Final[dict[str, FileFormat | FolderFormat | DatasetFormat]] = {
    "perfetto": FileFormat(
        _perfetto, "memory of cgroups, waits and kills, for ui.perfetto.dev", is_binary=True
    ),
    "chrome": FileFormat(_chrome, "the same as JSON, for chrome://tracing and other viewers"),
    "csv": FolderFormat(_csv, ".csv", "a directory with a file for each table, names beside ids"),
    "parquet": FolderFormat(_parquet, ".parquet", "the same tables in Parquet"),
    "openmetrics": FileFormat(_openmetrics, "the samples that Prometheus would have scraped from serve"),
    "folded": FileFormat(
        _folded,
        "the code that made memory grow, for flame graphs",
        takes_kill=True,
    ),
    "pprof": FileFormat(_pprof, "the same for pprof, Pyroscope and Parca", takes_kill=True, is_binary=True),
    "dataset": DatasetFormat("many traces as one dataset, for fleet, Dask and DuckDB"),
}


_LISTED: Final = "\n".join(f"  {name:<13}{form.help}" for name, form in FORMATS.items())


@click.command(
    epilog=f"""\b
Formats:
{_LISTED}

\b
Examples:
  memcg-tracer export traces/page-cache --to perfetto -o page-cache.pftrace
  memcg-tracer export traces/page-cache --to parquet -o page-cache-tables
  memcg-tracer export traces/mine --to folded -o mine.folded    # for flamegraph.pl, speedscope
  memcg-tracer export traces/mine --to pprof -o mine.pb.gz      # for go tool pprof, Pyroscope, Parca
  memcg-tracer export traces/mine --to folded --kill 1 -o - | sort -t' ' -k2 -n
  memcg-tracer export /var/lib/memcg-tracer --to dataset -o s3://oom/dataset"""
)
@click.argument("paths", metavar="TRACE...", nargs=-1, type=PathOrUrl())
@click.option(
    "--to",
    "form",
    type=click.Choice(list(FORMATS)),
    required=True,
    help="The format: see below.",
)
@click.option(
    "-o",
    "--output",
    "--out",
    metavar="PATH",
    required=True,
    type=click.Path(),
    help="The file or directory to write; - is standard output, for a format of one file. A dataset may "
    "lie at a URL: s3://, gs:// and others of fsspec.",
)
@value_completion.cgroup_of_trace(
    ": only matching cgroups and their descendants.",
)
@value_completion.kill_of_trace(
    "With --to folded or pprof: only the allocations that led to kill number N of explain.",
)
@click.option("-f", "--force", is_flag=True, help="Replace PATH if it exists.")
@click.option(
    "--raw/--no-raw",
    "is_raw",
    default=None,
    help="With --to dataset: whether to write the tables of the traces beside their summaries.  "
    "[default: raw]",
)
@click.option(
    "--compact",
    "compacts",
    is_flag=True,
    help="With --to dataset: merge all small files of a day, however few; TRACE may be left out.",
)
def command(
    paths: tuple[Path | str, ...],
    *,
    form: str,
    output: str,
    cgroup: str | None,
    kill_id: int | None,
    force: bool,
    is_raw: bool | None,
    compacts: bool,
) -> None:
    """Write a trace in a format that other tools read.

    A dataset takes any number of traces, directories and URLs, and adds the traces that it lacks. On this
    machine, only you can read the output, because it contains names of processes, cgroups and functions.
    """
    chosen = FORMATS[form]
    if kill_id is not None and not chosen.takes_kill:
        instead = "" if isinstance(chosen, DatasetFormat) else f", or restrict --to {form} with -c"
        raise UsageError(f"--kill is for --to folded and --to pprof: leave it out{instead}")
    if isinstance(chosen, DatasetFormat):
        if cgroup is not None or force:
            what = "-c" if cgroup is not None else "-f"
            raise UsageError(f"--to dataset adds whole traces and replaces none: leave out {what}")
        if not (paths or compacts):
            raise UsageError("name a trace, or a directory of traces")
        if output == "-":
            raise UsageError("--to dataset writes a folder: name one, or a URL (./- for one with this name)")
        from tracer.cli.dataset_export import add_to_dataset

        add_to_dataset(paths, output, is_raw=is_raw is not False, compacts=compacts)
        return
    if is_raw is not None or compacts:
        what = "--compact" if compacts else "--raw" if is_raw else "--no-raw"
        raise UsageError(f"{what} is for --to dataset: leave it out")
    if len(paths) != 1:
        named = f"{len(paths)} are named: only a dataset takes more" if paths else "none is named"
        raise UsageError(f"--to {form} takes one TRACE, and {named}")
    if isinstance(paths[0], str):
        raise UsageError(f"--to {form} takes no URL, as only --to dataset does: copy the trace to a folder")
    _export(paths[0], form, Path(output), cgroup=cgroup, kill_id=kill_id, force=force)


def _export(
    path: Path, form: str, output: Path, *, cgroup: str | None, kill_id: int | None, force: bool
) -> None:
    """Write a trace in a format of one file or directory."""
    from tracer.analysis.trace import AnalysedTrace

    chosen = FORMATS[form]
    assert not isinstance(chosen, DatasetFormat)
    if isinstance(chosen, FolderFormat):
        if output.suffix == chosen.suffix:
            # pandas and DuckDB read a folder of that name as one table, with rows of all tables mixed.
            raise UsageError(
                f"--to {form} writes a folder with a file for each table: name it without {output.suffix}"
            )
        check_folder(output, force, _names(chosen).values())
        trace = AnalysedTrace(path)
        write_folder(output, _table_files(trace, chosen, cgroup))
        trace.defects.raise_if_any()
        return
    if output == STDOUT and chosen.is_binary and sys.stdout.isatty():
        raise UsageError(f"--to {form} writes no text for a terminal: name a file, or redirect the output")
    check_output(output, force)
    trace = AnalysedTrace(path)

    def pieces() -> Iterator[str | bytes]:
        yield from chosen.pieces(trace, cgroup, kill_id)

    write_output(output, pieces())
    trace.defects.raise_if_any()


def _table_files(trace: AnalysedTrace, form: FolderFormat, cgroup: str | None) -> Iterator[tuple[str, Write]]:
    """Yield (name, function that writes it) for the file of each table."""
    from tracer.analysis import named_tables
    from tracer.analysis.core import naming

    members = None if cgroup is None else naming.members_of(trace, naming.select(trace, cgroup))

    def write_table(file: IO[bytes], table: str) -> None:
        form.write(file, named_tables.schema_of(table), named_tables.batches(trace, table, members))

    for table, name in _names(form).items():
        yield name, partial(write_table, table=table)


def _names(form: FolderFormat) -> dict[str, str]:
    """Return table -> name of its file."""
    from tracer.schema import TABLES

    return {table: table + form.suffix for table in TABLES}


def _tracks(trace: AnalysedTrace, cgroup: str | None) -> Tracks:
    """Return the tracks of the matching cgroups, of the tasks in them and in cgroups below, and of the kills
    that concern them."""
    from tracer.analysis.core import naming
    from tracer.analysis.views import reclaim
    from tracer.render.export import tracks

    nested = reclaim.nested(trace)
    if cgroup is not None:
        members = naming.members_of(trace, naming.select(trace, cgroup))
        nested = nested[nested["cgroup_id"].isin(members)]
    return tracks.from_analyses(
        timeline=_timeline(trace, cgroup),
        nested=nested,
        reclaim=trace.reclaim,
        processes=trace.processes,
        paths=naming.paths_by_id(trace.cgroups),
        kills=trace.explain(cgroup, is_sized=False),
    )


def _timeline(trace: AnalysedTrace, cgroup: str | None) -> pd.DataFrame:
    from tracer.analysis.core import naming
    from tracer.analysis.views.timeline import timeline

    shown = naming.with_data(trace) if cgroup is None else naming.select(trace, cgroup)
    return timeline(trace, cgroup, _every(trace, len(shown), _MOST_ROWS))


def _every(trace: AnalysedTrace, cgroups: int, most_rows: int) -> str:
    """Return 100 ms, or more if the rows of the cgroups would take too much memory; then report it."""
    from tracer.analysis.views import focus

    every = focus.row_width_of_all(trace, cgroups, most_rows)
    if every != "100ms":
        click.echo(
            f"memcg-tracer: the trace is long: counters have a value each {every} instead of 100ms",
            err=True,
        )
    return every


def _events(trace: AnalysedTrace, cgroup: str | None) -> list[Event]:
    """Return the events of counters that do not follow from the state of cgroups: kills and lost records."""
    from tracer.analysis.core.columns import records, times_ns
    from tracer.metric_families import kill_labels
    from tracer.render.export.openmetrics_text import Event

    places = {row["cgroup_id"]: row for row in trace.table("cgroups").to_pylist()}
    columns = ("path", "container", "pod", "namespace", "unit")

    def labels_of(*numbers: int | None) -> tuple[str, ...]:
        """Return the labels of the first of these cgroups that is known."""
        place = next((places[one] for one in numbers if one in places), dict.fromkeys(columns))
        return kill_labels(**{name: place[name] for name in columns} | {"path": place["path"] or ""})

    events = []
    for report in trace.explain(cgroup, is_sized=False):
        labels = labels_of(report.limit_owner.cgroup_id, *(victim.cgroup_id for victim in report.victims))
        if report.time is not None:
            time_ns = report.time.as_unit("ns").value
            events.append(Event(time_ns, "oom_kills_seen", labels))
            cause = (*labels, report.verdict.cause)
            events.append(Event(time_ns, "oom_kills", cause, exemplar=trace.path.resolve().name))
    for kill in trace.sigkilled(cgroup):
        if kill.time is not None:
            sender = "" if kill.sender is None else kill.sender.comm
            labels = (*labels_of(kill.target.cgroup_id), sender)
            events.append(Event(kill.time.as_unit("ns").value, "sigkills", labels))
    losses = zip(times_ns(trace.loss).tolist(), records(trace.loss), strict=True)
    events += [Event(time_ns, "lost_records", (str(row["stream"]),), row["lost"]) for time_ns, row in losses]
    return events
