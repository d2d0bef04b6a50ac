"""Values of options as users type them: sizes, numbers, durations, moments, and places of traces."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click

from tracer.errors import TracerError, UsageError

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


def is_size(text: str) -> bool:
    """Return whether `size_bytes` can read a text."""
    return _SIZE.fullmatch(text.strip()) is not None


def some_bytes(text: str) -> int:
    """Return the bytes as `size_bytes` does. Raises click.BadParameter, also for 0."""
    size = size_bytes(text)
    if not size:
        raise click.BadParameter(f"{text!r} is no space at all: give more, such as 1G")
    return size


def _sample_bytes(text: str) -> int | None:
    """Return the growth for each sample of code; None: `off`. Raises click.BadParameter."""
    if text.strip() == "off":
        return None
    size = size_bytes(text)
    if not _LEAST_SAMPLE_BYTES <= size <= _MOST_SAMPLE_BYTES:
        raise click.BadParameter("give a size from 128K to 1G, or off")
    return size


_LEAST_SAMPLE_BYTES: Final = 128 << 10
_MOST_SAMPLE_BYTES: Final = 1 << 30

stacks_option: Final = click.option(
    "--stacks", "stacks_bytes", metavar="SIZE|off", type=_sample_bytes, default="1M", show_default=True,
    help="Sample the code that makes a process grow by SIZE (128K to 1G), while a traced cgroup grows beyond "
    "what it had before.",
)  # fmt: skip

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


def frame_s(text: str) -> float:
    """Return the seconds of a time as `duration_s` does: from 0.1 s to an hour. Raises click.BadParameter."""
    seconds = duration_s(text)
    if not _SHORTEST_FRAME_S <= seconds <= _LONGEST_FRAME_S:
        raise click.BadParameter("give a time from 0.1s to 1h")
    return seconds


_SHORTEST_FRAME_S: Final = 0.1
_LONGEST_FRAME_S: Final = 3600.0

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


class PathOrUrl(click.Path):
    """The type of an option: the value is a Path, or a str for a URL."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)  # the reader's own error says more

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a URL unchanged, and any other value as a Path."""
        from tracer.urls import is_url

        return value if isinstance(value, str) and is_url(value) else super().convert(value, param, ctx)


def check_in_child(check: Callable[[], object]) -> None:
    """Run a check in a child, with which its imports end. Raises the check's UsageError or TracerError."""
    from tracer.kernel.process.children import call_in_child

    def answer() -> list[Any]:
        try:
            check()
        except TracerError as error:
            return [error.exit_code, str(error)]
        return [0, ""]

    status, message = call_in_child(answer)
    if status:
        raise (UsageError if status == UsageError.exit_code else TracerError)(message)
