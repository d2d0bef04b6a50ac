from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.memory_files import (
    COLUMNS,
    MemcgFiles,
    parse_flat_keyed,
    parse_pressure,
    parse_size,
)
from tracer.schema import TABLES, UNLIMITED_BYTES

PAGE = mmap.PAGESIZE
StartWorkload = Callable[..., Any]

V1 = {
    "memory.usage_in_bytes": "409600\n",
    "memory.limit_in_bytes": f"{UNLIMITED_BYTES}\n",
    "memory.soft_limit_in_bytes": "819200\n",
    "memory.kmem.usage_in_bytes": "8192\n",
    "memory.kmem.limit_in_bytes": "1228800\n",
    "memory.memsw.limit_in_bytes": "1638400\n",
    "memory.use_hierarchy": "1\n",
    "memory.failcnt": "14\n",
    "memory.memsw.failcnt": "3\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 1\noom_kill 3\n",
    "memory.stat": "cache 1\nrss 2\ntotal_cache 40960\ntotal_rss 81920\ntotal_shmem 4096\ntotal_dirty 0\n"
    "total_swap 12288\ntotal_workingset_refault_file 5\ntotal_pgmajfault 6\ntotal_inactive_file 28672\n",
}
V2 = {
    "memory.current": "409600\n",
    "memory.max": "max\n",
    "memory.high": "405504\n",
    "memory.low": "0\n",
    "memory.min": "4096\n",
    "memory.swap.current": "12288\n",
    "memory.swap.high": "max\n",
    "memory.swap.max": "0\n",
    "memory.oom.group": "1\n",
    "memory.stat": "anon 81920\nfile 40960\nkernel 8192\npagetables 4096\nsock 0\nslab_reclaimable 16\n"
    "workingset_refault_file 5\npgscan 7\npgsteal 6\nthp_fault_alloc 9\nslab 99\n",
    "memory.events": "low 5\nhigh 4\nmax 17\noom 2\noom_kill 3\noom_group_kill 1\n",
    "memory.swap.events": "high 8\nmax 6\nfail 11\n",
    "memory.pressure": "some avg10=0.00 avg60=1.50 avg300=0.00 total=123\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=45\n",
}


def test_max_events_v1_uncounted_refusals_are_unknown(tmp_path: Path) -> None:
    """With equal limits of memory and memory + swap, an uncounted 0 is unknown; without a limit it is 0."""
    same = {"memory.limit_in_bytes": "819200\n", "memory.memsw.limit_in_bytes": "819200\n"}
    uncounted = {"memory.failcnt": "0\n", "memory.memsw.failcnt": "0\n"}
    assert reading(tmp_path, 1, V1 | uncounted)["max_events"] == 0
    assert reading(tmp_path, 1, V1 | uncounted | same)["max_events"] is None
    assert reading(tmp_path, 1, V1 | same)["max_events"] == 17
    unbounded = uncounted | {"memory.memsw.limit_in_bytes": f"{UNLIMITED_BYTES}\n"}
    assert reading(tmp_path, 1, V1 | uncounted)["swap_max_events"] is None
    assert reading(tmp_path, 1, V1 | unbounded)["swap_max_events"] == 0


def reading(directory: Path, version: int, files: dict[str, str]) -> dict[str, int | None]:
    for name, content in files.items():
        (directory / name).write_text(content)
    seen = MemcgFiles(directory, version).read()
    assert seen is not None
    return seen


def known(values: dict[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in values.items() if value is not None}


def test_reading_v1_has_all_columns(tmp_path: Path) -> None:
    assert known(reading(tmp_path, 1, V1)) == {
        "usage_bytes": 409600,
        "limit_bytes": UNLIMITED_BYTES,
        "soft_limit_bytes": 819200,
        "kernel_bytes": 8192,
        "swap_limit_bytes": 1638400,
        "kmem_limit_bytes": 1228800,
        "use_hierarchy": 1,
        "oom_kill_disable": 0,
        "max_events": 17,
        "swap_max_events": 3,
        "under_oom": 1,
        "oom_kill_events": 3,
        "file_bytes": 40960,
        "anon_bytes": 81920,
        "shmem_bytes": 4096,
        "file_dirty_bytes": 0,
        "swap_bytes": 12288,
        "swap_usage_bytes": 12288,
        "workingset_refault_file": 5,
        "pgmajfault": 6,
        "inactive_file_bytes": 28672,
    }


def test_reading_v2_has_all_columns(tmp_path: Path) -> None:
    assert known(reading(tmp_path, 2, V2)) == {
        "usage_bytes": 409600,
        "limit_bytes": UNLIMITED_BYTES,
        "high_bytes": 405504,
        "low_bytes": 0,
        "min_bytes": 4096,
        "swap_usage_bytes": 12288,
        "swap_bytes": 12288,
        "swap_high_bytes": UNLIMITED_BYTES,
        "swap_limit_bytes": 0,
        "oom_group": 1,
        "anon_bytes": 81920,
        "file_bytes": 40960,
        "kernel_bytes": 8192,
        "page_tables_bytes": 4096,
        "sock_bytes": 0,
        "slab_reclaimable_bytes": 16,
        "workingset_refault_file": 5,
        "pgscan": 7,
        "pgsteal": 6,
        "max_events": 17,
        "high_events": 4,
        "low_events": 5,
        "oom_events": 2,
        "oom_kill_events": 3,
        "oom_group_kill_events": 1,
        "swap_high_events": 8,
        "swap_max_events": 6,
        "swap_fail_events": 11,
        "psi_some_total_us": 123,
        "psi_full_total_us": 45,
    }


@pytest.mark.parametrize("version", [1, 2])
def test_columns_are_those_of_samples_in_order(tmp_path: Path, version: int) -> None:
    keys = list(reading(tmp_path, version, V1 if version == 1 else V2))
    assert keys == list(COLUMNS)
    assert keys == [
        name for name in TABLES["samples"].names if name not in ("time", "cgroup_id", "source", "kill_id")
    ]


def test_reading_missing_files_are_none(tmp_path: Path) -> None:
    assert known(reading(tmp_path, 2, {"memory.stat": "anon 4096\n"})) == {"anon_bytes": 4096}


def test_reading_files_created_later_are_found(tmp_path: Path) -> None:
    """A v2 cgroup without the memory controller has only memory.pressure."""
    (tmp_path / "memory.pressure").write_text(V2["memory.pressure"])
    files = MemcgFiles(tmp_path, 2)
    assert known(files.read() or {}) == {"psi_some_total_us": 123, "psi_full_total_us": 45}
    for name, content in V2.items():
        (tmp_path / name).write_text(content)
    assert files.read() == reading(tmp_path, 2, V2)


def test_reading_without_directory_is_none(tmp_path: Path) -> None:
    assert MemcgFiles(tmp_path / "never", 1).read() is None


def test_reading_directory_of_other_cgroup_is_none(tmp_path: Path) -> None:
    (tmp_path / "memory.stat").write_text("total_rss 4096\n")
    number = tmp_path.stat().st_ino
    assert known(MemcgFiles(tmp_path, 1, number).read() or {}) == {"anon_bytes": 4096}
    assert MemcgFiles(tmp_path, 1, number + 1).read() is None


def test_reading_directory_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is removed after it was opened has no files."""
    directory = tmp_path / "cgroup"
    directory.mkdir()
    files = MemcgFiles(directory, 2)
    opened = os.open

    def remove_first(path: Any, *args: Any, **options: Any) -> int:
        if path != directory and directory.exists():
            directory.rmdir()
        return opened(path, *args, **options)

    monkeypatch.setattr(os, "open", remove_first)
    assert files.read() is None


def test_reading_too_many_open_files_raises(tmp_path: Path) -> None:
    script = (
        "import pathlib, resource, sys\n"
        "from tracer.kernel.cgroups.memory_files import MemcgFiles\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try: MemcgFiles(pathlib.Path(sys.argv[1]), 1).read()\n"
        "except OSError as error: print(error.errno)"
    )
    for name, content in V1.items():
        (tmp_path / name).write_text(content)
    command = [sys.executable, "-c", script, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == f"{errno.EMFILE}\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"0\n", 0),
        (b"max\n", UNLIMITED_BYTES),
        (b"9223372036854771712\n", UNLIMITED_BYTES),
        (b"9223372036854710272\n", UNLIMITED_BYTES),  # with 64-KiB pages
        (b"9223372036854706176\n", 9223372036854706176),
        (b"", None),
        (b"-1\n", None),
        (b"1 2\n", None),
    ],
)
def test_parse_size_of_each_form(content: bytes, expected: int | None) -> None:
    assert parse_size(content) == expected


WORDS = st.from_regex(rb"[a-z_]{1,12}", fullmatch=True)
NUMBERS = st.integers(0, 2**63 - 1)


@given(st.dictionaries(WORDS, NUMBERS), st.sets(WORDS))
def test_parse_flat_keyed_returns_requested_rows(rows: dict[bytes, int], others: set[bytes]) -> None:
    content = b"".join(b"%s %d\n" % row for row in rows.items())
    columns = {key: key.decode() for key in [*rows, *others] if len(key) % 2}
    expected = {key.decode(): value for key, value in rows.items() if key in columns}
    assert parse_flat_keyed(content, columns) == expected


@given(st.binary(max_size=200))
def test_parsers_any_content_never_raise(content: bytes) -> None:
    size = parse_size(content)
    assert size is None or 0 <= size <= UNLIMITED_BYTES
    assert all(value is None or value >= 0 for value in parse_pressure(content).values())
    parse_flat_keyed(content, {b"anon": "anon"})


@given(NUMBERS, NUMBERS)
def test_parse_pressure_returns_totals(some: int, full: int) -> None:
    line = b"%s avg10=1.00 avg60=0.00 avg300=0.00 total=%d\n"
    content = line % (b"some", some) + line % (b"full", full)
    assert parse_pressure(content) == {"psi_some_total_us": some, "psi_full_total_us": full}


def test_reading_pressure_switched_off_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "read", refuse)
    assert known(reading(tmp_path, 2, {"memory.pressure": ""})) == {}


@pytest.fixture
def opened(memcg: Path) -> MemcgFiles:
    return MemcgFiles(memcg, memory_hierarchy().version, cgroup_id(memcg))


@pytest.mark.kernel
@pytest.mark.vm
def test_reading_known_amounts_are_exact(
    memcg: Path, opened: MemcgFiles, disk_dir: Path, start_workload: StartWorkload
) -> None:
    anon_bytes, file_bytes, shmem_bytes = 1237 * PAGE, 311 * PAGE + 5, 173 * PAGE
    anon, write, shmem = f"anon {anon_bytes}", f"write {disk_dir}/f {file_bytes}", f"shmem {shmem_bytes}"
    workload = start_workload(memcg, *f"{anon} then {write} then {shmem}".split())
    readings = []
    for barrier in ("start", "done anon", "done write", "done shmem"):
        assert workload.advance() == barrier
        readings.append(known(opened.read() or {}))
    start, after_anon, after_file, after_shmem = readings
    slack = 64 * PAGE  # the interpreter's own heap
    assert anon_bytes <= after_anon["anon_bytes"] - start["anon_bytes"] <= anon_bytes + slack
    assert after_file["file_bytes"] - after_anon["file_bytes"] == 312 * PAGE
    assert after_file["file_dirty_bytes"] <= 312 * PAGE
    assert after_shmem["shmem_bytes"] - after_file["shmem_bytes"] == shmem_bytes
    assert after_shmem["file_bytes"] - after_file["file_bytes"] == shmem_bytes
    assert after_shmem["usage_bytes"] >= anon_bytes + file_bytes + shmem_bytes
    assert after_shmem["limit_bytes"] == UNLIMITED_BYTES
    assert after_shmem["kernel_bytes"] > 0
    assert after_shmem["oom_kill_events"] == 0


@pytest.mark.kernel
def test_reading_controller_enabled_later_is_found(memcg: Path) -> None:
    if memory_hierarchy().version == 1:
        pytest.skip("needs cgroup v2: on v1 a cgroup of the hierarchy always has its controller")
    (memcg / "child").mkdir()
    files = MemcgFiles(memcg / "child", 2)
    assert (files.read() or {})["usage_bytes"] is None
    (memcg / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    assert (files.read() or {})["usage_bytes"] is not None


@pytest.mark.kernel
def test_reading_removed_cgroup_is_none(memcg: Path) -> None:
    child = memcg / "child"
    child.mkdir()
    files = MemcgFiles(child, memory_hierarchy().version)
    assert files.read() is not None
    child.rmdir()
    assert files.read() is None
