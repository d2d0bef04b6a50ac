"""Page cache that is older than the trace: known at the first look, to the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.cached import cached_bytes
from support.settled import settle

from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.cache_flow import cache_flow
from tracer.analysis.views.evictions import evictions, moves
from tracer.capture.contents.pass_over_pages import PassOverPages
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.scratch import write_uncached

pytestmark = [pytest.mark.kernel, pytest.mark.beside, pytest.mark.vm]

PAGE = os.sysconf("SC_PAGESIZE")
BEFORE = {"first": 1531, "second": 613}
LATER_PAGES = 277
SHMEM_BYTES = 331 * PAGE


@pytest.fixture
def limited() -> Iterator[Path]:
    with ephemeral_cgroup("test", 1 << 30, 0) as directory:
        yield directory


def reclaim(memcg: Path) -> None:
    """Make the kernel evict all page cache of a cgroup."""
    if memory_hierarchy().version == 1:
        (memcg / "memory.force_empty").write_text("0", encoding="ascii")
        return
    if not (memcg / "memory.reclaim").exists():
        pytest.skip("needs memory.reclaim (5.19)")
    with suppress(OSError):  # it asks for more than there is, so that all is reclaimed (EAGAIN)
        (memcg / "memory.reclaim").write_text(str(1 << 30), encoding="ascii")


def test_cache_from_before_the_trace_is_known_by_file(
    limited: Path,
    disk_dir: Path,
    start_workload: Callable[..., Any],
    start_recorder: Callable[..., Any],
) -> None:
    """The kernel may evict pages of these files at any time (support/settled.py)."""
    with PassOverPages():
        pass  # its programs are compiled now
    for name, pages in (BEFORE | {"later": LATER_PAGES}).items():
        write_uncached(disk_dir / name, pages * PAGE)
    steps = [*("read", disk_dir / "first", "then", "read", disk_dir / "second", "then")]
    steps += ["shmem", SHMEM_BYTES, "then", "read", disk_dir / "later"]
    work = start_workload(limited, *map(str, steps))
    assert [work.advance() for _ in range(4)] == ["start", "done read", "done read", "done shmem"]
    most, most_cached = settle(limited), {name: cached_bytes(disk_dir / name) for name in BEFORE}
    recorder = start_recorder("-c", str(limited))
    recorder.wait_for(lambda: len(AnalysedTrace(recorder.path).contents))
    least, least_cached = settle(limited), {name: cached_bytes(disk_dir / name) for name in BEFORE}
    assert work.advance() == "done read"
    reclaim(limited)
    trace = AnalysedTrace(recorder.stop())
    assert trace.meta["contents_left_out"] is None

    rows = trace.contents
    assert set(rows["cgroup_id"]) == {cgroup_id(limited)}
    assert rows.index.nunique() == 1
    sums = rows.groupby("kind", observed=True)["bytes"].sum()
    assert sums["shmem"] == most["shmem_bytes"] == least["shmem_bytes"] == SHMEM_BYTES
    assert least["file_bytes"] <= sums["file"] + SHMEM_BYTES <= most["file_bytes"]
    files = evictions(trace, "file").set_index("path")
    for name in BEFORE:
        one = files.loc[str(disk_dir / name)]
        assert least_cached[name] <= one["first_look_bytes"] <= one["evicted_bytes"] <= most_cached[name]
        assert one["added_bytes"] == 0
    later = files.loc[str(disk_dir / "later")]
    assert later[["first_look_bytes"]].isna().all()
    assert later["added_bytes"] == LATER_PAGES * PAGE
    flow = cache_flow(trace, moves(trace))
    assert flow.first_look is not None
    assert flow.first_look.bytes == sums["file"]
    (held,) = trace.held_cgroups()
    assert held.cached is not None
    assert [(one.path, one.bytes) for one in held.cached.files if one.kind == "file"][:2] == [
        (str(disk_dir / name), files.loc[str(disk_dir / name), "first_look_bytes"]) for name in BEFORE
    ]
