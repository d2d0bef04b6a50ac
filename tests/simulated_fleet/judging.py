"""Rules judged: limits from the first half of the days, replayed on the second half.

A rule that gives nothing leaves the limit as it is, or sets the trial limit that it names. Page cache is no
need, so slack is what was reserved less what could not be reclaimed, summed over time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import pandas as pd
from simulated_fleet.demand import Workload, fleet
from simulated_fleet.replay import BEGIN, Days, days_of

from tracer.fleet.sizing.other_recommenders import krr_limit_bytes, vpa_limit_bytes
from tracer.fleet.sizing.suggestion import suggest

TRAINING_DAYS: Final = 7
DAYS: Final = 14
HOSTS: Final = (3, 6, 12, 24)
TUNING_SEEDS: Final = (*range(1000, 1021), *range(101, 201))
"""The numbers of our rule were chosen on these fleets or compared on them; those of a release on
the latter."""
REPORTED_SEEDS: Final = range(1, 21)
"""What is reported is from these fleets, which nothing was chosen on."""

_GIB_HOUR: Final = 60 * (1 << 30)

OURS: Final = "memcg-tracer"
AS_THEY_WERE: Final = "limits as they were"

Rule = Callable[[Workload, Days], float | None]


@dataclass(frozen=True)
class Score:
    """What a rule does to a fleet, or to one kind of its workloads, in the days after the training."""

    kills: int
    slack_gib_hours: float
    short_hours: float
    """Hours of pods in which page cache that they read again did not fit."""
    unanswered: int
    """Workloads for which the rule gave nothing."""

    def __add__(self, other: Score) -> Score:
        return Score(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def ours(_: Workload, seen: Days) -> float | None:
    """Return our suggestion, or the limit to try."""
    found = suggest(pd.DataFrame(seen.lives), pd.DataFrame(seen.kills))
    return found.suggested_limit_bytes or found.trial_limit_bytes


def ours_on_samples(_: Workload, seen: Days) -> float | None:
    """Return our suggestion from what the others have: the working set, looked at once a minute."""
    lives = pd.DataFrame(seen.lives)
    blind = {
        "peak_unreclaimable_bytes": lives["peak_sampled_bytes"],
        "refaulted_bytes": None,
        "comfortable_bytes": None,
    }
    kills = pd.DataFrame(seen.kills, columns=["boot_id", "cgroup", "time", "cause", "limit_bytes"])
    found = suggest(lives.assign(**blind), kills.assign(cause="unknown"))
    return found.suggested_limit_bytes or found.trial_limit_bytes


def _rows(seen: Days, *, is_exact: bool) -> tuple[pd.DataFrame, pd.DataFrame, pd.Timestamp]:
    kills = pd.DataFrame(seen.kills, columns=["pod", "time", "limit_bytes"])
    samples = pd.DataFrame(seen.exact if is_exact else seen.sampled)
    return samples, kills, BEGIN + pd.Timedelta(days=TRAINING_DAYS)


def _wider(limit_bytes: int | None, factor: float) -> float | None:
    return None if limit_bytes is None else limit_bytes * factor


RULES: Final[Mapping[str, Rule]] = {
    OURS: ours,
    "VPA": lambda _, seen: vpa_limit_bytes(*_rows(seen, is_exact=False)),
    "KRR": lambda _, seen: krr_limit_bytes(*_rows(seen, is_exact=False)),
    "KRR with kills": lambda _, seen: krr_limit_bytes(*_rows(seen, is_exact=False), with_kills=True),
    "memcg-tracer's rule on samples": ours_on_samples,
    "VPA on exact peaks": lambda _, seen: vpa_limit_bytes(*_rows(seen, is_exact=True)),
    "VPA on exact peaks, 10 % more": lambda _, seen: _wider(
        vpa_limit_bytes(*_rows(seen, is_exact=True)), 1.1
    ),
    "KRR on exact peaks": lambda _, seen: krr_limit_bytes(*_rows(seen, is_exact=True)),
    "KRR with kills on exact peaks": lambda _, seen: krr_limit_bytes(
        *_rows(seen, is_exact=True), with_kills=True
    ),
    AS_THEY_WERE: lambda workload, _: workload.limit_bytes,
}


def scores(seed: int, rules: Mapping[str, Rule] = RULES) -> dict[tuple[str, str], Score]:
    """Return (rule, kind of workload) -> score on the fleet of a seed, small or large."""
    found: dict[tuple[str, str], Score] = {}
    for workload in fleet(seed, days=DAYS, hosts=HOSTS[seed % len(HOSTS)]):
        seen = days_of(workload, workload.limit_bytes, 0, TRAINING_DAYS)
        for name, rule in rules.items():
            limit = rule(workload, seen)
            later = days_of(workload, limit or workload.limit_bytes, TRAINING_DAYS, DAYS, with_rows=False)
            score = Score(
                later.kills_by_limit,
                (later.reserved_byte_minutes - later.needed_byte_minutes) / _GIB_HOUR,
                later.short_minutes / 60,
                int(limit is None),
            )
            key = (name, workload.kind)
            found[key] = found[key] + score if key in found else score
    return found


@dataclass(frozen=True)
class Stated:
    """The rates that come with our suggestions, and the runs of the days after the training, in which the
    suggestions hold. Runaways count."""

    workloads: int
    runs: int
    expected: float
    """Of these runs those that were expected to need more."""
    above: int
    """Those that did."""
    refuted: int
    """Workloads of which a larger share of the runs needed more than `highest_kills_per_run`."""

    def __add__(self, other: Stated) -> Stated:
        return Stated(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def stated(seed: int) -> dict[str, Stated]:
    """Return kind of workload -> the rates stated on the fleet of a seed, where a limit was suggested."""
    found: dict[str, Stated] = {}
    for workload in fleet(seed, days=DAYS, hosts=HOSTS[seed % len(HOSTS)]):
        seen = days_of(workload, workload.limit_bytes, 0, TRAINING_DAYS)
        said = suggest(pd.DataFrame(seen.lives), pd.DataFrame(seen.kills))
        if said.suggested_limit_bytes is None:
            continue
        later = days_of(workload, said.suggested_limit_bytes, TRAINING_DAYS, DAYS, with_rows=False)
        above, expected = later.runs_above_limit, later.runs * (said.expected_kills_per_run or 0.0)
        is_refuted = above > later.runs * (said.highest_kills_per_run or 0.0)
        one = Stated(1, later.runs, expected, above, int(is_refuted))
        found[workload.kind] = found[workload.kind] + one if workload.kind in found else one
    return found


def add(found: dict[tuple[str, str], Score], more: Mapping[tuple[str, str], Score]) -> None:
    """Add scores to those of the same rule and kind."""
    for key, score in more.items():
        found[key] = found[key] + score if key in found else score


def of_rules(found: Mapping[tuple[str, str], Score]) -> dict[str, Score]:
    """Return rule -> the sum of its scores over the kinds."""
    sums: dict[str, Score] = {}
    for (rule, _), score in found.items():
        sums[rule] = sums[rule] + score if rule in sums else score
    return sums
