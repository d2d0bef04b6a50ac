"""Sentences on what runtimes showed of their memory."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tracer.analysis.results.memory import CodeFrame, HeapSite, MappedPart, ProcessMemory
from tracer.render.words.runtime_facts import of_runtimes

MIB = 1 << 20
LOOK = pd.Timestamp("2026-01-31T12:00:00+00:00")
GO: dict[str, Any] = {
    **{"pid": 7, "kind": "go", "version": "1.24", "gc_percent": 100, "memory_limit_bytes": None},
    **{"heap_goal_bytes": 105 * MIB, "heap_live_bytes": 52 * MIB, "heap_in_use_bytes": 98 * MIB},
    **{"collections": 6, "outside_bytes": 4 * MIB, "profile": ()},
}


def looked_at(mib: int) -> ProcessMemory:
    part = MappedPart("anonymous", "", 1, mib * MIB, None, mib * MIB, 0)
    return ProcessMemory(7, "web", LOOK, mib * MIB, 0, (part,))


def test_no_look_has_no_words() -> None:
    assert list(of_runtimes([], [])) == []


def test_java_says_what_is_outside_of_its_heap() -> None:
    jvm: dict[str, Any] = {
        **{"pid": 7, "kind": "jvm", "heap_max_bytes": 64 * MIB, "heap_used_bytes": 40 * MIB},
        **{"outside_bytes": 135 * MIB, "metaspace_used_bytes": 5 * MIB, "collections": 12},
        "option": "-Xmx64m",
    }
    listed = [{"pid": 7, "kind": "other"}, {**jvm, "pid": 8}, jvm]
    assert list(of_runtimes(listed, [looked_at(199)])) == [
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
    assert list(of_runtimes([GO | {"profile": profile}], [looked_at(102)])) == [
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
    ((_, words),) = of_runtimes([it], [looked_at(102)])
    assert "6 collections (GOGC=off); GOMEMLIMIT is 90 MiB;" in words


def test_go_that_was_not_read_says_why() -> None:
    it = {"pid": 7, "kind": "go", "unread": "the program has no symbol table (it was built with -s)"}
    assert list(of_runtimes([it], [looked_at(9)])) == [
        ("go", "not known: the program has no symbol table (it was built with -s)")
    ]


@pytest.mark.parametrize(
    ("option", "names_functions", "words"),
    [
        (
            "--max-old-space-size=300",
            True,
            "107 MiB in V8's heap (--max-old-space-size=300); 36 MiB outside of it: Buffers, code, stacks",
        ),
        (
            None,
            False,
            "107 MiB in V8's heap (no --max-old-space-size); 36 MiB outside of it: Buffers, code, stacks; "
            "--perf-basic-prof would name its functions in `what grew`",
        ),
    ],
)
def test_node_says_what_is_outside_of_v8(option: str | None, names_functions: bool, words: str) -> None:
    it: dict[str, Any] = {"pid": 7, "kind": "node", "heap_bytes": 107 * MIB, "outside_bytes": 36 * MIB}
    it |= {"option": option, "names_functions": names_functions}
    assert list(of_runtimes([it], [looked_at(180)])) == [("node", words)]


def test_postgresql_says_what_a_backend_has_of_its_own() -> None:
    it: dict[str, Any] = {"pid": 7, "kind": "postgresql", "title": "postgres: app\x1b shop [local] SELECT"}
    it |= {"own_bytes": 90 * MIB, "touched_shared_bytes": 3 * MIB}
    assert list(of_runtimes([it], [looked_at(100)])) == [
        (
            "postgresql",
            r"`postgres: app\x1b shop [local] SELECT`: 90 MiB of its own (work_mem, caches); it touched "
            "3 MiB of the shared memory (shared_buffers)",
        )
    ]


def test_malloc_says_what_is_free_inside_where_that_is_much() -> None:
    it = {"pid": 7, "kind": "glibc", "arena_count": 8, "free_bytes": 30 * MIB, "free_present_bytes": 29 * MIB}
    assert list(of_runtimes([it], [looked_at(60)])) == [
        ("malloc", "29 MiB was free inside of its heaps (8 arenas)")
    ]
    assert list(of_runtimes([it], [looked_at(600)])) == []
