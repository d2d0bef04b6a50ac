"""Packets made from a template equal those that the official package makes, but for longer varints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from tracer.render.export.packet_template import PacketTemplate, in_order

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
