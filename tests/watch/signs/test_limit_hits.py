from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from synthetic.sample_series import MIB, SECOND_NS, START_NS, batch

from tracer.live.alarm import Alarm
from tracer.schema import UNLIMITED_BYTES
from tracer.watch.signs.limit_hits import LimitHits

TENTH_NS = SECOND_NS // 10


def hits_of(usage: list[float], every_ns: int = TENTH_NS, **columns: Any) -> list[Alarm]:
    """Return the alarms of samples of cgroup 7, a tenth of a second apart, below a limit of 100 MiB."""
    given: dict[str, Any] = {"limit_bytes": 100 * MIB, "high_bytes": UNLIMITED_BYTES} | columns
    samples = batch(
        len(usage),
        time=START_NS + np.arange(len(usage)) * every_ns,
        cgroup_id=7,
        usage_bytes=(np.array(usage) * MIB).astype(np.int64),
        **given,
    )
    return list(LimitHits().take(samples))


def test_rise_of_max_events_gives_an_alarm_with_its_numbers() -> None:
    (alarm,) = hits_of([99, 100, 99.5, 99.5], max_events=[4, 4, 41, 41])
    assert alarm == Alarm(
        "limit",
        7,
        START_NS + 2 * TENTH_NS,
        "Usage hit the limit of 100 MiB 37 times within 100 ms; usage is 99.5 MiB.",
    )


def test_rise_of_high_events_gives_an_alarm_with_its_numbers() -> None:
    (alarm,) = hits_of([79, 80], high_bytes=80 * MIB, high_events=[0, 1], max_events=0)
    assert alarm.sentence == "Usage exceeded memory.high (80 MiB) once within 100 ms; usage is 80 MiB."


@pytest.mark.parametrize("name", ["max_events", "high_events"])
def test_first_sample_of_a_cgroup_is_only_compared_with(name: str) -> None:
    assert hits_of([100], **{name: 5}) == []


def test_hits_of_a_descendant_give_the_ancestor_no_alarm() -> None:
    """memory.events of v2 is hierarchical."""
    assert hits_of([50, 50], max_events=[0, 9]) == []
    assert hits_of([100, 100], max_events=[0, 9], limit_bytes=UNLIMITED_BYTES) == []
    assert hits_of([100, 100], high_events=[0, 9], max_events=0) == []


def test_hit_is_found_although_usage_fell_since() -> None:
    """A process that was killed, or exited, frees its memory within the tenth of a second."""
    (alarm,) = hits_of([10, 10], max_events=[0, 1], peak_bytes=[60 * MIB, 100 * MIB])
    assert "hit the limit of 100 MiB once" in alarm.sentence
    assert hits_of([10, 10], max_events=[0, 1], peak_bytes=100 * MIB) == []


def test_limit_whose_hits_are_not_counted_is_hit_when_reclaim_works_at_it() -> None:
    (alarm,) = hits_of([90, 98.5, 98.5], pgscan=[0, 0, 1203])
    assert alarm.sentence == (
        "Usage is at the limit of 100 MiB: reclaim examined 1,203 pages within 100 ms; usage is 98.5 MiB."
    )
    assert hits_of([90, 90], pgscan=[0, 1203]) == []


def test_sample_without_counts_is_passed_over() -> None:
    """That of a kill has none if the cgroup has children."""
    (alarm,) = hits_of([99, 100, 100], max_events=pa.array([4, None, 5]), pgscan=pa.array([7, None, 7]))
    assert alarm.time_ns == START_NS + 2 * TENTH_NS


def seconds_of(alarms: list[Alarm]) -> list[float]:
    return [(alarm.time_ns - START_NS) / SECOND_NS for alarm in alarms]


def test_cgroup_that_hits_its_limit_all_day_gives_ever_fewer_alarms() -> None:
    hits = 5 * 3600
    alarms = seconds_of(hits_of([100] * hits, SECOND_NS, max_events=np.arange(hits)))
    assert alarms[0] == 1
    assert np.diff(alarms).tolist() == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_hits_after_ten_minutes_without_one_give_an_alarm_again() -> None:
    goes_on, again = np.arange(300), np.arange(600)
    events = np.concatenate([goes_on, np.full(600, goes_on[-1]), goes_on[-1] + 1 + again])
    alarms = seconds_of(hits_of([100] * len(events), SECOND_NS, max_events=events))
    assert alarms == [1, 61, 181, 900, 960, 1080, 1320]


def test_cgroups_are_told_apart_and_forgotten() -> None:
    def sample(turn: int, events: list[int]) -> Any:
        return batch(
            2,
            time=START_NS + turn * TENTH_NS,
            cgroup_id=[7, 8],
            usage_bytes=100 * MIB,
            limit_bytes=100 * MIB,
            max_events=events,
        )

    hits = LimitHits()
    assert list(hits.take(sample(0, [1, 5]))) == []
    assert [alarm.cgroup_id for alarm in hits.take(sample(1, [1, 6]))] == [8]
    hits.forget([7])
    assert list(hits.take(sample(2, [2, 6]))) == []
    assert [alarm.cgroup_id for alarm in hits.take(sample(3, [3, 7]))] == [7]
