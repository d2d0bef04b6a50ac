"""Sentences on the memory of processes by mapping."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tracer.analysis.results.memory import (
    CacheContents,
    CachedFile,
    CodeFrame,
    HeapSite,
    MappedPart,
    ProcessMemory,
)
from tracer.kernel.anatomy.mapping_kinds import KINDS
from tracer.render.words.memory_facts import by_file, by_mapping, every_part, of_runtimes, part_words

MIB = 1 << 20
LOOK = pd.Timestamp("2026-01-31T12:00:00+00:00")
KILL = LOOK + pd.Timedelta("1.5s")


def part(kind: str, mib: float, name: str = "", count: int = 1, swapped: int = 0) -> MappedPart:
    return MappedPart(kind, name, count, int(mib * MIB), None, int(mib * MIB), swapped * MIB)


def looked_at(*parts: MappedPart, shared: int = 0) -> ProcessMemory:
    rss = sum(one.rss_bytes for one in parts)
    return ProcessMemory(7, "web", LOOK, rss, shared * MIB, parts)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (part("heap", 163), "163 MiB heap"),
        (part("stack", 35, count=174), "35 MiB in 174 thread stacks"),
        (part("stack", 1, count=1), "1 MiB in 1 thread stack"),
        (part("stack", 1, "main"), "1 MiB of the first stack"),
        (part("arena", 9, count=1234), "9 MiB in 1,234 malloc arenas"),
        (part("shared", 9, "/dev/shm/a\x1b"), r"9 MiB shared: /dev/shm/a\x1b"),
        (part("file copy", 7, "/srv/data"), "7 MiB private copies of data"),
        (part("file", 7, count=3), "7 MiB page cache of several files"),
        (part("anonymous", 5, count=3), "5 MiB anonymous in 3 mappings"),
        (part("anonymous", 5, "cache"), "5 MiB anonymous named cache in 1 mapping"),
        (part("heap", 5, swapped=2), "5 MiB heap (and 2 MiB in swap)"),
        (part("unread", 5, "no time was left"), "5 MiB not read (no time was left)"),
    ],
)
def test_part_says_what_it_is(one: MappedPart, words: str) -> None:
    assert part_words(one) == words


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_the_recorder_has_words(kind: str) -> None:
    assert part_words(part(kind, 5)).startswith("5 MiB ")
    assert part_words(part(kind, 5, "/a/b", count=2)).startswith("5 MiB ")


def test_large_parts_come_first_and_small_ones_are_summed() -> None:
    small = [part("file", 1, f"/lib/{number}.so") for number in range(9)]
    one = looked_at(part("heap", 60), part("stack", 31, count=40), *small)
    assert list(by_mapping([one, one], KILL)) == [
        ("by mapping", "60 MiB heap, 31 MiB in 40 thread stacks, 9 MiB of other mappings"),
        ("", "web (pid 7), 100 MiB, 1.50 s before the kill"),
    ]


def test_process_that_lived_and_shares_since_a_fork() -> None:
    one = looked_at(part("heap", 60), shared=40)
    assert list(by_mapping([one], None)) == [
        ("by mapping", "60 MiB heap; 40 MiB of it is shared with other processes since a fork"),
        ("", "web (pid 7), 60 MiB, near the limit"),
    ]
    (_, (_, said)) = by_mapping([one], KILL - pd.Timedelta("2s"), "the peak of usage")
    assert said == "web (pid 7), 60 MiB, 500 ms after the peak of usage"


def test_every_part_of_every_process_is_listed() -> None:
    one, other = looked_at(part("heap", 60), part("code", 1)), looked_at(part("heap", 5))
    assert list(every_part([one, other], KILL)) == [
        ("by mapping", "web (pid 7), 61 MiB, 1.50 s before the kill:"),
        ("", "  60 MiB heap"),
        ("", "  1 MiB code without a file (JIT)"),
        ("", "web (pid 7), 5 MiB, 1.50 s before the kill:"),
        ("", "  5 MiB heap"),
    ]


def test_no_look_has_no_words() -> None:
    assert list(by_mapping([], KILL)) == list(every_part([], KILL)) == []


GO: dict[str, Any] = {
    **{"pid": 7, "kind": "go", "version": "1.24", "gc_percent": 100, "memory_limit_bytes": None},
    **{"heap_goal_bytes": 105 * MIB, "heap_live_bytes": 52 * MIB, "heap_in_use_bytes": 98 * MIB},
    **{"collections": 6, "outside_bytes": 4 * MIB, "profile": ()},
}


def runtime_facts_looked_at(mib: int) -> ProcessMemory:
    part = MappedPart("anonymous", "", 1, mib * MIB, None, mib * MIB, 0)
    return ProcessMemory(7, "web", LOOK, mib * MIB, 0, (part,))


def test_no_look_has_no_words_of_runtime_facts() -> None:
    assert list(of_runtimes([], [])) == []


def test_java_says_what_is_outside_of_its_heap() -> None:
    jvm: dict[str, Any] = {
        **{"pid": 7, "kind": "jvm", "heap_max_bytes": 64 * MIB, "heap_used_bytes": 40 * MIB},
        **{"outside_bytes": 135 * MIB, "metaspace_used_bytes": 5 * MIB, "collections": 12},
        "option": "-Xmx64m",
    }
    listed = [{"pid": 7, "kind": "other"}, {**jvm, "pid": 8}, jvm]
    assert list(of_runtimes(listed, [runtime_facts_looked_at(199)])) == [
        (
            "java",
            "199 MiB: heap at most 64 MiB (-Xmx64m), 40 MiB of it in use after 12 collections; 135 MiB "
            "outside of it: direct buffers, metaspace (5 MiB), code, stacks",
        )
    ]


def test_go_says_what_was_live_and_when_the_next_collection_was_due() -> None:
    site = (
        CodeFrame("main.load\x1b", "/src/load.go", 13, None),
        CodeFrame("main.main", "/src/load.go", 21, None),
    )
    profile = HeapSite(0.7, 40 * MIB, site), HeapSite(0.05, 3 * MIB, site)
    assert list(of_runtimes([GO | {"profile": profile}], [runtime_facts_looked_at(102)])) == [
        (
            "go",
            "heap: 98 MiB in use, 52 MiB live at the last of 6 collections (GOGC=100, the next one at "
            "105 MiB); GOMEMLIMIT not set; 4 MiB outside of the heap",
        ),
        (
            "live heap",
            r"70 % in main.load\x1b (load.go:13), called by main.main (load.go:21), by the profile of "
            "the Go runtime",
        ),
    ]


def test_go_without_a_goal_and_with_a_limit() -> None:
    it = GO | {"gc_percent": -1, "memory_limit_bytes": 90 * MIB}
    ((_, words),) = of_runtimes([it], [runtime_facts_looked_at(102)])
    assert "6 collections (GOGC=off); GOMEMLIMIT is 90 MiB;" in words


def test_go_that_was_not_read_says_why() -> None:
    it = {"pid": 7, "kind": "go", "unread": "the program has no symbol table (it was built with -s)"}
    assert list(of_runtimes([it], [runtime_facts_looked_at(9)])) == [
        ("go", "not known: the program has no symbol table (it was built with -s)")
    ]


@pytest.mark.parametrize(
    ("option", "known", "names_functions", "words"),
    [
        (
            "--max-old-space-size=300",
            False,
            True,
            "107 MiB in V8's heap (--max-old-space-size=300); 36 MiB outside of it: Buffers, code, stacks",
        ),
        (
            None,
            False,
            True,
            "107 MiB in V8's heap (its options are not all known); 36 MiB outside of it: Buffers, code, "
            "stacks",
        ),
        (
            None,
            True,
            False,
            "107 MiB in V8's heap (no --max-old-space-size); 36 MiB outside of it: Buffers, code, stacks; "
            "--perf-basic-prof would name its functions in `what grew`",
        ),
    ],
)
def test_node_says_what_is_outside_of_v8(
    option: str | None, known: bool, names_functions: bool, words: str
) -> None:
    it: dict[str, Any] = {"pid": 7, "kind": "node", "heap_bytes": 107 * MIB, "outside_bytes": 36 * MIB}
    it |= {"option": option, "all_options_known": known, "names_functions": names_functions}
    assert list(of_runtimes([it], [runtime_facts_looked_at(180)])) == [("node", words)]


def test_postgresql_says_what_a_backend_has_of_its_own() -> None:
    it: dict[str, Any] = {"pid": 7, "kind": "postgresql", "title": "postgres: app\x1b shop [local] SELECT"}
    it |= {"own_bytes": 90 * MIB, "touched_shared_bytes": 3 * MIB}
    assert list(of_runtimes([it], [runtime_facts_looked_at(100)])) == [
        (
            "postgresql",
            r"`postgres: app\x1b shop [local] SELECT`: 90 MiB of its own (work_mem, caches); it touched "
            "3 MiB of the shared memory (shared_buffers)",
        )
    ]


def test_malloc_says_what_is_free_inside_where_that_is_much() -> None:
    it = {"pid": 7, "kind": "glibc", "arena_count": 8, "free_bytes": 30 * MIB, "free_present_bytes": 29 * MIB}
    assert list(of_runtimes([it], [runtime_facts_looked_at(60)])) == [
        ("malloc", "29 MiB was free inside of its heaps (8 arenas)")
    ]
    assert list(of_runtimes([it], [runtime_facts_looked_at(600)])) == []


@pytest.mark.parametrize(
    ("took_ms", "said"),
    [
        (200, "9 MiB in all, 1.50 s before the kill"),
        (900, "9 MiB in all, 1.50 s before the kill, in a look of 900 ms: cache may have changed meanwhile"),
    ],
)
def test_look_that_took_long_is_not_of_one_moment(took_ms: int, said: str) -> None:
    file = CachedFile("/srv/log", "file", 9 * MIB, 0, 0)
    found = CacheContents(LOOK, 9 * MIB, (file,), 0, 0, took_ms * 1_000_000)
    assert [text for _, text in by_file(found, 10 * MIB, KILL)] == ["9 MiB of /srv/log", said]
