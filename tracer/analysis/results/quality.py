"""The quality of a report: losses, sources, and reasons for unknown values; its place in a kernel log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import pandas as pd

KernelLog = Literal["matched", "missing", "rate_limited", "only"]

Unknown = dict[str, str]
"""Dotted field name -> why it is null."""

RANGE: Final = "sizing.min_limit_bytes"
LOG_ALONE: Final = "a kernel log alone does not show it"
OF_LIVES: Final = ("limit_owner.cgroup_id", "limit_owner.run", "limit_owner.runs", "victims.cgroup_id")
"""The fields that are only known of a cgroup whose lives a trace has."""


@dataclass(frozen=True, slots=True)
class SummedInterval:
    """An interval in which page-cache events were summed: `reasons` are those of `summed`.

    Totals are exact. What was read again after its eviction is not known.
    """

    begin: pd.Timestamp
    end: pd.Timestamp
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ThinnedInterval:
    """An interval in which one row is kept for each `every_ms` milliseconds. Sums are exact, times only that
    precise."""

    begin: pd.Timestamp
    end: pd.Timestamp
    every_ms: int


def resolution_s(thinned: Sequence[ThinnedInterval], moment: pd.Timestamp) -> float:
    """Return the interval of the rows at a moment, in seconds; 0: they are as they were recorded."""
    return next((one.every_ms / 1000 for one in thinned if one.begin <= moment <= one.end), 0.0)


@dataclass(frozen=True, slots=True)
class Quality:
    """The reasons to trust or to doubt a report.

    `unknown`: dotted field name -> the reason why it is null. `summed`: the intervals before it in which
    page-cache events were summed. `thinned`: the times before it whose rows were thinned, and `resolution_ms`
    the interval of the rows at the kill (0: as they were recorded). All other times are that coarse: each is
    the begin of its interval. `kmsg_missing` names what the kernel log lacks, with the reason; empty:
    nothing. `kmsg_fields` are the fields that were taken from the log, by dotted name. `disagreements`:
    sentences on sources that differ, each with the values of both.
    """

    lost_records: int
    kmsg: KernelLog
    probes: Mapping[str, Any]
    unknown: Mapping[str, str] = field(default_factory=dict)
    disagreements: tuple[str, ...] = ()
    kmsg_missing: str = ""
    kmsg_fields: tuple[str, ...] = ()
    summed: tuple[SummedInterval, ...] = ()
    resolution_ms: int = 0
    thinned: tuple[ThinnedInterval, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelLogPlace:
    """The place of a report in the log from which it was read, and its times (`kmsg.report.log_report`).

    `page_size`: None if the log does not show it. `missing`: the parts of the report that the log does not
    have. `suppressed`: how many reports the kernel did not print before this one. `panicked`: the kernel
    panicked instead of killing. `may_be_confined`: no line shows whether the request could use all of the
    machine, or only nodes that a cpuset or a memory policy allowed.
    """

    first_line: int
    last_line: int
    since_boot_ns: int | None
    wall: str | None
    page_size: int | None
    missing: tuple[str, ...]
    suppressed: int
    panicked: bool = False
    may_be_confined: bool = False
