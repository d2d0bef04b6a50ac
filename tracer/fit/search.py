"""The search for the least limits of a command: which limit to try next, and what the runs show.

A limit meets the first demand if the command succeeds there (exit status 0), and the second if it is also not
much slower than without a limit (`Yardstick`). The search halves the interval between the highest limit that
failed and the lowest limit above it that passed, until the interval is small, and then runs its ends again.
All functions are pure, so an interrupted search goes on from its runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from tracer.errors import TracerError

WARM_UP_RUNS: Final = 1  # they find the files of the command, and their times do not count
UNLIMITED_RUNS: Final = WARM_UP_RUNS + 3
CONFIRMING_RUNS: Final = 2  # at each limit that is reported
DOUBTFUL_RUNS: Final = 3  # at a limit that fails by its time alone
_PRECISION_BYTES: Final = 1 << 20
_PRECISION_DIVISOR: Final = 128
_HEADROOM_DIVISOR: Final = 16  # of the highest usage without a limit, which differs from run to run
_PAGE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the command.

    `limit_bytes`: None without a limit. `status`: the exit status, 128+N after signal N; None if the run was
    ended because it took too long. `refaulted_bytes`: the page cache that was evicted and read again, by this
    run's trace; None if not known. `kills`: the kernel's count of OOM kills. `peak_bytes`: the highest usage;
    None if the kernel does not count it (memory.peak of v2, since v5.19). `lost_share`: the share of its
    tasks' time that was lost in reclaim and in reading again (`tracer.analysis.views.lost_time`); None if not
    known.
    """

    limit_bytes: int | None
    status: int | None
    wall_s: float
    refaulted_bytes: int | None
    kills: int
    peak_bytes: int | None
    trace: str
    lost_share: float | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits at which the search begins and ends, and the accepted slowdown (0.1: 10 %)."""

    from_bytes: int | None
    to_bytes: int | None
    slowdown: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """The next run, at this limit; None: without a limit."""

    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class Interval:
    """The least limit that passes: above `failed_bytes` and at most `passed_bytes` (None: no such run)."""

    failed_bytes: int | None
    passed_bytes: int | None


def unlimited_walls_s(runs: Iterable[Run]) -> list[float]:
    """Return the times of the runs without a limit that count; without one, the time of the warm-up."""
    walls = [run.wall_s for run in runs if run.limit_bytes is None]
    return walls[WARM_UP_RUNS:] or walls


def unlimited_spread(runs: Iterable[Run]) -> float:
    """Return the range of the times of the runs without a limit, as a share of their median."""
    walls = unlimited_walls_s(runs)
    return (max(walls) - min(walls)) / median(walls)


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The measure of how much slower a run is than without a limit.

    "wall_s": its time, beside the median without a limit. "lost_share": the time that its tasks lost in
    reclaim and in reading again, beside their other time. The load of the machine changes "wall_s" more than
    "lost_share". Only "wall_s" includes what a program does because of a limit, such as more frequent garbage
    collection.
    """

    name: Literal["wall_s", "lost_share"]
    unlimited_wall_s: float

    def slowdown(self, run: Run) -> float:
        """Return how much slower a run was (0.1: 10 %); infinite if not known."""
        if self.name == "wall_s":
            return run.wall_s / self.unlimited_wall_s - 1
        if run.lost_share is None or run.lost_share >= 1:
            return math.inf
        return run.lost_share / (1 - run.lost_share)

    def is_slow(self, runs: Iterable[Run], bounds: Bounds) -> bool:
        """Return whether the median slowdown of the runs at one limit is above the accepted one."""
        return median(self.slowdown(run) for run in runs) > bounds.slowdown


def yardstick(runs: Sequence[Run], bounds: Bounds) -> Yardstick | None:
    """Return the yardstick "wall_s" if it can tell the slowdown of `bounds` from chance, or else
    "lost_share"; None if the lost share of the runs without a limit is not known, so that no slowdown can be
    found."""
    unlimited = [run for run in runs if run.limit_bytes is None]
    wall_s = median(unlimited_walls_s(runs))
    if unlimited_spread(runs) <= bounds.slowdown:
        return Yardstick("wall_s", wall_s)
    is_known = all(run.lost_share is not None for run in unlimited)
    return Yardstick("lost_share", wall_s) if is_known else None


def succeeds(runs: Sequence[Run]) -> bool:
    """Return whether each of the runs at one limit ended with status 0."""
    return all(run.status == 0 for run in runs)


def interval(runs: Sequence[Run], passes: Callable[[Sequence[Run]], bool]) -> Interval:
    """Return the interval of the least limit that passes, above all limits that fail."""
    does_pass = {limit: passes(at_limit) for limit, at_limit in by_limit(runs).items()}
    failed = max((limit for limit, passed in does_pass.items() if not passed), default=None)
    above = [limit for limit, passed in does_pass.items() if passed and (failed is None or limit > failed)]
    return Interval(failed, min(above, default=None))


def comfortable(runs: Sequence[Run], by: Yardstick, bounds: Bounds) -> Interval:
    """Return the interval of the least limit at which the runs succeed, and are not too slow."""
    return interval(runs, lambda at_limit: succeeds(at_limit) and not by.is_slow(at_limit, bounds))


def next_attempt(runs: Sequence[Run], bounds: Bounds) -> Attempt | None:
    """Return the next run; None if each limit is found or cannot be found."""
    if sum(run.limit_bytes is None for run in runs) < UNLIMITED_RUNS:
        return Attempt(None)
    top = upper_bytes(runs, bounds)
    if top not in by_limit(runs):
        return Attempt(top)
    candidates = [_next(runs, interval(runs, succeeds), bounds)]
    by = yardstick(runs, bounds)
    if by is not None:
        candidates.insert(0, _doubtful(runs, by, bounds))
        candidates.append(_next(runs, comfortable(runs, by, bounds), bounds))
    return next((Attempt(limit) for limit in candidates if limit is not None), None)


def is_found(runs: Sequence[Run], between: Interval, bounds: Bounds) -> bool:
    """Return whether the least limit that passes is known, and the command was run there often enough."""
    return between.passed_bytes is not None and _next(runs, between, bounds) is None


def upper_bytes(runs: Sequence[Run], bounds: Bounds) -> int:
    """Return the limit at which the search begins: `to_bytes`, or else somewhat more than the highest usage
    without a limit. Raises TracerError if the kernel does not count the highest usage."""
    if bounds.to_bytes is not None:
        return bounds.to_bytes
    peaks = [run.peak_bytes for run in runs if run.limit_bytes is None and run.peak_bytes is not None]
    if not peaks:
        raise TracerError("this kernel does not count the highest usage (memory.peak): add --to SIZE")
    least = (bounds.from_bytes or 0) + precision_bytes(max(peaks))
    return _whole_pages(max(max(peaks) + max(peaks) // _HEADROOM_DIVISOR, least))


def precision_bytes(limit_bytes: int) -> int:
    """Return the precision of the search at a limit: 1 MiB, or 1/128 of the limit if that is more."""
    return max(_PRECISION_BYTES, limit_bytes // _PRECISION_DIVISOR)


def _doubtful(runs: Sequence[Run], by: Yardstick, bounds: Bounds) -> int | None:
    """Return a limit whose runs are so near the accepted slowdown that one more run has to decide."""
    for limit, at_limit in by_limit(runs).items():
        slowdown = median(by.slowdown(run) for run in at_limit)
        is_near = bounds.slowdown / 2 < slowdown < bounds.slowdown * 2
        if succeeds(at_limit) and is_near and len(at_limit) < DOUBTFUL_RUNS:
            return limit
    return None


def _next(runs: Sequence[Run], found: Interval, bounds: Bounds) -> int | None:
    """Return a limit to run for one demand; None if its interval is small and both ends are confirmed."""
    if found.passed_bytes is None:
        return None  # not even the highest limit passes
    low = found.failed_bytes
    if low is None and bounds.from_bytes is not None:
        return bounds.from_bytes if found.passed_bytes > bounds.from_bytes else _again(runs, found)
    middle = _whole_pages(((low or 0) + found.passed_bytes) // 2)
    is_wide = found.passed_bytes - (low or 0) > precision_bytes(found.passed_bytes)
    if is_wide and middle not in (low, found.passed_bytes):
        return middle
    return _again(runs, found)


def _again(runs: Sequence[Run], found: Interval) -> int | None:
    """Return an end of the interval at which the command was not run often enough.

    The end that passes comes first; the other end follows if each of its runs succeeded, because a single
    slow run may be due to chance.
    """
    at = by_limit(runs)
    if found.passed_bytes is not None and len(at[found.passed_bytes]) < CONFIRMING_RUNS:
        return found.passed_bytes
    slow = at.get(found.failed_bytes, []) if found.failed_bytes is not None else []
    return found.failed_bytes if slow and succeeds(slow) and len(slow) < DOUBTFUL_RUNS else None


def by_limit(runs: Iterable[Run]) -> dict[int, list[Run]]:
    """Return limit -> its runs; runs without a limit are left out."""
    found: dict[int, list[Run]] = {}
    for run in runs:
        if run.limit_bytes is not None:
            found.setdefault(run.limit_bytes, []).append(run)
    return found


def _whole_pages(value_bytes: int) -> int:
    return -(-value_bytes // _PAGE_BYTES) * _PAGE_BYTES
