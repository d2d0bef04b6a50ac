"""The need of each life of a workload: a value, or a lower bound.

The need of a life is the most memory at one moment that reclaim could not have freed. A killed life did not
show its need: its bound is what the limit that it hit could not hold. A life that was held back, because it
was slowed down or cut short, did not show its need either: its bound is its peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core.columns import Bools
from tracer.analysis.explain.causes.registry import CAUSES

Floats = npt.NDArray[np.float64]
Texts = npt.NDArray[np.object_]

_PEAKS: Final = (
    *("peak_with_swap_bytes", "peak_unreclaimable_bytes"),
    *("peak_working_set_bytes", "peak_usage_bytes"),
)
"""The best one first; the first known one counts. The last two include page cache: with them, a need is never
too small."""

_NOT_ALL_OF_THE_WORK: Final = ("cut", "failed", "growing")
"""The values of `work` after which another run may need more."""


@dataclass(frozen=True)
class Needs:
    """The arrays have an element for each life whose peak is known; their order does not matter."""

    bound_bytes: Floats
    """The need, or a lower bound of it. Positive."""
    is_killed: Bools
    """A kill cut the life short."""
    is_bound: Bools
    """The need is more than `bound_bytes`: the life was killed because the limit was too small, as far as is
    known, or it was held back."""
    days: Floats
    """The length of the life; at least a day if the trace has only a part of it."""
    comfort_bytes: Floats
    """Page cache that the life had in use, or read again after its eviction. For a thrashing life, that is
    more than it had room for."""
    held_back: Texts
    """The reason why a life that was not killed shows only a lower bound of its need; "" if it shows its
    need."""
    unknown_runs: int
    """Lives without any known peak."""

    @property
    def runs(self) -> int:
        """Return the number of lives whose peak is known."""
        return len(self.bound_bytes)

    @property
    def killed_runs(self) -> int:
        """Return the number of lives with a known peak that were killed."""
        return int(self.is_killed.sum())

    @property
    def held_back_runs(self) -> int:
        """Return the number of lives with a known peak that were held back but not killed."""
        return int((self.held_back != "").sum())

    @property
    def runs_killed_otherwise(self) -> int:
        """Return the number of killed lives without any kill that the size of the limit caused."""
        return int((self.is_killed & ~self.is_bound).sum())


def needs_of(lives: pd.DataFrame, kills: pd.DataFrame) -> Needs:
    """Return the needs from the rows of `lives` and `kills` of one workload. A missing column counts as not
    known.

    A kill belongs to the life of its cgroup (`boot_id`, `cgroup`) in whose time it falls. If a life was
    killed but has no such row, its bound is its peak.
    """
    peak = _first_known(lives)
    is_known = np.isfinite(peak) & (peak > 0)
    killed = np.nan_to_num(column(lives, "kills")) > 0
    bounds, of_size = _of_kills(lives, kills)
    bound = np.fmax(peak, bounds)
    held_back = np.where(killed, "", why_held_back(lives))
    return Needs(
        bound[is_known],
        killed[is_known],
        ((killed & ~(of_size == 0)) | (held_back != ""))[is_known],
        _days(lives)[is_known],
        _comfort(lives, peak)[is_known],
        held_back[is_known],
        unknown_runs=int(len(peak) - is_known.sum()),
    )


def why_held_back(lives: pd.DataFrame) -> Texts:
    """Return for each life why its peaks may be less than it needs, "" if nothing shows that.

    "throttled" and "thrashing" are states. A thrashing life still shows its need if its work was complete and
    the trace has all that it read again. The other values are those of `work` (docs/dataset.md).
    """
    state, work = _texts(lives, "state"), _texts(lives, "work")
    is_shown = (work == "complete") & np.isfinite(column(lives, "comfortable_bytes"))
    is_slow = (state == "throttled") | ((state == "thrashing") & ~is_shown)
    is_part = np.isin(work, _NOT_ALL_OF_THE_WORK)
    return np.where(is_slow, state, np.where(is_part, work, "")).astype(object)


def _comfort(lives: pd.DataFrame, peak: Floats) -> Floats:
    """Return the room for page cache above the peaks of memory that reclaim cannot free, in bytes."""
    usage, refaulted = column(lives, "peak_usage_bytes"), column(lives, "refaulted_bytes")
    cache = np.clip(usage - peak, 0, None)
    in_use = np.clip(column(lives, "comfortable_bytes") - peak, 0, None)
    return np.nan_to_num(np.fmax(np.minimum(refaulted, cache), in_use))


def _texts(rows: pd.DataFrame, name: str) -> Texts:
    """Return a column of texts, "" where it is null or absent."""
    if name not in rows.columns:
        return np.full(len(rows), "", dtype=object)
    return rows[name].fillna("").to_numpy(dtype=object)


def column(rows: pd.DataFrame, name: str) -> Floats:
    """Return a column of numbers, NaN where it is null; all NaN if the rows have no such column."""
    if name not in rows.columns:
        return np.full(len(rows), np.nan)
    return pd.to_numeric(rows[name]).to_numpy(dtype=np.float64, na_value=np.nan)


def _first_known(lives: pd.DataFrame) -> Floats:
    found = np.full(len(lives), np.nan)
    for name in _PEAKS:
        found = np.where(np.isnan(found), column(lives, name), found)
    return found


def _days(lives: pd.DataFrame) -> Floats:
    days = np.nan_to_num(column(lives, "observed_s")) / 86_400
    is_whole = (column(lives, "is_begin_seen") == 1) & (column(lives, "is_end_seen") == 1) & (days > 0)
    return np.where(is_whole, days, np.maximum(days, 1))


def _of_kills(lives: pd.DataFrame, kills: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return for each life the largest bound from its kills, in bytes, and the number of its kills for which
    the limit was too small; both NaN without a kill."""
    found, of_size = (np.full(len(lives), np.nan) for _ in range(2))
    keys = ["boot_id", "cgroup"]
    if not len(kills) or not {*keys, "time"} <= {*lives.columns} & {*kills.columns}:
        return found, of_size
    of_kills = kills[[*keys, "time"]].assign(bound_bytes=_bound_of_each(kills), is_of_size=_is_of_size(kills))
    of_kills = of_kills.dropna(subset=keys)  # merging pairs null with null: two unknown boots
    end = lives["end"] if "end" in lives.columns else pd.Series(pd.NaT, lives.index)
    of_lives = lives[[*keys, "time"]].assign(end=pd.to_datetime(end, utc=True), life=np.arange(len(lives)))
    pairs = of_lives.merge(of_kills, on=keys, suffixes=("", "_of_kill"))
    is_during = (pairs["time_of_kill"] >= pairs["time"]) & (
        pairs["end"].isna() | (pairs["time_of_kill"] <= pairs["end"])
    )
    life = pairs["life"].to_numpy()[is_during]
    np.fmax.at(found, life, pairs["bound_bytes"].to_numpy()[is_during])
    of_size[life] = 0
    np.add.at(of_size, life, pairs["is_of_size"].to_numpy()[is_during])
    return found, of_size


def _bound_of_each(kills: pd.DataFrame) -> Floats:
    """Return the least need that each kill proves: the low end by `explain`, or else the limit.

    A kill that was not caused by the size of the limit proves only what could not be reclaimed then.
    """
    limit = np.where(_is_of_size(kills), column(kills, "limit_bytes"), column(kills, "unreclaimable_bytes"))
    low = column(kills, "min_limit_low_bytes")
    return np.where(np.isnan(low), limit, low)


def _is_of_size(kills: pd.DataFrame) -> Bools:
    """Return for each kill whether the limit was too small, as far as is known."""
    if "cause" not in kills.columns:
        return np.ones(len(kills), dtype=np.bool_)
    otherwise = [name for name, cause in CAUSES.items() if not cause.is_limit_too_small]
    return ~kills["cause"].astype(object).isin(otherwise).to_numpy(dtype=np.bool_)
