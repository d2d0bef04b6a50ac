"""What a trace holds, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from tracer import units
from tracer.analysis.results.json_values import limit_columns
from tracer.render.terminal import paragraphs
from tracer.render.words import places, signal_ways
from tracer.render.words.escape import visible

_MOST_FILTERS: Final = 8
_MOST_CGROUPS: Final = 12


@dataclass(frozen=True, slots=True)
class TracedCgroup:
    """A cgroup of the trace, life `run` of `runs` of its name; `peak_usage_bytes` is null where no usage was
    read."""

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
    """`rows`: table -> rows; `unnamed_stacks`: of the rows of `stacks`, those of addresses alone; `lost`:
    every stream -> records lost; `duration_s` of an interrupted recording is up to its last record. `cgroups`
    are those with data, what matters first. Of the `kills`, the probe missed `kills_of_log_alone`, which the
    kernel log has."""

    path: str
    interrupted: bool
    duration_s: float | None
    size_bytes: int
    rows: Mapping[str, int]
    unnamed_stacks: int
    lost: Mapping[str, int]
    cgroups: Sequence[TracedCgroup]
    kills: int
    kills_of_log_alone: int
    meta: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The document of `info --json`."""
        cgroups = [asdict(one) | limit_columns(one.limit_bytes) for one in self.cgroups]
        return {"schema": 1, **asdict(self), "cgroups": cgroups}


def lines(summary: Summary) -> Iterator[RenderableType]:
    """The summary as sections of labels and values."""
    meta = summary.meta
    yield Text(visible(summary.path), style="bold")
    if summary.interrupted:
        yield Text(
            "The recording was interrupted, or still goes on: this is what had been written so far.", "yellow"
        )
    ended = "not by itself" if summary.interrupted else visible(str(meta["end_reason"]))
    yield paragraphs.facts(
        [
            ("ended", ended),
            ("started", visible(str(meta["started"]))),
            ("duration", units.duration(summary.duration_s)),
            ("size", units.size(summary.size_bytes)),
            ("OOM kills", _kills(summary)),
            ("command", visible(" ".join(map(str, meta["command_line"])))),
            *_filters(meta["filters"]),
        ]
    )
    yield paragraphs.title("Machine")
    yield paragraphs.facts(
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
    yield paragraphs.title("Rows")
    yield paragraphs.facts(_rows(summary))
    yield paragraphs.title("Lost records")
    lost = [(visible(stream), units.count(records)) for stream, records in summary.lost.items() if records]
    yield paragraphs.facts(lost or [("none lost", "in any stream: " + ", ".join(summary.lost))])
    yield from _cgroups(summary.cgroups)
    yield paragraphs.title("Probes")
    yield paragraphs.facts([*signal_ways.taken(meta["probes"])] or [(units.UNKNOWN, "")], label_cells=0)
    yield paragraphs.title("What tracing cost")
    yield paragraphs.facts([*_flat(meta["cost"])] or [(units.UNKNOWN, "")], label_cells=0)


def _left_out(meta: Mapping[str, Any]) -> str:
    """Of the kernel log."""
    left_out = meta.get("kernel_log_left_out") or {}
    reports = left_out.get("reports")
    lines = units.count(left_out.get("lines"))
    return f"; without {units.count(reports)} OOM reports ({lines} lines) on other cgroups" if reports else ""


def _rows(summary: Summary) -> Iterator[tuple[str, str]]:
    for table, rows in summary.rows.items():
        count = units.count(rows)
        if table == "stacks" and summary.unnamed_stacks:
            unnamed = units.count(summary.unnamed_stacks)
            count += f", {unnamed} of addresses alone (the process was gone, or its code has no names)"
        yield table, count


def _kills(summary: Summary) -> str:
    if not summary.kills:
        return "none"
    alone = summary.kills_of_log_alone
    return units.count(summary.kills) + (
        f", {units.count(alone)} of them only in the kernel log" if alone else ""
    )


def _cgroups(cgroups: Sequence[TracedCgroup]) -> Iterator[RenderableType]:
    yield paragraphs.title("Cgroups with data")
    table = paragraphs.Rows(("peak usage", ">"), ("limit", ">"), ("kills", ">"), ("cgroup", "<"))
    for one in cgroups[:_MOST_CGROUPS]:
        container = [f"container {visible(one.container)}"] if one.container else []
        life = [places.one_of(one.run, one.runs)] if one.runs > 1 else []
        name = visible(one.path) + (f" ({', '.join(container + life)})" if container or life else "")
        kills = units.count(one.kills) if one.kills else ""
        table.add_row(units.size(one.peak_usage_bytes), units.limit(one.limit_bytes), kills, name)
    yield paragraphs.indented(table)
    if len(cgroups) > _MOST_CGROUPS:
        yield paragraphs.note(f"and {len(cgroups) - _MOST_CGROUPS} more (--json lists them all)")


def _filters(filters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was asked for, without what was not, and without the command, which the command line ends with."""
    asked = {
        name: value
        for name, value in filters.items()
        if name != "command" and value is not None and value != []
    }
    for name, value in asked.items():
        shown = value[:_MOST_FILTERS] if isinstance(value, list) else value
        more = f" and {len(value) - len(shown)} more" if shown != value else ""
        for leaf, text in _flat(shown, name):
            yield "filter", f"{leaf}: {text}{more}"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(`a.b`, value) for each leaf of what meta.json nests."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield visible(name), visible(" ".join(map(str, value)))
    elif name.endswith("_bytes"):
        yield visible(name.removesuffix("_bytes")), units.size(value)
    else:
        yield visible(name), units.UNKNOWN if value is None else visible(str(value))
