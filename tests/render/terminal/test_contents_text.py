"""The text of a look at memory: the answer, the tables, and names that anybody may have chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len
from support.schemas import require_form

from tracer.capture.contents.held import (
    CgroupContents,
    Contents,
    HeldCache,
    HeldFile,
    HeldMapping,
    HeldProcess,
)
from tracer.render.terminal import console, contents_text
from tracer.render.words.contents_words import document

MIB = 1 << 20
HOSTILE = "\x1b[31m[red]\nx"
LOG = HeldFile(
    *("/var/log/app.log", "host", "8:1", 71, False, False),
    bytes=310 * MIB,
    dirty_bytes=12 * MIB,
    writeback_bytes=MIB,
    active_bytes=40 * MIB,
    unevictable_bytes=0,
)
SHARED = HeldFile("/dev/shm/queue", "host", "0:25", 9, False, True, 17 * MIB, 0, 0, 0, 0)
DELETED = HeldFile("/tmp/spool", "host", "8:1", 72, True, False, 5 * MIB, 0, 0, 0, 0)
GONE = HeldFile(None, None, None, None, None, False, 3 * MIB, 0, 0, 0, 0)
UNNAMED = HeldFile(None, None, "0:44", 12, False, False, 2 * MIB, 0, 0, 0, 0)
MAPPINGS = [
    HeldMapping("heap", "", 100 * MIB),
    HeldMapping("file copy", "/usr/lib/libc.so.6", 9 * MIB),
    HeldMapping("stack", "main", MIB),
    HeldMapping("anonymous", "", MIB // 2),
]
WEB = CgroupContents(
    cgroup="/docker/4f",
    container="web",
    pod=None,
    removed=False,
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
    files=[LOG, SHARED, DELETED, GONE, UNNAMED],
    processes=[HeldProcess(41, "python3", 110 * MIB, MAPPINGS)],
    slab=[HeldCache("dentry", 93_201, 18 * MIB), HeldCache(None, 3, 1024)],
)
GONE_CGROUP = replace(
    WEB,
    cgroup="/docker/9a",
    container=None,
    removed=True,
    anon_bytes=0,
    shmem_bytes=0,
    file_bytes=700 * MIB,
    dirty_bytes=0,
    writeback_bytes=0,
    active_bytes=0,
    hugetlb_bytes=0,
    kernel_bytes=0,
    slab_bytes=0,
    files=[replace(LOG, path="/var/lib/backup", bytes=700 * MIB, dirty_bytes=0, writeback_bytes=0)],
    processes=[],
    slab=[],
)
FOUND = Contents(0, 116.04, 0, [GONE_CGROUP, WEB])


def shown(found: Contents, by: str | None = None, most: int = 10, columns: int = 100) -> str:
    return console.to_text(
        contents_text.lines(found, by, most, columns=columns), columns=columns, colour=False
    )


@pytest.mark.parametrize("by", [None, "file", "process", "slab", "cgroup"])
def test_text_matches_the_golden_file(by: str | None, matches_golden: Callable[[str, str], None]) -> None:
    matches_golden(f"contents{f'-{by}' if by else ''}.txt", shown(FOUND, by))


def test_summary_says_what_removed_cgroups_hold() -> None:
    of_removed = "700 MiB of it belongs to a removed cgroup"
    clean = "700 MiB is clean page cache, which gives way when memory is short."
    assert contents_text.summary(FOUND).endswith(f"{of_removed}: {clean}")
    dirty = replace(GONE_CGROUP, dirty_bytes=380 * MIB)
    assert contents_text.summary(replace(FOUND, cgroups=[dirty])).endswith(f"{of_removed}.")
    assert "removed" not in contents_text.summary(replace(FOUND, cgroups=[WEB]))
    assert contents_text.summary(replace(FOUND, cgroups=[])) == "No memory is charged to these cgroups."


def test_text_counts_the_cgroups_that_have_no_room() -> None:
    assert "1 more cgroup: 479 MiB (-n 2 shows all)" in shown(FOUND, most=1)
    twice = replace(FOUND, cgroups=FOUND.cgroups * 2)
    assert "1 more cgroup: 479 MiB (-n 4 shows all)" in shown(twice, most=3)
    assert "more cgroup" not in shown(FOUND, most=2)


def test_text_without_an_active_list_does_not_speak_of_one() -> None:
    web = replace(WEB, active_bytes=None, files=[replace(LOG, active_bytes=None)])
    for by in (None, "file"):
        text = shown(replace(FOUND, cgroups=[web]), by)
        assert "310 MiB" in text
        assert "active" not in text


def test_text_says_that_files_could_not_be_told_apart() -> None:
    assert "7 MiB of it could not be told apart" in shown(replace(FOUND, unnamed_bytes=7 * MIB))


@pytest.mark.parametrize("by", [None, "file", "process", "slab", "cgroup"])
@pytest.mark.parametrize("columns", [60, 100])
def test_hostile_names_are_escaped_and_fit_the_line(by: str | None, columns: int) -> None:
    hostile = replace(
        WEB,
        container=HOSTILE,
        files=[replace(LOG, path=f"/{HOSTILE * 30}")],
        processes=[HeldProcess(41, HOSTILE, MIB, [HeldMapping("heap", HOSTILE, MIB)])],
        slab=[HeldCache(HOSTILE, 1, 1024)],
    )
    text = shown(replace(FOUND, cgroups=[hostile]), by, columns=columns)
    assert "\x1b" not in text
    assert all(cell_len(line) <= columns for line in text.splitlines())


def test_document_has_the_fields_that_users_rely_on() -> None:
    found = document(FOUND)
    require_form("contents", found)
    assert found | {"cgroups": []} == {
        "schema": 1,
        "time": "1970-01-01T00:00:00.000Z",
        "took_ms": 116.0,
        "unnamed_bytes": 0,
        "cgroups": [],
    }
    web = found["cgroups"][1]
    assert {name: web[name] for name in ("cgroup", "container", "pod", "removed", "slab_bytes")} == {
        "cgroup": "/docker/4f",
        "container": "web",
        "pod": None,
        "removed": False,
        "slab_bytes": 22 * MIB,
    }
    assert web["slab"][0] == {"cache": "dentry", "objects": 93_201, "bytes": 18 * MIB}
    assert web["processes"][0]["mappings"][1]["mapping"] == "file copy"
    assert {"path", "device", "inode", "bytes", "dirty_bytes", "active_bytes"} <= web["files"][0].keys()
