"""The scores of rules as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

from simulated_fleet.judging import AS_THEY_WERE, OURS, RULES, Score, Stated, add, of_rules

Scores = Mapping[tuple[str, str], Score]


def tables(found: Mapping[int, Scores]) -> str:
    """Return two tables, of all workloads and by their kind, for seed -> (rule, kind) -> score."""
    total: dict[tuple[str, str], Score] = {}
    for scores in found.values():
        add(total, scores)
    by_seed = [of_rules(scores) for scores in found.values()]
    return "\n\n".join([_of_all(total, by_seed), _of_kinds(total)])


def _of_all(total: Scores, by_seed: list[dict[str, Score]]) -> str:
    rows = []
    for rule, score in of_rules(total).items():
        kills = [scores[rule].kills for scores in by_seed]
        slack = [scores[rule].slack_gib_hours for scores in by_seed]
        ours = [scores[OURS] for scores in by_seed]
        fewer = sum(own.kills < other for own, other in zip(ours, kills, strict=True))
        less = sum(own.slack_gib_hours < other for own, other in zip(ours, slack, strict=True))
        both = sum(
            own.kills < k and own.slack_gib_hours < s for own, k, s in zip(ours, kills, slack, strict=True)
        )
        rows.append(
            [
                rule,
                f"{score.kills:,}",
                _spread(kills),
                f"{score.slack_gib_hours:,.0f}",
                _spread(slack),
                f"{score.short_hours:,.0f}",
                "" if rule == OURS else f"{fewer}, {less}, {both} of {len(by_seed)}",
            ]
        )
    head = [
        "rule",
        "kills",
        "of a fleet",
        "slack, GiB·h",
        "of a fleet",
        "cache short, h",
        "we have fewer, less, both",
    ]
    return _markdown(head, rows)


def _of_kinds(total: Scores) -> str:
    """Return kills and slack by kind of workload, for the rules on the data that each of them has."""
    rules = [OURS, *(rule for rule in RULES if rule in ("VPA", "KRR")), AS_THEY_WERE]
    kinds = sorted({kind for _, kind in total})
    rows = [
        [kind, *(f"{total[rule, kind].kills:,}; {total[rule, kind].slack_gib_hours:,.0f}" for rule in rules)]
        for kind in kinds
    ]
    return _markdown(["kills; slack in GiB·h", *rules], rows)


def table_of_rates(found: Iterable[Mapping[str, Stated]]) -> str:
    """Return a table of the stated rates and of what came, for the kind -> rates of each fleet."""
    total: dict[str, Stated] = {}
    for fleet in found:
        for kind, one in fleet.items():
            total[kind] = total[kind] + one if kind in total else one
    kinds = sorted(total.items())
    rows = [
        [
            kind,
            str(one.workloads),
            f"{one.runs:,}",
            f"{one.expected:,.1f}",
            f"{one.above:,}",
            str(one.refuted),
        ]
        for kind, one in [*kinds, ("all", sum((one for _, one in kinds), Stated(0, 0, 0.0, 0, 0)))]
    ]
    return _markdown(["kind", "workloads", "runs", "expected above", "above", "refuted"], rows)


def _spread(values: Iterable[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[0]:,.0f} … {median(ordered):,.0f} … {ordered[-1]:,.0f}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
