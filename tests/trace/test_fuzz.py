"""A few damaged traces; `make fuzz` reads thousands."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import pytest

FUZZ = runpy.run_path(str(Path(__file__).with_name("fuzz.py")))  # `trace` is a module of Python's library


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2))
def test_verbs_of_damaged_traces_read_or_refuse_in_one_line(seed: int) -> None:
    outcomes: Counter[str] = sum(FUZZ["mutations"](seed, range(1, 10)), start=Counter())
    assert outcomes["read"] > 9
    assert outcomes["refused"] > 9
