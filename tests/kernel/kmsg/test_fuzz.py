"""A few hundred damaged logs; `make fuzz` reads hundreds of thousands."""

from __future__ import annotations

import random

import pytest
from kernel.kmsg import fuzz
from support.calls import counted_calls


@pytest.mark.parametrize("seed", range(8))
def test_damaged_logs_are_read_within_bounds(seed: int) -> None:
    found = sum(
        fuzz.check(fuzz.mutated(random.Random(f"{seed}-{number}")), as_json=True, as_text=number % 20 == 0)
        for number in range(40)
    )
    assert found > 20


def test_misleading_lines_are_read_in_time() -> None:
    for _, log in list(fuzz.bombs())[::40]:
        fuzz.check(log, as_json=False, as_text=False)


def test_work_grows_linearly_with_log() -> None:
    """Calls are counted, because the load of the machine changes times; the work of a pattern is within one
    call. Work that is done once, at the beginning of a log or of this process, is in none of the later parts.
    """
    one, two, four = (
        counted_calls(lambda times=times: fuzz.read(b"".join(fuzz.CORPUS) * times))  # type: ignore[misc]
        for times in (1, 2, 4)
    )
    assert four - two < 2.2 * (two - one)
