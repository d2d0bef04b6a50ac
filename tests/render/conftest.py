"""The page-cache experiment as results of the analysis, with round numbers, made without a trace."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from tracer.analysis.results.kill import (
    Candidate,
    Evidence,
    LimitOwner,
    OomReport,
    Sizing,
    Suspect,
    Trigger,
    Verdict,
    Victim,
    WhatIf,
)
from tracer.analysis.results.memory import Allocator, Composition, Cushion, Reclaim, ReclaimAttempt
from tracer.analysis.results.outcome import AtLimit
from tracer.analysis.results.quality import Quality
from tracer.analysis.results.survivor import Held

MIB = 1 << 20
ORIGIN = pd.Timestamp("2025-11-24 23:40:01", tz="UTC")


def experiment_timeline(step_ms: int = 100) -> pd.DataFrame:
    """Return a timeline of 4 s: cache fills 100 MiB by 1.2 s, anon replaces it until 3.4 s, then the kill."""
    seconds = np.arange(0, 4000, step_ms) / 1000 + step_ms / 1000
    filled = np.clip(seconds / 1.2, 0, 1) * 117 * MIB
    anon = np.clip((seconds - 1.4) / 2.0, 0, 1) * 97 * MIB + MIB
    kernel = np.full(len(seconds), 1.5 * MIB)
    room = 100 * MIB - kernel - anon
    alive = seconds <= 3.4
    cache = np.where(alive, np.minimum(filled, room), 0)
    anon = np.where(alive, anon, 0)
    added = np.diff(filled, prepend=0)
    evicted = np.clip(added - np.diff(cache, prepend=0), 0, None)
    evicted[~alive] = 0
    dropped = np.zeros(len(seconds))
    dropped[np.argmin(alive)] = MIB // 2
    attempts = (evicted / MIB * 8).astype(int)
    whole = {
        "usage_bytes": np.where(alive, cache + anon + kernel, 256 * 1024),
        "limit_bytes": np.full(len(seconds), 100 * MIB),
        "is_limited": np.ones(len(seconds), dtype=bool),
        "high_bytes": np.full(len(seconds), np.nan),
        "is_high_limited": np.full(len(seconds), np.nan),
        "anon_bytes": anon,
        "file_bytes": cache,
        "cache_bytes": cache,
        "shmem_bytes": np.zeros(len(seconds)),
        "slab_bytes": np.where(alive, MIB, 0),
        "kernel_stack_bytes": np.where(alive, MIB / 8, 0),
        "page_tables_bytes": np.where(alive, MIB / 4, 0),
        "kernel_other_bytes": np.where(alive, MIB / 8, 0),
        "sock_bytes": np.zeros(len(seconds)),
        "zswap_bytes": np.full(len(seconds), np.nan),
        "file_dirty_bytes": np.where((seconds > 0.5) & (seconds < 2), np.minimum(cache, 8 * MIB), 0),
        "file_writeback_bytes": np.zeros(len(seconds)),
        "swap_bytes": np.zeros(len(seconds)),
        "cache_added_bytes": added,
        "cache_evicted_bytes": evicted,
        "cache_dropped_bytes": dropped,
        "cache_refaulted_bytes": np.where((seconds > 3) & alive, MIB / 4, 0),
        "refault_bytes": np.where((seconds > 3) & alive, MIB / 4, 0),
        "reclaim_attempts": attempts,
        "reclaimed_bytes": evicted,
        "scanned_pages": attempts * 64,
        "swap_written_bytes": np.zeros(len(seconds)),
        "swap_read_bytes": np.zeros(len(seconds)),
        "oom_kills": (np.arange(len(seconds)) == np.argmin(alive)).astype(int),
    }
    frame = pd.DataFrame({name: pd.array(np.rint(values), dtype="Int64") for name, values in whole.items()})
    frame["reclaim_stall_ms"] = attempts * 0.11
    frame["stalled_reclaim_ms"] = attempts * 0.11
    for kind in ("throttled", "dirty", "reread", "swap_in", "high"):
        frame[f"stalled_{kind}_ms"] = np.nan
    frame["swap_write_mean_ms"] = frame["swap_read_mean_ms"] = np.nan
    for who in ("some", "full"):
        frame[f"psi_{who}_us"] = pd.array([pd.NA] * len(frame), dtype="Int64")
    frame.index = pd.DatetimeIndex(ORIGIN + pd.to_timedelta(seconds - step_ms / 1000, unit="s"), name="time")
    frame.attrs["every_ns"] = step_ms * 1_000_000
    return frame


def waiting_timeline(step_ms: int = 100) -> pd.DataFrame:
    """Return the timeline on cgroup v2, where reclaim waited for writeback, and a writer until 2 s."""
    frame = experiment_timeline(step_ms)
    seconds = np.arange(len(frame)) * step_ms / 1000
    frame["stalled_reclaim_ms"] *= 9
    frame["stalled_throttled_ms"] = np.where(seconds > 2, frame["stalled_reclaim_ms"] * 0.6, 0)
    frame["stalled_dirty_ms"] = np.where((seconds > 0.5) & (seconds < 2), step_ms * 0.37, 0)
    frame["psi_some_us"] = (frame["stalled_reclaim_ms"] * 930).astype("int64").astype("Int64")
    frame["psi_full_us"] = (frame["stalled_reclaim_ms"] * 110).astype("int64").astype("Int64")
    return frame


KERNEL_STACK = (
    "mark_oom_victim+0x8f",
    "oom_kill_process+0x113",
    "out_of_memory+0x103",
    "mem_cgroup_out_of_memory+0x12f",
    "try_charge_memcg+0x7a1",
    "charge_memcg+0x2e",
    "__mem_cgroup_charge+0x2a",
    "do_anonymous_page+0x3c1",
    "__handle_mm_fault+0x8d2",
    "handle_mm_fault+0xe1",
    "exc_page_fault+0x6a",
    "asm_exc_page_fault+0x26",
)


def attempts(count: int, comm: str = "python3") -> tuple[ReclaimAttempt, ...]:
    return tuple(
        ReclaimAttempt(
            time=ORIGIN + pd.Timedelta(3412 - 2 * (count - number), "ms"),
            duration_ms=0.8 + number / 8,
            kind="memcg",
            cgroup="/memcg-tracer-77-page-cache",
            pid=123,
            comm=comm,
            scanned_pages=4096 + number,
            reclaimed_pages=max(0, 96 - 8 * number),
            priority=max(0, 12 - number),
            scanned_anon_pages=0,
            scanned_file_pages=4096 + number,
            reclaimed_anon_pages=0,
            reclaimed_file_pages=max(0, 96 - 8 * number),
            nr_dirty=0,
            nr_writeback=0,
            usage_bytes=100 * MIB,
            limit_bytes=100 * MIB,
        )
        for number in range(count)
    )


def experiment_report(name: str = "python3", cgroup: str = "/memcg-tracer-77-page-cache") -> OomReport:
    """Return the kill of the page-cache experiment; `name` and `cgroup` replace all names of the kernel."""
    return OomReport(
        kill_id=1,
        time=pd.Timestamp("2025-11-24T23:40:04.412345+00:00"),
        ktime_ns=81_234_412_345_678,
        constraint="memcg",
        limit_owner=LimitOwner(cgroup, None, None, 100 * MIB, 100 * MIB, False),
        trigger=Trigger(123, name, cgroup, 0xCC0, 0, KERNEL_STACK, None, tgid=123),
        victims=(Victim(123, name, cgroup, 97 * MIB, 5 * MIB, 0, 300 * 1024, 0, 0, False),),
        candidates=(
            Candidate(123, name, 25000, 0, 97 * MIB, True, 25000, 0),
            Candidate(99, "sh", 2730, 100, 215 * 4096, False, 230, 2500),
            Candidate(98, "sshd", None, -1000, MIB, False, None, -25000),
        ),
        composition=Composition(
            anon=97 * MIB,
            file_clean=MIB,
            file_dirty=0,
            writeback=0,
            shmem=0,
            unevictable=None,
            slab_reclaimable=MIB,
            slab_unreclaimable=MIB // 2,
            kernel_stack=MIB // 8,
            page_tables=MIB // 4,
            sock=0,
            percpu=0,
            vmalloc=0,
            other=MIB // 8,
            total=100 * MIB,
        ),
        working_set_bytes=99 * MIB + MIB // 2,
        reclaim=Reclaim(915, 58_560, 29_824, 100.6, attempts(12, name)),
        cushion=Cushion(
            cache_start_bytes=97 * MIB + MIB // 2,
            cache_end_bytes=MIB,
            evicted_bytes=116 * MIB + MIB // 2,
            absorbed_bytes=96 * MIB,
            limit_reached_at=pd.Timestamp("2025-11-24T23:40:02.006250+00:00"),
            exhausted_at=pd.Timestamp("2025-11-24T23:40:04.310000+00:00"),
            refaulted_bytes=MIB,
        ),
        allocators=(Allocator(123, name, 98 * MIB), Allocator(99, "sh", MIB // 2), Allocator(7, None, 4096)),
        verdict=Verdict(
            cause="anon_growth",
            confidence="high",
            summary=f"{name} (pid 123) asked for one more page; the cgroup was at its limit of 100 MiB, "
            "97 MiB of it anonymous memory; the page cache "
            "had given back 116.5 MiB and was used up 102 ms before.",
            evidence=(
                Evidence(
                    "part_of_usage",
                    {"part": "anon", "held_bytes": 97 * MIB, "usage_bytes": 100 * MIB},
                    ("samples",),
                ),
                Evidence(
                    "steal_count",
                    {"evicted_pages": 29_824, "swapped_pages": 0, "pgsteal_pages": 29_824},
                    ("pagecache", "reclaim", "samples"),
                ),
                Evidence(
                    "growth",
                    {"part": "anon", "grown_bytes": 96 * MIB, "span_ns": 1_180_000_000},
                    ("charge",),
                ),
            ),
            contributing=(Evidence("clean_cache_left", {"held_bytes": MIB}, ("samples",)),),
            suspects=(
                Suspect(
                    "anon_growth",
                    0.97,
                    Evidence("fills_limit", {"held_bytes": 97 * MIB, "usage_bytes": 100 * MIB}, ("samples",)),
                ),
                Suspect("global_pressure", 0.02, Evidence("constraint", {"constraint": name}, ("oom",))),
            ),
        ),
        advice=("Raise the limit, or find out why python3 holds 97 MiB of anonymous memory.",),
        badness_total_pages=25600,
        what_if=(
            WhatIf(123, name, 0, -891, 99, "sh"),
            WhatIf(99, "sh", 100, 991, 99, "sh"),
        ),
        memory_stat_bytes={"file": MIB, "active_file": MIB // 2, "inactive_file": MIB // 2},
        sizing=Sizing(None),
        quality=Quality(
            lost_records=0,
            kmsg="missing",
            probes={
                "memory by kind": {
                    "hook": "fentry __mod_memcg_lruvec_state",
                    "meaning": "approximate",
                    "detail": "totals are exact",
                },
                "OOM kill": {"hook": "raw_tracepoint mark_victim", "meaning": "exact", "detail": ""},
                "OOM decision": {
                    "hook": None,
                    "meaning": "absent",
                    "detail": "fentry is closed here: limit owner and gfp are inferred",
                },
            },
            unknown={
                "composition.unevictable": "this kernel counts it inside anon, file and shmem",
                "sizing.min_limit_bytes": "it is not derived from one kill",
                "trigger.user_stack": "it was not recorded",
            },
        ),
    )


def experiment_held(cgroup: str = "/memcg-tracer-78-anon", container: str | None = None) -> Held:
    return Held(
        cgroup=cgroup,
        container=container,
        limit_bytes=100 * MIB,
        peak_usage_bytes=99 * MIB,
        peak_time=pd.Timestamp("2025-11-24T23:40:03.000000+00:00"),
        headroom_bytes=MIB,
        peak_anon_bytes=40 * MIB,
        anon_at_peak_bytes=40 * MIB,
        cache_at_peak_bytes=58 * MIB,
        evicted_bytes=30 * MIB,
        refaulted_bytes=None,
        kernel_refaulted_bytes=None,
        max_events=212,
        reclaim=Reclaim(212, 13_000, 7_680, 40.0, ()),
        sizing=Sizing(
            (47 * MIB, 63 * MIB),
            ("Below 47 MiB it does not fit.",),
            outcomes=(
                AtLimit(50 * MIB, 0, "survives", "it fits", (12 * MIB, 14 * MIB)),
                AtLimit(63 * MIB, 0, "survives", "it fits", (0, 0)),
            ),
        ),
        quality=Quality(lost_records=0, kmsg="missing", probes={}),
    )


@pytest.fixture
def timeline() -> pd.DataFrame:
    return experiment_timeline()


@pytest.fixture
def waiting() -> pd.DataFrame:
    return waiting_timeline()


@pytest.fixture
def report() -> OomReport:
    return experiment_report()


@pytest.fixture
def new_report() -> Callable[..., OomReport]:
    return experiment_report


@pytest.fixture
def held() -> Held:
    return experiment_held()


@pytest.fixture
def new_held() -> Callable[..., Held]:
    return experiment_held


@pytest.fixture
def new_timeline() -> Callable[..., pd.DataFrame]:
    return experiment_timeline


@pytest.fixture
def origin() -> pd.Timestamp:
    return ORIGIN
