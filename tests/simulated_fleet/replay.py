"""Days of a workload under a limit: who is killed, and the rows that its traces would give.

A life is killed in the first minute in which it needs more than the limit. A service then starts again and
goes on with what comes next; in its first half hour it fills up. A job starts again from its begin, twice at
most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from simulated_fleet.demand import DAY, Floats, Pod, Stretch, Workload

BEGIN: Final = pd.Timestamp("2026-03-02T00:00Z")
RETRIES: Final = 2
_WARM_MINUTES: Final = 30
_RUNAWAY_BYTES: Final = 64 << 20
"""What a runaway allocates a minute; at twice the memory of a machine it is killed anyway."""
_MACHINE_BYTES: Final = 64 << 30


@dataclass
class Days:
    """What was seen of a workload. Rows of `lives` and `kills` are as `summarize` would give them."""

    lives: list[dict[str, Any]] = field(default_factory=list)
    kills: list[dict[str, Any]] = field(default_factory=list)
    sampled: list[dict[str, Any]] = field(default_factory=list)
    """The working set as looked at once a minute: the maximum of each hour."""
    exact: list[dict[str, Any]] = field(default_factory=list)
    """What could not be reclaimed, to the event: the maximum of each hour."""
    needed_byte_minutes: float = 0.0
    reserved_byte_minutes: float = 0.0
    kills_by_limit: int = 0
    """The kills that the limit decided: not those of the whole machine, nor of runaways."""
    runs: int = 0
    runs_above_limit: int = 0
    """Those that needed more than the limit, whatever the reason: also the runaways."""
    short_minutes: int = 0
    """Minutes in which cache that is read again did not fit."""


@dataclass(frozen=True)
class _Life:
    begin: int
    need: Floats
    sampled: Floats
    peaks: Floats
    cache: Floats
    kill: str | None
    is_avoidable: bool


def days_of(
    workload: Workload, limit_bytes: float, first_day: int, end_day: int, *, with_rows: bool = True
) -> Days:
    """Return what is seen of the workload in these days, under one limit from their begin."""
    found = Days()
    for pod in workload.pods:
        for stretch in pod.stretches:
            part = _within(stretch, first_day * DAY, end_day * DAY)
            if part is not None:
                for number, life in enumerate(_lives(part, limit_bytes)):
                    _count(found, workload, life, limit_bytes)
                    if with_rows:
                        _add(found, workload, pod, life, number=number, limit_bytes=limit_bytes)
    return found


def _within(stretch: Stretch, begin: int, end: int) -> Stretch | None:
    """Return the part of a stretch in a time; jobs belong to the time of their begin, whole."""
    low, high = begin - stretch.begin, end - stretch.begin
    if stretch.is_retried:
        return stretch if low <= 0 < high else None
    low, high = max(0, low), min(len(stretch.need), high)
    return _cut(stretch, low, high) if low < high else None


def _cut(stretch: Stretch, low: int, high: int) -> Stretch:
    moved = {
        name: None if at is None or not low <= at < high else at - low
        for name, at in (("runaway", stretch.runaway), ("evicted_at", stretch.evicted_at))
    }
    arrays = {name: getattr(stretch, name)[low:high] for name in ("need", "spike", "is_sampled")}
    fresh = {"cache": stretch.cache[: high - low], "begin": stretch.begin + low}
    return Stretch(**{**vars(stretch), **arrays, **fresh, **moved})


def _lives(stretch: Stretch, limit_bytes: float) -> Iterator[_Life]:
    tries = 0
    while True:
        life, lasted = _live(stretch, limit_bytes)
        yield life
        if life.kill is None:
            return
        if stretch.is_retried:
            tries += 1
            if tries > RETRIES:
                return
            stretch = Stretch(**{**vars(stretch), "begin": stretch.begin + lasted, "evicted_at": None})
        elif lasted < len(stretch.need):
            stretch = _cut(stretch, lasted, len(stretch.need))
        else:
            return


def _live(stretch: Stretch, limit_bytes: float) -> tuple[_Life, int]:
    """Return the life that begins with the stretch, and how many minutes of it there were."""
    age = np.arange(len(stretch.need))
    need = stretch.need + stretch.leak * age
    if not stretch.is_retried:
        need[:_WARM_MINUTES] *= np.linspace(0.5, 1, _WARM_MINUTES)[: len(need)]
    if stretch.runaway is not None:
        need = need + _RUNAWAY_BYTES * np.maximum(0, age - stretch.runaway + 1.0)
    peaks = need + stretch.spike
    over = np.flatnonzero(peaks > min(limit_bytes, _MACHINE_BYTES))
    last = int(over[0]) if len(over) else len(need)
    kill, is_avoidable = None, False
    if stretch.evicted_at is not None and stretch.evicted_at < last:
        last, kill = stretch.evicted_at, "global_pressure"
    elif last < len(need):
        kill = "anon_growth"
        is_avoidable = stretch.runaway is None or last < stretch.runaway
    lasted = min(last + 1, len(need))
    sampled = need + np.where(stretch.is_sampled, stretch.spike, 0)
    need, sampled, peaks = (np.minimum(values[:lasted], limit_bytes) for values in (need, sampled, peaks))
    return _Life(stretch.begin, need, sampled, peaks, stretch.cache[:lasted], kill, is_avoidable), lasted


def _count(found: Days, workload: Workload, life: _Life, limit_bytes: float) -> None:
    found.needed_byte_minutes += float(life.need.sum())
    found.reserved_byte_minutes += len(life.need) * limit_bytes
    found.kills_by_limit += life.is_avoidable
    found.runs += 1
    found.runs_above_limit += life.kill == "anon_growth"
    found.short_minutes += int((_hot(workload, life) > limit_bytes - life.need).sum())


def _hot(workload: Workload, life: _Life) -> Floats:
    """Return the page cache that is read again if it is evicted, at each minute."""
    return workload.hot * workload.active * life.cache


def _add(found: Days, workload: Workload, pod: Pod, life: _Life, *, number: int, limit_bytes: float) -> None:
    minutes = len(life.need)
    active = np.minimum(workload.active * life.cache, limit_bytes - life.sampled)
    working_set, cache = life.sampled + active, np.minimum(life.cache, limit_bytes - life.need)
    hot = _hot(workload, life)
    is_short = hot > limit_bytes - life.need
    begin, end = (BEGIN + pd.Timedelta(minutes=at) for at in (life.begin, life.begin + minutes))
    names = {
        "workload": workload.name,
        "host": pod.host,
        "boot_id": f"boot-{pod.host}",
        "pod": f"{pod.name}-{life.begin}" if workload.kind == "job" else pod.name,
        "cgroup": f"/kubepods/{pod.name}/{life.begin}-{number}",
        "limit_bytes": int(limit_bytes),
        "is_limited": True,
        "summary_version": 1,
    }
    found.lives.append(
        {
            **names,
            "time": begin,
            "end": end,
            "is_begin_seen": True,
            "is_end_seen": True,
            "peak_usage_bytes": int((life.need + cache).max()),
            "peak_unreclaimable_bytes": int(life.peaks.max()),
            "peak_working_set_bytes": int(working_set.max()),
            "peak_sampled_bytes": int(working_set.max()),
            "comfortable_bytes": int((life.need + active).max()),
            "kills": int(life.kill is not None),
            "observed_s": minutes * 60.0,
            "evicted_bytes": int(np.maximum(0, life.cache - cache).max()),
            "refaulted_bytes": int((hot * is_short).sum()),
        }
    )
    if life.kill is not None:
        found.kills.append(
            {
                **names,
                "time": end,
                "cause": life.kill,
                "unreclaimable_bytes": int(life.peaks[-1]),
                "min_limit_low_bytes": None,
            }
        )
    for rows, values in ((found.sampled, working_set), (found.exact, life.peaks)):
        starts = range(0, minutes, 60)
        for start, largest in zip(starts, np.maximum.reduceat(values, starts).tolist(), strict=True):
            at = BEGIN + pd.Timedelta(minutes=life.begin + start)
            rows.append({"pod": names["pod"], "time": at, "bytes": largest})
