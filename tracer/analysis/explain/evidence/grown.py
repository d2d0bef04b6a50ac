"""The process whose memory grew, of the kind that a cause is about, and is still there at the kill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.conclusions import Cause
from tracer.analysis.results.memory import Allocator

_ALL: Final = ("anon", "shmem", "file", "kernel")
_OF_CAUSE: Final[Mapping[Cause, tuple[str, ...]]] = {
    "anon_growth": ("anon",),
    "shmem": ("shmem",),
    "swap_exhausted": ("anon", "shmem"),
    "unevictable": ("anon", "shmem", "file"),
    "kernel_memory": ("kernel",),
    "dirty_writeback": ("file",),
}
"""Cause -> the kinds of memory that it is about; others are about all kinds."""

_OUTLIVING: Final = ("file",)
"""The kinds that a process leaves behind when it ends; for shared memory see `Circumstances.ended_writer`."""

_WORDS: Final[Mapping[str, str]] = {
    "anon": "anonymous memory",
    "shmem": "shared memory",
    "file": "page cache",
    "kernel": "kernel memory",
}
_LEAST_PERCENT: Final = 1


@dataclass(frozen=True, slots=True)
class Grew:
    """A process, and the memory of the kinds in question that it charged in the window, in bytes.

    `what`: the kind of most of it, in words.
    """

    process: Allocator
    bytes_: int
    what: str


def kinds_of(cause: Cause) -> tuple[str, ...]:
    """Return the kinds of memory that a cause is about."""
    return _OF_CAUSE.get(cause, _ALL)


def who_grew(findings: Findings, cause: Cause) -> Grew | None:
    """Return the process that charged most of the kinds that `cause` is about.

    Of a process that ended before the kill, only memory counts that outlives it. None if no process charged
    at least 1 % of usage.
    """
    grew = [_grew(one, kinds_of(cause)) for one in findings.allocators]
    most = max(grew, key=lambda one: one.bytes_, default=None)
    least = (findings.composition.total or 0) * _LEAST_PERCENT // 100
    return most if most is not None and most.bytes_ > least else None


def _grew(one: Allocator, kinds: tuple[str, ...]) -> Grew:
    charged = {
        kind: getattr(one, f"{kind}_bytes") for kind in kinds if one.exited is None or kind in _OUTLIVING
    }
    most = max(charged, key=lambda kind: charged[kind], default=kinds[0])
    return Grew(one, sum(charged.values()), _WORDS[most])
