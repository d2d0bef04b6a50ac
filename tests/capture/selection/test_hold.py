"""Records in the hold: released, dropped, or counted as lost."""

from __future__ import annotations

import numpy as np
import pytest

from tracer.capture.bpf.ring import Records
from tracer.capture.selection.hold import Hold
from tracer.enumerations import TASK_EVENT
from tracer.wire.dtypes import WIRE
from tracer.wire.streams import STREAM_AT, STREAMS

WANTED, OTHER, NEVER = 23, 37, 41


def charges(*pairs: tuple[int, int]) -> Records:
    """Return `charge` records of (cgroup id, bytes)."""
    records = np.zeros(len(pairs), WIRE["charge"])
    for record, (cgroup_id, delta_bytes) in zip(records, pairs, strict=True):
        record["cgroup_id"], record["delta_bytes"][3] = cgroup_id, delta_bytes
    return records


def sifted(hold: Hold, *pairs: tuple[int, int]) -> list[tuple[int, int]]:
    written, _ = hold.sift("charge", charges(*pairs))
    return [(int(record["cgroup_id"]), int(record["delta_bytes"][3])) for record in written]


def test_accepted_records_are_released_once_and_in_order() -> None:
    hold = Hold(1 << 20)
    hold.wait_for(WANTED)
    assert sifted(hold, (WANTED, 1), (OTHER, 2)) == [(OTHER, 2)]
    assert sifted(hold, (WANTED, 3)) == []
    hold.accept(WANTED)
    assert sifted(hold, (WANTED, 4), (OTHER, 5)) == [(WANTED, 1), (WANTED, 3), (WANTED, 4), (OTHER, 5)]
    assert sifted(hold) == []


def test_hold_is_in_use_until_all_is_decided_and_released() -> None:
    hold = Hold(1 << 20)
    found = [hold.is_in_use]
    hold.wait_for(WANTED)
    sifted(hold, (WANTED, 1))
    found.append(hold.is_in_use)
    hold.accept(WANTED)
    found.append(hold.is_in_use)
    sifted(hold)
    found.append(hold.is_in_use)
    hold.refuse(OTHER)
    assert [*found, hold.is_in_use] == [False, True, True, False, True]


def test_refused_records_are_dropped() -> None:
    hold = Hold(1 << 20)
    hold.wait_for(NEVER)
    hold.wait_for(WANTED)
    assert sifted(hold, (NEVER, 1), (WANTED, 2)) == []
    hold.refuse(NEVER)
    assert sifted(hold, (NEVER, 3), (OTHER, 4)) == [(OTHER, 4)]
    hold.accept(WANTED)
    assert sifted(hold, (NEVER, 5)) == [(WANTED, 2)]
    hold.forget(NEVER)
    assert hold.lost == {}


@pytest.mark.parametrize("stream", [stream.name for stream in STREAMS if stream.owners])
def test_stream_with_owners_is_held_back(stream: str) -> None:
    hold = Hold(1 << 20)
    hold.wait_for(NEVER)
    records = np.zeros(2, WIRE[stream])
    for field in STREAM_AT[stream].owners:
        records[field] = [NEVER, OTHER]
    written, dropped = hold.sift(stream, records)
    assert (written[STREAM_AT[stream].owners[0]].tolist(), len(dropped)) == ([OTHER], 0)
    hold.refuse(NEVER)
    written, dropped = hold.sift(stream, records[:0])
    assert (len(written), dropped[STREAM_AT[stream].owners[0]].tolist()) == (0, [NEVER])


def test_streams_without_owners_are_cgroups_and_candidates() -> None:
    without = {stream.name for stream in STREAMS if not stream.owners}
    assert without == {"cgroup", "candidate"}


@pytest.mark.parametrize("field", STREAM_AT["oom"].owners)
def test_kill_is_written_if_any_of_its_cgroups_is_accepted(field: str) -> None:
    hold = Hold(1 << 20)
    hold.wait_for(NEVER)
    hold.accept(WANTED)
    kill = np.zeros(1, WIRE["oom"])
    for each in STREAM_AT["oom"].owners:
        kill[each] = NEVER
    assert len(hold.sift("oom", kill)[0]) == 0
    kill[field] = WANTED
    assert len(hold.sift("oom", kill)[0]) == 1


def test_task_seen_after_the_purge_of_its_cgroup_is_written() -> None:
    hold = Hold(1 << 20)
    hold.wait_for(NEVER)
    hold.refuse(NEVER)
    seen = np.zeros(1, WIRE["task"])
    seen["cgroup_id"], seen["time_ns"] = NEVER, 5
    assert len(hold.sift("task", seen)[0]) == 0
    hold.purge(NEVER, 7)
    assert len(hold.sift("task", seen)[0]) == 0, "the record was already in the ring"
    seen["time_ns"] = 9
    assert len(hold.sift("task", seen)[0]) == 1
    seen["event"] = TASK_EVENT.number("exit")
    assert len(hold.sift("task", seen)[0]) == 0, "the process was dropped before"
    assert sifted(hold, (NEVER, 1)) == [], "its charges were already in the ring"


@pytest.mark.parametrize("wanted", [True, False])
def test_records_that_do_not_fit_are_lost_only_if_accepted(wanted: bool) -> None:
    size = WIRE["charge"].itemsize
    hold = Hold(most_bytes=3 * size)
    hold.wait_for(WANTED)
    for delta_bytes in (4096, -1024, 512, 256, 128):
        sifted(hold, (WANTED, delta_bytes))
    if not wanted:
        hold.refuse(WANTED)
        assert (sifted(hold), hold.take_residue(), dict(hold.lost)) == ([], {}, {})
        return
    hold.accept(WANTED)
    assert sifted(hold) == [(WANTED, 512), (WANTED, 256), (WANTED, 128)]
    assert hold.take_residue() == {(WANTED, 3): 3072}
    assert hold.take_residue() == {}
    assert dict(hold.lost) == {"charge": 2}


def test_sift_rows_holds_back_rows_of_undecided_cgroups() -> None:
    hold = Hold(1 << 20)
    hold.wait_for(WANTED)
    hold.wait_for(NEVER)
    rows = [{"cgroup_id": cgroup_id} for cgroup_id in (WANTED, OTHER, NEVER)]
    assert hold.sift_rows(rows) == [{"cgroup_id": OTHER}]
    hold.accept(WANTED)
    hold.refuse(NEVER)
    assert hold.sift_rows([{"cgroup_id": OTHER}]) == [{"cgroup_id": WANTED}, {"cgroup_id": OTHER}]
