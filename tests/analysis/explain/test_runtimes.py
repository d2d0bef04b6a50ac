"""What the runtimes of killed processes showed, and the advice that follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.analysis.results.memory import CodeFrame, HeapSite

MIB = 1 << 20
assert LIMIT == 100 * MIB
GO = {
    **{"version": "1.24", "gc_percent": 100, "memory_limit_bytes": (1 << 63) - 1, "collections": 6},
    **{"heap_goal_bytes": 110 * MIB, "heap_live_bytes": 55 * MIB, "heap_in_use_bytes": 80 * MIB},
    **{"heap_free_bytes": MIB, "heap_released_bytes": 0, "runtime_bytes": 84 * MIB},
}


def look(trace: Any, tgid: int, at_s: float = 5, **parts: int) -> None:
    for kind, mib in parts.items():
        sizes = dict.fromkeys(("size_bytes", "rss_bytes", "pss_bytes", "anon_bytes"), mib * MIB)
        row = {"kind": kind.replace("_", " "), "name": "", "count": 1, "swap_bytes": 0, **sizes}
        trace.add("mappings", at_s, cgroup_id=1, tgid=tgid, **row)


def show(trace: Any, kind: str, numbers: dict[str, Any], *sites: tuple[int, str]) -> None:
    rows = [
        {"name": name, "value": None if isinstance(value, str) else value, "text": value}
        | ({} if isinstance(value, str) else {"text": None})
        for name, value in numbers.items()
    ]
    rows += [{"name": "site_bytes", "value": bytes_, "text": text} for bytes_, text in sites]
    for row in rows:
        trace.add("runtimes", 5, cgroup_id=1, tgid=50, kind=kind, **row)


@pytest.fixture
def filled(trace: Any) -> Any:
    """Return a trace in which `web` (50) fills 88 MiB of a limit of 100 MiB, and `sh` (60) the rest."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.add("tasks", tgid=50, comm="web", first_seen=trace.ns(0), cmdline="/web")
    trace.add("tasks", tgid=60, comm="sh", first_seen=trace.ns(0))
    trace.charged(1, 1, "anon", 12 * MIB, tgid=60, usage_bytes=12 * MIB)
    trace.charged(5, 1, "anon", 88 * MIB, tgid=50, usage_bytes=LIMIT)
    return trace


def advice(trace: Any) -> str:
    record_kill(trace, 10, anon_rss_bytes=88 * MIB)
    return "\n".join(only_report(trace).advice)


def test_go_has_its_numbers_and_its_profile(filled: Any) -> None:
    look(filled, 50, go_heap=81, anonymous=5)
    profile = (30 * MIB, "main.a (/src/a.go:7);main.main (/src/a.go:9)"), (10 * MIB, "main.b")
    show(filled, "go", GO | {"profiled_bytes": 60 * MIB}, *profile)
    record_kill(filled, 10, anon_rss_bytes=88 * MIB)
    (found,) = only_report(filled).runtime
    assert found == {
        **GO,
        **{"pid": 50, "kind": "go", "memory_limit_bytes": None, "outside_bytes": 5 * MIB},
        "profiled_bytes": 60 * MIB,
        "profile": (
            HeapSite(
                0.5,
                30 * MIB,
                (CodeFrame("main.a", "/src/a.go", 7, None), CodeFrame("main.main", "/src/a.go", 9, None)),
            ),
            HeapSite(1 / 6, 10 * MIB, (CodeFrame("main.b", None, None, None),)),
        ),
    }


def test_go_whose_next_collection_is_beyond_the_limit_gets_a_memory_limit(filled: Any) -> None:
    look(filled, 50, go_heap=81, anonymous=5)
    show(filled, "go", GO)
    # 100 of the limit, 12 of the other process, 2 that the runtime does not manage, a tenth to spare
    text = advice(filled)
    assert "Set GOMEMLIMIT=76MiB in the environment of web (pid 50): the next collection was due at" in text
    assert "110 MiB (GOGC=100), beyond the limit, and 55 MiB of the heap was live at the last one." in text


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param({"heap_goal_bytes": 70 * MIB}, id="a collection was due before the limit"),
        pytest.param({"heap_live_bytes": 75 * MIB}, id="what lives does not fit"),
        pytest.param({"memory_limit_bytes": 70 * MIB}, id="there was one, and it is low enough"),
    ],
)
def test_go_gets_no_memory_limit_that_would_not_help(filled: Any, numbers: dict[str, int]) -> None:
    look(filled, 50, go_heap=81, anonymous=5)
    show(filled, "go", GO | numbers)
    assert "GOMEMLIMIT" not in advice(filled)


def test_go_without_a_collector_gets_a_memory_limit(filled: Any) -> None:
    look(filled, 50, go_heap=81, anonymous=5)
    show(filled, "go", GO | {"gc_percent": -1, "heap_goal_bytes": (1 << 63) - 1})
    text = advice(filled)
    assert "Set GOMEMLIMIT=76MiB in" in text
    assert ": no collection was due (GOGC=off). With it, the runtime frees garbage" in text


def test_go_that_was_not_read_gets_no_advice(filled: Any) -> None:
    look(filled, 50, go_heap=81)
    show(filled, "go", {"version": "1.24", "unread": "the program has no symbol table"})
    assert "GOMEMLIMIT" not in advice(filled)
    (found,) = only_report(filled).runtime
    assert found["unread"] == "the program has no symbol table"


JVM = {"heap_used_bytes": 30 * MIB, "heap_committed_bytes": 90 * MIB, "heap_max_bytes": 90 * MIB}


@pytest.mark.parametrize(
    ("heap", "advised"),
    [
        pytest.param(53, "or a heap of at most 65 MiB (-Xmx65m)", id="all was seen"),
        pytest.param(33, "or a heap of at most 45 MiB (-Xmx45m)", id="what came later may be outside"),
        pytest.param(30, None, id="the look is too old"),
    ],
)
def test_java_gets_a_heap_that_leaves_room_for_the_rest(filled: Any, heap: int, advised: str | None) -> None:
    look(filled, 50, java_heap=heap, anonymous=35)
    show(filled, "jvm", JVM)
    text = advice(filled)
    assert ("-Xmx" in text) is (advised is not None), text
    assert (advised or "") in text


def run_node(trace: Any, command: str, **parts: int) -> None:
    """Make process 50 Node.js with this command line, 79 MiB of which is seen."""
    trace.forget("tasks")
    trace.add("tasks", tgid=50, comm="node", first_seen=trace.ns(0), cmdline=command)
    trace.add("tasks", tgid=60, comm="sh", first_seen=trace.ns(0))
    look(trace, 50, **parts)


@pytest.mark.parametrize(
    ("command", "options", "advised"),
    [
        # 100 of the limit, without 12 of the other process, 20 outside, 9 unseen, 10 to spare, 4.7 young
        pytest.param("node a.js", None, 44, id="by default"),
        pytest.param("node --max-old-space-size=400 a.js", None, 44, id="too large"),
        pytest.param("node --max-old-space-size=45 a.js", None, 44, id="nearly small enough"),
        pytest.param("node --max-old-space-size=44 a.js", None, None, id="small enough"),
        pytest.param("node a.js", "--max-old-space-size=44", None, id="small enough by the environment"),
        pytest.param(
            "node --max-old-space-size=45 a.js", "--max-old-space-size=44", 44, id="argument counts more"
        ),
        pytest.param("node --max-semi-space-size=3 a.js", None, 37, id="young generation of 3 x 4 MiB"),
        pytest.param("node --max-semi-space-size=16 a.js", None, None, id="young generation too large"),
    ],
)
def test_node_gets_a_heap_that_leaves_room_for_the_rest(
    filled: Any, command: str, options: str | None, advised: int | None
) -> None:
    run_node(filled, command, v8_heap=59, anonymous=20)
    if options is not None:
        show(filled, "node", {"options": options})
    text = advice(filled)
    assert ("Set --max-old-space-size" in text) is (advised is not None), text
    assert f"Set --max-old-space-size={advised or ''}" in text or advised is None
    assert "Buffers" not in text


@pytest.mark.parametrize(
    ("options", "words"), [("", "without that option"), (None, "unless an option that is not known")]
)
def test_options_of_node_that_were_not_read_are_not_none(
    filled: Any, options: str | None, words: str
) -> None:
    run_node(filled, "node a.js", v8_heap=59, anonymous=20)
    if options is not None:
        show(filled, "node", {"options": options})
    assert f"it may grow to 256 MiB or more {words}" in advice(filled)


def test_options_of_node_stand_for_a_later_look_without_them(filled: Any) -> None:
    """The process was killed before its environment was read, and after its mappings."""
    run_node(filled, "node a.js", v8_heap=30, anonymous=20)
    show(filled, "node", {"options": "--max-old-space-size=400"})
    look(filled, 50, at_s=9, v8_heap=59, anonymous=20)
    record_kill(filled, 10, anon_rss_bytes=88 * MIB)
    (found,) = only_report(filled).runtime
    assert (found["option"], found["heap_bytes"]) == ("--max-old-space-size=400", 59 * MIB)


def test_node_with_most_outside_of_v8_gets_no_bound_of_the_heap(filled: Any) -> None:
    run_node(filled, "node a.js", v8_heap=15, anonymous=73)
    text = advice(filled)
    assert "Look for Buffers in node (pid 50): 73 MiB was outside of V8's heap, which held 15 MiB." in text
    assert "Set --max-old-space-size" not in text


def test_other_program_than_node_has_no_heap_of_v8(filled: Any) -> None:
    run_node(filled, "node a.js", anonymous=88)
    record_kill(filled, 10, anon_rss_bytes=88 * MIB)
    assert only_report(filled).runtime == ()


@pytest.mark.parametrize(
    ("command", "seen", "own", "setting"),
    [
        (
            "app shop [local] SELECT",
            80,
            80,
            "Lower work_mem, which each sort and hash of each query may use, if",
        ),
        (
            "app shop [local] CREATE INDEX",
            80,
            80,
            "Lower maintenance_work_mem, if it is large: web (pid 50), ",
        ),
        ("autovacuum worker shop", 80, 80, "Lower maintenance_work_mem, if it is large: web (pid 50), "),
        ("app shop [local] SELECT", 19, 19, None),
        ("app shop [local] SELECT", 30, 80, "`postgres: app shop [local] SELECT`, had 80 MiB of its own"),
    ],
)
def test_backend_with_much_of_its_own_gets_the_setting_that_bounds_it(
    filled: Any, command: str, seen: int, own: int, setting: str | None
) -> None:
    look(filled, 50, anonymous=seen)
    show(filled, "postgresql", {"title": f"postgres: {command}"})
    record_kill(filled, 10, anon_rss_bytes=own * MIB)
    text = "\n".join(only_report(filled).advice)
    assert ("work_mem" in text) is (setting is not None), text
    assert (setting or "") in text


GLIBC = {"arena_count": 9, "system_bytes": 70 * MIB, "top_bytes": MIB}


def malloc(trace: Any, arenas: int, **numbers: int) -> None:
    look(trace, 50, heap=30)
    sizes = dict.fromkeys(("size_bytes", "rss_bytes", "pss_bytes", "anon_bytes"), 40 * MIB)
    row = {"kind": "arena", "name": "", "count": arenas, "swap_bytes": 0, **sizes}
    trace.add("mappings", 5, cgroup_id=1, tgid=50, **row)
    show(trace, "glibc", GLIBC | numbers)


@pytest.mark.parametrize(
    ("arenas", "free", "advised"),
    [
        pytest.param(8, 34, "Set MALLOC_ARENA_MAX=2 in the environment of web (pid 50): 33", id="threads"),
        pytest.param(2, 34, "Call malloc_trim(0) in web (pid 50)", id="few arenas"),
        pytest.param(8, 12, None, id="little is free"),
    ],
)
def test_malloc_gets_advice_where_much_is_free_inside(
    filled: Any, arenas: int, free: int, advised: str | None
) -> None:
    malloc(filled, arenas, free_bytes=free * MIB, free_pages_bytes=(free - 1) * MIB)
    text = advice(filled)
    assert ("MALLOC_ARENA_MAX" in text or "malloc_trim" in text) is (advised is not None)
    assert (advised or "") in text
    (found,) = only_report(filled).runtime
    assert (found["arenas"], found["arena_bytes"]) == (arenas, 40 * MIB)
    assert found["free_present_bytes"] == (free - 1) * MIB


def test_free_pages_that_were_given_back_do_not_count(filled: Any) -> None:
    malloc(filled, 8, free_bytes=50 * MIB, free_pages_bytes=49 * MIB, system_bytes=118 * MIB)
    assert "MALLOC_ARENA_MAX" not in advice(filled)
    (found,) = only_report(filled).runtime
    assert found["free_present_bytes"] == 3 * MIB  # 70 are present, and 118 - 50 - 1 are used


@pytest.mark.parametrize(("top", "is_said"), [(20, True), (6, False)])
def test_growth_in_code_is_in_doubt_if_malloc_hands_out_memory_again(
    filled: Any, top: int, is_said: bool
) -> None:
    """70 MiB are present in malloc's heaps, and `top` are not in use."""
    filled.meta["filters"] = {"stacks_bytes": MIB}
    filled.add("armed", 6, begin=filled.ns(0), kind="anon")
    filled.add("stacks", stack_id=1, frames=["scratch [web]", "main [web]"])
    sample = {"cgroup_id": 1, "tgid": 50, "category": "anon", "stack_id": 1}
    for number in range(88):
        filled.add("code_samples", 4 + number / 100, bytes=MIB, **sample)
    malloc(filled, 2, free_bytes=0, free_pages_bytes=0, top_bytes=top * MIB)
    text = advice(filled)
    assert "Look for growth in scratch (web), 100 % of the sampled growth, in web (pid 50)" in text
    said = f"Before the kill, malloc had {top} MiB free to hand out again."
    assert (said in text) is is_said


def test_arenas_that_were_not_read_get_no_advice(filled: Any) -> None:
    sizes = dict.fromkeys(("size_bytes", "rss_bytes", "pss_bytes", "anon_bytes"), 40 * MIB)
    row = {"kind": "arena", "name": "", "count": 8, "swap_bytes": 0, **sizes}
    filled.add("mappings", 5, cgroup_id=1, tgid=50, **row)
    assert "MALLOC_ARENA_MAX" not in advice(filled)
    (found,) = only_report(filled).runtime
    assert found == {"pid": 50, "kind": "glibc", "arenas": 8, "arena_bytes": 40 * MIB}
