"""Locked memory (mlock, MAP_LOCKED, SHM_LOCK), files on ramfs or huge pages (hugetlb) filled the limit."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain import weighing
from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.kill import Suspect


def weigh(findings: Findings) -> Suspect | None:
    """Weigh unevictable memory and huge pages together as a filler of the limit."""
    made_of = findings.composition
    is_known = made_of.unevictable is not None or made_of.hugetlb
    held = composition.unevictable_bytes(made_of) if is_known else None
    return weighing.filler(findings, "unevictable", "locked", held)


CAUSE: Final = CauseRecord(
    weigh=weigh,
    is_limit_too_small=True,
    grows=("anon", "shmem", "file"),
    stated=("unevictable", "hugetlb"),
    concerns=(),
)
