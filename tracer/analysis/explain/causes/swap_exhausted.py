"""Swap was allowed, in use and full, so that process and shared memory could not be reclaimed.

Its weight comes from process and shared memory, so `other_cause` would state these twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.evidence.kinds import found
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import filling, swap_room
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.explain.words.wording import owner_name
from tracer.analysis.results.conclusions import Suspect
from tracer.units import size


def weigh(findings: Findings) -> Suspect | None:
    """Weigh a full swap as much as the process and shared memory together that it could have held."""
    swap = findings.circumstances.swap
    if swap is None or not swap_room.is_exhausted(findings):
        return None
    swappable = (
        filling.suspect(findings, "swap_exhausted", "anon", findings.composition.anon),
        filling.suspect(findings, "swap_exhausted", "shmem", findings.composition.shmem),
    )
    weight = round(min(sum(one.weight for one in swappable if one is not None), 1), 3)
    evidence = found(findings, "full_swap", used_bytes=swap.used_bytes, allowed_bytes=swap.allowed_bytes)
    return Suspect("swap_exhausted", weight, evidence)


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill."""
    swap = findings.circumstances.swap
    used = "" if swap is None else f" ({size(swap.used_bytes)})"
    return sentence_parts.at_limit(
        findings, f"{sentence_parts.anonymous(findings)}, and its swap was full{used}"
    )


def cure(findings: Findings) -> Iterator[str]:
    """Yield sentences of advice: on what bounds the swap, which need not be the cgroup's own limit."""
    owner, swap = owner_name(findings.owner), findings.circumstances.swap
    how = "(memory.swap.max, memory.memsw.limit_in_bytes)"
    more = f"Give {owner} more swap {how} or a higher limit"
    if swap is not None and swap.bound == "above":
        path = swap.bound_cgroup
        above = "a cgroup above" if path is None else f"the cgroup {path}, above {owner},"
        more = f"Give {above} more swap: its limit is the bound {how}; or give {owner} a higher limit"
    elif swap is not None and swap.bound == "machine":
        more = (
            "Give the machine more swap: no cgroup's limit of swap was in the way; or give "
            f"{owner} a higher limit"
        )
    yield (
        f"{more}, or make the processes need less memory: while swap is full, their memory cannot be "
        "reclaimed."
    )


CAUSE: Final = CauseRecord(
    label="swap was full",
    weigh=weigh,
    sentence=sentence,
    cure=cure,
    settings=None,
    is_limit_too_small=True,
    grows=("anon", "shmem"),
    stated=("zswap", "swap_in_use", "other_cause"),
    concerns=("same_command", "cow"),
)
