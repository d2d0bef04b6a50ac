"""Samples of real cgroups, compared with their files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.memcg_files import COLUMNS, Columns, counts_page_tables, read_columns
from support.settled import settle

from tracer.capture.bpf.load import SAMPLES_A_RUN, Programs
from tracer.capture.learn import calibration
from tracer.capture.rows import sampler as sampler_module
from tracer.capture.rows.cgroup_rows import Cgroup
from tracer.capture.rows.sampler import Sampler
from tracer.kernel.cgroups.cgroupfs import Hierarchy, cgroup_id, memory_hierarchy

pytestmark = [pytest.mark.kernel, pytest.mark.vm, pytest.mark.timeout(600)]

MIB: Final = 1 << 20
ONLY_IN_COUNTERS: Final = (
    *("slab_reclaimable_bytes", "slab_unreclaimable_bytes", "kernel_stack_bytes", "page_tables_bytes"),
    *("percpu_bytes", "vmalloc_bytes", "sock_bytes"),
)
"""Columns that no file of v1 prints, and whose positions calibration finds on every machine."""

NOT_ON_V1: Final = (
    *("pgscan", "pgsteal", "workingset_activate_anon", "workingset_activate_file"),
    *("zswap_bytes", "zswapped_bytes", "zswap_incomp_bytes"),
)
"""Columns that no file of v1 prints, and whose positions are found if reclaim happens, or if the kernel is
built with zswap."""

HAPPENED: Final = (
    *("usage_bytes", "anon_bytes", "file_bytes", "shmem_bytes", "file_mapped_bytes", "kernel_bytes"),
    *("inactive_anon_bytes", "inactive_file_bytes", "unevictable_bytes", "swap_bytes", "swap_usage_bytes"),
    *("workingset_refault_file", "pgfault", "pgmajfault", "max_events", "oom_kill_events"),
)
"""Columns that the work of the test makes greater than 0."""

HAPPENED_ON_V2: Final = (
    *("pgscan", "pgsteal", "slab_unreclaimable_bytes", "kernel_stack_bytes", "page_tables_bytes"),
    *("oom_events", "high_events", "psi_some_total_us", "psi_full_total_us"),
)
KNOBS: Final = {
    1: {
        "memory.limit_in_bytes": 64 * MIB,
        "memory.soft_limit_in_bytes": 32 * MIB,
        "memory.swappiness": 37,
    },
    2: {
        "memory.max": 64 * MIB,
        "memory.high": 60 * MIB,
        "memory.low": MIB,
        "memory.min": 2 * MIB,
        "memory.swap.max": 50 * MIB,
        "memory.swap.high": 40 * MIB,
        "memory.oom.group": 1,
    },
}


@pytest.fixture(scope="module")
def hierarchy() -> Hierarchy:
    return memory_hierarchy()


@pytest.fixture(scope="module")
def programs(hierarchy: Hierarchy) -> Iterator[Programs]:
    loaded = Programs(version=hierarchy.version, trace_all=True)
    loaded.wait(print)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def learnt(programs: Programs, hierarchy: Hierarchy) -> Any:
    return calibration.calibrate(programs, programs.types, hierarchy)


class Sampled:
    """A sampler, with the cgroups that were added to it by their directories."""

    def __init__(self, programs: Programs, hierarchy: Hierarchy, learnt: Any) -> None:
        self.warnings: list[str] = []
        self.hierarchy = hierarchy
        self.programs = programs
        self.sampler = Sampler(programs, hierarchy, learnt, self.warnings.append)

    def add(self, *directories: Path) -> None:
        for directory in directories:
            parent = None if directory == self.hierarchy.mount else cgroup_id(directory.parent)
            memcg = calibration.find_memcg(self.programs, directory)
            path = self.hierarchy.path(directory)
            self.sampler.add(Cgroup(cgroup_id(directory), parent, path, memcg))

    def rows(self, source: str = "periodic") -> dict[int, Columns]:
        """Return id -> the columns of the samples that are taken now."""
        self.sampler.sample(source)
        batch = self.sampler.rows(self.sampler.take(), 0)
        assert set(batch["source"].to_pylist()) <= {source}
        rows = {row["cgroup_id"]: row for row in batch.drop_columns("time").to_pylist()}
        return {number: {name: row[name] for name in COLUMNS} for number, row in rows.items()}

    def changed(self) -> set[int]:
        return set(self.rows())


@pytest.fixture
def sampled(programs: Programs, hierarchy: Hierarchy, learnt: Any) -> Sampled:
    return Sampled(programs, hierarchy, learnt)


def write(cgroup: Path, name: str, value: object) -> None:
    (cgroup / name).write_text(str(value), encoding="ascii")


def make(version: int, *directories: Path) -> None:
    """Make cgroups, and enable the controller in their parents."""
    for directory in directories:
        if version == 2:
            write(directory.parent, "cgroup.subtree_control", "+memory")
        directory.mkdir()


def write_uncached(file: Path, size_bytes: int) -> None:
    """Write a file that is not in the page cache then: its reader is charged."""
    with file.open("wb") as stream:
        stream.write(bytes(size_bytes))
        stream.flush()
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def limit(cgroup: Path, version: int, bytes_: int) -> None:
    """Set the limit, and that of memory and swap, so that the cgroup cannot swap."""
    if version == 1:
        write(cgroup, "memory.limit_in_bytes", bytes_)
        write(cgroup, "memory.memsw.limit_in_bytes", bytes_)
    else:
        write(cgroup, "memory.max", bytes_)
        write(cgroup, "memory.swap.max", 0)


@pytest.fixture
def worked(
    memcg: Path,
    hierarchy: Hierarchy,
    disk_dir: Path,
    swap: None,
    start_workload: Callable[..., Any],
) -> list[Path]:
    """Return a cgroup, one below it, and two below that, in which much has happened, and which are quiet."""
    version = hierarchy.version
    parent = memcg / "parent"
    killed, pressed, busy = (parent / name for name in ("killed", "pressed", "busy"))
    make(version, parent, killed, pressed, busy)
    for name, value in KNOBS[version].items():
        write(busy, name, value)
    limit(killed, version, 12 * MIB)
    limit(pressed, version, 24 * MIB)
    write_uncached(disk_dir / "large", 48 * MIB)
    start_workload(killed, "anon", str(400 * MIB)).process.communicate("\n\n\n")
    read = start_workload(pressed, *f"read {disk_dir}/large then read {disk_dir}/large".split())
    while read.advance() not in ("", "done read"):
        pass
    read.process.communicate("\n\n\n")
    held = f"anon {80 * MIB} then shmem {MIB} then mlock {MIB} then threads 4"
    waiting = start_workload(busy, *f"{held} then write {disk_dir}/new {3 * MIB}".split())
    while (reached := waiting.advance()) != "done write":
        assert reached, "it ended, and its memory with it"
    os.sync()
    settle(memcg)
    return [memcg, parent, killed, pressed, busy]


def test_samples_of_settled_cgroups_equal_their_files(
    worked: list[Path], sampled: Sampled, hierarchy: Hierarchy
) -> None:
    version = hierarchy.version
    sampled.add(*worked)
    sampled.rows("start")
    found, printed = {}, {}
    for _ in range(5):  # until nothing changed meanwhile: kernel threads may still free memory, and other
        # tasks take the pages that a CPU charged in advance (drain_stock in mm/memcontrol.c)
        printed = {cgroup: read_columns(cgroup, version) for cgroup in worked}
        rows = sampled.rows("end")
        found = {cgroup: rows[cgroup_id(cgroup)] for cgroup in worked}
        if printed == {cgroup: read_columns(cgroup, version) for cgroup in worked}:
            break
        time.sleep(1)
    in_files = [name for name in COLUMNS if version == 2 or name not in ONLY_IN_COUNTERS + NOT_ON_V1]
    counted = any(counts_page_tables(cgroup, version) for cgroup in worked)
    if not counted:
        assert all(row["page_tables_bytes"] is None for row in found.values())
        in_files.remove("page_tables_bytes")
    for cgroup in worked:
        differing = {
            name: (found[cgroup][name], printed[cgroup][name])
            for name in in_files
            if found[cgroup][name] != printed[cgroup][name]
        }
        assert differing == {}, cgroup.name
    if version == 1:
        assert all(found[cgroup][name] is not None for cgroup in worked for name in ONLY_IN_COUNTERS)
    happened = HAPPENED + (HAPPENED_ON_V2 if version == 2 else ())
    missing = {name for name in happened if not any(row[name] for row in found.values())}
    assert missing == (set() if counted else {"page_tables_bytes"})


def test_limits_of_ancestors_that_are_not_sampled_are_known(
    memcg: Path, sampled: Sampled, hierarchy: Hierarchy
) -> None:
    parent, child = memcg / "parent", memcg / "parent" / "child"
    make(hierarchy.version, parent, child)
    limit(parent, hierarchy.version, 31 * MIB)
    if hierarchy.version == 2:
        write(memcg, "memory.high", 29 * MIB)
        write(child, "memory.max", 41 * MIB)
    settle(memcg)
    sampled.add(child)
    (row,) = sampled.rows("start").values()
    printed = read_columns(child, hierarchy.version)
    names = [name for name in COLUMNS if name.startswith(("effective", "swap_room", "swap_bound"))]
    assert {name: row[name] for name in names} == {name: printed[name] for name in names}
    assert row["effective_limit_bytes"] == 31 * MIB
    assert row["effective_swap_limit_bytes"] == (31 * MIB if hierarchy.version == 1 else 0)
    assert row["effective_high_bytes"] == (None if hierarchy.version == 1 else 29 * MIB)


def test_root_has_the_columns_of_its_files(sampled: Sampled, hierarchy: Hierarchy) -> None:
    sampled.add(hierarchy.mount)
    (row,) = sampled.rows("start").values()
    printed = read_columns(hierarchy.mount, hierarchy.version)
    missing = {name for name in COLUMNS if row[name] is None and printed[name] is not None}
    lacking = {f"{name}_bytes" for name in sampled.sampler.lacking}
    assert missing == {name for name in lacking if printed[name] == 0}
    beyond = {name for name in COLUMNS if row[name] is not None and printed[name] is None}
    assert beyond <= ({*ONLY_IN_COUNTERS, *NOT_ON_V1} if hierarchy.version == 1 else set())
    for name in ("limit_bytes", "swappiness", "use_hierarchy", "oom_kill_disable"):
        assert row[name] == printed[name]


def test_usage_of_the_root_has_room_for_all_of_its_parts(sampled: Sampled, hierarchy: Hierarchy) -> None:
    """The root of v1 shows file and anon alone. What changes between the readings is far less than that."""
    sampled.add(hierarchy.mount)
    (row,) = sampled.rows("start").values()
    if hierarchy.version == 2:
        assert row["usage_bytes"] is None
        return
    kernel_bytes = row["kernel_bytes"] or 0
    parts = (row["anon_bytes"] or 0) + (row["file_bytes"] or 0) + kernel_bytes
    assert kernel_bytes > 0
    assert row["usage_bytes"] == pytest.approx(parts, abs=kernel_bytes // 2)


def test_cgroup_without_a_change_has_no_sample(memcg: Path, sampled: Sampled, hierarchy: Hierarchy) -> None:
    version = hierarchy.version
    children = [memcg / name for name in ("a", "b")]
    make(version, *children)
    settle(memcg)
    sampled.add(memcg, *children)
    assert sampled.changed() == {cgroup_id(cgroup) for cgroup in (memcg, *children)}
    assert sampled.changed() == set()
    for name, value in KNOBS[version].items():
        write(children[1], name, value)
        assert sampled.changed() == {cgroup_id(children[1])}, name
        assert sampled.changed() == set(), name
    assert len(sampled.rows("end")) == 3


def test_quiet_cgroup_is_looked_at_again_in_time(memcg: Path, sampled: Sampled, hierarchy: Hierarchy) -> None:
    """At the latest at the eighth look, or at the next one after a charge of a cgroup below it."""
    child, name = memcg / "child", "memory.limit_in_bytes" if hierarchy.version == 1 else "memory.max"
    make(hierarchy.version, child)
    settle(memcg)
    sampled.add(memcg, child)
    sampled.rows("start")
    for _ in range(40):
        sampled.changed()
    write(memcg, name, 64 * MIB)
    found = [sampled.changed() for _ in range(8)]
    assert cgroup_id(memcg) in set().union(*found)
    for _ in range(40):
        sampled.changed()
    write(memcg, name, 32 * MIB)
    sampled.sampler.wake([cgroup_id(child)])
    assert sampled.changed() == {cgroup_id(memcg), cgroup_id(child)}, "the limit is also the child's"


def test_charge_is_sampled_in_all_cgroups_above(
    memcg: Path, sampled: Sampled, hierarchy: Hierarchy, start_workload: Callable[..., Any]
) -> None:
    parent, child, other = memcg / "parent", memcg / "parent" / "child", memcg / "other"
    make(hierarchy.version, parent, child, other)
    settle(memcg)
    sampled.add(memcg, parent, child, other)
    before = sampled.rows("start")
    work = start_workload(child, "anon", str(16 * MIB))
    assert [work.advance(), work.advance()] == ["start", "done anon"]
    after = sampled.rows()
    assert after.keys() == {cgroup_id(cgroup) for cgroup in (memcg, parent, child)}
    for number, row in after.items():
        grown = {
            name: (row[name] or 0) - (before[number][name] or 0) for name in ("usage_bytes", "anon_bytes")
        }
        assert min(grown.values()) >= 16 * MIB


def test_pressure_is_that_of_the_file_while_tasks_wait(
    memcg: Path, sampled: Sampled, hierarchy: Hierarchy, disk_dir: Path, start_workload: Callable[..., Any]
) -> None:
    if hierarchy.version == 1:
        pytest.skip("needs cgroup v2: there is no pressure on v1")
    limit(memcg, 2, 24 * MIB)
    write_uncached(disk_dir / "large", 64 * MIB)
    sampled.add(memcg)
    work = start_workload(memcg, *" then ".join([f"read {disk_dir}/large"] * 20).split())
    work.advance()
    compared = 0
    for _ in range(20):
        work.release()
        before = read_columns(memcg, 2)["psi_some_total_us"]
        row = sampled.rows().get(cgroup_id(memcg))
        after = read_columns(memcg, 2)["psi_some_total_us"]
        work.advance()
        if row is not None and before is not None and after is not None:
            assert before <= (row["psi_some_total_us"] or 0) <= after
            compared += after > 0
    assert compared


def test_removed_cgroup_has_no_sample_though_its_name_is_used_again(
    memcg: Path, sampled: Sampled, hierarchy: Hierarchy
) -> None:
    child = memcg / "child"
    make(hierarchy.version, child)
    number = cgroup_id(child)
    sampled.add(memcg, child)
    assert number in sampled.rows("start")
    child.rmdir()
    child.mkdir()
    assert sampled.rows("end").keys() == {cgroup_id(memcg)}
    sampled.add(child)
    assert cgroup_id(child) in sampled.rows("end")


def test_controller_that_is_enabled_later_is_found(
    memcg: Path, sampled: Sampled, hierarchy: Hierarchy
) -> None:
    if hierarchy.version == 1:
        pytest.skip("needs cgroup v2: on v1 a cgroup of the hierarchy always has its controller")
    (memcg / "child").mkdir()
    sampled.add(memcg / "child")
    assert sampled.rows("start") == {}
    write(memcg, "cgroup.subtree_control", "+memory")
    found = [sampled.changed() for _ in range(sampler_module._SEARCH_INTERVAL + 1)]
    assert {cgroup_id(memcg / "child")} in found
    write(memcg, "cgroup.subtree_control", "-memory")
    assert sampled.rows("end") == {}


def test_more_cgroups_than_one_run_samples(memcg: Path, sampled: Sampled, hierarchy: Hierarchy) -> None:
    children = [memcg / f"child-{number}" for number in range(3 * SAMPLES_A_RUN + 1)]
    make(hierarchy.version, *children)
    sampled.add(memcg, *children)
    everything = {cgroup_id(cgroup) for cgroup in (memcg, *children)}
    assert sampled.rows("start").keys() == everything
    gone = {cgroup_id(cgroup) for cgroup in children[::3]}
    for number in gone:
        sampled.sampler.discard(number)
    assert sampled.rows("end").keys() == everything - gone
    sampled.add(*children[::3])
    assert sampled.rows("end").keys() == everything
    before = len(list(Path("/proc/self/fd").iterdir()))
    sampled.rows("end")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_cgroups_without_a_place_are_counted(
    memcg: Path, sampled: Sampled, hierarchy: Hierarchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = [memcg / f"child-{number}" for number in range(4)]
    make(hierarchy.version, *children)
    monkeypatch.setattr(sampler_module, "SAMPLED", 3)
    sampled.add(*children)
    assert sampled.rows("start").keys() == {cgroup_id(child) for child in children[:2]}
    assert sampled.sampler.lost == 2
    assert sampled.warnings == ["more than 3 cgroups are traced: the others have no samples"]
    for gone, lost in ((0, 3), (1, 3)):
        sampled.sampler.discard(cgroup_id(children[gone]))
        assert len(sampled.rows("end")) == 2
        assert sampled.sampler.lost == lost
    assert sampled.changed() <= {cgroup_id(child) for child in children[2:]}
