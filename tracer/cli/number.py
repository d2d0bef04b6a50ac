"""Numbers with a fraction, and percentages, as users type them."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import click

_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%?", re.ASCII)
_MOST: Final = 3_200_000_000.0
"""About a hundred years in seconds: clocks of the kernel hold at most 292 years in ns."""


class Number(click.FloatRange):
    """The `type` of an option: a finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Raises click.BadParameter, also for `nan`, which no range contains."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number) or number > _MOST:
            self.fail(f"{value} is not a number that can be used: give a smaller one, such as 60", param, ctx)
        return number


def percent(text: str) -> float:
    """Return the number of `2%` or `0.5`: more than 0, at most 100.

    It is the `type` of an option. Raises click.BadParameter.
    """
    match = _PERCENT.fullmatch(text.strip())
    number = float(match[1]) if match else 0.0
    if not 0 < number <= 100:
        raise click.BadParameter(f"{text!r} is not a share: give a percentage up to 100, like 2% or 0.5%")
    return number
