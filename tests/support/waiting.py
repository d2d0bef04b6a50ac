"""Waiting for a condition that another process makes true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from support.slowdown import SLOWDOWN

_WITHIN_S: Final = 60.0 * SLOWDOWN
_POLL_S: Final = 0.01


def wait_for(
    condition: Callable[[], object],
    *,
    goes_on: Callable[[], bool] = lambda: True,
    told: Callable[[], object] = lambda: "",
) -> None:
    """Wait until a condition is true. Raises AssertionError with what `told` returns if it stays false for a
    minute, or once `goes_on` returns false."""
    deadline_s = time.monotonic() + _WITHIN_S
    while not condition():
        assert goes_on(), f"it ended before: {told()}"
        assert time.monotonic() < deadline_s, f"it is late: {told()}"
        time.sleep(_POLL_S)
