"""The same run at other limits for a terminal: both ends, a row for each limit, and the reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from tracer.analysis.results.outcome import AtLimit, PodLimit, WhatIf
from tracer.render.terminal import console
from tracer.render.words.escape import visible
from tracer.render.words.prose import prose
from tracer.units import UNKNOWN, count, limit, percent, size

_BAR_CELLS: Final = 16
_OF_A_POD: Final = (
    "This limit is the pod's, not a container's: spec.resources of the pod (Kubernetes 1.34), or else the "
    "sum of the limits of its containers, which no command for the pod changes."
)
_BEST_EFFORT: Final = (
    "The pod's QoS class is BestEffort, and a resize may not change it: give its template requests or limits."
)
_NEEDS: Final = "It takes Kubernetes 1.33 and kubectl 1.32."
_POD_NEEDS: Final = "It takes Kubernetes 1.36 (1.35 with a feature gate)."
_SHRINKING: Final = (
    "To shrink without a restart takes 1.34, whose kubelet waits while usage is above the new limit. "
)
_TEMPLATE: Final = "It holds for this pod alone: its Deployment or other owner keeps the old limit."
_STYLES: Final = {"killed": "bold red", "thrashes": "yellow", "survives": "green", "unknown": ""}


def lines(found: WhatIf, *, is_asked: bool) -> Iterator[console.Written]:
    """Yield the text. `is_asked`: the user chose the limits."""
    yield prose(_answer(found), "bold")
    yield Text()
    yield _table(found)
    yield console.title("Why")
    yield console.facts(_reasons(found), label_cells=0)
    if found.pod_limit is not None:
        yield from _resize(found, found.pod_limit, is_asked=is_asked)


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


def _resize(found: WhatIf, pod: PodLimit, *, is_asked: bool) -> Iterator[console.Written]:
    """Yield the command that sets the least limit known to survive on the running pod, and its outcome."""
    whole = pod.container is None
    name = f"pod {pod.pod}" if whole else f"container {pod.container} of pod {pod.pod}"
    yield console.title(f"Resize of {name}, namespace {pod.namespace}")
    if whole:
        yield console.note(_OF_A_POD)
    if pod.qos_class == "BestEffort":
        yield console.note(_BEST_EFFORT)
        return
    chosen = _to_set(found, is_asked=is_asked)
    if chosen is None or chosen.resize is None:
        yield console.note("No other limit of these is known to be enough: give higher ones with --limit.")
        return
    recorded = found.recorded_limit_bytes
    is_smaller = recorded is not None and chosen.limit_bytes < recorded
    yield console.indented(prose(_outcome(found, chosen, is_smaller=is_smaller)))
    yield console.Command(chosen.resize)
    yield console.note(f"{_POD_NEEDS if whole else _NEEDS} {_SHRINKING if is_smaller else ''}{_TEMPLATE}")


def _to_set(found: WhatIf, *, is_asked: bool) -> AtLimit | None:
    """Return the least other limit that survives, or else the greatest one asked for that may survive."""
    recorded = found.recorded_limit_bytes
    others = [one for one in found.limits if one.limit_bytes != recorded]
    survives = [one for one in others if one.outcome == "survives"]
    may = [one for one in others if one.outcome == "unknown" and one.limit_bytes > (recorded or 0)]
    return survives[0] if survives else may[-1] if may and is_asked else None


def _outcome(found: WhatIf, chosen: AtLimit, *, is_smaller: bool) -> str:
    change = "Shrinking" if is_smaller else "Growing"
    again = _range(chosen.read_again_bytes, size, is_shown=True)
    reads = f", and reads {again} again" if any(chosen.read_again_bytes) else ""
    outcome = f"{change} to {size(chosen.limit_bytes)}: {chosen.outcome}{reads}"
    return f"{outcome}; the highest usage in the trace was {size(found.peak_usage_bytes)}."
