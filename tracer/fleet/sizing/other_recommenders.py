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
    seen = samples[["pod", "time"]].assign(bytes=column(samples, "bytes"), is_kill=False)
    of_kills = kills[["pod", "time"]].assign(bytes=column(kills, "limit_bytes"), is_kill=True)
    events = pd.concat([part for part in (seen, of_kills) if len(part)], ignore_index=True)
    start = events.groupby("pod")["time"].transform("min")
    events["interval"] = (events["time"] - start).dt.total_seconds() // INTERVAL.total_seconds()
    events["end"] = start + (events["interval"] + 1) * INTERVAL
    keys = ["pod", "interval"]
    peaks = events[~events["is_kill"]].groupby(keys)["bytes"].max().rename("peak")
    killed = events[events["is_kill"]].merge(peaks, on=keys, how="left")
    used = np.fmax(column(killed, "bytes"), column(killed, "peak"))
    events.loc[events["is_kill"], "bytes"] = np.maximum(used * BUMP_RATIO, used + BUMP_BYTES)
    intervals = events.groupby(keys).agg(end=("end", "max"), peak_bytes=("bytes", "max"))
    return intervals[intervals["peak_bytes"].notna()].reset_index()[["pod", "end", "peak_bytes"]]


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
