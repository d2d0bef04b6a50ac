"""The tally: sums of each cgroup and all below it, also after some of these are gone, in bounded memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from synthetic.live_rows import MIB, cgroup, rows

from tracer.live import tally as of_tally
from tracer.live.alarm import Alarm
from tracer.live.flows import BLOCKS
from tracer.live.tally import OTHERS, Tally

PAGE = 4096
NOW = 1_764_000_000_000_000_000


def new_tally() -> Tally:
    return Tally(PAGE, free_swap=lambda: 0)


def charge(number: int, size: int, category: str = "anon") -> dict[str, Any]:
    return {"cgroup_id": number, "category": category, "bytes": size}


def charged(tally: Tally) -> dict[int, int]:
    copy = tally.copy()
    return {
        one: int(copy.rows["flows"][place][BLOCKS["charged"].start]) for one, place in copy.places.items()
    }


def test_sums_contain_the_cgroups_below() -> None:
    tally = new_tally()
    tally.take("cgroups", rows("cgroups", cgroup(1), cgroup(2, 1), cgroup(3, 2)))
    tally.take("charge", rows("charge", charge(3, 7), charge(2, 20), charge(1, 100)))
    assert charged(tally) == {3: 7, 2: 27, 1: 127}


def test_rows_that_come_before_the_name_count_for_the_parents_as_well() -> None:
    tally = new_tally()
    tally.take("charge", rows("charge", charge(3, 7)))
    tally.take("cgroups", rows("cgroups", cgroup(3, 2)))
    tally.take("charge", rows("charge", charge(3, 5)))
    tally.take("cgroups", rows("cgroups", cgroup(2, 1), cgroup(1)))
    assert charged(tally) == {3: 12, 2: 12, 1: 12}


def test_name_that_comes_again_counts_nothing_twice() -> None:
    tally = new_tally()
    tally.take("cgroups", rows("cgroups", cgroup(1), cgroup(2, 1)))
    tally.take("charge", rows("charge", charge(2, 7)))
    tally.take("cgroups", rows("cgroups", cgroup(2, 1, container="late"), cgroup(1)))
    assert charged(tally) == {2: 7, 1: 7}
    assert tally.copy().names[2].container == "late"


def test_removed_cgroup_is_forgotten_and_late_rows_count_for_the_parents() -> None:
    tally = new_tally()
    tally.take("cgroups", rows("cgroups", cgroup(1), cgroup(2, 1)))
    tally.take("charge", rows("charge", charge(2, 7)))
    tally.take("cgroups", rows("cgroups", cgroup(2, 1, removed=NOW)))
    tally.take("charge", rows("charge", charge(2, 2)))
    tally.take("samples", rows("samples", {"cgroup_id": 2, "source": "end", "time": NOW}))
    assert charged(tally) == {1: 9}
    assert 2 not in tally.copy().names


def test_cgroup_that_lived_between_two_writes_of_names_counts_for_the_parents() -> None:
    tally = new_tally()
    tally.take("cgroups", rows("cgroups", cgroup(1)))
    tally.take("charge", rows("charge", charge(2, 7)))
    tally.take("cgroups", rows("cgroups", cgroup(2, 1, created=NOW - 5, removed=NOW)))
    assert charged(tally) == {1: 7}


def test_parents_in_a_circle_end() -> None:
    tally = new_tally()
    tally.take("cgroups", rows("cgroups", cgroup(1, 2), cgroup(2, 1)))
    tally.take("charge", rows("charge", charge(1, 7)))
    assert charged(tally) == {1: 7, 2: 7}


def test_evictors_beyond_the_most_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_tally, "MOST_EVICTORS", 2)
    tally = new_tally()
    tally.take("cgroups", rows("cgroups", cgroup(1)))
    for evictor in (11, 12, 13, 14, 11):
        run = {"cgroup_id": 1, "task_cgroup_id": evictor, "op": "delete", "cause": "reclaim_memcg"}
        tally.take("pagecache", rows("pagecache", run | {"nr_pages": 1}))
    assert tally.copy().evicted == {1: {11: 2 * PAGE, 12: PAGE, OTHERS: 2 * PAGE}}


def test_many_short_lives_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_tally, "MOST_LINKS", 50)
    monkeypatch.setattr(of_tally, "MOST_NAMELESS", 50)
    tally = new_tally()
    tally.take("cgroups", rows("cgroups", cgroup(1)))
    for number in range(2, 502):
        tally.take("charge", rows("charge", charge(number, 1), charge(number + 10_000, 1)))
        tally.take("cgroups", rows("cgroups", cgroup(number, 1)))
        tally.take("cgroups", rows("cgroups", cgroup(number, 1, removed=NOW)))
    copy = tally.copy()
    assert charged(tally)[1] == 500
    assert set(copy.names) == {1}
    assert 1 < len(tally) <= 1 + 50 + 1
    assert len(copy.rows) <= 128


def test_sample_of_a_kill_is_not_the_latest_and_pressure_holds_until_it_is_read_again() -> None:
    tally = new_tally()
    sample = {"cgroup_id": 1, "source": "periodic", "time": NOW, "usage_bytes": 5 * MIB}
    tally.take("samples", rows("samples", sample | {"psi_some_total_us": 70}))
    tally.take("samples", rows("samples", sample | {"source": "oom", "usage_bytes": 9 * MIB}))
    tally.take("samples", rows("samples", sample | {"usage_bytes": 6 * MIB}))
    copy = tally.copy()
    read = dict(zip(of_tally.SAMPLE_COLUMNS, copy.rows["sample"][copy.places[1]].tolist(), strict=True))
    assert (read["usage_bytes"], read["psi_some_total_us"]) == (6 * MIB, 70)


def test_losses_are_summed_by_stream() -> None:
    tally = new_tally()
    tally.take("loss", rows("loss", {"stream": "charge", "lost": 7}, {"stream": "reclaim", "lost": 2}))
    tally.take("loss", rows("loss", {"stream": "charge", "lost": 1}))
    assert tally.copy_losses() == {"charge": 8, "reclaim": 2}


def test_copies_by_another_thread_are_whole() -> None:
    """Each row of 2 counts for 1 at once: a copy in which they differ was torn."""
    tally = new_tally()
    tally.take("cgroups", rows("cgroups", cgroup(1), *(cgroup(number, 1) for number in range(2, 200))))
    batch = rows("charge", *(charge(number, 1) for number in range(2, 200)))
    torn: list[dict[int, int]] = []
    done = threading.Event()

    def read() -> int:
        copies = 0
        while not done.is_set():
            sums = charged(tally)
            copies += 1
            if sums.get(1, 0) != sum(size for number, size in sums.items() if number != 1):
                torn.append(sums)
        return copies

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            for _ in range(500):
                tally.take("charge", batch)
        finally:
            done.set()
    assert reading.result() > 1
    assert not torn
    assert charged(tally)[1] == 500 * 198


def test_alarms_of_the_countdown_are_passed_on() -> None:
    alarms: list[Alarm] = []
    tally = Tally(PAGE, free_swap=lambda: 0, alarmed=alarms.append)
    tally.take("cgroups", rows("cgroups", cgroup(7)))
    for step in range(80):
        sizes = {"usage_bytes": (20 + step) * MIB, "anon_bytes": (20 + step) * MIB, "file_bytes": 0}
        limits = {"limit_bytes": 100 * MIB, "effective_limit_bytes": 100 * MIB}
        at = {"cgroup_id": 7, "source": "periodic", "time": NOW + step * 100_000_000}
        tally.take("samples", rows("samples", at | sizes | limits))
    assert [(alarm.reason, alarm.cgroup_id) for alarm in alarms] == [("soon", 7)]
