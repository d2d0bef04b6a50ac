"""The cgroups that lived, for a terminal: the answer of `explain` for a trace without a kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from tracer import units
from tracer.analysis.explain import slowed
from tracer.analysis.results.sigkill import Sigkill
from tracer.analysis.results.survivor import Held
from tracer.render.terminal import console
from tracer.render.terminal.explain_text import SCREEN_LINES
from tracer.render.words import code_facts, sigkill_words, survivor_facts
from tracer.render.words.places import place_of_life
from tracer.render.words.prose import prose

_MOST_LIVES: Final = 6
_MOST_HELD: Final = 50
_MOST_SIGKILLS: Final = 3


def held(
    cgroups: Sequence[Held],
    sigkills: Sequence[Sigkill] = (),
    *,
    interrupted: bool = False,
    verbose: bool = False,
    is_in_view: bool = False,
) -> Iterator[RenderableType]:
    """Yield the answer for a trace without a kill on one screen, or everything about each cgroup if
    `verbose`. SIGKILLs that were not the OOM killer's come first. `is_in_view`: no options of the command
    line are named."""
    if not verbose:
        yield _screen(cgroups, sigkills, interrupted=interrupted, is_in_view=is_in_view)
        return
    yield from (prose(line, "bold") for line in sigkill_words.sentences(sigkills, _MOST_HELD))
    yield prose(survivor_facts.summary(cgroups, interrupted=interrupted), "bold")
    for one in cgroups[:_MOST_HELD]:
        yield console.title(place_of_life(one))
        yield console.facts(survivor_facts.held(one))
        yield console.facts(code_facts.in_full(one.grown))
    if len(cgroups) > _MOST_HELD:
        yield Text()
        yield Text(f"{len(cgroups) - _MOST_HELD} more cgroups were traced: --json lists them all.")


def _screen(
    cgroups: Sequence[Held], sigkills: Sequence[Sigkill], *, interrupted: bool, is_in_view: bool
) -> RenderableType:
    """Return the answer for a trace without a kill: the newest of other SIGKILLs, the cgroup nearest to its
    limit, then a row for each other cgroup."""
    by_weight = slowed.foremost_first(cgroups)
    first, others = next(iter(by_weight), None), by_weight[1:]
    rows = range(min(len(others), _MOST_LIVES), -1, -1)
    summary = [
        *sigkill_words.sentences(sigkills, _MOST_SIGKILLS),
        survivor_facts.summary(cgroups, interrupted=interrupted),
    ]
    shown = partial(_in_short, summary, first, others, is_in_view=is_in_view)
    return console.Fitted(SCREEN_LINES, [partial(shown, most) for most in rows])


def _in_short(
    summary: Sequence[str], first: Held | None, others: Sequence[Held], most: int, *, is_in_view: bool
) -> Iterator[RenderableType]:
    yield from (prose(line, "bold") for line in summary)
    if first is None:
        return
    yield console.title(place_of_life(first))
    yield console.facts(survivor_facts.in_brief(first))
    yield console.facts(code_facts.grown(first.grown))
    if others[:most]:
        yield console.title("Other cgroups, the nearest to its limit first")
        table = console.Rows(("peak usage", ">"), ("limit", ">"), ("evicted", ">"), ("cgroup", "<"))
        for one in others[:most]:
            sizes = (
                units.size(one.peak_usage_bytes),
                units.limit(one.limit_bytes),
                units.size(one.evicted_bytes),
            )
            table.add_row(*sizes, place_of_life(one))
        yield console.indented(table)
    if is_in_view:
        return
    left_out = len(others) - len(others[:most])
    more = f"{units.count(left_out)} more in -v and --json. " if left_out else ""
    yield prose(f"{more}-v shows reclaim, waits and swap of each cgroup.", "dim")
