"""tmpfs files, memfd, System V segments or shared anonymous mappings filled the limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tracer.analysis.explain import sentence_parts
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import filling, swap_room
from tracer.analysis.results.conclusions import Suspect
from tracer.units import size

LABEL: Final = "tmpfs or shared memory filled the limit"


def weigh(findings: Findings) -> Suspect | None:
    """Weigh shared memory as a filler of the limit, at half of that where swap was full."""
    found = filling.suspect(findings, "shmem", findings.composition.shmem)
    if found is not None and swap_room.is_exhausted(findings):
        return replace(found, weight=found.weight / 2)
    return found


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill."""
    shared = f"{size(findings.composition.shmem)} of it shared memory (tmpfs, memfd or shared mappings)"
    return sentence_parts.at_limit(findings, shared + sentence_parts.beside(findings, "shared memory"))


def cure(findings: Findings) -> Iterator[str]:
    """Yield sentences of advice."""
    yield (
        "Look for files on tmpfs (/dev/shm, /tmp, emptyDir in memory), memfd and shared mappings: they hold "
        f"{size(findings.composition.shmem)} until they are deleted."
    )
    yield "Give each tmpfs a size below this limit (size= at mount, --shm-size, emptyDir.sizeLimit)."
