"""Locked memory (mlock, MAP_LOCKED, SHM_LOCK), files on ramfs or huge pages (hugetlb) filled the limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import filling
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.results.conclusions import Suspect
from tracer.units import size


def weigh(findings: Findings) -> Suspect | None:
    """Weigh unevictable memory and huge pages together as a filler of the limit."""
    made_of = findings.composition
    held = None if made_of.unevictable is None and not made_of.hugetlb else _held(findings)
    return filling.suspect(findings, "unevictable", "locked", held)


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill."""
    held = size(_held(findings))
    kind = "huge pages (hugetlb)" if _is_mostly_huge(findings) else "locked (mlock) or on ramfs"
    locked = f"{held} of it {kind}, which reclaim may not touch"
    return sentence_parts.at_limit(findings, locked + sentence_parts.beside(findings, "locked memory"))


def cure(findings: Findings) -> Iterator[str]:
    """Yield sentences of advice."""
    if _is_mostly_huge(findings):
        yield (
            f"Find what uses {size(findings.composition.hugetlb)} of huge pages (hugetlbfs, MAP_HUGETLB, "
            "SHM_HUGETLB): this machine charges them to the cgroup (mount option memory_hugetlb_accounting), "
            "so raise the limit by that much, or use fewer."
        )
        return
    yield (
        "Find what locks memory (mlock, MAP_LOCKED, SHM_LOCK) or writes to a ramfs: "
        f"{size(findings.composition.unevictable)} can neither be dropped nor swapped. Lock less "
        "(RLIMIT_MEMLOCK bounds it), use tmpfs instead of ramfs, or raise the limit by that much."
    )


def _held(findings: Findings) -> int:
    return (findings.composition.unevictable or 0) + (findings.composition.hugetlb or 0)


def _is_mostly_huge(findings: Findings) -> bool:
    return (findings.composition.hugetlb or 0) > (findings.composition.unevictable or 0)


CAUSE: Final = CauseRecord(
    label="locked memory, files on ramfs or huge pages filled the limit",
    weigh=weigh,
    sentence=sentence,
    cure=cure,
    settings=None,
    is_limit_too_small=True,
    grows=("anon", "shmem", "file"),
    stated=("unevictable", "hugetlb"),
    concerns=(),
)
