"""No cgroup's limit was hit: the machine had no memory that the request could use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain.cause_record import ALL_GROWN, CauseRecord
from tracer.analysis.explain.evidence import large_processes
from tracer.analysis.explain.evidence.kinds import found
from tracer.analysis.explain.measure.findings import OF_MACHINE, Findings
from tracer.analysis.explain.weighing.scope import memory_was_short
from tracer.analysis.explain.words import sentence_parts, shortage_words
from tracer.analysis.explain.words.wording import process
from tracer.analysis.results.conclusions import Suspect
from tracer.units import count, size

_MUCH_UNUSED_SHARE: Final = 0.1
_MUCH_HELD_SHARE: Final = 0.2
_MUCH_UNKNOWN_BYTES: Final = 512 << 20
"""The same where the machine's memory is not known."""


def weigh(findings: Findings) -> Suspect | None:
    """Weigh the constraint that the kernel reported, which is certain."""
    if findings.constraint not in OF_MACHINE or not memory_was_short(findings):
        return None
    return Suspect("global_pressure", 1.0, found(findings, "constraint", constraint=findings.constraint))


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill: from the kernel log, else from the constraint."""
    shortage = findings.circumstances.shortage
    short = (
        shortage_words.none_left(findings.constraint) if shortage is None else shortage_words.clause(shortage)
    )
    return f"{sentence_parts.asked(findings)} memory{sentence_parts.killed(findings)}: {short}."


def cure(findings: Findings) -> Iterator[str]:
    """Yield sentences of advice."""
    growing = max(findings.circumstances.machine_holders, key=lambda one: one.charged_bytes, default=None)
    if growing is not None and growing.charged_bytes > 0:
        yield (
            f"Look at {growing.cgroup} first: of the traced cgroups, it charged most just before the kill "
            f"({size(growing.charged_bytes)})."
        )
    unused = _unused_huge_pages(findings)
    if unused:
        yield f"Lower vm.nr_hugepages: {size(unused)} of huge pages (hugetlb) were kept and not in use."
    large = next(iter(large_processes.largest(findings)), None)
    if large is not None and large.held_bytes >= _much_bytes(findings):
        yield f"No cgroup's limit was hit. Look first at {_named(large)}{_of_machine(findings)}."
    else:
        yield "No cgroup's limit was hit: find what filled the machine (or the NUMA nodes that were allowed)."
    yield "Set limits that together fit into the machine, so that a growing cgroup hits its own limit first."


def _named(large: large_processes.Large) -> str:
    if large.processes > 1:
        several = f"the {count(large.processes)} processes {large.comm}"
        return f"{several}: together they held {size(large.held_bytes)}"
    killed = ", which was killed" if large.was_killed else ""
    return f"{process(large.comm, large.pid)}{killed}: it held {size(large.held_bytes)}"


def _much_bytes(findings: Findings) -> float:
    """Return the bytes that processes must hold to be named."""
    machine = findings.circumstances.machine
    usable = None if machine is None else machine.usable_pages
    return _MUCH_UNKNOWN_BYTES if usable is None else _MUCH_HELD_SHARE * usable * findings.page_size


def _of_machine(findings: Findings) -> str:
    machine = findings.circumstances.machine
    usable = None if machine is None else machine.usable_pages
    return "" if usable is None else f" of the machine's {size(usable * findings.page_size)}"


def _unused_huge_pages(findings: Findings) -> int:
    """Return the bytes of huge pages that are not in use, if they are much of the machine; else 0."""
    machine = findings.circumstances.machine
    if machine is None or not machine.ram_pages:
        return 0
    unused_bytes = machine.unused_hugetlb_bytes or 0
    is_much = unused_bytes >= _MUCH_UNUSED_SHARE * machine.ram_pages * findings.page_size
    return unused_bytes if is_much else 0


CAUSE: Final = CauseRecord(
    label="the machine had no memory that this request could use",
    weigh=weigh,
    sentence=sentence,
    cure=cure,
    settings=None,
    is_limit_too_small=False,
    grows=ALL_GROWN,
    stated=(),
    concerns=(),
)
