"""The export as JSON for chrome://tracing has the content of the export for Perfetto."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb
from support.recorded import NAMES, TRACES, opened

from tracer.analysis.trace import AnalysedTrace
from tracer.cli.verbs.export import FORMATS, FileFormat

EVENT = pb.TrackEvent


def pieces(trace: AnalysedTrace, form: str) -> list[Any]:
    found = FORMATS[form]
    assert isinstance(found, FileFormat)
    return list(found.pieces(trace, None, None))


def events_of(trace: AnalysedTrace) -> list[dict[str, Any]]:
    document = json.loads("".join(pieces(trace, "chrome")))
    assert document["otherData"]["clock"] == "CLOCK_MONOTONIC"
    events: list[dict[str, Any]] = document["traceEvents"]
    return events


def nanoseconds(microseconds: float) -> int:
    return round(microseconds * 1000)


@pytest.mark.parametrize("name", NAMES)
def test_content_is_that_of_the_export_for_perfetto(name: str) -> None:
    trace = opened(name)
    events, other = events_of(trace), pb.Trace()
    other.ParseFromString(b"".join(pieces(trace, "perfetto")))
    tracks = {one.track_descriptor.uuid: one.track_descriptor for one in other.packet}
    counters = sorted(
        (one.timestamp, tracks[one.track_event.track_uuid].name, one.track_event.counter_value)
        for one in other.packet
        if one.track_event.type == EVENT.TYPE_COUNTER
    )
    assert counters
    assert counters == sorted(
        (nanoseconds(one["ts"]), one["name"], one["args"]["bytes"]) for one in events if one["ph"] == "C"
    )
    begins = sorted(
        (one.timestamp, tracks[one.track_event.track_uuid].thread.tid, one.track_event.name)
        for one in other.packet
        if one.track_event.type == EVENT.TYPE_SLICE_BEGIN
    )
    spans = [one for one in events if one["ph"] == "X" and not one["name"].startswith("OOM kill")]
    assert begins == sorted((nanoseconds(one["ts"]), one["tid"], one["name"]) for one in spans)
    instants = [one for one in other.packet if one.track_event.type == EVENT.TYPE_INSTANT]
    kills = [one for one in events if one["name"].startswith("OOM kill") and one["ph"] in "Xi"]
    assert sorted(one.track_event.name for one in instants) == sorted(one["name"] for one in kills)


@pytest.mark.parametrize("name", ["group-kill", "throttle", "dirty"])
def test_spans_nest_and_arrows_have_both_ends(name: str) -> None:
    events = events_of(opened(name))
    by_thread = defaultdict(list)
    for one in events:
        if one["ph"] == "X":
            begin = nanoseconds(one["ts"])
            by_thread[one["pid"], one["tid"]].append((begin, -begin - nanoseconds(one["dur"])))
    for spans in by_thread.values():
        ends: list[int] = []
        for begin, negative_end in sorted(spans):
            while ends and ends[-1] <= begin:
                ends.pop()
            assert not ends or -negative_end <= ends[-1]
            ends.append(-negative_end)
    starts, stops = (sorted(one["id"] for one in events if one["ph"] == phase) for phase in "sf")
    assert starts == stops == sorted(set(starts))
    tids = {(one["pid"], one["tid"]) for one in events if one["ph"] == "X"}
    assert {(one["pid"], one["tid"]) for one in events if one["ph"] in "sf"} <= tids


def test_attempts_have_their_pages_and_target() -> None:
    trace = AnalysedTrace(TRACES / "throttle")
    events = events_of(trace)
    arguments = [one["args"] for one in events if one["name"] == "reclaim"]
    assert sum(one["scanned_pages"] for one in arguments) == trace.reclaim["scanned"].sum()
    assert {one["target"] for one in arguments} <= {*trace.cgroups["path"]}
    assert all(one["args"] == {} for one in events if one["name"].startswith("wait"))
    known = [one["priority"] for one in arguments if one["priority"] is not None]
    assert sorted(known) == sorted(trace.reclaim["priority"].dropna())
    assert len(known) < len(arguments)
