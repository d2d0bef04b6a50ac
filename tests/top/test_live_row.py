"""Rows from snapshots: rates are differences, sums add up, and what is not known stays unknown."""

from __future__ import annotations

from typing import Any

import pytest
from support.schemas import require_form
from synthetic.live_rows import MIB, cgroup, rows
from synthetic.sample_series import SECOND_NS, START_NS

from tracer.live.now import CgroupNow, Moment, Snapshots
from tracer.live.tally import Tally
from tracer.schema import UNLIMITED_BYTES
from tracer.top.live_row import LiveRow, NowRows

PAGE = 4096


class Recording:
    """A parent (1) with two children (2 and 3), of which 2 has a limit."""

    def __init__(self) -> None:
        self.tally = Tally(PAGE, free_swap=lambda: 0)
        self.tally.take(
            "cgroups", rows("cgroups", cgroup(1), cgroup(2, 1, container="web", pod="shop"), cgroup(3, 1))
        )
        self.snapshots = Snapshots(self.tally)
        self.rows = NowRows()
        self.time_ns = START_NS

    def sample(self, number: int, anon: int, file: int, limit: int | None = None, **more: Any) -> None:
        sizes = {
            f"{name}_bytes": 0 for name in ("shmem", "file_dirty", "file_writeback", "kernel", "swap_usage")
        }
        self.tally.take(
            "samples",
            rows(
                "samples",
                {
                    "cgroup_id": number,
                    "source": "periodic",
                    "time": self.time_ns,
                    "usage_bytes": (anon + file) * MIB,
                    "anon_bytes": anon * MIB,
                    "file_bytes": file * MIB,
                    "limit_bytes": UNLIMITED_BYTES if limit is None else limit * MIB,
                    "effective_limit_bytes": UNLIMITED_BYTES if limit is None else limit * MIB,
                    **sizes,
                    **more,
                },
            ),
        )

    def sample_all(self, **more: Any) -> None:
        self.sample(1, 30, 20, **more)
        self.sample(2, 20, 10, 40, **more)
        self.sample(3, 10, 10, **more)

    def take(self, elapsed_s: float) -> dict[int, LiveRow]:
        self.time_ns += round(elapsed_s * SECOND_NS)
        return {row.cgroup_id: row for row in self.rows.take(self.snapshots.moment(self.time_ns), elapsed_s)}


def test_usage_is_what_is_held_and_cache() -> None:
    recording = Recording()
    recording.sample_all()
    web = recording.take(1.0)[2]
    assert (web.name, web.path) == ("shop/web", "/2")
    assert (web.usage_bytes, web.numbers["held"], web.numbers["cache"]) == (30 * MIB, 20 * MIB, 10 * MIB)
    assert (web.numbers["limit"], web.limit_owner) == (40 * MIB, "/2")
    assert sum(web.layers.values()) == 30 * MIB
    assert (web.layers["anon"], web.layers["cache"]) == (20 * MIB, 10 * MIB)
    assert (web.numbers["charge"], web.numbers["stall"]) == (None, None), "there is no interval yet"


def test_limit_that_is_not_set_is_null() -> None:
    recording = Recording()
    recording.sample_all()
    assert recording.take(1.0)[3].document()["limit_bytes"] is None


def test_rates_are_of_the_interval_and_add_up_in_the_tree() -> None:
    recording = Recording()
    recording.sample_all(workingset_refault_file=100, psi_some_total_us=1_000_000)
    recording.take(1.0)
    charge = {"category": "anon", "pages": 1, "updates": 1}
    recording.tally.take(
        "charge",
        rows(
            "charge",
            {"cgroup_id": 2, "tgid": 7, "bytes": 6 * MIB, **charge},
            {"cgroup_id": 2, "tgid": 7, "bytes": -1 * MIB, **charge},
            {"cgroup_id": 3, "tgid": 8, "bytes": 2 * MIB, **charge},
        ),
    )
    moved: dict[str, Any] = {"cgroup_id": 3, "task_cgroup_id": 3, "folios": 1, "duration_ns": 0, "dev": 1}
    evicted = moved | {"op": "delete", "cause": "reclaim_memcg", "nr_pages": 256}
    added = moved | {"op": "add", "cause": "read", "nr_pages": 128}
    recording.tally.take("pagecache", rows("pagecache", evicted, added))
    recording.tally.take(
        "reclaim",
        rows(
            "reclaim",
            {"cgroup_id": 2, "task_cgroup_id": 2, "kind": "memcg", "duration_ns": SECOND_NS, "reclaimed": 0},
        ),
    )
    recording.sample_all(workingset_refault_file=356, psi_some_total_us=1_500_000)
    found = recording.take(2.0)
    assert [found[number].numbers["charge"] for number in (1, 2, 3)] == [4 * MIB, 3 * MIB, 1 * MIB]
    assert [found[number].numbers["evict"] for number in (1, 2, 3)] == [MIB / 2, 0, MIB / 2]
    assert [found[number].numbers["add"] for number in (1, 2, 3)] == [MIB / 4, 0, MIB / 4]
    assert [found[number].numbers["stall"] for number in (1, 2, 3)] == [50, 50, 0]
    assert found[3].numbers["refault"] == 256 * PAGE / 2
    assert found[3].numbers["psi"] == 25


def test_past_usage_is_kept_for_each_cgroup() -> None:
    recording = Recording()
    for anon in (10, 20, 30):
        recording.sample(3, anon, 0)
        found = recording.take(1.0)
    assert found[3].usages == (10 * MIB, 20 * MIB, 30 * MIB)


def test_unknown_counters_give_no_rate() -> None:
    recording = Recording()
    recording.sample_all()
    recording.take(1.0)
    found = recording.take(1.0)[2]
    assert (found.numbers["refault"], found.numbers["psi"]) == (None, None)
    assert (found.numbers["charge"], found.numbers["evict"], found.numbers["stall"]) == (0, 0, 0)


def test_row_is_worked_out_when_a_number_of_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It then has the numbers of its moment, although the cgroup has changed since."""
    asked, cgroup_of = list[int](), Moment.cgroup

    def count(moment: Moment, cgroup_id: int) -> CgroupNow:
        asked.append(cgroup_id)
        return cgroup_of(moment, cgroup_id)

    monkeypatch.setattr(Moment, "cgroup", count)
    recording = Recording()
    recording.sample_all()
    recording.take(1.0)
    found = recording.take(1.0)
    recording.sample(3, 90, 0)
    recording.take(1.0)
    assert [(row.path, row.usage_bytes) for row in found.values()][1:] == [("/2", 30 * MIB), ("/3", 20 * MIB)]
    assert asked == []
    assert (found[3].numbers["cache"], found[3].numbers["held"], found[3].numbers["charge"]) == (
        10 * MIB,
        10 * MIB,
        0,
    )
    assert asked == [3, 3], "now, and a second before"
    with pytest.raises(AttributeError, match="colour"):
        getattr(found[1], "colour")  # noqa: B009  it has no such number


def test_removed_cgroup_leaves_the_rows() -> None:
    recording = Recording()
    recording.sample_all()
    recording.take(1.0)
    recording.tally.take("cgroups", rows("cgroups", cgroup(3, 1, removed=recording.time_ns)))
    assert [*recording.take(1.0)] == [1, 2]


def test_document_has_a_unit_in_each_number() -> None:
    recording = Recording()
    recording.sample_all()
    document = recording.take(1.0)[2].document()
    require_form("top", {"time": "2026-11-30T06:10:07.000Z", **document})
    assert (document["cgroup"], document["name"], document["usage_bytes"]) == ("/2", "shop/web", 30 * MIB)
    numbers = [name for name, value in document.items() if isinstance(value, int | float)]
    units = ("_bytes", "_per_s", "_percent", "_to_kill", "_id")
    assert [name for name in numbers if not name.endswith(units)] == ["kills"]
