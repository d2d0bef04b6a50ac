"""The lives of a workload at another limit, from rows of known ends."""

from __future__ import annotations

import pandas as pd
import pytest

from tracer.fleet.sizing.replays import Replayed, replayed

LIVES = pd.DataFrame(
    {
        "killed_below_bytes": [100, 300, 50, None, 200],
        "survives_from_bytes": [150, 400, None, None, 200],
        "reads_nothing_from_bytes": [500, 400, None, None, 250],
    }
)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (40, Replayed(40, killed=4, survived=0, unknown=1, undisturbed=0)),
        (100, Replayed(100, killed=2, survived=0, unknown=3, undisturbed=0)),
        (200, Replayed(200, killed=1, survived=2, unknown=2, undisturbed=0)),
        (400, Replayed(400, killed=0, survived=3, unknown=2, undisturbed=2)),
        (500, Replayed(500, killed=0, survived=3, unknown=2, undisturbed=3)),
    ],
)
def test_lives_are_counted_by_their_ends(limit: int, expected: Replayed) -> None:
    assert replayed(LIVES, limit) == expected
    assert replayed(LIVES.astype("Int64"), limit) == expected
    assert expected.lives == 5


def test_lives_of_an_older_summary_are_unknown() -> None:
    assert replayed(pd.DataFrame({"cgroup": ["/a", "/b"]}), 100) == Replayed(100, 0, 0, 2, 0)
