"""tmpfs files, memfd, System V segments or shared anonymous mappings filled the limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from tracer.analysis.explain import sentence_parts
from tracer.analysis.explain.measure import shared_memory
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import filling, swap_room
from tracer.analysis.results.conclusions import Suspect
from tracer.units import size

LABEL: Final = "tmpfs or shared memory filled the limit"

_KINDS: Final[Mapping[str, str]] = {
    "anonymous": "shared anonymous mappings",
    "sysv": "System V segments",
    "memfd": "memfd",
    "tmpfs": "files on tmpfs",
}
_TMPFS_SIZE: Final = (
    "Give each tmpfs a size below this limit (size= at mount, --shm-size, emptyDir.sizeLimit)."
)
_UNKNOWN_CURES: Final = (
    "Look for files on tmpfs (/dev/shm, /tmp, emptyDir in memory), memfd and shared mappings: they hold "
    "{held} until they are deleted.",
    _TMPFS_SIZE,
)
_CURES: Final[Mapping[str, tuple[str, ...]]] = {
    "anonymous": (
        "Make the shared mapping smaller, or raise the limit above its {size} and the other memory: the "
        "program sets its size (PostgreSQL: shared_buffers). It holds {held}, which is freed when the last "
        "process that maps it ends.",
    ),
    "sysv": (
        "Make the System V segment {name} smaller ({size}), or raise the limit above it. It holds {held} and "
        "outlives its processes: ipcs -m lists such segments, and ipcrm -M removes one.",
    ),
    "memfd": (
        "Look for the program that makes {name}: it holds {held} until the last process has closed and "
        "unmapped it.",
    ),
    "tmpfs": (
        "Delete files on tmpfs, such as {name}, which holds {held}: they outlive their processes.",
        _TMPFS_SIZE,
    ),
}
"""Kind of the largest file -> sentences of advice."""


def weigh(findings: Findings) -> Suspect | None:
    """Weigh shared memory as a filler of the limit, at half of that where swap was full."""
    found = filling.suspect(findings, "shmem", findings.composition.shmem)
    if found is not None and swap_room.is_exhausted(findings):
        return replace(found, weight=found.weight / 2)
    return found


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill."""
    kinds = dict.fromkeys(one.kind for one in shared_memory.largest(findings))
    what = " and ".join(_KINDS[kind] for kind in kinds) or "tmpfs, memfd or shared mappings"
    shared = f"{size(findings.composition.shmem)} of it shared memory ({what})"
    return sentence_parts.at_limit(findings, shared + sentence_parts.beside(findings, "shared memory"))


def cure(findings: Findings) -> Iterator[str]:
    """Yield sentences of advice on the file that holds most; on all kinds if no file is known."""
    largest = shared_memory.largest(findings)
    if not largest:
        held = size(findings.composition.shmem)
        yield from (line.format(held=held) for line in _UNKNOWN_CURES)
        return
    most = largest[0]
    numbers = {"name": most.name, "held": size(most.held_bytes), "size": size(most.size_bytes)}
    yield from (line.format(**numbers) for line in _CURES[most.kind])
