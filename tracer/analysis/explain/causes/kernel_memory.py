"""Memory that the kernel keeps for the cgroup filled the limit: slab, page tables, stacks, socket buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.measure import memory_kinds
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import filling
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.results.conclusions import Suspect
from tracer.categories import PARTS
from tracer.units import size

_PHRASES: Final[Mapping[str, str]] = {part.name: part.phrase for part in PARTS} | {
    memory_kinds.UNCOUNTED: "memory of unknown kinds"
}
_SLAB_CURE: Final = (
    "Slab grows with open files, sockets, pipes, message queues, and the names of many files: count those."
)
_PART_CURES: Final[Mapping[str, str]] = {
    "slab_unreclaimable": _SLAB_CURE,
    "slab_reclaimable": _SLAB_CURE,
    "page_tables": (
        "Page tables grow with memory that is touched in many scattered places: huge pages need far fewer."
    ),
    "sock": "Limit the socket queues (SO_RCVBUF, SO_SNDBUF, net.ipv4.tcp_mem), or read from them sooner.",
    "kernel_stack": "Kernel stacks grow with threads: count those.",
    "other": (
        "Pipes and Unix sockets keep unread data in such pages: count them, find the slow readers, and see "
        "which function of the kernel asked."
    ),
}


def weigh(findings: Findings) -> Suspect | None:
    """Weigh all kernel memory together as a filler of the limit."""
    return filling.suspect(findings, "kernel_memory", "kernel", memory_kinds.kernel_bytes(findings))


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill, with the largest part of kernel memory."""
    held = memory_kinds.kernel_bytes(findings)
    part, most = memory_kinds.largest_kernel_part(findings)
    filled = f"{size(held)} of it kernel memory, {size(most)} of that {_PHRASES[part]}"
    return sentence_parts.at_limit(findings, filled + sentence_parts.beside(findings, "kernel memory"))


def cure(findings: Findings) -> Iterator[str]:
    """Yield sentences of advice on the largest part of kernel memory."""
    part, held = memory_kinds.largest_kernel_part(findings)
    yield (
        f"Find what makes the kernel hold {size(held)} as {_PHRASES[part]}: the processes' own memory is not "
        "the problem, and their RSS does not show it."
    )
    if part in _PART_CURES:
        yield _PART_CURES[part]


CAUSE: Final = CauseRecord(
    label="kernel memory filled the limit",
    weigh=weigh,
    sentence=sentence,
    cure=cure,
    settings=None,
    is_limit_too_small=True,
    grows=("kernel",),
    stated=("page_tables", "sock"),
    concerns=(),
)
