"""Go: the heap, the collector's goal and the heap profile, by the variables of the Go runtime."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from tracer.analysis.explain.runtimes.runtime_record import SPARE_DIVISOR, Killed, LookedAt, RuntimeRecord
from tracer.analysis.results.memory import CodeFrame, HeapSite, ProcessMemory, Runtime, in_function
from tracer.units import count, size

_FRAME: Final = re.compile(r"(?P<function>.*) \((?P<file>.*):(?P<line>\d{1,9})\)", re.DOTALL)
_NO_LIMIT: Final = (1 << 63) - 1  # math.MaxInt64
_MOST_SITES: Final = 3
_LEAST_SHARE: Final = 0.1
_MOST_LIVE_SHARE: Final = 0.8  # of a bound; above it, the collector runs nearly all the time


def _numbers(look: LookedAt) -> dict[str, Any]:
    if not look.rows:
        return {}
    sites = [row for row in look.rows if row["name"] == "site_bytes"]
    found = replace(look, rows=[row for row in look.rows if row["name"] != "site_bytes"]).numbers()
    if found.get("memory_limit_bytes") == _NO_LIMIT:
        found["memory_limit_bytes"] = None
    whole = int(found.get("profiled_bytes") or 0)
    profile = tuple(
        HeapSite(int(row["value"]) / whole, int(row["value"]), _frames(str(row["text"])))
        for row in sites
        if whole
    )
    outside = look.memory.anon_bytes() - look.memory.anon_bytes("go heap")
    return found | {"outside_bytes": outside, "profile": profile}


def _frames(text: str) -> tuple[CodeFrame, ...]:
    """Return the frames of a stack as the recorder writes it, innermost first."""
    return tuple(
        CodeFrame(it["function"], it["file"], int(it["line"]), None)
        if (it := _FRAME.fullmatch(frame))
        else CodeFrame(frame, None, None, None)
        for frame in text.split(";")
    )


def _lines(it: Runtime, _memory: ProcessMemory) -> Iterator[tuple[str, str]]:
    if "heap_in_use_bytes" not in it:
        yield "go", f"not known: {it.get('unread')}"
        return
    percent, bound = it["gc_percent"], it["memory_limit_bytes"]
    collector = "GOGC=off" if percent < 0 else f"GOGC={percent}"
    following = "" if percent < 0 else f", the next one at {size(it['heap_goal_bytes'])}"
    yield (
        "go",
        f"heap: {size(it['heap_in_use_bytes'])} in use, {size(it['heap_live_bytes'])} live at the last of "
        f"{count(it['collections'])} collections ({collector}{following}); GOMEMLIMIT "
        f"{'not set' if bound is None else 'is ' + size(bound)}; {size(it['outside_bytes'])} outside "
        "of the heap",
    )
    sites: Sequence[HeapSite] = it["profile"]
    large = [site for site in sites if site.share >= _LEAST_SHARE][:_MOST_SITES]
    if large:
        listed = "; ".join(f"{100 * site.share:.0f} % in {_place(site)}" for site in large)
        yield "live heap", f"{listed}, by the profile of the Go runtime"


def _place(site: HeapSite) -> str:
    """Return the function with its caller, and their files without folders."""
    return in_function([replace(one, file=one.file and one.file.rpartition("/")[2]) for one in site.frames])


def _advice(killed: Killed, go: Runtime) -> Iterator[str]:
    """Yield advice if the next collection was due beyond the limit, and one before it could have helped.

    GOMEMLIMIT bounds the memory that the runtime manages (runtime/debug.SetMemoryLimit).
    """
    limit, room = killed.findings.owner.limit_bytes or 0, killed.room_bytes()
    if room is None or "heap_live_bytes" not in go:
        return
    unmanaged = max(killed.memory.anon_bytes() - go["runtime_bytes"], 0)
    beside_heap = max(go["runtime_bytes"] - go["heap_in_use_bytes"] - go["heap_free_bytes"], 0)
    is_beyond = go["heap_goal_bytes"] + beside_heap + unmanaged > room
    room -= unmanaged + limit // SPARE_DIVISOR
    bound, is_off = go["memory_limit_bytes"], go["gc_percent"] < 0
    least = go["heap_live_bytes"] + beside_heap
    if (bound is not None and bound <= room) or least > _MOST_LIVE_SHARE * room:
        return
    if not is_off and not is_beyond:
        return
    goal = f"the next collection was due at {size(go['heap_goal_bytes'])} (GOGC={go['gc_percent']})"
    due = "no collection was due (GOGC=off)" if is_off else f"{goal}, beyond the limit"
    live = "" if is_off else f", and {size(go['heap_live_bytes'])} of the heap was live at the last one"
    yield (
        f"Set GOMEMLIMIT={room >> 20}MiB in the environment of {killed.name}: {due}{live}. "
        "With it, the runtime frees garbage before the limit is hit."
    )


RUNTIME = RuntimeRecord(_numbers, _lines, _advice)
