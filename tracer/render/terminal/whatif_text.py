"""The same run at other limits for a terminal: both ends, a row for each limit, and the reasons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from tracer.analysis.results.outcome import AtLimit, PodLimit, WhatIf
from tracer.analysis.whatif import outcomes
from tracer.render.terminal import console
from tracer.render.words import limit_outcomes
from tracer.render.words.escape import visible
from tracer.render.words.prose import prose
from tracer.units import size

_OF_A_POD: Final = (
    "This limit is the pod's, not a container's: spec.resources of the pod (Kubernetes 1.34), or else the "
    "sum of the limits of its containers, which no command for the pod changes."
)
_BEST_EFFORT: Final = (
    "The pod's QoS class is BestEffort, and a resize may not change it: give its template requests or limits."
)
_NEEDS: Final = (
    "It takes Kubernetes 1.33 and kubectl 1.32, and restarts the container if its resizePolicy for memory is "
    "RestartContainer."
)
_POD_NEEDS: Final = "It takes Kubernetes 1.36 (1.35 with a feature gate)."
_SHRINKS: Final = "To shrink without a restart takes 1.34, whose kubelet"
_POD_SHRINKS: Final = "The kubelet"
_WAITS: Final = "waits while usage is above the new limit; growth after this check can still end in a kill."
_TEMPLATE: Final = (
    "It holds for this pod alone: its Deployment or other owner keeps the old limit, until its template has"
)
_STYLES: Final = {"killed": "bold red", "thrashes": "yellow", "survives": "green", "unknown": ""}


def lines(found: WhatIf, *, is_asked: bool) -> Iterator[console.Written]:
    """Yield the text. `is_asked`: the user chose the limits."""
    yield prose(limit_outcomes.answer(found), "bold")
    yield Text()
    yield _table(found)
    yield console.title("Why")
    yield console.facts(_reasons(found), label_cells=0)
    if found.pod_limit is not None:
        yield from _resize(found, found.pod_limit, is_asked=is_asked)


def _table(found: WhatIf) -> RenderableType:
    table = console.Rows(*zip(limit_outcomes.TITLES, "><<<<", strict=True))
    for one, (limit, outcome, *others) in zip(found.limits, limit_outcomes.rows(found), strict=True):
        table.add_row(limit, Text(outcome, _STYLES[one.outcome]), *others)
    return console.indented(table)


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
    shrinks = f" {_POD_SHRINKS if whole else _SHRINKS} {_WAITS}" if is_smaller else ""
    yield console.note(f"{_POD_NEEDS if whole else _NEEDS}{shrinks} {_TEMPLATE}")
    resources = json.dumps(outcomes.resources(pod, chosen.limit_bytes))  # JSON is YAML
    yield console.indented(console.indented(Text(f"resources: {resources}")))


def _to_set(found: WhatIf, *, is_asked: bool) -> AtLimit | None:
    """Return the least other limit that survives, or else the greatest one asked for that may survive."""
    recorded = found.recorded_limit_bytes
    others = [one for one in found.limits if one.limit_bytes != recorded]
    survives = [one for one in others if one.outcome == "survives"]
    may = [one for one in others if one.outcome == "unknown" and one.limit_bytes > (recorded or 0)]
    return survives[0] if survives else may[-1] if may and is_asked else None


def _outcome(found: WhatIf, chosen: AtLimit, *, is_smaller: bool) -> str:
    change = "Shrinking" if is_smaller else "Growing"
    outcome = f"{change} to {size(chosen.limit_bytes)}: {limit_outcomes.in_words(chosen)}"
    return f"{outcome}; the highest usage in the trace was {size(found.peak_usage_bytes)}."
