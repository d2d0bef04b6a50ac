"""What the runtime of a process showed of its memory, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from tracer import units
from tracer.analysis.results.memory import HeapSite, ProcessMemory, Runtime
from tracer.render.words.code_facts import in_function
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact

_MOST_SITES: Final = 3
_LEAST_SHARE: Final = 0.1


def of_runtimes(listed: Sequence[Runtime], looked_at: Sequence[ProcessMemory]) -> Iterator[Fact]:
    """Yield lines on the runtimes of the first process of a look."""
    for one in looked_at[:1]:
        for runtime in listed:
            if runtime["pid"] == one.pid and runtime["kind"] in _KINDS:
                yield from _KINDS[runtime["kind"]](runtime, one)


def _size(it: Runtime, name: str) -> str:
    return units.size(it.get(name))


def _jvm(it: Runtime, one: ProcessMemory) -> Iterator[Fact]:
    option = f" ({visible(str(it['option']))})" if it.get("option") else ""
    collected = it.get("collections")
    since = "" if collected is None else f" after {units.count(collected)} collections"
    metaspace = it.get("metaspace_used_bytes")
    others = ["direct buffers", f"metaspace ({units.size(metaspace)})" if metaspace else "metaspace"]
    yield (
        "java",
        f"{units.size(one.rss_bytes)}: heap at most {_size(it, 'heap_max_bytes')}{option}, "
        f"{_size(it, 'heap_used_bytes')} of it in use{since}; {_size(it, 'outside_bytes')} outside of it: "
        f"{', '.join([*others, 'code', 'stacks'])}",
    )


def _go(it: Runtime, _one: ProcessMemory) -> Iterator[Fact]:
    if "heap_in_use_bytes" not in it:
        yield "go", f"not known: {visible(str(it.get('unread')))}"
        return
    percent, bound = it["gc_percent"], it["memory_limit_bytes"]
    collector = "GOGC=off" if percent < 0 else f"GOGC={percent}"
    following = "" if percent < 0 else f", the next one at {_size(it, 'heap_goal_bytes')}"
    yield (
        "go",
        f"heap: {_size(it, 'heap_in_use_bytes')} in use, {_size(it, 'heap_live_bytes')} live at the last of "
        f"{units.count(it['collections'])} collections ({collector}{following}); GOMEMLIMIT "
        f"{'not set' if bound is None else 'is ' + units.size(bound)}; {_size(it, 'outside_bytes')} outside "
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


def _glibc(it: Runtime, one: ProcessMemory) -> Iterator[Fact]:
    free = it.get("free_present_bytes") or 0
    if free < _LEAST_SHARE * one.rss_bytes:
        return
    least = "" if "free_bytes" in it else "at least "
    arenas = units.count(it["arena_count"])
    ending = "" if it["arena_count"] == 1 else "s"
    yield "malloc", f"{least}{units.size(free)} was free inside of its heaps ({arenas} arena{ending})"


_KINDS: Final[Mapping[str, Callable[[Runtime, ProcessMemory], Iterator[Fact]]]] = {
    "jvm": _jvm,
    "go": _go,
    "glibc": _glibc,
}
