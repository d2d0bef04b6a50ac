"""Seconds of a difference of times, to the nanosecond."""

from __future__ import annotations

import pandas as pd


def exact_seconds(difference: pd.Timedelta) -> float:
    """Return the seconds as an index gives them. One `Timedelta` alone rounds to µs before pandas 3.1."""
    return float(pd.TimedeltaIndex([difference]).total_seconds()[0])
