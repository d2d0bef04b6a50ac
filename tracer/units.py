"""Numbers as text for readers: IEC sizes, durations, counts. None becomes "not known", never 0."""

from __future__ import annotations

import math
from typing import Final

UNKNOWN: Final = "not known"

_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def scale_for(largest_bytes: float) -> tuple[float, str]:
    """Return (bytes, name) of the unit that suits numbers up to `largest_bytes`."""
    unit = 1.0
    for name in _SIZES:
        if abs(largest_bytes) < unit * 1024 or name == _SIZES[-1]:
            return unit, name
        unit *= 1024
    raise AssertionError("unreachable")


def size(value_bytes: float | None) -> str:
    """Return `97.3 MiB`: to a tenth, without the decimal if it is 0 (`100 MiB`), as `duration` does."""
    if value_bytes is None:
        return UNKNOWN
    unit, name = scale_for(value_bytes)
    scaled = value_bytes / unit
    # 1023.97 KiB must not read "1024.0 KiB".
    if round(abs(scaled), 1) >= 1024 and name != _SIZES[-1]:
        scaled, name = scaled / 1024, _SIZES[_SIZES.index(name) + 1]
    return f"{scaled:.1f}".removesuffix(".0") + f" {name}"


def limit(value_bytes: int | None) -> str:
    """Return the size of a limit, or `no limit` for the value that the kernel prints as "max"."""
    from tracer.schema import UNLIMITED_BYTES  # noqa: PLC0415  it imports Arrow

    if value_bytes is not None and value_bytes >= UNLIMITED_BYTES:
        return "no limit"
    return size(value_bytes)


def count(value: int | None) -> str:
    """Return `1,203`."""
    return UNKNOWN if value is None else f"{value:,}"


def times(value: int) -> str:
    """Return `once`, `twice` or `1,203 times`."""
    return {1: "once", 2: "twice"}.get(value, f"{count(value)} times")


def percent(part: float | None, whole: float | None) -> str:
    """Return `97.1 %`, or an empty text if the share is not defined."""
    if part is None or not whole:
        return ""
    return f"{100 * part / whole:.1f} %"


def in_percent(share: float) -> str:
    """Return `97 %`, rounded down: 100 % means all of the time."""
    percents = math.floor(100 * share) if share < 1 else 100
    return f"{percents} %"


def duration(seconds: float | None) -> str:
    """Return `180 us`, `12.3 ms`, `3.42 s`, `2 min 03 s` or `5 h 02 min`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0:
        return "-" + duration(-seconds)
    if round(seconds, 2) < 60:
        return _short_duration(seconds)
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def round_duration(seconds: float) -> str:
    """Return `2 min` for what `duration` returns as `2 min 00 s`."""
    return duration(seconds).removesuffix(" 00 s").removesuffix(" 00 min")


def coarse_duration(seconds: float, resolution_s: float) -> str:
    """Return `less than 100 ms` or `about 2.3 s`: a duration of up to `seconds`, which may be less by up to
    `resolution_s`. If that is 0, the duration is exact."""
    if not resolution_s:
        return duration(seconds)
    steps = seconds / resolution_s
    if steps <= 1:
        return f"less than {duration(resolution_s)}"
    return f"about {duration(int(round(steps, 6)) * resolution_s)}"


def the(span: str) -> str:
    """Return `the 12.3 ms`, but `less than 100 ms` and `about 2.3 s` as they are: for `in the ... before`."""
    return f"the {span}" if span[0].isdigit() else span


def _short_duration(seconds: float) -> str:
    if seconds == 0:
        return "0 s"
    if round(seconds * 1e6) < 1000:
        return f"{seconds * 1e6:.0f} us"
    if round(seconds * 1e3, 1) < 1000:
        return f"{seconds * 1e3:.1f}".removesuffix(".0") + " ms"
    return f"{seconds:.2f}".removesuffix(".00") + " s"
