"""Quantities: each number of a cgroup that users see, declared once.

A quantity has a name, a kind, a unit, its source and its meaning, and beside them its place in each view
that shows it: a column of `top`, `evictions` or `timeline`, a metric of `serve`. The views, their options and
help, and the lists of the manual follow from this table. All of it is plain data, which costs the command
line nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["level", "flow", "ratio"]
Unit = Literal["bytes", "seconds", "count"]

_SCALES: Final = {"_us": 1e6, "_ns": 1e9}


@dataclass(frozen=True, slots=True)
class TopColumn:
    """A column of `top`: a level, a flow of bytes per second, or the share of the interval that a flow of
    time takes, in percent.

    `key` is its name for `--sort`, `field` in a line of `--json`, and `head` the title above `cells` cells.
    `since` is the least width of a screen that shows it: on a narrow one, the columns with the highest give
    way. `part` is the part of its source that is shown; "": the sum of all. `missing_with` is the key of
    another column: if that has no number, this one does not exist either. `is_ascending`: the least number
    comes first.
    """

    key: str
    field: str
    head: str
    cells: int
    since: int = 0
    part: str = ""
    most_percent: float = math.inf
    missing_with: str = ""
    is_ascending: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric family of `serve` and `export --to openmetrics`: a gauge for a level, a counter for a flow.

    `name` is without prefix, and without the `_total` of a counter's samples. `label` names the parts of a
    source that has several. `detail` continues the meaning in its help.
    """

    name: str
    label: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EvictionsColumn:
    """A column of `evictions`, in bytes.

    `field` is its name in the rows. `count` is the name under which `analysis.views.evictions` counts its
    pages. `head` is its title in the terminal, where columns are in the order of `place`;
    "": only the rows have it. A column without amounts is left out, unless it `is_constant`. On a narrow
    terminal, columns with the lowest `gives_way` are left out first; 0: never. `only_by` is the one grouping
    whose table has the column; "": all have it. `note` explains it below the table.
    """

    field: str
    count: str
    head: str = ""
    place: int = 0
    gives_way: int = 0
    is_constant: bool = False
    only_by: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class TimelineColumn:
    """A column of numbers beside the bars of `timeline`.

    `field` is a column of its rows. `head` stands above `cells` cells, and below the name of its `group`. On
    a narrow terminal, columns with the lowest `gives_way` are left out first; 0: never. `note` explains it in
    the legend. `is_lane`: glyphs instead of numbers.
    """

    field: str
    head: str
    group: str = ""
    cells: int = 7
    gives_way: int = 0
    note: str = ""
    is_lane: bool = False

    @property
    def unit(self) -> str:
        """Return the unit of the numbers, which ends the name of the field: bytes or ms; "": a count."""
        unit = self.field.rpartition("_")[2]
        return unit if unit in ("bytes", "ms") else ""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of a cgroup and all below it.

    A level holds at one moment, a flow is a sum over time, a ratio divides two flows. `source` is an
    attribute of `live.now.CgroupNow`: a number or null (not known), or a mapping from parts to such numbers;
    "": no live view has it. Time is in the unit that ends its name. `meaning` has the words for help texts,
    without a full stop. If the quantity may not exist, such as a limit, `absent` says when.
    """

    name: str
    kind: Kind
    unit: Unit
    source: str
    meaning: str
    absent: str = ""
    top: TopColumn | None = None
    metric: Metric | None = None
    evictions: EvictionsColumn | None = None
    timeline: TimelineColumn | None = None

    @property
    def per_unit(self) -> float:
        """Return how many of the source's units make one of `unit`."""
        return _SCALES.get(self.source[-3:], 1)


QUANTITIES: Final = (
    Quantity(
        *("usage", "level", "bytes", "usage_bytes"), "memory charged to the cgroup and its descendants",
        top=TopColumn("usage", "usage_bytes", "USAGE", 6),
        metric=Metric("usage_bytes"),
        timeline=TimelineColumn("usage_bytes", "usage"),
    ),
    Quantity(
        *("limit", "level", "bytes", "limit_bytes"), "the lowest limit, of the cgroup or of one above it",
        absent="no limit",
        top=TopColumn("limit", "limit_bytes", "LIMIT", 6),
        metric=Metric("limit_bytes"),
    ),
    Quantity(
        *("parts", "level", "bytes", "parts"), "what usage is made of; the kinds do not overlap",
        metric=Metric("memory_bytes", label="kind"),
    ),
    Quantity(
        *("held", "level", "bytes", "held_bytes"), "usage without page cache: what reclaim cannot drop",
        top=TopColumn("held", "held_bytes", "HELD", 6, since=76),
    ),
    Quantity(
        *("cache", "level", "bytes", "cache_bytes"),
        "page cache, which can be dropped; dirty pages after writeback",
        top=TopColumn("cache", "cache_bytes", "CACHE", 6, since=76),
    ),
    Quantity(
        *("cushion", "level", "bytes", "cushion_bytes"), "what can still be charged before a kill",
        absent="no limit",
        top=TopColumn(
            "cushion", "cushion_bytes", "CUSHION", 7, since=132, missing_with="limit", is_ascending=True
        ),
        metric=Metric("cushion_bytes", detail=": room below the limit, and what reclaim can free"),
    ),
    Quantity(
        *("working_set", "level", "bytes", "working_set_bytes"), "usage without the inactive file list",
        metric=Metric("working_set_bytes", detail=": the working set of the kubelet and of `kubectl top`"),
    ),
    Quantity(
        *("swap", "level", "bytes", "swap_bytes"), "memory of the cgroup and its descendants in swap",
        top=TopColumn("swap", "swap_bytes", "SWAP", 6, since=142),
        metric=Metric("swap_bytes"),
    ),
    Quantity(
        *("charged", "flow", "bytes", "charged_bytes"), "memory charged that stayed for 10 ms",
        top=TopColumn("charge", "charge_bytes_per_s", "CHRG/s", 6, since=80),
    ),
    Quantity(
        *("added", "flow", "bytes", "added_bytes"), "page cache added",
        top=TopColumn("add", "add_bytes_per_s", "ADD/s", 6, since=110),
        metric=Metric("pagecache_added_bytes", "cause", ", by what brought it in"),
        evictions=EvictionsColumn(
            "added_bytes", "added", "added", place=3, gives_way=3, is_constant=True
        ),
        timeline=TimelineColumn(
            "cache_added_bytes", "added", "page cache", note="new in the page cache (file contents)"
        ),
    ),
    Quantity(
        *("evicted", "flow", "bytes", "evicted_bytes"), "page cache removed by reclaim",
        top=TopColumn("evict", "evict_bytes_per_s", "EVICT/s", 7, since=90),
        metric=Metric("pagecache_evicted_bytes", "cause", ", by the kind of reclaim"),
        evictions=EvictionsColumn(
            "evicted_bytes", "evicted", "evicted", place=1,
            is_constant=True, note="removed by reclaim",
        ),
        timeline=TimelineColumn(
            "cache_evicted_bytes", "evicted", "page cache", 8, note="removed by reclaim"
        ),
    ),
    Quantity(
        *("dropped", "flow", "bytes", ""), "page cache removed with its file, or on request",
        evictions=EvictionsColumn("dropped_bytes", "dropped", "dropped", place=4, gives_way=1),
        timeline=TimelineColumn(
            "cache_dropped_bytes", "dropped", "page cache", 8, 1, "removed with its file, or on request"
        ),
    ),
    Quantity(
        *("added_again", "flow", "bytes", ""), "page cache added that had been evicted before",
        evictions=EvictionsColumn("refaulted_bytes", "refaulted"),
        timeline=TimelineColumn(
            "cache_refaulted_bytes", "read again", "page cache", 12, 5, "evicted before"
        ),
    ),
    Quantity(
        *("returned", "flow", "bytes", ""), "page cache evicted that was read again later",
        evictions=EvictionsColumn(
            "returned_bytes", "returned", "read again", place=2, note="evicted earlier"
        ),
    ),
    Quantity(
        *("remaining", "flow", "bytes", ""), "page cache added that was still there at the end",
        evictions=EvictionsColumn(
            "left_bytes", "left", "left", place=5, gives_way=2, note="added, and still there at the end"
        ),
    ),
    Quantity(
        *("taken", "flow", "bytes", ""), "page cache evicted by tasks of another cgroup than its owner",
        evictions=EvictionsColumn(
            "evicted_from_others_bytes", "evicted_from_others", "from others", place=6, gives_way=4,
            only_by="process", note="evicted, but charged to another cgroup than the process's own",
        ),
    ),
    Quantity(
        *("written", "flow", "bytes", ""), "page cache added by writes",
        evictions=EvictionsColumn("written_bytes", "written"),
    ),
    Quantity(
        *("refaulted", "flow", "bytes", "refaulted_bytes"),
        "evicted file pages that were read again, as the kernel counts them",
        top=TopColumn("refault", "refault_bytes_per_s", "AGAIN/s", 7, since=116),
        metric=Metric("refaulted_bytes"),
    ),
    Quantity(
        *("attempts", "flow", "count", "attempts"), "attempts to reclaim memory of the cgroup",
        metric=Metric("reclaim_attempts", "outcome", ", by whether they freed anything"),
        timeline=TimelineColumn("reclaim_attempts", "tries", "reclaim", 7, 6, "reclaim attempts"),
    ),
    Quantity(
        *("reclaimed", "flow", "bytes", "reclaimed_bytes"), "memory that reclaim attempts freed",
        timeline=TimelineColumn("reclaimed_bytes", "freed", "reclaim", 7, 2, "memory that they freed"),
    ),
    Quantity(
        *("reclaim_stall", "flow", "seconds", "reclaim_ns"),
        "time that its tasks spent in reclaim, summed over tasks",
        top=TopColumn("stall", "reclaim_stall_percent", "STALL", 5, since=104),
        metric=Metric("reclaim_stall_seconds"),
        timeline=TimelineColumn(
            "reclaim_stall_ms", "stall", "reclaim", 7, 3, "time that tasks spent in them"
        ),
    ),
    Quantity(
        *("swapped_out", "flow", "bytes", ""), "memory written to swap",
        timeline=TimelineColumn("swap_written_bytes", "out", "swap", 7, 8, "written to swap"),
    ),
    Quantity(
        *("swap_write_time", "ratio", "seconds", ""), "mean time of a write to swap",
        timeline=TimelineColumn("swap_write_mean_ms", "out ms", "swap", 7, 4, "mean time of a write"),
    ),
    Quantity(
        *("swapped_in", "flow", "bytes", ""), "memory read from swap",
        timeline=TimelineColumn("swap_read_bytes", "in", "swap", 7, 12, "read from swap"),
    ),
    Quantity(
        *("swap_read_time", "ratio", "seconds", ""), "mean time of a read from swap",
        timeline=TimelineColumn("swap_read_mean_ms", "in ms", "swap", 7, 7, "mean time of a read"),
    ),
    Quantity(
        *("waited", "flow", "seconds", ""), "time that tasks waited for memory, summed over tasks",
        timeline=TimelineColumn(
            "waited_ms", "waited", "waiting", 7, 11, "time that tasks waited for memory, summed"
        ),
    ),
    Quantity(
        *("waits", "flow", "seconds", ""), "time that tasks waited for memory, by what they waited for",
        timeline=TimelineColumn("waited_ms", "for what", "waiting", 12, 9, is_lane=True),
    ),
    Quantity(
        *("pressure", "flow", "seconds", "pressure_us"),
        "time in which a task waited for memory (PSI some)",
        top=TopColumn("psi", "psi_some_percent", "PSI", 5, since=104, part="some", most_percent=100),
        metric=Metric("pressure_seconds", "kind", ", or all tasks (full), as cgroup v2 counts it"),
        timeline=TimelineColumn(
            "psi_some_ms", "PSI", "waiting", 7, 10, "time in which some task stalled, from memory.pressure"
        ),
    ),
    Quantity(
        *("time_left", "level", "seconds", "seconds_to_kill"),
        "time until the cushion is used up at this rate",
        absent="not in sight",
        top=TopColumn("left", "seconds_to_kill", "KILL IN", 7, is_ascending=True),
        metric=Metric("seconds_to_kill"),
    ),
)  # fmt: skip
"""The quantities, in the order of the columns and metrics."""

TOP_COLUMNS: Final = tuple((one, one.top) for one in QUANTITIES if one.top is not None)
METRICS: Final = tuple((one, one.metric) for one in QUANTITIES if one.metric is not None)
EVICTIONS_COLUMNS: Final = tuple(one.evictions for one in QUANTITIES if one.evictions is not None)
EVICTIONS_GROUPINGS: Final = ("file", "cgroup", "cause", "process")
"""What the rows of `evictions` can be about: an event counts in one row of each."""
TIMELINE_COLUMNS: Final = tuple(one.timeline for one in QUANTITIES if one.timeline is not None)
SORT_KEYS: Final = ("name", *(column.key for _, column in TOP_COLUMNS))
