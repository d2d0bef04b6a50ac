"""Readings of memory files: their forms, and files that are absent."""

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
from support.memcg_files import read_columns

from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.memory_files import (
    parse_flat_keyed,
    parse_pressure,
    parse_size,
    read_limit,
    read_oom_kills,
    read_pressure,
    read_stat,
)
from tracer.schema import UNLIMITED_BYTES

PAGE = mmap.PAGESIZE
StartWorkload = Callable[..., Any]


def write(directory: Path, **files: str) -> None:
    for name, content in files.items():
        (directory / f"memory.{name}").write_text(content)


def test_read_stat_v1_takes_the_rows_with_descendants(tmp_path: Path) -> None:
    write(
        tmp_path, stat="cache 1\nrss 2\ntotal_cache 40960\ntotal_rss 81920\ntotal_dirty 0\ntotal_pgpgin 6\n"
    )
    assert read_stat(tmp_path, 1) == {"file_bytes": 40960, "anon_bytes": 81920, "file_dirty_bytes": 0}


def test_read_stat_v2_has_the_parts_of_reclaim(tmp_path: Path) -> None:
    write(tmp_path, stat="anon 81920\npagetables 4096\npgscan 7\npgscan_direct 5\npgscan_kswapd 2\nslab 99\n")
    parts = {"pgscan_direct": 5, "pgscan_kswapd": 2}
    assert read_stat(tmp_path, 2) == {"anon_bytes": 81920, "page_tables_bytes": 4096} | parts


def test_read_limit_of_both_versions(tmp_path: Path) -> None:
    write(tmp_path, limit_in_bytes="409600\n", max="max\n")
    assert (read_limit(tmp_path, 1), read_limit(tmp_path, 2)) == (409600, UNLIMITED_BYTES)


def test_read_oom_kills_of_both_versions(tmp_path: Path) -> None:
    write(tmp_path, oom_control="under_oom 1\noom_kill 3\n", events="oom 9\noom_kill 4\noom_group_kill 1\n")
    assert (read_oom_kills(tmp_path, 1), read_oom_kills(tmp_path, 2)) == (3, 4)


@pytest.mark.parametrize("directory", [".", "never"])
def test_reading_an_absent_file_is_empty(tmp_path: Path, directory: str) -> None:
    cgroup = tmp_path / directory
    assert (read_stat(cgroup, 2), read_pressure(cgroup), read_limit(cgroup, 1)) == ({}, {}, None)
    assert read_oom_kills(cgroup, 1) == 0


def test_reading_with_too_many_open_files_raises(tmp_path: Path) -> None:
    script = (
        "import pathlib, resource, sys\n"
        "from tracer.kernel.cgroups.memory_files import read_stat\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try: read_stat(pathlib.Path(sys.argv[1]), 1)\n"
        "except OSError as error: print(error.errno)"
    )
    write(tmp_path, stat="total_rss 4096\n")
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


def test_reading_pressure_switched_off_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "read", refuse)
    write(tmp_path, pressure="")
    assert read_pressure(tmp_path) == {}


@pytest.mark.kernel
@pytest.mark.vm
def test_readings_are_of_known_amounts(memcg: Path, disk_dir: Path, start_workload: StartWorkload) -> None:
    anon_bytes, file_bytes, shmem_bytes = 1237 * PAGE, 311 * PAGE + 5, 173 * PAGE
    anon, write, shmem = f"anon {anon_bytes}", f"write {disk_dir}/f {file_bytes}", f"shmem {shmem_bytes}"
    workload = start_workload(memcg, *f"{anon} then {write} then {shmem}".split())
    readings, version = [], memory_hierarchy().version
    for barrier in ("start", "done anon", "done write", "done shmem"):
        assert workload.advance() == barrier
        readings.append({name: value or 0 for name, value in read_columns(memcg, version).items()})
    start, after_anon, after_file, after_shmem = readings
    slack = 64 * PAGE  # the interpreter's own heap
    metadata = 8 * PAGE  # of the file system, if this write is the first to read it
    assert anon_bytes <= after_anon["anon_bytes"] - start["anon_bytes"] <= anon_bytes + slack
    assert 312 * PAGE <= after_file["file_bytes"] - after_anon["file_bytes"] <= 312 * PAGE + metadata
    assert after_file["file_dirty_bytes"] <= 312 * PAGE + metadata
    assert after_shmem["shmem_bytes"] - after_file["shmem_bytes"] == shmem_bytes
    assert after_shmem["file_bytes"] - after_file["file_bytes"] == shmem_bytes
    assert after_shmem["usage_bytes"] >= anon_bytes + file_bytes + shmem_bytes
    assert after_shmem["limit_bytes"] == UNLIMITED_BYTES
    assert after_shmem["kernel_bytes"] > 0
    assert after_shmem["oom_kill_events"] == 0
