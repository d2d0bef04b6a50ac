"""The contents of a trace, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from tracer import units
from tracer.analysis.results.forms import as_object
from tracer.analysis.results.quality import SummedInterval
from tracer.render.terminal import console
from tracer.render.words import places, quality_facts
from tracer.render.words.escape import visible
from tracer.render.words.kill_facts import shown_time
from tracer.render.words.quality_facts import end_in_words, summed

_MOST_FILTERS: Final = 8
_WHEN_SUMMED: Final = "totals are exact; which pages came and went is not known"
_WHEN_LOST: Final = {"residue": ": from then on, totals of charge are not exact"}
_LEAST_SHARE: Final = 0.0005
_MOST_CGROUPS: Final = 12


@dataclass(frozen=True, slots=True)
class TracedCgroup:
    """A cgroup of the trace: run `run` of the `runs` lives of its name.

    `peak_usage_bytes` is None if usage was never read.
    """

    path: str
    cgroup_id: int
    container: str | None
    run: int
    runs: int
    limit_bytes: int | None
    peak_usage_bytes: int | None
    kills: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a trace.

    `duration_s` of an interrupted recording ends at its last record. `rows` maps each table that the recorder
    knew to its number of rows, `lost` each stream to its number of lost records. `of_no_process` is the share
    of the charged and freed bytes whose process is not known; None without any bytes. `summed` are the
    intervals in which page-cache events were summed. `unnamed_stacks` counts the rows of `stacks` that have
    only addresses, `cut_off_stacks` those whose unwinding ended at an address that is no code; None: not
    known, as in older traces. `cgroups` are the cgroups with data, the most important first.
    `kills_of_log_alone` counts the kills that only the kernel log has, because the probe missed them; `kills`
    includes them.
    """

    path: str
    interrupted: bool
    duration_s: float | None
    size_bytes: int
    rows: Mapping[str, int]
    of_no_process: float | None
    unnamed_stacks: int
    cut_off_stacks: int | None
    lost: Mapping[str, int]
    summed: Sequence[SummedInterval]
    cgroups: Sequence[TracedCgroup]
    kills: int
    kills_of_log_alone: int
    meta: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the document of `info --json`."""
        return {"schema": 1, **as_object(self)}


def lines(summary: Summary) -> Iterator[RenderableType]:
    """Yield the summary as sections of labels and values."""
    meta = summary.meta
    yield Text(visible(summary.path), style="bold")
    if summary.interrupted:
        yield Text(
            "The recording was interrupted or is still running: this is what has been written so far.",
            "yellow",
        )
    ended = "no end was recorded" if summary.interrupted else end_in_words(str(meta["end_reason"]))
    yield console.facts(
        [
            ("ended", ended),
            ("started", shown_time(pd.Timestamp(meta["started"]).tz_convert("UTC"))),
            ("duration", units.duration(summary.duration_s)),
            *_history(meta.get("history")),
            ("size", units.size(summary.size_bytes)),
            ("OOM kills", _kills(summary)),
            ("command", visible(" ".join(map(str, meta["command_line"])))),
            *_filters(meta["filters"]),
        ]
    )
    yield console.title("Machine")
    yield console.facts(
        [
            ("host", visible(str(meta["host_name"]))),
            (
                "kernel",
                visible(f"{meta['kernel_release']} {meta['architecture']}, cgroup v{meta['cgroup_version']}"),
            ),
            ("kernel log", visible(str(meta.get("kernel_log", "not read"))) + _left_out(meta)),
            ("CPUs", f"{meta['cpus']}, pages of {units.size(meta['page_size'])}"),
            (
                "recorded by",
                visible(f"memcg-tracer {meta['tool_version']}, trace schema {meta['schema_version']}"),
            ),
        ]
    )
    yield console.title("Rows")
    yield console.facts(_rows(summary))
    yield console.title("Lost records")
    lost = [
        (visible(stream), units.count(records) + _WHEN_LOST.get(stream, ""))
        for stream, records in summary.lost.items()
        if records
    ]
    yield console.facts(lost or [("none", "in all streams: " + ", ".join(summary.lost))])
    if summary.summed:
        yield console.title("Summed events")
        yield console.facts([("pagecache", summed(summary.summed, _WHEN_SUMMED))])
    yield from _cgroups(summary.cgroups)
    yield console.title("Probes")
    yield console.facts([*quality_facts.ways_taken(meta["probes"])] or [(units.UNKNOWN, "")], label_cells=0)
    yield console.title("Cost of tracing")
    yield console.facts([*_flat(meta["cost"])] or [(units.UNKNOWN, "")], label_cells=0)


def _history(history: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Yield the resolutions of the rows of a trace of `watch`, each with the time from which it holds."""
    if history is None:
        return
    stages = []
    for stage in history.get("fineness", ()):
        begin = shown_time(pd.Timestamp(stage["begin"]).tz_convert("UTC"))
        fineness = f"one in {stage['every_ms']} ms" if stage["every_ms"] else "as recorded"
        stages.append(f"{fineness} from {begin}")
    yield "history", "; ".join(stages) or "empty: nothing had happened"


def _left_out(meta: Mapping[str, Any]) -> str:
    """Return the clause on the OOM reports that the trace leaves out of the kernel log; empty without any."""
    left_out = meta.get("kernel_log_left_out") or {}
    reports = left_out.get("reports")
    lines = units.count(left_out.get("lines"))
    return (
        f"; without {units.count(reports)} OOM reports ({lines} lines) about other cgroups" if reports else ""
    )


def _rows(summary: Summary) -> Iterator[tuple[str, str]]:
    for table, rows in summary.rows.items():
        count = units.count(rows)
        if table == "charge" and summary.of_no_process:
            share = summary.of_no_process
            percent = units.percent(share, 1) if share >= _LEAST_SHARE else "less than 0.1 %"
            count += f", {percent} of the bytes by no known process"
        if table == "stacks" and summary.unnamed_stacks:
            unnamed = units.count(summary.unnamed_stacks)
            count += (
                f", {unnamed} of them with addresses only (the process was gone, or its code has no symbols)"
            )
        if table == "stacks" and summary.cut_off_stacks:
            count += f", {units.count(summary.cut_off_stacks)} where unwinding ended outside of code"
        if table == "contents" and (why := summary.meta.get("contents_left_out")) is not None:
            count += f", a look was late or left out: {visible(why)}"
        yield table, count


def _kills(summary: Summary) -> str:
    if not summary.kills:
        return "none"
    alone = summary.kills_of_log_alone
    return units.count(summary.kills) + (
        f", {units.count(alone)} of them only in the kernel log" if alone else ""
    )


def _cgroups(cgroups: Sequence[TracedCgroup]) -> Iterator[RenderableType]:
    yield console.title("Cgroups with data")
    table = console.Rows(("peak usage", ">"), ("limit", ">"), ("kills", ">"), ("cgroup", "<"))
    for one in cgroups[:_MOST_CGROUPS]:
        container = [f"container {visible(one.container)}"] if one.container else []
        life = [places.one_of(one.run, one.runs)] if one.runs > 1 else []
        name = visible(one.path) + (f" ({', '.join(container + life)})" if container or life else "")
        kills = units.count(one.kills) if one.kills else ""
        table.add_row(units.size(one.peak_usage_bytes), units.limit(one.limit_bytes), kills, name)
    yield console.indented(table)
    if len(cgroups) > _MOST_CGROUPS:
        yield console.note(f"and {len(cgroups) - _MOST_CGROUPS} more (--json lists them all)")


def _filters(filters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the given filters, except the command, which is part of the command line."""
    given = {
        name: value
        for name, value in filters.items()
        if name != "command" and value is not None and value != []
    }
    for name, value in given.items():
        shown = value[:_MOST_FILTERS] if isinstance(value, list) else value
        more = f" and {len(value) - len(shown)} more" if shown != value else ""
        for leaf, text in _flat(shown, name):
            yield "filter", f"{leaf}: {text}{more}"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (`a.b`, value) for each leaf of a nested value of meta.json."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield visible(name), visible(" ".join(map(str, value)))
    elif name.endswith("_bytes"):
        yield visible(name.removesuffix("_bytes")), units.size(value)
    elif name.endswith("_s") and isinstance(value, int | float):
        yield visible(name.removesuffix("_s")), units.duration(value)
    else:
        yield visible(name), units.UNKNOWN if value is None else visible(str(value))
