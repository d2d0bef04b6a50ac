"""The runtimes of processes: what looks at them showed, their lines in a report, and advice on a killed
process.

Memory of a runtime that mappings do not show is read in `tracer.kernel.anatomy`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from tracer.analysis.core.columns import integers, optional, records, times_ns
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.measure.last_looks import MOST_YOUNG_BYTES, SEMI_SPACES, heap_bound
from tracer.analysis.explain.sizing.kill_range import LimitAtKill
from tracer.analysis.results.memory import CodeFrame, HeapSite, ProcessMemory, Runtime, in_function
from tracer.units import count, size

Rows: TypeAlias = Sequence[Mapping[str, Any]]

MUCH_SHARE: Final = 0.2
"""The part of usage from which memory is worth advice."""

SPARE_DIVISOR: Final = 10
"""The part of a limit that stays free of a heap: page cache of the program, and overshoot of a collector."""

_MOST_UNSEEN_DIVISOR: Final = 4
"""A process that grew by more than this part of its memory after the look is not what it was then."""


@dataclass(frozen=True, slots=True)
class LookedAt:
    """A process at a look of the recorder: the rows of `runtimes` of one kind, its mappings, its command line
    (None: not known)."""

    rows: Rows
    memory: ProcessMemory
    cmdline: str | None

    def numbers(self) -> dict[str, Any]:
        """Return name -> number; a row without a number has a text."""
        return {
            str(row["name"]): str(row["text"]) if (value := optional(row["value"])) is None else int(value)
            for row in self.rows
        }


@dataclass(frozen=True, slots=True)
class Killed:
    """A killed process with the last look at it. `name`: as sentences call it."""

    findings: Findings
    memory: ProcessMemory
    name: str

    @property
    def held_bytes(self) -> int:
        """Return its anonymous memory at the kill."""
        victims = self.findings.victims
        return sum(victim.anon_rss_bytes or 0 for victim in victims if victim.pid == self.memory.pid)

    @property
    def unseen_bytes(self) -> int:
        """Return the anonymous memory that it got between the look and the kill."""
        return max(self.held_bytes - self.memory.anon_bytes(), 0)

    @property
    def was_seen(self) -> bool:
        """Return whether the look found most of what it had at the kill."""
        return self.unseen_bytes * _MOST_UNSEEN_DIVISOR <= self.held_bytes

    @property
    def much_bytes(self) -> float:
        """Return the bytes from which memory is worth advice."""
        return MUCH_SHARE * (self.findings.composition.total or 0)

    def room_bytes(self) -> int | None:
        """Return the limit without what others hold that reclaim cannot free; None: not known."""
        kill = LimitAtKill.from_findings(self.findings)
        return None if kill is None else kill.limit_bytes - max(kill.kept_bytes - self.held_bytes, 0)


@dataclass(frozen=True, slots=True)
class RuntimeRecord:
    """A runtime as reports know it.

    `numbers`: what a look shows of it, with units in the names; empty if the process has no such runtime.
    `lines`: pairs of a label and words, from these numbers. `advice`: sentences on a killed process.
    `is_from_look`: the advice has numbers of the look, which must have found most of the process.
    `is_constant`: its rows do not change while a program runs, so an earlier look stands for one that found
    only the mappings, because the process ended meanwhile or has its environment in swap.
    """

    numbers: Callable[[LookedAt], dict[str, Any]]
    lines: Callable[[Runtime, ProcessMemory], Iterator[tuple[str, str]]]
    advice: Callable[[Killed, Runtime], Iterator[str]]
    is_from_look: bool = True
    is_constant: bool = False


def _numbers_of_jvm(look: LookedAt) -> dict[str, Any]:
    if not look.rows:
        return {}
    bound = heap_bound("java", look.cmdline)
    outside = look.memory.anon_bytes() - look.memory.anon_bytes("java heap")
    return look.numbers() | {"outside_bytes": outside, "option": None if bound is None else bound.option}


def _lines_of_jvm(it: Runtime, memory: ProcessMemory) -> Iterator[tuple[str, str]]:
    option = f" ({it['option']})" if it.get("option") else ""
    collected = it.get("collections")
    since = "" if collected is None else f" after {count(collected)} collections"
    metaspace = it.get("metaspace_used_bytes")
    others = ["direct buffers", f"metaspace ({size(metaspace)})" if metaspace else "metaspace"]
    yield (
        "java",
        f"{size(memory.rss_bytes)}: heap at most {size(it.get('heap_max_bytes'))}{option}, "
        f"{size(it.get('heap_used_bytes'))} of it in use{since}; {size(it['outside_bytes'])} outside of it: "
        f"{', '.join([*others, 'code', 'stacks'])}",
    )


def _advice_of_jvm(killed: Killed, jvm: Runtime) -> Iterator[str]:
    """Yield advice if the heap may grow beyond what other memory leaves of the limit."""
    owner = killed.findings.owner
    heap, outside = jvm.get("heap_max_bytes") or 0, jvm["outside_bytes"]
    if owner.limit_bytes is None or not owner.has_limit or heap + outside <= owner.limit_bytes:
        return
    option = jvm["option"] or "by default a part of the limit or of the machine's memory"
    room = (owner.limit_bytes - outside - killed.unseen_bytes) >> 20
    smaller = f", or a heap of at most {room} MiB (-Xmx{room}m)" if room > 0 else ""
    yield (
        f"Give {killed.name} a limit of at least {size(heap + outside)}{smaller}: the heap "
        f"may grow to {size(heap)} ({option}), and {size(outside)} was outside of it, such as direct "
        "buffers, metaspace, code and stacks."
    )


_JVM = RuntimeRecord(_numbers_of_jvm, _lines_of_jvm, _advice_of_jvm)


_FRAME: Final = re.compile(r"(?P<function>.*) \((?P<file>.*):(?P<line>\d{1,9})\)", re.DOTALL)
_NO_LIMIT: Final = (1 << 63) - 1  # math.MaxInt64
_MOST_SITES: Final = 3
_LEAST_SITE_SHARE: Final = 0.1
_MOST_LIVE_SHARE: Final = 0.8  # of a bound; above it, the collector runs nearly all the time


def _numbers_of_go(look: LookedAt) -> dict[str, Any]:
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


def _lines_of_go(it: Runtime, _memory: ProcessMemory) -> Iterator[tuple[str, str]]:
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
    large = [site for site in sites if site.share >= _LEAST_SITE_SHARE][:_MOST_SITES]
    if large:
        listed = "; ".join(f"{100 * site.share:.0f} % in {_place(site)}" for site in large)
        yield "live heap", f"{listed}, by the profile of the Go runtime"


def _place(site: HeapSite) -> str:
    """Return the function with its caller, and their files without folders."""
    return in_function([replace(one, file=one.file and one.file.rpartition("/")[2]) for one in site.frames])


def _advice_of_go(killed: Killed, go: Runtime) -> Iterator[str]:
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


_GO = RuntimeRecord(_numbers_of_go, _lines_of_go, _advice_of_go)


_NAMES_FUNCTIONS: Final = "--perf-basic-prof"
_NAMES: Final = re.compile(r"(?:^| )--perf[-_]basic[-_]prof(?= |$)")
_LEAST_OLD_BYTES: Final = 256 << 20
_LEAST_YOUNG_BYTES: Final = SEMI_SPACES << 20
_YOUNG_DIVISOR: Final = 64
"""V8 sizes its heap by the limit of the cgroup that Node.js is in: the old space may have half of the limit,
at least 256 MiB, and a semi-space a 64th (Node.js 24) or a 256th (20 and 22) of it, within bounds (measured).
"""

_LEAST_HEAP_BYTES: Final = 16 << 20  # with less, Node.js hardly starts


def _numbers_of_node(look: LookedAt) -> dict[str, Any]:
    heap = look.memory.anon_bytes("v8 heap")
    if not heap:
        return {}
    _, _, arguments = (look.cmdline or "").partition(" ")
    options = look.numbers().get("options")
    line = f"node {options or ''} {arguments}"
    bound = heap_bound("node", line)
    return {
        "heap_bytes": heap,
        "outside_bytes": look.memory.anon_bytes() - heap,
        "option": bound and bound.option,
        "all_options_known": options is not None and look.cmdline is not None,
        "old_space_max_bytes": bound and bound.set_bytes,
        "young_max_bytes": bound and bound.young_bytes,
        "names_functions": bool(_NAMES.search(line)),
    }


def _lines_of_node(it: Runtime, _memory: ProcessMemory) -> Iterator[tuple[str, str]]:
    none = "no --max-old-space-size" if it["all_options_known"] else "its options are not all known"
    bound = it["option"] or none
    hint = "" if it["names_functions"] else f"; {_NAMES_FUNCTIONS} would name its functions in `what grew`"
    yield (
        "node",
        f"{size(it['heap_bytes'])} in V8's heap ({bound}); {size(it['outside_bytes'])} outside of it: "
        f"Buffers, code, stacks{hint}",
    )


def _advice_of_node(killed: Killed, node: Runtime) -> Iterator[str]:
    """Yield advice on the heap if it may outgrow its room, and on the rest if that is most."""
    heap, outside = node["heap_bytes"], node["outside_bytes"]
    if outside > heap and outside > killed.much_bytes:
        yield (
            f"Look for Buffers in {killed.name}: {size(outside)} was outside of V8's heap, which held "
            f"{size(heap)}. --max-old-space-size does not bound it; process.memoryUsage() shows it as "
            "external and arrayBuffers."
        )
    room = killed.room_bytes()
    if room is None or heap <= killed.much_bytes:
        return
    owner = killed.findings.owner
    limit, bound = owner.limit_bytes or 0, node["old_space_max_bytes"]
    by_default = MOST_YOUNG_BYTES if owner.is_ancestor else limit // _YOUNG_DIVISOR * SEMI_SPACES
    young = node["young_max_bytes"] or min(max(by_default, _LEAST_YOUNG_BYTES), MOST_YOUNG_BYTES)
    room -= outside + killed.unseen_bytes + young + limit // SPARE_DIVISOR
    if room < _LEAST_HEAP_BYTES or (bound is not None and bound <= room):
        return
    if bound is None:
        unless = (
            "without that option"
            if node["all_options_known"]
            else "unless an option that is not known sets less"
        )
        grows = f"it may grow to {size(_LEAST_OLD_BYTES)} or more {unless}"
    else:
        grows = f"it may grow to {size(bound)} ({node['option']})"
    yield (
        f"Set --max-old-space-size={room >> 20} for {killed.name}, as an argument or in NODE_OPTIONS: V8's "
        f"heap held {size(heap)}, {grows}, and {size(outside)} was outside of it. With it, V8 frees "
        'garbage before the limit is hit; if more than that is live, Node.js ends with "heap out of memory".'
    )


_NODE = RuntimeRecord(_numbers_of_node, _lines_of_node, _advice_of_node, is_constant=True)


_OF_MAINTENANCE: Final = ("autovacuum worker", "VACUUM", "CREATE INDEX", "REINDEX", "ALTER TABLE")


def _numbers_of_postgresql(look: LookedAt) -> dict[str, Any]:
    if not look.rows:
        return {}
    memory = look.memory
    shared = sum(part.rss_bytes for part in memory.parts if part.kind == "shared")
    return look.numbers() | {"own_bytes": memory.anon_bytes(), "touched_shared_bytes": shared}


def _lines_of_postgresql(it: Runtime, _memory: ProcessMemory) -> Iterator[tuple[str, str]]:
    yield (
        "postgresql",
        f"`{it['title']}`: {size(it['own_bytes'])} of its own ({_setting(it)}, caches); it touched "
        f"{size(it['touched_shared_bytes'])} of the shared memory (shared_buffers)",
    )


def _setting(it: Runtime) -> str:
    """Return the setting that bounds most memory of such a process."""
    is_maintenance = any(words in str(it["title"]) for words in _OF_MAINTENANCE)
    return "maintenance_work_mem" if is_maintenance else "work_mem"


def _advice_of_postgresql(killed: Killed, it: Runtime) -> Iterator[str]:
    """Yield advice if a killed backend had much memory of its own."""
    if killed.held_bytes <= killed.much_bytes:
        return
    setting = _setting(it)
    of_each = "" if setting != "work_mem" else ", which each sort and hash of each query may use"
    yield (
        f"Lower {setting}{of_each}, if it is large: {killed.name}, `{it['title']}`, had "
        f"{size(killed.held_bytes)} of its own. SELECT pg_log_backend_memory_contexts(PID) logs what a "
        "backend uses it for."
    )


_POSTGRESQL = RuntimeRecord(
    _numbers_of_postgresql, _lines_of_postgresql, _advice_of_postgresql, is_from_look=False
)


_FREE: Final = ("", "pages_")
_LEAST_SHARE: Final = 0.1
_MANY_ARENAS: Final = 4


def _numbers_of_glibc(look: LookedAt) -> dict[str, Any]:
    """Return the arenas, and how much of malloc's heaps is free and present.

    A free page need not be present: malloc_trim(3) gives it back and keeps the chunk. What is present and not
    used is.
    """
    found, memory = look.numbers(), look.memory
    if arenas := memory.count("arena"):
        found |= {"arenas": arenas, "arena_bytes": memory.anon_bytes("arena")}
    free, pages = (found.get(f"free_{name}bytes", found.get(f"free_{name}at_least_bytes")) for name in _FREE)
    if free is not None and pages is not None:
        used = found["system_bytes"] - free - found["top_bytes"]
        present = memory.anon_bytes("heap") + memory.anon_bytes("arena")
        found["free_present_bytes"] = max(min(pages, present - used), 0)
        found["unused_present_bytes"] = max(present - used, 0)
    return found


def _lines_of_glibc(it: Runtime, memory: ProcessMemory) -> Iterator[tuple[str, str]]:
    free = it.get("free_present_bytes") or 0
    if free < _LEAST_SHARE * memory.rss_bytes:
        return
    least = "" if "free_bytes" in it else "at least "
    arenas = count(it["arena_count"])
    ending = "" if it["arena_count"] == 1 else "s"
    yield "malloc", f"{least}{size(free)} was free inside of its heaps ({arenas} arena{ending})"


def _advice_of_glibc(killed: Killed, glibc: Runtime) -> Iterator[str]:
    """Yield advice if much memory was free inside of malloc's heaps."""
    free, much = glibc.get("free_present_bytes") or 0, killed.much_bytes
    if free <= much:
        return
    held, arenas = glibc.get("arena_bytes") or 0, glibc.get("arenas") or 0
    if held > much and arenas >= _MANY_ARENAS:
        yield (
            f"Set MALLOC_ARENA_MAX=2 in the environment of {killed.name}: {size(free)} was free inside of "
            f"malloc's heaps, of which {count(arenas)} ({size(held)}) are those of threads. What one arena "
            "has freed, another one does not use."
        )
        return
    yield (
        f"Call malloc_trim(0) in {killed.name} after it has freed much: {size(free)} was free inside of "
        "malloc's heap, between pieces in use, and was not given back."
    )


_GLIBC = RuntimeRecord(_numbers_of_glibc, _lines_of_glibc, _advice_of_glibc)


def reused_bytes(findings: Findings, pid: int) -> int:
    """Return the memory that malloc had free in a process at the last look and will hand out again, in bytes,
    if that was much of what the process had; else 0.

    Who gets it touches no new page, so its growth counts for the code that had it before.
    """
    held = next((one.anon_bytes() for one in findings.mappings if one.pid == pid), 0)
    of_malloc = (one for one in findings.runtimes if (one["pid"], one["kind"]) == (pid, "glibc"))
    unused = max((int(one.get("unused_present_bytes", 0)) for one in of_malloc), default=0)
    return unused if unused > _LEAST_SHARE * held else 0


RUNTIMES: Final[Mapping[str, RuntimeRecord]] = {
    "jvm": _JVM,
    "go": _GO,
    "node": _NODE,
    "postgresql": _POSTGRESQL,
    "glibc": _GLIBC,
}
"""Kind, as in the rows of `runtimes` -> its record."""


def of_processes(subtree: Subtree, looked_at: Sequence[ProcessMemory]) -> tuple[Runtime, ...]:
    """Return what the runtimes of processes showed at these looks at them."""
    return tuple(runtime for one in looked_at for runtime in _of_process(subtree, one))


def _of_process(subtree: Subtree, one: ProcessMemory) -> Iterator[Runtime]:
    time_ns = one.time.as_unit("ns").value
    times, table = times_ns(subtree.runtimes), subtree.runtimes
    until = (integers(table["tgid"]) == one.pid) & (times <= time_ns)
    by_kind: dict[str, dict[int, list[Any]]] = {}
    for row, at_ns in zip(records(table[until]), times[until].tolist(), strict=True):
        by_kind.setdefault(str(row["kind"]), {}).setdefault(at_ns, []).append(row)
    cmdline = subtree.whole.processes.cmdline_at(one.pid, time_ns, time_ns)
    for kind, record in RUNTIMES.items():
        looks = by_kind.get(kind, {})
        at_ns = max(looks, default=time_ns) if record.is_constant else time_ns
        if found := record.numbers(LookedAt(looks.get(at_ns, []), one, cmdline)):
            yield {"pid": one.pid, "kind": kind, **found}


def lines(listed: Sequence[Runtime], looked_at: Sequence[ProcessMemory]) -> Iterator[tuple[str, str]]:
    """Yield a label and words on each runtime of the first process of a look."""
    for one in looked_at[:1]:
        for runtime in listed:
            if runtime["pid"] == one.pid and runtime["kind"] in RUNTIMES:
                yield from RUNTIMES[runtime["kind"]].lines(runtime, one)


def advice(findings: Findings, one: ProcessMemory, name: str) -> Iterator[str]:
    """Yield advice on a killed process, from the last look at it."""
    killed = Killed(findings, one, name)
    for runtime in findings.runtimes:
        record = RUNTIMES.get(runtime["kind"]) if runtime["pid"] == one.pid else None
        if record is not None and (killed.was_seen or not record.is_from_look):
            yield from record.advice(killed, runtime)
