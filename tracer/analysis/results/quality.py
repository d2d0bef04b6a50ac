"""How far a report can be trusted, and where it stands in a kernel log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

KernelLog = Literal["matched", "missing", "rate_limited", "only"]


@dataclass(frozen=True, slots=True)
class Quality:
    """How far the report can be trusted.

    Of the kernel log, `kmsg_missing` says what is not there, and why (empty: nothing); `kmsg_fields` are what
    was taken from it, by the dotted names. `disagreements`: what sources say differently, each with both.
    """

    lost_records: int
    kmsg: KernelLog
    probes: Mapping[str, Any]
    unknown: Mapping[str, str] = field(default_factory=dict)
    disagreements: tuple[str, ...] = ()
    kmsg_missing: str = ""
    kmsg_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelLogPlace:
    """Where a report stands in the log that it was read from, and the times there; see `kmsg.facts`.

    `page_size`: what the log tells of it. `missing`: parts of the report that the log does not have.
    """

    first_line: int
    last_line: int
    since_boot_ns: int | None
    wall: str | None
    page_size: int | None
    missing: tuple[str, ...]
    suppressed: int
