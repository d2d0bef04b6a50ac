"""The weight of a cause that filled the limit with one kind of memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from tracer.analysis.explain.evidence.kinds import found
from tracer.analysis.explain.measure import memory_kinds
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing.scope import is_composition_known, is_limit_hit
from tracer.analysis.results.conclusions import Cause, Suspect

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


def suspect(findings: Findings, cause: Cause, filler: Filler, held_bytes: int | None) -> Suspect | None:
    """Return the cause with its weight, for memory of one kind.

    None where no limit was hit, or `held_bytes` is not known.

    The weight is the mean of two shares: of usage at the kill, and of the memory that had grown since usage
    was last below half of the limit. Only the first share counts if growth is not known, or if it came before
    the limit was lowered. Clean page cache that was left lowers the weight, since reclaim should have dropped
    it.
    """
    if not is_limit_hit(findings) or not is_composition_known(findings) or held_bytes is None:
        return None
    made_of = findings.composition
    total, grown = made_of.total or 1, {} if memory_kinds.is_limit_lowered(findings) else _grown(findings)
    share, all_grown = min(held_bytes / total, 1.0), sum(grown.values())
    if grown:
        # If next to nothing grew, its growth does not point to any of them.
        share = (share + grown[filler] / max(all_grown, _LEAST_GROWTH_SHARE * total)) / 2
    left = (made_of.file_clean or 0) / total
    trust = min(max(1 - _DISTRUST * (left - _LITTLE_CACHE_SHARE), 0), 1)
    evidence = found(
        findings,
        _KIND,
        _PARTS[filler],
        held_bytes=held_bytes,
        usage_bytes=made_of.total,
        grown_bytes=grown.get(filler),
        all_grown_bytes=all_grown if grown else None,
    )
    return Suspect(cause, round(share * trust, 3), evidence)


def fill_together(findings: Findings, first: Suspect) -> bool:
    """Return whether `first` filled a limit together with others.

    Memory that only swap takes, or nothing, is then nearly all of usage.
    """
    made_of = findings.composition
    if first.evidence.kind != _KIND or not is_limit_hit(findings) or not is_composition_known(findings):
        return False
    kinds = (made_of.anon, made_of.shmem, made_of.unevictable, made_of.hugetlb)
    return sum(held or 0 for held in kinds) >= _MOST_SHARE * (made_of.total or 1)


def _grown(findings: Findings) -> Mapping[Filler, int]:
    """Return the growth of each kind; empty where it is not known.

    The ledger does not distinguish locked memory. Locked anonymous memory is assumed to have grown with
    anonymous memory, and all locked memory and huge pages to have grown in this time.
    """
    grown = findings.circumstances.grown_bytes
    if not grown:
        return {}
    locked, anon = findings.composition.unevictable or 0, findings.composition.anon or 0
    locked_anon = grown["anon"] * locked // (locked + anon) if locked else 0
    return {
        "anon": grown["anon"] - locked_anon,
        "shmem": grown["shmem"],
        "locked": locked + (findings.composition.hugetlb or 0),
        "kernel": grown["kernel"] + grown["sock"],
    }
