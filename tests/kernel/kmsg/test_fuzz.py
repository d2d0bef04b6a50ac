"""A few hundred of the logs that `make fuzz` makes by the hundred thousand."""

from __future__ import annotations

import random

import pytest
from kernel.kmsg import fuzz


@pytest.mark.parametrize("seed", range(8))
def test_damaged_logs_are_read(seed: int) -> None:
    found = sum(
        fuzz.check(fuzz.mutated(random.Random(f"{seed}-{number}")), said=True, shown=number % 20 == 0)
        for number in range(40)
    )
    assert found > 20


def test_lines_that_are_made_to_mislead_are_read() -> None:
    for _, log in list(fuzz.bombs())[::40]:
        fuzz.check(log, said=False, shown=False)


def test_work_grows_as_the_log_does() -> None:
    """By counted calls, which no other load changes; what a pattern does is inside of one."""
    few, many = (fuzz.counted_calls(b"".join(fuzz.CORPUS) * times) for times in (1, 4))
    assert many < 4.2 * few
