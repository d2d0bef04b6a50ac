"""Sentences on what cgroups hold: only what the pass over pages proves."""

from __future__ import annotations

import mmap
import os
from dataclasses import replace

import pytest

from tracer.capture.contents.held import CgroupContents, CountedBetween, HeldCache, HeldFile
from tracer.render.words.contents_words import advice_on, file_advice

MIB = 1 << 20
WHOLE = 479 * MIB
LOG = HeldFile("/var/log/app.log", "host", "8:1", 71, False, False, 310 * MIB, 0, 0, 0, 0)
WEB = CgroupContents(
    *("/docker/4f", "web", None, False),
    anon_bytes=111 * MIB,
    shmem_bytes=17 * MIB,
    file_bytes=341 * MIB,
    dirty_bytes=12 * MIB,
    writeback_bytes=MIB,
    active_bytes=40 * MIB,
    unevictable_bytes=0,
    hugetlb_bytes=2 * MIB,
    kernel_bytes=3 * MIB,
    slab_bytes=22 * MIB,
    counted=None,
    files=[],
    processes=None,
    slab=None,
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            "310 MiB of 479 MiB is page cache of one file, /var/log/app.log, clean and not active: it gives "
            "way at once.",
        ),
        (
            {"active_bytes": None},
            "310 MiB of 479 MiB is page cache of one file, /var/log/app.log, clean: it gives way at once.",
        ),
        (
            {"active_bytes": 40 * MIB},
            "270 MiB of 479 MiB is page cache of one file, /var/log/app.log, clean and not active: it gives "
            "way at once.",
        ),
        (  # pages may be active and dirty at once
            {"active_bytes": 40 * MIB, "dirty_bytes": 12 * MIB, "writeback_bytes": MIB},
            "At least 257 MiB of 479 MiB is page cache of one file, /var/log/app.log, clean and not active: "
            "it gives way at once.",
        ),
        ({"active_bytes": 230 * MIB}, None),  # in use
        ({"unevictable_bytes": 290 * MIB}, None),  # mlock(2)
        ({"bytes": 20 * MIB}, None),
        (
            {"dirty_bytes": 290 * MIB, "writeback_bytes": MIB},
            "291 MiB of 479 MiB is of /var/log/app.log and must be written before reclaim can free it.",
        ),
        (
            {"shmem": True},
            "310 MiB of 479 MiB is /var/log/app.log (shmem): memory that its programs must free (remove the "
            "file), or that goes to swap.",
        ),
        (
            {"shmem": True, "deleted": True},
            "310 MiB of 479 MiB is /var/log/app.log (shmem, deleted): memory that its programs must free "
            "(unmap and close it), or that goes to swap.",
        ),
        (
            {"path": "zero", "path_kind": "kernel", "shmem": True, "deleted": True},
            "310 MiB of 479 MiB is a shared anonymous mapping (shmem): memory that its programs must free "
            "(unmap and close it), or that goes to swap.",
        ),
        (
            {"path": "memfd:zero", "path_kind": "kernel", "shmem": True, "deleted": True},
            "310 MiB of 479 MiB is memfd:zero (shmem): memory that its programs must free (unmap and close "
            "it), or that goes to swap.",
        ),
        (
            {"path": "SYSV00001f90", "path_kind": "kernel", "shmem": True, "deleted": True},
            "310 MiB of 479 MiB is SYSV00001f90 (shmem): memory that its programs must free (detach it, "
            "ipcrm -m 71), or that goes to swap.",
        ),
        (
            {"path": "SYSV00001f90", "shmem": True},  # of a tmpfs
            "310 MiB of 479 MiB is SYSV00001f90 (shmem): memory that its programs must free (remove the "
            "file), or that goes to swap.",
        ),
        ({"shmem": True, "bytes": 20 * MIB}, None),
    ],
)
def test_advice_on_the_cache_of_one_file(changes: dict[str, object], expected: str | None) -> None:
    assert file_advice(replace(LOG, **changes), WHOLE) == expected  # type: ignore[arg-type]


def test_advice_on_a_file_escapes_its_name() -> None:
    said = file_advice(replace(LOG, path="/\x1b[2J\nx"), WHOLE)
    assert said is not None and "/" in said
    assert "\x1b" not in said and "\n" not in said


def test_nothing_is_said_of_nothing() -> None:
    assert file_advice(replace(LOG, bytes=0), 0) is None


def test_idle_cache_without_one_large_file_is_what_is_surely_idle() -> None:
    many = [replace(LOG, bytes=MIB)] * 3
    assert list(advice_on(replace(WEB, files=many))) == [
        "At least 271 MiB is page cache of files, clean and not active: it gives way at once."
    ]
    assert list(advice_on(replace(WEB, files=many, active_bytes=None))) == [
        "At least 311 MiB is page cache of files, clean: it gives way at once."
    ]
    assert list(advice_on(replace(WEB, files=many, active_bytes=300 * MIB))) == []
    assert list(advice_on(replace(WEB, files=many, unevictable_bytes=300 * MIB))) == []
    assert len(list(advice_on(replace(WEB, files=[LOG])))) == 1


def test_advice_on_the_slab_of_files() -> None:
    busy = replace(WEB, active_bytes=300 * MIB)
    slab = [HeldCache("ext4_inode_cache", 71_003, 90 * MIB), HeldCache("dentry", 93_201, 18 * MIB)]
    assert list(advice_on(replace(busy, slab=slab))) == [
        "108 MiB of slab is for 93,201 names and inodes of files that were looked at: reclaim can free what "
        "is not in use."
    ]
    assert list(advice_on(replace(busy, slab=slab[1:]))) == []


@pytest.mark.parametrize(
    ("cpus", "counted_mib", "expected"),
    [
        (2, (341, 341), None),
        (2, (335, 347), None),
        (2, (330, 335), None),  # 2 %
        (2, (300, 304), "the kernel counted 300 MiB to 304 MiB"),
        (2, (400, 400), "the kernel counted 400 MiB"),
        (256, (300, 304), None),  # the counters may be 64 MiB behind
        (256, (270, 276), "the kernel counted 270 MiB to 276 MiB"),
    ],
)
def test_page_cache_that_came_and_went_during_the_pass_is_said(
    cpus: int, counted_mib: tuple[int, int], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    monkeypatch.setattr(mmap, "PAGESIZE", 4096)
    least, most = (size * MIB for size in counted_mib)
    one = replace(WEB, counted=CountedBetween((0, 0), (0, 0), (least, most)))
    said = [sentence for sentence in advice_on(one) if "came and went" in sentence]
    head = "Page cache came and went during the pass: 341 MiB of it was met, and"
    assert said == ([] if expected is None else [f"{head} {expected}, so the sizes of files are uncertain."])
