"""The tables of a cgroup: processes, files and reclaim of the last minute, in bounded memory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic.live_rows import MIB, cgroup, rows
from synthetic.live_view_rows import HOSTILE
from synthetic.sample_series import START_NS

from tracer.analysis.results.memory import CodeFrame, GrownCode, GrownProcess
from tracer.capture.contents.held import HeldFile
from tracer.live.now import CgroupNow, Snapshots
from tracer.live.tally import Tally
from tracer.render.words.escape import visible
from tracer.top.details import CODE, FILES, MOST_ROWS, Details, RecentRows, Sheet, failures_in
from tracer.top.files_now import FilesNow

S = 1_000_000_000
ADD = {"op": "add", "cause": "read", "folios": 1, "duration_ns": 0, "dev": 1}
EVICT = ADD | {"op": "delete", "cause": "reclaim_memcg"}


GROWN = GrownCode(
    share=0.7,
    share_error=0.06,
    bytes=7 * MIB,
    of="anon",
    process=GrownProcess(41, HOSTILE, 1),
    language="python",
    mapping=None,
    frames=(CodeFrame("load", "app.py", 41, None), CodeFrame("main", "app.py", 88, None)),
)


def now_of(*numbers: int) -> list[CgroupNow]:
    tally = Tally(4096, free_swap=lambda: 0)
    tally.take("cgroups", rows("cgroups", *(cgroup(number) for number in numbers)))
    sample = {"source": "periodic", "time": START_NS, "usage_bytes": 10 * MIB, "anon_bytes": 6 * MIB}
    tally.take("samples", rows("samples", *(sample | {"cgroup_id": number} for number in numbers)))
    return Snapshots(tally).take(START_NS)


@pytest.fixture
def recent() -> RecentRows:
    return RecentRows()


@pytest.fixture
def details(recent: RecentRows, tmp_path: Path) -> Details:
    def names(inode_ids: Collection[int]) -> dict[int, str]:
        return {one: f"/data/{one}" for one in inode_ids if one < 20 and one != 13}

    return Details(recent, tmp_path / "cgroup", names, tmp_path / "proc")


NOTHING = FilesNow()


def sheet(details: Details, title: str, *numbers: int, files: FilesNow = NOTHING) -> Sheet:
    found = now_of(*numbers)
    (one,) = (one for one in details.sheets(found[0], found, (GROWN,), files, 8 * S) if one.title == title)
    return one


def test_files_of_the_cgroup_and_those_below_are_summed(details: Details, recent: RecentRows) -> None:
    of_two = {"cgroup_id": 2, "task_cgroup_id": 2}
    recent.take(
        "pagecache",
        rows(
            "pagecache",
            {"inode_id": 11, "nr_pages": 256, **of_two, **ADD},
            {"inode_id": 11, "nr_pages": 512, "cgroup_id": 3, "task_cgroup_id": 2, **EVICT},
            {"inode_id": 12, "nr_pages": 256, **of_two, **EVICT, "cause": "truncate"},
            {"inode_id": 13, "nr_pages": 256, **of_two, **ADD},
            {"inode_id": None, "nr_pages": 1, **of_two, **ADD},
            {"inode_id": 14, "nr_pages": 256, "cgroup_id": 9, "task_cgroup_id": 9, **ADD},
        ),
        1 * S,
    )
    files = sheet(details, "files", 2, 3)
    assert files.note == "page cache charged to it: NOW was not read yet; moved in the last 7 s"
    assert files.titles == ("FILE", "NOW", "DIRTY", "ADDED", "EVICTED", "DROPPED")
    assert files.rows == (
        ("/data/11", "?", "?", "1.0Mi", "2.0Mi", "-"),
        ("?", "?", "?", "1.0Mi", "-", "-"),
        ("(sums of many files)", "?", "?", "4.0Ki", "-", "-"),
        ("/data/12", "?", "?", "-", "-", "1.0Mi"),
    )


LOG = HeldFile("/var/log/app.log", "host", "8:1", 71, False, False, 5 * MIB, 0, 0, 0, 0)
READ = FilesNow(
    read_ns=3 * S,
    files=3,
    is_whole=True,
    usage_bytes=9 * MIB,
    sizes={21: (5 * MIB, 0), 11: (3 * MIB, 2 * MIB), 22: (MIB, 0)},
    named={21: LOG, 11: replace(LOG, path="/host/11", deleted=True), 22: replace(LOG, path=None)},
)


def test_files_in_memory_come_first_and_have_the_path_of_the_recording(
    details: Details, recent: RecentRows
) -> None:
    of_two = {"cgroup_id": 2, "task_cgroup_id": 2, "nr_pages": 256}
    batch = rows("pagecache", *({"inode_id": one, **of_two, **ADD} for one in (11, 12, None)))
    recent.take("pagecache", batch, 1 * S)
    files = sheet(details, "files", 2, files=READ)
    assert files.note == (
        "page cache charged to it: NOW is 5 s old (r reads it again); moved in the last 7 s. 5 MiB of 9 MiB "
        "is page cache of one file, /var/log/app.log, clean and not active: it gives way at once."
    )
    assert files.rows == (
        ("/var/log/app.log", "5.0Mi", "-", "-", "-", "-"),
        ("/data/11 (deleted)", "3.0Mi", "2.0Mi", "1.0Mi", "-", "-"),
        ("inode 71 on device 8:1", "1.0Mi", "-", "-", "-", "-"),
        ("(sums of many files)", "?", "?", "1.0Mi", "-", "-"),
        ("/data/12", "-", "-", "1.0Mi", "-", "-"),
    )


@pytest.mark.parametrize("usage_bytes", [None, 0, 4 * MIB])
def test_no_share_of_a_usage_that_does_not_fit_is_shown(details: Details, usage_bytes: int | None) -> None:
    note = sheet(details, "files", 2, files=replace(READ, usage_bytes=usage_bytes)).note
    assert "app.log" not in note


def test_no_sentence_is_on_a_file_that_is_evicted_and_read_again(
    details: Details, recent: RecentRows
) -> None:
    moved = {"cgroup_id": 2, "task_cgroup_id": 2, "nr_pages": 256, "inode_id": 21}
    recent.take("pagecache", rows("pagecache", {**moved, **EVICT}, {**moved, **ADD}), 1 * S)
    assert "app.log" not in sheet(details, "files", 2, files=READ).note


def test_file_that_may_be_among_those_left_out_is_not_known(details: Details, recent: RecentRows) -> None:
    of_two = {"cgroup_id": 2, "task_cgroup_id": 2, "nr_pages": 256, "inode_id": 12}
    recent.take("pagecache", rows("pagecache", {**of_two, **ADD}), 1 * S)
    files = sheet(details, "files", 2, files=replace(READ, is_whole=False, files=70_000))
    assert files.rows[-1] == ("/data/12", "?", "?", "1.0Mi", "-", "-")
    assert "; 100 of 70,001 files. 5 MiB of" in files.note


def test_many_files_are_cut_and_counted(details: Details, recent: RecentRows) -> None:
    many = [
        {"inode_id": 100 + one, "nr_pages": 1, "cgroup_id": 2, "task_cgroup_id": 2, **ADD}
        for one in range(1234)
    ]
    recent.take("pagecache", rows("pagecache", *many), 1 * S)
    files = sheet(details, "files", 2)
    assert len(files.rows) == MOST_ROWS
    assert files.note.endswith("; 100 of 1,234 files")


def test_processes_have_their_memory_and_what_they_charged(
    details: Details, recent: RecentRows, tmp_path: Path
) -> None:
    (tmp_path / "cgroup/2").mkdir(parents=True)
    (tmp_path / "cgroup/2/cgroup.procs").write_text("41\n42\n43\n")
    for pid, anon in ((41, 1024), (42, 4096)):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        name = "small" if pid == 41 else HOSTILE.split("\n", maxsplit=1)[0]
        status = f"Name:\t{name}\nRssAnon:\t{anon:8} kB\nRssFile:\t     512 kB\nRssShmem:\t       0 kB\n"
        (tmp_path / f"proc/{pid}/status").write_text(status)
    charged = {"cgroup_id": 2, "category": "anon", "pages": 1, "updates": 1}
    recent.take(
        "charge",
        rows("charge", {"tgid": 41, "bytes": 3 * MIB, **charged}, {"tgid": 41, "bytes": -MIB, **charged}),
        7 * S,
    )
    processes = sheet(details, "processes", 2)
    assert processes.titles == ("PROCESS", "PID", "ANON", "FILE", "SHMEM", "SWAP", "CHARGED")
    assert processes.rows == (
        ("evil\x1b[2J", "42", "4.0Mi", "512Ki", "-", "?", "-"),
        ("small", "41", "1.0Mi", "512Ki", "-", "?", "3.0Mi"),
    )


def test_reclaim_is_summed_by_process(details: Details, recent: RecentRows, tmp_path: Path) -> None:
    (tmp_path / "proc/41").mkdir(parents=True)
    (tmp_path / "proc/41/comm").write_text("java\n")
    by = {"cgroup_id": 2, "task_cgroup_id": 2, "kind": "memcg", "scanned": 512}
    recent.take(
        "reclaim",
        rows(
            "reclaim",
            {"tgid": 41, "duration_ns": 2_000_000, "reclaimed": 256, **by},
            {"tgid": 41, "duration_ns": 1_000_000, "reclaimed": 0, **by},
            {"tgid": 44, "duration_ns": 1_000, "reclaimed": 0, **by},
        ),
        1 * S,
    )
    assert sheet(details, "reclaim", 2).rows == (
        ("java", "41", "2", "1", "3 ms", "4.0Mi", "1.0Mi"),
        ("(ended)", "44", "1", "1", "1 us", "2.0Mi", "-"),
    )


def test_parts_of_memory_are_those_of_usage(details: Details) -> None:
    memory = sheet(details, "memory", 2)
    assert memory.rows[0][:3] == ("anonymous memory", "6.0Mi", "60%")
    assert memory.rows[-1][:3] == ("other", "4.0Mi", "40%")
    assert memory.rows[1][:3] == ("clean page cache", "?", "")


def test_code_has_the_function_its_caller_and_the_process(details: Details) -> None:
    found = now_of(2)
    sheets = details.sheets(found[0], found, (GROWN, replace(GROWN, share=0.3, frames=())), NOTHING, 8 * S)
    assert sheets[CODE].title == "code"
    process = f"{visible(HOSTILE)} (41)"
    assert sheets[CODE].rows == (
        ("load (app.py:41)", "70%", "7.0Mi", "anon", f"main (app.py:88): {process}"),
        ("?", "30%", "7.0Mi", "anon", f"-: {process}"),
    )


def test_tables_without_rows_say_so(details: Details) -> None:
    found = now_of(2)
    sheets = details.sheets(found[0], found, (), NOTHING, 8 * S)
    assert sheets[FILES].title == "files"
    assert [(one.title, bool(one.rows)) for one in sheets] == [
        ("memory", True),
        ("processes", False),
        ("files", False),
        ("reclaim", False),
        ("evictors", False),
        ("code", False),
    ]
    assert all(one.empty for one in sheets[1:])


def test_rows_are_kept_for_a_minute_and_within_a_bound(recent: RecentRows) -> None:
    batch = rows(
        "charge", *({"cgroup_id": 2, "tgid": 7, "category": "anon", "bytes": 1} for _ in range(1000))
    )
    recent.take("charge", batch, 0)
    recent.take("charge", batch, 59 * S)
    assert len(recent.of("charge", "bytes")["bytes"]) == 2000
    recent.take("charge", batch, 61 * S)
    assert recent.since_s("charge", 61 * S) == 2
    for at in range(1000):
        recent.take("charge", batch, 61 * S + at)
    assert len(recent.of("charge", "bytes")["bytes"]) * 50 < 4 << 20
    assert recent.since_s("reclaim", 0) is None


def test_failed_attempts_are_counted_for_their_target() -> None:
    batch = rows(
        "reclaim",
        {"cgroup_id": 2, "kind": "memcg", "reclaimed": 0},
        {"cgroup_id": 2, "kind": "memcg", "reclaimed": 0},
        {"cgroup_id": 3, "kind": "memcg", "reclaimed": 5},
        {"cgroup_id": None, "kind": "kswapd", "reclaimed": 0},
    )
    assert failures_in(batch) == {2: 2}
