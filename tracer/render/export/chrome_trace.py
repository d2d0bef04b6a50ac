"""A trace in the JSON format of chrome://tracing, which many viewers read.

The content equals the file for Perfetto. The format lacks tracks of cgroups and arrows between instants. So a
cgroup is a process with a number that no process has, and a kill is a span of a microsecond on its own track,
because arrows go from span to span. Times are CLOCK_MONOTONIC in microseconds, with three decimals.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracer.analysis.core.columns import Int64s
from tracer.render.export.tracks import UNKNOWN, CgroupTrack, Kill, Mark, Spans, Tracks
from tracer.trace.meta import ClockPair

_AT_ONCE: Final = 1 << 16
_FIRST_CGROUP: Final = 1 << 30  # PID_MAX_LIMIT is 4 Mi (include/linux/threads.h)
_KILLS: Final = 1 << 30  # added to a pid: the track of its kills
_KILL_US: Final = 1


def pieces(tracks: Tracks, clock: ClockPair) -> Iterator[str]:
    """Yield the file piece by piece. `clock` is the clock pair in meta.json."""
    to_monotonic_ns = clock["monotonic_ns"] - clock["realtime_ns"]
    yield '{"displayTimeUnit":"ms","otherData":' + _dumped({"clock": "CLOCK_MONOTONIC"} | dict(clock))
    yield ',"traceEvents":[\n'
    separator = ""
    for events in _events(tracks, to_monotonic_ns):
        yield separator + events
        separator = ",\n"
    yield "\n]}\n"


def _events(tracks: Tracks, to_monotonic_ns: int) -> Iterator[str]:
    """Yield texts of one or more events, with commas between the events."""
    for rank, cgroup in enumerate(tracks.cgroups):
        kills = [kill for kill in tracks.kills if kill.owner_id == cgroup.cgroup_id]
        yield from _cgroup(cgroup, rank, kills, to_monotonic_ns)
    named = set[int]()
    for thread in tracks.threads:
        if thread.tgid not in named:
            named.add(thread.tgid)
            yield _metadata("process_name", thread.tgid, name=thread.process_name)
        if thread.pid == thread.tgid:
            yield _metadata("thread_name", thread.tgid, thread.pid, name=thread.process_name)
    yield from _spans(tracks, to_monotonic_ns)
    with_kills = {mark.thread for mark in tracks.marks}
    for number in sorted(with_kills):
        thread = tracks.threads[number]
        yield _metadata("thread_name", thread.tgid, thread.pid + _KILLS, name=f"OOM kills, {thread.pid}")
    for mark in tracks.marks:
        yield from _mark(tracks, mark, to_monotonic_ns)


def _cgroup(cgroup: CgroupTrack, rank: int, kills: list[Kill], to_monotonic_ns: int) -> Iterator[str]:
    own = _FIRST_CGROUP + rank
    yield _metadata("process_name", own, name=cgroup.name)
    yield _metadata("process_sort_index", own, sort_index=rank - _FIRST_CGROUP)
    for counter in cgroup.counters:
        head = _dumped({"ph": "C", "pid": own, "name": counter.name})[:-1] + ',"ts":'
        for first in range(0, len(counter.values), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            times = _microseconds(counter.times_ns[part] + to_monotonic_ns)
            yield _rows(head, times, ',"args":{"bytes":', _numbers(counter.values[part]), "}}")
    instants = [(kill.time_ns, kill.name, kill.facts) for kill in kills]
    instants += [(time_ns, "limit removed", {}) for time_ns in cgroup.unlimited_ns]
    for time_ns, name, facts in instants:
        yield _instant(time_ns + to_monotonic_ns, own, name, facts)


def _spans(tracks: Tracks, to_monotonic_ns: int) -> Iterator[str]:
    spans = tracks.spans
    names = _texts(spans.names)
    targets = _texts([*spans.targets, None])
    tgids, pids = (
        np.array([getattr(thread, number) for thread in tracks.threads], np.int64)
        for number in ("tgid", "pid")
    )
    for first in range(0, len(spans.begin_ns), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        thread, begin_ns = spans.thread[part], spans.begin_ns[part]
        yield _rows(
            '{"ph":"X","pid":',
            _numbers(tgids[thread]),
            ',"tid":',
            _numbers(pids[thread]),
            ',"name":',
            names.take(pa.array(spans.name[part])),
            ',"ts":',
            _microseconds(begin_ns + to_monotonic_ns),
            ',"dur":',
            _microseconds(spans.end_ns[part] - begin_ns),
            ',"args":',
            _arguments(spans, part, targets),
            "}",
        )


def _arguments(spans: Spans, part: slice, targets: pa.Array) -> pa.Array:
    """Return the arguments of spans. Attempts to reclaim have the target and the pages."""
    texts = _joined(
        '{"target":',
        targets.take(pa.array(spans.target[part] % len(targets))),  # -1 becomes the last index
        ',"scanned_pages":',
        _known_numbers(spans.scanned[part]),
        ',"reclaimed_pages":',
        _known_numbers(spans.reclaimed[part]),
        ',"priority":',
        _known_numbers(spans.priority[part]),
        "}",
    )
    return pc.if_else(pa.array(spans.scanned[part] == UNKNOWN), "{}", texts)


def _mark(tracks: Tracks, mark: Mark, to_monotonic_ns: int) -> Iterator[str]:
    thread = tracks.threads[mark.thread]
    time_us = _microsecond(mark.kill.time_ns + to_monotonic_ns)
    place = f'"pid":{thread.tgid},"tid":{thread.pid + _KILLS},"ts":{time_us}'
    yield (
        f'{{"ph":"X",{place},"dur":{_KILL_US},"name":{_dumped(mark.name)},"args":{_dumped(dict(mark.kill.facts))}}}'
    )
    way = '"ph":"f","bp":"e"' if mark.is_victim else '"ph":"s"'
    for flow in mark.flows:
        yield f'{{{way},{place},"id":{flow},"cat":"oom","name":"OOM kill"}}'


def _instant(time_ns: int, pid: int, name: str, facts: Mapping[str, str | int]) -> str:
    head = f'{{"ph":"i","s":"p","pid":{pid},"tid":0,"ts":{_microsecond(time_ns)}'
    return f'{head},"name":{_dumped(name)},"args":{_dumped(dict(facts))}}}'


def _metadata(kind: str, pid: int, tid: int = 0, **arguments: str | int) -> str:
    return _dumped({"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": arguments})


def _dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _texts(values: Any) -> pa.Array:
    return pa.array([_dumped(value) for value in values], pa.string())


def _numbers(values: Int64s) -> pa.Array:
    return pa.array(values).cast(pa.string())


def _known_numbers(values: Int64s) -> pa.Array:
    """Return numbers as JSON; `UNKNOWN` is null."""
    return pc.if_else(pa.array(values == UNKNOWN), "null", _numbers(values))


def _microseconds(times_ns: Int64s) -> pa.Array:
    """Return non-negative times as JSON numbers with three decimals."""
    whole, rest = np.divmod(np.maximum(times_ns, 0), 1000)
    decimals = pc.utf8_lpad(_numbers(rest), 3, "0")
    return _joined(_numbers(whole), ".", decimals)


def _microsecond(time_ns: int) -> str:
    return str(_microseconds(np.array([time_ns], np.int64))[0])


def _joined(*parts: pa.Array | str) -> pa.Array:
    """Return the joined texts of each row. A plain text is the same in each row."""
    return pc.binary_join_element_wise(*parts, "")


def _rows(*parts: pa.Array | str) -> str:
    return ",\n".join(_joined(*parts).to_pylist())
