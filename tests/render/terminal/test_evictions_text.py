from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from rich.cells import cell_len

from tracer.analysis.results.quality import SummedInterval
from tracer.analysis.views.cache_flow import (
    CacheFlow,
    Evictor,
    FirstLook,
    KernelCount,
    Quality,
    Refaults,
    Thrash,
)
from tracer.analysis.views.evictions import AMOUNTS
from tracer.render.terminal import console
from tracer.render.terminal.evictions_text import Context, lines, summary

MIB = 1 << 20
HOSTILE = "\x1b[31m[red]<script>\nx\udc80" + "y" * 200
SECOND = pd.Timedelta("1s")
BEGIN = pd.Timestamp("2025-11-24T23:40:03.500000+00:00")


@pytest.fixture
def flow() -> CacheFlow:
    kernel = KernelCount("/web", 1, BEGIN, BEGIN, 34 * MIB, 37 * MIB)
    return CacheFlow(
        cgroup="/web",
        runs=1,
        added_bytes=203 * MIB,
        evicted_bytes=118 * MIB,
        dropped_bytes=7 * MIB,
        returned_bytes=41 * MIB,
        returned_elsewhere_bytes=0,
        left_bytes=78 * MIB,
        first_look=FirstLook(BEGIN, 55 * MIB),
        added_by_cause={"read": 160 * MIB, "readahead": 43 * MIB},
        evicted_by_cause={"reclaim_memcg": 100 * MIB, "reclaim_kswapd": 18 * MIB},
        dropped_by_cause={"truncate": 7 * MIB},
        evicted_on_request_bytes=0,
        evicted_from_others_bytes=21 * MIB,
        evicted_from_removed_bytes=3 * MIB,
        evicted_from_nobody_bytes=0,
        shared_files=2,
        evictor=Evictor(22, "pg_dump", "/db", 61 * MIB),
        refaults=Refaults(34 * MIB, 417.3, 30 * MIB, 4 * MIB, (kernel,)),
        thrash=(
            Thrash("/web", 1, BEGIN, BEGIN + pd.Timedelta("1750ms"), 40 * MIB, 33 * MIB, 402.5, 0.38),
            Thrash(None, None, BEGIN, BEGIN, 2 * MIB, MIB, 12.0, None),
        ),
        quality=Quality(
            lost_records=12,
            summed=tuple(
                SummedInterval(BEGIN + second * SECOND, BEGIN + (second + 0.5) * SECOND, reasons)
                for second, reasons in enumerate(
                    [("ring_full",), ("ring_full", "max_overhead"), ("of a later version",), ("ring_full",)]
                )
            ),
        ),
    )


SIZES_MIB = {"added": 203, "evicted": 118, "dropped": 7, "refaulted": 41, "returned": 41, "left": 78}
SIZES_MIB |= {"evicted_from_others": 21}


def row(number: int, **names: Any) -> dict[str, Any]:
    sizes = {name: SIZES_MIB.get(name.removesuffix("_bytes"), 0) for name in AMOUNTS}
    return names | {name: size * MIB // (number + 1) for name, size in sizes.items()}


def by_file(count: int, path: str = "/var/lib/postgresql/16/main/base/16384/24576") -> pd.DataFrame:
    evictor = {"evictor_comm": "pg_dump", "evictor_tgid": 22}
    rows = [
        row(
            number,
            path=f"{path}.{number}",
            dev="8:1",
            ino=number,
            owners=1 + number // 4 % 2,
            deleted=number == 1,
            use=("only written", "read once", "read again", None)[number % 4],
            **evictor,
        )
        for number in range(count)
    ]
    rows[2] |= {"path": None, "deleted": None, "evictor_comm": None}
    rows[3] |= {"evictor_comm": None, "evictor_tgid": None, "evicted_bytes": 0}
    return pd.DataFrame(rows)


def by_cgroup() -> pd.DataFrame:
    known = {"cgroup_id": 1, "cgroup": "/web", "container": None, "run": 1, "runs": 1, "charged_to": "live"}
    rows = [
        row(0, **known, task_cgroup_id=1, task_cgroup="/web"),
        row(1, **known, task_cgroup_id=2, task_cgroup="/db"),
        row(2, **known | {"charged_to": "removed", "container": "shop"}, task_cgroup_id=9, task_cgroup="/"),
        row(
            3,
            **known | dict.fromkeys(("cgroup_id", "cgroup", "run", "runs")),
            task_cgroup_id=9,
            task_cgroup="/",
        ),
    ]
    return pd.DataFrame(rows)


def drawn(
    flow: CacheFlow, by: str, table: pd.DataFrame, columns: int = 100, interrupted: bool = False
) -> str:
    context = Context(columns, pd.Timestamp("2025-11-24T23:40:01Z"), interrupted)
    return console.to_text(lines(flow, by, table, context), columns=columns, colour=False)


@pytest.mark.parametrize("columns", [80, 100])
def test_evictions_by_file_match_the_golden_file(
    flow: CacheFlow, columns: int, matches_golden: Callable[[str, str], None]
) -> None:
    shown = drawn(flow, "file", by_file(20), columns)
    matches_golden(f"evictions-file-{columns}.txt", shown)
    assert max(map(cell_len, shown.splitlines())) <= columns


def test_evictions_by_cgroup_match_the_golden_file(
    flow: CacheFlow, matches_golden: Callable[[str, str], None]
) -> None:
    matches_golden("evictions-cgroup.txt", drawn(flow, "cgroup", by_cgroup()))


@pytest.mark.parametrize("columns", [60, 80, 97, 100, 160])
def test_hostile_names_are_escaped_within_the_width(flow: CacheFlow, columns: int) -> None:
    thrash = tuple(replace(one, cgroup=HOSTILE) for one in flow.thrash)
    hostile = replace(flow, cgroup=HOSTILE, evictor=Evictor(1, HOSTILE, HOSTILE, 61 * MIB), thrash=thrash)
    shown = drawn(hostile, "file", by_file(20, HOSTILE.replace("\udc80", "")), columns)
    assert "\x1b" not in shown
    assert r"\x1b[31m[red]<" in shown
    assert max(map(cell_len, shown.splitlines())) <= columns
    table = shown[shown.index("By file") : shown.index("\n  evicted: removed by reclaim")]
    assert len(table.splitlines()) == 2 + 15 + 1


def test_empty_columns_are_left_out(flow: CacheFlow) -> None:
    table = by_file(4).assign(owners=1, evictor_tgid=None, returned_bytes=0, use=None)
    shown = drawn(flow, "file", table)
    heading = shown[shown.index("By file") :].splitlines()[1]
    assert heading.split() == ["evicted", "added", "dropped", "left", "file"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {},
            "118 MiB of page cache of /web was evicted, mostly to keep a cgroup within its limit; 41 MiB of",
        ),
        ({}, "pg_dump (pid 22) evicted most of it, 61 MiB."),
        ({"returned_bytes": 0}, "none of it was read again."),
        (
            {"returned_elsewhere_bytes": 7 * MIB},
            "34 MiB of it was read again here, and 7 MiB by other cgroups.",
        ),
        (
            {"returned_elsewhere_bytes": 41 * MIB},
            "none of it was read again here, and 41 MiB by other cgroups.",
        ),
        ({"evicted_on_request_bytes": 58 * MIB}, "was evicted, mostly to keep a cgroup within its limit;"),
        (
            {"evicted_on_request_bytes": 60 * MIB},
            "was evicted, mostly on request (memory.reclaim, memory.f",
        ),
        ({"evicted_on_request_bytes": 118 * MIB}, "was evicted on request (memory.reclaim, "),
        ({"cgroup": None}, "118 MiB of page cache was evicted"),
        (
            {"evictor": Evictor(22, None, None, 50 * MIB)},
            "pid 22 evicted more of it than any other process, 50 MiB.",
        ),
        ({"evictor": Evictor(22, "a", None, 118 * MIB)}, "a (pid 22) evicted all of it."),
        (
            {"evicted_bytes": 0},
            "No page cache of /web was evicted: 203 MiB was added, 7 MiB was dropped, 78 MiB of the",
        ),
        (
            {"evicted_bytes": 0, "dropped_bytes": 0, "added_bytes": 0},
            "No page cache of /web was added or removed",
        ),
    ],
)
def test_summary_of_a_cache_flow_states_its_numbers(
    flow: CacheFlow, change: Mapping[str, Any], words: str
) -> None:
    assert words in summary(replace(flow, **change))


@pytest.mark.parametrize(
    ("seen", "by_kernel", "words"),
    [
        (34, 34, "34 MiB as well"),
        (34, 37, "large folios as a whole"),
        (34, 31, "the kernel forgets old evictions"),
    ],
)
def test_kernel_count_has_the_reason_for_a_difference(
    flow: CacheFlow, seen: int, by_kernel: int, words: str
) -> None:
    kernel = (KernelCount("/web", 1, BEGIN, BEGIN, seen * MIB, by_kernel * MIB),)
    shown = drawn(replace(flow, refaults=replace(flow.refaults, kernel=kernel)), "cgroup", by_cgroup())
    assert words in " ".join(shown.split())


def test_kernel_count_beside_dropped_cache_may_have_what_was_paged_out(flow: CacheFlow) -> None:
    kernel = (KernelCount("/web", 1, BEGIN, BEGIN, 34 * MIB, 37 * MIB),)
    flow = replace(flow, refaults=replace(flow.refaults, kernel=kernel))
    for cause, may_be in (("truncate", False), ("invalidate", True)):
        shown = drawn(replace(flow, dropped_by_cause={cause: 7 * MIB}), "cgroup", by_cgroup())
        assert ("what a program paged out (MADV_PAGEOUT)" in " ".join(shown.split())) == may_be


def test_unknown_refaults_have_a_reason(flow: CacheFlow) -> None:
    nothing = replace(flow.refaults, bytes=0, median_away_ms=None, kernel=())
    quality = Quality(0, {"refaults.kernel": "because"})
    shown = drawn(replace(flow, refaults=nothing, quality=quality), "cgroup", by_cgroup(), interrupted=True)
    words = " ".join(shown.split())
    assert "read again nothing that is now charged here the kernel's count is not known: because" in words
    assert "this is what had been written by then" in words


def test_runs_of_a_name_have_a_row_each(flow: CacheFlow) -> None:
    table = by_cgroup().assign(container="web", cgroup_id=1, cgroup="/web", run=[1, 2, 3, 3], runs=3)
    shown = drawn(replace(flow, cgroup="web", runs=3), "cgroup", table)
    assert "of web (3 runs) was evicted" in shown
    assert [f"web run {run}" in shown for run in (1, 2, 3)] == [True] * 3
    assert "web run 3 (removed)" in shown
