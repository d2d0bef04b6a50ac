"""The record of a runtime: what a report says of its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tracer.analysis.core.columns import optional
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.sizing.kill_range import LimitAtKill
from tracer.analysis.results.memory import ProcessMemory, Runtime

Rows: TypeAlias = Sequence[Mapping[str, Any]]

MUCH_SHARE: Final = 0.2
"""The part of usage from which memory is worth advice."""

SPARE_DIVISOR: Final = 10
"""The part of a limit that stays free of a heap: page cache of the program, and overshoot of a collector."""

_MOST_UNSEEN_DIVISOR: Final = 4
"""A process that grew by more than this part of its memory after the look is not what it was then."""


@dataclass(frozen=True, slots=True)
class LookedAt:
    """A process at a look of the recorder: the rows of `runtimes` of one kind, its mappings, its command line
    (None: not known)."""

    rows: Rows
    memory: ProcessMemory
    cmdline: str | None

    def numbers(self) -> dict[str, Any]:
        """Return name -> number; a row without a number has a text."""
        return {
            str(row["name"]): str(row["text"]) if (value := optional(row["value"])) is None else int(value)
            for row in self.rows
        }


@dataclass(frozen=True, slots=True)
class Killed:
    """A killed process with the last look at it. `name`: as sentences call it."""

    findings: Findings
    memory: ProcessMemory
    name: str

    @property
    def held_bytes(self) -> int:
        """Return its anonymous memory at the kill."""
        victims = self.findings.victims
        return sum(victim.anon_rss_bytes or 0 for victim in victims if victim.pid == self.memory.pid)

    @property
    def unseen_bytes(self) -> int:
        """Return the anonymous memory that it got between the look and the kill."""
        return max(self.held_bytes - self.memory.anon_bytes(), 0)

    @property
    def was_seen(self) -> bool:
        """Return whether the look found most of what it had at the kill."""
        return self.unseen_bytes * _MOST_UNSEEN_DIVISOR <= self.held_bytes

    @property
    def much_bytes(self) -> float:
        """Return the bytes from which memory is worth advice."""
        return MUCH_SHARE * (self.findings.composition.total or 0)

    def room_bytes(self) -> int | None:
        """Return the limit without what others hold that reclaim cannot free; None: not known."""
        kill = LimitAtKill.from_findings(self.findings)
        return None if kill is None else kill.limit_bytes - max(kill.kept_bytes - self.held_bytes, 0)


@dataclass(frozen=True, slots=True)
class RuntimeRecord:
    """A runtime as reports know it.

    `numbers`: what a look shows of it, with units in the names; empty if the process has no such runtime.
    `lines`: pairs of a label and words, from these numbers. `advice`: sentences on a killed process.
    `is_from_look`: the advice has numbers of the look, which must have found most of the process.
    """

    numbers: Callable[[LookedAt], dict[str, Any]]
    lines: Callable[[Runtime, ProcessMemory], Iterator[tuple[str, str]]]
    advice: Callable[[Killed, Runtime], Iterator[str]]
    is_from_look: bool = True
