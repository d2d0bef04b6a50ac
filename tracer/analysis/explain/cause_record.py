"""A cause as its consumers know it: its weight, and the traits that decide how it is treated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.kill import Suspect

Grown: TypeAlias = Literal["anon", "shmem", "file", "kernel"]
"""A kind of memory that a process is charged for (`<kind>_bytes` of `results.memory.Allocator`)."""

ALL_GROWN: Final[tuple[Grown, ...]] = get_args(Grown)

Concern: TypeAlias = Literal["no_swap", "unmapped_shmem", "same_command", "cow", "ended_writer"]
"""A kind of evidence that matters only with some causes. `evidence.contributing` shows the first two only
with these, and `advice` acts on the others only with these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseRecord:
    """A cause of OOM kills. It has no defaults: each module of `causes` answers every question.

    No other module knows a cause by its name, but for its words (`words.cause_words`).
    """

    weigh: Callable[[Findings], Suspect | None]
    """Returns the suspect with its weight and the evidence for it; None where the cause is excluded."""
    is_limit_too_small: bool
    """Whether such a kill shows that the work needs more than the limit, as far as is known."""
    grows: tuple[Grown, ...]
    """The kinds of memory that it is about, `ALL_GROWN` if none in particular: a process is named for their
    growth, and stacks are shown that charged them."""
    stated: tuple[str, ...]
    """Kinds of evidence, and parts of usage (`also_in_usage`), that the sentence covers. They are not shown
    beside it as a contribution or as another cause."""
    concerns: tuple[Concern, ...]
    """Kinds of evidence that matter with this cause, although they do not with all."""
