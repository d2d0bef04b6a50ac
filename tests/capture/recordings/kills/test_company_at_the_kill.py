"""What each cgroup below a shared limit holds at a kill, where a task of one has reclaimed from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pytest
from support.huge_pages import small_pages
from support.ledger_check import kernel_bytes
from support.memcg_files import Columns, read_columns
from support.settled import settle

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.scratch import write_uncached

pytestmark = [pytest.mark.kernel, pytest.mark.vm, pytest.mark.timeout(240)]

MIB: Final = 1 << 20
PAGE: Final = 4096
LIMIT_BYTES: Final = 72 * MIB
FILES: Final = {"large": 37 * MIB + 3 * PAGE, "small": 11 * MIB + 5 * PAGE}
MOST_FREED_BYTES: Final = 32 * PAGE  # SWAP_CLUSTER_MAX: a reclaim isolates so many pages in one go
_COUNTED: Final = ("anon", "file", "shmem")


@pytest.fixture
def no_huge_pages() -> Iterator[None]:
    """Keep khugepaged from processes that are started here: it fills huge pages, so the anon of a process
    that waits grows (by 80 to 178 pages, seconds after the kill on 7.3)."""
    with small_pages():
        yield


def in_children(top: Path, disk_dir: Path, start_workload: Callable[..., Any]) -> dict[str, Path]:
    """Return the cgroups of programs that have read a file each and wait, and of one that will grow."""
    if memory_hierarchy().version == 2:
        (top / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    children = {name: top / name for name in (*FILES, "grower")}
    for name, cgroup in children.items():
        cgroup.mkdir()
        if name in FILES:
            write_uncached(disk_dir / name, FILES[name])
            reader = start_workload(cgroup, "read", str(disk_dir / name))
            assert (reader.advance(), reader.advance()) == ("start", "done read")
    return children


def counted(trace: Any, cgroup: int, until: pd.Timestamp | None = None) -> dict[str, int]:
    """Return what the ledger has charged to a cgroup until a moment or the end, in bytes by category."""
    rows = trace.charge[trace.charge["cgroup_id"] == cgroup]
    rows = rows if until is None else rows[rows.index <= until]
    sums = rows.groupby("category", observed=False)["bytes"].sum()
    return {name: int(sums[name]) for name in _COUNTED}


def grown(trace: Any, cgroup: int, now: Columns) -> dict[str, int]:
    kernel = kernel_bytes(trace, cgroup, now)
    return {name: kernel[name] for name in _COUNTED}


@pytest.mark.usefixtures("no_huge_pages")
def test_memory_that_a_sibling_reclaimed_is_gone_at_the_kill(
    disk_dir: Path, start_workload: Callable[..., Any], start_recorder: Callable[..., Any]
) -> None:
    """The readers do not run any more, so that memory.stat after the kill tells what they held at the kill.

    A reclaim that was under way at the kill may still free a folio or two: the ledger has these after it.
    """
    with ephemeral_cgroup("company", LIMIT_BYTES, 0) as top:
        recorder = start_recorder("-c", str(top))
        children = in_children(top, disk_dir, start_workload)
        ids = {name: cgroup_id(cgroup) for name, cgroup in children.items()}
        grower = start_workload(children["grower"], "anon", str(2 * LIMIT_BYTES))
        assert (grower.advance(), grower.advance()) == ("start", "")
        settle(top)
        after = {name: read_columns(children[name], memory_hierarchy().version) for name in FILES}
        path = recorder.stop()
    trace = tracer.open(path)
    report = trace.explain()[0]
    at_kill = trace.oom.index[0]

    for name in FILES:
        kernel, ledger = grown(trace, ids[name], after[name]), counted(trace, ids[name], at_kill)
        assert counted(trace, ids[name]) == kernel, name
        freed = ledger.pop("file") - kernel.pop("file")
        assert (ledger, 0 <= freed <= MOST_FREED_BYTES) == (kernel, True), (name, freed)
    held = {name: counted(trace, number, at_kill) for name, number in ids.items()}
    total, (victim,) = report.composition.total, report.victims
    assert report.limit_owner.is_ancestor and total is not None
    assert abs(held["grower"]["anon"] - (victim.anon_rss_bytes or 0)) <= MIB
    charged = sum(one["anon"] + one["file"] for one in held.values())
    assert 0 <= total - charged <= 3 * MIB  # kernel memory, and the stocks of the CPUs
    assert report.composition.anon == sum(one["anon"] for one in held.values())
    assert report.cushion.cache_end_bytes == sum(one["file"] - one["shmem"] for one in held.values())
