"""The same run at other limits for a terminal: both ends, a row for each limit, and the reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from tracer.analysis.results.outcome import AtLimit, WhatIf
from tracer.render.terminal import console
from tracer.render.words.escape import visible
from tracer.render.words.prose import prose
from tracer.units import UNKNOWN, count, limit, percent, size

_BAR_CELLS: Final = 16
_STYLES: Final = {"killed": "bold red", "thrashes": "yellow", "survives": "green", "unknown": ""}


def lines(found: WhatIf) -> Iterator[RenderableType]:
    """Yield the text."""
    yield prose(_answer(found), "bold")
    yield Text()
    yield _table(found)
    yield console.title("Why")
    yield console.facts(_reasons(found), label_cells=0)


def _answer(found: WhatIf) -> str:
    name = found.container or found.cgroup
    run = f" (run {count(found.run)} of {count(found.runs)})" if found.runs > 1 else ""
    ends = [
        f"{words} {size(end)}"
        for words, end in (
            ("killed below", found.killed_below_bytes),
            ("not killed from", found.survives_from_bytes),
        )
        if end is not None
    ]
    outcome = ", ".join(ends) or "no limit is known to be enough or too low"
    recorded = found.recorded_limit_bytes
    at = "" if recorded is None else f", recorded at {limit(recorded)}"
    return f"{visible(name)}{run}{at}: {outcome}."


def _table(found: WhatIf) -> RenderableType:
    table = console.Rows(("limit", ">"), ("outcome", "<"), ("read again", "<"), ("time lost", "<"), ("", "<"))
    most = max((_drawn(one) for one in found.limits), default=0)
    for one in found.limits:
        recorded = " (recorded)" if one.limit_bytes == found.recorded_limit_bytes else ""
        table.add_row(
            size(one.limit_bytes),
            Text(f"{one.outcome}{recorded}", _STYLES[one.outcome]),
            _range(one.read_again_bytes, _amount, is_shown=one.outcome != "killed"),
            _range(one.lost_share, lambda share: percent(share, 1.0), is_shown=one.outcome != "killed"),
            "█" * round(_BAR_CELLS * _drawn(one) / most) if most else "",
        )
    return console.indented(table)


def _amount(bytes_: float) -> str:
    return size(bytes_) if bytes_ else "nothing"


def _drawn(one: AtLimit) -> int:
    """Return the bytes that the bar of a limit stands for: the upper end, or the lower one if that is not
    known."""
    low, high = one.read_again_bytes
    return high if high is not None else low or 0


def _range(ends: tuple[float | None, float | None], word: Callable[[float], str], *, is_shown: bool) -> str:
    low, high = ends
    if not is_shown:
        return ""
    if high is None:
        return f"at least {word(low)}" if low else UNKNOWN
    if low is None:
        return f"at most {word(high)}"
    return word(high) if word(low) == word(high) else f"{word(low)} to {word(high)}"


def _reasons(found: WhatIf) -> Iterator[tuple[str, str]]:
    """Yield the limits of each reason, and the reason; neighbours with the same one share a line."""
    for (outcome, why), group in groupby(found.limits, lambda one: (one.outcome, one.why)):
        some = list(group)
        first, last = size(some[0].limit_bytes), size(some[-1].limit_bytes)
        where = first if first == last else f"{first} to {last}"
        yield where, f"{outcome}: {visible(why)}."
