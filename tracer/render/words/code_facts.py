"""The code that made memory grow, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

from tracer import units
from tracer.analysis.results import memory
from tracer.analysis.results.memory import CodeFrame, Grown, GrownCode, GrownProcess, SampledMemory
from tracer.analysis.views.grown_functions import LEAST_SHARE, is_of_collector
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact

LABEL: Final = "what grew"
_ENOUGH: Final = 0.9
"""From this share on, it is not said that some growth was not sampled."""
_MUCH: Final = 0.1
"""Up to this share, it is not said that some of what was sampled was freed again."""
_TOO_MUCH: Final = 0.5
"""From this share on, what was sampled does not show what grew, if it was freed again and not known which."""
_MOST_LISTED: Final = 3


def grown(it: Grown) -> Iterator[Fact]:
    """Yield one line for each process name: the functions whose memory grew, with their shares."""
    if it.memory and it.memory.unseen_share > _TOO_MUCH:
        yield LABEL, f"not known: {_unseen(it.memory)}"
        return
    if not it.code and it.sampled_share is not None:
        yield LABEL, _without_code(it.memory or SampledMemory(0, 0, 0))
    firsts = [one.process for one in it.code]
    in_order = sorted(it.code, key=lambda one: firsts.index(one.process))
    for number, (process, of_process) in enumerate(groupby(in_order, key=lambda one: one.process)):
        shares = "; ".join(
            f"{_share(one)} in {in_function(one.frames)}{_called_by(one)}"
            for one in [*of_process][:_MOST_LISTED]
        )
        note = "" if number else _notes(it)
        yield "" if number else LABEL, f"{shares}: {_who(process)}{note}"


def _without_code(it: SampledMemory) -> str:
    if it.held_bytes:
        return f"many functions, each with less than {percent(LEAST_SHARE)} of what was sampled"
    freed = "what was sampled was freed again" if it.freed_bytes else "none of the growth was sampled"
    return f"not known: {freed}"


def in_full(it: Grown) -> Iterator[Fact]:
    """Yield all frames of each code, innermost function first."""
    for number, one in enumerate(it.code):
        note = "" if number else _notes(it)
        heading = f"{_share(one)}, {units.size(one.bytes)} of {_OF[one.of]}: {_who(one.process)}{note}"
        yield "" if number else LABEL, heading
        yield from (("", f"  {frame(inner)}") for inner in one.frames)
        yield from (("", f"    {percent(caller.share)} by {frame(caller.frame)}") for caller in one.callers)


def _share(one: GrownCode) -> str:
    """Return `71 ± 6 %`, or `16 to 100 %` where the error passes 0 or 100 %: samples are few."""
    low, high = one.share - one.share_error, one.share + one.share_error
    if low >= 0 and high <= 1:
        return f"{100 * one.share:.0f} ± {percent(one.share_error)}"
    ends = f"{100 * max(low, 0):.0f}", percent(min(high, 1))
    return ends[1] if ends[1].startswith(f"{ends[0]} ") else " to ".join(ends)


def in_function(frames: Sequence[CodeFrame]) -> str:
    """Return the innermost function and its caller, as they are shown."""
    return visible(memory.in_function(frames))


def _called_by(one: GrownCode) -> str:
    """Return `, called by insert 61 %, update 14 %` if the function has several callers."""
    return f", called by {_callers(one)}" if one.callers else ""


def _callers(one: GrownCode) -> str:
    """Return `insert 61 %, update 14 %`; a module or file stands once, with the function that was called."""
    module = one.frames[0].module
    short = (
        (it, replace(it.frame, module=None if it.frame.module == module else it.frame.module))
        for it in one.callers
    )
    return ", ".join(f"{frame(caller)} {percent(it.share)}" for it, caller in [*short][:_MOST_LISTED])


def callers_and_process(one: GrownCode) -> str:
    """Return `main (app.py:88): python3 (41)`, the nearest caller, or several, and the process."""
    called_by = frame(one.frames[1]) if len(one.frames) > 1 else _callers(one) if one.callers else "-"
    return f"{called_by}: {_who(one.process)}"


def frame(it: CodeFrame) -> str:
    """Return a function with its place, as it is shown."""
    return visible(str(it))


_OF: Final = {
    "anon": "anonymous memory",
    "shmem": "shared memory",
    "file": "page cache",
    "slab": "slab",
    "kernel": "kernel memory",
}


def percent(share: float) -> str:
    """Return whole percents: samples tell no more."""
    return f"{100 * share:.0f} %"


def kinds_in_words(kinds: Sequence[str]) -> str:
    """Return kinds of memory (anon, shmem, file, kernel) as "anonymous memory and page cache"."""
    *first, last = (_OF[kind] for kind in kinds)
    return f"{', '.join(first)} and {last}" if first else last


def _who(process: GrownProcess) -> str:
    name = visible(process.comm) if process.comm else "name not known"
    if process.processes > 1:
        return f"{units.count(process.processes)} {name} processes"
    return name if process.pid is None else f"{name} ({process.pid})"


def _notes(it: Grown) -> str:
    """Return the time in which samples were taken, and what to add if not all of the growth was sampled, or
    if much of what was sampled is held no more."""
    notes = []
    if it.sampled_share is not None and it.sampled_share < _ENOUGH:
        notes.append(f"of the {percent(it.sampled_share)} of the growth that was sampled")
    memory = it.memory or SampledMemory(0, 0, 0)
    held, freed, unseen = memory.held_bytes, memory.freed_bytes, memory.unseen_freed_bytes
    if memory.span_s is not None:
        notes.insert(0, f"sampled in {units.duration(memory.span_s)}")
    if freed > _MUCH * (held + freed):
        notes.append(f"{units.size(freed)} more were taken and freed again")
    if freed > held:  # the allocator of the program is busy with it
        notes.append("what the allocator used again counts for who took it first")
    if memory.allocator_bytes > _TOO_MUCH * held:
        notes.append("pieces smaller than a page: all of a page counts for who took its first piece")
    if unseen > _MUCH * held:
        notes.append(_unseen(memory))
    if any(map(is_of_collector, it.code)):
        notes.append("a garbage collector moves what other code made")
    return f" ({'; '.join(notes)})" if notes else ""


def _unseen(it: SampledMemory) -> str:
    part = f"{units.size(it.unseen_freed_bytes)} of the {units.size(it.held_bytes)} that were sampled"
    return f"{part} were freed again, not known which"
