"""tmpfs files, memfd, System V segments or shared anonymous mappings filled the limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.measure import shared_memory
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import filling, swap_room
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.explain.words.wording import owner_name
from tracer.analysis.results.conclusions import Suspect
from tracer.units import count, size

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
"""Kind of one file that holds most of the shared memory of its kind -> sentences of advice."""

_CURES_OF_MANY: Final[Mapping[str, tuple[str, ...]]] = {
    "anonymous": (
        "Make the {count} shared anonymous mappings fewer or smaller, or raise the limit above them and the "
        "other memory. They hold {held}, each until the last process that maps it ends.",
    ),
    "sysv": (
        "Make the {count} System V segments fewer or smaller. They hold {held} and outlive their processes: "
        "ipcs -m lists them, and ipcrm -M removes one.",
    ),
    "memfd": (
        "Look for the program that makes so many memfd: {count} of them, such as {name}, hold {held}, each "
        "until the last process has closed and unmapped it.",
    ),
    "tmpfs": (
        "Delete files on tmpfs: {count} of them, such as {name}, hold {held} and outlive their processes.",
        _TMPFS_SIZE,
    ),
}
"""Kind of many files, none of which holds most -> sentences of advice."""


def weigh(findings: Findings) -> Suspect | None:
    """Weigh shared memory as a filler of the limit, at half of that where swap was full."""
    found = filling.suspect(findings, "shmem", "shmem", findings.composition.shmem)
    if found is not None and swap_room.is_exhausted(findings):
        return replace(found, weight=found.weight / 2)
    return found


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill."""
    what = (
        " and ".join(_KINDS[one.kind] for one in shared_memory.kinds(findings))
        or "tmpfs, memfd or shared mappings"
    )
    shared = f"{size(findings.composition.shmem)} of it shared memory ({what})"
    return sentence_parts.at_limit(findings, shared + sentence_parts.beside(findings, "shared memory"))


def cure(findings: Findings) -> Iterator[str]:
    """Yield sentences of advice on the kind that holds most; on all kinds if no file is known."""
    kinds = shared_memory.kinds(findings)
    if not kinds:
        held = size(findings.composition.shmem)
        yield from (line.format(held=held) for line in _UNKNOWN_CURES)
        return
    kind, most = kinds[0], kinds[0].files[0]
    lines = _CURES[kind.kind] if kind.is_one_file else _CURES_OF_MANY[kind.kind]
    held_bytes = most.held_bytes if kind.is_one_file else kind.held_bytes
    numbers = {
        "name": most.name,
        "held": size(held_bytes),
        "size": size(most.size_bytes),
        "count": count(len(kind.files)),
    }
    yield from (line.format(**numbers) for line in lines)


def settings(findings: Findings, room_bytes: int) -> Iterator[str]:
    """Yield the bound of the files on tmpfs, if the shared memory has some or its kinds are not known."""
    room_bytes += findings.composition.shmem or 0
    kinds = {one.kind for one in shared_memory.kinds(findings)}
    if room_bytes > 0 and (not kinds or "tmpfs" in kinds):
        yield (
            f"Beside its other memory, {owner_name(findings.owner)} has room for {size(room_bytes)} of "
            "files in memory: set the size= of its tmpfs below that."
        )


CAUSE: Final = CauseRecord(
    label="tmpfs or shared memory filled the limit",
    weigh=weigh,
    sentence=sentence,
    cure=cure,
    settings=settings,
    is_limit_too_small=True,
    grows=("shmem",),
    stated=("shmem",),
    concerns=("no_swap", "unmapped_shmem", "ended_writer"),
)
