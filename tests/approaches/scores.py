"""Scores of the rule of `watch --on soon` on recorded approaches: kills with an alarm, and false alarms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from synthetic.sample_series import SECOND_NS, START_NS, batch

from tracer.live.countdown import Countdown, cushions

RECORDED: Final = Path(__file__).parent / "recorded"
WITHIN_S: Final = 30.0
"""An alarm is true if a kill follows within this time."""

_APART_S: Final = 1.0  # a kill sooner after another one has no approach of its own
_LEAD_S: Final = 1.0
_LEAD_SHARE: Final = 0.25  # of the approach: enough where that is less than `_LEAD_S`


class Score(NamedTuple):
    """Kills with an alarm in time, kills with a later one, kills without, and alarms without a kill.

    An alarm is in time if it comes a second before the kill, or a quarter of the approach, where that is
    less. The approach begins when half of the limit was left for the last time.
    """

    in_time: int = 0
    late: int = 0
    without: int = 0
    false: int = 0

    def __add__(self, other: Any) -> Self:
        return type(self)(*(one + another for one, another in zip(self, other, strict=True)))


class Approach(NamedTuple):
    """The way to a kill, in seconds since the first sample of the cgroup."""

    begin_s: float
    killed_s: float


def recorded(path: Path) -> tuple[list[str], pa.RecordBatch]:
    """Return the names of the recorded approaches of a file, and their samples: those of the first have the
    cgroup 1, and so on. All begin at the same time."""
    table = pq.read_table(path).sort_by("time_us")
    names = sorted(pc.unique(table["approach"]).to_pylist())
    kept = [column for column in table.column_names if column not in ("approach", "time_us", "is_kill")]
    samples = batch(
        len(table),
        time=START_NS + 1000 * np.asarray(table["time_us"]),
        cgroup_id=1 + np.asarray(pc.index_in(table["approach"].cast(pa.string()), pa.array(names))),
        source=pc.if_else(table["is_kill"], "oom", "periodic").combine_chunks(),
        **{column: table[column].combine_chunks() for column in kept},
    )
    return names, samples


def scores(path: Path) -> dict[str, Score]:
    """Replay the approaches of a file, and return the score of each."""
    names, samples = recorded(path)
    given: dict[int, list[float]] = {number: [] for number in range(1, 1 + len(names))}
    for alarm in Countdown(free_swap=lambda: 0).take(samples):
        given[alarm.cgroup_id].append((alarm.time_ns - START_NS) / SECOND_NS)
    return {
        name: score(list(approaches(samples.filter(pc.equal(samples["cgroup_id"], number)))), given[number])
        for number, name in enumerate(names, 1)
    }


def score(kills: Sequence[Approach], alarms_s: Sequence[float]) -> Score:
    """Return the score of the alarms of a cgroup, given in seconds since its first sample."""
    found, since_s = Score(), float("-inf")
    is_true = [any(at <= kill.killed_s <= at + WITHIN_S for kill in kills) for at in alarms_s]
    for kill in kills:
        earliest_s = max(since_s, kill.killed_s - WITHIN_S)
        first_s = min((at for at in alarms_s if earliest_s <= at <= kill.killed_s), default=None)
        lead_s = min(_LEAD_S, _LEAD_SHARE * (kill.killed_s - kill.begin_s))
        if first_s is None:
            found += Score(without=1)
        else:
            is_in_time = kill.killed_s - first_s >= lead_s
            found += Score(in_time=is_in_time, late=not is_in_time)
        since_s = kill.killed_s
    return found + Score(false=is_true.count(False))


def approaches(samples: pa.RecordBatch) -> Iterator[Approach]:
    """Yield the approaches that ended with a kill, from the samples of a cgroup."""
    times = (np.asarray(samples["time"].cast(pa.int64())) - START_NS) / SECOND_NS
    found = cushions(samples, free_swap_bytes=0)
    is_far = found.is_known & (2 * found.left >= found.limit)
    since = float("-inf")
    for killed in times[np.asarray(pc.equal(samples["source"], "oom"))].tolist():
        if killed - since >= _APART_S:
            before = (times > since) & (times <= killed)
            far = times[before & is_far]
            yield Approach(float(far[-1] if len(far) else times[before][0]), killed)
        since = killed
