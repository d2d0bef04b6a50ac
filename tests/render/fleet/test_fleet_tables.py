"""The tables of a fleet's answer: what their cells say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tracer.fleet.reduction.fleet_answer import Fleet
from tracer.fleet.sizing.replays import Replayed
from tracer.render.fleet import fleet_facts
from tracer.render.fleet.fleet_tables import sections


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(0.0, "0 %"), (6.1e-24, "< 0.01 %"), (0.0001, "0.01 %"), (0.00321, "0.32 %"), (None, "not known")],
)
def test_rate_of_kills_has_digits_that_mean_something(fleet: Fleet, rate: float | None, shown: str) -> None:
    first = fleet.workloads[0]
    one = replace(first, suggestion=replace(first.suggestion, expected_kills_per_run=rate))
    (table,) = (
        table
        for table in sections(replace(fleet, workloads=[one]), 500)
        if table.heading.startswith("Suggested limits")
    )
    titles = [title for title, _ in table.columns]
    assert table.rows[0][titles.index("expected")] == shown


def test_runs_are_shown_at_the_present_the_suggested_and_the_asked_limit(fleet: Fleet) -> None:
    mib = 1 << 20
    one = fleet.workloads[0]
    replays = tuple(
        Replayed(limit * mib, killed, 311 - killed - 9, 9, 12)
        for limit, killed in ((256, 20), (310, 2), (400, 0))
    )
    (table,) = (
        table
        for table in sections(replace(fleet, workloads=[replace(one, replays=replays)]), 500)
        if table.heading.startswith("The runs")
    )
    assert [row[:2] for row in table.rows] == [
        ("256 MiB (present)", "20"),
        ("310 MiB (suggested)", "2"),
        ("400 MiB", "0"),
    ]
    assert table.rows[1][2:] == ("300", "12", "9", "shop/web/app")
    facts = dict(fleet_facts.facts(replace(fleet, workloads=[replace(one, replays=replays)])))
    said = "shop/web/app has 256 MiB (suggested 310 MiB: 2 of 311 runs would have died, 9 not known)"
    assert facts["too low"] == said
