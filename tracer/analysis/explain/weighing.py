"""The weights of causes, from 0 to 1, by rules that several causes share.

A cgroup's OOM kill happens when its limit is full of memory that reclaim cannot free. So there are two groups
of causes. One names the memory that filled the limit (`filler`), the other names what kept reclaim from
freeing memory (`blocker`, `is_swap_exhausted`). `analysis.explain.causes` has a module for each cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from tracer.analysis.explain.evidence.kinds import found
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.kill import Cause, Suspect


def memory_was_short(findings: Findings) -> bool:
    """Return whether memory was short at the kill; False if the log shows no shortage."""
    shortage = findings.circumstances.shortage
    return shortage is None or shortage.is_seen


def is_limit_hit(findings: Findings) -> bool:
    """Return whether a cgroup's limit was hit."""
    return findings.constraint == "memcg" and memory_was_short(findings)


def is_composition_known(findings: Findings) -> bool:
    """Return whether the composition of usage is known."""
    return bool(findings.composition.total) and findings.composition.anon is not None


Filler: TypeAlias = Literal["anon", "shmem", "locked", "kernel"]
"""A kind of memory that can fill a limit; `locked` is also what is on ramfs, and huge pages."""

_PARTS: Final[Mapping[Filler, tuple[str, ...]]] = {
    "anon": ("anon",),
    "shmem": ("shmem",),
    "locked": ("unevictable", "hugetlb"),
    "kernel": ("kernel",),
}
_KIND: Final = "fills_limit"
_MOST_SHARE: Final = 0.9
_LITTLE_CACHE_SHARE: Final = 0.05  # clean cache that is left at most kills: mapped, or just read
_DISTRUST: Final = 3  # how fast more clean cache lowers the weight: to 0 at 38 % of usage
_LEAST_GROWTH_SHARE: Final = 0.1


def filler(findings: Findings, cause: Cause, filler: Filler, held_bytes: int | None) -> Suspect | None:
    """Return the cause with its weight, for memory of one kind.

    None where no limit was hit, `held_bytes` is not known, or the weight is 0.

    The weight is the mean of two shares: of usage at the kill, and of the memory that had grown since usage
    was last below half of the limit. Only the first share counts if growth is not known, or if it came before
    the limit was lowered. Clean page cache that was left lowers the weight, since reclaim should have dropped
    it.
    """
    if not is_limit_hit(findings) or not is_composition_known(findings) or held_bytes is None:
        return None
    made_of = findings.composition
    total, grown = made_of.total or 1, {} if composition.is_limit_lowered(findings) else _grown(findings)
    share, all_grown = min(held_bytes / total, 1.0), sum(grown.values())
    if grown:
        # If next to nothing grew, its growth does not point to any of them.
        share = (share + grown[filler] / max(all_grown, _LEAST_GROWTH_SHARE * total)) / 2
    left = (made_of.file_clean or 0) / total
    trust = min(max(1 - _DISTRUST * (left - _LITTLE_CACHE_SHARE), 0), 1)
    weight = round(share * trust, 3)
    if not weight:
        return None
    evidence = found(
        findings,
        _KIND,
        (*_PARTS[filler], *(["zswap"] if filler == "anon" and made_of.zswap else [])),
        held_bytes=held_bytes,
        usage_bytes=made_of.total,
        grown_bytes=grown.get(filler),
        all_grown_bytes=all_grown if grown else None,
    )
    return Suspect(cause, weight, evidence)


def swappable_filler(
    findings: Findings, cause: Cause, filler_kind: Filler, held_bytes: int | None
) -> Suspect | None:
    """Return `filler` for memory that swap can hold, at half of the weight where swap was full."""
    suspect = filler(findings, cause, filler_kind, held_bytes)
    if suspect is not None and is_swap_exhausted(findings):
        return replace(suspect, weight=suspect.weight / 2)
    return suspect


def fill_together(findings: Findings, first: Suspect) -> bool:
    """Return whether `first` filled a limit together with others.

    Memory that only swap takes, or nothing, is then nearly all of usage.
    """
    made_of = findings.composition
    if first.evidence.kind != _KIND or not is_limit_hit(findings) or not is_composition_known(findings):
        return False
    kinds = (made_of.anon, made_of.zswap, made_of.shmem, made_of.unevictable, made_of.hugetlb)
    return sum(held or 0 for held in kinds) >= _MOST_SHARE * (made_of.total or 1)


def _grown(findings: Findings) -> Mapping[Filler, int]:
    """Return the growth of each kind; empty where it is not known.

    zswap holds pages of processes. The ledger does not distinguish locked memory. Locked anonymous memory is
    assumed to have grown with anonymous memory, and all locked memory and huge pages to have grown in this
    time, so that shared memory that is locked counts once.
    """
    grown = findings.circumstances.grown_bytes
    if not grown:
        return {}
    locked, anon = findings.composition.unevictable or 0, findings.composition.anon or 0
    locked_anon = grown["anon"] * locked // (locked + anon) if locked else 0
    return {
        "anon": grown["anon"] - locked_anon + grown.get("zswap", 0),
        "shmem": max(grown["shmem"] - findings.circumstances.locked_shmem_bytes, 0),
        "locked": locked + (findings.composition.hugetlb or 0),
        "kernel": grown["kernel"] + grown["sock"],
    }


_LEAST_SHARE: Final = 0.1  # of usage
_WEIGHT: Final = 0.5


def blocker(findings: Findings, cause: Cause, held_bytes: int, *, kind: str) -> Suspect | None:
    """Return the cause with its weight: a half and the share of usage, at most 1.

    None where no limit was hit, or `held_bytes` is less than 10 % of usage. `kind` names the evidence.
    """
    total = findings.composition.total
    if not is_limit_hit(findings) or not total:  # the other kinds of memory may be unknown
        return None
    share = held_bytes / total
    if share < _LEAST_SHARE:
        return None
    evidence = found(findings, kind, held_bytes=held_bytes, usage_bytes=total)
    return Suspect(cause, round(min(_WEIGHT + share, 1), 3), evidence)


_FULL_SHARE: Final = 0.95
_IN_USE_SHARE: Final = 0.05  # of usage


def is_swap_exhausted(findings: Findings) -> bool:
    """Return whether swap held 5 % of usage or more, and had no room left.

    There is no room at 95 % of the allowed size, or where the kernel counted that it could not swap.
    """
    swap, total = findings.circumstances.swap, findings.composition.total
    if swap is None or not total or swap.used_bytes < _IN_USE_SHARE * total:
        return False
    allowed = swap.allowed_bytes
    return swap.refused or (allowed is not None and swap.used_bytes >= _FULL_SHARE * allowed)
