"""Locked memory (mlock, MAP_LOCKED, SHM_LOCK) or files on ramfs filled the limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain import sentence_parts
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import filling
from tracer.analysis.results.conclusions import Suspect
from tracer.units import size

LABEL: Final = "locked memory, or files on ramfs, filled the limit"


def weigh(findings: Findings) -> Suspect | None:
    """Weigh unevictable memory as a filler of the limit."""
    return filling.suspect(findings, "unevictable", findings.composition.unevictable)


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill."""
    held = size(findings.composition.unevictable)
    locked = f"{held} of it locked (mlock) or on ramfs, which reclaim may not touch"
    return sentence_parts.at_limit(findings, locked + sentence_parts.beside(findings, "locked memory"))


def cure(findings: Findings) -> Iterator[str]:
    """Yield sentences of advice."""
    yield (
        "Find what locks memory (mlock, MAP_LOCKED, SHM_LOCK) or writes to a ramfs: "
        f"{size(findings.composition.unevictable)} can neither be dropped nor swapped. Lock less "
        "(RLIMIT_MEMLOCK bounds it), use tmpfs instead of ramfs, or raise the limit by that much."
    )
