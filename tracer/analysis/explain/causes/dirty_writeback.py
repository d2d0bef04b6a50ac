"""Page cache that was not yet on disk could not be dropped in time.

Memcg reclaim does not write file pages itself (shrink_folio_list in mm/vmscan.c). It waits for the flusher,
for a short time only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.measure import memory_kinds
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import blocking
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.results.conclusions import Suspect
from tracer.units import size


def weigh(findings: Findings) -> Suspect | None:
    """Weigh dirty cache and cache under writeback, where they are half of the cache that was left or more."""
    unwritten = memory_kinds.unwritten_bytes(findings.composition)
    if 2 * unwritten < memory_kinds.cache_left_bytes(findings.composition):
        return None
    return blocking.suspect(findings, "dirty_writeback", unwritten, kind="unwritten_cache")


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill."""
    unwritten = size(memory_kinds.unwritten_bytes(findings.composition))
    evicted = findings.cushion.evicted_bytes
    given = "" if evicted is None else f" (it had given back {size(evicted)})"
    return sentence_parts.at_limit(
        findings,
        f"{unwritten} of it file contents that were not yet written to disk",
        cache=f"until it is written, page cache cannot be dropped{given}",
    )


def cure(findings: Findings) -> Iterator[str]:
    """Yield sentences of advice."""
    unwritten = size(memory_kinds.unwritten_bytes(findings.composition))
    yield (
        f"Have data written sooner, so that less than {unwritten} waits for the disk: fsync or "
        "sync_file_range every few MiB, direct I/O for bulk writes, or smaller vm.dirty_background_bytes."
    )
    yield (
        "On cgroup v2, set memory.high some way below the limit: writers are then slowed down before the "
        "limit, instead of killed at it."
    )


def settings(_: Findings, room_bytes: int) -> Iterator[str]:
    """Yield the bound of cache that waits to be written."""
    if room_bytes > 0:
        yield (
            f"The limit leaves {size(room_bytes)} for page cache, and less than half of that should wait to "
            f"be written: vm.dirty_bytes={room_bytes // 2} is such a bound for the whole machine; there is "
            "none for one cgroup."
        )


CAUSE: Final = CauseRecord(
    label="page cache had to be written to disk before it could be dropped",
    weigh=weigh,
    sentence=sentence,
    cure=cure,
    settings=settings,
    is_limit_too_small=False,
    grows=("file",),
    stated=("unwritten",),
    concerns=(),
)
