"""The limits below which a recorded run is killed, and from which it is not, from charges of known sizes."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic.crawling import throttled
from synthetic.resized import resized

from tracer.analysis.results.outcome import AtLimit
from tracer.analysis.whatif.outcomes import what_if

PAGE = 4096
MIB = 1 << 20
LIMIT = 100 * MIB
UNSEEN = 2 * (64 * PAGE + (256 << 10))
OF_COMMAND: dict[str, Any] = {
    "filters": {"asked": [], "command": ["work"]},
    "end_reason": "command_ended",
    "command_status": 0,
}


def work(trace: Any, *, cache: int = 30, faults: int = 61 * MIB // PAGE, **sample: int) -> Any:
    """Record cgroup 7 with 61 MiB of anon of sort from 0.1 s to 0.5 s, 2 MiB of kernel memory, and a file.

    `sample`: columns of memory.stat at 0.2 s.
    """
    trace.meta |= OF_COMMAND
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    trace.add("tasks", tgid=41, comm="sort", cgroup_id=7, first_seen=trace.ns(0))
    now = {"usage_bytes": (61 + cache + 2) * MIB, "limit_bytes": LIMIT}
    trace.add("samples", 0, cgroup_id=7, source="periodic", usage_bytes=0, limit_bytes=LIMIT)
    for category, amount in (("kernel", 2), ("file", cache), ("anon", 61)):
        trace.charged(0.1, 7, category, amount * MIB, tgid=41, **now)
    trace.add("samples", 0.2, cgroup_id=7, source="periodic", pgfault=faults, **now, **sample)
    trace.charged(0.5, 7, "anon", -61 * MIB, tgid=41, usage_bytes=32 * MIB, limit_bytes=LIMIT)
    return trace


def at(trace: Any, mib: float, swap_bytes: int | None = None) -> AtLimit:
    (found,) = what_if(trace, [round(mib * MIB)], 7, swap_bytes).limits
    return found


def test_run_is_killed_below_its_peak_and_survives_above_it(trace: Any) -> None:
    work(trace)
    assert at(trace, 63 - 1.1).outcome == "killed"
    assert at(trace, 63 - 1.1).why == (
        "the peak of what reclaim cannot free (63 MiB at 100 ms, by sort) does not fit"
    )
    assert at(trace, 63).outcome == "unknown"
    assert at(trace, 63).why.endswith("the limit is too close to it")
    assert at(trace, 67).outcome == "survives"
    found = what_if(trace, [67 * MIB], 7)
    assert found.killed_below_bytes == 63 * MIB - UNSEEN
    assert found.survives_from_bytes == 63 * MIB + UNSEEN + 63 * MIB // 64 + MIB


def test_peak_that_did_not_last_is_no_proof_of_a_kill(trace: Any) -> None:
    """An uncharge may reach the ledger after a later charge: the sum of both never was."""
    work(trace)
    trace.charged(0.3, 7, "anon", 17 * MIB, tgid=41)
    trace.charged(0.305, 7, "anon", -17 * MIB, tgid=41)
    trace.add("samples", 0.4, cgroup_id=7, source="periodic", pgfault=78 * MIB // PAGE)
    assert at(trace, 61).outcome == "killed"
    assert at(trace, 70).outcome == "unknown"
    assert at(trace, 84).outcome == "survives"


def test_memory_that_came_and_went_within_a_row_has_room(trace: Any) -> None:
    """After 0.2 s, 12 MiB of page faults more than the charges explain."""
    work(trace)
    trace.charged(0.3, 7, "anon", 3 * MIB, tgid=41)
    trace.add("samples", 0.4, cgroup_id=7, source="periodic", pgfault=76 * MIB // PAGE)
    assert at(trace, 61).outcome == "killed"
    assert at(trace, 77).outcome == "unknown"
    assert at(trace, 77).why.endswith("12 MiB may have come and gone within 10 ms, unseen")
    assert at(trace, 82).outcome == "survives"


def test_memory_that_came_and_went_was_no_more_than_the_peak_of_usage(trace: Any) -> None:
    work(trace, cache=1)
    trace.add("samples", 0.4, cgroup_id=7, source="periodic", pgfault=99 * MIB // PAGE)
    assert at(trace, 63.9).outcome == "unknown"
    assert what_if(trace, [MIB], 7).survives_from_bytes == 64 * MIB + UNSEEN


def test_file_of_shmem_that_was_written_and_removed_had_at_most_the_greatest_pace(trace: Any) -> None:
    """No page fault counts what write(2) takes. The fastest 10 ms had 9 MiB."""
    trace.meta |= OF_COMMAND
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    now = {"usage_bytes": 70 * MIB, "limit_bytes": LIMIT}
    trace.add("samples", 0, cgroup_id=7, source="periodic", pgfault=0, **now)
    for step in range(5):
        trace.charged(0.1 + step * 0.011, 7, "file", 9 * MIB, tgid=41, **now)
        trace.charged(0.1 + step * 0.011, 7, "shmem", 9 * MIB, tgid=41, **now)
    assert at(trace, 48.5).outcome == "survives"
    for category in ("file", "shmem"):
        trace.charged(0.153, 7, category, -45 * MIB, tgid=41, **now)
    trace.add("samples", 0.9, cgroup_id=7, source="end", pgfault=0, **now)
    assert at(trace, 54).outcome == "unknown"
    assert at(trace, 54).why.endswith("9 MiB may have come and gone within 10 ms, unseen")
    assert at(trace, 58).outcome == "survives"


def test_charge_of_a_row_may_be_older_than_an_uncharge_before_it(trace: Any) -> None:
    """Rows of two CPUs: the 15 MiB were there beside all 61 MiB, or after 15 MiB of them had gone."""
    work(trace)
    trace.charged(0.3, 7, "anon", -15 * MIB, tgid=41)
    trace.charged(0.309, 7, "anon", 15 * MIB, tgid=41)
    trace.add("samples", 0.4, cgroup_id=7, source="periodic", pgfault=76 * MIB // PAGE)
    assert at(trace, 77).outcome == "unknown"
    assert at(trace, 82).outcome == "survives"


def test_memory_that_the_program_gave_back_is_no_proof_of_a_kill(trace: Any) -> None:
    lists = {"inactive_file_bytes": 40 * MIB, "active_file_bytes": 9 * MIB}
    work(trace, file_bytes=30 * MIB, shmem_bytes=0, **lists)  # 19 MiB of the lists are of no file
    assert at(trace, 63 - 19 - 1.1).outcome == "killed"
    assert at(trace, 60).outcome == "unknown"


def test_huge_pages_may_be_untouched_whatever_faults_on_files_there_were(trace: Any) -> None:
    """A program faults 61 MiB of small pages, then 20 MiB of huge pages while it faults 15 MiB of files."""
    work(trace)
    trace.charged(0.3, 7, "anon", 20 * MIB, tgid=41)
    trace.add("samples", 0.4, cgroup_id=7, source="periodic", pgfault=76 * MIB // PAGE)
    assert at(trace, 63 - 1.1).outcome == "killed"
    assert at(trace, 80).outcome == "unknown"
    assert "20 MiB may be untouched parts of huge pages" in at(trace, 80).why
    assert at(trace, 87).outcome == "unknown"  # huge pages that came and went have no faults
    assert at(trace, 95).outcome == "survives"  # usage was 93 MiB


def test_late_count_of_faults_does_not_show_huge_pages(trace: Any) -> None:
    """A CPU keeps up to 64 counts to itself, and there are two."""
    work(trace, faults=61 * MIB // PAGE - 128)
    trace.add("samples", 0.4, cgroup_id=7, source="periodic", pgfault=61 * MIB // PAGE)
    assert at(trace, 63 - 1.1).outcome == "killed"


def test_without_a_count_of_faults_no_limit_is_known_to_be_too_low(trace: Any) -> None:
    work(trace)
    for row in trace.recorded()["samples"]:
        row["pgfault"] = None
    assert at(trace, 5).outcome == "unknown"


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ({"file_dirty_bytes": 13 * MIB, "file_writeback_bytes": 4 * MIB}, "17 MiB of page cache was not yet"),
        ({"file_mapped_bytes": 20 * MIB, "shmem_bytes": 3 * MIB}, "17 MiB of page cache was mapped"),
    ],
)
def test_cache_that_may_not_go_makes_the_outcome_unknown(
    trace: Any, sample: dict[str, int], reason: str
) -> None:
    work(trace, **sample)
    assert at(trace, 61).outcome == "killed"
    assert at(trace, 75).outcome == "unknown"
    assert reason in at(trace, 75).why
    assert at(trace, 84).outcome == "survives"


def test_kernel_objects_that_reclaim_drops_may_be_freed_late(trace: Any) -> None:
    """The names of missing files filled 60 MiB, and a rerun at 8 MiB was killed, with 7.8 MiB of them."""
    work(trace)
    now = {"tgid": 41, "usage_bytes": 99 * MIB, "limit_bytes": LIMIT}
    for category in ("kernel", "slab_reclaimable"):
        trace.charged(0.3, 7, category, 20 * MIB, **now)
    assert at(trace, 61).outcome == "killed"
    assert at(trace, 82).outcome == "unknown"
    assert "20 MiB of kernel objects (slab) may be in use, or freed late" in at(trace, 82).why
    assert at(trace, 88).outcome == "survives"


@pytest.mark.parametrize(
    ("cause", "in_reading_mib"), [("readahead", 16), ("read", 16), ("fault", 16), ("write", 0)]
)
def test_cache_that_is_being_read_does_not_make_room(trace: Any, cause: str, in_reading_mib: int) -> None:
    """A disk may read two of the largest runs at a time."""
    work(trace)
    row = {"cgroup_id": 7, "inode_id": 1, "op": "add", "cause": cause, "tgid": 41}
    for seconds, mib in ((0.11, 3), (0.12, 8), (0.13, 8), (0.14, 11 if cause == "write" else 2)):
        trace.add("pagecache", seconds, nr_pages=mib * MIB // PAGE, **row)
    enough = what_if(trace, [MIB], 7).survives_from_bytes
    assert enough == (63 + in_reading_mib) * MIB + UNSEEN + 63 * MIB // 64 + MIB
    assert at(trace, 61).outcome == "killed"
    if in_reading_mib:
        assert at(trace, 75).outcome == "unknown"
        assert "16 MiB of page cache may be in reading" in at(trace, 75).why


def test_recorded_limit_is_proof_in_spite_of_mapped_cache(trace: Any) -> None:
    work(trace, file_mapped_bytes=30 * MIB, shmem_bytes=0)
    assert at(trace, 97).outcome == "survives"
    for row in trace.recorded()["charge"]:
        row["limit_bytes"] = 95 * MIB
    trace.recorded()["samples"][1]["limit_bytes"] = 80 * MIB
    assert at(trace, 80).outcome == "survives"
    assert at(trace, 79).outcome == "unknown"


def test_limit_before_the_dirty_pages_is_no_proof(trace: Any) -> None:
    """A limit of 66 MiB was raised before pages were dirty."""
    work(trace, file_dirty_bytes=30 * MIB, file_writeback_bytes=0)
    trace.recorded()["samples"][0]["limit_bytes"] = 66 * MIB
    assert at(trace, 70).outcome == "unknown"
    assert at(trace, 97).outcome == "survives"


def test_swap_makes_room_and_leaves_open_how_idle_memory_is(trace: Any) -> None:
    work(trace)
    assert at(trace, 50, 0).outcome == "killed"
    assert at(trace, 50, 10 * MIB).outcome == "killed"
    assert "with 10 MiB of swap" in at(trace, 50, 10 * MIB).why
    assert at(trace, 50, 20 * MIB).outcome == "unknown"
    assert "20 MiB may have to be swapped out" in at(trace, 50, 20 * MIB).why
    assert at(trace, 0.5, 1 << 30).outcome == "killed"  # 2 MiB of kernel memory are never swapped out
    assert at(trace, 67, 20 * MIB).outcome == "survives"


def test_peaks_of_processes_may_fall_together_or_not(trace: Any) -> None:
    """Two processes that ran at once, one after the other at its peak, may overlap in another way."""
    trace.meta |= OF_COMMAND
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    now = {"usage_bytes": 50 * MIB, "limit_bytes": LIMIT}
    for tgid, steps in ((41, ((0.1, 40), (0.3, -35), (0.9, -5))), (42, ((0.1, 5), (0.5, 35), (0.9, -40)))):
        for seconds, mib in steps:
            trace.charged(seconds, 7, "anon", mib * MIB, tgid=tgid, **now)
    trace.add("samples", 0.9, cgroup_id=7, source="end", pgfault=80 * MIB // PAGE, **now)
    assert at(trace, 45 - 2).outcome == "killed"
    assert "if peaks of processes or threads fall together" in at(trace, 60).why
    assert at(trace, 85).outcome == "survives"


@pytest.mark.parametrize(("at_the_end", "apart"), [(-5, 35), (0, 0)])
def test_shared_memory_of_processes_may_fall_together_if_each_frees_its_own(
    trace: Any, at_the_end: int, apart: int
) -> None:
    """Two processes map 40 MiB of shared memory for themselves, or leave 5 MiB of it to others."""
    trace.meta |= OF_COMMAND
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    now = {"usage_bytes": 90 * MIB, "limit_bytes": LIMIT}
    for tgid, rise, fall in ((41, 0.2, 0.3), (42, 0.5, 0.9)):
        for seconds, mib in ((0.1, 5), (rise, 35), (fall, -35), (0.95, at_the_end)):
            for category in ("file", "shmem"):
                trace.charged(seconds, 7, category, mib * MIB, tgid=tgid, **now)
    trace.add("samples", 0.9, cgroup_id=7, source="end", pgfault=80 * MIB // PAGE, **now)
    assert at(trace, 45 - 2).outcome == "killed"
    assert ("35 MiB more is needed if peaks of processes" in at(trace, 60).why) == (apart == 35)


@pytest.mark.parametrize("earlier", [0, 3])
@pytest.mark.parametrize(("second_tid", "apart"), [(41, 0), (42, 15)])
def test_threads_may_hold_more_or_less_of_what_they_hand_over(
    trace: Any, second_tid: int, apart: int, earlier: int
) -> None:
    """By its samples, a quarter of the 60 MiB of a process grew in a second thread, and so did a quarter of
    8 MiB of `earlier` processes that ended before it: only the largest of those counts."""
    apart = max(apart, 2 if earlier else 0)
    trace.meta |= OF_COMMAND
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    now = {"usage_bytes": 60 * MIB, "limit_bytes": LIMIT}
    for number in range(earlier):
        tgid, begin_s = 50 + number, 0.02 * (number + 1)
        trace.charged(begin_s, 7, "anon", 8 * MIB, tgid=tgid, usage_bytes=8 * MIB, limit_bytes=LIMIT)
        trace.charged(begin_s + 0.01, 7, "anon", -8 * MIB, tgid=tgid, usage_bytes=0, limit_bytes=LIMIT)
        for tid, mib in ((tgid, 6), (99, 2)):
            row = {"cgroup_id": 7, "tgid": tgid, "tid": tid, "category": "anon", "bytes": mib * MIB}
            trace.add("code_samples", begin_s, **row)
    trace.charged(0.1, 7, "anon", 60 * MIB, tgid=41, **now)
    trace.add("samples", 0.9, cgroup_id=7, source="end", pgfault=(60 + 8 * earlier) * MIB // PAGE, **now)
    for tid, mib in ((41, 30), (second_tid, 10)):
        trace.add("code_samples", 0.1, cgroup_id=7, tgid=41, tid=tid, category="anon", bytes=mib * MIB)
    trace.add("code_samples", 0.2, cgroup_id=7, tgid=41, tid=43, category="anon", bytes=-MIB, sampled=0.1)
    assert at(trace, 60 - apart - 2).outcome == "killed"
    assert at(trace, 60 - apart).outcome == at(trace, 60 + apart).outcome == "unknown"
    assert at(trace, 60 + apart + 4).outcome == "survives"


def test_heap_that_follows_the_limit_is_unknown_at_any_limit(trace: Any) -> None:
    work(trace).add("tasks", tgid=43, comm="java", cmdline="java -jar a.jar", cgroup_id=7)
    for mib in (10, 64, 300):
        assert at(trace, mib).outcome == "unknown"
        assert "lets its heap grow" in at(trace, mib).why


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"end_reason": "SIGINT"}, "the recording ended before its command"),
        ({"command_status": -9}, "ended by SIGKILL"),
        ({"ended": None}, "broke off"),
    ],
)
def test_work_that_was_cut_off_may_need_more_but_not_less(
    trace: Any, meta: dict[str, Any], reason: str
) -> None:
    work(trace).meta |= meta
    assert at(trace, 40).outcome == "killed"
    assert at(trace, 300).outcome == "unknown"
    assert reason in at(trace, 300).why
    assert what_if(trace, [MIB], 7).survives_from_bytes is None


def test_lost_charges_leave_a_kill_certain_and_lost_sums_nothing(trace: Any) -> None:
    work(trace)
    trace.add("loss", 0.4, begin=trace.ns(0.35), stream="charge", lost=3)
    assert (at(trace, 40).outcome, at(trace, 90).outcome) == ("killed", "unknown")
    assert "records of charges were lost" in at(trace, 90).why
    trace.add("loss", 0.4, begin=trace.ns(0.35), stream="residue", lost=1)
    assert (at(trace, 40).outcome, at(trace, 90).outcome) == ("unknown", "unknown")


def test_tasks_that_are_stuck_at_the_limit_leave_all_open(trace: Any) -> None:
    """Killing is switched off (v1 memory.oom_control): usage stays at the limit, and the work stops."""
    work(trace, oom_kill_disable=1, under_oom=1)
    for mib in (5, 100, 200):
        assert at(trace, mib).outcome == "unknown"
        assert at(trace, mib).why == "its tasks wait at the limit: the work did not go on"


def test_cgroup_from_before_the_trace_needs_its_start_values(trace: Any) -> None:
    work(trace)
    trace.forget("cgroups")
    trace.add("cgroups", cgroup_id=7, path="/work")
    assert {at(trace, mib).outcome for mib in (1, 64, 300)} == {"unknown"}
    assert "when the trace began is not known" in at(trace, 64).why


def test_killed_run_is_killed_with_less_and_open_with_more(page_cache_experiment: Any) -> None:
    assert at(page_cache_experiment, 30).outcome == "killed"
    assert at(page_cache_experiment, 100).why == "the run was killed at 100 MiB at 3.50 s"
    more = at(page_cache_experiment, 101)
    assert (more.outcome, more.read_again_bytes, more.lost_share) == ("unknown", (None, None), (None, None))
    assert "than 100 MiB" in more.why and "to no known end" in more.why
    with_swap = at(page_cache_experiment, 30, MIB)
    assert with_swap.outcome == "unknown" and "swap" in with_swap.why


def test_kill_for_a_lowered_limit_cuts_the_work_off(trace: Any) -> None:
    """It lived with 64 MiB until the limit was 24 MiB, and might have needed more afterwards."""
    resized(trace)
    less, more = (what_if(trace, [mib * MIB], 1).limits[0] for mib in (40, 64))
    assert less.outcome == "killed"
    assert less.why == "the run was killed at 24 MiB at 8 s, with 41 MiB that reclaim could not free"
    assert more.outcome == "unknown"
    assert more.why.endswith("its limit was lowered below usage, and the kill cut the work off")


def test_kill_for_another_limit_leaves_all_open(page_cache_experiment: Any) -> None:
    trace = page_cache_experiment
    trace.add("cgroups", cgroup_id=8, parent_id=7, path="/docker/4f2a/below", created=trace.ns(0))
    trace.recorded()["oom"][0]["cgroup_id"] = 8
    trace.charged(0.2, 8, "anon", MIB, usage_bytes=MIB, limit_bytes=LIMIT)
    (found,) = what_if(trace, [MIB], 8).limits
    assert found.outcome == "unknown"
    assert found.why == "a kill for the limit of /docker/4f2a cut the work off"


def test_memory_high_slows_as_in_the_trace_or_in_an_unknown_way(trace: Any) -> None:
    throttled(trace)
    trace.meta |= OF_COMMAND
    (fits, less) = reversed(what_if(trace, [30 * MIB + UNSEEN - PAGE, 64 * MIB], 8).limits)
    assert fits.outcome == "survives" and "memory.high slows it as in the trace" in fits.why
    assert fits.lost_share[0] == fits.lost_share[1] == pytest.approx(0.9, abs=0.02)
    assert less.outcome == "unknown"
