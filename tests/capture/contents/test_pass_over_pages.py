"""The pass over all pages, beside memory.stat and workloads of known sizes."""

from __future__ import annotations

import mmap
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cached import cached_bytes
from support.huge_pages import small_pages
from support.settled import settle
from support.slowdown import SLOWDOWN
from support.waiting import wait_for

from tracer.capture.contents.pass_over_pages import Amounts, Found, NamedCgroup, PassOverPages
from tracer.enumerations import CONTENTS
from tracer.errors import TracerError
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.physical_memory import Landmark
from tracer.lab.scratch import write_uncached

PAGE = mmap.PAGESIZE
READ_BYTES = 1531 * PAGE
WRITTEN_BYTES = 277 * PAGE
ANON_BYTES = 2113 * PAGE
SHMEM_BYTES = 613 * PAGE
LOCKED_BYTES = 331 * PAGE
FILES = 3_457
HUGE_BYTES = 14 << 20
LONGEST_NAME = "below-" + "b" * 249  # NAME_MAX

StartWorkload = Callable[..., Any]

pytestmark = [pytest.mark.kernel, pytest.mark.beside, pytest.mark.vm]


@pytest.fixture
def passing() -> Iterator[PassOverPages]:
    with PassOverPages() as made:
        yield made


def total(found: Found, memcg_id: int, kind: str, field: str = "bytes") -> int:
    is_of_it = (found.totals["cgroup_id"] == memcg_id) & (found.totals["kind"] == CONTENTS.number(kind))
    return int(found.totals[is_of_it][field].sum())


def objects(found: Found, kind: str) -> Amounts:
    rows: Amounts = found.amounts[found.amounts["kind"] == CONTENTS.number(kind)]
    return rows


def made_below(memcg: Path, name: str) -> Path:
    """Make a cgroup with a memcg of its own below another one, which has no process."""
    if memory_hierarchy().version == 2:
        (memcg / "cgroup.subtree_control").write_text("+memory")
    (memcg / name).mkdir()
    return memcg / name


@contextmanager
def passed_at_rest(
    memcg: Path, *files: Path
) -> Iterator[tuple[PassOverPages, Found, dict[str, int], list[int]]]:
    """Yield a pass over a cgroup during which nothing changed, what memory.stat has, and the bytes of files
    in the page cache.

    The kernel may evict page cache at any time (support/settled.py): then the pass is repeated.
    """
    deadline_s = time.monotonic() + 60 * SLOWDOWN
    while True:
        with PassOverPages() as passing:
            before = settle(memcg), [*map(cached_bytes, files)]
            found = passing.scan([cgroup_id(memcg)])
            after = settle(memcg), [*map(cached_bytes, files)]
            if before == after:
                yield passing, found, *before
                return
        assert time.monotonic() < deadline_s, (before, after)


def test_totals_of_an_idle_cgroup_equal_memory_stat_to_the_page(
    memcg: Path, disk_dir: Path, start_workload: StartWorkload
) -> None:
    """Page cache that was read and written, anonymous memory and shmem, in uneven amounts."""
    write_uncached(disk_dir / "read", READ_BYTES)
    steps = [
        *("read", disk_dir / "read", "then", "anon", ANON_BYTES, "then", "shmem", SHMEM_BYTES),
        *("then", "mlock", LOCKED_BYTES, "then", "write", disk_dir / "written", WRITTEN_BYTES),
    ]
    with small_pages():
        work = start_workload(memcg, *map(str, steps))
        lines = [work.advance() for _ in range(6)]
    assert lines == ["start", "done read", "done anon", "done shmem", "done mlock", "done write"]
    number, made = cgroup_id(memcg), [disk_dir / "read", disk_dir / "written"]
    with passed_at_rest(memcg, *made) as (passing, found, columns, cached):
        assert set(found.totals["cgroup_id"].tolist()) == {number}
        assert total(found, number, "anon") == columns["anon_bytes"]
        assert total(found, number, "shmem") == columns["shmem_bytes"] == SHMEM_BYTES
        assert total(found, number, "file") + SHMEM_BYTES == columns["file_bytes"]
        assert 0 < found.totals["unevictable_bytes"].sum() == columns["unevictable_bytes"] <= LOCKED_BYTES
        assert total(found, number, "file", "dirty_bytes") == columns["file_dirty_bytes"]
        files = {}
        for row in objects(found, "file"):
            name = passing.file(row)
            assert name is not None
            files[int(name["ino"][0])] = row
        sizes, dirty = (
            [int(files[file.stat().st_ino][field]) for file in made] for field in ("bytes", "dirty_bytes")
        )
        assert sizes == cached
        assert all(0 < size <= file.stat().st_size for size, file in zip(sizes, made, strict=True))
        assert dirty[0] == 0 and dirty[1] <= WRITTEN_BYTES  # blocks of the file system may be dirty as well
        assert sum(int(row["bytes"]) for row in files.values()) == total(found, number, "file")
        assert found.unnamed_bytes == 0


def test_huge_pages_count_with_all_their_pages(
    memcg: Path, start_workload: StartWorkload, passing: PassOverPages
) -> None:
    code = (
        f"import mmap, os; open({str(memcg / 'cgroup.procs')!r}, 'w').write('0')\n"
        f"memory = mmap.mmap(-1, {HUGE_BYTES}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "memory.madvise(mmap.MADV_HUGEPAGE)\n"
        f"memory[::{PAGE}] = bytes({HUGE_BYTES // PAGE})\n"
        "print('ready', flush=True); input()"
    )
    command = [sys.executable, "-S", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        number, before = cgroup_id(memcg), settle(memcg)
        found = passing.scan([number])
        process.communicate("\n")
    assert HUGE_BYTES <= total(found, number, "anon") == before["anon_bytes"]
    assert total(found, number, "anon", "objects") < before["anon_bytes"] // PAGE - HUGE_BYTES // PAGE // 2


def test_slab_is_told_apart_by_cache(
    memcg: Path, disk_dir: Path, start_workload: StartWorkload, passing: PassOverPages
) -> None:
    """Each new file has a dentry, which is charged to the cgroup whose task made it."""
    work = start_workload(memcg, "files", str(disk_dir), str(FILES))
    assert [work.advance(), work.advance()] == ["start", "done files"]
    number, hierarchy, before = cgroup_id(memcg), memory_hierarchy(), settle(memcg)
    found = passing.scan([number])
    caches = {passing.cache(row): row for row in objects(found, "slab")}
    assert FILES <= caches[b"dentry"]["objects"] < FILES + FILES // 4
    assert int(sum(row["bytes"] for row in caches.values())) <= total(found, number, "slab")
    if hierarchy.version == 2:  # v1 prints no line for slab
        counted = before["slab_reclaimable_bytes"] + before["slab_unreclaimable_bytes"]
        assert total(found, number, "slab") == pytest.approx(counted, rel=0.01)


def holder_of(memcg: Path, file: Path) -> tuple[int, NamedCgroup | None]:
    """Return which cgroup has the page cache of a file, the largest at or below a cgroup, and its name."""
    with PassOverPages() as passing:
        found = passing.scan([cgroup_id(memcg)], slab=False)
        files = objects(found, "file")
        largest = files[files["bytes"].argmax()]
        owner = int(largest["cgroup_id"])
        assert 0 < cached_bytes(file) <= largest["bytes"] <= READ_BYTES
        total = next(row for row in found.totals if row["cgroup_id"] == owner)
        return owner, passing.cgroup(total)


def test_removed_cgroup_that_holds_cache_is_named(
    memcg: Path, disk_dir: Path, start_workload: StartWorkload, passing: PassOverPages
) -> None:
    """It is known to be removed at once, before a worker of the kernel takes its memcg offline. Since "mm:
    memcontrol: eliminate the problem of dying memory cgroup for LRU folios", v7.1, the parent then gets its
    page cache."""
    write_uncached(disk_dir / "read", READ_BYTES)
    below = made_below(memcg, LONGEST_NAME)
    removed = (cgroup_id(below), NamedCgroup(f"/{memcg.name}/{LONGEST_NAME}", False))
    parent = (cgroup_id(memcg), NamedCgroup(f"/{memcg.name}", True))
    work = start_workload(below, "read", str(disk_dir / "read"))
    assert [work.advance(), work.advance()] == ["start", "done read"]
    found = passing.scan([removed[0]], slab=False)
    work.release()
    work.process.wait()
    below.rmdir()
    assert passing.cgroup(found.totals[0]) == removed[1]
    types = Btf.load()
    objcg = types.struct("obj_cgroup")
    assert objcg is not None
    if types.member(objcg, "is_root") is None:
        assert holder_of(memcg, disk_dir / "read") == removed
    else:
        wait_for(lambda: holder_of(memcg, disk_dir / "read") == parent)


def test_owner_that_is_not_a_memcg_is_left_out(passing: PassOverPages) -> None:
    """The mapping of a page is taken for its owner, as the memory of a slab is that was freed meanwhile.

    A page may have anything there. On 7.3, one of a machine led to a memcg by chance.
    """
    types = Btf.load()
    folio = types.struct("folio")
    assert folio is not None
    owner, mapping = types.member(folio, "memcg_data"), types.member(folio, "mapping")
    assert owner is not None and mapping is not None
    passing._pages -= owner.offset_bytes - mapping.offset_bytes
    found = passing.scan(None, slab=False)
    assert found.totals["bytes"].sum() < 1 << 20


def test_cgroups_that_are_not_selected_are_left_out(
    memcg: Path, start_workload: StartWorkload, passing: PassOverPages
) -> None:
    one, other = (made_below(memcg, name) for name in ("one", "other"))
    for cgroup in (one, other):
        work = start_workload(cgroup, "anon", str(ANON_BYTES))
        assert [work.advance(), work.advance()] == ["start", "done anon"]
    found = passing.scan([cgroup_id(one)], slab=False, objects=False)
    assert set(found.totals["cgroup_id"].tolist()) == {cgroup_id(one)}
    assert len(found.amounts) == 0
    assert np.all(found.totals["kind"] != CONTENTS.number("slab"))
    with PassOverPages() as above:
        both = above.scan([cgroup_id(memcg)], slab=False)
    assert {cgroup_id(one), cgroup_id(other)} <= set(both.totals["cgroup_id"].tolist())


def test_kernel_with_several_arrays_of_pages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame that is not where the array would have it stands for a section with its own array. It is that
    of the file in memory: the page of another one may be reclaimed at any time."""
    asked = Landmark.frame

    def frame(mark: Landmark) -> int | None:
        found, file = asked(mark), Path(f"/proc/self/fd/{mark.fd}").readlink()
        return found + 7 if found is not None and file.name.startswith("memfd:") else found

    monkeypatch.setattr(Landmark, "frame", frame)
    with pytest.raises(TracerError, match="pages are not one array"):
        PassOverPages()
