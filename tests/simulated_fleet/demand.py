"""What the workloads of a fleet need, minute by minute: known, and the same whatever limit they get.

Everything follows from the seed. Amounts are in bytes, times in minutes from the begin of the simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIB: Final = 1 << 20
DAY: Final = 24 * 60


@dataclass(frozen=True)
class Stretch:
    """What one container asks for between two starts that are planned: a deployment, or a job's begin."""

    begin: int
    need: Floats
    """At each minute, what reclaim cannot free, without spikes; it does not depend on when the life began."""
    spike: Floats
    """At each minute, how much more was needed for some seconds of it."""
    is_sampled: npt.NDArray[np.bool_]
    """At each minute, whether the spike lasts at the moment of a sampler's look."""
    cache: Floats
    """At each minute, the page cache that there would be without a limit."""
    leak: float = 0.0
    """Growth of the need in bytes a minute of the life."""
    runaway: int | None = None
    """The minute of the stretch in which a bug begins to allocate without end; a restart ends it."""
    evicted_at: int | None = None
    """The minute of the stretch in which the whole machine is out of memory, and kills this life."""
    is_retried: bool = False
    """Whether a kill has it begin again (a job), rather than go on (a service)."""


@dataclass(frozen=True)
class Pod:
    """A replica of a workload on a host."""

    name: str
    host: str
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True)
class Workload:
    """A workload: its pods, the limit that someone once guessed, and how its page cache behaves."""

    name: str
    kind: str
    limit_bytes: int
    active: float
    """The part of its page cache that the kernel keeps on the active list, so in the working set."""
    hot: float
    """The part of the active cache that it reads again if it is evicted."""
    pods: tuple[Pod, ...]


@dataclass
class Draw:
    """The random numbers of a workload, and what its pods have in common."""

    chance: np.random.Generator
    days: int
    size: float = 0.0
    noise: float = 0.0
    spikes_a_day: float = 0.0
    spike_size: float = 0.0
    cache_size: float = 0.0
    restart_days: float = 3.0
    more: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chance = self.chance
        self.size = float(np.exp(chance.uniform(np.log(96 * MIB), np.log(6144 * MIB))))
        self.noise = chance.uniform(0.005, 0.03)
        self.spikes_a_day = chance.choice([0.3, 3.0, 30.0])
        self.spike_size = chance.uniform(0.03, 0.25)
        self.cache_size = self.size * chance.uniform(0.1, 1.5)
        self.restart_days = chance.uniform(1.0, 5.0)

    def wandering(self, minutes: int) -> Floats:
        """Return noise around 1 that is alike from minute to minute."""
        knots = self.chance.normal(0, self.noise, minutes // 20 + 2)
        return np.asarray(1 + np.interp(np.arange(minutes) / 20, np.arange(len(knots)), knots))

    def stretch(self, begin: int, need: Floats, **options: object) -> Stretch:
        """Return a stretch with spikes and cache. Spikes last 1 to 20 s, and their sizes are log-normal."""
        chance, minutes = self.chance, len(need)
        spike = np.zeros(minutes)
        is_sampled = np.zeros(minutes, dtype=np.bool_)
        at = chance.integers(0, minutes, chance.poisson(self.spikes_a_day * minutes / DAY))
        heights = self.size * self.spike_size * chance.lognormal(0, 0.5, len(at))
        seen = chance.random(len(at)) < chance.uniform(1, 20, len(at)) / 60
        for minute, height, is_seen in zip(at, heights, seen, strict=True):
            if height > spike[minute]:
                spike[minute], is_sampled[minute] = height, is_seen
        cache = self.cache_size * (1 - np.exp(-np.arange(minutes) / 60))
        return Stretch(begin, need, spike, is_sampled, cache, **options)  # type: ignore[arg-type]


def service(draw: Draw) -> list[Stretch]:
    """Return a service whose need follows the day, with spikes, restarted by deployments."""
    minutes = draw.days * DAY
    swing = draw.more.setdefault("swing", draw.chance.uniform(0.02, 0.3))
    wave = np.sin(np.arange(minutes) * 2 * np.pi / DAY + draw.more.setdefault("phase", 0.0))
    need = draw.size * (1 + swing * wave) * draw.wandering(minutes)
    return _between_restarts(draw, need)


def heap(draw: Draw) -> list[Stretch]:
    """Return a service with a heap that fills up to its bound: little noise, few spikes."""
    minutes = draw.days * DAY
    draw.spike_size, draw.spikes_a_day, draw.noise = 0.02, 0.3, 0.004
    need = draw.size * draw.wandering(minutes)
    return _between_restarts(draw, need)


def leak(draw: Draw) -> list[Stretch]:
    """Return a service that grows to between 1.3 and 3 times its size until it is deployed again."""
    minutes = draw.days * DAY
    grows = draw.more.setdefault("grows", draw.chance.uniform(0.3, 2.0))
    rate = draw.size * grows / (draw.restart_days * DAY)
    return _between_restarts(draw, draw.size * draw.wandering(minutes), leak=rate)


def growing(draw: Draw) -> list[Stretch]:
    """Return a service whose data grow by 0.3 to 2 % a day, whatever is restarted."""
    minutes = draw.days * DAY
    rate = draw.more.setdefault("rate", draw.chance.uniform(0.003, 0.02))
    need = draw.size * (1 + rate) ** (np.arange(minutes) / DAY) * draw.wandering(minutes)
    return _between_restarts(draw, need)


def released(draw: Draw) -> list[Stretch]:
    """Return a service with a release in the second half of the days that needs up to 40 % more or less."""
    minutes = draw.days * DAY
    at = draw.more.setdefault("at", float(draw.chance.integers(minutes // 2, minutes)))
    change = draw.more.setdefault("change", draw.chance.uniform(0.6, 1.4))
    need = draw.size * draw.wandering(minutes) * np.where(np.arange(minutes) < at, 1, change)
    return _between_restarts(draw, need)


def runaway(draw: Draw) -> list[Stretch]:
    """Return a service that once in about 30 days begins to allocate without end, for which no limit is
    enough."""
    stretches = service(draw)
    found = []
    for stretch in stretches:
        is_hit = draw.chance.random() < len(stretch.need) / DAY / 30
        at = int(draw.chance.integers(0, len(stretch.need))) if is_hit else None
        found.append(Stretch(**{**vars(stretch), "runaway": at}))
    return found


def job(draw: Draw) -> list[Stretch]:
    """Return a batch job, 1 to 4 times a day for 20 to 120 minutes, whose need follows its input's size."""
    spread = draw.more.setdefault("spread", draw.chance.uniform(0.05, 0.35))
    a_day = int(draw.more.setdefault("a_day", float(draw.chance.integers(1, 5))))
    lasts = int(draw.more.setdefault("lasts", float(draw.chance.integers(20, 121))))
    found = []
    for number in range(draw.days * a_day):
        peak = draw.size * draw.chance.lognormal(0, spread)
        ramp = np.minimum(1, 0.2 + np.arange(lasts) / (0.7 * lasts))
        need = peak * ramp * draw.wandering(lasts)
        begin = int(number * DAY / a_day + draw.chance.integers(0, 60))
        found.append(draw.stretch(begin, need, is_retried=True))
    return found


def reader(draw: Draw) -> list[Stretch]:
    """Return a noisy neighbour: page cache of several times its need, much of it on the active list."""
    draw.cache_size = draw.size * draw.more.setdefault("times", draw.chance.uniform(3, 10))
    return service(draw)


KINDS: Final[Mapping[str, Callable[[Draw], list[Stretch]]]] = {
    kind.__name__: kind for kind in (service, heap, leak, growing, released, runaway, job, reader)
}


def fleet(seed: int, *, workloads: int = 24, hosts: int = 12, days: int = 14) -> list[Workload]:
    """Return the workloads of a fleet, the kinds in turn, each with 1 to `hosts` pods."""
    found = []
    for number in range(workloads):
        chance = np.random.default_rng([seed, number])
        kind = list(KINDS)[number % len(KINDS)]
        common = Draw(chance, days)
        pods = []
        for replica in range(int(chance.integers(1, hosts + 1))):
            stretches = KINDS[kind](common)
            host = f"node-{int(chance.integers(hosts)):03}"
            pods.append(
                Pod(f"{kind}-{number}-{replica}", host, tuple(_pressed(chance, each) for each in stretches))
            )
        guess = common.size * chance.choice([1.1, 1.3, 1.6, 2.0, 3.0, 4.0])
        active, hot = chance.uniform(0.1, 0.9), chance.uniform(0.0, 0.3)
        found.append(Workload(f"{kind}-{number}", kind, int(guess), active, hot, tuple(pods)))
    return found


def _between_restarts(draw: Draw, need: Floats, **options: object) -> list[Stretch]:
    found, begin = [], 0
    while begin < len(need):
        end = begin + max(60, int(draw.chance.normal(1, 0.2) * draw.restart_days * DAY))
        found.append(draw.stretch(begin, need[begin:end], **options))
        begin = end
    return found


def _pressed(chance: np.random.Generator, stretch: Stretch) -> Stretch:
    """Return the stretch with a kill of the whole machine once in about 60 days."""
    if chance.random() >= len(stretch.need) / DAY / 60:
        return stretch
    return Stretch(**{**vars(stretch), "evicted_at": int(chance.integers(0, len(stretch.need)))})
