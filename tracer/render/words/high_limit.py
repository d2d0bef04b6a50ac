"""memory.high of a cgroup that lived: its value, and whose it is."""

from __future__ import annotations

from collections.abc import Iterator

from tracer import units
from tracer.analysis.results.survivor import Held, HighOwner
from tracer.render.words.places import place, place_of_life
from tracer.render.words.prose import Fact
from tracer.schema import UNLIMITED_BYTES


def facts(one: Held) -> Iterator[Fact]:
    """Yield the memory.high that was exceeded, or is the least; nothing if none is set, or known."""
    owner = one.high_owner
    if owner is None:
        return
    size = "a value that is not known" if owner.high_bytes is None else units.size(owner.high_bytes)
    whose = "" if owner.cgroup == one.cgroup else f" of {_name(owner)}"
    times = "" if owner.high_events is None else f", exceeded {units.count(owner.high_events)} times"
    yield "memory.high", f"{size}{whose}{times}: above it, tasks are throttled, never killed"


def exceeded(one: Held) -> str:
    """Return the clause that names the cgroup: `/a is above its memory.high of 9 MiB`."""
    owner, this = one.high_owner, place_of_life(one)
    if owner is None:
        return f"{this} is above a memory.high that is not known"
    size = " (its value is not known)" if owner.high_bytes is None else f" of {units.size(owner.high_bytes)}"
    if owner.cgroup == one.cgroup:
        return f"{this} is above its memory.high{size}"
    relation = "an ancestor" if owner.is_ancestor else "a descendant"
    return f"{_name(owner)}, {relation} of {this}, is above its memory.high{size}"


def bound(one: Held) -> str | None:
    """Return the lesser of the limit and memory.high, as `its limit of 9 MiB`; None if neither is set."""
    limit, owner = one.limit_bytes, one.high_owner
    high = owner.high_bytes if owner and (owner.is_ancestor or owner.cgroup == one.cgroup) else None
    least = min((size for size in (limit, high) if size is not None), default=UNLIMITED_BYTES)
    if least >= UNLIMITED_BYTES:
        return None
    if least == limit or owner is None:
        return f"its limit of {units.size(least)}"
    if owner.is_ancestor:
        return f"the memory.high of {units.size(least)} of {_name(owner)}"
    return f"its memory.high of {units.size(least)}"


def _name(owner: HighOwner) -> str:
    if owner.cgroup is None:
        return "a cgroup that was not traced"
    return place(owner.cgroup, owner.container, run=None, runs=None)
