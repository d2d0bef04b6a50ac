"""The values that each key of meta.json may have.

The file may come from anyone, and code that reads it relies on its types and ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from tracer.trace.value_ranges import LATEST_NS, MOST_RECORDS

MOST_BYTES: Final = 16 << 20
"""The longest meta.json that is read. A command line has at most 2 MiB."""

MOST_DEPTH: Final = 64
"""The deepest nesting of a meta.json that is read; a recorder writes at most 20 levels."""

_LARGEST: Final = (1 << 63) - 1
_LATEST_YEAR: Final = 2200
_DEEPEST: Final = 20

Check = Callable[[Any], bool]


def wrong_keys(meta: Mapping[str, Any]) -> list[str]:
    """Return the keys whose value has a wrong type or is out of range, sorted.

    Keys that this version does not know may have any value.
    """
    return sorted(key for key, check in _CHECKS.items() if key in meta and not check(meta[key]))


def _integer(least: int, most: int = _LARGEST) -> Check:
    return lambda value: type(value) is int and least <= value <= most  # bool is a subclass of int


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _dict_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _keys(**checks: Check) -> Check:
    """Return a check for a dictionary: each of these keys, if present, must pass its check."""
    return lambda value: (
        isinstance(value, dict) and all(check(value[key]) for key, check in checks.items() if key in value)
    )


def _all_of(*checks: Check) -> Check:
    return lambda value: all(check(value) for check in checks)


def _page_size(value: Any) -> bool:
    return type(value) is int and 1 << 10 <= value <= 1 << 20 and value.bit_count() == 1


def _time(value: Any) -> bool:
    """Return whether a value is a time in ISO 8601 with a time zone."""
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return False
    return moment.tzinfo is not None and 1970 < moment.year < _LATEST_YEAR


def _has(*names: str) -> Check:
    """Return a check for a dictionary that must have these keys."""
    return lambda value: isinstance(value, dict) and {*value} >= {*names}


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _LARGEST


def _clock(value: Any) -> bool:
    time_ns = _integer(0, LATEST_NS)
    return _all_of(_has("monotonic_ns", "realtime_ns"), _keys(monotonic_ns=time_ns, realtime_ns=time_ns))(
        value
    )


def _plain(value: Any, depth: int = 0) -> bool:
    """Return whether a value consists of strings, finite numbers, booleans and null, has sizes under names
    that end in `_bytes`, and is not nested too deeply."""
    if isinstance(value, dict):
        return depth < _DEEPEST and all(
            _SIZE(inner) if name.endswith("_bytes") else _plain(inner, depth + 1)
            for name, inner in value.items()
        )
    if isinstance(value, list):
        return depth < _DEEPEST and all(_plain(inner, depth + 1) for inner in value)
    return not isinstance(value, int | float) or abs(value) <= _LARGEST


_SIZE: Final = _or_null(_integer(0))
_PROBE: Final[Check] = lambda value: (  # noqa: E731  a check like the others
    value is None
    or _text(value)
    or _keys(hook=_or_null(_text), meaning=_or_null(_text), detail=_or_null(_text))(value)
)
_CHECKS: Final[Mapping[str, Check]] = {
    "tool_version": _text,
    "kernel_release": _text,
    "architecture": _text,
    "page_size": _page_size,
    "cpus": _integer(1, 1 << 20),
    "boot_id": _or_null(_text),
    "host_name": _text,
    "cgroup_version": _integer(1, 2),
    "cgroup_mount_options": _list_of(_text),
    "memory": _keys(total_bytes=_SIZE, swap_total_bytes=_SIZE, swappiness=_SIZE),
    "clock": _clock,
    "command_line": _list_of(_text),
    "filters": _all_of(
        _plain,
        _keys(
            asked=_list_of(_text),
            cgroups=_or_null(_list_of(_text)),
            command=_or_null(_list_of(_text)),
            limit_bytes=_SIZE,
            swap_bytes=_SIZE,
            stacks_bytes=_SIZE,
        ),
    ),
    "probes": _dict_of(_PROBE),
    "cost": _all_of(_plain, _dict_of(lambda _: True)),
    "started": _time,
    "ended": _or_null(_time),
    "end_reason": _or_null(_text),
    "rows": _or_null(_dict_of(_integer(0))),
    "lost": _or_null(_dict_of(_integer(0, MOST_RECORDS))),  # these become rows of `loss`
    "kernel_log": _text,
    "recorder_cgroup": _text,
    "unrecorded_categories": _list_of(_text),
    "history": _all_of(
        _plain,
        _keys(
            keep_s=_number,
            reason=_text,
            fineness=_list_of(
                _all_of(_keys(begin=_time, every_ms=_integer(0, 1 << 32)), _has("begin", "every_ms"))
            ),
        ),
    ),
    "command_status": _integer(-64, 255),
    "kernel_log_left_out": _dict_of(_integer(0)),
}
