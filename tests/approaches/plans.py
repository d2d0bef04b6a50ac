"""The planned approaches to a limit: what each process does, drawn from a seed.

About half of them end with a kill. Whether one did is not planned but recorded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

Steps = list[list[Any]]
_MOST_MIB: Final = 2000
"""More than any limit: growth to this ends with a kill."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps` of workloads/approaching.py below a limit of `limit_mib`.

    `is_loaded`: with spinners beside it. `is_slowed`: with a tenth of a CPU (v1), or above memory.high at 0.8
    of the limit (v2).
    """

    name: str
    seed: int
    limit_mib: int
    steps: Steps
    is_loaded: bool = False
    is_slowed: bool = False


class _Draw:
    """Draws the numbers of one plan."""

    def __init__(self, seed: str, fastest: float) -> None:
        self._chance = random.Random(seed)
        self._fastest = fastest
        self.limit = self.between(48, 512)

    def between(self, least: float, most: float) -> float:
        """Return a number, evenly distributed on a logarithmic scale."""
        return round(math.exp(self._chance.uniform(math.log(least), math.log(most))), 2)

    def rate(self, least: float, most: float) -> float:
        """Return MiB a second, at most what the machine can do."""
        return min(self.between(least, most), self._fastest)

    def share(self, least: float, most: float) -> float:
        """Return MiB between two shares of the limit."""
        return round(self._chance.uniform(least, most) * self.limit, 1)

    def pace(self, least_s: float, most_s: float) -> float:
        """Return the MiB a second that fill the limit within this time."""
        return min(round(self.limit / self.between(least_s, most_s), 2), self._fastest)


def _leak(draw: _Draw) -> Steps:
    return [["grow", draw.rate(30, 90), draw.share(0.15, 0.6)], ["grow", draw.pace(8, 60), _MOST_MIB]]


def _slow_leak(draw: _Draw) -> Steps:
    draw.limit = draw.between(48, 90)
    return [["grow", 40, draw.share(0.5, 0.7)], ["grow", draw.rate(1, 2.5), _MOST_MIB]]


def _fast_leak(draw: _Draw) -> Steps:
    draw.limit = draw.between(128, 512)
    return [["rest", 1], ["grow", draw.rate(30, 200), _MOST_MIB]]


def _leak_behind_cache(draw: _Draw) -> Steps:
    return [
        ["grow", 50, draw.share(0.1, 0.3)],
        ["read", draw.pace(2, 4), 1.5 * draw.limit],
        ["grow", draw.pace(5, 40), _MOST_MIB],
    ]


def _leak_beside_reads(draw: _Draw) -> Steps:
    return [
        ["beside", [["reread", draw.pace(1, 6), draw.share(0.3, 0.7), 90]]],
        ["rest", 3],
        ["grow", draw.pace(10, 40), _MOST_MIB],
    ]


def _leak_in_bursts(draw: _Draw) -> Steps:
    return [
        ["grow", 50, draw.share(0.2, 0.5)],
        ["bursts", draw.share(0.02, 0.08), draw.between(0.3, 2.5), _MOST_MIB],
    ]


def _accelerating_leak(draw: _Draw) -> Steps:
    return [
        ["grow", 50, draw.share(0.1, 0.4)],
        ["accelerate", draw.pace(60, 200), draw.between(1.5, 6), _MOST_MIB],
    ]


def _leak_below_sawtooth(draw: _Draw) -> Steps:
    """Garbage is collected whenever it has reached a size, and a leak goes on below it."""
    low, high, leak = draw.share(0.2, 0.4), draw.share(0.12, 0.25), draw.share(0.05, 0.1)
    steps: Steps = []
    while low + high < 1.3 * draw.limit:
        steps += [["grow", draw.pace(8, 16), round(low + high, 1)], ["free", round(low, 1)]]
        low += leak
    return steps


def _pool(draw: _Draw) -> Steps:
    """Workers that all leak."""
    number = round(draw.between(3, 8))
    pace = round(draw.pace(8, 40) / number, 2)
    return [
        ["beside", [["rest", round(worker * 0.3, 1)], ["grow", pace, _MOST_MIB]]] for worker in range(number)
    ] + [["join"]]


def _tmpfs(draw: _Draw) -> Steps:
    return [["grow", 40, draw.share(0.1, 0.3)], ["shmem", draw.pace(4, 40), _MOST_MIB]]


def _slab(draw: _Draw) -> Steps:
    draw.limit = draw.between(48, 90)
    return [["grow", 40, draw.share(0.2, 0.5)], ["slab", draw.pace(10, 30), 200]]


def _unsynced_writes(draw: _Draw) -> Steps:
    return [["grow", 50, draw.share(0.1, 0.3)], ["write", draw.rate(20, 80), 3 * draw.limit, 0]]


def _unsynced_leak(draw: _Draw) -> Steps:
    write = ["write", draw.pace(6, 15), 4 * draw.limit, 0]
    return [["beside", [write]], ["rest", 4], ["grow", draw.pace(10, 30), _MOST_MIB]]


def _thrash_then_creep(draw: _Draw) -> Steps:
    return [
        ["grow", 50, draw.share(0.3, 0.5)],
        ["beside", [["reread", draw.pace(0.5, 2), draw.share(0.6, 0.9), 90]]],
        ["rest", 5],
        ["grow", draw.pace(30, 80), _MOST_MIB],
    ]


def _restarts(draw: _Draw) -> Steps:
    return [["supervise", 3, [["rest", 1], ["grow", draw.pace(3, 12), _MOST_MIB]]]]


def _start_up_then_leak(draw: _Draw) -> Steps:
    return [
        ["ease", draw.between(0.5, 2), draw.share(0.5, 0.8)],
        ["rest", draw.between(3, 8)],
        ["grow", draw.pace(20, 60), _MOST_MIB],
    ]


def _work_then_large_query(draw: _Draw) -> Steps:
    """Small queries come and go; the last one does not fit."""
    base = draw.share(0.3, 0.5)
    small: Steps = []
    for _ in range(6):
        small += [
            ["grow", draw.pace(1, 3), base + draw.share(0.1, 0.3)],
            ["rest", 0.5],
            ["free", base],
            ["rest", 1],
        ]
    return [["grow", 50, base], *small, ["grow", draw.pace(1, 6), _MOST_MIB]]


def _start_up(draw: _Draw) -> Steps:
    return [["rest", 1], ["grow", draw.pace(2, 15), draw.share(0.6, 0.97)], ["rest", 12]]


def _slowing_start_up(draw: _Draw) -> Steps:
    return [["rest", 1], ["ease", draw.between(0.4, 4), draw.share(0.75, 0.97)], ["rest", 10]]


def _start_up_in_phases(draw: _Draw) -> Steps:
    """Code, then data, then caches: each slower than the one before."""
    return [
        ["grow", draw.pace(2, 4), draw.share(0.2, 0.4)],
        ["rest", draw.between(0.3, 2)],
        ["grow", draw.pace(4, 10), draw.share(0.5, 0.7)],
        ["rest", draw.between(0.3, 2)],
        ["grow", draw.pace(10, 30), draw.share(0.75, 0.95)],
        ["rest", 12],
    ]


def _sawtooth(draw: _Draw) -> Steps:
    """Garbage is collected in time, at a size that varies."""
    low = draw.share(0.3, 0.5)
    teeth: Steps = []
    for _ in range(6):
        teeth += [["grow", draw.pace(3, 12), draw.share(0.75, 0.94)], ["free", low]]
    return [["grow", 50, low], *teeth]


def _peaks(draw: _Draw) -> Steps:
    base = draw.share(0.2, 0.5)
    peaks: Steps = []
    for _ in range(7):
        peaks += [
            ["grow", draw.pace(0.7, 3), draw.share(0.6, 0.95)],
            ["free", base],
            ["rest", draw.between(1, 3)],
        ]
    return peaks


def _cache_fills(draw: _Draw) -> Steps:
    return [["grow", 50, draw.share(0.2, 0.6)], ["read", draw.pace(2, 8), 2.5 * draw.limit], ["rest", 5]]


def _start_up_into_cache(draw: _Draw) -> Steps:
    return [
        ["read", draw.pace(2, 4), 1.3 * draw.limit],
        ["grow", draw.pace(2, 8), draw.share(0.6, 0.93)],
        ["rest", 12],
    ]


def _thrash(draw: _Draw) -> Steps:
    return [
        ["grow", 50, draw.share(0.3, 0.6)],
        ["reread", draw.pace(0.5, 2), draw.share(0.7, 1.2), 15],
    ]


def _synced_writes(draw: _Draw) -> Steps:
    return [["grow", 50, draw.share(0.2, 0.6)], ["write", draw.rate(20, 60), 3 * draw.limit, 8], ["rest", 5]]


def _pool_that_fits(draw: _Draw) -> Steps:
    number = round(draw.between(3, 8))
    room = draw.limit - 12 - 5 * number
    each = round(draw.share(0.7, 0.93) / draw.limit * room / number, 1)
    pace = round(draw.pace(5, 20) / number, 2)
    workers: Steps = [
        ["beside", [["rest", draw.between(0.1, 3)], ["grow", pace, each], ["rest", 15]]]
        for _ in range(number)
    ]
    return [*workers, ["join"]]


def _tmpfs_with_removals(draw: _Draw) -> Steps:
    rounds: Steps = []
    for _ in range(4):
        rounds += [["shmem", draw.pace(3, 10), draw.share(0.6, 0.88)], ["shmem", 1, draw.share(0.1, 0.3)]]
    return rounds


def _files(draw: _Draw) -> Steps:
    draw.limit = draw.between(48, 90)
    return [["grow", 40, draw.share(0.4, 0.7)], ["files", 2500, 40000], ["rest", 3]]


def _short_jobs(draw: _Draw) -> Steps:
    """A build: short processes one after the other, of different sizes."""
    jobs: Steps = []
    for _ in range(10):
        jobs += [["child", [["grow", draw.pace(0.6, 4), draw.share(0.2, 0.85)], ["rest", 0.4]]]]
    return jobs


def _recycled_in_time(draw: _Draw) -> Steps:
    """A worker that leaks and ends after a number of requests."""
    return [["repeat", 2, [["child", [["grow", draw.pace(8, 20), draw.share(0.75, 0.93)]]], ["rest", 2]]]]


def _queries_at_limit(draw: _Draw) -> Steps:
    """A database: cache fills the limit, queries take from it and give it back."""
    base = draw.share(0.2, 0.4)
    queries: Steps = []
    for _ in range(7):
        queries += [
            ["grow", draw.pace(0.8, 5), base + draw.share(0.1, 0.5)],
            ["rest", 0.5],
            ["free", base],
            ["rest", draw.between(1, 4)],
        ]
    return [
        ["beside", [["reread", draw.pace(1, 3), draw.share(0.8, 1.5), 60]]],
        ["grow", 50, base],
        ["rest", 2],
        *queries,
    ]


KINDS: Final[dict[str, tuple[Callable[[_Draw], Steps], int]]] = {
    "leak": (_leak, 3),
    "slow-leak": (_slow_leak, 2),
    "fast-leak": (_fast_leak, 3),
    "leak-behind-cache": (_leak_behind_cache, 2),
    "leak-beside-reads": (_leak_beside_reads, 1),
    "leak-in-bursts": (_leak_in_bursts, 2),
    "accelerating-leak": (_accelerating_leak, 2),
    "leak-below-sawtooth": (_leak_below_sawtooth, 1),
    "pool": (_pool, 2),
    "tmpfs": (_tmpfs, 2),
    "slab": (_slab, 1),
    "unsynced-writes": (_unsynced_writes, 1),
    "unsynced-leak": (_unsynced_leak, 1),
    "thrash-then-creep": (_thrash_then_creep, 1),
    "restarts": (_restarts, 2),
    "start-up-then-leak": (_start_up_then_leak, 2),
    "work-then-large-query": (_work_then_large_query, 1),
    "start-up": (_start_up, 4),
    "slowing-start-up": (_slowing_start_up, 4),
    "start-up-in-phases": (_start_up_in_phases, 3),
    "sawtooth": (_sawtooth, 3),
    "peaks": (_peaks, 2),
    "cache-fills": (_cache_fills, 1),
    "start-up-into-cache": (_start_up_into_cache, 2),
    "thrash": (_thrash, 1),
    "synced-writes": (_synced_writes, 1),
    "pool-that-fits": (_pool_that_fits, 2),
    "tmpfs-with-removals": (_tmpfs_with_removals, 1),
    "files": (_files, 1),
    "short-jobs": (_short_jobs, 1),
    "recycled-in-time": (_recycled_in_time, 2),
    "queries-at-limit": (_queries_at_limit, 2),
}
"""The behaviours of a process, and the number of plans of each kind."""

_SLOWED: Final = ("leak", "start-up")
"""The last plan of these kinds is slowed."""


def plans(seed: int, *, fastest: float = 1000, is_half: bool = False) -> Iterator[Plan]:
    """Yield the plans of a seed, in the order of their names. Each fourth one is loaded.

    `fastest`: no drawn rate is higher, in MiB a second. `is_half`: with half as many plans of each kind.
    """
    place = seed
    for kind, (draw_steps, most) in KINDS.items():
        number = -(-most // 2) if is_half else most
        for turn in range(number):
            draw = _Draw(f"{seed} {kind} {turn}", fastest)
            steps = draw_steps(draw)
            place += 1
            yield Plan(
                name=f"{kind}-{turn + 1}",
                seed=seed * 1000 + place,
                limit_mib=round(draw.limit),
                steps=steps,
                is_loaded=place % 4 == 0,
                is_slowed=kind in _SLOWED and turn == number - 1,
            )
