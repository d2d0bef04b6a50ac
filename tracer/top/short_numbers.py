"""Numbers for narrow columns, in at most six cells. An unknown number is `?`."""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "?"
NONE: Final = "-"
_UNITS: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_SPARKS: Final = "▁▂▃▄▅▆▇█"


def short_size(value_bytes: float | None) -> str:
    """Return `97.3Mi`, `1023Mi`, or `512` (bytes); `-` for 0, `<1` below 1."""
    if value_bytes is None:
        return UNKNOWN
    if not value_bytes:
        return NONE
    if 0 < value_bytes < 1:
        return "<1"
    scaled, unit = float(value_bytes), 0
    while abs(scaled) >= 1023.5 and unit + 1 < len(_UNITS):
        scaled, unit = scaled / 1024, unit + 1
    digits = 0 if unit == 0 or abs(scaled) >= 99.95 else 1
    return f"{scaled:.{digits}f}{_UNITS[unit]}"


def short_percent(value_percent: float | None) -> str:
    """Return `3.2%`, `97%` or `250%`; `-` for 0, `<.1%` below 0.1 %."""
    if value_percent is None:
        return UNKNOWN
    if not value_percent:
        return NONE
    if value_percent < 0.1:
        return "<.1%"
    return f"{value_percent:.{0 if value_percent >= 9.95 else 1}f}%"


def short_time(value_s: float | None) -> str:
    """Return `0.4s`, `37s`, `12m`, `5h` or `3d`, rounded down: a kill must not come earlier than is shown.

    Return `-` for None: no kill is in sight.
    """
    if value_s is None:
        return NONE
    if value_s < 10:
        return f"{int(value_s * 10) / 10:.1f}s"
    for seconds, unit, most in ((1, "s", 100), (60, "m", 100), (3600, "h", 72)):
        if value_s < most * seconds:
            return f"{int(value_s // seconds)}{unit}"
    return f"{min(int(value_s // 86400), 9999)}d"


def sparkline(values: tuple[float | None, ...], cells: int) -> str:
    """Return the last values as one character each, from 0 to the largest value; a gap for unknown values."""
    shown = values[-cells:] if cells else ()
    most = max((value for value in shown if value is not None), default=0)
    marks = [" " if value is None else _spark(value, most) for value in shown]
    return "".join(marks).rjust(cells)


def _spark(value: float, most: float) -> str:
    return _SPARKS[min(int(value / most * len(_SPARKS)), len(_SPARKS) - 1)] if most else _SPARKS[0]
