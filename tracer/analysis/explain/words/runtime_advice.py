"""Advice on a killed process by the numbers that its runtime showed before the kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.sizing.kill_range import LimitAtKill
from tracer.analysis.explain.words.sentence_parts import process
from tracer.analysis.results.memory import ProcessMemory, Runtime
from tracer.units import count, size

_MUCH_SHARE: Final = 0.2
_MANY_ARENAS: Final = 4
_SPARE_DIVISOR: Final = 10
"""The part of a limit that stays free of a heap: page cache of the program, and overshoot of a collector."""
_MOST_UNSEEN_DIVISOR: Final = 4
"""A process that grew by more than this part of its memory after the look is not what it was then."""
_MOST_LIVE_SHARE: Final = 0.8  # of a bound; above it, the collector runs nearly all the time


def of_process(findings: Findings, one: ProcessMemory) -> Iterator[str]:
    """Yield advice on a killed process, from a look at it that found most of what it had at the kill."""
    if _unseen_bytes(findings, one) * _MOST_UNSEEN_DIVISOR > _held_bytes(findings, one):
        return
    for runtime in findings.runtimes:
        if runtime["pid"] == one.pid and runtime["kind"] in _KINDS:
            yield from _KINDS[runtime["kind"]](findings, one, runtime)


def _held_bytes(findings: Findings, one: ProcessMemory) -> int:
    """Return the anonymous memory of a process at its kill."""
    return sum(victim.anon_rss_bytes or 0 for victim in findings.victims if victim.pid == one.pid)


def _unseen_bytes(findings: Findings, one: ProcessMemory) -> int:
    """Return the anonymous memory that a process got between the look and its kill."""
    return max(_held_bytes(findings, one) - one.anon_bytes(), 0)


def _java(findings: Findings, one: ProcessMemory, jvm: Runtime) -> Iterator[str]:
    """Yield advice if the heap may grow beyond what other memory leaves of the limit."""
    limit = findings.owner.limit_bytes
    heap, outside = jvm.get("heap_max_bytes") or 0, jvm["outside_bytes"]
    if limit is None or not findings.owner.has_limit or heap + outside <= limit:
        return
    option = jvm["option"] or "by default a part of the limit or of the machine's memory"
    room = (limit - outside - _unseen_bytes(findings, one)) >> 20
    smaller = f", or a heap of at most {room} MiB (-Xmx{room}m)" if room > 0 else ""
    yield (
        f"Give {process(one.comm, one.pid)} a limit of at least {size(heap + outside)}{smaller}: the heap "
        f"may grow to {size(heap)} ({option}), and {size(outside)} was outside of it, such as direct "
        "buffers, metaspace, code and stacks."
    )


def _go(findings: Findings, one: ProcessMemory, go: Runtime) -> Iterator[str]:
    """Yield advice if the next collection was due beyond the limit, and one before it could have helped.

    GOMEMLIMIT bounds the memory that the runtime manages (runtime/debug.SetMemoryLimit).
    """
    kill = LimitAtKill.from_findings(findings)
    if kill is None or "heap_live_bytes" not in go:
        return
    others = max(kill.kept_bytes - _held_bytes(findings, one), 0) + max(
        one.anon_bytes() - go["runtime_bytes"], 0
    )
    room = kill.limit_bytes - others - kill.limit_bytes // _SPARE_DIVISOR
    beside_heap = max(go["runtime_bytes"] - go["heap_in_use_bytes"] - go["heap_free_bytes"], 0)
    bound, is_off = go["memory_limit_bytes"], go["gc_percent"] < 0
    least = go["heap_live_bytes"] + beside_heap
    if (bound is not None and bound <= room) or least > _MOST_LIVE_SHARE * room:
        return
    if not is_off and go["heap_goal_bytes"] + beside_heap + others <= kill.limit_bytes:
        return
    goal = f"the next collection was due at {size(go['heap_goal_bytes'])} (GOGC={go['gc_percent']})"
    due = "no collection was due (GOGC=off)" if is_off else f"{goal}, beyond the limit"
    live = "" if is_off else f", and {size(go['heap_live_bytes'])} of the heap was live at the last one"
    yield (
        f"Set GOMEMLIMIT={room >> 20}MiB in the environment of {process(one.comm, one.pid)}: {due}{live}. "
        "With it, the runtime frees garbage before the limit is hit."
    )


def _glibc(findings: Findings, one: ProcessMemory, glibc: Runtime) -> Iterator[str]:
    """Yield advice if much memory was free inside of malloc's heaps."""
    free, much = glibc.get("free_present_bytes") or 0, _MUCH_SHARE * (findings.composition.total or 0)
    if free <= much:
        return
    name, held, arenas = process(one.comm, one.pid), glibc.get("arena_bytes") or 0, glibc.get("arenas") or 0
    if held > much and arenas >= _MANY_ARENAS:
        yield (
            f"Set MALLOC_ARENA_MAX=2 in the environment of {name}: {size(free)} was free inside of malloc's "
            f"heaps, of which {count(arenas)} ({size(held)}) are those of threads. What one arena has freed, "
            "another one does not use."
        )
        return
    yield (
        f"Call malloc_trim(0) in {name} after it has freed much: {size(free)} was free inside of malloc's "
        "heap, between pieces in use, and was not given back."
    )


_KINDS: Final[Mapping[str, Callable[[Findings, ProcessMemory, Runtime], Iterator[str]]]] = {
    "jvm": _java,
    "go": _go,
    "glibc": _glibc,
}
