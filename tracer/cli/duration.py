"""Durations as users type them."""

from __future__ import annotations

import re
from typing import Final

import click

_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|m|min|h|d)?", re.IGNORECASE | re.ASCII)
_LONGEST_S: Final = 36_525 * 86_400.0
_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def duration_s(text: str) -> float:
    """Return the seconds of `90`, `90s`, `5m` or `1.5h`: more than 0, at most a hundred years.

    It is the `type` of an option. Raises click.BadParameter.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[(match[2] or "s").lower()] if match else 0.0
    if not seconds > 0:
        raise click.BadParameter(f"{text!r} is not a time: give one like 90s, 5m or 1h")
    if seconds > _LONGEST_S:  # clocks of the kernel hold at most 292 years in ns
        raise click.BadParameter(f"{text!r} is more than a hundred years")
    return seconds
