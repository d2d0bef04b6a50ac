"""The limits that two other tools would recommend: the Vertical Pod Autoscaler, and Robusta's KRR."""

from __future__ import annotations

from math import ceil, floor, log
from typing import Final

import numpy as np
import pandas as pd

from tracer.fleet.sizing.needs import Floats, column

INTERVAL: Final = pd.Timedelta(hours=24)
HALF_LIFE: Final = pd.Timedelta(hours=24)
KEPT: Final = 8 * INTERVAL
"""Peaks of intervals that ended earlier are not used."""
PERCENTILE: Final = 0.9
MARGIN: Final = 0.15
BUMP_RATIO: Final = 1.2
BUMP_BYTES: Final = 100 << 20
FIRST_BUCKET_BYTES: Final = 1e7
BUCKET_GROWTH: Final = 1.05


def vpa_limit_bytes(samples: pd.DataFrame, kills: pd.DataFrame, now: pd.Timestamp) -> int | None:
    """Return the target in bytes, None without a sample.

    `samples` has `pod`, `time` and `bytes` (the working set; the metrics server has one a minute; maxima of
    longer times give the same peaks), `kills` has `pod`, `time` and `limit_bytes`. A pod keeps its intervals
    over restarts of its container; they count from its first sample.
    """
    if not len(samples) and not len(kills):
        return None
    return vpa_target_bytes(vpa_intervals(samples, kills), now)


def vpa_intervals(samples: pd.DataFrame, kills: pd.DataFrame) -> pd.DataFrame:
    """Return `pod`, `end` and `peak_bytes` of each interval with a known peak: all that the target depends
    on. There must be at least one row, and all rows of each pod; the pods may belong to several workloads."""
    parts = [part for part in (samples, kills) if len(part)]
    pod, names = pd.factorize(pd.concat([part["pod"] for part in parts], ignore_index=True), sort=True)
    time = pd.DatetimeIndex(pd.concat([part["time"] for part in parts]))
    whole = INTERVAL // pd.Timedelta(1, time.unit)
    start = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(start, pod, time.asi8)
    number = (time.asi8 - start[pod]) // whole
    keys, place = np.unique(pod * (number.max() + 1) + number, return_inverse=True)
    peaks = np.full(len(keys), np.nan)
    np.fmax.at(peaks, place[: len(samples)], column(samples, "bytes"))
    killed = place[len(samples) :]
    used = np.fmax(column(kills, "limit_bytes"), peaks[killed])
    np.fmax.at(peaks, killed, np.maximum(used * BUMP_RATIO, used + BUMP_BYTES))
    pod, number = np.divmod(keys, number.max() + 1)
    end = pd.DatetimeIndex((start[pod] + (number + 1) * whole).view(f"M8[{time.unit}]"), tz="UTC")
    intervals = pd.DataFrame({"pod": names.take(pod), "end": end.tz_convert(time.tz), "peak_bytes": peaks})
    return intervals[intervals["peak_bytes"].notna()]


def vpa_target_bytes(intervals: pd.DataFrame, now: pd.Timestamp) -> int | None:
    """Return the target in bytes from the intervals of one workload, in any order; None without a recent
    one."""
    recent = intervals[intervals["end"] > now - KEPT].sort_values(["end", "peak_bytes"])
    if not len(recent):
        return None
    weights = np.exp2(((recent["end"] - now) / HALF_LIFE).to_numpy(dtype=np.float64))
    return ceil(_percentile(column(recent, "peak_bytes"), weights) * (1 + MARGIN))


def _percentile(peaks: Floats, weights: Floats) -> float:
    """Return the end of the bucket in which the percentile of the weighted peaks lies, in bytes."""
    buckets = np.array([_bucket(peak) for peak in peaks])
    order = np.argsort(buckets, kind="stable")
    reached = np.cumsum(weights[order]) >= PERCENTILE * weights.sum() - 1e-12
    return _start_bytes(int(buckets[order][int(np.argmax(reached))]) + 1)


def _bucket(peak_bytes: float) -> int:
    """Return the index of the bucket: each is 5 % wider than the one before."""
    if peak_bytes < FIRST_BUCKET_BYTES:
        return 0
    return floor(log(peak_bytes * (BUCKET_GROWTH - 1) / FIRST_BUCKET_BYTES + 1) / log(BUCKET_GROWTH))


def _start_bytes(bucket: int) -> float:
    return FIRST_BUCKET_BYTES * (BUCKET_GROWTH**bucket - 1) / (BUCKET_GROWTH - 1)


BUFFER: Final = 0.15
KILL_BUFFER: Final = 0.25
HISTORY: Final = pd.Timedelta(days=14)


def krr_limit_bytes(
    samples: pd.DataFrame, kills: pd.DataFrame, now: pd.Timestamp, *, with_kills: bool = False
) -> int | None:
    """Return the limit in bytes, None without a sample. The rows have the columns of `vpa_limit_bytes`.

    `with_kills` is the option: a limit at which a pod was killed counts as well, with its own buffer.
    """
    largest = column(samples, "bytes")[(samples["time"] > now - HISTORY).to_numpy()]
    if not np.isfinite(largest).any():
        return None
    limit = float(np.nanmax(largest)) * (1 + BUFFER)
    killed_at = column(kills, "limit_bytes")[(kills["time"] > now - HISTORY).to_numpy()]
    if with_kills and np.isfinite(killed_at).any():
        limit = max(limit, float(np.nanmax(killed_at)) * (1 + KILL_BUFFER))
    return ceil(limit)
