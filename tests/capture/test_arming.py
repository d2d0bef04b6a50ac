"""When growth arms the sampling of code, with a clock and programs that are made up."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from tracer.capture import arming
from tracer.capture.arming import Arming
from tracer.categories import CATEGORIES
from tracer.errors import TracerError
from tracer.wire.dtypes import SAMPLE, WIRE

MIB = 1 << 20
NUMBER = {category.name: number for number, category in enumerate(CATEGORIES)}
UNLIMITED_PAGES = np.iinfo(np.int64).max // 4096


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Programs:
    """Notes what is armed; `refused` is what the kernel refuses."""

    def __init__(self) -> None:
        self.armed: set[str] = set()
        self.refused: set[str] = set()

    def arm(self, kind: str) -> None:
        if kind in self.refused:
            raise TracerError("no such hook")
        assert kind not in self.armed
        self.armed.add(kind)

    def disarm(self, kind: str) -> None:
        self.armed.remove(kind)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(arming, "time", clock)
    return clock


@pytest.fixture
def programs() -> Programs:
    return Programs()


def made(programs: Programs, *, needs_limit: bool = False, lines: list[str] | None = None) -> Arming:
    warn = ([] if lines is None else lines).append
    return Arming(cast(Any, programs), MIB, warn, needs_limit=needs_limit)


def grown(**mib: float) -> Any:
    """Return a record of the growth of cgroup 7, by category."""
    records = np.zeros(1, WIRE["charge"])
    records["cgroup_id"] = 7
    for category, amount in mib.items():
        records["delta_bytes"][0, NUMBER[category]] = round(amount * MIB)
    return records


def test_growth_arms_its_kind_and_rest_disarms_it(clock: Clock, programs: Programs) -> None:
    sampling = made(programs)
    sampling.take(grown(anon=3))
    assert programs.armed == set()
    sampling.take(grown(anon=1))
    assert programs.armed == {"anon"}
    clock.now_s += 9.9
    sampling.expire()
    assert programs.armed == {"anon"}
    clock.now_s += 0.2
    sampling.expire()
    assert programs.armed == set()


def test_memory_that_is_filled_again_does_not_arm(clock: Clock, programs: Programs) -> None:
    sampling = made(programs)
    sampling.take(grown(anon=40))
    clock.now_s += 60
    sampling.expire()
    for _ in range(20):
        sampling.take(grown(anon=-30))
        sampling.take(grown(anon=30))
        clock.now_s += 60
        sampling.expire()
    assert programs.armed == set()
    sampling.take(grown(anon=4))
    assert programs.armed == {"anon"}


def test_program_that_starts_again_after_a_kill_is_sampled(clock: Clock, programs: Programs) -> None:
    """Its memory is freed in parts, which may come before and after others have begun to grow."""
    sampling = made(programs)
    sampling.take(grown(anon=60))
    clock.now_s += 60
    sampling.expire()
    sampling.killed([7, 99])
    for freed in (-20, 1, -39):
        sampling.take(grown(anon=freed))
        assert programs.armed == set()
    sampling.take(grown(anon=4))
    assert programs.armed == {"anon"}
    clock.now_s += 60
    sampling.expire()
    sampling.take(grown(anon=-30))
    sampling.take(grown(anon=30))
    assert programs.armed == set(), "memory that is filled again, as before"


def test_slow_growth_stays_armed(clock: Clock, programs: Programs) -> None:
    """Growth of 4 MiB in 40 s holds for 80 s, in which the next 4 MiB come."""
    sampling = made(programs)
    for step in range(30):
        clock.now_s += 10
        sampling.take(grown(anon=1))
        sampling.expire()
        assert step < 4 or programs.armed == {"anon"}


def test_kinds_do_not_contain_each_other(clock: Clock, programs: Programs) -> None:
    sampling = made(programs)
    sampling.take(grown(file=20, shmem=20, slab_reclaimable=3, kernel=3))
    assert programs.armed == {"shmem"}
    sampling.take(grown(file=16, sock=1))
    assert programs.armed == {"shmem", "file", "kernel"}


def test_cgroups_without_a_limit_do_not_arm_a_recording_of_all(clock: Clock, programs: Programs) -> None:
    sampling = made(programs, needs_limit=True)
    sampling.expect()
    samples = np.zeros(1, SAMPLE)
    samples["cgroup_id"], samples["effective_limit_pages"] = 7, UNLIMITED_PAGES
    sampling.take_samples(samples)
    sampling.take(grown(anon=50))
    assert programs.armed == set()
    samples["effective_limit_pages"] = 1 << 20
    sampling.take_samples(samples)
    sampling.take(grown(anon=4))
    assert programs.armed == {"anon"}


def test_first_moments_of_a_program_are_sampled(clock: Clock, programs: Programs) -> None:
    sampling = made(programs)
    sampling.expect()
    assert programs.armed == {"anon"}
    clock.now_s += 9.9
    sampling.expire()
    assert programs.armed == {"anon"}
    clock.now_s += 0.2
    sampling.expire()
    assert programs.armed == set()


def test_rows_cover_the_time_without_a_gap(clock: Clock, programs: Programs) -> None:
    sampling = made(programs)
    sampling.take(grown(anon=5))
    rows = sampling.take_rows(17)
    for _ in range(30):
        clock.now_s += 0.5
        sampling.expire()
        rows += sampling.take_rows(17)
    assert {row["kind"] for row in rows} == {"anon"}
    assert [row["begin"] for row in rows[1:]] == [row["time"] for row in rows[:-1]]
    assert (rows[0]["begin"], rows[-1]["time"]) == (1000 * 10**9 + 17, 1010 * 10**9 + 17)
    assert len(rows) <= 11


def test_last_row_ends_at_the_end(clock: Clock, programs: Programs) -> None:
    sampling = made(programs)
    sampling.take(grown(anon=5))
    clock.now_s += 0.3
    assert sampling.take_rows(0) == []
    (row,) = sampling.take_rows(0, is_last=True)
    assert row == {"begin": 1000 * 10**9, "time": 1000 * 10**9 + 3 * 10**8, "kind": "anon"}


def test_refused_kind_is_reported_once(clock: Clock, programs: Programs) -> None:
    lines: list[str] = []
    programs.refused = {"shmem"}
    sampling = made(programs, lines=lines)
    sampling.take(grown(shmem=5, anon=5))
    sampling.take(grown(shmem=5))
    assert programs.armed == {"anon"}
    assert lines == ["the code that makes shmem grow is not sampled: no such hook"]
    assert {row["kind"] for row in sampling.take_rows(0, is_last=True)} == {"anon"}


def test_closed_account_is_forgotten(clock: Clock, programs: Programs) -> None:
    sampling = made(programs)
    sampling.take(grown(anon=3))
    sampling.forget(7)
    sampling.take(grown(anon=3))
    assert programs.armed == set()
