"""The tables of a fleet's answer: what their cells say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tracer.fleet.reduction.fleet_answer import Fleet
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
