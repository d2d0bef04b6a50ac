"""The conclusions from the numbers of a kill: its cause, and the limit that would have held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cause = Literal[
    "anon_growth",
    "shmem",
    "dirty_writeback",
    "unevictable",
    "kernel_memory",
    "gfp_constrained",
    "swap_exhausted",
    "protected_cache",
    "global_pressure",
    "unknown",
]


Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A cause that was weighed: `weight` from 0 (nothing speaks for it) to 1, and the numbers behind it."""

    cause: Cause
    weight: float
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the kill came: `summary` for a person, `evidence` with a number and its source in each line.

    `suspects` are all causes that anything speaks for, the likeliest first; how they are weighed:
    `analysis.explain.causes.registry`.
    """

    cause: Cause
    confidence: Confidence
    summary: str
    evidence: tuple[str, ...]
    contributing: tuple[str, ...]
    suspects: tuple[Suspect, ...] = ()


@dataclass(frozen=True, slots=True)
class Sizing:
    """The least limit, (low, high), under which the same work would have lived (`analysis.explain.sizing`).

    `basis` are sentences on what bounds it, or on what is known if the range is None. `pace` is a sentence on
    how long a greater limit would have lasted; empty if nothing grew.
    """

    min_limit_bytes: tuple[int, int] | None
    basis: tuple[str, ...] = ()
    pace: str = ""
