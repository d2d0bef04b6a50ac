"""The sentences of alarms, from their numbers."""

from __future__ import annotations

import pytest

from tracer.live.alarm import Alarm, AllWaited, LimitHit, UsedUpSoon
from tracer.render.words.alarm_words import alarm_sentence

MIB = 1 << 20


def sentence(numbers: LimitHit | UsedUpSoon | AllWaited) -> str:
    return alarm_sentence(Alarm("limit", 7, 0, numbers))


@pytest.mark.parametrize(
    ("is_high", "times", "words"),
    [
        (False, 37, "Usage hit the limit of 100 MiB 37 times within 100 ms; usage is 99.5 MiB."),
        (False, 2259, "Usage hit the limit of 100 MiB 2,259 times within 100 ms; usage is 99.5 MiB."),
        (True, 1, "Usage exceeded memory.high (100 MiB) once within 100 ms; usage is 99.5 MiB."),
        (
            False,
            None,
            "Usage is at the limit of 100 MiB: reclaim examined 1,203 pages within 100 ms; "
            "usage is 99.5 MiB.",
        ),
    ],
)
def test_hit_of_a_limit(is_high: bool, times: int | None, words: str) -> None:
    assert sentence(LimitHit(is_high, 100 * MIB, int(99.5 * MIB), 0.1, times, 1203)) == words


@pytest.mark.parametrize(
    ("cache_bytes", "parts"),
    [
        (38 * MIB, "2 MiB room, 38 MiB cache"),
        (30 * MIB, "2 MiB room, 30 MiB cache, 8 MiB swap and slab"),
    ],
)
def test_cushion_that_will_be_used_up(cache_bytes: int, parts: str) -> None:
    assert sentence(UsedUpSoon(200 * MIB, 40 * MIB, 2 * MIB, cache_bytes, 7.84, 5.1 * MIB, 3.4)) == (
        f"What is left below the limit of 200 MiB will be used up in 7.84 s: 40 MiB ({parts}), "
        "shrinking by 5.1 MiB/s for 3.40 s."
    )


@pytest.mark.parametrize(
    ("usage_bytes", "limit_bytes", "end"),
    [
        (int(99.8 * MIB), 100 * MIB, "; usage is 99.8 MiB of 100 MiB."),
        (int(99.8 * MIB), None, "; usage is 99.8 MiB."),
        (None, 100 * MIB, "."),
    ],
)
def test_tasks_that_all_waited(usage_bytes: int | None, limit_bytes: int | None, end: str) -> None:
    assert sentence(AllWaited(2.31, 10.2, usage_bytes, limit_bytes)) == (
        f"All tasks waited for memory at the same time for 2.31 s (23 %) of the last 10 s{end}"
    )
