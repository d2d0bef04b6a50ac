"""Sizes as users type them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

import click

_SIZE: Final = re.compile(r"(\d{1,19}(?:\.\d{1,19})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_LARGEST_BYTES: Final = 1 << 62


def size_bytes(text: str) -> int:
    """Return the bytes of `100M`, `1.5GiB` or `4096`; units are powers of 1024.

    It is the `type` of an option. Raises click.BadParameter.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a size: give a number of bytes, or one like 100M or 1.5G")
    number, unit = match.groups()
    size = int(Decimal(number) * _UNITS[unit.lower()])
    if size > _LARGEST_BYTES:
        raise click.BadParameter(f"{text!r} is more than any machine has")
    return size


def some_bytes(text: str) -> int:
    """Return the bytes as `size_bytes` does. Raises click.BadParameter, also for 0."""
    size = size_bytes(text)
    if not size:
        raise click.BadParameter(f"{text!r} is no space at all: give more, such as 1G")
    return size
