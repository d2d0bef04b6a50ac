"""Moments as users type them."""

from __future__ import annotations

import re
import time
from typing import Final

import click

from tracer.cli.duration import duration_s

_AGO: Final = re.compile(r"\s*[\d.]+\s*[a-z]+\s*", re.IGNORECASE | re.ASCII)
_LATEST_NS: Final = (1 << 63) - 1


def moment_ns(context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Return the moment of `7d` or `12h` (so long ago), or of a date or time in ISO 8601 (UTC unless it has a
    zone), in ns since the epoch.

    It is the `callback` of an option. All options of a command have the same "now". Raises
    click.BadParameter.
    """
    if text is None:
        return None
    now_ns: int = context.meta.setdefault(__name__, time.time_ns())
    if _AGO.fullmatch(text):
        return max(now_ns - round(duration_s(text) * 1_000_000_000), 0)
    from tracer.fleet.summary.time_window import time_ns

    try:
        found = time_ns(text.strip()) if "-" in text else -1  # without `-`, any number would be a date
    except (ValueError, OverflowError):
        found = -1
    if not 0 <= found <= _LATEST_NS:
        raise click.BadParameter(
            f"{text!r} is not a time: give one like 7d or 12h (ago), 2026-11-20 or 2026-11-20T18:30Z (UTC)"
        )
    return found
