"""The sentence of each kind of evidence, and the evidence of `explain --json`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.recorded import TRACES

import tracer
from tracer.analysis.explain.evidence.kinds import KINDS, OF_SUSPECTS
from tracer.analysis.explain.words import evidence
from tracer.analysis.results.kill import Evidence, OomReport, Suspect

MIB = 1 << 20
SHARE = {"held_bytes": 37 * MIB, "usage_bytes": 100 * MIB}
SPARED = {
    **{"killed_comm": "a", "killed_pid": 41, "killed_held_bytes": 3 * MIB},
    **{"larger_comm": "b", "larger_pid": 42, "larger_held_bytes": 9 * MIB},
}
FORK = {"parent_comm": "redis", "parent_pid": 7, "child_comm": "rdb", "child_pid": 8}

SENTENCES: list[tuple[str, dict[str, Any], str]] = [
    (
        "fills_limit",
        {**SHARE, "grown_bytes": 30 * MIB, "all_grown_bytes": 60 * MIB},
        "37 MiB of 100 MiB in use, 37.0 %; 30 MiB of the 60 MiB that grew",
    ),
    ("fills_limit", SHARE, "37 MiB of 100 MiB in use, 37.0 %"),
    ("unwritten_cache", SHARE, "37 MiB of page cache not yet written to disk, 37.0 % of usage"),
    (
        "protected_cache",
        SHARE,
        "37 MiB of page cache that memory.min of cgroups below protects, 37.0 % of usage",
    ),
    (
        "barred_memory",
        SHARE,
        "37 MiB of cache and slab that this request may not free, 37.0 % of usage: it may not enter file "
        "systems or start I/O",
    ),
    ("full_swap", {"used_bytes": MIB, "allowed_bytes": MIB}, "1 MiB of 1 MiB of swap was in use"),
    ("full_swap", {"used_bytes": MIB}, "1 MiB of swap was in use"),
    ("constraint", {"constraint": "cpuset"}, "the kernel's constraint was cpuset"),
    (
        "killed_held_limit",
        {"anon_rss_bytes": 93 * MIB, "limit_bytes": 100 * MIB},
        "the killed processes held 93 MiB of anonymous memory, 93.0 % of the limit",
    ),
    (
        "killed_held_limit",
        {"rss_bytes": 93 * MIB, "limit_bytes": 100 * MIB},
        "the killed processes held 93 MiB (RSS, of kinds that are not known), 93.0 % of the limit",
    ),
    (
        "part_of_usage",
        {"part": "unwritten", **SHARE},
        "page cache not yet written was 37 MiB of 100 MiB in use, 37.0 %",
    ),
    (
        "machine_holders",
        {
            "cgroups": (
                {"cgroup": "/a", "held_bytes": 9 * MIB, "charged_bytes": 4 * MIB},
                {"cgroup": "/b", "held_bytes": 8 * MIB, "charged_bytes": -MIB},
                {"cgroup": "/c", "container": "web", "held_bytes": 7 * MIB, "charged_bytes": 0},
                {"cgroup": "/d", "held_bytes": 6 * MIB, "charged_bytes": MIB},
                {"cgroup": "/e", "held_bytes": 6 * MIB, "charged_bytes": 5 * MIB},
            ),
            "lately_ns": 10_000_000_000,
        },
        "of the traced cgroups, these held most: /a 9 MiB, 4 MiB more than 10 s before; /b 8 MiB; "
        "container web (/c) 7 MiB; /e 6 MiB, 5 MiB more than 10 s before",
    ),
    (
        "room_left",
        {"room_pages": 3, "usage_bytes": 100 * MIB - 3 * 4096, "limit_bytes": 100 * MIB},
        "usage at the kill was 3 pages below the limit",
    ),
    ("room_left", {"room_pages": -3}, "usage at the kill was 3 pages above the limit"),
    (
        "lowered_limit",
        {"limit_bytes": 24 * MIB, "usage_bytes": 40 * MIB, "before_ns": 20_000_000, "by_trigger": True},
        "the limit was set to 24 MiB 20 ms before the kill, while 40 MiB was in use: the kill was for this, "
        "and no task had asked for memory",
    ),
    (
        "still_freeing",
        {"kill_id": 3, "killed_comm": "java", "killed_pid": 7, "before_ns": 20_000_000, "freeing_bytes": MIB},
        "java (pid 7), the victim of kill 3, was still freeing 1 MiB 20 ms after it",
    ),
    (
        "growth",
        {"part": "kernel", "grown_bytes": MIB, "span_ns": 1_500_000_000},
        "kernel memory grew by 1 MiB in the 1.50 s before the kill",
    ),
    (
        "evicted_cache",
        {"evicted_bytes": MIB, "span_ns": 20_000_000},
        "reclaim evicted 1 MiB of page cache in the 20 ms at the limit",
    ),
    ("absorbed_memory", {"absorbed_bytes": MIB}, "1 MiB of other memory took the place of evicted cache"),
    (
        "steal_count",
        {"evicted_pages": 1000, "swapped_pages": 7, "pgsteal_pages": 1007},
        "reclaim took 1,000 pages of cache and 7 to swap by this trace, and 1,007 by the kernel's own count "
        "(pgsteal), up to its last reading",
    ),
    (
        "steal_count",
        {"evicted_pages": 9, "swapped_pages": 0, "pgsteal_pages": 9},
        "reclaim took 9 pages of cache by this trace, and 9 by the kernel's own count (pgsteal), up to its "
        "last reading",
    ),
    (
        "reclaim_attempts",
        {"attempts": 3, "scanned_pages": 900, "reclaimed_pages": 80, "stall_ms": 12.5},
        "3 reclaim attempts took 12.5 ms: they scanned 900 pages and freed 80",
    ),
    (
        "fruitless_attempt",
        {"scanned_pages": 1200},
        "the last reclaim attempt scanned 1,200 pages and freed none",
    ),
    (
        "unwritten_scanned",
        {"attempts": 12, "scanned_pages": 300, "unwritten_pages": 290},
        "of 300 cache pages that the last 12 attempts scanned, 290 were not yet written to disk",
    ),
    (
        "machine_memory",
        {
            **{"usable_bytes": 16 * MIB, "anon_bytes": 5 * MIB, "file_bytes": 0, "shmem_bytes": 0},
            **{"slab_bytes": 2 * MIB, "unevictable_bytes": 0, "free_bytes": MIB},
            **{"hugetlb_bytes": 7 * MIB, "gpu_bytes": 3 * MIB},
        },
        "of the machine's 16 MiB: 5 MiB anonymous, 2 MiB slab, 7 MiB huge pages (hugetlb), 3 MiB of GPU "
        "drivers, 1 MiB free",
    ),
    (
        "largest_processes",
        {
            "largest": (
                {"comm": "db", "pid": 7, "held_bytes": 2 * MIB, "processes": 1},
                {"comm": "php", "pid": 9, "held_bytes": MIB, "processes": 40},
            )
        },
        "the largest processes: db (pid 7) 2 MiB, 40 processes php 1 MiB together",
    ),
    ("machine_swap", {"free_bytes": MIB, "total_bytes": 2 * MIB}, "1 MiB of 2 MiB of swap was free"),
    ("machine_swap", {"total_bytes": 2 * MIB}, "the machine has 2 MiB of swap"),
    (
        "short_zone",
        {"zone": "DMA32", "node": 0, "free_bytes": MIB, "min_bytes": 2 * MIB},
        "zone DMA32 of node 0 had 1 MiB free, less than its minimum of 2 MiB",
    ),
    ("swap_use", {"used_bytes": 0, "allowed_bytes": 0}, "swap: none is allowed"),
    ("swap_use", {"used_bytes": MIB}, "swap: 1 MiB in use, no known limit"),
    ("swap_use", {"used_bytes": MIB, "allowed_bytes": MIB}, "swap: 1 MiB of 1 MiB in use, full"),
    ("swap_use", {"used_bytes": MIB, "allowed_bytes": 4 * MIB}, "swap: 1 MiB of 4 MiB in use"),
    (
        "doubt_lost_records",
        {"lost_records": 12},
        "doubt: 12 records were lost in the time before the kill",
    ),
    (
        "doubt_no_sample",
        {},
        "doubt: no sample was taken at the kill, so the composition is computed from charges",
    ),
    ("doubt_log_alone", {}, "doubt: there is only a kernel log, which does not show what grew"),
    (
        "doubt_no_start_sample",
        {},
        "doubt: the memory that the cgroup held when the trace began is not known",
    ),
    (
        "doubt_locked_kind",
        {"locked_bytes": 62 * MIB},
        "doubt: 62 MiB is locked (mlock), and the kernel does not show how much of that is anonymous and how "
        "much is shared memory",
    ),
    (
        "doubt_inferred_limit",
        {},
        "doubt: the cgroup whose limit was hit is inferred, and no kernel log confirms it",
    ),
    (
        "other_cause",
        {"cause": "shmem", "weight": 0.37, "reason": "fills_limit", **SHARE},
        "not shmem: 37 MiB of 100 MiB in use, 37.0 %",
    ),
    (
        "doubt_close_cause",
        {"cause": "swap_exhausted", "weight": 0.5, "reason": "full_swap", "used_bytes": MIB},
        "doubt: swap_exhausted is nearly as likely: 1 MiB of swap was in use",
    ),
    (
        "shared_limit",
        {
            "holders": (
                {"cgroup": "big", "held_bytes": 61 * MIB, "is_triggers": False},
                {"cgroup": "small", "held_bytes": 37 * MIB, "is_triggers": True},
                {"held_bytes": MIB, "is_triggers": False},
            )
        },
        "the limit is an ancestor's, and the cgroups below it share it; a sibling holds most of the memory: "
        "big 61 MiB, small 37 MiB (the task that asked is in it), the ancestor itself 1 MiB",
    ),
    (
        "shared_limit",
        {
            "holders": (
                {"cgroup": "big", "held_bytes": 61 * MIB, "is_triggers": True},
                {"cgroup": "small", "held_bytes": 37 * MIB, "is_triggers": False},
            )
        },
        "the limit is an ancestor's, and the cgroups below it share it; the memory is held by big 61 MiB "
        "(the task that asked is in it), small 37 MiB",
    ),
    (
        "shared_limit",
        {"holders": ()},
        "the limit is an ancestor's, and the cgroups below it share it",
    ),
    (
        "larger_process_lived",
        {**SPARED, "killed_oom_score_adj": 500, "larger_oom_score_adj": 0},
        "a (pid 41) was killed for its oom_score_adj of 500: it held 3 MiB, and b (pid 42) 9 MiB",
    ),
    (
        "larger_process_lived",
        {**SPARED, "killed_oom_score_adj": 0, "larger_oom_score_adj": -900},
        "b (pid 42) held 9 MiB, and a (pid 41), which was killed, 3 MiB: an oom_score_adj of -900 spared the "
        "larger one",
    ),
    (
        "many_processes",
        {"processes": 1500, "largest_bytes": 2 * MIB},
        "the memory is spread over 1,500 processes; the largest held 2 MiB",
    ),
    (
        "same_command",
        {"comm": "cc1plus", "processes": 4, "held_bytes": 399 * MIB, "largest_bytes": 104 * MIB},
        "4 cc1plus processes held 399 MiB of anonymous memory, at most 104 MiB each",
    ),
    (
        "outside_heap",
        {
            **{"comm": "java", "pid": 7, "option": "-Xmx64m", "heap_at_most_bytes": 64 * MIB},
            **{"outside_bytes": 135 * MIB, "anon_rss_bytes": 199 * MIB},
        },
        "java (pid 7) has a heap of at most 64 MiB (-Xmx64m): at least 135 MiB of its 199 MiB of anonymous "
        "memory is outside of it, such as buffers, code and stacks",
    ),
    (
        "many_threads",
        {"comm": "work", "pid": 7, "threads": 174, "anon_rss_bytes": 35 * MIB},
        "work (pid 7) had 174 threads: their stacks are part of its 35 MiB of anonymous memory; how much is "
        "not known",
    ),
    (
        "cow",
        FORK | {"shared_bytes": 40 * MIB, "copied_bytes": 9 * MIB, "is_copying": True},
        "redis (pid 7) and its child rdb (pid 8) share memory since a fork: the RSS of all processes adds up "
        "to 40 MiB more than there is, and each page that one of them writes to is copied; 9 MiB was copied "
        "since; the request that failed was such a copy (do_wp_page)",
    ),
    (
        "cow",
        FORK | {"shared_bytes": 40 * MIB, "children": 4},
        "redis (pid 7) and its 4 children share memory since a fork: the RSS of all processes adds up to "
        "40 MiB more than there is, and each page that one of them writes to is copied",
    ),
    (
        "cow",
        {"shared_bytes": 40 * MIB},
        "processes share memory since a fork: the RSS of all processes adds up to 40 MiB more than there is, "
        "and each page that one of them writes to is copied",
    ),
    ("also_in_usage", {"part": "sock", **SHARE}, "37.0 % of usage was socket buffers: 37 MiB"),
    (
        "shared_files",
        {
            "files": (
                {"kind": "sysv", "name": "/SYSV0052e2c1", "held_bytes": 9 * MIB, "size_bytes": 64 * MIB},
                {"kind": "tmpfs", "name": "/dev/shm/a", "held_bytes": 7 * MIB, "size_bytes": 7 * MIB},
            )
        },
        "of the shared memory, 9 MiB in the System V segment /SYSV0052e2c1 of 64 MiB, 7 MiB in the file "
        "/dev/shm/a of 7 MiB",
    ),
    (
        "unmapped_shmem",
        {"unmapped_bytes": MIB},
        "1 MiB of the shared memory was in no process's RSS: what is in files on tmpfs outlives the kill",
    ),
    (
        "unmapped_shmem",
        {"unmapped_bytes": 60 * MIB, "in_memfds_bytes": 59 * MIB},
        "60 MiB of the shared memory was in no process's RSS: 59 MiB of it is in memfds, which the last "
        "process that has one open frees",
    ),
    (
        "unmapped_shmem",
        {"unmapped_bytes": 60 * MIB, "in_memfds_bytes": 20 * MIB},
        "60 MiB of the shared memory was in no process's RSS: 20 MiB of it is in memfds, which the last "
        "process that has one open frees; what is in files on tmpfs outlives the kill",
    ),
    (
        "ended_writer",
        {"writer_comm": "dd", "writer_pid": 60, "shmem_bytes": 64 * MIB, "ended_ns": 8_000_000_000},
        "64 MiB of the shared memory is of dd (pid 60), which had ended 8 s before: files on tmpfs and "
        "System V segments stay until they are removed, memfds and shared mappings until the last process "
        "has closed and unmapped them",
    ),
    (
        "slow_growth",
        {"grown_bytes": 90 * MIB, "rise_ns": 3_600_000_000_000, "bytes_per_minute": 72 * MIB // 60},
        "memory grew slowly, as with a leak: 1.2 MiB a minute over 1 h 00 min",
    ),
    (
        "burst",
        {"grown_bytes": 60 * MIB, "rise_ns": 1_000_000_000, "calm_ns": 9_000_000_000},
        "memory grew in a burst: four fifths of 60 MiB within 1 s, after 9 s of calm",
    ),
    (
        "thrashing",
        {
            **{"span_ns": 84_000_000_000, "lost_ns": 80_000_000_000},
            **{"evicted_bytes": 9 * MIB, "refaulted_bytes": 8 * MIB},
        },
        "for 1 min 24 s before the kill, tasks were thrashing: 95.2 % of their time went into getting memory "
        "back, and 9 MiB of page cache was evicted, 8 MiB of it read again",
    ),
    (
        "throttled",
        {"waited_ns": 12 * 10**9, "span_ns": 14 * 10**9, "file": "memory.high", "high_bytes": 40 * MIB},
        "in the 14 s before the kill, tasks waited 12 s above the memory.high of 40 MiB, which slows growth "
        "and does not end it",
    ),
    (
        "throttled",
        {"waited_ns": 12 * 10**9, "span_ns": 14 * 10**9, "file": "memory.swap.high", "cgroup": "/pod"},
        "in the 14 s before the kill, tasks waited 12 s above the memory.swap.high of /pod, which slows "
        "growth and does not end it",
    ),
    (
        "refaulted_cache",
        {"refaulted_bytes": MIB, "evicted_bytes": 2 * MIB},
        "1 MiB of the evicted cache was read again: the work needs its cache",
    ),
    ("no_swap", {}, "swap is off for this cgroup, so only page cache could be reclaimed"),
    (
        "no_swap",
        {"bounded_above": True, "cgroup": "/pod"},
        "the cgroup /pod above leaves this one no swap, so only page cache could be reclaimed",
    ),
    ("swap_in_use", {"used_bytes": MIB, "allowed_bytes": 2 * MIB}, "1 MiB was in swap, of 2 MiB allowed"),
    ("swap_in_use", {"used_bytes": MIB}, "1 MiB was in swap"),
    (
        "incompressible",
        {"held_bytes": 2 * MIB, "zswap_bytes": 3 * MIB},
        "2 MiB of the 3 MiB in zswap could not be compressed: swapping it freed nothing",
    ),
    (
        "protected_memory",
        {"protected_bytes": MIB},
        "memory.min protects 1 MiB of cgroups below the limit from reclaim",
    ),
    ("writer_waits", {"waited_ms": 1250.0}, "writers waited 1.25 s, because too many pages were dirty"),
    (
        "requested_reclaim",
        {"cache_bytes": 48 * MIB, "anon_bytes": 0},
        "48 MiB of page cache was taken before the kill on request (memory.reclaim, memory.force_empty of "
        "v1, or a limit set below usage)",
    ),
    (
        "requested_reclaim",
        {"cache_bytes": 2 * MIB, "anon_bytes": MIB},
        "2 MiB of page cache and 1 MiB of anonymous memory was taken before the kill on request "
        "(memory.reclaim, memory.force_empty of v1, or a limit set below usage)",
    ),
    (
        "restricted_request",
        {"gfp": 0xC40},
        "the request may not enter file systems or start I/O (gfp), so reclaim could free less",
    ),
    ("dying_cgroups", {"held_bytes": MIB}, "removed (dying) cgroups still held 1 MiB"),
    (
        "left_by_moved",
        {"processes": 1, "comm": "sh\n", "pid": 7, "held_bytes": 3 * MIB},
        "3 MiB of anonymous memory was left behind by sh\n (pid 7): a process that is moved to another "
        "cgroup leaves its memory charged to the old one",
    ),
    (
        "left_by_moved",
        {"processes": 3, "pid": 7, "held_bytes": 3 * MIB},
        "3 MiB of anonymous memory was left behind by a process (pid 7) and 2 others: a process that is "
        "moved to another cgroup leaves its memory charged to the old one",
    ),
    (
        "memory_in_transit",
        {"held_bytes": MIB},
        "1 MiB was charged but in no counter: pages that exiting processes were freeing, and charges that "
        "CPUs hold in stock",
    ),
    ("clean_cache_left", {"held_bytes": MIB}, "reclaim left 1 MiB of clean page cache"),
]


@pytest.mark.parametrize(("kind", "numbers", "words"), SENTENCES)
def test_sentence_states_the_numbers(kind: str, numbers: dict[str, Any], words: str) -> None:
    assert evidence.sentence(Evidence(kind, numbers, ())) == words
    if kind not in OF_SUSPECTS:
        assert set(numbers) <= set(KINDS[kind].numbers)


def test_sentence_of_every_kind_is_tested() -> None:
    assert list(dict.fromkeys(kind for kind, _, _ in SENTENCES)) == list(KINDS)


def test_source_stands_behind_the_sentence_in_plain_words() -> None:
    grown = Evidence("clean_cache_left", {"held_bytes": MIB}, ("charge", "samples", "kernel_log"))
    assert evidence.with_source(grown).endswith("page cache (charge ledger, samples, kernel log)")
    lost = Evidence("doubt_lost_records", {"lost_records": 2}, ("loss",))
    assert evidence.with_source(lost) == "doubt: 2 records were lost in the time before the kill (loss)"
    assert evidence.doubt(lost) == "2 records were lost in the time before the kill (loss)"


def test_check_kind_without_words_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="no words for the evidence growth"):
        evidence.check(KINDS, set(KINDS) - {"growth"})


def test_check_words_without_a_kind_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="words for unknown kinds of evidence: cosmic_rays"):
        evidence.check(KINDS, {*KINDS, "cosmic_rays"})


@pytest.fixture(scope="module")
def report() -> OomReport:
    (found,) = tracer.open(TRACES / "anon").explain(is_sized=False)
    return found


def test_document_has_kind_sentence_numbers_and_source(report: OomReport) -> None:
    full = Evidence("full_swap", {"used_bytes": MIB}, ("charge", "samples"))
    verdict = replace(
        report.verdict,
        evidence=(Evidence("fruitless_attempt", {"scanned_pages": 5}, ("reclaim",)),),
        contributing=(Evidence("no_swap", {}, ("samples",)),),
        suspects=(Suspect("swap_exhausted", 0.9, full),),
    )
    document = evidence.document(replace(report, verdict=verdict))
    assert json.loads(json.dumps(document)) == document
    assert document["verdict"] == {
        "cause": "anon_growth",
        "confidence": "high",
        "summary": report.verdict.summary,
        "evidence": [
            {
                "kind": "fruitless_attempt",
                "sentence": "the last reclaim attempt scanned 5 pages and freed none",
                "numbers": {"scanned_pages": 5},
                "source": ["reclaim"],
            }
        ],
        "contributing": [
            {
                "kind": "no_swap",
                "sentence": "swap is off for this cgroup, so only page cache could be reclaimed",
                "numbers": {},
                "source": ["samples"],
            }
        ],
        "suspects": [
            {
                "cause": "swap_exhausted",
                "weight": 0.9,
                "reason": "1 MiB of swap was in use",
                "evidence": {
                    "kind": "full_swap",
                    "sentence": "1 MiB of swap was in use",
                    "numbers": {"used_bytes": MIB},
                    "source": ["charge", "samples"],
                },
            }
        ],
    }


def test_document_has_all_else_as_to_dict_has_it(report: OomReport) -> None:
    document, plain = evidence.document(report), report.to_dict()
    assert list(document) == list(plain)
    assert list(document["verdict"]) == list(plain["verdict"])
    for item, raw in zip(document["verdict"]["evidence"], plain["verdict"]["evidence"], strict=True):
        assert {name: item[name] for name in item if name != "sentence"} == raw
    del document["verdict"], plain["verdict"]
    assert document == plain
