"""The conclusions from the numbers of a kill: its cause, and the limit that would have held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Cause = Literal[
    "anon_growth",
    "shmem",
    "swap_exhausted",
    "unevictable",
    "kernel_memory",
    "dirty_writeback",
    "protected_cache",
    "gfp_constrained",
    "global_pressure",
    "unknown",
]
"""The causes of a kill (docs/causes.md). Of those with equal weight, the first is the verdict.

Memory that swap could hold comes before memory that it cannot, and what filled the limit before what kept
reclaim from freeing memory. Protected cache is out of reach of every request, not of this one alone.
"""

UNKNOWN: Final = "unknown"
"""The verdict where no cause weighs enough."""

Confidence = Literal["high", "medium", "low"]


Number: TypeAlias = int | float | str | bool
Numbers: TypeAlias = Mapping[str, "Number | tuple[Mapping[str, Number], ...]"]
"""Values by name, with the unit in the name (`_bytes`, `_pages`, `_ns`, `_ms`). A number that is not known is
left out."""

_DOUBT: Final = "doubt_"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One finding on which a verdict rests, without words; `explain.words.evidence` has its sentence.

    `kind` is a name of `analysis.explain.evidence.kinds.KINDS`, which lists the names in `numbers`. `source`
    holds the tables of the trace from which the numbers were read. `kernel_log` among them also stands for
    the log that `explain --kmsg` reads.
    """

    kind: str
    numbers: Numbers
    source: tuple[str, ...]

    @property
    def is_doubt(self) -> bool:
        """Return whether the finding lowers the confidence."""
        return self.kind.startswith(_DOUBT)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A cause that was weighed, with its weight from 0 (no number points to it) to 1, and the evidence."""

    cause: Cause
    weight: float
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Verdict:
    """The cause of a kill, its confidence, and the evidence for it.

    `summary` is one sentence. `contributing` are factors beside the cause. `suspects` are all causes that any
    number points to, the likeliest first; `analysis.explain.verdict` picks from them.
    """

    cause: Cause
    confidence: Confidence
    summary: str
    evidence: tuple[Evidence, ...]
    contributing: tuple[Evidence, ...]
    suspects: tuple[Suspect, ...] = ()


NO_VERDICT: Final = Verdict(UNKNOWN, "low", "", (), ())
"""The verdict on a kill that is not explained."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """The minimum limit, (low, high) in bytes, under which the same work would have survived
    (`analysis.explain.sizing`).

    `high` is None if no limit is known to be enough: after most kills, more than `low` is needed, and nothing
    shows how much. `min_limit_bytes` is None if the size of the limit was not the problem, or if `low` is not
    known either. `basis`: sentences on the bounds of the range and on other known facts. `pace`: a sentence
    on the time that a greater limit would have lasted; empty if nothing grew.
    """

    min_limit_bytes: tuple[int, int | None] | None = None
    basis: tuple[str, ...] = ()
    pace: str = ""
