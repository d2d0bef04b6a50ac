"""The order in which a pass takes the page frames."""

from __future__ import annotations

import numpy as np
import pytest

from tracer.capture.contents.pass_over_pages import spread

PART = 1 << 14
RANGES = [range(1, 160), range(256, 3 * PART + 5), range(5 * PART, 400 * PART)]


def test_each_frame_comes_once() -> None:
    parts = sorted(spread(RANGES), key=lambda part: part.start)
    assert all(0 < len(part) <= PART and part.start // PART == (part.stop - 1) // PART for part in parts)
    assert [frame for part in parts[:6] for frame in part] == [
        *RANGES[0], *RANGES[1], *range(5 * PART, 6 * PART)
    ]  # fmt: skip
    assert sum(map(len, parts)) == sum(map(len, RANGES))


@pytest.mark.parametrize("turns", [-2.0, -1.0, -0.5, -0.1, 0.1, 0.5, 1.0, 2.0])
def test_memory_that_moves_through_the_frames_is_met_as_often_as_it_exists(turns: float) -> None:
    """A file has a tenth of memory, and moves through all of it `turns` times during the pass. In the order
    of frames, a pass meets nothing of it, or several times as much."""
    starts = np.array([part.start // PART for part in spread([range(300 * PART)])])
    place, moment = starts / len(starts), np.arange(len(starts)) / len(starts)
    is_of_file = (place - turns * moment) % 1 < 0.1
    assert is_of_file.mean() == pytest.approx(0.1, rel=0.25)
