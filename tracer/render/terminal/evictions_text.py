"""The flows of page cache for a terminal: the answer, a few facts, and a table of the largest flows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from tracer import units
from tracer.analysis.views.cache_flow import CacheFlow, KernelCount
from tracer.analysis.views.reclaim import REQUESTED
from tracer.analysis.views.thrash import LEAST_EVICTED_BYTES, LEAST_SHARE, SOON_NS
from tracer.quantities import EVICTIONS_COLUMNS, EvictionsColumn
from tracer.render.terminal import console
from tracer.render.words import eviction_words
from tracer.render.words.escape import fitted, visible
from tracer.render.words.prose import prose
from tracer.render.words.quality_facts import summed

_MOST_ROWS: Final = 15
_MOST_INTERVALS: Final = 8
_GAP: Final = 2
_LEAST_NAMES_CELLS: Final = (0, 30, 42, 54, 66)
"""Number of columns of names (the index) -> their least width. Columns of sizes are left out to keep it."""

_WHEN_SUMMED: Final = 'sizes are exact, but "read again", "read again soon" and "left" may be too low'
_COLUMNS: Final = tuple(sorted((one for one in EVICTIONS_COLUMNS if one.head), key=lambda one: one.place))


@dataclass(frozen=True, slots=True)
class Context:
    """`columns` is the width of the output, and `origin` the beginning of the trace (UTC)."""

    columns: int
    origin: pd.Timestamp
    interrupted: bool


def lines(flow: CacheFlow, by: str, table: pd.DataFrame, context: Context) -> Iterator[RenderableType]:
    """Yield the text. `table` has the rows of `flow`, summed by `by` (`analysis.views.evictions`)."""
    yield prose(summary(flow), "bold")
    yield Text()
    yield console.facts(_facts(flow, context))
    if len(table):
        yield console.title(_GROUPINGS[by].title)
        yield from _table(by, table, context.columns)
    if flow.thrash:
        yield from _read_again_soon(flow, context)


def summary(flow: CacheFlow) -> str:
    """Return the answer in one or two sentences, with escaped names."""
    runs = f" ({units.count(flow.runs)} runs)" if (flow.runs or 1) > 1 else ""
    whose = "" if flow.cgroup is None else f" of {visible(flow.cgroup)}{runs}"
    if not (flow.added_bytes or flow.evicted_bytes or flow.dropped_bytes):
        return f"No page cache{whose} was added or removed in this trace."
    if not flow.evicted_bytes:
        dropped = f", {units.size(flow.dropped_bytes)} was dropped" if flow.dropped_bytes else ""
        return (
            f"No page cache{whose} was evicted: {units.size(flow.added_bytes)} was added{dropped}, "
            f"{units.size(flow.left_bytes)} of the added cache was left at the end."
        )
    elsewhere = flow.returned_elsewhere_bytes
    here = flow.returned_bytes - elsewhere
    again = f"{units.size(here) if here else 'none'} of it was read again"
    if elsewhere:
        again += f" here, and {units.size(elsewhere)} by other cgroups"
    cause = next(iter(flow.evicted_by_cause))
    is_asked = 2 * flow.evicted_on_request_bytes >= flow.evicted_bytes
    is_all = (
        flow.evicted_on_request_bytes == flow.evicted_bytes if is_asked else len(flow.evicted_by_cause) == 1
    )
    mostly = "" if is_all else ", mostly"
    return (
        f"{units.size(flow.evicted_bytes)} of page cache{whose} was evicted{mostly} "
        f"{REQUESTED if is_asked else eviction_words.WHY[cause]}; "
        f"{again}.{_evictor(flow)}"
    )


def _evictor(flow: CacheFlow) -> str:
    evictor = flow.evictor
    if evictor is None:
        return ""
    share = evictor.evicted_bytes / flow.evicted_bytes
    part = f"most of it, {units.size(evictor.evicted_bytes)}"
    if share == 1:
        part = "all of it"
    elif share <= 0.5:
        part = f"more of it than any other process, {units.size(evictor.evicted_bytes)}"
    return f" {_process(evictor.comm, evictor.tgid)} evicted {part}."


def _process(comm: str | None, tgid: int) -> str:
    return f"pid {tgid}" if comm is None else f"{visible(comm)} (pid {tgid})"


def _facts(flow: CacheFlow, context: Context) -> Iterator[tuple[str, str]]:
    yield "added", _with_causes(flow.added_bytes, flow.added_by_cause)
    yield "evicted", _with_causes(flow.evicted_bytes, flow.evicted_by_cause)
    for amount, whose in (
        (flow.evicted_from_others_bytes, "was charged to a different cgroup than that of the evicting task"),
        (flow.evicted_from_removed_bytes, "was charged to a removed cgroup"),
        (flow.evicted_from_nobody_bytes, "was charged to no cgroup"),
    ):
        if amount:
            yield "", f"{units.size(amount)} of it {whose}"
    yield "dropped", _with_causes(flow.dropped_bytes, flow.dropped_by_cause)
    yield "read again", _read_again(flow)
    if flow.refaults.kernel:
        yield "", _beside_the_kernel(flow.refaults.kernel, "invalidate" in flow.dropped_by_cause)
    elif "refaults.kernel" in flow.quality.unknown:
        yield "", f"the kernel's count is not known: {flow.quality.unknown['refaults.kernel']}"
    left = units.size(flow.left_bytes) if flow.left_bytes else "nothing"
    yield "left", f"{left} of the added cache"
    yield "before", _before(flow, context)
    if flow.shared_files:
        files = "1 file has" if flow.shared_files == 1 else f"{units.count(flow.shared_files)} files have"
        yield "shared", f"{files} cache charged to several cgroups: the first to read a page is charged"
    if flow.quality.lost_records:
        lost = units.count(flow.quality.lost_records)
        yield "lost", f'{lost} page-cache records: sizes may be too low, "read again" and "left" may be wrong'
    if flow.quality.summed:
        yield "summed", summed(flow.quality.summed, _WHEN_SUMMED)
    if context.interrupted:
        yield "interrupted", "the recording has no end: this is what had been written by then"


def _before(flow: CacheFlow, context: Context) -> str:
    """Return what is known of cache from before the trace."""
    found = flow.first_look
    if found is None:
        return f"not known: {visible(flow.quality.unknown['first_look'])}"
    if not found.bytes:
        return "nothing"
    after = units.duration(max((found.time - context.origin).total_seconds(), 0))
    return f"{units.size(found.bytes)} was there at the first look, {after} after the trace began"


def _with_causes(total: int, by_cause: Mapping[str, int]) -> str:
    if not total:
        return "nothing"
    if len(by_cause) == 1:
        return f"{units.size(total)}, all by {next(iter(by_cause))}"
    return f"{units.size(total)}: " + ", ".join(
        f"{cause} {units.size(part)}" for cause, part in by_cause.items()
    )


def _read_again(flow: CacheFlow) -> str:
    refaults = flow.refaults
    if not refaults.bytes or refaults.median_away_ms is None:
        return "nothing" if not flow.returned_bytes else "nothing that is now charged here"
    half = units.duration(refaults.median_away_ms / 1000)
    elsewhere = ""
    if refaults.other_cgroup_bytes:
        elsewhere = f"; {units.size(refaults.other_cgroup_bytes)} is now charged to another cgroup"
    return f"{units.size(refaults.bytes)}, half of it within {half} of its eviction{elsewhere}"


def _beside_the_kernel(counts: Sequence[KernelCount], may_be_paged_out: bool) -> str:
    """Return the kernel's count, and if it differs, the count of this trace and the possible reasons.

    `may_be_paged_out`: page cache was dropped on request. If that was MADV_PAGEOUT, the kernel reclaimed it
    (reclaim_pages in mm/vmscan.c), and counts it when it is read again.
    """
    seen = sum(count.refaulted_bytes for count in counts)
    counted = sum(count.kernel_bytes for count in counts)
    count = f"the kernel's own count is {units.size(counted)}"
    if units.size(seen) == units.size(counted):
        return f"{count} as well"
    paged_out = "what a program paged out (MADV_PAGEOUT), " if may_be_paged_out else ""
    why = (
        f"the kernel also counts {paged_out}evictions that were earlier, lost or summed, and it counts large "
        "folios as a whole"
        if counted > seen
        else eviction_words.COUNTED_LESS
    )
    return f"{count}, and {units.size(seen)} in this trace for the same time: {why}"


def _table(by: str, table: pd.DataFrame, columns: int) -> Iterator[RenderableType]:
    """Yield a table of the first rows, and one row for all others."""
    listed = table.iloc[:_MOST_ROWS]
    rest = table.iloc[len(listed) :]
    names = _names(by, listed, len(rest))
    cells = {
        one: [
            _amount(value) for value in (*listed[one.field], *([rest[one.field].sum()] if len(rest) else []))
        ]
        for one in _COLUMNS
        if one.only_by in ("", by) and (one.is_constant or table[one.field].any())
    }
    shown = _that_fit(cells, columns - _LEAST_NAMES_CELLS[len(names)])
    room = columns - _GAP * len(names) - sum(_cells(one, cells) + _GAP for one in shown)
    drawn = console.Rows(*((one.head, ">") for one in shown), *((heading, "<") for heading in names))
    in_room = _in_room(names, room)
    for number in range(len(listed) + bool(len(rest))):
        drawn.add_row(*(cells[one][number] for one in shown), *(Text(names[number]) for names in in_room))
    yield console.indented(drawn)
    notes = [f"{one.head}: {one.note}." for one in shown if one.note]
    yield console.note(" ".join([*notes, *_GROUPINGS[by].notes]))


def _names(by: str, listed: pd.DataFrame, more: int) -> dict[str, list[str]]:
    """Return heading -> a name for each row, without empty columns. A last name counts `more` other rows."""
    records = (dict(zip(listed.columns, row, strict=True)) for row in listed.itertuples(index=False))
    grouping = _GROUPINGS[by]
    columns = dict(zip(grouping.headings, zip(*map(grouping.names, records), strict=True), strict=True))
    names = {heading: list(column) for heading, column in columns.items() if any(column)}
    if more:
        for column in names.values():
            column.append("")
        names[grouping.headings[-1]][-1] = f"{units.count(more)} more {grouping.plural}"
    return names


def _amount(value: int) -> str:
    return units.size(int(value)) if value else ""


def _cells(column: EvictionsColumn, cells: Mapping[EvictionsColumn, Sequence[str]]) -> int:
    return max(len(column.head), *map(len, cells[column]))


def _that_fit(cells: Mapping[EvictionsColumn, Sequence[str]], columns: int) -> list[EvictionsColumn]:
    """Return the columns of amounts that fit into `columns` cells."""
    shown = list(cells)
    for given_up in sorted((one for one in shown if one.gives_way), key=lambda one: one.gives_way):
        if sum(_cells(one, cells) + _GAP for one in shown) <= columns:
            break
        shown.remove(given_up)
    return shown


def _in_room(names: Mapping[str, Sequence[str]], room: int) -> list[list[str]]:
    """Return each column fitted to its share of `room`. Columns that need less leave the rest to others."""
    widths = [
        max(cell_len(visible(name)) for name in (heading, *column)) for heading, column in names.items()
    ]
    left, given = room, [0] * len(widths)
    for place, column in enumerate(sorted(range(len(widths)), key=lambda number: widths[number])):
        given[column] = min(widths[column], left // (len(widths) - place))
        left -= given[column]
    return [
        [fitted(name, max(cells, 1)) for name in column]
        for column, cells in zip(names.values(), given, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Grouping:
    """The words for a table of sums. `names` gives the cells below `headings`, `plural` the noun for rows.
    `notes` explain the headings."""

    title: str
    plural: str
    headings: tuple[str, ...]
    names: Callable[[Mapping[str, Any]], tuple[str, ...]]
    notes: tuple[str, ...] = ()


_GROUPINGS: Final = {
    "file": _Grouping(
        "By file",
        "files",
        ("charged to", "evictor", "use", "file"),
        eviction_words.file_names,
        (
            "evictor: the process that evicted most of the file.",
            "use: only written, such as a log, is cache that nobody missed.",
        ),
    ),
    "cgroup": _Grouping(
        "By charged cgroup and acting cgroup",
        "pairs",
        ("charged to", "by tasks of"),
        eviction_words.cgroup_names,
    ),
    "cause": _Grouping("By cause", "causes", ("cause", ""), eviction_words.cause_names),
    "process": _Grouping(
        "By process",
        "processes",
        ("process", "of cgroup"),
        eviction_words.process_names,
    ),
}


def _read_again_soon(flow: CacheFlow, context: Context) -> Iterator[RenderableType]:
    yield console.title("Read again soon after the eviction")
    headings = ("at", "for", "evicted", "read again", "half within", "stalled")
    drawn = console.Rows(*((heading, ">") for heading in headings), ("charged to", "<"))
    for one in flow.thrash[:_MOST_INTERVALS]:
        begin, end = one.begin, one.end
        stalled = "" if one.psi_some_share is None else units.percent(one.psi_some_share, 1)
        drawn.add_row(
            f"{(begin - context.origin).total_seconds():.2f} s",
            units.duration((end - begin).total_seconds()),
            units.size(one.evicted_bytes),
            units.size(one.refaulted_bytes),
            units.duration(one.median_away_ms / 1000),
            stalled,
            Text(fitted(one.cgroup or "nobody", max(context.columns - 69, 1))),
        )
    yield console.indented(drawn)
    more = len(flow.thrash) - _MOST_INTERVALS
    left_out = f"{units.count(more)} more intervals: --json lists them. " if more > 0 else ""
    yield console.note(
        f"{left_out}Seconds of the trace in which {units.size(LEAST_EVICTED_BYTES)} or more was evicted and "
        f"{100 * LEAST_SHARE:.0f} % of it read again within {units.duration(SOON_NS / 1e9)}. This counts "
        "memory, not time: explain shows whether the tasks were thrashing. stalled: the share of that time "
        "in which some task waited for memory (memory.pressure); blank: not known."
    )
