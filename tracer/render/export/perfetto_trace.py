"""A trace for Perfetto (ui.perfetto.dev), written with the package of the Perfetto project.

Times are CLOCK_MONOTONIC, as the BPF programs stamped them, so that other traces of the machine fit beside
them. A snapshot of the clocks gives the time of day. Each track is declared before its first event. The file
has one track after the other, and the events of each track are in the order of time.

Packets of Perfetto in large numbers, without Python code for each packet.

The official package makes one packet. The others differ from it only in some numbers. A number in a packet is
a varint. Protocol buffers allow a varint to be longer than necessary, so all numbers are written with ten
bytes, the longest varint. Then all packets of a template have the same length, and NumPy fills in the
numbers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb
from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

from tracer.analysis.core.columns import Int64s
from tracer.render.export.tracks import (
    BEGIN,
    END,
    MARK,
    UNKNOWN,
    CgroupTrack,
    Kill,
    Mark,
    Spans,
    Thread,
    Tracks,
    event_order,
)
from tracer.trace.meta import ClockPair

Bytes = npt.NDArray[np.uint8]

_VARINT_BYTES: Final = 10
_GROUP_BITS: Final = 7
_MORE: Final = 0x80
_SHIFTS: Final = np.arange(_VARINT_BYTES, dtype=np.uint64) * np.uint64(_GROUP_BITS)


@dataclass(frozen=True, slots=True)
class PacketTemplate:
    """The bytes of a packet, and the positions of its variable numbers."""

    plain: Bytes
    places: tuple[int, ...]

    @classmethod
    def from_packet(cls, make: Callable[..., bytes], numbers: int) -> Self:
        """Return the template of the packets that `make` serializes, given `numbers` unsigned 64-bit numbers.

        Raises ValueError if `make` does not put each number into the packet exactly once.
        """
        marks = [(1 << 64) - 1 - number for number in range(numbers)]
        packet = make(*marks)
        varints = [_varints(np.array([[mark]], dtype=np.uint64)).tobytes() for mark in marks]
        if any(packet.count(varint) != 1 for varint in varints):
            raise ValueError("a number is not in the packet, or more than once")
        return cls(np.frombuffer(packet, np.uint8), tuple(map(packet.index, varints)))

    def __len__(self) -> int:
        return len(self.plain)

    def packets(self, numbers: Sequence[npt.NDArray[Any]]) -> Bytes:
        """Return a matrix with a packet in each row, for columns of int64 or uint64 numbers."""
        rows = np.tile(self.plain, (len(numbers[0]), 1))
        for place, column in zip(self.places, numbers, strict=True):
            rows[:, place : place + _VARINT_BYTES] = _varints(column.astype(np.uint64).reshape(-1, 1))
        return rows


def _varints(numbers: npt.NDArray[np.uint64]) -> Bytes:
    """Return the varints of a column of numbers, ten bytes in each row."""
    groups = (numbers >> _SHIFTS) & np.uint64(_MORE - 1)
    groups[:, :-1] |= np.uint64(_MORE)
    return groups.astype(np.uint8)


def in_order(parts: Sequence[tuple[npt.NDArray[np.int64], Bytes]]) -> bytes:
    """Return the packets of several templates, in order. Each part is (positions of its packets in the whole,
    packets)."""
    count = sum(len(positions) for positions, _ in parts)
    lengths = np.zeros(count, dtype=np.int64)
    for positions, packets in parts:
        lengths[positions] = packets.shape[1]
    firsts = np.cumsum(lengths) - lengths
    whole = np.empty(int(lengths.sum()), dtype=np.uint8)
    for positions, packets in parts:
        whole[firsts[positions][:, np.newaxis] + np.arange(packets.shape[1])] = packets
    return whole.tobytes()


_SEQUENCE: Final = 1
_AT_ONCE: Final = 1 << 16
_ALL_CGROUPS: Final = 1  # the uuid of the parent track of all cgroups


def packets(tracks: Tracks, clock: ClockPair) -> Iterator[bytes]:
    """Yield the file piece by piece. `clock` is the clock pair in meta.json."""
    writer = _Writer(clock["monotonic_ns"], clock["realtime_ns"])
    yield writer.beginning()
    for rank, cgroup in enumerate(tracks.cgroups):
        kills = [kill for kill in tracks.kills if kill.owner_id == cgroup.cgroup_id]
        yield from writer.cgroup(cgroup, rank, kills)
    yield writer.threads(tracks.threads)
    yield from writer.events(tracks.spans, tracks.marks)


class _Writer:
    """Makes packets, and gives each track its uuid."""

    def __init__(self, monotonic_ns: int, realtime_ns: int) -> None:
        self._monotonic_ns, self._realtime_ns = monotonic_ns, realtime_ns
        self._last_uuid = _ALL_CGROUPS
        self._of_thread: list[int] = []

    def beginning(self) -> bytes:
        """Return the snapshot of the clocks, and the parent track of all cgroups."""
        snapshot = _new_packet()
        snapshot.clock_snapshot.primary_trace_clock = pb.BUILTIN_CLOCK_MONOTONIC
        for clock, now_ns in (
            (pb.BUILTIN_CLOCK_MONOTONIC, self._monotonic_ns),
            (pb.BUILTIN_CLOCK_REALTIME, self._realtime_ns),
        ):
            snapshot.clock_snapshot.clocks.add(clock_id=clock, timestamp=now_ns)
        root = _new_packet()
        root.track_descriptor.uuid = _ALL_CGROUPS
        root.track_descriptor.name = "memory cgroups"
        root.track_descriptor.child_ordering = pb.TrackDescriptor.EXPLICIT
        return _serialized([snapshot, root])

    def cgroup(self, cgroup: CgroupTrack, rank: int, kills: Iterable[Kill]) -> Iterator[bytes]:
        """Yield the tracks of a cgroup, which is shown below `rank` others, its counters, and its kills."""
        own = self._new_uuid()
        declared = [self._track(own, _ALL_CGROUPS, cgroup.name, rank)]
        declared[0].track_descriptor.child_ordering = pb.TrackDescriptor.EXPLICIT
        uuids = [self._new_uuid() for _ in cgroup.counters]
        for order, (uuid, counter) in enumerate(zip(uuids, cgroup.counters, strict=True)):
            packet = self._track(uuid, own, counter.name, order)
            packet.track_descriptor.counter.unit = pb.CounterDescriptor.UNIT_SIZE_BYTES
            packet.track_descriptor.counter.y_axis_share_key = str(own)  # a common scale for the cgroup
            declared.append(packet)
        yield _serialized(declared)
        for uuid, counter in zip(uuids, cgroup.counters, strict=True):
            for first in range(0, len(counter.values), _AT_ONCE):
                part = slice(first, first + _AT_ONCE)
                times_ns = self._monotonic(counter.times_ns[part])
                columns = (times_ns, np.full(len(times_ns), uuid), counter.values[part])
                yield _COUNTER.packets(columns).tobytes()
        instants = [self._instant(kill.time_ns, own, kill.name, kill.facts) for kill in kills]
        instants += [self._instant(time_ns, own, "limit removed", {}) for time_ns in cgroup.unlimited_ns]
        yield _serialized(sorted(instants, key=attrgetter("timestamp")))

    def threads(self, threads: Iterable[Thread]) -> bytes:
        """Return the tracks of the processes and threads."""
        declared, processes = [], set[int]()
        for thread in threads:
            if thread.tgid not in processes:
                processes.add(thread.tgid)
                packet = _new_packet()
                packet.track_descriptor.uuid = self._new_uuid()
                packet.track_descriptor.process.pid = thread.tgid
                packet.track_descriptor.process.process_name = thread.process_name
                declared.append(packet)
            packet = _new_packet()
            packet.track_descriptor.uuid = self._new_uuid()
            packet.track_descriptor.thread.pid = thread.tgid
            packet.track_descriptor.thread.tid = thread.pid
            if thread.tgid == thread.pid:
                packet.track_descriptor.thread.thread_name = thread.process_name
            declared.append(packet)
            self._of_thread.append(self._last_uuid)
        return _serialized(declared)

    def events(self, spans: Spans, marks: Sequence[Mark]) -> Iterator[bytes]:
        """Yield the packets for the begins and ends of the spans, and for the marks of kills."""
        phases, positions = event_order(spans, marks)
        uuids, templates = np.array(self._of_thread, dtype=np.int64), _BeginTemplates(spans)
        for first in range(0, len(phases), _AT_ONCE):
            phase, position = phases[first : first + _AT_ONCE], positions[first : first + _AT_ONCE]
            places = np.flatnonzero(phase == END)
            ended = position[places]
            ends = _END.packets([self._monotonic(spans.end_ns[ended]), uuids[spans.thread[ended]]])
            parts = [(places, ends)]
            places = np.flatnonzero(phase == BEGIN)
            for chosen, template, numbers in templates.groups(position[places]):
                begun = position[places][chosen]
                columns = [self._monotonic(spans.begin_ns[begun]), uuids[spans.thread[begun]], *numbers]
                parts.append((places[chosen], template.packets(columns)))
            for place in np.flatnonzero(phase == MARK):
                packet = np.frombuffer(_serialized([self._mark(marks[position[place]])]), np.uint8)
                parts.append((np.array([place]), packet.reshape(1, -1)))
            yield in_order(parts)

    def _mark(self, mark: Mark) -> pb.TracePacket:
        """Return the instant for a thread's part in a kill. The arrow from the trigger ends at the victim."""
        kill, uuid = mark.kill, self._of_thread[mark.thread]
        packet = self._instant(kill.time_ns, uuid, mark.name, kill.facts)
        event = packet.track_event
        (event.terminating_flow_ids if mark.is_victim else event.flow_ids).extend(mark.flows)
        return packet

    def _instant(self, time_ns: int, uuid: int, name: str, facts: Mapping[str, str | int]) -> pb.TracePacket:
        packet = _event(max(time_ns - self._realtime_ns + self._monotonic_ns, 0), uuid)
        packet.track_event.type = pb.TrackEvent.TYPE_INSTANT
        packet.track_event.name = name
        for fact, value in facts.items():
            if isinstance(value, int):
                packet.track_event.debug_annotations.add(name=fact, int_value=value)
            else:
                packet.track_event.debug_annotations.add(name=fact, string_value=value)
        return packet

    def _track(self, uuid: int, parent: int, name: str, rank: int) -> pb.TracePacket:
        packet = _new_packet()
        descriptor = packet.track_descriptor
        descriptor.uuid, descriptor.parent_uuid = uuid, parent
        descriptor.name, descriptor.sibling_order_rank = name, rank
        return packet

    def _monotonic(self, times_ns: Int64s) -> Int64s:
        return np.maximum(times_ns - self._realtime_ns + self._monotonic_ns, 0)

    def _new_uuid(self) -> int:
        self._last_uuid += 1
        return self._last_uuid


def _new_packet() -> pb.TracePacket:
    packet = pb.TracePacket()
    packet.trusted_packet_sequence_id = _SEQUENCE
    return packet


def _event(time_ns: int, uuid: int) -> pb.TracePacket:
    packet = _new_packet()
    packet.timestamp, packet.timestamp_clock_id = time_ns, pb.BUILTIN_CLOCK_MONOTONIC
    packet.track_event.track_uuid = uuid
    return packet


def _serialized(written: Iterable[pb.TracePacket]) -> bytes:
    file = io.BytesIO()
    builder = StreamingTraceProtoBuilder(file)
    for packet in written:
        builder.write_packet(packet)
    return file.getvalue()


def _counter_packet(time_ns: int, uuid: int, value: int) -> bytes:
    packet = _event(time_ns, uuid)
    packet.track_event.type = pb.TrackEvent.TYPE_COUNTER
    packet.track_event.counter_value = value - (1 << 64)  # the same bytes, in a field with a sign
    return _serialized([packet])


def _end_packet(time_ns: int, uuid: int) -> bytes:
    packet = _event(time_ns, uuid)
    packet.track_event.type = pb.TrackEvent.TYPE_SLICE_END
    return _serialized([packet])


_COUNTER: Final = PacketTemplate.from_packet(_counter_packet, 3)
_END: Final = PacketTemplate.from_packet(_end_packet, 2)


class _BeginTemplates:
    """The templates of the begins of spans: one for each name, target, and set of known numbers."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._templates: dict[tuple[int, int, bool, bool], PacketTemplate] = {}

    def groups(self, chosen: Int64s) -> Iterator[tuple[Int64s, PacketTemplate, list[Int64s]]]:
        """Yield (positions in `chosen`, template, columns of numbers) for each group of spans.

        A group is the spans of one template. Its numbers come after the time and the track.
        """
        spans = self._spans
        keys = np.stack(
            [spans.name, spans.target, spans.scanned != UNKNOWN, spans.priority != UNKNOWN], axis=1
        )[chosen]
        found, code = np.unique(keys, axis=0, return_inverse=True)
        for number, (name, target, has_pages, has_priority) in enumerate(found.tolist()):
            key = (name, target, bool(has_pages), bool(has_priority))
            if key not in self._templates:
                self._templates[key] = self._template(*key)
            members = np.flatnonzero(code.ravel() == number)
            numbers = [spans.scanned, spans.reclaimed] if has_pages else []
            numbers += [spans.priority] if has_priority else []
            yield members, self._templates[key], [column[chosen[members]] for column in numbers]

    def _template(self, name: int, target: int, has_pages: bool, has_priority: bool) -> PacketTemplate:
        labels = ["scanned_pages", "reclaimed_pages"] if has_pages else []
        labels += ["priority"] if has_priority else []

        def make(time_ns: int, uuid: int, *numbers: int) -> bytes:
            packet = _event(time_ns, uuid)
            packet.track_event.type = pb.TrackEvent.TYPE_SLICE_BEGIN
            packet.track_event.name = self._spans.names[name]
            if target >= 0:
                annotation = packet.track_event.debug_annotations.add(name="target")
                annotation.string_value = self._spans.targets[target]
            for label, value in zip(labels, numbers, strict=True):
                packet.track_event.debug_annotations.add(name=label, uint_value=value)
            return _serialized([packet])

        return PacketTemplate.from_packet(make, 2 + len(labels))
