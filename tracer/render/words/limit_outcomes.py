"""The outcome of a recorded run at another limit, in words: for `whatif`, `explain` and the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tracer.analysis.results.outcome import AtLimit, WhatIf
from tracer.render.words.escape import visible
from tracer.units import UNKNOWN, count, limit, percent, size

TITLES: Final = ("limit", "outcome", "read again", "time lost", "")
_BAR_CELLS: Final = 16


def between(ends: tuple[float | None, float | None], word: Callable[[float], str]) -> str:
    """Return `12 MiB to 14 MiB`, `at least 12 MiB`, `at most 14 MiB`, or that nothing is known."""
    low, high = ends
    if high is None:
        return f"at least {word(low)}" if low else UNKNOWN
    if low is None:
        return f"at most {word(high)}"
    return word(high) if word(low) == word(high) else f"{word(low)} to {word(high)}"


def amount(bytes_: float) -> str:
    """Return a size, or `nothing`."""
    return size(bytes_) if bytes_ else "nothing"


def in_words(one: AtLimit) -> str:
    """Return `survives, and reads 12 MiB to 14 MiB again`, or `survives, and reads at most 14 MiB again`."""
    low, high = one.read_again_bytes
    if one.outcome == "killed" or not (low or high):
        return one.outcome
    return f"{one.outcome}, and reads {between((low or None, high), size)} again"


def answer(found: WhatIf) -> str:
    """Return the sentence with both ends of what is known. A limit below which a run is killed is known only
    if it is above 0."""
    name = found.container or found.cgroup
    run = f" (run {count(found.run)} of {count(found.runs)})" if found.runs > 1 else ""
    ends = [
        f"{words} {size(end)}"
        for words, end in (
            ("killed below", found.killed_below_bytes),
            ("not killed from", found.survives_from_bytes),
        )
        if end
    ]
    outcome = ", ".join(ends) or "no limit is known to be enough or too low"
    recorded = found.recorded_limit_bytes
    at = "" if recorded is None else f", recorded at {limit(recorded)}"
    return f"{visible(name)}{run}{at}: {outcome}."


def rows(found: WhatIf) -> list[tuple[str, ...]]:
    """Return the cells below `TITLES` for each limit; the last one is a bar of what is read again."""
    most = max((_drawn(one) for one in found.limits), default=0)
    return [
        (
            size(one.limit_bytes),
            one.outcome + (" (recorded)" if one.limit_bytes == found.recorded_limit_bytes else ""),
            "" if one.outcome == "killed" else between(one.read_again_bytes, amount),
            "" if one.outcome == "killed" else between(one.lost_share, lambda share: percent(share, 1.0)),
            "█" * round(_BAR_CELLS * _drawn(one) / most) if most else "",
        )
        for one in found.limits
    ]


def _drawn(one: AtLimit) -> int:
    """Return the bytes that the bar of a limit stands for: the upper end, or the lower one if that is not
    known."""
    low, high = one.read_again_bytes
    return high if high is not None else low or 0
