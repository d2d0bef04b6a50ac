"""Percentages as users type them."""

from __future__ import annotations

import re
from typing import Final

import click

_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%?", re.ASCII)


def percent(text: str) -> float:
    """Return the number of `2%` or `0.5`: more than 0, at most 100.

    It is the `type` of an option. Raises click.BadParameter.
    """
    match = _PERCENT.fullmatch(text.strip())
    number = float(match[1]) if match else 0.0
    if not 0 < number <= 100:
        raise click.BadParameter(f"{text!r} is not a share: give a percentage up to 100, like 2% or 0.5%")
    return number
