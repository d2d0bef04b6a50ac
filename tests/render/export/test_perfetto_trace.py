"""The export for Perfetto, parsed with the official protos and checked against the analyses."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb
from support.recorded import NAMES, TRACES, opened

from tracer.analysis.core.columns import times_ns
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.timeline import timeline
from tracer.cli.verbs.export import FORMATS, FileFormat
from tracer.render.export.perfetto_trace import PacketTemplate, in_order

UNSIGNED = st.integers(0, (1 << 64) - 1)
SIGNED = st.integers(-(1 << 63), (1 << 63) - 1)


def counter(time_ns: int, uuid: int, value: int) -> bytes:
    """Return a packet; a value of 64 bits is taken as signed."""
    trace = pb.Trace()
    packet = trace.packet.add(timestamp=time_ns)
    packet.track_event.track_uuid = uuid
    packet.track_event.counter_value = value if value < 1 << 63 else value - (1 << 64)
    return bytes(trace.SerializeToString())


def parsed(data: bytes) -> pb.Trace:
    trace = pb.Trace()
    trace.ParseFromString(data)
    return trace


@given(st.lists(st.tuples(UNSIGNED, UNSIGNED, SIGNED), min_size=1, max_size=20))
def test_packets_of_a_template_equal_those_of_the_package(rows: list[tuple[int, int, int]]) -> None:
    template = PacketTemplate.from_packet(counter, 3)
    times, uuids, values = zip(*rows, strict=True)
    columns = (np.array(times, np.uint64), np.array(uuids, np.uint64), np.array(values, np.int64))
    packets = template.packets(columns)
    assert packets.shape == (len(rows), len(template))
    assert parsed(packets.tobytes()) == parsed(b"".join(counter(*row) for row in rows))


def test_template_without_a_place_for_each_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not in the packet"):
        PacketTemplate.from_packet(lambda time, _unused: counter(time, 1, 2), 2)


@given(st.permutations(range(6)))
def test_packets_of_several_templates_are_put_in_order(order: list[int]) -> None:
    parts = [(np.array(order[:4]), np.arange(4, dtype=np.uint8).repeat(3).reshape(4, 3))]
    parts += [(np.array(order[4:]), np.arange(7, 9, dtype=np.uint8).reshape(2, 1))]
    expected = {
        **{place: bytes([number] * 3) for number, place in enumerate(order[:4])},
        **{place: bytes([number]) for number, place in enumerate(order[4:], 7)},
    }
    assert in_order(parts) == b"".join(expected[place] for place in range(6))


EVENT = pb.TrackEvent


def exported(trace: AnalysedTrace, cgroup: str | None = None) -> pb.Trace:
    form, found = FORMATS["perfetto"], pb.Trace()
    assert isinstance(form, FileFormat)
    found.ParseFromString(b"".join(form.pieces(trace, cgroup, None)))  # type: ignore[arg-type]
    return found


def descriptors(found: pb.Trace) -> dict[int, Any]:
    return {
        packet.track_descriptor.uuid: packet.track_descriptor
        for packet in found.packet
        if packet.HasField("track_descriptor")
    }


def events_by_track(found: pb.Trace) -> dict[int, list[pb.TracePacket]]:
    events = defaultdict(list)
    for packet in found.packet:
        if packet.HasField("track_event"):
            events[packet.track_event.track_uuid].append(packet)
    return events


def assert_well_formed(found: pb.Trace) -> None:
    """Assert what Perfetto requires of a trace, track by track."""
    declared = set[int]()
    for packet in found.packet:
        assert packet.trusted_packet_sequence_id
        if packet.HasField("track_descriptor"):
            descriptor = packet.track_descriptor
            assert descriptor.uuid not in declared
            assert not descriptor.parent_uuid or descriptor.parent_uuid in declared
            declared.add(descriptor.uuid)
        elif packet.HasField("track_event"):
            assert packet.track_event.track_uuid in declared
            assert packet.timestamp_clock_id == pb.BUILTIN_CLOCK_MONOTONIC
    tracks = descriptors(found)
    for uuid, events in events_by_track(found).items():
        times = [packet.timestamp for packet in events]
        assert times == sorted(times)
        open_slices = 0
        for packet in events:
            kind = packet.track_event.type
            open_slices += (kind == EVENT.TYPE_SLICE_BEGIN) - (kind == EVENT.TYPE_SLICE_END)
            assert open_slices >= 0
            assert (kind == EVENT.TYPE_COUNTER) == tracks[uuid].HasField("counter")
        assert open_slices == 0
    flows = [flow for packet in found.packet for flow in packet.track_event.flow_ids]
    ends = [flow for packet in found.packet for flow in packet.track_event.terminating_flow_ids]
    assert sorted(flows) == sorted(ends) == sorted(set(flows))


@pytest.mark.parametrize("name", NAMES)
def test_recorded_traces_are_well_formed(name: str) -> None:
    trace = opened(name)
    found = exported(trace)
    assert_well_formed(found)
    begins = [one for one in found.packet if one.track_event.type == EVENT.TYPE_SLICE_BEGIN]
    assert len(begins) == len(trace.reclaim) + len(trace.stalls)
    arrows = sum(len(packet.track_event.flow_ids) for packet in found.packet)
    assert arrows == sum(len(report.victims) for report in trace.explain(is_sized=False))


def test_counters_have_the_values_of_the_timeline() -> None:
    trace = opened("page-cache")
    found = exported(trace)
    tracks, clock = descriptors(found), trace.meta["clock"]
    rows = timeline(trace, every="100ms")
    counters = {
        track.name: track for track in tracks.values() if track.HasField("counter") and track.parent_uuid == 2
    }
    assert list(counters)[:4] == ["usage", "limit", "anonymous memory", "page cache"]
    for order, track in enumerate(counters.values()):
        assert track.counter.unit == pb.CounterDescriptor.UNIT_SIZE_BYTES
        assert track.counter.y_axis_share_key == "2"
        assert track.sibling_order_rank == order
    events = events_by_track(found)[counters["usage"].uuid]
    ends_ns = times_ns(rows) + 100_000_000
    expected = dict(
        zip(
            (ends_ns - clock["realtime_ns"] + clock["monotonic_ns"]).tolist(),
            rows["usage_bytes"].tolist(),
            strict=True,
        )
    )
    shown = {packet.timestamp: packet.track_event.counter_value for packet in events}
    assert shown.items() <= expected.items()
    last = None
    for time_ns, value in expected.items():
        last = shown.get(time_ns, last)
        assert last == value
    assert len(events_by_track(found)[counters["limit"].uuid]) == 2  # the first and the last


def test_cgroups_are_in_an_explicit_order_below_one_track() -> None:
    found = exported(AnalysedTrace(TRACES / "parent-limit"))
    tracks = descriptors(found)
    cgroups = [track for track in tracks.values() if track.parent_uuid == 1]
    assert tracks[1].child_ordering == pb.TrackDescriptor.EXPLICIT
    assert [track.sibling_order_rank for track in cgroups] == list(range(len(cgroups)))
    assert [track.name for track in cgroups] == sorted(track.name for track in cgroups)
    assert all(track.child_ordering == pb.TrackDescriptor.EXPLICIT for track in cgroups)


def test_kill_is_an_instant_on_cgroup_and_thread_with_an_arrow_to_each_victim() -> None:
    trace = AnalysedTrace(TRACES / "group-kill")
    (report,) = trace.explain(is_sized=False)
    found = exported(trace)
    tracks, clock = descriptors(found), trace.meta["clock"]
    instants = [packet for packet in found.packet if packet.track_event.type == EVENT.TYPE_INSTANT]
    assert len(instants) == 2 + len(report.victims) > 3
    assert report.time is not None
    kill_ns = report.time.value - clock["realtime_ns"] + clock["monotonic_ns"]
    assert {packet.timestamp for packet in instants} == {kill_ns}
    at_owner, *at_threads = instants
    assert tracks[at_owner.track_event.track_uuid].name == report.limit_owner.cgroup
    facts = {one.name: one for one in at_owner.track_event.debug_annotations}
    assert facts["cause"].string_value == report.verdict.cause
    assert facts["limit_bytes"].int_value == report.limit_owner.limit_bytes
    starts = {
        packet.track_event.track_uuid: [*packet.track_event.flow_ids]
        for packet in at_threads
        if packet.track_event.flow_ids
    }
    ((trigger, arrows),) = starts.items()
    assert tracks[trigger].thread.tid == report.trigger.pid
    victims = [
        tracks[packet.track_event.track_uuid].thread.pid
        for packet in at_threads
        if packet.track_event.terminating_flow_ids
    ]
    assert sorted(victims) == sorted(victim.pid or 0 for victim in report.victims)
    assert len(arrows) == len(victims)


def test_slices_name_what_the_thread_waited_for_and_whom_it_reclaimed_from() -> None:
    trace = AnalysedTrace(TRACES / "throttle")
    found = exported(trace)
    begins = [one.track_event for one in found.packet if one.track_event.type == EVENT.TYPE_SLICE_BEGIN]
    assert {event.name for event in begins} == {"reclaim", "wait: above memory.high"}
    scanned = [
        note.uint_value
        for event in begins
        for note in event.debug_annotations
        if note.name == "scanned_pages"
    ]
    assert sum(scanned) == trace.reclaim["scanned"].sum()
    targets = {note.string_value for one in begins for note in one.debug_annotations if note.name == "target"}
    assert targets <= {*trace.cgroups["path"]} and targets


def test_export_of_a_cgroup_has_its_tracks_only() -> None:
    trace = AnalysedTrace(TRACES / "parent-limit")
    (report,) = trace.explain(is_sized=False)
    other = next(
        path
        for path in trace.cgroups["path"]
        if path != report.limit_owner.cgroup and path.startswith(str(report.limit_owner.cgroup))
    )
    tracks = descriptors(exported(trace, other))
    assert [track.name for track in tracks.values() if track.parent_uuid == 1] == [other]
    assert_well_formed(exported(trace, other))
