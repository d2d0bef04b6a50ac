"""Sizes as users type them."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_LARGEST: Final = 1 << 62


class _Size(click.ParamType):
    """`100M`, `1.5GiB`, `4096`: a number of bytes, with units in powers of 1024 as memory is counted."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is not a size: give a number of bytes, or one like 100M or 1.5G", param, ctx)
        size = int(float(match[1]) * _UNITS[match[2].lower()]) if "." in match[1] else int(match[1]) * _UNITS[match[2].lower()]
        if size > _LARGEST:
            self.fail(f"{value!r} is more than any machine has", param, ctx)
        return size


SIZE: Final = _Size()
