"""The process whose memory of some kinds grew, and is still there at the kill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tracer.analysis.explain.cause_record import Grown
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.memory import Allocator

_OUTLIVING: Final = ("file",)
"""The kinds that a process leaves behind when it ends; for shared memory see `Circumstances.ended_writer`."""

_LEAST_PERCENT: Final = 1


@dataclass(frozen=True, slots=True)
class Grew:
    """A process, the memory of some kinds that it charged in the window, in bytes, and the kind of most of
    it."""

    process: Allocator
    bytes_: int
    kind: Grown


def who_grew(findings: Findings, kinds: tuple[Grown, ...]) -> Grew | None:
    """Return the process that charged most of some kinds of memory.

    Of a process that ended before the kill, only memory counts that outlives it. None if no process charged
    at least 1 % of usage.
    """
    grew = [_grew(one, kinds) for one in findings.allocators]
    most = max(grew, key=lambda one: one.bytes_, default=None)
    least = (findings.composition.total or 0) * _LEAST_PERCENT // 100
    return most if most is not None and most.bytes_ > least else None


def _grew(one: Allocator, kinds: tuple[Grown, ...]) -> Grew:
    charged = {
        kind: getattr(one, f"{kind}_bytes") for kind in kinds if one.exited is None or kind in _OUTLIVING
    }
    most = max(charged, key=lambda kind: charged[kind], default=kinds[0])
    return Grew(one, sum(charged.values()), most)
