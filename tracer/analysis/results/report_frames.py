"""Kills, and cgroups that lived, as DataFrames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import pandas as pd

from tracer.analysis.results.forms import limit_columns
from tracer.analysis.results.kill import OomReport, Victim
from tracer.analysis.results.memory import CodeFrame, GrownCode
from tracer.analysis.results.outcome import WhatIf
from tracer.analysis.results.survivor import Held, Progress

_TIME: Final = "datetime64[ns, UTC]"
_KILL_COLUMNS: Final[Mapping[str, tuple[str, Callable[[OomReport, Victim], Any]]]] = {
    "kill_id": ("int64", lambda it, _: it.kill_id),
    "container": ("str", lambda it, _: it.limit_owner.container),
    "cgroup": ("str", lambda it, _: it.limit_owner.cgroup),
    "cgroup_id": ("Int64", lambda it, _: it.limit_owner.cgroup_id),
    "run": ("Int64", lambda it, _: it.limit_owner.run),
    "victim": ("str", lambda it, victim: victim.comm),
    "pid": ("Int64", lambda it, victim: victim.pid),
    "cause": ("str", lambda it, _: it.verdict.cause),
    "confidence": ("str", lambda it, _: it.verdict.confidence),
    "constraint": ("str", lambda it, _: it.constraint),
    "limit_bytes": ("Int64", lambda it, _: limit_columns(it.limit_owner.limit_bytes)["limit_bytes"]),
    "is_limited": ("boolean", lambda it, _: limit_columns(it.limit_owner.limit_bytes)["is_limited"]),
    "usage_bytes": ("Int64", lambda it, _: it.limit_owner.usage_bytes),
    "limit_reached_at": (_TIME, lambda it, _: it.cushion.limit_reached_at),
    "limit_to_kill_ms": ("Float64", lambda it, _: _ms_between(it.cushion.limit_reached_at, it.time)),
    "anon_rss_bytes": ("Int64", lambda it, victim: victim.anon_rss_bytes),
    "file_rss_bytes": ("Int64", lambda it, victim: victim.file_rss_bytes),
    "shmem_rss_bytes": ("Int64", lambda it, victim: victim.shmem_rss_bytes),
    "oom_score_adj": ("Int64", lambda it, victim: victim.oom_score_adj),
    "evicted_bytes": ("Int64", lambda it, _: it.cushion.evicted_bytes),
    "read_again_bytes": ("Int64", lambda it, _: it.cushion.refaulted_bytes),
    "lost_records": ("Int64", lambda it, _: it.quality.lost_records),
    "summary": ("str", lambda it, _: it.verdict.summary),
}
"""Column -> its type, and its value for a report and one of its victims."""

_HELD_DTYPES: Final = {
    "cgroup": "str",
    "cgroup_id": "Int64",
    "container": "str",
    "run": "Int64",
    "limit_bytes": "Int64",
    "is_limited": "boolean",
    "peak_usage_bytes": "Int64",
    "peak_time": _TIME,
    "kernel_peak_bytes": "Int64",
    "headroom_bytes": "Int64",
    "peak_anon_bytes": "Int64",
    "anon_at_peak_bytes": "Int64",
    "cache_at_peak_bytes": "Int64",
    "shmem_at_peak_bytes": "Int64",
    "kernel_at_peak_bytes": "Int64",
    "peak_swap_bytes": "Int64",
    "evicted_bytes": "Int64",
    "refaulted_bytes": "Int64",
    "kernel_refaulted_bytes": "Int64",
    "max_events": "Int64",
    "high_bytes": "Int64",
    "is_high_limited": "boolean",
    "high_events": "Int64",
    "effective_high_bytes": "Int64",
    "is_effective_high_limited": "boolean",
    "high_owner": "str",
    "psi_some_share": "Float64",
    "state": "str",
    "lost_share": "Float64",
    "stuck_since": _TIME,
}
_CODE_DTYPES: Final = {
    "kill_id": "Int64",
    "cgroup": "str",
    "share": "float64",
    "share_error": "float64",
    "bytes": "int64",
    "of": "str",
    "pid": "Int64",
    "comm": "str",
    "language": "str",
    "function": "str",
    "file": "str",
    "line": "Int64",
    "module": "str",
    "callers": "str",
}
_NO_STACK: Final = CodeFrame("[unknown]", None, None, None)
_OF_PROGRESS: Final = {item.name for item in fields(Progress)}


def kills(reports: Sequence[OomReport]) -> pd.DataFrame:
    """Return a row for each victim of the OOM killer, indexed by `time` (UTC).

    `cgroup`, `container`, `run`, `limit_bytes` and `usage_bytes` describe the cgroup whose limit was hit,
    `victim` and the `_rss_bytes` the task that was killed. `limit_reached_at` (UTC) is the moment at which
    usage reached the limit, and `limit_to_kill_ms` the time from there to the kill. `evicted_bytes` is the
    page cache that gave way in that time, and `read_again_bytes` the part of it that was read again
    (`analysis.explain.measure.window`). `summary` is the verdict in one sentence. NA is "not known".
    `limit_bytes` is NA also where no limit is set; `is_limited` is then false.
    """
    killed = [(report, victim) for report in reports for victim in report.victims]
    columns = {
        name: _column([find(*one) for one in killed], kind) for name, (kind, find) in _KILL_COLUMNS.items()
    }
    times = pd.DatetimeIndex(_column([report.time for report, _ in killed], _TIME), name="time")
    return pd.DataFrame(columns).set_index(times)


def code(reports: Sequence[OomReport], cgroups: Sequence[Held]) -> pd.DataFrame:
    """Return a row for each function that made memory grow: before each kill, and in each cgroup that lived,
    for which `kill_id` is NA.

    `share` is the part of the growth that was sampled, `of` the kind of memory. `function`, `file`, `line`
    and `module` are those of the innermost frame of the program, `callers` the functions above it, nearest
    first, with " < " between; a function with several callers has them, with ", " between. `pid` is NA for
    several processes of one name.
    """
    found: list[tuple[int | None, str | None, tuple[GrownCode, ...]]] = [
        *((report.kill_id, report.limit_owner.cgroup, report.code) for report in reports),
        *((None, one.cgroup, one.code) for one in cgroups),
    ]
    rows: list[dict[str, Any]] = []
    for kill_id, cgroup, grown in found:
        for one in grown:
            inner, *callers = one.frames or (_NO_STACK,)
            rows.append(
                {
                    "kill_id": kill_id,
                    "cgroup": cgroup,
                    **{
                        name: getattr(one, name)
                        for name in ("share", "share_error", "bytes", "of", "language")
                    },
                    "pid": one.process.pid,
                    "comm": one.process.comm,
                    **{name: getattr(inner, name) for name in ("function", "file", "line", "module")},
                    "callers": " < ".join(frame.function for frame in callers)
                    or ", ".join(caller.frame.function for caller in one.callers),
                }
            )
    return _frame(rows, _CODE_DTYPES)


def held(cgroups: Sequence[Held]) -> pd.DataFrame:
    """Return a row for each cgroup, in the order given: its distance to the limit, and what reclaim freed.

    The columns are fields of `analysis.results.survivor.Held` and of its `progress`. NA is "not known".
    `limit_bytes` is NA also where no limit is set; `is_limited` is then false. `high_owner` is the cgroup of
    that field.
    """
    rows = [
        {
            name: getattr(one.progress if name in _OF_PROGRESS else one, name)
            for name in _HELD_DTYPES
            if not name.startswith("is_")
        }
        | limit_columns(one.limit_bytes)
        | limit_columns(one.high_bytes, "high_bytes")
        | limit_columns(one.effective_high_bytes, "effective_high_bytes")
        | {"high_owner": None if one.high_owner is None else one.high_owner.cgroup}
        for one in cgroups
    ]
    return _frame(rows, _HELD_DTYPES)


def _ms_between(begin: pd.Timestamp | None, end: pd.Timestamp | None) -> float | None:
    return None if begin is None or end is None else (end - begin).value / 1e6


def _frame(rows: Sequence[dict[str, Any]], dtypes: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({name: _column([row[name] for row in rows], kind) for name, kind in dtypes.items()})


def _column(values: list[Any], dtype: str) -> pd.Series:
    if dtype.startswith("datetime64"):
        return pd.Series(pd.DatetimeIndex([pd.Timestamp(value) for value in values], tz="UTC").as_unit("ns"))
    return pd.Series(values, dtype="object" if dtype == "str" else dtype)


_OUTCOME_DTYPES: Final = {
    "limit_bytes": "int64",
    "swap_bytes": "Int64",
    "outcome": "str",
    "why": "str",
    "read_again_low_bytes": "Int64",
    "read_again_high_bytes": "Int64",
    "lost_share_low": "Float64",
    "lost_share_high": "Float64",
}


def outcomes(found: WhatIf) -> pd.DataFrame:
    """Return a row for each limit, indexed by `limit_bytes`; NA: not known."""
    rows = [
        (one.limit_bytes, one.swap_bytes, one.outcome, one.why, *one.read_again_bytes, *one.lost_share)
        for one in found.limits
    ]
    frame = pd.DataFrame.from_records(rows, columns=list(_OUTCOME_DTYPES))
    return frame.astype(_OUTCOME_DTYPES).set_index("limit_bytes")
