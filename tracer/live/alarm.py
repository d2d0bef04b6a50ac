"""Alarm: the reason to keep a trace although nothing was killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LimitHit:
    """Usage hit memory.max or exceeded memory.high within `within_s` seconds.

    `times`: how often; None: this kernel does not count it, but reclaim examined `scanned_pages` pages at the
    limit.
    """

    is_high: bool
    limit_bytes: int
    usage_bytes: int
    within_s: float
    times: int | None
    scanned_pages: int = 0


@dataclass(frozen=True, slots=True)
class UsedUpSoon:
    """The cushion will be used up in `left_s` seconds: it shrank by `rate` bytes a second for `lasted_s`.

    `left_bytes` is the cushion, `room_bytes` and `cache_bytes` are parts of it (`live/countdown.py`).
    """

    limit_bytes: int
    left_bytes: int
    room_bytes: int
    cache_bytes: int
    left_s: float
    rate: float
    lasted_s: float


@dataclass(frozen=True, slots=True)
class AllWaited:
    """All tasks waited for memory at the same time for `waited_s` of `window_s` seconds.

    `usage_bytes` is None if it is not known, `limit_bytes` if there is no limit.
    """

    waited_s: float
    window_s: float
    usage_bytes: int | None
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class Alarm:
    """A cgroup hit its limit (`limit`), or is about to use up what is left below it (`soon`), or all its
    tasks waited for memory (`pressure`).

    `time_ns` is the `time` of the sample that showed it. `render/words/alarm_words.py` has the sentence.
    """

    reason: Literal["limit", "soon", "pressure"]
    cgroup_id: int
    time_ns: int
    numbers: LimitHit | UsedUpSoon | AllWaited
