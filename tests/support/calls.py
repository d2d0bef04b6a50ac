"""The number of calls that some work takes, which unlike its time depends on no other process."""

from __future__ import annotations

import sys
from collections.abc import Callable


def counted_calls(work: Callable[[], object]) -> int:
    """Do the work; return the number of calls and returns of functions, of C too, in this thread."""
    count = 0

    def counted(_frame: object, _event: str, _argument: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count
